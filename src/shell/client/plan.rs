//! `plan`: the writes of the operator for a Canary, before they are made. The operator's own code decides them, and the API server tries
//! each write as a dry run.

mod measure;
mod rights;
#[cfg(test)]
mod tests;
mod trying;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::ListParams;
use serde_json::Value;

use super::{
    lint::{operator, read},
    list::yaml,
    output::{print, remark, text_width, unless_closed},
    read::{Context, now},
    trouble::{Stop, Wanted},
};
use crate::{
    api::canary::Canary,
    cli::{
        Config,
        client::{self, Code, Format},
    },
    lint::manifests,
    plan::{
        Answer, By, Changes, Conflict, Foresight, MissingRight, Next, Plan, Tried, YOU, kind,
        lines, list_json,
    },
    providers::router,
    shell::{
        api_server::{ClusterError, person::Resource},
        controller::observe::{conflicting_among, empty_snapshot},
    },
    snapshot::{Kind, ObjectRef, Pods, Settings, Snapshot},
};

/// The kinds of workloads whose pods a selector must not select.
const WORKLOADS: [Kind; 2] = [Kind::Deployment, Kind::DaemonSet];

/// Plans the Canaries of some manifests, or one of the cluster.
pub async fn plan(context: &Context, args: &client::Plan) -> Result<Code, Stop> {
    let config = operator(args.flags.clone())?;
    let mut applied = Vec::new();
    for (file, text) in read(&args.filename)? {
        let objects = manifests(&text);
        let objects = objects.map_err(|why| Stop::because(Code::Usage, format!("{file} {why}")))?;
        applied.extend(objects.into_iter().filter_map(|it| named(context, it)));
    }
    let named = args.name.iter().map(|name| ObjectRef {
        kind: Kind::Canary,
        namespace: context.person.namespace().to_owned(),
        name: name.clone(),
    });
    let in_files = applied.iter().map(|(object, _)| object.clone());
    let in_files = in_files.filter(|object| object.kind == Kind::Canary);
    let canaries: Vec<_> = named.chain(in_files).collect();
    if canaries.is_empty() {
        return Err(Stop::because(
            Code::Usage,
            "there is no Canary in these files\nSee what is wrong with them: flagger lint -f FILE",
        ));
    }
    let settings = Arc::new(config.settings.clone());
    let mut plans = Vec::new();
    for canary in canaries {
        let planning = Planning {
            context,
            args,
            config: &config,
            settings: &settings,
            manifests: &applied,
            changes: Changes::default(),
            unread: BTreeSet::new(),
            plan: Plan {
                namespace: canary.namespace.clone(),
                name: canary.name.clone(),
                ..Plan::default()
            },
            canary,
        };
        plans.push(Box::pin(planning.plan()).await?);
    }
    unless_closed(show(context, args.output, &plans))?;
    let answer = plans.iter().map(Plan::answer).max();
    Ok(match answer.unwrap_or(Answer::Good) {
        Answer::Good => Code::Yes,
        Answer::Incomplete => Code::Forbidden,
        Answer::Bad => Code::No,
    })
}

/// An object of a kind that the operator knows, by its name.
fn named(context: &Context, object: Value) -> Option<(ObjectRef, Value)> {
    let text = |field: &str| object["metadata"][field].as_str().map(str::to_owned);
    let namespace = text("namespace").unwrap_or_else(|| context.person.namespace().to_owned());
    let reference = kind(&object)?.reference(&namespace, &text("name")?);
    Some((reference, object))
}

fn show(context: &Context, format: Format, plans: &[Plan]) -> Result<(), Stop> {
    match format {
        Format::Json => print(&format!("{:#}\n", list_json(plans))),
        Format::Yaml => print(&yaml(&list_json(plans))),
        Format::Table | Format::Wide | Format::Name => {
            for plan in plans {
                context.output.long_lines(&lines(plan, text_width()))?;
            }
            let changes: usize = plans.iter().map(|plan| plan.changes.len()).sum();
            let count = |answer| plans.iter().filter(|plan| plan.answer() == answer).count();
            let (bad, incomplete) = (count(Answer::Bad), count(Answer::Incomplete));
            remark(&format!(
                "canaries: {}, objects that would be written: {changes}, with problems: {bad}, not completely checked: {incomplete}",
                plans.len()
            ));
            Ok(())
        }
    }
}

/// The plan of one Canary, while it is made.
struct Planning<'a> {
    context: &'a Context,
    args: &'a client::Plan,
    config: &'a Config,
    settings: &'a Arc<Settings>,
    /// The objects of the files, which count as applied.
    manifests: &'a [(ObjectRef, Value)],
    canary: ObjectRef,
    plan: Plan,
    changes: Changes,
    /// The objects that the person may not read. They count as missing.
    unread: BTreeSet<ObjectRef>,
}

impl<'a> Planning<'a> {
    async fn plan(mut self) -> Result<Plan, Stop> {
        let Some(canary) = self.canary_to_be().await? else {
            self.plan.changes = self.changes.shown();
            return Ok(self.plan);
        };
        let mut snapshot = empty_snapshot(canary, &self.canary, self.settings);
        snapshot.now = now();
        self.own_routes(&mut snapshot).await?;
        self.conflicts(&mut snapshot).await?;
        self.workloads(&mut snapshot).await?;
        let mut foresight = Foresight::of(snapshot);
        loop {
            match foresight.go_on() {
                Next::Read(objects) => {
                    for (object, value) in self.objects(objects).await? {
                        foresight.read(object, value);
                    }
                }
                Next::Try(write) => self.try_write(&mut foresight, &write).await,
                Next::End => break,
            }
        }
        let mut foreseen = foresight.end();
        self.first_step(&mut foreseen).await;
        self.plan.then = foreseen.then;
        if self.unread.is_empty() {
            self.plan.problems.extend(foreseen.problems);
        } else {
            // The cause of a problem may be an object that the person may not read and that counts as missing.
            self.plan.not_checked.extend(foreseen.problems);
        }
        self.metrics(foreseen.snapshot.clone()).await?;
        self.account(&foreseen.snapshot).await;
        self.plan.changes = self.changes.shown();
        Ok(self.plan)
    }

    /// The Canary as it would be; `None` if the API server would refuse the manifest, or if the Canary cannot be parsed.
    async fn canary_to_be(&mut self) -> Result<Option<Canary>, Stop> {
        let person = &self.context.person;
        let live = person.read(&self.canary).await;
        let live = live.map_err(|error| self.wants("get").failed(&error))?;
        let manifest = self.manifest(&self.canary);
        let value = match (manifest, live) {
            (None, None) => return Err(self.wants("get").missing()),
            (None, Some(live)) => live,
            (Some(manifest), live) => {
                let canary = self.canary.clone();
                let tried = self.apply(&canary, live.clone(), manifest).await;
                let after = tried.after.clone().filter(|_| tried.refused.is_none());
                self.changes.add(tried);
                let Some(after) = after else {
                    return Ok(None);
                };
                after
            }
        };
        let parsed = serde_json::from_value::<Canary>(value);
        match parsed {
            Ok(mut canary) => {
                let created = &mut canary.metadata.creation_timestamp;
                created.get_or_insert(Time(now()));
                Ok(Some(canary))
            }
            Err(error) => {
                let why = format!("canary cannot be read: {error}");
                self.plan.problems.push(why);
                Ok(None)
            }
        }
    }

    /// Reads the routes of the user that the Canary names: two Canaries may name one route, but not one rule of it.
    async fn own_routes(&mut self, snapshot: &mut Snapshot) -> Result<(), Stop> {
        let router = router(snapshot);
        if !router.are_users() {
            return Ok(());
        }
        let routes = router.sources(snapshot).into_iter().collect();
        for (route, value) in self.objects(routes).await? {
            snapshot.seen.insert(route.clone());
            snapshot.objects.extend(value.map(|value| (route, value)));
        }
        Ok(())
    }

    /// Finds the other Canaries of the namespace that claim the same objects.
    async fn conflicts(&mut self, snapshot: &mut Snapshot) -> Result<(), Stop> {
        let canaries = self.list(Kind::Canary).await?;
        let in_files = self.manifests.iter().filter(|(object, _)| {
            object.kind == Kind::Canary && object.namespace == self.canary.namespace
        });
        let mut others: BTreeMap<String, Canary> = canaries
            .into_iter()
            .filter_map(|other| serde_json::from_value(other).ok())
            .map(|other: Canary| (other.metadata.name.clone().unwrap_or_default(), other))
            .collect();
        for (object, manifest) in in_files {
            let Ok(mut other) = serde_json::from_value::<Canary>(manifest.clone()) else {
                continue;
            };
            let live = others.get(&object.name);
            let created = live.and_then(|live| live.metadata.creation_timestamp.clone());
            other.metadata.namespace = Some(object.namespace.clone());
            other.metadata.creation_timestamp = created.or(Some(Time(snapshot.now)));
            others.insert(object.name.clone(), other);
        }
        others.remove(&self.canary.name);
        let own = conflicting_among(snapshot, others.values().cloned());
        for other in others.values() {
            let reference = snapshot.reference(
                Kind::Canary,
                other.metadata.name.as_deref().unwrap_or_default(),
            );
            let mut theirs = empty_snapshot(other.clone(), &reference, self.settings);
            theirs.objects.clone_from(&snapshot.objects);
            let claims = std::iter::once(snapshot.canary.clone());
            if let Some(conflict) = conflicting_among(&theirs, claims) {
                let (kind, name) = (conflict.object.kind.name(), &conflict.object.name);
                self.plan.conflicts.push(Conflict {
                    canary: reference.name.clone(),
                    object: format!("{kind} {name}"),
                    not_run: reference.name,
                });
            }
        }
        if let Some(conflict) = &own {
            let (kind, name) = (conflict.object.kind.name(), &conflict.object.name);
            let other = conflict.canary.split('.').next().unwrap_or_default();
            self.plan.conflicts.push(Conflict {
                canary: other.to_owned(),
                object: format!("{kind} {name}"),
                not_run: self.canary.name.clone(),
            });
        }
        snapshot.conflicting_canary = own;
        Ok(())
    }

    /// Reads the labels of the pods that a selector must not select.
    async fn workloads(&mut self, snapshot: &mut Snapshot) -> Result<(), Stop> {
        for kind in WORKLOADS {
            let listed = self.list(kind).await?;
            let pods = listed.iter().map(|workload| {
                let name = workload["metadata"]["name"].as_str().unwrap_or_default();
                (
                    snapshot.reference(kind, name),
                    Pods::parse(&workload.to_string()),
                )
            });
            let pods: Vec<_> = pods.collect();
            Arc::make_mut(&mut snapshot.workloads).extend(pods);
        }
        Ok(())
    }

    /// The objects of a kind in the namespace; none if the person may not list them.
    async fn list(&mut self, kind: Kind) -> Result<Vec<Value>, Stop> {
        let namespace = self.canary.namespace.clone();
        let person = &self.context.person;
        let listed = person
            .list(Resource::of(kind), Some(&namespace), ListParams::default())
            .await;
        match listed {
            Err(error) if is_forbidden(&error) => {
                self.lacks("list", kind, &namespace);
                let plural = kind.plural();
                self.plan
                    .not_checked
                    .push(format!("conflicts with other {plural}"));
                Ok(Vec::new())
            }
            listed => listed.map_err(|error| self.wants("plan").failed(&error)),
        }
    }

    /// The manifest of an object.
    fn manifest(&self, object: &ObjectRef) -> Option<&'a Value> {
        let manifests: &'a [(ObjectRef, Value)] = self.manifests;
        let mut manifests = manifests.iter().rev();
        manifests.find_map(|(of, manifest)| (of == object).then_some(manifest))
    }

    /// The person lacks a right.
    fn lacks(&mut self, verb: &str, kind: Kind, namespace: &str) {
        let (group, _) = kind.group_version();
        self.missing(MissingRight {
            who: YOU.to_owned(),
            verb: verb.to_owned(),
            group: group.to_owned(),
            resource: kind.plural().to_owned(),
            namespace: Some(namespace.to_owned()),
        });
    }

    fn missing(&mut self, right: MissingRight) {
        if !self.plan.missing_rights.contains(&right) {
            self.plan.missing_rights.push(right);
        }
    }

    fn wants<'b>(&'b self, verb: &'b str) -> Wanted<'b> {
        Wanted {
            verb,
            namespace: Some(&self.canary.namespace),
            canary: Some(&self.canary.name),
            typed: &self.context.typed,
        }
    }

    /// An object that the person or the operator writes, without the result of the write.
    fn tried(object: &ObjectRef, by: By, before: Option<Value>) -> Tried {
        Tried {
            object: object.clone(),
            by,
            before,
            after: None,
            refused: None,
            untried: None,
        }
    }
}

fn is_forbidden(error: &ClusterError) -> bool {
    error.code() == Some(403)
}
