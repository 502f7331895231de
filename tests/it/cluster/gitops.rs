//! GitOps: a tool that applies the user's manifests again and again undoes nothing of a release, and is not fought with.

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
use super::rig::{Outcome, Scenario, ensure, equal, workload};
use flagger_rs::snapshot::Kind;

/// How often all of Git is applied.
const ROUND: Duration = Duration::from_secs(2);
/// What Git has: in this order.
const KINDS: [Kind; 4] = [
    Kind::Deployment,
    Kind::HorizontalPodAutoscaler,
    Kind::Service,
    Kind::Canary,
];
/// The kinds that a tool must find to differ from Git: all at first, and then what two commits change.
const DIFFERENT: [&str; 6] = [
    "deployment",
    "horizontalpodautoscaler",
    "service",
    "canary",
    "deployment",
    "deployment",
];

/// What the operator writes in a release of two steps that nobody disturbs, and in a rollback after one step, besides events …
const RELEASE: usize = 13;
const ROLLBACK: usize = 12;
/// … and how much more it may be: a write that lost against the tool's is repeated.
const SPARE: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Tool {
    /// Server-side apply by force, as Flux' kustomize-controller does it: an object whose live annotation says so is left alone.
    Flux,
    /// A three-way merge against what was applied last, as Argo CD does it, and `kubectl apply`.
    ArgoCd,
}

/// A repository, and who brings it into the cluster. All of it ends when it is dropped.
struct GitOps {
    git: Arc<Mutex<[Value; 4]>>,
    different: Log,
    /// What the Service for clients selected.
    selected: Log,
    /// How many pods the target was to have.
    replicas: Log,
    _tasks: JoinSet<()>,
}

/// What was seen, in order.
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
                        let said = kubectl.run(&["apply", "-n", &ns, "-f", &file]).await;
                        merged(&said.unwrap_or_else(|error| format!("error/{error}")))
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

/// One round of Flux: the kinds of which an object was not as Git has it. Bound to what it read, as Flux is not: whether its one apply that
/// the operator's adoption of a Service overtakes undoes that, until it is mended, is chance.
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

/// One round of `kubectl apply`: the kinds of which it says that an object was not as Git has it.
fn merged(said: &str) -> Vec<String> {
    let lines = said.lines().filter(|line| !line.ends_with(" unchanged"));
    lines
        .map(|line| {
            let kind = line.split(['.', '/']).next().unwrap_or_default();
            if kind == "error" { line } else { kind }.to_owned()
        })
        .collect()
}

/// What Git has, with the marks of the tool on all of it. The autoscaler decides how many pods there are, so that Git does not.
fn manifests(s: &Scenario<'_>, tool: Tool) -> [Value; 4] {
    let [mut deployment, scaler] = workload();
    deployment["spec"]["template"]["metadata"]["labels"]["kustomize.toolkit.fluxcd.io/name"] =
        json!("apps");
    let ports = json!([{"name": "http", "port": 9898, "targetPort": 9898, "protocol": "TCP"}]);
    let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "podinfo"}, "spec": {"ports": ports}});
    match tool {
        Tool::Flux => service["spec"]["selector"] = json!({"app": "podinfo"}),
        // Argo CD knows no mark of the operator's on the Service, and would undo its selector, round after round. What Git does not
        // name it leaves alone; `ignoreDifferences` with `RespectIgnoreDifferences=true` does the same. With Flagger it is no different.
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

/// Initialization, a release, and a rollback; what was told and written of them is what is told and written of undisturbed ones.
async fn released_and_rolled_back(s: &Scenario<'_>, git: &GitOps) -> Outcome {
    s.phase("Initialized").await?;
    s.news("Initialization done").await?;
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
    // Made; 25, 50 and back; 25 and back: each weight was written once.
    let route = s.get(Kind::VirtualService, "podinfo").await?;
    ensure(route["metadata"]["generation"] == 6, &route)?;
    ensure(s.weight().await? == 0, &route)?;
    let primary = s.get(Kind::Deployment, "podinfo-primary").await?;
    let image = primary.pointer("/spec/template/spec/containers/0/image");
    ensure(image == Some(&json!("podinfo:3.1.1")), &primary)
}

/// What the operator wrote, besides events.
fn writes(s: &Scenario<'_>) -> Result<Vec<String>, String> {
    let all = s.requests()?.into_iter().filter(|line| {
        !matches!(line.verb.as_str(), "get" | "list" | "watch") && line.resource != "events"
    });
    Ok(all
        .map(|line| format!("{} {} {}", line.verb, line.resource, line.name))
        .collect())
}

/// From when the Canary was initialized: the target had pods in both runs only, and clients were led to the primary all the time.
fn nothing_was_undone(git: &GitOps) -> Outcome {
    let replicas = read(&git.replicas);
    let rests = replicas.iter().position(|n| n == "0").unwrap_or_default();
    equal("the pods", &replicas[rests..], &["0", "2", "0", "2", "0"])?;
    equal("what differed from Git", &read(&git.different), &DIFFERENT)
}

pub async fn flux_undoes_nothing_of_a_release(s: Scenario<'_>) -> Outcome {
    let git = GitOps::start(&s, Tool::Flux, manifests(&s, Tool::Flux));
    released_and_rolled_back(&s, &git).await?;
    nothing_was_undone(&git)?;
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
        // What says that Git has an object is on no other.
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

pub async fn argo_cd_undoes_nothing_of_a_release(s: Scenario<'_>) -> Outcome {
    let git = GitOps::start(&s, Tool::ArgoCd, manifests(&s, Tool::ArgoCd));
    released_and_rolled_back(&s, &git).await?;
    nothing_was_undone(&git)?;
    let selected = ["null", "\"podinfo-primary\""];
    equal("the Service", &read(&git.selected), &selected)
}

/// Do not write `spec.replicas` into Git. Who does gives the target its pods back after each run, within a round: they cost, and get no
/// request. Neither Flagger nor we scale it down again: to zero a target goes once, at the end of initialization and of a run.
pub async fn replicas_in_git_are_pods_that_get_no_request(s: Scenario<'_>) -> Outcome {
    let mut manifests = manifests(&s, Tool::Flux);
    manifests[0]["spec"]["replicas"] = json!(2);
    let git = GitOps::start(&s, Tool::Flux, manifests);
    released_and_rolled_back(&s, &git).await?;
    let replicas = read(&git.replicas);
    let rests = replicas.iter().position(|n| n == "0").unwrap_or_default();
    let pods = ["0", "2", "0", "2", "0", "2"];
    equal("the pods", &replicas[rests..], &pods)?;
    let selected = ["\"podinfo\"", "\"podinfo-primary\""];
    equal("the Service", &read(&git.selected), &selected)
}
