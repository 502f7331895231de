//! Google Cloud Monitoring: the answers have the form of Google's documentation of `timeSeries.query`.

use serde_json::json;

use super::{Call, Reading, Row};

const URL: &str = "https://monitoring.googleapis.com/v3/projects/my-project/timeSeries:query";
const HEADERS: &[(&str, &str)] = &[("Content-Type", "application/json")];

/// The row of the table.
pub fn row() -> Row {
    Row {
        spec: json!({"type": "stackdriver", "address": "https://ignored.test"}),
        query: "q",
        secret: &[(
            "project",
            "my-project",
            "stackdriver credentials does not contain a project id",
        )],
        value: Call::post(URL, HEADERS, r#"{"query":"q"}"#),
        online: Call::post(URL, HEADERS, r#"{"query":""}"#),
        online_answer: "{}",
        refused: [
            "error requesting stackdriver: 403 Forbidden: no",
            "unexpected status code: 403 Forbidden: no",
        ],
        answers: answers(),
    }
}

fn answers() -> Vec<(&'static str, Reading)> {
    vec![
        (
            r#"{"timeSeriesDescriptor":{"pointDescriptors":[{"key":"value","valueType":"DOUBLE","metricKind":"GAUGE","unit":"1"}]},"timeSeriesData":[{"labelValues":[{"stringValue":"a"}],"pointData":[{"values":[{"doubleValue":0.5},{"doubleValue":9}],"timeInterval":{"startTime":"2019-12-24T23:59:00Z","endTime":"2019-12-25T00:00:00Z"}},{"values":[{"doubleValue":7}]}]},{"pointData":[{"values":[{"doubleValue":8}]}]}]}"#,
            Reading::Value(0.5),
        ),
        (
            r#"{"timeSeriesData":[{"pointData":[{"values":[{"int64Value":"42"}]}]}]}"#,
            Reading::Value(42.0),
        ),
        (
            r#"{"timeSeriesData":[{"pointData":[{"values":[{"doubleValue":"0.5"}]}]}]}"#,
            Reading::Value(0.5),
        ),
        ("{}", Reading::None("invalid response: {}: no values found")),
        (
            r#"{"timeSeriesData":null}"#,
            Reading::None(r#"invalid response: {"timeSeriesData":null}: no values found"#),
        ),
        (
            r#"{"timeSeriesData":[{"pointData":[{"values":[]}]}]}"#,
            Reading::None(
                r#"invalid response: {"timeSeriesData":[{"pointData":[{"values":[]}]}]}: no values found"#,
            ),
        ),
        (
            r#"{"timeSeriesData":[{"pointData":[{"values":[{"doubleValue":"NaN"}]}]}]}"#,
            Reading::None(
                r#"invalid response: {"timeSeriesData":[{"pointData":[{"values":[{"doubleValue":"NaN"}]}]}]}: no values found"#,
            ),
        ),
        (
            r#"{"timeSeriesData":[{"pointData":[{"values":[{"doubleValue":"Infinity"}]}]}]}"#,
            Reading::None(
                r#"invalid response: {"timeSeriesData":[{"pointData":[{"values":[{"doubleValue":"Infinity"}]}]}]}: no values found"#,
            ),
        ),
        (
            r#"{"timeSeriesData":[{"pointData":[{"values":[{"int64Value":"x"}]}]}]}"#,
            Reading::Error(r#"the value "x" is not a number"#),
        ),
        (
            r#"{"timeSeriesData":[{"pointData":[{"values":[{"boolValue":true}]}]}]}"#,
            Reading::Error(r#"the value "{\"boolValue\":true}" is not a number"#),
        ),
        (
            "<html>Sign in</html>",
            Reading::Error("error unmarshaling result: invalid character '<'"),
        ),
        (
            r#"{"timeSeriesData":[{"po"#,
            Reading::Error("error unmarshaling result: unexpected end of JSON input"),
        ),
    ]
}
