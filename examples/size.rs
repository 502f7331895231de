//! Measures the size of the operator: `cargo run --release --bin size`.
//!
//! Prints the bytes of its release binary, and of its memory with 100 idle canaries, as JSON. The exit code is 1 if one of them is over
//! its goal (15 MB, 25 MB).

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a measurement ends at the first thing that goes wrong"
)]

use std::{path::Path, process::ExitCode, time::Duration};

use flagger_rs::api::canary::{Canary, CanaryPhase};
use kube::{Api, Client, api::ListParams};
use serde_json::json;
use testbed::{Bed, programs, wait::until};

const CANARIES: usize = 100;
/// The goals in bytes: of the binary, and of memory.
const GOALS: (u64, u64) = (15_000_000, 25_000_000);

#[tokio::main]
async fn main() -> ExitCode {
    let program = programs::build_release(&["flagger"])
        .unwrap()
        .join("flagger");
    let bed = Bed::start().await.unwrap();
    let overlay = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../kustomize/istio"));
    let (_, kubeconfig) = bed.install(overlay).await.unwrap();
    let operator = bed
        .operator("flagger", &program, &kubeconfig, &["-log-level=info"])
        .await
        .unwrap();
    for i in 0..CANARIES {
        bed.apply(&manifest(&format!("app-{i}"))).await.unwrap();
    }
    until_initialized(bed.client()).await;
    let memory = operator.usage().unwrap().resident_bytes;
    let size = std::fs::metadata(&program).unwrap().len();
    println!(
        "{}",
        json!({"binary_bytes": size, "resident_bytes_with_100_canaries": memory, "goals": [GOALS.0, GOALS.1]})
    );
    operator.terminate().await.unwrap();
    bed.stop().await;
    if size < GOALS.0 && memory < GOALS.1 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A Deployment and its Canary.
fn manifest(name: &str) -> String {
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "app", "image": "app:1"}]}}}});
    let canary = json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": name, "namespace": "default"},
        "spec": {"targetRef": target, "service": {"port": 80}, "analysis": {"interval": "10s", "threshold": 5, "stepWeight": 10}}});
    format!("{deployment}\n---\n{canary}")
}

async fn until_initialized(client: Client) {
    let canaries: Api<Canary> = Api::namespaced(client, "default");
    let patience = Duration::from_secs(300);
    until(patience, "all canaries to be initialized", async || {
        let all = canaries.list(&ListParams::default()).await;
        let all = all.map_err(|error| error.to_string())?.items;
        let is_initialized = |canary: &&Canary| {
            let status = canary.status.as_ref();
            status.is_some_and(|status| status.phase == CanaryPhase::Initialized)
        };
        let count = all.iter().filter(is_initialized).count();
        if count == CANARIES {
            Ok(())
        } else {
            Err(format!("{count} of {CANARIES}"))
        }
    })
    .await
    .unwrap();
}
