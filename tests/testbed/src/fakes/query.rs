//! The share of requests that a query of the stand-in metrics server selects, by their status codes.

/// The labels of status codes, in the metrics of Istio and of applications.
const CODES: [&str; 2] = ["response_code", "status"];

/// Evaluates the quotient of two sums of requests, of which `succeeded` percent have status 200 and the others 500. Returns `None` if the
/// query is no such quotient, or selects status codes in a form that is not known here.
pub fn quotient(query: &str, succeeded: f64) -> Option<f64> {
    let (dividend, divisor) = query.split_once('/')?;
    let (divisor, factor) = match divisor.rsplit_once('*') {
        Some((divisor, factor)) => (divisor, factor.trim().parse().ok()?),
        None => (divisor, 1.0),
    };
    Some(selected(dividend, succeeded)? / selected(divisor, succeeded)? * factor)
}

/// The number of requests of a hundred that the selector of a sum selects.
fn selected(sum: &str, succeeded: f64) -> Option<f64> {
    let (_, selector) = sum.split_once('{')?;
    let (selector, _) = selector.split_once('}')?;
    let mut requests = vec![("200", succeeded), ("500", 100.0 - succeeded)];
    for matcher in selector.split(',') {
        let name = CODES
            .iter()
            .find_map(|name| matcher.trim().strip_prefix(name));
        if let Some(condition) = name {
            let is_selected = condition_on_codes(condition)?;
            requests.retain(|(code, _)| is_selected(code));
        }
    }
    Some(requests.iter().map(|(_, count)| count).sum())
}

/// Returns the condition of a matcher: an exact code, or a pattern of its beginning.
fn condition_on_codes(text: &str) -> Option<impl Fn(&str) -> bool> {
    let (value, is_negated, is_pattern) = if let Some(value) = text.strip_prefix("!~") {
        (value, true, true)
    } else if let Some(value) = text.strip_prefix("=~") {
        (value, false, true)
    } else if let Some(value) = text.strip_prefix("!=") {
        (value, true, false)
    } else {
        (text.strip_prefix('=')?, false, false)
    };
    let value = value.strip_prefix('"')?.strip_suffix('"')?.to_owned();
    if is_pattern && !value.ends_with(".*") {
        return None;
    }
    Some(move |code: &str| {
        let is_equal = match value.strip_suffix(".*") {
            Some(beginning) if is_pattern => code.starts_with(beginning),
            _ => code == value,
        };
        is_equal != is_negated
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(dividend: &str, divisor: &str) -> Option<f64> {
        let sum = |labels: &str| format!("sum( rate( requests_total{{ a=\"b\"{labels} }}[1m] ) )");
        let query = format!(" {} / {} * 100", sum(dividend), sum(divisor));
        quotient(&query, 97.5)
    }

    #[test]
    fn only_the_selected_status_codes_count() {
        for (dividend, divisor, expected) in [
            (", response_code!~\"5.*\"", "", Some(97.5)),
            (", status!~\"5.*\"", "", Some(97.5)),
            ("", "", Some(100.0)),
            (", response_code!~\"4.*\"", "", Some(100.0)),
            (", response_code=~\"5.*\"", "", Some(2.5)),
            (", response_code=\"200\"", "", Some(97.5)),
            (", response_code!=\"200\"", "", Some(2.5)),
            (", status!~\"5.*\"", ", status!~\"5.*\"", Some(100.0)),
            (", status!~\"(4|5)..\"", "", None),
        ] {
            let found = of(dividend, divisor);
            let difference = found.zip(expected).map(|(a, b): (f64, f64)| (a - b).abs());
            assert_eq!(found.is_some(), expected.is_some(), "{dividend}");
            assert!(difference.is_none_or(|d| d < 1e-9), "{dividend}: {found:?}");
        }
    }

    #[test]
    fn a_share_becomes_percent_only_if_the_query_multiplies_it() {
        let query = "sum(rate(r{status!~\"5.*\"}[1m])) / sum(rate(r{}[1m]))";
        let found = quotient(query, 50.0).unwrap();
        assert!((found - 0.5).abs() < 1e-9, "{found}");
        assert_eq!(quotient("sum(rate(r{}[1m]))", 50.0), None);
    }
}
