//! Parts of the sample application: its probe client, the name that it was started with, durations in flags, and log lines.

use std::{
    env,
    io::{self, Write},
    path::Path,
    time::Duration,
};

/// Sends one GET request. Returns a one-line error unless the answer is a 2xx in time. An address without a scheme is http.
pub async fn probe(address: &str, within: Duration) -> Result<(), String> {
    let url = if address.contains("://") {
        address.to_owned()
    } else {
        format!("http://{address}")
    };
    let failed = |e: reqwest::Error| format!("{url}: {e:?}");
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(within)
        .build()
        .map_err(failed)?;
    let status = client.get(&url).send().await.map_err(failed)?.status();
    if status.is_success() {
        Ok(())
    } else {
        Err(format!("{url}: {status}"))
    }
}

/// Whether this program was started by this name, through a link or a copy.
pub fn called_as(name: &str) -> bool {
    env::args_os()
        .next()
        .is_some_and(|program| Path::new(&program).file_name() == Some(name.as_ref()))
}

/// Reads `800ms`, `2s`, `5m` or `1h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("`{text}` does not end in ms, s, m or h")),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` does not start with a whole number"))
}

/// Writes a line to stdout. Ignores errors: the program goes on if stdout is closed.
pub fn log(text: &str) {
    drop(writeln!(io::stdout(), "{}", text.replace('\n', "\\n")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_with_a_unit() {
        assert_eq!(duration("800ms"), Ok(Duration::from_millis(800)));
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        for wrong in [
            "",
            "5",
            "s",
            "-1s",
            "1.5s",
            "2 s",
            "1d",
            "99999999999999999999s",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
