//! Durations as Go reads and prints them (`1m`, `1h2m3.5s`, `500ms`).

use std::{fmt::Write, time::Duration};

/// The reason why a text is not a duration. The messages are those of Go's `time.ParseDuration`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// A number is missing or malformed, or the duration is longer than Go's maximum.
    #[error("time: invalid duration {}", quoted(.0))]
    Invalid(String),
    /// A number has no unit.
    #[error("time: missing unit in duration {}", quoted(.0))]
    MissingUnit(String),
    /// A unit is not known.
    #[error("time: unknown unit {} in duration {}", quoted(.unit), quoted(.text))]
    UnknownUnit {
        /// The unknown unit.
        unit: String,
        /// The complete text.
        text: String,
    },
}

/// Parses a duration like [`read`]. Returns `None` for any other text.
pub fn parse(text: &str) -> Option<Duration> {
    read(text).ok()
}

/// Parses a duration that is not negative, like Go's `time.ParseDuration`.
pub fn read(text: &str) -> Result<Duration, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0_f64;
    while !rest.is_empty() {
        let (number, unit, after) = part(rest);
        let number: f64 = number.parse().map_err(|_| invalid())?;
        if unit.is_empty() {
            return Err(DurationError::MissingUnit(text.to_owned()));
        }
        let seconds = seconds(unit).ok_or_else(|| DurationError::UnknownUnit {
            unit: unit.to_owned(),
            text: text.to_owned(),
        })?;
        total += number * seconds;
        rest = after;
    }
    // Go's durations end at about 292 years.
    if total < 9.2e9 {
        Ok(Duration::from_secs_f64(total))
    } else {
        Err(invalid())
    }
}

/// Splits a text into its first number (with at most one point), the unit after it, and the rest.
fn part(text: &str) -> (&str, &str, &str) {
    let mut points = 0;
    let end = text.find(|c: char| {
        points += i32::from(c == '.');
        points > 1 || !(c.is_ascii_digit() || c == '.')
    });
    let (number, after) = text.split_at(end.unwrap_or(text.len()));
    let end = after.find(|c: char| c.is_ascii_digit() || c == '.');
    let (unit, rest) = after.split_at(end.unwrap_or(after.len()));
    (number, unit, rest)
}

fn seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    })
}

/// Quotes a text like the errors of `time.ParseDuration`: characters that are not printable ASCII are written as escaped bytes.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='\u{7f}' => quoted.push(c),
            _ => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    // Writing to a String cannot fail.
                    let _ = write!(quoted, "\\x{byte:02x}");
                }
            }
        }
    }
    quoted.push('"');
    quoted
}

/// Formats a duration like Go's `Duration.String()`.
pub fn display(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(nanos, 1_000_000)),
        _ => {
            let (hours, minutes) = (duration.as_secs() / 3600, duration.as_secs() / 60 % 60);
            let seconds = decimal(nanos % 60_000_000_000, 1_000_000_000);
            match (hours, minutes) {
                (0, 0) => format!("{seconds}s"),
                (0, _) => format!("{minutes}m{seconds}s"),
                _ => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

fn decimal(nanos: u128, unit: u128) -> String {
    let digits = unit.ilog10() as usize;
    let text = format!("{}.{:0digits$}", nanos / unit, nanos % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_printed_as_in_go() {
        for (text, millis) in [
            ("10s", 10_000),
            ("1m", 60_000),
            ("1h2m3.5s", 3_723_500),
            ("500ms", 500),
            (".5s", 500),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "1min", "s", "-1s", "1 s", "1.2.3s", "1e3s"] {
            assert_eq!(parse(text), None, "{text}");
        }
        for (millis, text) in [
            (0, "0s"),
            (500, "500ms"),
            (1_500, "1.5s"),
            (60_000, "1m0s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(display(Duration::from_millis(millis)), text);
        }
        assert_eq!(display(Duration::from_micros(1_500)), "1.5ms");
        assert_eq!(display(Duration::from_nanos(1_500)), "1.5µs");
    }

    /// The messages are the output of a Go program.
    #[test]
    fn a_text_that_is_no_duration_has_gos_error() {
        for (text, message) in [
            ("", r#"time: invalid duration """#),
            ("s", r#"time: invalid duration "s""#),
            (".s", r#"time: invalid duration ".s""#),
            ("10", r#"time: missing unit in duration "10""#),
            ("1m30", r#"time: missing unit in duration "1m30""#),
            ("1.2.3s", r#"time: missing unit in duration "1.2.3s""#),
            ("1min", r#"time: unknown unit "min" in duration "1min""#),
            ("1 s", r#"time: unknown unit " s" in duration "1 s""#),
            (
                "1\"é",
                r#"time: unknown unit "\"\xc3\xa9" in duration "1\"\xc3\xa9""#,
            ),
            ("9999999h", r#"time: invalid duration "9999999h""#),
        ] {
            assert_eq!(read(text).unwrap_err().to_string(), message, "{text}");
        }
    }

    #[test]
    fn each_unit_has_its_length() {
        for (text, nanos) in [
            ("1ns", 1),
            ("1us", 1_000),
            ("1µs", 1_000),
            ("1μs", 1_000),
            ("1ms", 1_000_000),
            ("1s", 1_000_000_000),
            ("1m", 60_000_000_000),
            ("1h", 3_600_000_000_000),
            ("+1.5h", 5_400_000_000_000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
        for (nanos, text) in [
            (1, "1ns"),
            (999, "999ns"),
            (1_000, "1µs"),
            (999_999, "999.999µs"),
            (1_000_000, "1ms"),
            (999_000_000, "999ms"),
            (59_000_000_000, "59s"),
            (61_000_000_001, "1m1.000000001s"),
            (3_599_000_000_000, "59m59s"),
            (90_000_000_000_000, "25h0m0s"),
        ] {
            assert_eq!(display(Duration::from_nanos(nanos)), text);
        }
    }
}
