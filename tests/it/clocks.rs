//! Checks that the operator uses the API server's clock, which all its replicas share.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use axum::{Json, Router, http::header::DATE, response::IntoResponse};
use flagger_rs::shell::{api_server::Connection, clock};
use jiff::{SignedDuration, Timestamp, fmt::rfc2822::DateTimePrinter};
use serde_json::json;
use testbed::folder::Folder;
use tokio::net::TcpListener;

/// By how many seconds the operator's time is ahead of this machine's.
fn ahead() -> i64 {
    let ahead = clock::now().duration_since(Timestamp::now());
    ahead.round(jiff::Unit::Second).unwrap().as_secs()
}

#[tokio::test]
async fn the_operator_counts_time_by_the_clock_of_the_api_server() {
    let seconds = Arc::new(AtomicI64::new(3600));
    let answer = {
        let seconds = seconds.clone();
        move || {
            let at = Timestamp::now() + SignedDuration::from_secs(seconds.load(Ordering::Relaxed));
            let date = DateTimePrinter::new()
                .timestamp_to_rfc9110_string(&at)
                .unwrap();
            let version = json!({"major": "1", "minor": "35", "gitVersion": "v1.35.0", "gitCommit": "", "gitTreeState": "",
                "buildDate": "", "goVersion": "", "compiler": "", "platform": ""});
            async move { ([(DATE, date)], Json(version)).into_response() }
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    let folder = Folder::new().unwrap();
    let path = folder.path().join("config");
    let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [],
        "contexts": [{"name": "c", "context": {"cluster": "c"}}],
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}]});
    std::fs::write(&path, kubeconfig.to_string()).unwrap();

    let open = async || {
        let kubeconfig = path.display().to_string();
        Connection::open(Some(&kubeconfig), None).await.unwrap();
    };
    open().await;
    assert!((ahead() - 3600).abs() <= 1, "{}", ahead());
    seconds.store(0, Ordering::Relaxed);
    open().await;
    assert!(ahead().abs() <= 1, "{}", ahead());
}
