//! Skipper. Its duration is a mean, in seconds, which the query turns into milliseconds. Flagger writes these queries without blanks.

use super::{Builtin, Named, Observer, Series};
use crate::metrics::template::Model;

/// Skipper.
#[derive(Clone, Copy, Debug)]
pub struct Skipper;

impl Observer for Skipper {
    fn series(&self, model: &Model) -> Series {
        let [namespace, ingress, service] =
            [&model.namespace, &model.ingress, &model.service].map(|name| as_word(name));
        Series::new(
            format!(
                "route=~\"kube(ew)?_{namespace}__{ingress}_canary__.*__{service}_canary(_[0-9]+)?\""
            ),
            "",
            "skipper_response_duration_seconds_bucket",
            "skipper_serve_route_duration_seconds",
        )
    }

    fn query(&self, metric: Builtin, model: &Model) -> String {
        let series = self.series(model);
        let rate = |counter: &str, more: &str| {
            let (route, interval) = (&series.selector, &model.interval);
            format!("sum(rate({counter}{{{route}{more}}}[{interval}]))")
        };
        match metric {
            Builtin::SuccessRate => {
                let succeeded = rate(series.requests, ",code!~\"5..\",le=\"+Inf\"");
                let all = rate(series.requests, ",le=\"+Inf\"");
                format!(" {succeeded} / {all} * 100")
            }
            Builtin::Duration => {
                let sum = rate(&format!("{}_sum", series.durations), "");
                let count = rate(&format!("{}_count", series.durations), "");
                format!(" {sum} / {count} * 1000")
            }
        }
    }

    /// Skipper's counter of requests is a bucket, and only the query adds the label of the bucket. So the versions cannot be compared by
    /// the selector.
    fn named(&self) -> Named {
        Named::Neither
    }
}

/// A name in the form that it has in the names of Skipper's routes.
fn as_word(name: &str) -> String {
    let word = |letter: char| match letter {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '_' => letter,
        _ => '_',
    };
    name.chars().map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_in_the_names_of_skippers_routes() {
        let model = Model {
            namespace: "my-shop".to_owned(),
            ingress: "web.example".to_owned(),
            service: "back-end".to_owned(),
            ..Model::default()
        };
        let route =
            r#"route=~"kube(ew)?_my_shop__web_example_canary__.*__back_end_canary(_[0-9]+)?""#;
        assert_eq!(Skipper.series(&model).selector, route);
    }
}
