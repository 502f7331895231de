//! External metrics: the lists that adapters serve through the API server.

use serde_json::json;

use super::{Call, Reading, Row};

/// A list of metrics with these values.
macro_rules! list {
    ($($value:literal),*) => {
        concat!(
            r#"{"kind":"ExternalMetricValueList","apiVersion":"external.metrics.k8s.io/v1beta1","metadata":{},"items":["#,
            list!(@items $($value),*),
            "]}"
        )
    };
    (@items) => { "" };
    (@items $first:literal $(, $more:literal)*) => {
        concat!(
            r#"{"metricName":"s0-rabbitmq-orders","metricLabels":null,"timestamp":"2023-05-23T12:00:00Z","value":"#,
            $first,
            "}",
            $(r#",{"metricName":"s0-rabbitmq-orders","metricLabels":{"a":"b"},"timestamp":"2023-05-23T12:00:00Z","value":"#, $more, "}",)*
        )
    };
}

pub fn row() -> Row {
    Row {
        spec: json!({"type": "externalmetrics"}),
        query: "/Shop/S0|orders?x=y&labelSelector=a%3Db%2Cc+in+%28d%29\n",
        secret: &[],
        value: Call::get(
            "https://kubernetes.default.svc/apis/external.metrics.k8s.io/v1beta1/namespaces/Shop/s0%7Corders?labelSelector=a%3Db%2Cc+in+%28d%29&timeout=5s",
            &[],
        ),
        online: Call::get(
            "https://kubernetes.default.svc/apis/external.metrics.k8s.io/v1beta1",
            &[],
        ),
        online_answer: r#"{"kind":"APIResourceList","groupVersion":"external.metrics.k8s.io/v1beta1"}"#,
        refused: [
            "error querying external metrics API: no: 403 Forbidden",
            "external metrics service unavailable: no: 403 Forbidden",
        ],
        answers: answers(),
    }
}

fn answers() -> Vec<(&'static str, Reading)> {
    const NONE: &str = "no external metrics found: no values found";
    vec![
        (list!(r#""1.1111""#), Reading::Value(1.1111)),
        (list!(r#""1500m""#), Reading::Value(1.5)),
        (list!(r#""2Ki""#), Reading::Value(2048.0)),
        (list!("7"), Reading::Value(7.0)),
        (list!(r#""3""#, r#""4""#), Reading::Value(3.0)),
        (list!(), Reading::None(NONE)),
        (r#"{"items":null}"#, Reading::None(NONE)),
        ("{}", Reading::None(NONE)),
        (
            list!(r#""NaN""#),
            Reading::Error(r#"the value "NaN" is not a number"#),
        ),
        (
            list!(r#""1e999""#),
            Reading::Error(r#"the value "1e999" is not a number"#),
        ),
        (
            list!("null"),
            Reading::Error(r#"the value "" is not a number"#),
        ),
        (
            r#"{"items":[{"metricName":"a"}]}"#,
            Reading::Error("error unmarshaling result: missing field `value`"),
        ),
        (
            r#"{"items":[{"value":"1""#,
            Reading::Error("error unmarshaling result: unexpected end of JSON input"),
        ),
    ]
}
