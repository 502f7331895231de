//! Azure Monitor: the answers are those of Prometheus.

use serde_json::json;

use super::{Call, Reading, Row};

/// The row of the table.
pub fn row() -> Row {
    Row {
        spec: json!({"type": "azuremonitor", "address": "https://w-1a2b.eastus.prometheus.monitor.azure.com:443"}),
        query: "q",
        secret: &[
            (
                "clientId",
                "c",
                "azuremonitor credentials does not contain a clientId",
            ),
            (
                "tenantId",
                "t",
                "azuremonitor credentials does not contain a tenantId",
            ),
        ],
        value: Call::get(
            "https://w-1a2b.eastus.prometheus.monitor.azure.com/api/v1/query?query=q",
            &[],
        ),
        online: Call::get(
            "https://w-1a2b.eastus.prometheus.monitor.azure.com/api/v1/query?query=vector%281%29",
            &[],
        ),
        online_answer: r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1577232000,"1"]}]}}"#,
        refused: [
            "error response: Status 403 Forbidden: no",
            "running query failed: error response: Status 403 Forbidden: no",
        ],
        answers: answers(),
    }
}

fn answers() -> Vec<(&'static str, Reading)> {
    let none = || Reading::None("no values found");
    vec![
        (
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1545905245.458,"99.5"]}]}}"#,
            Reading::Value(99.5),
        ),
        (
            r#"{"data":{"result":[{"value":[1,"1"]},{"value":[1,"2"]}]}}"#,
            Reading::Value(2.0),
        ),
        (
            r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#,
            none(),
        ),
        ("null", none()),
        (r#"{"data":{"result":[{"value":null}]}}"#, none()),
        (r#"{"data":{"result":[{"value":[1,"NaN"]}]}}"#, none()),
        (r#"{"data":{"result":[{"value":[1,"+Inf"]}]}}"#, none()),
        (r#"{"data":{"result":[{"value":[1,"-Inf"]}]}}"#, none()),
        (
            r#"{"data":{"result":[{"values":[[1,"1"]]}]}}"#,
            Reading::Error("query returned multiple values"),
        ),
        (
            r#"{"data":{"result":[{"value":[1,"x"]}]}}"#,
            Reading::Error(r#"the value "x" is not a number"#),
        ),
        (
            "<html>Sign in</html>",
            Reading::Error("error unmarshaling result: invalid character '<'"),
        ),
        (
            r#"{"data":{"result":[{"va"#,
            Reading::Error("error unmarshaling result: unexpected end of JSON input"),
        ),
    ]
}
