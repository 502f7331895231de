//! CloudWatch: its regions, its queries, its errors, and answers of several pages.

use serde_json::{Value, json};

use super::{answer, request};
use crate::metrics::{Asks, MetricError, Next, Query, Server, ServerError};

fn cloudwatch(region: &str) -> Result<Server, ServerError> {
    let spec = json!({"type": "cloudwatch", "region": region});
    Server::of(&serde_json::from_value(spec).unwrap(), None, None)
}

#[test]
fn a_region_of_cloudwatch_leads_to_amazon_only() {
    let error = cloudwatch("").unwrap_err().to_string();
    assert_eq!(error, "region not specified");
    for region in [
        "evil.com/",
        "x@evil.com",
        "eu-west-1.evil.com",
        "a#",
        "a?b",
        "a\\b",
    ] {
        let error = cloudwatch(region).unwrap_err().to_string();
        assert!(error.contains("not the name of a region"), "{error}");
    }
    let server = cloudwatch("cn-north-1").unwrap();
    let url = request(&server, "[]").url.0;
    assert_eq!(url, "https://monitoring.cn-north-1.amazonaws.com.cn/");
    assert!(server.identity().is_some());
}

/// Go reads the names of fields in any case.
#[test]
fn a_query_of_cloudwatch_is_a_list_of_queries() {
    let server = cloudwatch("eu-west-1").unwrap();
    let query = r#"[{"id": "m1", "METRICSTAT": {"metric": {"namespace": "N", "dimensions": [{"name": "a", "Value": "b"}]}, "period": 60}}]"#;
    assert_eq!(server.queried(query), Ok(None));
    let body: Value = serde_json::from_str(&request(&server, query).body.unwrap()).unwrap();
    assert_eq!(
        body["MetricDataQueries"],
        json!([{"Id": "m1", "MetricStat": {"Metric": {"Namespace": "N", "Dimensions": [{"Name": "a", "Value": "b"}]}, "Period": 60}}])
    );
    for (query, start) in [
        ("", "error unmarshaling query: unexpected end of JSON input"),
        ("<x>", "error unmarshaling query: invalid character '<'"),
        ("sum(x)", "error unmarshaling query: expected value"),
        ("{}", "error unmarshaling query: invalid type: map"),
        ("[1]", "error unmarshaling query: invalid type: integer"),
    ] {
        let error = server.queried(query).unwrap_err();
        assert!(error.to_string().starts_with(start), "{query}: {error}");
    }
}

/// Each row has the status, the body, the error about a query, and whether the server is online.
#[test]
fn cloudwatchs_own_words_about_a_refusal_are_shown() {
    let server = cloudwatch("eu-west-1").unwrap();
    let body = |name: &str| {
        json!({"__type": format!("com.amazonaws.cloudwatch#{name}"), "message": "m"}).to_string()
    };
    for (status, body, text, is_online) in [
        (
            400,
            body("InvalidParameterCombinationException"),
            "InvalidParameterCombinationException: m",
            true,
        ),
        (
            400,
            body("MissingRequiredParameterException"),
            "MissingRequiredParameterException: m",
            true,
        ),
        (400, body("ValidationError"), "ValidationError: m", true),
        (
            400,
            body("UnrecognizedClientException"),
            "UnrecognizedClientException: m",
            false,
        ),
        (
            400,
            body("AccessDeniedException"),
            "AccessDeniedException: m",
            false,
        ),
        (
            400,
            body("ThrottlingException"),
            "ThrottlingException: m",
            false,
        ),
        (401, String::new(), "401 Unauthorized: ", false),
        (404, "<html>".to_owned(), "404 Not Found: <html>", false),
        (429, String::new(), "429 Too Many Requests: ", false),
        (
            500,
            body("InternalServiceFault"),
            "InternalServiceFault: m",
            false,
        ),
    ] {
        let answer = answer(status, &body);
        let error = server.value(&answer).unwrap_err().to_string();
        assert_eq!(error, format!("error requesting cloudwatch: {text}"));
        let online = server.online(Ok(&answer));
        assert_eq!(online.is_ok(), is_online, "{body}");
        if let Err(error) = online {
            assert_eq!(error.to_string(), format!("unexpected status code: {text}"));
        }
    }
    let throttled = answer(400, &body("ThrottlingException"));
    assert!(throttled.is_worth_a_retry());
    assert!(!answer(400, &body("ValidationError")).is_worth_a_retry());
}

fn pages(bodies: &[&str]) -> Next {
    let query = Query {
        server: cloudwatch("eu-west-1").unwrap(),
        asks: Asks::Value(r#"[{"Id": "e1"}]"#.to_owned()),
        budget: std::time::Duration::from_secs(9),
    };
    let answers: Vec<_> = bodies.iter().map(|body| Ok(answer(200, body))).collect();
    query.next(jiff::Timestamp::UNIX_EPOCH, &answers)
}

/// AWS computes long queries in parts: `PartialData` means that the values are on another page.
#[test]
fn a_value_on_a_later_page_is_found() {
    let first = r#"{"MetricDataResults": [{"Id": "e1", "StatusCode": "PartialData", "Values": []}, {"Id": "m1", "Values": [7]}], "NextToken": "two"}"#;
    let Next::Send(request, _) = pages(&[first]) else {
        panic!("the next page is not asked for");
    };
    let body: Value = serde_json::from_str(&request.body.unwrap()).unwrap();
    assert_eq!(
        body,
        json!({"EndTime": 0, "MaxDatapoints": 20, "MetricDataQueries": [{"Id": "e1"}], "NextToken": "two", "StartTime": -600})
    );
    let second = r#"{"MetricDataResults": [{"Id": "m1", "Values": [8]}, {"Id": "e1", "Values": [0.5]}], "NextToken": "three"}"#;
    assert_eq!(pages(&[first, second]), Next::Value(Ok(0.5)));
    let empty = r#"{"MetricDataResults": [], "NextToken": ""}"#;
    let none = Next::Value(Err(MetricError::none_in(empty)));
    assert_eq!(pages(&[first, empty]), none);
}

#[test]
fn pages_without_an_end_are_not_read_for_ever() {
    let page = r#"{"MetricDataResults": [], "NextToken": "more"}"#;
    assert!(matches!(pages(&[page; 4]), Next::Send(..)));
    let none = Next::Value(Err(MetricError::none_in(page)));
    assert_eq!(pages(&[page; 5]), none);
}
