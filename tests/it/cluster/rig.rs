//! A bed with the operator on it, and what a scenario does and sees.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::{FutureExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Event, Namespace};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};
use testbed::{Bed, bed::ACCOUNT, operator::Operator, proxy::Proxy, wait::until};

use crate::files;
use flagger_rs::{
    api::canary::{Canary, CanaryStatus},
    snapshot::{Kind, ObjectRef},
};

pub const FLAGGER: &str = env!("CARGO_BIN_EXE_flagger");
/// The longest that a phase may be waited for.
pub const PATIENCE: Duration = Duration::from_secs(240);
/// The pause before a watch of ours begins anew.
pub const AGAIN: Duration = Duration::from_millis(100);

pub type Outcome = Result<(), String>;

/// A bed; with an operator under its ServiceAccount's rights, if it was started.
pub struct Rig {
    pub bed: Bed,
    pub operator: Option<Operator>,
    kubeconfig: std::path::PathBuf,
}

impl Rig {
    /// A bed with the operator installed and running.
    pub async fn start(args: &[&str]) -> Self {
        let mut rig = Self::idle().await;
        rig.operator = Some(rig.launch("flagger", args).await.unwrap());
        rig
    }

    /// A bed with the operator installed, as `kubectl apply -k kustomize/istio` does, but no process of it.
    pub async fn idle() -> Self {
        let bed = Bed::start().await.unwrap();
        let (installed, kubeconfig) = bed.install(&files::path("kustomize/istio")).await.unwrap();
        assert_eq!(installed.lines().count(), 7, "{installed}");
        for (overlay, file) in [
            ("kustomize/istio", "istio"),
            ("kustomize/tester", "loadtester"),
        ] {
            let built = files::path(overlay).display().to_string();
            let plain = bed.kubectl(&["kustomize", &built]).await.unwrap();
            let file = format!("deploy/{file}.yaml");
            assert!(
                plain == std::fs::read_to_string(files::path(&file)).unwrap(),
                "{file} is stale: kubectl kustomize {overlay} > {file}"
            );
        }
        Self {
            bed,
            kubeconfig,
            operator: None,
        }
    }

    /// An operator process, with no more than its ServiceAccount's rights, and Flagger's command line.
    pub async fn launch(&self, name: &str, args: &[&str]) -> Result<Operator, String> {
        self.launch_with(&self.kubeconfig, name, args).await
    }

    /// A proxy that an operator can be led through, with no more than its ServiceAccount's rights.
    pub async fn proxy(&self, name: &str) -> Result<Proxy, String> {
        Proxy::start(name, &self.kubeconfig, self.bed.folder())
            .await
            .map_err(text)
    }

    /// An operator process that is led by this kubeconfig.
    pub async fn launch_with(
        &self,
        kubeconfig: &Path,
        name: &str,
        args: &[&str],
    ) -> Result<Operator, String> {
        let mut all = vec![
            "-log-level=debug",
            "-mesh-provider=istio",
            "-metrics-server=http://prometheus:9090",
            "-slack-url=http://slack/global",
            "-slack-channel=general",
            "-event-webhook=http://events/all",
        ];
        all.extend(args);
        self.bed
            .operator(name, Path::new(FLAGGER), kubeconfig, &all)
            .await
            .map_err(text)
    }

    /// A kubeconfig with the rights of the operator's account.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Puts Flagger's CRDs and rights in the place of ours, as they are where only the image was changed.
    pub async fn with_flaggers_kinds_and_rights(&self) -> Outcome {
        let find = || testbed::binaries::find_or_build(&[testbed::binaries::FLAGGER]);
        let found = tokio::task::spawn_blocking(find).await.map_err(text)?;
        let found = found.map_err(text)?;
        let kubectl = async |args: &[&str]| self.bed.kubectl(args).await.map_err(text);
        let path = found.path("flagger-crds.yaml").map_err(text)?;
        let said = kubectl(&["replace", "-f", &path.display().to_string()]).await?;
        ensure(said.lines().count() == 3, said)?;
        let account = found.path("flagger-account.yaml").map_err(text)?;
        let account = std::fs::read_to_string(account).map_err(text)?;
        let parts = account.split("\n---\n");
        let role = parts
            .into_iter()
            .find(|part| part.contains("\nkind: ClusterRole\n"));
        let role = role.ok_or("Flagger's account has no ClusterRole")?;
        self.bed.apply(role).await.map_err(text)?;
        // The API server serves the new schema some moments later.
        until(PATIENCE, "Flagger's CRDs", async || {
            let said = kubectl(&["explain", "canary.spec.analysis.webhooks"]).await?;
            let is_ours = said.contains("When it is called, and what its answer decides");
            if is_ours { Err(said) } else { Ok(()) }
        })
        .await
        .map_err(text)
    }

    /// `kubectl explain` helps.
    pub async fn explained(&self) -> Outcome {
        let said = self
            .bed
            .kubectl(&["explain", "canary.spec.analysis.webhooks"])
            .await
            .map_err(text)?;
        ensure(
            said.contains("When it is called, and what its answer decides"),
            said,
        )
    }

    /// No request was refused for want of a right, and no right was never used.
    pub fn rights(&self) -> Outcome {
        let audit = self.bed.audit().map_err(text)?;
        let ours: Vec<_> = audit.iter().filter(|line| line.user == ACCOUNT).collect();
        let refused: BTreeSet<_> = ours
            .iter()
            .filter(|line| line.code == 403)
            .map(|line| format!("{} {}", line.verb, line.resource))
            .collect();
        if !refused.is_empty() {
            return Err(format!("rights: refused: {refused:?}"));
        }
        let used: BTreeSet<_> = ours
            .iter()
            .map(|line| (line.group.clone(), line.resource.clone(), line.verb.clone()))
            .collect();
        let granted = granted();
        let unused: Vec<_> = granted
            .iter()
            .filter(|right| !used.contains(right))
            // Owner references need the first on some clusters; the others are for several processes, for restarts, and for a write that
            // lost: other beds use them. What is watched is read only if it was named too late for the list, and listed only by an API
            // server that sends no list as a stream.
            .filter(|(group, resource, verb)| {
                let is_watched =
                    granted.contains(&(group.clone(), resource.clone(), "watch".to_owned()));
                resource != "canaries/finalizers"
                    && resource != "leases"
                    && !(verb == "get" && resource == "events")
                    && !(matches!(verb.as_str(), "get" | "list") && is_watched)
            })
            .collect();
        if unused.is_empty() {
            Ok(())
        } else {
            Err(format!("rights: granted and never used: {unused:?}"))
        }
    }

    /// Ends the bed; fails with what failed, if anything.
    pub async fn end(mut self, failed: Vec<String>) {
        if let Some(operator) = self.operator.take() {
            let code = operator.terminate().await.unwrap();
            assert!(code.success(), "the operator ends with 0, not {code}");
        }
        if !failed.is_empty() {
            self.bed.keep_folder();
        }
        self.bed.stop().await;
        assert!(
            failed.is_empty(),
            "{} failed:\n\n{}",
            failed.len(),
            failed.join("\n\n")
        );
    }
}

/// The rights of the ClusterRole, one by one.
fn granted() -> Vec<(String, String, String)> {
    let account =
        std::fs::read_to_string(files::path("kustomize/base/flagger/account.yaml")).unwrap();
    let role: Value = account
        .split("\n---\n")
        .map(|doc| serde_saphyr::from_str(doc).unwrap())
        .find(|doc: &Value| doc["kind"] == "ClusterRole")
        .unwrap();
    let list = |value: &Value| {
        value
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let mut all = Vec::new();
    for rule in role["rules"].as_array().unwrap() {
        for group in list(&rule["apiGroups"]) {
            for resource in list(&rule["resources"]) {
                for verb in list(&rule["verbs"]) {
                    all.push((group.clone(), resource.clone(), verb));
                }
            }
        }
    }
    all
}

pub fn text(error: impl Display) -> String {
    error.to_string()
}

/// One story in a namespace of its own.
pub struct Scenario<'a> {
    pub rig: &'a Rig,
    pub client: Client,
    pub ns: String,
    seen: Arc<Mutex<Seen>>,
    watch: tokio::task::JoinHandle<()>,
}

/// What a watch of the namespace's canaries has seen so far. Waiting and the table are read from it alone: a `get` beside it would be
/// ahead of it at times.
#[derive(Default)]
struct Seen {
    table: Vec<String>,
    now: BTreeMap<String, CanaryStatus>,
}

impl Drop for Scenario<'_> {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl<'a> Scenario<'a> {
    /// Runs a story; a panic in it is its failure.
    pub async fn run<F>(rig: &'a Rig, name: &str, story: impl FnOnce(Self) -> F) -> Outcome
    where
        F: Future<Output = Outcome> + 'a,
    {
        let start = Instant::now();
        let scenario = Self::new(rig, name).await;
        let result = std::panic::AssertUnwindSafe(story(scenario))
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

    /// What the operator asked of the API server about objects of this namespace, so far.
    pub fn requests(&self) -> Result<Vec<testbed::Audit>, String> {
        let audit = self.rig.bed.audit().map_err(text)?;
        let ours = |line: &testbed::Audit| line.user == ACCOUNT && line.namespace == self.ns;
        Ok(audit.into_iter().filter(ours).collect())
    }

    /// Until so much time passed that a canary had at least three ticks: the operator renews its watches every half a minute; the log tells
    /// when one begins and when it ends.
    pub async fn ticks(&self) -> Outcome {
        let renewals = || -> Result<usize, String> {
            let audit = self.rig.bed.audit().map_err(text)?;
            let of_canaries = |line: &&testbed::Audit| {
                line.user == ACCOUNT && line.verb == "watch" && line.resource == "canaries"
            };
            Ok(audit.iter().filter(of_canaries).count())
        };
        let before = renewals()?;
        until(
            Duration::from_secs(150),
            "two renewals of a watch",
            async || {
                let now = renewals()?;
                if now >= before + 4 {
                    Ok(())
                } else {
                    Err(format!("{now} of {}", before + 4))
                }
            },
        )
        .await
        .map_err(text)
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
                        // Whoever waits longer misses what happens when the API server is back.
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

    /// A Deployment `podinfo` with two ready pods.
    pub async fn podinfo(&self) -> Outcome {
        self.workload().await?;
        until(PATIENCE, "two ready pods", async || {
            let deployment = self.get(Kind::Deployment, "podinfo").await?;
            let ready = deployment
                .pointer("/status/availableReplicas")
                .and_then(Value::as_i64);
            (ready == Some(2))
                .then_some(())
                .ok_or_else(|| format!("{ready:?}"))
        })
        .await
        .map_err(text)
    }

    /// A Deployment `podinfo` and its HPA.
    pub async fn workload(&self) -> Outcome {
        for object in workload() {
            self.apply(&object).await?;
        }
        Ok(())
    }

    /// The walkthrough's Canary with an interval of ten seconds, and changes to it.
    pub async fn canary(&self, analysis: Value) -> Outcome {
        self.apply(&self.canary_named("podinfo", analysis)).await
    }

    pub fn canary_named(&self, name: &str, analysis: Value) -> Value {
        let mut all = json!({"interval": "10s", "threshold": 2,
            "metrics": [{"name": "request-success-rate", "thresholdRange": {"min": 99}, "interval": "1m"},
                {"name": "request-duration", "thresholdRange": {"max": 500}, "interval": "30s"}],
            "webhooks": [{"name": "acceptance-test", "type": "pre-rollout", "url": format!("http://hooks/{}/acceptance", self.ns), "timeout": "30s"},
                {"name": "load-test", "url": format!("http://hooks/{}/load", self.ns), "timeout": "5s", "metadata": {"cmd": "hey"}}]});
        for (key, value) in analysis.as_object().unwrap() {
            all[key] = value.clone();
        }
        json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": name},
            "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}, "progressDeadlineSeconds": 60,
                "autoscalerRef": {"apiVersion": "autoscaling/v2beta2", "kind": "HorizontalPodAutoscaler", "name": "podinfo"},
                "service": {"port": 9898, "targetPort": 9898, "gateways": ["public-gateway.istio-system.svc.cluster.local"], "hosts": ["app.example.com"]},
                "analysis": all}})
    }

    /// A canary that is initialized, with all told of it.
    pub async fn initialized(&self, analysis: Value) -> Outcome {
        self.podinfo().await?;
        self.canary(analysis).await?;
        self.phase("Initialized").await?;
        self.news("Initialization done!").await
    }

    pub async fn apply(&self, object: &Value) -> Outcome {
        let mut object = object.clone();
        object["metadata"]["namespace"] = json!(self.ns);
        self.rig
            .bed
            .apply(&object.to_string())
            .await
            .map(drop)
            .map_err(text)
    }

    pub async fn image(&self, tag: &str) -> Outcome {
        self.patch("deployment", "podinfo", &json!({"spec": {"template": {"spec": {"containers": [{"name": "podinfod", "image": format!("podinfo:{tag}")}]}}}})).await
    }

    pub async fn patch(&self, kind: &str, name: &str, patch: &Value) -> Outcome {
        let form = if kind == "deployment" || kind == "daemonset" {
            "strategic"
        } else {
            "merge"
        };
        self.rig
            .bed
            .kubectl(&[
                "-n",
                &self.ns,
                "patch",
                kind,
                name,
                "--type",
                form,
                "-p",
                &patch.to_string(),
            ])
            .await
            .map(drop)
            .map_err(text)
    }

    pub async fn delete(&self, kind: &str, name: &str) -> Outcome {
        self.rig
            .bed
            .kubectl(&["-n", &self.ns, "delete", kind, name, "--wait=false"])
            .await
            .map(drop)
            .map_err(text)
    }

    /// The object as it is, or that it is not there.
    pub async fn get(&self, kind: Kind, name: &str) -> Result<Value, String> {
        get(
            &self.client,
            &ObjectRef {
                kind,
                namespace: self.ns.clone(),
                name: name.to_owned(),
            },
        )
        .await
    }

    /// Until the canary is in this phase, and what was owed is told.
    pub async fn phase(&self, phase: &str) -> Outcome {
        until(PATIENCE, &format!("phase {phase}"), async || {
            let seen = self.seen.lock().unwrap();
            let status = seen.now.get("podinfo").cloned().unwrap_or_default();
            let idle = status
                .conditions
                .as_ref()
                .is_none_or(|conditions| conditions.len() <= 1);
            let line = format!(
                "{} {} {:?}",
                status.phase, status.canary_weight, status.conditions
            );
            (status.phase.as_str() == phase && idle)
                .then_some(())
                .ok_or(line)
        })
        .await
        .map_err(|error| {
            format!(
                "{error}\nseen: {:?}\nevents: {:?}",
                self.table(),
                self.told()
            )
        })
    }

    /// Until a line of the table was seen.
    pub async fn line(&self, line: &str) -> Outcome {
        until(PATIENCE, line, async || {
            let table = self.table();
            table
                .iter()
                .any(|seen| seen == line)
                .then_some(())
                .ok_or_else(|| format!("{table:?}"))
        })
        .await
        .map_err(|error| format!("{error}\nevents: {:?}", self.told()))
    }

    /// Until an event says this, somewhere in its text.
    pub async fn event(&self, message: &str) -> Result<String, String> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &self.ns);
        until(PATIENCE, &format!("event {message:?}"), async || {
            let events = api.list(&ListParams::default()).await.map_err(text)?.items;
            let found = events.iter().filter(|event| {
                event.source.as_ref().and_then(|s| s.component.as_deref()) == Some("flagger")
            });
            let texts: Vec<_> = found
                .map(|event| {
                    format!(
                        "{} {}",
                        event.type_.clone().unwrap_or_default(),
                        event.message.clone().unwrap_or_default()
                    )
                })
                .collect();
            texts
                .iter()
                .find(|text| text.contains(message))
                .cloned()
                .ok_or_else(|| format!("{texts:?}"))
        })
        .await
        .map_err(text)
    }

    /// Until the event webhook was told this.
    pub async fn news(&self, message: &str) -> Outcome {
        until(PATIENCE, message, async || {
            let told = self.told();
            told.iter()
                .any(|line| line.contains(message))
                .then_some(())
                .ok_or_else(|| format!("{told:?}"))
        })
        .await
        .map_err(text)
    }

    /// What `kubectl get canary -w` would have shown: status and weight.
    pub fn table(&self) -> Vec<String> {
        self.seen.lock().unwrap().table.clone()
    }

    /// All events as the event webhook was told them: type, phase, text.
    pub fn told(&self) -> Vec<String> {
        let calls = self.rig.bed.fakes.calls("events/all");
        calls
            .iter()
            .filter(|call| call.body["namespace"] == json!(self.ns))
            .map(|call| {
                let field = |name: &str| {
                    call.body
                        .pointer(&format!("/metadata/{name}"))
                        .and_then(Value::as_str)
                        .unwrap_or_default()
                };
                format!(
                    "{} [{}] {}",
                    field("eventType"),
                    call.body["phase"].as_str().unwrap_or_default(),
                    field("eventMessage")
                )
            })
            .filter(|line| !line.contains("not ready: waiting for rollout"))
            .collect()
    }

    /// The weights of the canary that were routed at each change, as the audit log cannot tell: by looking.
    pub async fn weight(&self) -> Result<i64, String> {
        let service = self.get(Kind::VirtualService, "podinfo").await?;
        service
            .pointer("/spec/http/0/route/1/weight")
            .and_then(Value::as_i64)
            .ok_or_else(|| "no weight".to_owned())
    }

    /// A version is released until it succeeded.
    pub async fn release(&self, tag: &str) -> Outcome {
        self.image(tag).await?;
        self.event("New revision detected").await?;
        self.phase("Succeeded").await
    }
}

/// The manifests of a Deployment `podinfo` and of its HPA.
pub fn workload() -> [Value; 2] {
    [
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "podinfo", "labels": {"app": "podinfo"}},
            "spec": {"selector": {"matchLabels": {"app": "podinfo"}}, "progressDeadlineSeconds": 60, "revisionHistoryLimit": 5,
                "template": {"metadata": {"labels": {"app": "podinfo"}}, "spec": {"containers": [{"name": "podinfod", "image": "podinfo:3.1.0", "ports": [{"name": "http", "containerPort": 9898}]}]}}}}),
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "podinfo"},
            "spec": {"minReplicas": 2, "maxReplicas": 4, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 99}}}]}}),
    ]
}

pub async fn get(client: &Client, object: &ObjectRef) -> Result<Value, String> {
    let path = match object.kind.group_version() {
        ("", version) => format!("/api/{version}"),
        (group, version) => format!("/apis/{group}/{version}"),
    };
    let url = format!(
        "{path}/namespaces/{}/{}/{}",
        object.namespace,
        object.kind.plural(),
        object.name
    );
    client
        .request(http::Request::get(url).body(Vec::new()).unwrap())
        .await
        .map_err(text)
}

/// Fails unless both are equal, line by line.
pub fn equal(what: &str, seen: &[String], expected: &[&str]) -> Outcome {
    if seen.iter().map(String::as_str).eq(expected.iter().copied()) {
        return Ok(());
    }
    Err(format!(
        "{what}: seen\n    {}\n  expected\n    {}",
        seen.join("\n    "),
        expected.join("\n    ")
    ))
}

pub fn ensure(holds: bool, why: impl Display) -> Outcome {
    if holds { Ok(()) } else { Err(why.to_string()) }
}
