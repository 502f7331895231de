//! A real gRPC client, ghz. It makes calls at a constant rate on one connection.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::Value;
use testbed::binaries;

use crate::rig::{Rig, file};

/// Calls a second.
pub const PER_SECOND: u64 = 100;

/// Calls `grpc.health.v1.Health/Check` of a host at this address of the cell, until [`interrupt`]. Checks that each call succeeded.
pub async fn no_call_fails(rig: &Rig, address: &str, host: &str) {
    // It waits for the calls in flight when it is interrupted.
    let end = ["--duration=1h", "--duration-stop=wait", "--concurrency=5"];
    let report = calls(rig, address, host, &end).await.unwrap();
    let (count, statuses) = (&report["count"], &report["statusCodeDistribution"]);
    let errors = &report["errorDistribution"];
    eprintln!("  gRPC: {count} calls, {statuses}");
    assert!(count.as_u64().unwrap() > 0);
    assert_eq!(statuses["OK"], *count, "{statuses}, {errors}");
}

/// Calls until this end. Returns the client's report.
pub async fn calls(rig: &Rig, address: &str, host: &str, end: &[&str]) -> Result<Value, String> {
    let set = tokio::task::spawn_blocking(|| binaries::find_or_build(&[binaries::LOAD]));
    let set = set.await.unwrap().unwrap();
    let proto = file("src/loadtester/health.proto");
    let rate = PER_SECOND.to_string();
    let common = [
        set.path("ghz").unwrap().to_str().unwrap(),
        "--insecure",
        "--authority",
        host,
        "--call",
        "grpc.health.v1.Health/Check",
        "--proto",
        proto.to_str().unwrap(),
        "--timeout=60s",
        "--rps",
        &rate,
        "--format=json",
        address,
    ];
    let command = [&common[..1], end, &common[1..]].concat();
    let report = rig.cell.on_node(&command).await;
    let report = report.map_err(|error| error.to_string())?;
    serde_json::from_str(&report).map_err(|error| error.to_string())
}

/// Ends the client.
pub async fn interrupt(rig: &Rig) {
    rig.signal("-INT", "ghz").await;
}

/// The number of calls that the pods with this label have answered.
pub async fn answered(rig: &Rig, label: &str) -> u64 {
    let client = rig.cell.client();
    let pods: Api<Pod> = Api::namespaced(client.clone(), "test");
    let labelled = ListParams::default().labels(label);
    let mut sum = 0;
    for pod in pods.list(&labelled).await.unwrap() {
        let pod = pod.name_any();
        let path = format!("/api/v1/namespaces/test/pods/{pod}:9797/proxy/metrics");
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        let metrics = client.request_text(request).await.unwrap();
        let mut values = metrics
            .lines()
            .filter_map(|line| line.strip_prefix("grpc_calls_total "));
        sum += values.next().unwrap().parse::<u64>().unwrap();
    }
    sum
}
