//! The walkthrough on a cell with a steady client, and the actions and observations of tests.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use flagger_rs::api::canary::Canary;
use k8s_openapi::{
    api::core::v1::{Event, Pod},
    jiff::Timestamp,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};
use testbed::{
    Cell,
    cell::forward::PortForward,
    client::{Client, Tally},
    programs,
    wait::until,
};

use super::regressions;

/// The longest wait for any one condition.
const PATIENCE: Duration = Duration::from_secs(240);
const PER_SECOND: u32 = 200;
/// The first version of the walkthrough.
pub const THREE_ONE_ZERO: &str = "3.1.0";

pub struct Rig {
    pub cell: Cell,
    client: Client,
    _port: Option<PortForward>,
    canaries: Api<Canary>,
    events: Api<Event>,
}

/// The client's requests and the Canary's events from some moment on.
pub struct Observation<'a> {
    name: String,
    start: Instant,
    /// The same moment in whole seconds, the resolution of events.
    second: i64,
    rig: &'a Rig,
}

impl Rig {
    /// Starts a cell with Istio, and installs the operator, the application and the load tester like the walkthrough. The client is
    /// running.
    pub async fn start() -> Self {
        let cell = cell().await;
        let kubectl = cell.kubectl();
        kubectl
            .apply(&read("examples/walkthrough/ingress-gateway.yaml"))
            .await
            .unwrap();
        kubectl
            .apply(&read("tests/mesh/before.yaml"))
            .await
            .unwrap();
        for folder in ["kustomize/istio", "kustomize/podinfo", "kustomize/tester"] {
            kubectl.apply_kustomize(&file(folder)).await.unwrap();
        }
        for (namespace, name) in [
            ("test", "podinfo"),
            ("test", "flagger-loadtester"),
            ("istio-system", "flagger"),
        ] {
            cell.available(namespace, name).await.unwrap();
        }
        Self::with_client(cell, None).await
    }

    /// Starts the client. It sends requests to this port, or else to Istio's gateway.
    pub async fn with_client(cell: Cell, port: Option<PortForward>) -> Self {
        let gateway = port.as_ref().map_or(cell.gateway(), |port| port.outside);
        Self {
            client: start_client(gateway).await,
            _port: port,
            canaries: Api::namespaced(cell.client(), "test"),
            events: Api::namespaced(cell.client(), "test"),
            cell,
        }
    }

    pub fn observe(&self, name: &str) -> Observation<'_> {
        Observation {
            name: name.to_owned(),
            start: Instant::now(),
            second: Timestamp::now().as_second(),
            rig: self,
        }
    }

    /// Applies the walkthrough's Canary with quick steps, `revertOnDeletion`, and changes to its analysis. A null removes a field.
    pub async fn canary(&self, analysis: Value) {
        let text = read("examples/walkthrough/podinfo-canary.yaml");
        let mut canary: Value = serde_saphyr::from_str(&text).unwrap();
        canary["spec"]["revertOnDeletion"] = json!(true);
        let quick = json!({"interval": "10s", "threshold": 5, "stepWeight": 25});
        for change in [quick, analysis] {
            for (key, value) in change.as_object().unwrap() {
                canary["spec"]["analysis"][key] = value.clone();
            }
            let fields = canary["spec"]["analysis"].as_object_mut().unwrap();
            fields.retain(|_, value| !value.is_null());
        }
        // The speed of this machine must not fail a check.
        canary["spec"]["analysis"]["metrics"][1]["thresholdRange"]["max"] = json!(30_000);
        canary["spec"]["service"]["retries"]["perTryTimeout"] = json!("15s");
        self.cell
            .kubectl()
            .apply(&canary.to_string())
            .await
            .unwrap();
    }

    /// Deletes the Canary, and waits until the primary is deleted with it.
    pub async fn delete_canary(&self) {
        for args in [
            ["delete", "canary/podinfo", "--timeout=120s"].as_slice(),
            &[
                "wait",
                "--for=delete",
                "deployment/podinfo-primary",
                "--timeout=60s",
            ],
        ] {
            self.kubectl(&[&["-n", "test"], args].concat()).await;
        }
    }

    pub async fn image(&self, tag: &str) {
        let image = format!("podinfod=stefanprodan/podinfo:{tag}");
        self.kubectl(&["-n", "test", "set", "image", "deployment/podinfo", &image])
            .await;
        // Wait until the run has begun, so that later phases are those of this version.
        self.until("Progressing or later", |canary| {
            let status = canary.status.as_ref().unwrap();
            !["Initialized", "Succeeded", "Failed"].contains(&status.phase.as_str())
        })
        .await;
    }

    pub async fn weight(&self, weight: i64) {
        self.until(&format!("weight {weight}"), |canary| {
            canary.status.as_ref().unwrap().canary_weight == weight
        })
        .await;
    }

    pub async fn reach(&self, phase: &str) {
        self.until(phase, |canary| {
            canary
                .status
                .as_ref()
                .is_some_and(|status| status.phase.as_str() == phase)
        })
        .await;
    }

    /// Waits until no notification is pending and the target's pods are deleted.
    pub async fn until_idle(&self) {
        self.until("the canary to be idle", |canary| {
            let conditions = canary.status.as_ref().unwrap().conditions.as_ref();
            let mut types = conditions.into_iter().flatten().map(|it| &*it.type_);
            types.all(|type_| matches!(type_, "Promoted" | "Verdict" | "RouteRefs" | "GrpcRoute"))
        })
        .await;
        let gone = [
            "-n",
            "test",
            "wait",
            "--for=delete",
            "pods",
            "-l",
            "app=podinfo",
            "--timeout=60s",
        ];
        self.kubectl(&gone).await;
    }

    pub async fn until(&self, what: &str, reached: impl Fn(&Canary) -> bool) {
        let result = until(PATIENCE, what, async || {
            let canary = self
                .canaries
                .get("podinfo")
                .await
                .map_err(|e| e.to_string())?;
            if reached(&canary) {
                return Ok(());
            }
            Err(format!("{:?}", canary.status))
        })
        .await;
        if let Err(error) = result {
            let messages = self.messages(0).await;
            panic!("{error}\n{}", messages.join("\n"));
        }
    }

    /// The messages of the events since this second.
    async fn messages(&self, second: i64) -> Vec<String> {
        let events = self.events.list(&ListParams::default()).await.unwrap();
        let recent = events.items.into_iter().filter(|event| {
            let last = event.last_timestamp.as_ref();
            last.is_some_and(|last| last.0.as_second() >= second)
        });
        recent.filter_map(|event| event.message).collect()
    }

    /// Kills the application in one pod of the canary. When it serves again, deletes the pod.
    pub async fn kill_a_canary(&self) {
        let pods: Api<Pod> = Api::namespaced(self.cell.client(), "test");
        let canaries = ListParams::default().labels("app=podinfo");
        let pod = pods.list(&canaries).await.unwrap().items.remove(0);
        let name = pod.name_any();
        self.cell.crash("test", &name, "podinfod").await.unwrap();
        until(PATIENCE, "the application to serve again", async || {
            let pod = pods.get(&name).await.map_err(|e| e.to_string())?;
            let status = pod.status.and_then(|status| status.container_statuses);
            let again = status.iter().flatten();
            again
                .into_iter()
                .any(|container| container.restart_count > 0 && container.ready)
                .then_some(())
                .ok_or_else(|| format!("{status:?}"))
        })
        .await
        .unwrap();
        pods.delete(&name, &DeleteParams::default()).await.unwrap();
    }

    /// The client's requests between two times of the clock.
    pub fn between(&self, from: Timestamp, to: Timestamp) -> Tally {
        let (instant, now) = (Instant::now(), Timestamp::now());
        let at = |time: Timestamp| instant.checked_sub(now.duration_since(time).unsigned_abs());
        self.client.between(at(from).unwrap(), at(to).unwrap())
    }

    /// `spec` of the newest record of a run.
    pub async fn last_record(&self) -> Value {
        let args = [
            "-n",
            "test",
            "get",
            "releases",
            "--sort-by=.spec.startedAt",
            "-o",
            "json",
        ];
        let list: Value = serde_json::from_str(&self.kubectl(&args).await).unwrap();
        list["items"].as_array().unwrap().last().unwrap()["spec"].clone()
    }

    pub async fn replicas(&self, deployment: &str) -> i64 {
        let args = [
            "-n",
            "test",
            "get",
            "deployment",
            deployment,
            "-o",
            "jsonpath={.spec.replicas}",
        ];
        self.kubectl(&args).await.trim().parse().unwrap()
    }

    pub async fn delete_pods(&self, namespace: &str, label: &str) {
        self.kubectl(&[
            "-n",
            namespace,
            "delete",
            "pods",
            "-l",
            label,
            "--wait=false",
        ])
        .await;
    }

    /// Sends SIGKILL to the processes whose command line contains this text.
    pub async fn kill(&self, command: &str) {
        self.signal("-KILL", command).await;
    }

    pub async fn signal(&self, signal: &str, command: &str) {
        self.cell
            .on_node(&["pkill", signal, "-f", "--", command])
            .await
            .unwrap();
    }

    /// The number of configurations from istiod that Envoys have rejected.
    pub async fn rejected(&self) -> u64 {
        let args = [
            "-n",
            "istio-system",
            "get",
            "pods",
            "-l",
            "app=istiod",
            "-o",
            "jsonpath={.items[0].metadata.name}",
        ];
        let pod = self.kubectl(&args).await;
        let path = format!(
            "/api/v1/namespaces/istio-system/pods/{}:15014/proxy/metrics",
            pod.trim()
        );
        let metrics = self.kubectl(&["get", "--raw", &path]).await;
        assert!(
            metrics.contains("pilot_xds_pushes"),
            "istiod has no metrics"
        );
        let rejects = metrics
            .lines()
            .filter(|line| line.starts_with("pilot_total_xds_rejects"));
        rejects
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .map(|count| count as u64)
            .sum()
    }

    pub async fn kubectl(&self, args: &[&str]) -> String {
        self.cell.kubectl().run(args).await.unwrap()
    }

    /// Ends the cell, and checks that no process and no file is left.
    pub fn end(self) {
        let folder = self.cell.folder().to_owned();
        drop(self.client);
        drop(self.cell);
        let left = processes(&folder);
        assert!(left.is_empty(), "{left:?}");
        assert!(!folder.exists(), "{}", folder.display());
    }
}

impl Observation<'_> {
    /// Checks that the application answered every request.
    pub async fn no_request_lost(&self) -> Tally {
        let tally = self.rig.client.since(self.start).await;
        eprintln!("  {}: {tally}", self.name);
        assert!(tally.calls > 0, "{}", self.name);
        assert_eq!(tally.lost(), 0, "{}: {tally}", self.name);
        tally
    }

    /// Waits until an event contains this text.
    pub async fn event(&self, text: &str) {
        until(PATIENCE, text, async || {
            let messages = self.rig.messages(self.second).await;
            if messages.iter().any(|event| event.contains(text)) {
                return Ok(());
            }
            Err(messages.join("\n"))
        })
        .await
        .unwrap();
    }

    /// Waits for the requests of one second, and checks that none is lost.
    pub async fn one_second(&self) -> Tally {
        until(PATIENCE, "the requests of one second", async || {
            let tally = self.rig.client.since(self.start).await;
            (tally.calls >= PER_SECOND as usize)
                .then_some(())
                .ok_or(tally.to_string())
        })
        .await
        .unwrap();
        self.no_request_lost().await
    }
}

/// Starts a cell with images of the operator, the load tester and the versions of the application.
pub async fn cell() -> Cell {
    let built = programs::build(&["flagger", "testbed", "podinfo", "loadtester"]).unwrap();
    let mut images = programs::images(&built);
    images.push(programs::operator(&built.join("flagger")));
    images.push(programs::podinfo(&built, "3.1.2", &["--error-rate=0.3"]));
    images.push(programs::podinfo(&built, "3.1.9", &["--error-rate=0.05"]));
    let worse = regressions::WORSE.map(|(tag, flags, ..)| (tag, flags));
    for (tag, flags) in [regressions::PRIMARY, regressions::EQUAL]
        .into_iter()
        .chain(worse)
    {
        images.push(programs::podinfo(&built, tag, flags));
    }
    Cell::start(&built.join("testbed"), &images).await.unwrap()
}

/// Starts the client as soon as the gateway serves.
async fn start_client(gateway: SocketAddr) -> Client {
    let probe = Client::start(gateway, "app.example.com", 10).unwrap();
    until(PATIENCE, "the gateway to serve", async || {
        let recently = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        let tally = probe.since(recently).await;
        (tally.calls > 3 && tally.lost() == 0)
            .then_some(())
            .ok_or(tally.to_string())
    })
    .await
    .unwrap();
    Client::start(gateway, "app.example.com", PER_SECOND).unwrap()
}

/// The processes whose command line names a folder.
pub fn processes(folder: &Path) -> Vec<String> {
    let all = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = all.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    let name = folder.display().to_string();
    lines.filter(|line| line.contains(&name)).collect()
}

/// A file of this repository.
pub fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The text of a file of this repository.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap()
}
