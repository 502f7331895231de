//! PURE: what a metric's value is asked with, and what an answer says; one file per provider.

pub mod observer;
pub mod prometheus;
pub mod template;

/// Text from outside that a user will read is cut to this many bytes.
const SHOWN: usize = 256;

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MetricError {
    /// The server has none, or one that is no number.
    #[error("no values found")]
    NoValues,
    /// The query gives a series, not a value.
    #[error("query returned multiple values")]
    MultipleValues,
    /// The server could not be asked, or its answer not be understood.
    #[error("{0}")]
    Failed(String),
}

/// Text from outside, fit to be shown: one line, no control characters, not long.
pub fn shown(text: &str) -> String {
    let mut line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if line.len() > SHOWN {
        let cut = (0..=SHOWN - 3)
            .rev()
            .find(|i| line.is_char_boundary(*i))
            .unwrap_or(0);
        line.truncate(cut);
        line.push('…');
    }
    line
}

/// A number as Go's `%v` prints it.
pub fn go_float(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return match value {
            _ if value.is_nan() => "NaN".to_owned(),
            _ if value.is_infinite() && value > 0.0 => "+Inf".to_owned(),
            _ if value.is_infinite() => "-Inf".to_owned(),
            _ => "0".to_owned(),
        };
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_print_as_in_go() {
        for (value, text) in [
            (99.0, "99"),
            (99.5, "99.5"),
            (1e6, "1e+06"),
            (1_234_567.0, "1.234567e+06"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (0.0, "0"),
            (-3.5, "-3.5"),
        ] {
            assert_eq!(go_float(value), text);
        }
    }

    #[test]
    fn what_a_hostile_server_says_is_one_short_line() {
        let text = shown(&format!("<html>\n\u{1b}[31m{}", "é".repeat(10_000)));
        assert!(
            text.len() <= 256 && !text.contains(['\n', '\u{1b}']),
            "{text}"
        );
    }
}
