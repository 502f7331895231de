//! One look at a canary after another: `observe → decide ⇄ answer → execute → commit → report`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{Stream, StreamExt, stream};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{
        Controller, WatchStreamExt,
        controller::{Action, Config},
        reflector::{ObjectRef as CanaryRef, Store},
        watcher,
    },
};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{IntervalStream, UnboundedReceiverStream};
use tracing::{debug, error, info, warn};

use super::{
    answer::Answers,
    cluster::{Cluster, ClusterError},
    memory::Memory,
    observe::{ObserveError, observe},
    report::Reporter,
    telemetry::{Recorder, name},
};
use crate::{
    api::canary::{Canary, CanaryPhase, CanaryStatus},
    notice::{EventKind, Notice},
    rollout::{self, Decision, Next, Plan, audit, decide},
    route::{self, Dialect},
    world::{Kind, ObjectRef, Settings, World, last_due},
};

/// A Canary as the watch has it: one that cannot be read does not end the watch.
type Watched = DeserializeGuard<Canary>;

/// How many plans one look carries out before others get their turn.
const PLANS: usize = 16;
/// How often what is gone is forgotten.
const SWEEP: Duration = Duration::from_secs(10);
/// The pause after a look that came to nothing, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));

/// All that looks share.
pub struct Operator {
    /// Reads and writes.
    pub cluster: Cluster,
    /// What the operator was started with.
    pub settings: Arc<Settings>,
    /// Tells people.
    pub reporter: Reporter,
    /// Counts.
    pub recorder: Recorder,
    /// Questions on their way.
    pub answers: Arc<Answers>,
}

struct Context {
    operator: Arc<Operator>,
    store: Store<Watched>,
    canaries: Mutex<HashMap<ObjectRef, Remembered>>,
}

/// What is kept of a canary between looks.
#[derive(Clone, Default)]
struct Remembered {
    memory: Arc<Mutex<Memory>>,
    canary: Option<Arc<Canary>>,
    failures: u32,
}

/// Why a look came to nothing.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Observe(#[from] ObserveError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("a defect: the look panicked")]
    Panicked,
}

impl LookError {
    const fn category(&self) -> &'static str {
        match self {
            Self::Observe(ObserveError::Poison { .. }) => "poison",
            Self::Observe(ObserveError::Cluster(error)) | Self::Cluster(error) => error.category(),
            Self::Panicked => "panic",
        }
    }
}

/// Looks at all canaries of a namespace, or of all, until `stop`; `answered` names those that got an answer.
pub async fn run(
    client: Client,
    namespace: Option<&str>,
    operator: Arc<Operator>,
    answered: mpsc::UnboundedReceiver<ObjectRef>,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let canaries: Api<Watched> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let controller =
        Controller::new(canaries, watcher::Config::default()).with_config(Config::default());
    let store = controller.store();
    let context = Arc::new(Context {
        operator,
        store: store.clone(),
        canaries: Mutex::default(),
    });
    let sweeps = IntervalStream::new(tokio::time::interval(SWEEP));
    let sweeping = sweeps.for_each(|_| {
        context.sweep();
        std::future::ready(())
    });
    let answers = UnboundedReceiverStream::new(answered)
        .map(|canary| CanaryRef::new(&canary.name).within(&canary.namespace));
    let looking = controller
        .reconcile_on(answers)
        .reconcile_on(changes(&client, namespace, store))
        .graceful_shutdown_on(stop)
        .run(reconcile, on_error, context.clone())
        .for_each(|_| std::future::ready(()));
    tokio::select! {
        () = looking => {}
        () = sweeping => {}
    }
}

/// The canaries that a change of another object may matter to. Each watch has a backoff of its own: a kind that is not installed
/// must not slow the others.
fn changes(
    client: &Client,
    namespace: Option<&str>,
    store: Store<Watched>,
) -> impl Stream<Item = CanaryRef<Watched>> + Send + use<> {
    let kinds = [
        Kind::Deployment,
        Kind::DaemonSet,
        Kind::Service,
        Kind::ConfigMap,
        Kind::Secret,
        Kind::VirtualService,
        Kind::DestinationRule,
        Kind::HttpRoute,
        Kind::HttpRouteV1Beta1,
        Kind::HttpProxy,
        Kind::Ingress,
        Kind::TrafficSplitV1Alpha1,
        Kind::TrafficSplitV1Alpha2,
        Kind::TrafficSplitV1Alpha3,
    ];
    let touched = kinds.map(|kind| touched(client, namespace, kind));
    stream::select_all(touched).flat_map(move |object| stream::iter(concerned(&store, &object)))
}

/// The objects of a kind, as they are created, changed and deleted; only their metadata is fetched.
fn touched(
    client: &Client,
    namespace: Option<&str>,
    kind: Kind,
) -> stream::BoxStream<'static, ObjectRef> {
    let (group, version) = kind.group_version();
    let resource = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk(group, version, kind.name()),
        kind.plural(),
    );
    let api: Api<PartialObjectMeta<DynamicObject>> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    watcher(api, watcher::Config::default())
        .default_backoff()
        .touched_objects()
        .filter_map(move |touched| {
            let touched = touched
                .inspect_err(|error| debug!("watching {}: {error}", kind.plural()))
                .ok();
            let object = touched.map(|object| ObjectRef {
                kind,
                namespace: object.metadata.namespace.clone().unwrap_or_default(),
                name: object.metadata.name.clone().unwrap_or_default(),
            });
            std::future::ready(object)
        })
        .boxed()
}

/// The canaries that look at an object: by its name, which says all but for the configs that a template uses.
fn concerned(store: &Store<Watched>, object: &ObjectRef) -> Vec<CanaryRef<Watched>> {
    let named = |canary: &Canary| {
        let target = &canary.spec.target_ref.name;
        let own = [
            target.clone(),
            canary.primary_workload_name(),
            canary.apex_name().to_owned(),
            canary.primary_name(),
            canary.canary_name(),
        ];
        match object.kind {
            Kind::ConfigMap | Kind::Secret => {
                let key = crate::workload::config::status_key(
                    object.kind,
                    object.name.trim_end_matches("-primary"),
                );
                let tracked = canary
                    .status
                    .as_ref()
                    .and_then(|status| status.tracked_configs.as_ref());
                let waits = canary
                    .status
                    .as_ref()
                    .is_none_or(|status| status.phase == CanaryPhase::Initializing);
                waits || tracked.is_some_and(|tracked| tracked.contains_key(&key))
            }
            // Named by the user.
            Kind::Ingress => route::objects(Dialect::Nginx, canary).contains(object),
            _ => own.contains(&object.name),
        }
    };
    store
        .state()
        .iter()
        .filter(|watched| watched.meta().namespace.as_deref() == Some(&object.namespace))
        .filter(|watched| watched.0.as_ref().is_ok_and(named))
        .map(|watched| CanaryRef::from_obj(watched.as_ref()))
        .collect()
}

async fn reconcile(watched: Arc<Watched>, context: Arc<Context>) -> Result<Action, LookError> {
    let reference = reference_to(watched.meta());
    let look = tokio::spawn({
        let (context, reference) = (context.clone(), reference.clone());
        async move { context.look(reference).await }
    });
    // A panic is this canary's error, and nobody else's.
    let action = look.await.unwrap_or(Err(LookError::Panicked))?;
    context.with(&reference, |remembered| remembered.failures = 0);
    Ok(action)
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is kube's")]
fn on_error(watched: Arc<Watched>, problem: &LookError, context: Arc<Context>) -> Action {
    let canary = format!(
        "{}.{}",
        watched.name_any(),
        watched.namespace().unwrap_or_default()
    );
    context.operator.recorder.error(problem.category());
    match problem {
        LookError::Panicked => error!(canary, "{problem}"),
        _ => warn!(canary, "{problem}"),
    }
    let failures = context.with(&reference_to(watched.meta()), |remembered| {
        remembered.failures += 1;
        remembered.failures
    });
    let (first, most) = RETRY;
    Action::requeue(first.saturating_mul(1 << failures.min(10)).min(most))
}

fn reference_to(meta: &kube::core::ObjectMeta) -> ObjectRef {
    ObjectRef {
        kind: Kind::Canary,
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
    }
}

impl Context {
    fn with<T>(&self, reference: &ObjectRef, f: impl FnOnce(&mut Remembered) -> T) -> T {
        let mut canaries = self.canaries.lock().unwrap_or_else(PoisonError::into_inner);
        f(canaries.entry(reference.clone()).or_default())
    }

    /// Looks at a canary, and does what is to be done, until there is nothing to do for now.
    async fn look(&self, reference: ObjectRef) -> Result<Action, LookError> {
        let memory = self.with(&reference, |remembered| remembered.memory.clone());
        let Operator {
            cluster,
            settings,
            answers,
            ..
        } = self.operator.as_ref();
        for _ in 0..PLANS {
            let rival = self.rival(&reference);
            let world = match observe(cluster, settings, reference.clone(), rival, &memory).await {
                Ok(Some(world)) => world,
                Ok(None) => return Ok(Action::await_change()),
                Err(problem) => {
                    self.tell_poison(&problem);
                    return Err(problem.into());
                }
            };
            self.with(&reference, |remembered| {
                remembered.canary = Some(Arc::new(world.canary.clone()));
            });
            let step = world.step();
            let evidence = answers.evidence(&reference, &step);
            self.record(&world, &evidence);
            match decide(&world, &evidence) {
                Decision::Ask(questions, notices) => {
                    lock(&memory).asking(world.due, world.now);
                    self.tell(&memory, &world, notices);
                    answers.ask(&reference, &world.canary, step, questions);
                    return Ok(Action::requeue(world.canary.interval()));
                }
                Decision::Wait(next, notices) => {
                    let notices = {
                        let mut memory = lock(&memory);
                        memory.waited(world.due, next);
                        memory.untold_wait(&step, next, notices)
                    };
                    self.operator.reporter.tell(&world.canary, notices);
                    return Ok(requeue(&world, next));
                }
                Decision::Do(plan) => {
                    if !self.carry_out(&memory, &world, plan).await? {
                        return Ok(requeue(&world, Next::Due));
                    }
                }
            }
        }
        // Each plan is decided on what the one before it wrote: so many in a row are somebody who undoes them.
        let canary = format!("{}.{}", reference.name, reference.namespace);
        warn!(
            canary,
            "does not settle: something changes back what is written"
        );
        Ok(Action::requeue(RETRY.1))
    }

    /// Carries out a plan; false if it was refused again, so that nothing is tried before the next due.
    async fn carry_out(
        &self,
        memory: &Mutex<Memory>,
        world: &World,
        plan: Plan,
    ) -> Result<bool, LookError> {
        let canary = &world.canary;
        if let Err(why) = audit(world, &plan) {
            self.operator.recorder.refused(canary);
            self.tell(
                memory,
                world,
                vec![rollout::warning(
                    world,
                    format!("unsafe plan refused: {why}"),
                )],
            );
            lock(memory).waited(world.due, Next::Due);
            return Ok(false);
        }
        for effect in &plan.effects {
            match self.operator.cluster.apply(effect).await {
                Ok(()) => {
                    lock(memory).mend(&effect.object);
                    debug!(
                        canary = name(canary),
                        "wrote {} {}",
                        effect.object.kind.name(),
                        effect.object.name
                    );
                }
                Err(ClusterError::Lost(_)) => return Ok(true),
                Err(ClusterError::Refused { message, .. }) => {
                    self.tell(
                        memory,
                        world,
                        vec![rollout::warning(world, effect.refusal(&message))],
                    );
                    let mut memory = lock(memory);
                    // What is only a repair is left out at the second look; nothing else waits for it.
                    let goes_on = memory.mend(&effect.object);
                    if !goes_on {
                        memory.waited(world.due, Next::Due);
                    }
                    return Ok(goes_on);
                }
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(status) = &plan.status {
            match self.commit(world, status).await {
                Ok(()) => self.committed(memory, world, status),
                Err(ClusterError::Lost(_)) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
        self.tell(memory, world, plan.notices);
        Ok(true)
    }

    async fn commit(&self, world: &World, status: &CanaryStatus) -> Result<(), ClusterError> {
        let json = |status: Option<&CanaryStatus>| serde_json::to_value(status).unwrap_or_default();
        let change = merge_patch(&json(world.canary.status.as_ref()), &json(Some(status)));
        let version = world
            .canary
            .metadata
            .resource_version
            .clone()
            .unwrap_or_default();
        self.operator
            .cluster
            .commit(world.namespace(), world.name(), &version, change)
            .await
    }

    fn committed(&self, memory: &Mutex<Memory>, world: &World, status: &CanaryStatus) {
        let mut memory = lock(memory);
        let canary = &world.canary;
        let recorder = &self.operator.recorder;
        if let Some(asked_at) = memory.asked_at {
            recorder.step(canary, world.now.duration_since(asked_at).as_secs_f64());
        }
        // A write within a step leaves its time as it was, and the step goes on.
        let before = world.canary.status.as_ref();
        let before = before.and_then(|status| status.last_transition_time.as_ref());
        if status.last_transition_time.as_ref() != before {
            memory.done();
        }
        recorder.status(canary, status.phase);
        if status.phase != world.phase() {
            info!(
                canary = name(canary),
                phase = status.phase.as_str(),
                weight = status.canary_weight,
                "entered a phase"
            );
            match status.phase {
                CanaryPhase::Succeeded => recorder.ended(canary, true, canary.skip_analysis()),
                CanaryPhase::Failed => recorder.ended(canary, false, false),
                _ => {}
            }
        }
    }

    fn record(&self, world: &World, evidence: &rollout::Evidence) {
        let recorder = &self.operator.recorder;
        recorder.status(&world.canary, world.phase());
        if let Some(weights) = rollout::weights(world) {
            recorder.weights(&world.canary, weights.primary, weights.canary);
        }
        for (metric, value) in rollout::samples(world, evidence) {
            recorder.sample(&world.canary, &metric, value);
        }
    }

    /// Tells what was not told in this step.
    fn tell(&self, memory: &Mutex<Memory>, world: &World, notices: Vec<Notice>) {
        let notices = lock(memory).untold(&world.step(), notices);
        self.operator.reporter.tell(&world.canary, notices);
    }

    fn tell_poison(&self, problem: &ObserveError) {
        let ObserveError::Poison { metadata, .. } = problem else {
            return;
        };
        let canary = Canary {
            metadata: (**metadata).clone(),
            ..Canary::default()
        };
        let message = format!("{problem}; nothing is done for it until the field is mended");
        let notice = Notice::Event {
            kind: EventKind::Warning,
            message,
            phase: CanaryPhase::New,
            checksum: String::new(),
        };
        self.operator.reporter.tell(&canary, vec![notice]);
    }

    /// The older canary with the same target.
    fn rival(&self, reference: &ObjectRef) -> Option<String> {
        let canaries = self.store.state();
        let neighbours: Vec<_> = canaries
            .iter()
            .filter(|watched| watched.meta().namespace.as_deref() == Some(&reference.namespace))
            .filter_map(|watched| watched.0.as_ref().ok())
            .collect();
        let own = neighbours
            .iter()
            .find(|canary| canary.name_any() == reference.name)?;
        let age = |canary: &Canary| {
            (
                canary.creation_timestamp().map(|time| time.0),
                canary.name_any(),
            )
        };
        let same = |other: &&&Canary| {
            let (a, b) = (&other.spec.target_ref, &own.spec.target_ref);
            (a.kind == b.kind && a.name == b.name) && age(other) < age(own)
        };
        neighbours.iter().find(same).map(|older| name(older))
    }

    /// Forgets canaries that are gone, and counts those that are there.
    fn sweep(&self) {
        let mut namespaces: BTreeMap<String, usize> = BTreeMap::new();
        let live: Vec<_> = self
            .store
            .state()
            .iter()
            .map(|watched| reference_to(watched.meta()))
            .collect();
        for canary in &live {
            *namespaces.entry(canary.namespace.clone()).or_default() += 1;
        }
        self.operator.recorder.total(&namespaces);
        let mut canaries = self.canaries.lock().unwrap_or_else(PoisonError::into_inner);
        canaries.retain(|reference, remembered| {
            let lives = live.contains(reference);
            if !lives {
                self.operator.answers.forget(reference);
                if let Some(canary) = &remembered.canary {
                    self.operator.recorder.forget(canary);
                    self.operator
                        .reporter
                        .forget(canary.metadata.uid.as_deref().unwrap_or_default());
                }
            }
            lives
        });
    }
}

/// When to look again if nothing changes before.
fn requeue(world: &World, next: Next) -> Action {
    let interval = world.canary.interval();
    let transition = world
        .canary
        .status
        .as_ref()
        .and_then(|status| Some(status.last_transition_time.as_ref()?.0));
    let at = match next {
        Next::At(at) => at,
        Next::Change => return Action::await_change(),
        Next::Due | Next::Ready | Next::Approval(_) => {
            let from = transition.and_then(|transition| {
                last_due(transition, interval, world.now).or(Some(transition))
            });
            let Ok(at) = from.unwrap_or(world.now).checked_add(interval) else {
                return Action::requeue(interval);
            };
            at
        }
    };
    Action::requeue(Duration::try_from(at.duration_since(world.now)).unwrap_or(Duration::ZERO))
}

/// The JSON merge patch that turns one object into another.
fn merge_patch(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else {
        return to.clone();
    };
    let removed = from
        .keys()
        .filter(|key| !to.contains_key(*key))
        .map(|key| (key.clone(), Value::Null));
    let changed = to
        .iter()
        .filter(|(key, value)| from.get(*key) != Some(value))
        .map(|(key, value)| {
            (
                key.clone(),
                from.get(key)
                    .map_or_else(|| value.clone(), |old| merge_patch(old, value)),
            )
        });
    Value::Object(removed.chain(changed).collect())
}

fn lock(memory: &Mutex<Memory>) -> std::sync::MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}
