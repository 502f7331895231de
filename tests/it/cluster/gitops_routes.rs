//! The recipes of `examples/gitops`: GitOps tools apply a route of the user while the operator sets weights in it. The tools are Flux' own
//! controller, and Argo CD's own packages for the comparison and the sync.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use flagger_rs::snapshot::Kind;
use futures::TryStreamExt;
use kube::{
    Api,
    api::{ApiResource, DynamicObject},
    core::GroupVersionKind,
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};
use testbed::{
    gitops::{ArgoCd, Flux, REPOSITORY},
    wait::until,
};
use tokio::task::JoinHandle;

use super::{Outcome, Scenario, ensure, equal, text, workload};
use crate::files;

/// The time in which a tool applies a commit.
const SOON: Duration = Duration::from_secs(60);
/// The weights of a release, in order.
const STEPS: [&str; 4] = ["[100,0]", "[75,25]", "[50,50]", "[100,0]"];
/// The requests of the operator to write the route in a release.
const WRITES: usize = 3;

enum Tool {
    Flux(Flux),
    ArgoCd(ArgoCd),
}

impl Tool {
    /// Flux, with the Kustomization of an example. Its name and its source are those of the test, and it is applied each two seconds.
    async fn flux(s: &Scenario<'_>, file: &str) -> Result<Self, String> {
        Self::flux_with(s, file, str::to_owned).await
    }

    /// The same with a change of the text of the Kustomization.
    async fn flux_with(
        s: &Scenario<'_>,
        file: &str,
        change: impl Fn(&str) -> String,
    ) -> Result<Self, String> {
        let flux = Flux::start(&s.rig.bed, &s.ns).await.map_err(text)?;
        let file = std::fs::read_to_string(files::path("examples/gitops").join(file));
        let mut kustomization = files::documents(&change(&file.map_err(text)?)).remove(0);
        kustomization["metadata"]["namespace"] = json!(s.ns);
        let spec = &mut kustomization["spec"];
        spec["interval"] = json!("2s");
        spec["path"] = json!("./");
        spec["sourceRef"] = json!({"kind": "GitRepository", "name": REPOSITORY});
        s.apply(&kustomization).await?;
        Ok(Self::Flux(flux))
    }

    /// Argo CD, with this Application.
    async fn argo_cd(s: &Scenario<'_>, application: &Value) -> Result<Self, String> {
        let argo_cd = ArgoCd::start(&s.rig.bed, &s.ns, application).await;
        argo_cd.map(Self::ArgoCd).map_err(text)
    }

    /// How often Argo CD has synced this kind so far.
    fn syncs_of(&mut self, kind: &str) -> Result<usize, String> {
        let Self::ArgoCd(argo_cd) = self else {
            return Err("no Argo CD".to_owned());
        };
        let syncs = argo_cd.syncs().map_err(text)?;
        let of_kind = syncs
            .iter()
            .filter(|kinds| kinds.split(' ').any(|it| it == kind));
        Ok(of_kind.count())
    }

    /// A commit with these manifests.
    async fn commit(&self, manifests: &[Value]) -> Outcome {
        match self {
            Self::Flux(flux) => flux.commit(manifests).await.map_err(text),
            Self::ArgoCd(argo_cd) => argo_cd.commit(manifests).map_err(text),
        }
    }
}

/// The manifests in Git.
struct Git {
    deployment: Value,
    scaler: Value,
    canary: Value,
    route: Value,
}

fn example(file: &str) -> Value {
    files::objects(&files::path("examples/gitops").join(file)).remove(0)
}

/// The Application of the example, with these further options of its syncs.
fn application(s: &Scenario<'_>, options: &[&str]) -> Value {
    let mut application = example("argo-cd.yaml");
    application["spec"]["destination"]["namespace"] = json!(s.ns);
    let all = application["spec"]["syncPolicy"]["syncOptions"].as_array_mut();
    all.unwrap()
        .extend(options.iter().map(|&option| json!(option)));
    application
}

impl Git {
    /// The route and the Canary of the examples, with an analysis for tests, and their workload.
    fn of(s: &Scenario<'_>) -> Self {
        let [deployment, scaler] = workload();
        let mut canary = example("canary.yaml");
        let analysis = json!({"interval": "20s", "stepWeight": 25, "maxWeight": 50});
        canary["spec"]["analysis"] = s.canary_named("podinfo", analysis)["spec"]["analysis"].take();
        let mut git = Self {
            deployment,
            scaler,
            canary,
            route: example("route.yaml"),
        };
        for object in [
            &mut git.deployment,
            &mut git.scaler,
            &mut git.canary,
            &mut git.route,
        ] {
            object["metadata"]["namespace"] = json!(s.ns);
        }
        git
    }

    fn all(&self) -> [Value; 4] {
        [&self.deployment, &self.scaler, &self.canary, &self.route].map(Value::clone)
    }

    fn image(&mut self, tag: &str) {
        let image = json!(format!("podinfo:{tag}"));
        self.deployment["spec"]["template"]["spec"]["containers"][0]["image"] = image;
    }

    /// Another field of the rule in which the operator sets weights.
    fn header(&mut self) {
        let set = json!([{"name": "x-shop", "value": "a"}]);
        self.route["spec"]["rules"][0]["filters"] =
            json!([{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": set}}]);
    }
}

/// The weights that the route had, in order.
struct Weights {
    seen: Arc<Mutex<Vec<String>>>,
    watch: JoinHandle<()>,
}

impl Drop for Weights {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Weights {
    fn watch(s: &Scenario<'_>) -> Self {
        let (group, version) = Kind::HttpRoute.group_version();
        let kind = GroupVersionKind::gvk(group, version, Kind::HttpRoute.name());
        let resource = ApiResource::from_gvk_with_plural(&kind, Kind::HttpRoute.plural());
        let api: Api<DynamicObject> = Api::namespaced_with(s.client.clone(), &s.ns, &resource);
        let changes = watcher(api, watcher::Config::default()).default_backoff();
        let mut changes = Box::pin(changes.applied_objects());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let watch = tokio::spawn({
            let seen = seen.clone();
            async move {
                while let Ok(Some(route)) = changes.try_next().await {
                    let weights = weights(&route.data);
                    let mut seen = seen.lock().unwrap();
                    if seen.last() != Some(&weights) {
                        seen.push(weights);
                    }
                }
            }
        });
        Self { seen, watch }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn weights(route: &Value) -> String {
    let backends = &route["spec"]["rules"][0]["backendRefs"];
    json!([backends[0]["weight"], backends[1]["weight"]]).to_string()
}

/// Waits until the route meets a condition.
async fn route_has(s: &Scenario<'_>, what: &str, is_met: impl Fn(&Value) -> bool) -> Outcome {
    until(SOON, what, async || {
        let route = s.get(Kind::HttpRoute, "shop").await?;
        is_met(&route)
            .then_some(())
            .ok_or_else(|| route.to_string())
    })
    .await
    .map_err(text)
}

fn has_header(route: &Value) -> bool {
    let set = route.pointer("/spec/rules/0/filters/0/requestHeaderModifier/set/0/name");
    set == Some(&json!("x-shop"))
}

/// The requests of the operator to write the route.
fn writes(s: &Scenario<'_>) -> Result<usize, String> {
    let requests = s.requests()?.into_iter();
    let writes = requests.filter(|it| it.resource == "httproutes" && it.verb != "get");
    Ok(writes.filter(|it| it.verb != "list").count())
}

/// A release in which Git changes the route at the first step.
async fn released(s: &Scenario<'_>, tool: &Tool, git: &mut Git) -> Outcome {
    tool.commit(&git.all()).await?;
    s.phase("Initialized").await?;
    git.image("3.1.1");
    tool.commit(&git.all()).await?;
    s.line("Progressing 25").await?;
    route_has(s, "the first step", |it| weights(it) == STEPS[1]).await?;
    git.header();
    tool.commit(&git.all()).await?;
    s.phase("Succeeded").await?;
    route_has(s, "the end", |it| weights(it) == STEPS[3]).await?;
    let steps = [
        "Progressing 25",
        "Progressing 50",
        "Promoting 50",
        "Finalising 0",
        "Succeeded 0",
    ];
    let table = s.table();
    let start = table.iter().position(|line| line == steps[0]);
    equal("the release", &table[start.unwrap_or_default()..], &steps)
}

/// The API server counts each change of the spec of the route.
async fn changes(s: &Scenario<'_>) -> Result<i64, String> {
    let route = s.get(Kind::HttpRoute, "shop").await?;
    Ok(route["metadata"]["generation"].as_i64().unwrap_or(0))
}

pub async fn flux_adopts_the_weights_of_a_route_and_applies_all_else(s: Scenario<'_>) -> Outcome {
    let tool = Tool::flux(&s, "flux.yaml").await?;
    let (weights, mut git) = (Weights::watch(&s), Git::of(&s));
    released(&s, &tool, &mut git).await?;
    route_has(&s, "the header", has_header).await?;
    // No apply of Flux, one each two seconds, changed a weight.
    equal("the weights", &weights.seen(), &STEPS)?;
    let changes = changes(&s).await?;
    // Flux creates the route, and adds the header.
    ensure(changes == 2 + 3, format!("{changes} changes"))?;
    let writes = writes(&s)?;
    ensure(writes <= WRITES + 1, format!("{writes} writes"))
}

pub async fn an_older_flux_creates_a_route_and_never_writes_it_again(s: Scenario<'_>) -> Outcome {
    let tool = Tool::flux(&s, "older-flux.yaml").await?;
    let (weights, mut git) = (Weights::watch(&s), Git::of(&s));
    released(&s, &tool, &mut git).await?;
    equal("the weights", &weights.seen(), &STEPS)?;
    let changes = changes(&s).await?;
    ensure(changes == 1 + 3, format!("{changes} changes"))?;
    let route = s.get(Kind::HttpRoute, "shop").await?;
    ensure(!has_header(&route), &route)
}

/// A sync of the route writes the weights in Git, and the operator puts its own back.
async fn argo_cd(s: &Scenario<'_>, options: &[&str]) -> Outcome {
    let mut tool = Tool::argo_cd(s, &application(s, options)).await?;
    let (weights, mut git) = (Weights::watch(s), Git::of(s));
    released(s, &tool, &mut git).await?;
    route_has(s, "the header", has_header).await?;
    let seen = weights.seen();
    let expected = [STEPS[0], STEPS[1], STEPS[0], STEPS[1], STEPS[2], STEPS[3]];
    equal("the weights", &seen, &expected)?;
    let changes = changes(s).await?;
    ensure(changes == 2 + 4, format!("{changes} changes"))?;
    let writes = writes(s)?;
    ensure(writes <= WRITES + 2, format!("{writes} writes"))?;
    let syncs = tool.syncs_of("HTTPRoute")?;
    ensure(syncs == 2, format!("{syncs} syncs"))
}

pub async fn argo_cd_writes_weights_only_if_git_changes_the_route(s: Scenario<'_>) -> Outcome {
    argo_cd(&s, &[]).await
}

pub async fn argo_cd_does_the_same_by_server_side_apply(s: Scenario<'_>) -> Outcome {
    argo_cd(&s, &["ServerSideApply=true"]).await
}

/// With this option no change of a rule in Git arrives, for ever. Documents of other tools recommend it.
pub async fn respect_ignore_differences_would_freeze_the_rules_of_a_route(
    s: Scenario<'_>,
) -> Outcome {
    let application = application(&s, &["RespectIgnoreDifferences=true"]);
    let mut tool = Tool::argo_cd(&s, &application).await?;
    let mut git = Git::of(&s);
    tool.commit(&[git.route.clone()]).await?;
    route_has(&s, "the route", |_| true).await?;
    git.header();
    tool.commit(&[git.route]).await?;
    synced(&mut tool, "HTTPRoute", 3).await?;
    let route = s.get(Kind::HttpRoute, "shop").await?;
    ensure(!has_header(&route), &route)
}

async fn synced(tool: &mut Tool, kind: &str, times: usize) -> Outcome {
    until(SOON, &format!("{times} syncs of a {kind}"), async || {
        let syncs = tool.syncs_of(kind)?;
        (syncs >= times).then_some(()).ok_or(syncs.to_string())
    })
    .await
    .map_err(text)
}

/// Someone sets the weights 60 and 40, as the operator does. Then Git changes another object, and Argo CD syncs. Returns the weights.
async fn weights_after_a_sync(s: &Scenario<'_>, application: &Value) -> Result<String, String> {
    let mut tool = Tool::argo_cd(s, application).await?;
    let mut git = Git::of(s);
    tool.commit(&[git.deployment.clone(), git.route.clone()])
        .await?;
    route_has(s, "the weights in Git", |it| weights(it) == STEPS[0]).await?;
    set_weights(s).await?;
    let before = tool.syncs_of("Deployment")?;
    git.image(&before.to_string());
    tool.commit(&[git.deployment, git.route]).await?;
    synced(&mut tool, "Deployment", before + 1).await?;
    let route = s.get(Kind::HttpRoute, "shop").await?;
    s.rig
        .bed
        .kubectl(&["-n", &s.ns, "delete", "httproute", "shop"])
        .await
        .map_err(text)?;
    Ok(weights(&route))
}

async fn set_weights(s: &Scenario<'_>) -> Outcome {
    let place = |place: u8| format!("/spec/rules/0/backendRefs/{place}/weight");
    let patch = json!([{"op": "replace", "path": place(0), "value": 60}, {"op": "replace", "path": place(1), "value": 40}]);
    let patch = patch.to_string();
    let args = [
        "-n",
        &s.ns,
        "patch",
        "httproute",
        "shop",
        "--type=json",
        "-p",
        &patch,
    ];
    s.rig.bed.kubectl(&args).await.map(drop).map_err(text)
}

/// Each part of the recipe is needed.
pub async fn each_part_of_the_recipe_for_argo_cd_keeps_the_weights(s: Scenario<'_>) -> Outcome {
    let complete = application(&s, &[]);
    equal(
        "complete",
        &[weights_after_a_sync(&s, &complete).await?],
        &["[60,40]"],
    )?;
    let mut applies_all = complete.clone();
    applies_all["spec"]["syncPolicy"]["syncOptions"] = json!([]);
    let found = weights_after_a_sync(&s, &applies_all).await?;
    equal("without ApplyOutOfSyncOnly", &[found], &["[100,0]"])?;
    // The second rule of the route has no backends.
    let mut strict = complete;
    let expressions = &mut strict["spec"]["ignoreDifferences"][0]["jqPathExpressions"];
    let expression = expressions[0].as_str().unwrap_or_default().replace('?', "");
    expressions[0] = json!(expression);
    let found = weights_after_a_sync(&s, &strict).await?;
    equal("without the question marks", &[found], &["[100,0]"])?;
    let mut tool = Tool::argo_cd(&s, &application(&s, &["ServerSideApply=true"])).await?;
    let mut route = Git::of(&s).route;
    // The API server adds the group and the kind.
    route["spec"]["parentRefs"] = json!([{"name": "public"}]);
    tool.commit(&[route]).await?;
    let before = tool.syncs_of("HTTPRoute")?;
    synced(&mut tool, "HTTPRoute", before + 4).await
}

/// A path must be ignored only after the live route has the field. Before, Flux takes the missing weight over, and the API server sets its
/// default: half of the requests reach the canary.
pub async fn a_path_that_flux_ignores_too_early_gives_the_canary_half_of_the_requests(
    s: Scenario<'_>,
) -> Outcome {
    let tool = Tool::flux(&s, "flux.yaml").await?;
    let route = Git::of(&s).route;
    let mut before = route.clone();
    let backends = before["spec"]["rules"][0]["backendRefs"].as_array_mut();
    let backends = backends.ok_or("no backends")?;
    backends.truncate(1);
    let backend = backends[0].as_object_mut();
    backend.ok_or("no backend")?.remove("weight");
    tool.commit(&[before]).await?;
    route_has(&s, "one backend", |it| weights(it) == "[1,null]").await?;
    tool.commit(&[route]).await?;
    route_has(&s, "two backends", |it| weights(it) == "[1,1]").await
}

/// This policy keeps fields that Git does not have. A list of a route is applied as a whole.
pub async fn the_policy_merge_of_flux_would_keep_no_weights(s: Scenario<'_>) -> Outcome {
    let tool = Tool::flux_with(&s, "older-flux.yaml", |text| {
        text.replace("IfNotPresent", "Merge")
    });
    let tool = tool.await?;
    tool.commit(&[Git::of(&s).route]).await?;
    route_has(&s, "the weights in Git", |it| weights(it) == STEPS[0]).await?;
    set_weights(&s).await?;
    route_has(&s, "the weights in Git again", |it| weights(it) == STEPS[0]).await
}
