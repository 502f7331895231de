//! A scenario: a test of one canary in a namespace of its own.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use flagger_rs::api::canary::{Canary, CanaryStatus};
use futures::{FutureExt, TryStreamExt};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, ResourceExt,
    api::PostParams,
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;

use super::{Outcome, Rig};

/// The pause before a watch of the tests begins again.
pub const AGAIN: Duration = Duration::from_millis(100);

/// The changes of canaries that a watch has seen so far. All waiting is based on it: a `get` would sometimes be ahead of the table.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) table: Vec<String>,
    pub(super) now: BTreeMap<String, CanaryStatus>,
}

/// A namespace for one scenario.
pub struct Scenario<'a> {
    pub rig: &'a Rig,
    pub client: Client,
    pub ns: String,
    pub(super) seen: Arc<Mutex<Seen>>,
    watch: tokio::task::JoinHandle<()>,
}

impl Drop for Scenario<'_> {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl<'a> Scenario<'a> {
    /// Runs a scenario. A panic in it is a failure of the scenario.
    pub async fn run<F>(rig: &'a Rig, name: &str, test: impl FnOnce(Self) -> F) -> Outcome
    where
        F: Future<Output = Outcome> + 'a,
    {
        let start = Instant::now();
        let scenario = Self::new(rig, name).await;
        let result = std::panic::AssertUnwindSafe(test(scenario))
            .catch_unwind()
            .await;
        let result = result.unwrap_or_else(|panic| {
            Err(panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                .unwrap_or_default())
        });
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        eprintln!("  {verdict} {name} ({} s)", start.elapsed().as_secs());
        result.map_err(|why| format!("{name}: {why}"))
    }

    pub async fn new(rig: &'a Rig, name: &str) -> Self {
        let client = rig.bed.client();
        let ns: String = name
            .replace('_', "-")
            .chars()
            .take(50)
            .collect::<String>()
            .trim_end_matches('-')
            .to_owned();
        let namespace: Namespace =
            serde_json::from_value(json!({"metadata": {"name": ns}})).unwrap();
        Api::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let canaries: Api<Canary> = Api::namespaced(client.clone(), &ns);
        let watch = tokio::spawn({
            let seen = seen.clone();
            let changes = watcher(canaries, watcher::Config::default()).applied_objects();
            let mut changes = Box::pin(changes);
            async move {
                loop {
                    match changes.try_next().await {
                        Ok(Some(canary)) => {
                            let name = canary.name_any();
                            let status = canary.status.unwrap_or_default();
                            let line = format!("{} {}", status.phase, status.canary_weight);
                            let mut seen = seen.lock().unwrap();
                            if seen.table.last() != Some(&line) {
                                seen.table.push(line);
                            }
                            seen.now.insert(name, status);
                        }
                        Ok(None) => return,
                        // With a longer pause the watch would miss changes right after the API server is back.
                        Err(_) => tokio::time::sleep(AGAIN).await,
                    }
                }
            }
        });
        Self {
            rig,
            client,
            ns,
            seen,
            watch,
        }
    }
}
