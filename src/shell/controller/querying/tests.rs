use std::sync::{Arc, Mutex};

use futures::FutureExt;
use serde_json::json;

use super::*;
use crate::{
    metrics::{Asks, Server, identity::environment::Environment},
    shell::{lock::lock, outside::http::Http},
    snapshot::Method,
};

/// A query of an analysis of Keptn, and the methods of its requests. An analysis takes three seconds.
fn analysis() -> (Querying, Arc<Mutex<Vec<Method>>>) {
    let sent: Arc<Mutex<Vec<Method>>> = Arc::default();
    let seen = sent.clone();
    let http = Http::faked(Arc::new(move |request| {
        let mut sent = lock(&seen);
        sent.push(request.method);
        let state = if sent.len() > 3 {
            "Completed"
        } else {
            "Pending"
        };
        let body = json!({"status": {"state": state, "pass": true}}).to_string();
        futures::future::ready(Ok(HttpResponse { status: 200, body })).boxed()
    }));
    let spec = serde_json::from_value(json!({"type": "keptn"})).unwrap();
    let querying = Querying {
        tokens: Arc::new(Tokens::new(http, Environment::default())),
        namespace: "test".to_owned(),
        query: Query {
            server: Server::of(&spec, None, None).unwrap(),
            asks: Asks::Value("analysis/test/podinfo".to_owned()),
            budget: Duration::from_secs(60),
        },
        begun: Timestamp::UNIX_EPOCH,
    };
    (querying, sent)
}

const ALL: [Method; 5] = [
    Method::Post,
    Method::Get,
    Method::Get,
    Method::Get,
    Method::Delete,
];

#[tokio::test(start_paused = true)]
async fn a_query_of_several_requests_has_one_value() {
    let (querying, sent) = analysis();
    let begun = tokio::time::Instant::now();
    assert_eq!(querying.value().await, Answer::Value(Ok(1.0)));
    assert_eq!(*lock(&sent), ALL);
    assert_eq!(begun.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_a_query_has_created_is_deleted_even_if_the_step_is_given_up() {
    let (querying, sent) = analysis();
    let given_up = tokio::time::timeout(Duration::from_millis(500), querying.value()).await;
    assert!(given_up.is_err());
    assert_eq!(lock(&sent).len(), 1);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(*lock(&sent), ALL);
}

/// Tokens for a server like Azure Monitor, and the requests that were sent: an exchange for a token, or the token of a query. The server
/// accepts only the token with this number. It repeats any other token in its refusal.
fn of_azure(accepted: usize) -> (Tokens, Arc<Mutex<Vec<String>>>) {
    let sent: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = sent.clone();
    let http = Http::faked(Arc::new(move |request| {
        let mut sent = lock(&seen);
        let (status, body) = if request.url.0.starts_with("http://169.254.169.254/") {
            sent.push("token?".to_owned());
            let number = sent.iter().filter(|what| *what == "token?").count();
            let token = format!("hush-{number}");
            (200, json!({"access_token": token, "expires_in": 3600}))
        } else {
            let shown = request.headers[0].1.0.clone();
            let is_accepted = shown == format!("Bearer hush-{accepted}");
            sent.push(shown.clone());
            if is_accepted {
                (200, json!({"data": {"result": [{"value": [1, "5"]}]}}))
            } else {
                (401, json!(format!("bad: {shown}")))
            }
        };
        let body = body.to_string();
        futures::future::ready(Ok(HttpResponse { status, body })).boxed()
    }));
    (Tokens::new(http, Environment::default()), sent)
}

fn asked_of_azure(tokens: &Arc<Tokens>) -> Querying {
    let spec = json!({"type": "azuremonitor", "address": "https://w.prometheus.monitor.azure.com"});
    Querying {
        tokens: tokens.clone(),
        namespace: "test".to_owned(),
        query: Query {
            server: Server::of(&serde_json::from_value(spec).unwrap(), None, None).unwrap(),
            asks: Asks::Value("q".to_owned()),
            budget: Duration::from_secs(9),
        },
        begun: Timestamp::UNIX_EPOCH,
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_not_accepted_is_replaced_and_the_query_sent_once_more() {
    let (tokens, sent) = of_azure(2);
    let tokens = Arc::new(tokens);
    // The first token is new, so it is not replaced yet.
    let refused = Answer::Value(Err(MetricError::Refused(
        r#"Status 401 Unauthorized: "bad: Bearer [redacted]""#.to_owned(),
    )));
    assert_eq!(asked_of_azure(&tokens).value().await, refused);
    assert_eq!(*lock(&sent), ["token?", "Bearer hush-1"]);
    lock(&sent).pop();
    sleep(Duration::from_secs(11)).await;
    let five = Answer::Value(Ok(5.0));
    assert_eq!(asked_of_azure(&tokens).value().await, five);
    assert_eq!(*lock(&sent), ["token?", "token?", "Bearer hush-2"]);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_revoked_fails_no_check() {
    let (tokens, sent) = of_azure(2);
    let tokens = Arc::new(tokens);
    // Fetch a token and keep it before the server refuses it.
    let identity = asked_of_azure(&tokens).query.server;
    let known = identity.identity().unwrap();
    tokens.pass("test", known).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(
        asked_of_azure(&tokens).value().await,
        Answer::Value(Ok(5.0))
    );
    let all = ["token?", "Bearer hush-1", "token?", "Bearer hush-2"];
    assert_eq!(*lock(&sent), all);
}

#[tokio::test(start_paused = true)]
async fn a_query_that_no_token_opens_is_sent_twice_at_most() {
    let (tokens, sent) = of_azure(9);
    let tokens = Arc::new(tokens);
    for expected in [2, 4, 6] {
        assert!(matches!(
            asked_of_azure(&tokens).value().await,
            Answer::Value(Err(MetricError::Refused(_)))
        ));
        assert_eq!(lock(&sent).len(), expected);
        sleep(Duration::from_secs(60)).await;
    }
}

/// The server of this test answers in two pages. Only the second page has the value.
#[tokio::test(start_paused = true)]
async fn each_page_of_cloudwatch_is_signed() {
    let sent: Arc<Mutex<Vec<Vec<String>>>> = Arc::default();
    let seen = sent.clone();
    let http = Http::faked(Arc::new(move |request| {
        let headers = request.headers.iter().map(|(name, _)| name.clone());
        lock(&seen).push(headers.collect());
        let signature = &request.headers.last().unwrap().1.0;
        let scope = "/eu-west-1/monitoring/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target, ";
        assert!(signature.contains(scope), "{signature}");
        let body = request.body.as_deref().unwrap();
        let body = if body.contains(r#""NextToken":"two""#) {
            json!({"MetricDataResults": [{"Id": "e1", "Values": [0.5]}]})
        } else {
            json!({"MetricDataResults": [{"Id": "e1"}], "NextToken": "two"})
        };
        let body = body.to_string();
        futures::future::ready(Ok(HttpResponse { status: 200, body })).boxed()
    }));
    let environment = Environment::of(|name| {
        let is_key = name.starts_with("AWS_SE") || name == "AWS_ACCESS_KEY_ID";
        is_key.then(|| "hush".to_owned())
    });
    let spec = json!({"type": "cloudwatch", "region": "eu-west-1"});
    let querying = Querying {
        tokens: Arc::new(Tokens::new(http, environment)),
        namespace: "test".to_owned(),
        query: Query {
            server: Server::of(&serde_json::from_value(spec).unwrap(), None, None).unwrap(),
            asks: Asks::Value(r#"[{"Id": "e1"}]"#.to_owned()),
            budget: Duration::from_secs(9),
        },
        begun: Timestamp::UNIX_EPOCH,
    };
    assert_eq!(querying.value().await, Answer::Value(Ok(0.5)));
    let names = [
        "Content-Type",
        "X-Amz-Target",
        "X-Amz-Date",
        "X-Amz-Security-Token",
        "Authorization",
    ];
    assert_eq!(*lock(&sent), [names, names]);
}
