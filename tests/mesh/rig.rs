//! The walkthrough on a cell, a steady client, and what a story does and sees.

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

/// The longest that anything may be waited for.
const PATIENCE: Duration = Duration::from_secs(240);
const PER_SECOND: u32 = 200;
/// The version that the walkthrough begins with.
pub const THREE_ONE_ZERO: &str = "3.1.0";

pub struct Rig {
    pub cell: Cell,
    client: Client,
    _door: Option<PortForward>,
    canaries: Api<Canary>,
    events: Api<Event>,
}

/// What the client sees, and what people are told, from some moment on.
pub struct Story<'a> {
    name: &'static str,
    start: Instant,
    /// The same moment, in the whole seconds that events have.
    second: i64,
    rig: &'a Rig,
}

impl Rig {
    /// Istio, the operator, the application and the load tester, as the walkthrough installs them; users call already.
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
        Self::called(cell, None).await
    }

    /// From here on users call through this door, or through Istio's gateway.
    pub async fn called(cell: Cell, door: Option<PortForward>) -> Self {
        let gateway = door.as_ref().map_or(cell.gateway(), |door| door.outside);
        Self {
            client: users(gateway).await,
            _door: door,
            canaries: Api::namespaced(cell.client(), "test"),
            events: Api::namespaced(cell.client(), "test"),
            cell,
        }
    }

    pub fn story(&self, name: &'static str) -> Story<'_> {
        Story {
            name,
            start: Instant::now(),
            second: Timestamp::now().as_second(),
            rig: self,
        }
    }

    /// The walkthrough's Canary in quick steps, with `revertOnDeletion`, and changes to its analysis.
    pub async fn canary(&self, analysis: Value) {
        let text = read("examples/walkthrough/podinfo-canary.yaml");
        let mut canary: Value = serde_saphyr::from_str(&text).unwrap();
        canary["spec"]["revertOnDeletion"] = json!(true);
        let quick = json!({"interval": "10s", "threshold": 5, "stepWeight": 25});
        for change in [quick, analysis] {
            for (key, value) in change.as_object().unwrap() {
                canary["spec"]["analysis"][key] = value.clone();
            }
        }
        // How fast this machine is decides nothing here.
        canary["spec"]["analysis"]["metrics"][1]["thresholdRange"]["max"] = json!(30_000);
        canary["spec"]["service"]["retries"]["perTryTimeout"] = json!("15s");
        self.cell
            .kubectl()
            .apply(&canary.to_string())
            .await
            .unwrap();
    }

    /// A user deletes the Canary; the primary goes with it.
    pub async fn delete_canary(&self) {
        for gone in [
            ["delete", "canary/podinfo", "--timeout=120s"].as_slice(),
            &[
                "wait",
                "--for=delete",
                "deployment/podinfo-primary",
                "--timeout=60s",
            ],
        ] {
            self.kubectl(&[&["-n", "test"], gone].concat()).await;
        }
    }

    pub async fn image(&self, tag: &str) {
        let image = format!("podinfod=stefanprodan/podinfo:{tag}");
        self.kubectl(&["-n", "test", "set", "image", "deployment/podinfo", &image])
            .await;
        // The run has begun: what is reached from here on is reached by this version.
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

    /// Until nothing is owed, nothing drains, and the target's pods are gone.
    pub async fn rest(&self) {
        self.until("rest", |canary| {
            let conditions = canary.status.as_ref().unwrap().conditions.as_ref();
            conditions.is_some_and(|conditions| conditions.len() == 1)
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
        let seen = until(PATIENCE, what, async || {
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
        if let Err(error) = seen {
            let told = self.told(0).await;
            panic!("{error}\n{}", told.join("\n"));
        }
    }

    /// The events since some second, as people see them.
    async fn told(&self, second: i64) -> Vec<String> {
        let events = self.events.list(&ListParams::default()).await.unwrap();
        let late = events.items.into_iter().filter(|event| {
            let last = event.last_timestamp.as_ref();
            last.is_some_and(|last| last.0.as_second() >= second)
        });
        late.filter_map(|event| event.message).collect()
    }

    /// Kills the application of one pod of the canary, as running out of memory would; when it serves again, deletes the pod.
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

    /// `kill -9` for the processes with this in their command line.
    pub async fn kill(&self, command: &str) {
        self.signal("-KILL", command).await;
    }

    pub async fn signal(&self, signal: &str, command: &str) {
        self.cell
            .on_node(&["pkill", signal, "-f", "--", command])
            .await
            .unwrap();
    }

    /// How many configurations of istiod's Envoy refused.
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
        assert!(metrics.contains("pilot_xds_pushes"), "istiod counts");
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

    /// Ends the cell; nothing of it goes on.
    pub fn end(self) {
        let folder = self.cell.folder().to_owned();
        drop(self.client);
        drop(self.cell);
        let left = processes(&folder);
        assert!(left.is_empty(), "{left:?}");
        assert!(!folder.exists(), "{}", folder.display());
    }
}

impl Story<'_> {
    /// That each call was answered by the application.
    pub async fn no_request_lost(&self) -> Tally {
        let tally = self.rig.client.since(self.start).await;
        eprintln!("  {}: {tally}", self.name);
        assert!(tally.calls > 0, "{}", self.name);
        assert_eq!(tally.lost(), 0, "{}: {tally}", self.name);
        tally
    }

    /// Until an event says so.
    pub async fn told(&self, text: &str) {
        until(PATIENCE, text, async || {
            let told = self.rig.told(self.second).await;
            if told.iter().any(|event| event.contains(text)) {
                return Ok(());
            }
            Err(told.join("\n"))
        })
        .await
        .unwrap();
    }

    /// What a second shows.
    pub async fn short(&self) -> Tally {
        until(PATIENCE, "a second's calls", async || {
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

/// A cell in which the operator, the load tester and the versions of the application are known.
pub async fn cell() -> Cell {
    let built = programs::build(&["flagger", "testbed", "podinfo", "loadtester"]).unwrap();
    let mut images = programs::images(&built);
    images.push(programs::operator(&built.join("flagger")));
    images.push(programs::podinfo(&built, "3.1.2", &["--error-rate=0.3"]));
    Cell::start(&built.join("testbed"), &images).await.unwrap()
}

/// They call from when the gateway serves.
async fn users(gateway: SocketAddr) -> Client {
    let probe = Client::start(gateway, "app.example.com", 10).unwrap();
    until(PATIENCE, "the gateway to serve", async || {
        let recently = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        let seen = probe.since(recently).await;
        (seen.calls > 3 && seen.lost() == 0)
            .then_some(())
            .ok_or(seen.to_string())
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

/// Its text.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap()
}
