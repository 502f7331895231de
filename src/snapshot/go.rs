//! Texts as Go's standard library formats them: Flagger's payloads and messages contain them, so ours must match byte for byte.

/// Escapes JSON as Go's `encoding/json` does: `<`, `>`, `&` and two line separators.
pub fn escaped(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

/// Formats a number as `%v` does.
pub fn float(value: f64) -> String {
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

/// Formats an HTTP status with its name, as `http.Response.Status` does: `502 Bad Gateway`.
pub fn status(status: u16) -> String {
    let name = http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or_default();
    format!("{status} {name}")
}

/// Returns the text of `encoding/json` about a body that is not JSON, for the usual cases: an empty body, or a page of HTML. For others
/// it is the text of `serde_json`.
pub fn json_error(error: &serde_json::Error, body: &str) -> String {
    let first = body
        .trim_start_matches([' ', '\t', '\r', '\n'])
        .chars()
        .next();
    match first {
        _ if error.is_eof() => "unexpected end of JSON input".to_owned(),
        Some(c) if c.is_ascii_punctuation() && !"{[\"-'".contains(c) => {
            format!("invalid character '{c}' looking for beginning of value")
        }
        _ => error.to_string(),
    }
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
            assert_eq!(float(value), text);
        }
    }
}
