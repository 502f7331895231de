//! Keptn: KeptnMetrics as the API server returns them. (Analyses are in `metrics/tests/keptn.rs`.)

use serde_json::json;

use super::{Call, Reading, Row};

/// A KeptnMetric with this status.
macro_rules! metric {
    ($status:literal) => {
        concat!(
            r#"{"apiVersion":"metrics.keptn.sh/v1beta1","kind":"KeptnMetric","metadata":{"name":"speed","namespace":"test"},"#,
            r#""spec":{"fetchIntervalSeconds":10,"provider":{"name":"prometheus"},"query":"sum(x)"},"status":"#,
            $status,
            "}"
        )
    };
}

pub fn row() -> Row {
    const NONE: &str = "could not retrieve KeptnMetric - no value found in resource test/speed";
    let none = || Reading::Error(NONE);
    Row {
        spec: json!({"type": "keptn"}),
        query: "keptnmetric/Test/Speed\n",
        secret: &[],
        value: Call::get(
            "https://kubernetes.default.svc/apis/metrics.keptn.sh/v1beta1/namespaces/test/keptnmetrics/speed",
            &[],
        ),
        online: Call::get(
            "https://kubernetes.default.svc/apis/metrics.keptn.sh/v1beta1",
            &[],
        ),
        online_answer: r#"{"kind":"APIResourceList","groupVersion":"metrics.keptn.sh/v1beta1"}"#,
        refused: [
            "could not retrieve KeptnMetric: no: 403 Forbidden",
            "error response: no",
        ],
        answers: vec![
            (
                metric!(
                    r#"{"value":"3.0","rawValue":"My4w","lastUpdated":"2023-05-23T12:00:00Z"}"#
                ),
                Reading::Value(3.0),
            ),
            (metric!(r#"{"value":"-1e3"}"#), Reading::Value(-1000.0)),
            (metric!(r#"{"value":""}"#), none()),
            (metric!(r#"{"value":null}"#), none()),
            (metric!(r#"{"value":"NaN"}"#), none()),
            (metric!(r#"{"value":"Inf"}"#), none()),
            (
                metric!(r#"{"errMsg":"could not query","value":""}"#),
                none(),
            ),
            // Keptn writes text, never a number.
            (metric!(r#"{"value":3}"#), none()),
            (metric!("null"), none()),
            (
                metric!(r#"{"value":"3ms"}"#),
                Reading::Error(
                    "could not parse value of KeptnMetric test/speed to float: invalid float literal",
                ),
            ),
            (
                r#"{"metadata":{"#,
                Reading::Error("error unmarshaling result: unexpected end of JSON input"),
            ),
        ],
    }
}
