//! CloudWatch: the answers have the form of Amazon's documentation of `GetMetricData`.

use serde_json::json;

use super::{Call, Reading, Row};

const HEADERS: &[(&str, &str)] = &[
    ("Content-Type", "application/x-amz-json-1.0"),
    (
        "X-Amz-Target",
        "GraniteServiceVersion20100801.GetMetricData",
    ),
];

/// The row of the table.
pub fn row() -> Row {
    Row {
        spec: json!({"type": "cloudwatch", "region": "eu-west-1", "address": "https://ignored.test"}),
        query: r#"[{"Id":"e1","Expression":"m1"}]"#,
        secret: &[],
        value: Call::post(
            "https://monitoring.eu-west-1.amazonaws.com/",
            HEADERS,
            r#"{"EndTime":1577232000,"MaxDatapoints":20,"MetricDataQueries":[{"Expression":"m1","Id":"e1"}],"StartTime":1577231400}"#,
        ),
        online: Call::post(
            "https://monitoring.eu-west-1.amazonaws.com/",
            HEADERS,
            r#"{"EndTime":0,"MetricDataQueries":[],"StartTime":0}"#,
        ),
        online_answer: r#"{"MetricDataResults":[],"Messages":[]}"#,
        refused: [
            "error requesting cloudwatch: 403 Forbidden: no",
            "unexpected status code: 403 Forbidden: no",
        ],
        answers: answers(),
    }
}

fn answers() -> Vec<(&'static str, Reading)> {
    vec![
        (
            r#"{"MetricDataResults":[{"Id":"e1","Label":"ErrorRate","StatusCode":"Complete","Timestamps":[1.57723194E9,1.57723188E9],"Values":[0.5,9]},{"Id":"m1","Values":[7]}],"Messages":[]}"#,
            Reading::Value(0.5),
        ),
        (
            r#"{"MetricDataResults":[]}"#,
            Reading::None(r#"invalid response: {"MetricDataResults":[]}: no values found"#),
        ),
        (
            r#"{"MetricDataResults":[{"StatusCode":"Forbidden","Values":[]},{"Values":[7]}]}"#,
            Reading::None(
                r#"invalid response: {"MetricDataResults":[{"StatusCode":"Forbidden","Values":[]},{"Values":[7]}]}: no values found"#,
            ),
        ),
        (
            r#"{"MetricDataResults":[{"Values":[null]}]}"#,
            Reading::None(
                r#"invalid response: {"MetricDataResults":[{"Values":[null]}]}: no values found"#,
            ),
        ),
        (
            r#"{"MetricDataResults":null}"#,
            Reading::None(r#"invalid response: {"MetricDataResults":null}: no values found"#),
        ),
        (
            r#"{"MetricDataResults":[{"Values":["NaN"]}]}"#,
            Reading::Error(r#"error unmarshaling result: invalid type: string "NaN""#),
        ),
        (
            r#"{"MetricDataResults":[{"Values":[1e999]}]}"#,
            Reading::Error("error unmarshaling result: number out of range"),
        ),
        (
            "<html>Sign in</html>",
            Reading::Error("error unmarshaling result: invalid character '<'"),
        ),
        (
            r#"{"MetricDataResults":[{"Va"#,
            Reading::Error("error unmarshaling result: unexpected end of JSON input"),
        ),
    ]
}
