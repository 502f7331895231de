//! InfluxDB: answers in annotated CSV, as its documentation shows them.

use serde_json::json;

use super::{Call, Reading, Row};

pub fn row() -> Row {
    let headers = &[
        ("Authorization", "Token t"),
        ("Content-Type", "application/json"),
    ];
    Row {
        spec: json!({"type": "influxdb", "address": "http://influx:8086/x/"}),
        query: "q",
        secret: &[
            (
                "token",
                "t",
                "influxdb credentials does not contain an authentication token",
            ),
            (
                "org",
                "my team",
                "influxdb credentials does not contain an organisation",
            ),
        ],
        value: Call::post(
            "http://influx:8086/x/api/v2/query?org=my+team",
            headers,
            r#"{"dialect":{"annotations":["datatype","group","default"],"delimiter":",","header":true},"query":"q","type":"flux"}"#,
        ),
        online: Call::post(
            "http://influx:8086/x/api/v2/query?org=my+team",
            headers,
            r#"{"dialect":{"annotations":["datatype","group","default"],"delimiter":",","header":true},"query":"from(bucket: \"default\") |> range(start: -2h) |> group() |> limit(n: 1)","type":"flux"}"#,
        ),
        online_answer: "\r\n",
        refused: [
            "error accessing influxdb query api: no: 403 Forbidden",
            "error accessing influxdb query api: no: 403 Forbidden",
        ],
        answers: values().into_iter().chain(errors()).collect(),
    }
}

/// A table whose column `_value` has the type of the name.
macro_rules! table {
    ($kind:literal, $records:literal) => {
        concat!(
            "#datatype,string,long,dateTime:RFC3339,",
            $kind,
            ",string\r\n#group,false,false,false,false,true\r\n#default,_result,,,,\r\n",
            ",result,table,_time,_value,_field\r\n",
            $records,
            "\r\n"
        )
    };
}

fn values() -> Vec<(&'static str, Reading)> {
    vec![
        // Several records, then several series: the first value of all.
        (
            table!(
                "double",
                ",,0,2020-02-18T10:34:08.135814545Z,1.4,f\r\n,,0,2020-02-18T22:08:44.850214724Z,6.6,f\r\n"
            ),
            Reading::Value(1.4),
        ),
        (
            table!(
                "double",
                ",,0,2020-02-18T10:34:08Z,15.43,a\r\n,,1,2020-02-18T10:34:08Z,59.25,b\r\n"
            ),
            Reading::Value(15.43),
        ),
        (
            concat!(
                table!("long", ",,0,2020-02-18T10:34:08Z,-7,a\r\n"),
                table!("string", ",,1,2020-02-18T10:34:08Z,text,b\r\n")
            ),
            Reading::Value(-7.0),
        ),
        (
            table!("unsignedLong", ",,0,2020-02-18T10:34:08Z,3,a\r\n"),
            Reading::Value(3.0),
        ),
        // No record: Flagger returns 0.
        ("", Reading::None("no values found")),
        ("\r\n", Reading::None("no values found")),
        (table!("double", ""), Reading::None("no values found")),
        (
            table!("double", ",,0,2020-02-18T10:34:08Z,,a\r\n"),
            Reading::None("invalid response: ,,0,2020-02-18T10:34:08Z,,a: no values found"),
        ),
        (
            table!("double", ",,0,2020-02-18T10:34:08Z,NaN,a\r\n"),
            Reading::None("invalid response: ,,0,2020-02-18T10:34:08Z,NaN,a: no values found"),
        ),
        (
            table!("double", ",,0,2020-02-18T10:34:08Z,+Inf,a\r\n"),
            Reading::None("invalid response: ,,0,2020-02-18T10:34:08Z,+Inf,a: no values found"),
        ),
    ]
}

fn errors() -> Vec<(&'static str, Reading)> {
    const ERROR: &str = "#datatype,string,string\r\n#group,true,true\r\n#default,,\r\n,error,reference\r\n\
        ,\"failed to create physical plan: invalid time bounds from procedure from: bounds contain zero time\",897\r\n";
    vec![
        (
            table!("string", ",,0,2020-02-18T10:34:08Z,1.5,a\r\n"),
            Reading::Error("invalid response: ,,0,2020-02-18T10:34:08Z,1.5,a"),
        ),
        (
            "#datatype,string\r\n#default,_result\r\n,result\r\n,a\r\n",
            Reading::Error("invalid response: ,a"),
        ),
        (
            table!("double", ",,0,2020-02-18T10:34:08Z,1.4x,a\r\n"),
            Reading::Error(r#"the value "1.4x" is not a number"#),
        ),
        (
            ERROR,
            Reading::Error(
                "error accessing influxdb query api: failed to create physical plan: invalid time bounds from procedure from: bounds contain zero time",
            ),
        ),
        // A user's column has the name `error`.
        (
            "#datatype,string,string,double\r\n,error,reference,_value\r\n,a,b,4\r\n",
            Reading::Value(4.0),
        ),
        // The query fails after its first rows. Flagger ignores the error.
        (
            concat!(
                table!("double", ",,0,2020-02-18T10:34:08Z,1.4,a\r\n"),
                "#datatype,string,string\r\n,error,reference\r\n,here is an error,\r\n"
            ),
            Reading::Error("error accessing influxdb query api: here is an error"),
        ),
        (
            "#datatype,string,long,double\r\n,result,table,_value\r\n,,0",
            Reading::Error(
                "error accessing influxdb query api: the answer is not annotated CSV: #datatype,string,long,double",
            ),
        ),
        (
            "<html>",
            Reading::Error(
                "error accessing influxdb query api: the answer is not annotated CSV: <html>",
            ),
        ),
        (
            r#"{"result":"1"}"#,
            Reading::Error("error accessing influxdb query api: the answer is not annotated CSV"),
        ),
    ]
}
