//! `plan`: what would change if manifests were applied. Each write is tried on the API server as a dry run, which stores nothing.

use std::{collections::BTreeSet, sync::Arc};

use futures::{StreamExt, stream};
use k8s_openapi::api::authorization::v1::ResourceAttributes;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::{
    Context,
    lint::{read, settings},
    list::yaml,
    output::print,
    read::now,
    trouble::Stop,
};
use crate::{
    api::{canary::{Canary, CanaryPhase}, status::ConditionType},
    check::{Right, Scope, Subject, rights},
    cli::client::{Code, Format, PlanArgs},
    notifications::Notification,
    plan::{Change, Plan, Verb},
    rollout::{self, Decision, Evidence, Requeue, decide, spec_problem},
    shell::{
        api_server::person::Resource,
        controller::observe::{conflicting_among, empty_snapshot},
    },
    snapshot::{Action, Kind, ObjectRef, Settings, Snapshot, Tick, Write},
    view::{API_VERSION, State, Seen, View},
};

/// More decisions in a row are not foreseen.
const ROUNDS: usize = 40;
/// How many rights are asked for at the same time.
const PARALLEL: usize = 8;

/// Plans the Canaries of some manifests.
pub async fn run(context: &Context, args: &PlanArgs) -> Result<Code, Stop> {
    let settings = Arc::new(settings(&args.mesh_provider)?);
    let mut plans = Vec::new();
    for (file, text) in read(&args.filename)? {
        let documents = serde_saphyr::from_multiple::<Value>(&text);
        let documents = documents.map_err(|error| Stop::because(Code::Usage, format!("{file} is no YAML: {error}")))?;
        for manifest in documents.into_iter().filter(|document| document["kind"] == "Canary") {
            let planning = Planning::new(context, args, &settings, manifest);
            plans.push(planning.plan().await?);
        }
    }
    if plans.is_empty() {
        return Err(Stop::because(Code::Usage, "there is no Canary in these files"));
    }
    let value = json!({"apiVersion": API_VERSION, "kind": "PlanList", "items": plans});
    match args.output {
        Format::Json => print(&format!("{value:#}\n"))?,
        Format::Yaml => print(&yaml(&value))?,
        Format::Table | Format::Wide | Format::Name => {
            for plan in &plans {
                context.output.lines(&plan.lines())?;
            }
        }
    }
    Ok(if plans.iter().all(Plan::is_empty) { Code::Yes } else { Code::No })
}

struct Planning<'a> {
    context: &'a Context,
    args: &'a PlanArgs,
    settings: &'a Arc<Settings>,
    manifest: Value,
    plan: Plan,
}

impl<'a> Planning<'a> {
    fn new(context: &'a Context, args: &'a PlanArgs, settings: &'a Arc<Settings>, mut manifest: Value) -> Self {
        let namespace = &mut manifest["metadata"]["namespace"];
        if !namespace.is_string() {
            *namespace = json!(context.person.namespace());
        }
        Self {
            context,
            args,
            settings,
            manifest,
            plan: Plan::default(),
        }
    }

    async fn plan(mut self) -> Result<Plan, Stop> {
        let text = |field: &str| self.manifest["metadata"][field].as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        self.plan.canary = format!("{namespace}/{name}");
        let person = &self.context.person;
        let live = match person.get(Kind::Canary, &namespace, &name).await {
            Ok(live) => Some(live),
            Err(error) if error.code() == Some(404) => None,
            Err(error) => return Err(self.context.wants("get", &name).failed(&error)),
        };
        let applied = match person.dry_apply(&namespace, &name, &self.manifest).await {
            Ok(applied) => applied,
            Err(error) if error.code().is_some_and(|code| code != 401 && code != 403) => {
                self.plan.problems.push(error.to_string());
                return Ok(self.plan);
            }
            Err(error) => return Err(self.context.wants("patch", &name).failed(&error)),
        };
        self.plan.changes.extend(Change::between(&format!("Canary {name}"), live.as_ref(), &applied));
        let canary = match serde_json::from_value::<Canary>(applied.clone()) {
            Ok(canary) => canary,
            Err(error) => {
                self.plan.problems.push(format!("the Canary cannot be read: {error}"));
                return Ok(self.plan);
            }
        };
        let reference = ObjectRef {
            kind: Kind::Canary,
            namespace,
            name,
        };
        let mut snapshot = empty_snapshot(canary, &reference, self.settings);
        snapshot.now = now();
        self.plan.problems.extend(spec_problem(&snapshot));
        self.foresee(snapshot, applied).await;
        Ok(self.plan)
    }

    /// Makes the decisions of the operator, and tries their writes.
    async fn foresee(&mut self, mut snapshot: Snapshot, applied: Value) {
        self.load(&mut snapshot).await;
        self.conflicts(&mut snapshot).await;
        self.rights(&snapshot).await;
        let is_new = matches!(snapshot.phase(), CanaryPhase::New | CanaryPhase::Initializing);
        // Pods, and answers of metric servers, are not foreseen: the initialization goes on as if all were well.
        snapshot.canary.spec.skip_analysis |= is_new;
        let mut said = Vec::new();
        for _ in 0..ROUNDS {
            self.load(&mut snapshot).await;
            snapshot.tick = Some(Tick { at: snapshot.now, late: false });
            match decide(&snapshot, &Evidence::new()) {
                Decision::Do(plan) => {
                    said.extend(texts(&plan.notifications));
                    let before = snapshot.phase();
                    for write in &plan.writes {
                        self.try_write(&mut snapshot, write).await;
                    }
                    if let Some(status) = plan.status {
                        snapshot.canary.status = Some(status);
                    }
                    if is_new && before != snapshot.phase() && snapshot.phase() == CanaryPhase::Initialized {
                        break;
                    }
                }
                Decision::Wait(Requeue::At(end), _) if end > snapshot.now => snapshot.now = end,
                Decision::Wait(_, notifications) => {
                    said.extend(texts(&notifications));
                    break;
                }
                Decision::Ask(..) => break,
            }
        }
        let mut canary = applied;
        canary["status"] = serde_json::to_value(&snapshot.canary.status).unwrap_or_default();
        let view = View::of(&Seen { canary, ..Seen::default() }, snapshot.now);
        if matches!(view.state, State::Blocked) {
            self.plan.problems.push(view.sentence.clone());
        }
        let last = said.pop().map(|text| format!(" ({text})")).unwrap_or_default();
        self.plan.then = format!("{}: {}{last}", view.state.as_str(), view.sentence);
    }

    /// Reads what the next decision needs.
    async fn load(&mut self, snapshot: &mut Snapshot) {
        loop {
            let needs = rollout::needs(snapshot);
            let missing: Vec<_> = needs.difference(&snapshot.seen).cloned().collect();
            if missing.is_empty() {
                return;
            }
            for reference in missing {
                let read = self.context.person.get(reference.kind, &reference.namespace, &reference.name).await;
                match read {
                    Ok(object) => drop(snapshot.objects.insert(reference.clone(), object)),
                    Err(error) if error.code() == Some(404) => {}
                    Err(error) => {
                        let (kind, name) = (reference.kind.name(), &reference.name);
                        self.plan.problems.push(format!("{kind} {name} cannot be read, and counts as missing: {error}"));
                    }
                }
                snapshot.seen.insert(reference);
            }
        }
    }

    /// Finds an older canary that claims the same objects.
    async fn conflicts(&mut self, snapshot: &mut Snapshot) {
        let namespace = snapshot.namespace().to_owned();
        let listed = self.context.person.list(Resource::of(Kind::Canary), Some(&namespace), ListParams::default()).await;
        let others = listed.unwrap_or_default().into_iter().filter_map(|other| serde_json::from_value::<Canary>(other).ok());
        let own = snapshot.name().to_owned();
        let others: Vec<_> = others.filter(|other| other.metadata.name.as_ref() != Some(&own)).collect();
        snapshot.conflicting_canary = conflicting_among(snapshot, others.into_iter());
    }

    /// Asks which rights the operator's account lacks, if the account is named.
    async fn rights(&mut self, snapshot: &Snapshot) {
        let Some((namespace, name)) = self.args.account.as_deref().and_then(|account| account.split_once('/')) else {
            return;
        };
        let user = format!("system:serviceaccount:{namespace}:{name}");
        let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}"), "system:authenticated".to_owned()];
        let subject = Subject {
            canary: snapshot.canary.clone(),
            objects: rollout::needs(snapshot),
        };
        let needed: Vec<(Right, BTreeSet<Scope>)> = rights(&[subject], &Scope::All, None).into_iter().collect();
        let (user, groups) = (&user, &groups);
        let asked = needed.into_iter().flat_map(|(right, scopes)| scopes.into_iter().map(move |scope| (right, scope)));
        let asked = asked.map(|(right, scope)| async move {
            let may = self.context.person.may(user, groups, attributes(&right, &scope)).await;
            (right, scope, may)
        });
        let answers: Vec<_> = stream::iter(asked).buffered(PARALLEL).collect().await;
        for (right, scope, may) in answers {
            match may {
                Ok(true) => {}
                Ok(false) => self.plan.missing_rights.push(format!("{right} {scope}")),
                Err(error) => {
                    self.plan.problems.push(format!("the API server does not tell the rights of {user}: {error}"));
                    return;
                }
            }
        }
    }

    /// Tries a write, and takes its result for the next decision.
    async fn try_write(&mut self, snapshot: &mut Snapshot, write: &Write) {
        let before = snapshot.objects.get(&write.object).cloned();
        let is_changed = self.plan.changes.iter().any(|change| change.object == title(&write.object));
        // The API server knows nothing of earlier writes of this plan.
        let tried = if is_changed { None } else { Some(self.context.person.dry_run(write).await) };
        let (after, refused) = match tried {
            Some(Ok(after)) => (Some(after), None),
            Some(Err(error)) => (own(write, before.as_ref()), Some(error.to_string())),
            None => (own(write, before.as_ref()), None),
        };
        let Some(mut after) = after else {
            return;
        };
        let change = Change::between(&title(&write.object), before.as_ref(), &after);
        if refused.is_some() || change.is_some() {
            let change = change.unwrap_or(Change {
                verb: Verb::Update,
                object: title(&write.object),
                diff: Vec::new(),
                refused: None,
            });
            self.plan.changes.push(Change { refused, ..change });
        }
        // As if its pods were as ready as those of the target.
        if before.is_none() && write.object.name == snapshot.canary.primary_workload_name()
            && let Some(status) = snapshot.target().and_then(|target| target.get("status")).cloned()
        {
            after["status"] = status;
        }
        snapshot.objects.insert(write.object.clone(), after);
    }
}

/// The object that a write makes, without the API server's part.
fn own(write: &Write, before: Option<&Value>) -> Option<Value> {
    match &write.action {
        Action::Create(object) | Action::Replace(object) => Some(object.clone()),
        Action::Patch(patch) => {
            let mut object = before?.clone();
            let patch: json_patch::Patch = serde_json::from_value(patch.clone()).ok()?;
            json_patch::patch(&mut object, &patch).ok()?;
            Some(object)
        }
    }
}

fn title(object: &ObjectRef) -> String {
    format!("{} {}", object.kind.name(), object.name)
}

fn texts(notifications: &[Notification]) -> Vec<String> {
    let text = |notification: &Notification| match notification {
        Notification::Event { message, .. } => Some(message.clone()),
        Notification::Alert { .. } => None,
    };
    notifications.iter().filter_map(text).collect()
}

fn attributes(right: &Right, scope: &Scope) -> ResourceAttributes {
    let (resource, subresource) = match right.resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (right.resource, None),
    };
    ResourceAttributes {
        group: Some(right.group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource,
        name: right.name.map(str::to_owned),
        namespace: scope.namespace().map(str::to_owned),
        verb: Some(right.verb.to_owned()),
        ..ResourceAttributes::default()
    }
}
