//! How big the operator is: `cargo run --release --example size`. Prints the size of its release binary, and of its memory with 100
//! settled canaries, as JSON; exit code 1 if one is over its goal (15 MB, 25 MB).

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "an example shows, and ends where something is wrong"
)]

use std::{path::Path, process::ExitCode, time::Duration};

use flagger_rs::api::canary::{Canary, CanaryPhase};
use kube::{Api, api::ListParams};
use serde_json::json;
use testbed::{Bed, wait::until};

const CANARIES: usize = 100;
const GOALS: (u64, u64) = (15_000_000, 25_000_000);

#[tokio::main]
async fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cargo = std::env::var_os("CARGO").unwrap();
    assert!(
        std::process::Command::new(cargo)
            .args(["build", "--release", "--bin", "flagger"])
            .current_dir(root)
            .status()
            .unwrap()
            .success()
    );
    let program = std::env::current_exe()
        .unwrap()
        .ancestors()
        .nth(3)
        .unwrap()
        .join("release/flagger");
    let bed = Bed::start().await.unwrap();
    let (_, kubeconfig) = bed.install(&root.join("kustomize/istio")).await.unwrap();
    let operator = bed
        .operator("flagger", &program, &kubeconfig, &["-log-level=info"])
        .await
        .unwrap();
    for i in 0..CANARIES {
        let name = format!("app-{i}");
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name});
        let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "default"},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "app", "image": "app:1"}]}}}});
        let canary = json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": name, "namespace": "default"},
            "spec": {"targetRef": target, "service": {"port": 80}, "analysis": {"interval": "10s", "threshold": 5, "stepWeight": 10}}});
        bed.apply(&format!("{deployment}\n---\n{canary}"))
            .await
            .unwrap();
    }
    let canaries: Api<Canary> = Api::namespaced(bed.client(), "default");
    until(
        Duration::from_secs(300),
        "all canaries to be initialized",
        async || {
            let all = canaries
                .list(&ListParams::default())
                .await
                .map_err(|error| error.to_string())?
                .items;
            let idle = |canary: &&Canary| {
                canary
                    .status
                    .as_ref()
                    .is_some_and(|status| status.phase == CanaryPhase::Initialized)
            };
            let count = all.iter().filter(idle).count();
            if count == CANARIES {
                Ok(())
            } else {
                Err(format!("{count} of {CANARIES}"))
            }
        },
    )
    .await
    .unwrap();
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
