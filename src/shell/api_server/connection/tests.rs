use serde_json::json;
use testbed::{folder::Folder, https::HttpsServer};

use super::*;
use crate::shell::telemetry::canary_metrics::CanaryMetrics;

/// An API server that only reports its version.
async fn api_server() -> HttpsServer {
    let version = json!({"major": "1", "minor": "34", "gitVersion": "v1.34.0", "gitCommit": "", "gitTreeState": "", "buildDate": "",
        "goVersion": "", "compiler": "", "platform": ""});
    let answer = http::Response::builder().header("content-type", "application/json");
    let answer = answer.body(version.to_string()).unwrap();
    HttpsServer::start(answer).await.unwrap()
}

/// Connects with a kubeconfig that has this address and trusts this certificate.
async fn open(
    server: &str,
    certificate: &str,
    master: Option<&str>,
) -> Result<Connection, ConnectError> {
    let folder = Folder::new().unwrap();
    let (trusted, kubeconfig) = (folder.path().join("ca.crt"), folder.path().join("config"));
    std::fs::write(&trusted, certificate).unwrap();
    let content = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [],
        "contexts": [{"name": "c", "context": {"cluster": "c"}}],
        "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority": trusted}}]});
    std::fs::write(&kubeconfig, content.to_string()).unwrap();
    Connection::open(Some(&kubeconfig.display().to_string()), master).await
}

#[tokio::test]
async fn the_certificate_of_the_api_server_must_be_the_one_of_the_kubeconfig() {
    let (server, other) = (api_server().await, api_server().await);
    open(&server.url, &server.certificate, None).await.unwrap();
    let refused = open(&server.url, &other.certificate, None).await;
    let Err(ConnectError::Unreachable(_)) = refused else {
        panic!("connected to a server that has another certificate");
    };
}

#[tokio::test]
async fn the_master_flag_replaces_the_address_of_the_kubeconfig() {
    let server = api_server().await;
    let nowhere = "https://127.0.0.1:1";
    let with = async |master| open(nowhere, &server.certificate, master).await;
    assert!(with(None).await.is_err());
    with(Some(&server.url)).await.unwrap();
    let invalid = with(Some("no address")).await;
    assert!(matches!(invalid, Err(ConnectError::Master(_))));
}

#[tokio::test]
async fn a_reader_may_not_write_and_a_candidate_not_yet() {
    let server = api_server().await;
    let connection = open(&server.url, &server.certificate, None).await.unwrap();
    let metrics = CanaryMetrics::new().unwrap().operator_metrics().unwrap();
    assert!(!connection.reader(metrics).may_write());
    let (_candidate, leadership) = connection.candidate("kube-system", None, "a".to_owned());
    assert!(!leadership.may_write());
}
