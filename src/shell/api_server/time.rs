//! Keeps the operator's clock at that of the API server.

use http::{HeaderMap, Response};
use jiff::{Timestamp, fmt::rfc2822};
use tower::util::MapResponseLayer;

use crate::shell::clock;

/// A layer that keeps the operator's clock at that of the API server.
pub(super) fn keep_time<B>() -> MapResponseLayer<fn(Response<B>) -> Response<B>> {
    MapResponseLayer::new(|answer: Response<B>| {
        if let Some(at) = date(answer.headers()) {
            clock::observe(at);
        }
        answer
    })
}

/// The time at which an answer was made.
fn date(headers: &HeaderMap) -> Option<Timestamp> {
    let date = headers.get(http::header::DATE)?.to_str().ok()?;
    Some(rfc2822::parse(date).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_an_answer_is_that_of_its_header() {
        let at = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(http::header::DATE, text.parse().unwrap());
            date(&headers)
        };
        let expected: Timestamp = "1994-11-06T08:49:37Z".parse().unwrap();
        assert_eq!(at("Sun, 06 Nov 1994 08:49:37 GMT"), Some(expected));
        assert_eq!(at("yesterday"), None);
        assert_eq!(date(&HeaderMap::new()), None);
    }
}
