//! Checks that GitOps tools and the operator do not disturb each other, although the tools apply the user's manifests again and again.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::TryStreamExt;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time};

use super::manifests::lost;
use super::{Outcome, Scenario, ensure, equal, workload};
use flagger_rs::snapshot::Kind;

/// The time between two rounds, each of which applies all manifests in Git.
const ROUND: Duration = Duration::from_secs(2);
/// The kinds of the objects in Git, in this order.
const KINDS: [Kind; 4] = [
    Kind::Deployment,
    Kind::HorizontalPodAutoscaler,
    Kind::Service,
    Kind::Canary,
];
/// The kinds of objects that must differ from Git: all in the first round, later those that the two commits change.
const DIFFERENT: [&str; 6] = [
    "deployment",
    "horizontalpodautoscaler",
    "service",
    "canary",
    "deployment",
    "deployment",
];

/// The number of writes, without events, of an undisturbed release of two steps and of a rollback after one step.
const RELEASE: usize = 15;
const ROLLBACK: usize = 16;
/// The number of further writes that are allowed: the operator repeats a write that conflicts with a write of the tool.
const SPARE: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Tool {
    /// Forced server-side apply, as by Flux' kustomize-controller. It ignores objects whose live annotation disables it.
    Flux,
    /// A three-way merge with the manifest that was applied last, as by Argo CD and `kubectl apply`.
    ArgoCd,
}

/// A repository and the tool that applies it to the cluster, until it is dropped.
struct GitOps {
    git: Arc<Mutex<[Value; 4]>>,
    different: Log,
    /// The selectors that the Service for clients had.
    selected: Log,
    /// The replicas that the spec of the target had.
    replicas: Log,
    _tasks: JoinSet<()>,
}

/// Observed values, in order.
type Log = Arc<Mutex<Vec<String>>>;

fn read(log: &Log) -> Vec<String> {
    log.lock().unwrap().clone()
}

impl GitOps {
    fn start(s: &Scenario<'_>, tool: Tool, git: [Value; 4]) -> Self {
        let git = Arc::new(Mutex::new(git));
        let (different, selected, replicas) = (Log::default(), Log::default(), Log::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(note(
            objects(s, Kind::Service),
            "/spec/selector/app",
            selected.clone(),
        ));
        tasks.spawn(note(
            objects(s, Kind::Deployment),
            "/spec/replicas",
            replicas.clone(),
        ));
        let apis = KINDS.map(|kind| objects(s, kind));
        let kubectl = s.rig.bed.cli();
        let (source, log, ns) = (git.clone(), different.clone(), s.ns.clone());
        let file = s.rig.bed.folder().join(format!("git-{ns}.json"));
        tasks.spawn(async move {
            let mut rounds = time::interval(ROUND);
            loop {
                rounds.tick().await;
                let manifests = source.lock().unwrap().clone();
                let found = match tool {
                    Tool::Flux => applied_by_force(&apis, &manifests).await,
                    Tool::ArgoCd => {
                        let list = json!({"apiVersion": "v1", "kind": "List", "items": manifests});
                        std::fs::write(&file, list.to_string()).unwrap();
                        let file = file.display().to_string();
                        let output = kubectl.run(&["apply", "-n", &ns, "-f", &file]).await;
                        merged(&output.unwrap_or_else(|error| format!("error/{error}")))
                    }
                };
                log.lock().unwrap().extend(found);
            }
        });
        Self {
            git,
            different,
            selected,
            replicas,
            _tasks: tasks,
        }
    }

    /// A commit with another image.
    fn commit(&self, tag: &str) {
        self.git.lock().unwrap()[0]["spec"]["template"]["spec"]["containers"][0]["image"] =
            json!(format!("podinfo:{tag}"));
    }
}

fn objects(s: &Scenario<'_>, kind: Kind) -> Api<DynamicObject> {
    let (group, version) = kind.group_version();
    let kind_of = GroupVersionKind::gvk(group, version, kind.name());
    let resource = ApiResource::from_gvk_with_plural(&kind_of, kind.plural());
    Api::namespaced_with(s.client.clone(), &s.ns, &resource)
}

/// Notes each value that a field of the object `podinfo` takes.
async fn note(api: Api<DynamicObject>, field: &'static str, log: Log) {
    let only = watcher::Config::default().fields("metadata.name=podinfo");
    let mut changes = Box::pin(watcher(api, only).default_backoff().applied_objects());
    while let Ok(change) = changes.try_next().await {
        let Some(object) = change else { return };
        let value = object
            .data
            .pointer(field)
            .unwrap_or(&Value::Null)
            .to_string();
        let mut log = log.lock().unwrap();
        if log.last() != Some(&value) {
            log.push(value);
        }
    }
}

/// One round of Flux. Returns the kinds of the objects that differed from Git. Unlike with Flux, each apply is conditional on the version
/// that was read: otherwise chance decides whether an apply reverts the adoption of a Service that happens at the same time.
async fn applied_by_force(apis: &[Api<DynamicObject>; 4], manifests: &[Value; 4]) -> Vec<String> {
    let mut different = Vec::new();
    for (api, manifest) in apis.iter().zip(manifests) {
        let live = api.get_opt("podinfo").await.unwrap();
        let live = live.map_or(Value::Null, |live| json!(live));
        let mine = "kustomize.toolkit.fluxcd.io/reconcile";
        if live["metadata"]["annotations"][mine] == "disabled" {
            continue;
        }
        let mut applied = manifest.clone();
        if let Some(version) = live["metadata"].get("resourceVersion") {
            applied["metadata"]["resourceVersion"] = version.clone();
        }
        let params = PatchParams::apply("kustomize-controller").force();
        match api.patch("podinfo", &params, &Patch::Apply(applied)).await {
            Err(kube::Error::Api(status)) if status.code == 409 => continue,
            answer => drop(answer.unwrap()),
        }
        if lost("", manifest, &live).is_some() {
            different.push(manifest["kind"].as_str().unwrap().to_lowercase());
        }
    }
    different
}

/// The kinds that `kubectl apply` reports as changed.
fn merged(output: &str) -> Vec<String> {
    let lines = output.lines().filter(|line| !line.ends_with(" unchanged"));
    lines
        .map(|line| {
            let kind = line.split(['.', '/']).next().unwrap_or_default();
            if kind == "error" { line } else { kind }.to_owned()
        })
        .collect()
}

/// The manifests in Git, with the labels or annotations of the tool. They have no `replicas`, which the autoscaler sets.
fn manifests(s: &Scenario<'_>, tool: Tool) -> [Value; 4] {
    let [mut deployment, scaler] = workload();
    deployment["spec"]["template"]["metadata"]["labels"]["kustomize.toolkit.fluxcd.io/name"] =
        json!("apps");
    let ports = json!([{"name": "http", "port": 9898, "targetPort": 9898, "protocol": "TCP"}]);
    let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "podinfo"}, "spec": {"ports": ports}});
    match tool {
        Tool::Flux => service["spec"]["selector"] = json!({"app": "podinfo"}),
        // Argo CD would revert the selector of the Service in each round. It does not touch fields that are not in Git; `ignoreDifferences`
        // with `RespectIgnoreDifferences=true` does the same. Users of Flagger have to do this too.
        Tool::ArgoCd => {}
    }
    let canary = s.canary_named("podinfo", json!({"stepWeight": 25, "maxWeight": 50}));
    [deployment, scaler, service, canary].map(|mut object| {
        let kind = object["kind"].as_str().unwrap().to_owned();
        let metadata = &mut object["metadata"];
        match tool {
            Tool::Flux => {
                metadata["labels"]["kustomize.toolkit.fluxcd.io/name"] = json!("apps");
                metadata["labels"]["kustomize.toolkit.fluxcd.io/namespace"] = json!("flux-system");
                metadata["annotations"]["kustomize.toolkit.fluxcd.io/prune"] = json!("disabled");
            }
            Tool::ArgoCd => {
                let id = format!("apps:{kind}:{}/podinfo", s.ns);
                metadata["annotations"]["argocd.argoproj.io/tracking-id"] = json!(id);
            }
        }
        object
    })
}

/// Initialization, a release and a rollback, with the same events and writes as without the tool.
async fn released_and_rolled_back(s: &Scenario<'_>, git: &GitOps) -> Outcome {
    s.phase("Initialized").await?;
    s.notified("Initialization done").await?;
    let (seen, before) = (s.table().len(), writes(s)?.len());
    git.commit("3.1.1");
    s.event("New revision detected").await?;
    s.phase("Succeeded").await?;
    let steps = [
        "Progressing 0",
        "Progressing 25",
        "Progressing 50",
        "Promoting 50",
        "Finalising 0",
        "Succeeded 0",
    ];
    equal("the release", &s.table()[seen..], &steps)?;
    let release = writes(s)?.split_off(before);
    ensure(release.len() <= RELEASE + SPARE, format!("{release:?}"))?;
    s.rig.bed.fakes.success_rate(&s.ns, 97.5);
    let (seen, before) = (s.table().len(), writes(s)?.len());
    git.commit("3.1.2");
    s.phase("Failed").await?;
    let steps = ["Progressing 0", "Progressing 25", "Failed 0"];
    equal("the rollback", &s.table()[seen..], &steps)?;
    s.ticks().await?;
    equal("between runs", &s.table()[seen..], &steps)?;
    let rollback = writes(s)?.split_off(before);
    ensure(rollback.len() <= ROLLBACK + SPARE, format!("{rollback:?}"))?;
    // The route is created; then weights 25, 50 and 0; then 25 and 0: each is written once.
    let route = s.get(Kind::VirtualService, "podinfo").await?;
    ensure(route["metadata"]["generation"] == 6, &route)?;
    ensure(s.weight().await? == 0, &route)?;
    let primary = s.get(Kind::Deployment, "podinfo-primary").await?;
    let image = primary.pointer("/spec/template/spec/containers/0/image");
    ensure(image == Some(&json!("podinfo:3.1.1")), &primary)
}

/// The writes of the operator, without events.
fn writes(s: &Scenario<'_>) -> Result<Vec<String>, String> {
    let all = s.requests()?.into_iter().filter(|line| {
        !matches!(line.verb.as_str(), "get" | "list" | "watch") && line.resource != "events"
    });
    Ok(all
        .map(|line| format!("{} {} {}", line.verb, line.resource, line.name))
        .collect())
}

/// After the initialization the target had pods during the two runs only, and the Service always led clients to the primary.
fn nothing_was_reverted(git: &GitOps) -> Outcome {
    let replicas = read(&git.replicas);
    let start = replicas.iter().position(|n| n == "0").unwrap_or_default();
    equal("the pods", &replicas[start..], &["0", "2", "0", "2", "0"])?;
    equal("what differed from Git", &read(&git.different), &DIFFERENT)
}

pub async fn flux_reverts_nothing_of_a_release(s: Scenario<'_>) -> Outcome {
    let git = GitOps::start(&s, Tool::Flux, manifests(&s, Tool::Flux));
    released_and_rolled_back(&s, &git).await?;
    nothing_was_reverted(&git)?;
    let selected = ["\"podinfo\"", "\"podinfo-primary\""];
    equal("the Service", &read(&git.selected), &selected)?;
    for (kind, name, is_marked) in [
        (Kind::Service, "podinfo", true),
        (Kind::Service, "podinfo-primary", true),
        (Kind::Service, "podinfo-canary", true),
        (Kind::VirtualService, "podinfo", true),
        (Kind::DestinationRule, "podinfo-primary", false),
        (Kind::Deployment, "podinfo-primary", false),
        (Kind::HorizontalPodAutoscaler, "podinfo-primary", false),
    ] {
        let object = s.get(kind, name).await?;
        let mark = |key: &str| object["metadata"]["annotations"][key] == "disabled";
        let marks = [
            "kustomize.toolkit.fluxcd.io/reconcile",
            "helm.toolkit.fluxcd.io/driftDetection",
        ];
        ensure(marks.map(mark) == [is_marked; 2], &object)?;
        // The operator does not copy the labels of the tool to its own objects.
        let is_users = name == "podinfo" && kind == Kind::Service;
        let parts = [
            &object["metadata"]["labels"],
            &object["spec"]["template"]["metadata"],
        ];
        let owned = |part: &&Value| part.to_string().contains("toolkit.fluxcd.io/");
        ensure(is_users || !parts.iter().any(owned), &object)?;
        let prune = "kustomize.toolkit.fluxcd.io/prune";
        ensure(
            is_users || object["metadata"]["annotations"][prune].is_null(),
            &object,
        )?;
    }
    Ok(())
}

pub async fn argo_cd_reverts_nothing_of_a_release(s: Scenario<'_>) -> Outcome {
    let git = GitOps::start(&s, Tool::ArgoCd, manifests(&s, Tool::ArgoCd));
    released_and_rolled_back(&s, &git).await?;
    nothing_was_reverted(&git)?;
    let selected = ["null", "\"podinfo-primary\""];
    equal("the Service", &read(&git.selected), &selected)
}

/// Users should not keep `spec.replicas` in Git. Otherwise the tool scales the target up again after each run: its pods cost resources and
/// get no request. Like Flagger, the operator scales a target to zero only once, at the end of the initialization and of each run.
pub async fn replicas_in_git_bring_back_pods_that_get_no_request(s: Scenario<'_>) -> Outcome {
    let mut manifests = manifests(&s, Tool::Flux);
    manifests[0]["spec"]["replicas"] = json!(2);
    let git = GitOps::start(&s, Tool::Flux, manifests);
    released_and_rolled_back(&s, &git).await?;
    let replicas = read(&git.replicas);
    let start = replicas.iter().position(|n| n == "0").unwrap_or_default();
    let pods = ["0", "2", "0", "2", "0", "2"];
    equal("the pods", &replicas[start..], &pods)?;
    let selected = ["\"podinfo\"", "\"podinfo-primary\""];
    equal("the Service", &read(&git.selected), &selected)
}
