use std::sync::{Arc, Mutex};

use futures::FutureExt;
use serde_json::json;

use super::*;
use crate::{
    metrics::{Asks, Server},
    shell::lock::lock,
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
        http,
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
