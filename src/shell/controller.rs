//! One look at a canary after another: `observe → decide ⇄ answer → execute → commit → report`.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use serde_json::Value;
use tokio::{sync::mpsc, time::Instant};
use tracing::{debug, error, info, warn};

use super::{
    answer::Answers,
    cache::Cache,
    cluster::{Cluster, ClusterError},
    memory::Memory,
    meters::Meters,
    observe::{self, ObserveError, before, jitter, observe, part, positive},
    report::Reporter,
    schedule::{Reconciler, Schedule},
    served::Served,
    server::Health,
    telemetry::{Recorder, name},
};
use crate::{
    api::canary::{Canary, CanaryPhase, CanaryStatus},
    notifications::{EventKind, Notification},
    rollout::{self, Decision, Plan, Requeue, audit, decide},
    snapshot::{Kind, ObjectRef, Settings, Snapshot, last_tick},
};

/// How many plans one look carries out before others get their turn.
const PLANS: usize = 16;
/// How often what is gone is forgotten.
const SWEEP: Duration = Duration::from_secs(10);
/// The pause after a look that came to nothing, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));
/// How often a canary that rests is looked at though nothing changed.
const REST: Duration = Duration::from_secs(600);
/// The same, if nobody tells of something that it looks at.
const UNWATCHED_REST: Duration = Duration::from_secs(300);

/// All that looks share.
pub struct Operator {
    /// Reads and writes.
    pub cluster: Cluster,
    /// What the operator was started with.
    pub settings: Arc<Settings>,
    /// Tells people.
    pub reporter: Reporter,
    /// Counts what canaries do.
    pub recorder: Recorder,
    /// Counts what the operator does.
    pub meters: Meters,
    /// Questions on their way.
    pub answers: Arc<Answers>,
}

/// What looks at canaries; cheap to clone.
#[derive(Clone)]
struct Context {
    operator: Arc<Operator>,
    cache: Arc<Cache>,
    health: Health,
    canaries: Arc<Mutex<HashMap<ObjectRef, Remembered>>>,
}

/// What is kept of a canary between looks.
#[derive(Clone, Default)]
struct Remembered {
    memory: Arc<Mutex<Memory>>,
    /// The name of its target, by which metrics know it.
    target: Option<String>,
    /// The version of it of which it was told that it cannot be read.
    poison: Option<String>,
    failures: u32,
}

/// Looks at all canaries of a namespace, or of all, which it watches with this client, until `stop`. On the channel canaries are named that
/// changed, or got an answer.
pub async fn run(
    client: Client,
    namespace: Option<&str>,
    operator: Arc<Operator>,
    (touch, mut touched): (
        mpsc::UnboundedSender<ObjectRef>,
        mpsc::UnboundedReceiver<ObjectRef>,
    ),
    health: Health,
    stop: impl Future<Output = ()>,
) {
    let needs = {
        let settings = operator.settings.clone();
        Box::new(move |cache: &Cache, canary: &ObjectRef| observe::needs(cache, &settings, canary))
    };
    let (cluster, meters) = (operator.cluster.clone(), operator.meters.clone());
    let (cache, wanted) = Cache::new(client, cluster, meters, namespace, needs, touch);
    let cache = Arc::new(cache);
    let context = Context {
        operator,
        cache: cache.clone(),
        health: health.clone(),
        canaries: Arc::default(),
    };
    let _leaving = Leaving(context.clone());
    let looking = async {
        tokio::pin!(stop);
        let mut unseen = tokio::select! {
            canaries = cache.synced() => canaries,
            () = &mut stop => return,
        };
        health.is_synced(true);
        info!("{} canaries", unseen.len());
        // What the first lists told calls nobody; but a canary may have come after them.
        let known: HashSet<_> = unseen.iter().cloned().collect();
        while let Ok(canary) = touched.try_recv() {
            if !known.contains(&canary) {
                unseen.push_back(canary);
            }
        }
        drop(known);
        Schedule::new(unseen).run(&context, touched, stop).await;
    };
    let sweeping = async {
        let mut sweeps = tokio::time::interval(SWEEP);
        loop {
            sweeps.tick().await;
            context.sweep();
        }
    };
    tokio::select! {
        () = looking => {}
        () = cache.run(wanted) => {}
        () = sweeping => {}
    }
}

/// Who looks no more, because another leads, asks no more, and shows nothing of what it saw.
struct Leaving(Context);

impl Drop for Leaving {
    fn drop(&mut self) {
        let Operator {
            answers,
            recorder,
            meters,
            ..
        } = self.0.operator.as_ref();
        answers.forget_all();
        recorder.total(&BTreeMap::new());
        meters.cached(&HashMap::new());
        for (canary, remembered) in self.0.remembered().drain() {
            if let Some(target) = remembered.target {
                recorder.forget(&target, &canary.namespace);
            }
        }
    }
}

impl Reconciler<ObjectRef> for Context {
    fn reconcile(
        &self,
        canary: ObjectRef,
    ) -> impl Future<Output = Option<Duration>> + Send + 'static {
        let context = self.clone();
        async move {
            let begun = Instant::now();
            let looked = context.reconcile(&canary).await;
            context.operator.meters.reconcile(begun.elapsed());
            match looked {
                Ok(again) => {
                    context.with(&canary, |remembered| remembered.failures = 0);
                    again
                }
                Err(problem) => {
                    warn!(
                        canary = format!("{}.{}", canary.name, canary.namespace),
                        "{problem}"
                    );
                    Some(context.failed(&canary, problem.category()))
                }
            }
        }
    }

    fn panicked(&self, canary: &ObjectRef) -> Duration {
        error!(
            canary = format!("{}.{}", canary.name, canary.namespace),
            "a defect: the look panicked"
        );
        self.failed(canary, "panic")
    }

    fn late(&self, by: Duration) {
        self.operator.meters.late(by);
    }

    fn beat(&self) {
        self.health.beat();
    }
}

impl Context {
    fn remembered(&self) -> MutexGuard<'_, HashMap<ObjectRef, Remembered>> {
        self.canaries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What metrics say of a target is over, if no other canary has it.
    fn forget(&self, target: &str, namespace: &str) {
        let is_its = |(canary, remembered): (&ObjectRef, &Remembered)| {
            canary.namespace == namespace && remembered.target.as_deref() == Some(target)
        };
        if !self.remembered().iter().any(is_its) {
            self.operator.recorder.forget(target, namespace);
        }
    }

    fn with<T>(&self, reference: &ObjectRef, f: impl FnOnce(&mut Remembered) -> T) -> T {
        f(self.remembered().entry(reference.clone()).or_default())
    }

    /// A look came to nothing; when to try again.
    fn failed(&self, canary: &ObjectRef, category: &str) -> Duration {
        self.operator.meters.error(category);
        let failures = self.with(canary, |remembered| {
            lock(&remembered.memory).interrupted();
            remembered.failures += 1;
            remembered.failures
        });
        let (first, most) = RETRY;
        first.saturating_mul(1 << failures.min(10)).min(most)
    }

    /// Looks at a canary, and does what is to be done, until there is nothing to do for now; when to look again.
    async fn reconcile(&self, reference: &ObjectRef) -> Result<Option<Duration>, ClusterError> {
        let memory = self.with(reference, |remembered| remembered.memory.clone());
        let Operator {
            settings, answers, ..
        } = self.operator.as_ref();
        let (mut last, mut asked_again, mut plans) = (None, false, 0);
        while plans < PLANS {
            let seen = observe(&self.cache, settings, reference, &memory, last.take());
            let snapshot = match Box::pin(seen).await {
                Ok(Some(snapshot)) => snapshot,
                // One that is known to be there and was not found is looked for again.
                Ok(None) => return Ok(self.cache.is_listed(reference).then_some(RETRY.1)),
                Err(ObserveError::Poison { error, metadata }) => {
                    self.notify_unreadable(reference, &error, &metadata);
                    return Ok(Some(REST));
                }
                Err(ObserveError::Cluster(error)) => return Err(error),
            };
            let target = &snapshot.canary.spec.target_ref.name;
            let before = self.with(reference, |remembered| {
                remembered.target.replace(target.clone())
            });
            if let Some(other) = before.filter(|before| before != target) {
                self.forget(&other, &reference.namespace);
            }
            let step = snapshot.step();
            let evidence = answers.evidence(reference, &step);
            self.record(&snapshot, &evidence);
            match decide(&snapshot, &evidence) {
                Decision::Ask(questions, notifications) => {
                    lock(&memory).asking(snapshot.tick, snapshot.now);
                    self.notify(&memory, &snapshot, notifications);
                    if !answers
                        .ask(reference, &snapshot.canary, step, questions)
                        .await
                    {
                        return Ok(Some(snapshot.canary.interval()));
                    }
                    last = Some(snapshot);
                }
                Decision::Wait(requeue, notifications)
                    if !asked_again
                        && lock(&memory).stands_still(snapshot.tick, requeue, &notifications) =>
                {
                    // That no news came is no proof that nothing changed. (What is waited for in silence is in the hour's list.)
                    self.cache.doubt(&snapshot.seen);
                    asked_again = true;
                }
                Decision::Wait(requeue, notifications) => {
                    let rests = notifications.is_empty() && rests(&snapshot, requeue);
                    let notifications = {
                        let mut memory = lock(&memory);
                        memory.waited(snapshot.tick, requeue);
                        if rests {
                            memory.rests();
                        }
                        memory.untold_wait(&step, requeue, notifications)
                    };
                    self.operator
                        .reporter
                        .notify(&snapshot.canary, notifications);
                    return Ok(Some(if rests {
                        self.rest(reference, &snapshot)
                    } else {
                        until_next(&snapshot, requeue)
                    }));
                }
                Decision::Do(plan) if !asked_again && self.asks_again(&snapshot, &plan).await? => {
                    asked_again = true;
                }
                Decision::Do(plan) => {
                    plans += 1;
                    let goes_on = self.carry_out(&memory, &snapshot, plan).await?;
                    if !goes_on {
                        return Ok(Some(until_next(&snapshot, Requeue::AtTick)));
                    }
                    last = Some(snapshot);
                }
            }
        }
        // Each plan is decided on what the one before it wrote: so many in a row are somebody who undoes them.
        let canary = format!("{}.{}", reference.name, reference.namespace);
        warn!(
            canary,
            "does not settle: something changes back what is written"
        );
        Ok(Some(RETRY.1))
    }

    /// Reads what a plan must not know by hearsay: it is made anew of what there is now. Whether there is any.
    async fn asks_again(&self, snapshot: &Snapshot, plan: &Plan) -> Result<bool, ClusterError> {
        let reference = snapshot.reference(Kind::Canary, snapshot.name());
        let stale_reads = rollout::stale_reads(snapshot, plan);
        for object in &stale_reads {
            self.cache.fetch(&reference, object).await?;
        }
        Ok(!stale_reads.is_empty())
    }

    /// Carries out a plan; false if it was refused again, so that nothing is tried before the next tick.
    async fn carry_out(
        &self,
        memory: &Mutex<Memory>,
        snapshot: &Snapshot,
        plan: Plan,
    ) -> Result<bool, ClusterError> {
        let canary = &snapshot.canary;
        let reference = snapshot.reference(Kind::Canary, snapshot.name());
        if let Err(why) = audit(snapshot, &plan) {
            self.operator
                .meters
                .refused(snapshot.name(), snapshot.namespace());
            self.notify(
                memory,
                snapshot,
                vec![rollout::warning(
                    snapshot,
                    format!("unsafe plan refused: {why}"),
                )],
            );
            lock(memory).waited(snapshot.tick, Requeue::AtTick);
            return Ok(false);
        }
        for write in &plan.writes {
            let sent = self.operator.cluster.apply(write);
            match self.cache.write(&reference, &write.object, sent).await {
                Ok(()) => {
                    lock(memory).mark_written(&write.object);
                    debug!(
                        canary = name(canary),
                        "wrote {} {}",
                        write.object.kind.name(),
                        write.object.name
                    );
                }
                Err(ClusterError::Lost(_)) => return Ok(true),
                Err(ClusterError::Refused { message, .. }) => {
                    self.notify(
                        memory,
                        snapshot,
                        vec![rollout::warning(snapshot, write.refusal(&message))],
                    );
                    let mut memory = lock(memory);
                    // What is only a repair is left out at the second look; nothing else waits for it.
                    let goes_on = memory.mark_written(&write.object);
                    if !goes_on {
                        memory.waited(snapshot.tick, Requeue::AtTick);
                    }
                    return Ok(goes_on);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(status) = &plan.status {
            let sent = self.commit(snapshot, status);
            match self.cache.write(&reference, &reference, sent).await {
                Ok(()) => self.committed(memory, snapshot, status),
                Err(ClusterError::Lost(_)) => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        self.notify(memory, snapshot, plan.notifications);
        Ok(true)
    }

    async fn commit(
        &self,
        snapshot: &Snapshot,
        status: &CanaryStatus,
    ) -> Result<Served, ClusterError> {
        let json = |status: Option<&CanaryStatus>| serde_json::to_value(status).unwrap_or_default();
        let change = merge_patch(&json(snapshot.canary.status.as_ref()), &json(Some(status)));
        let version = snapshot
            .canary
            .metadata
            .resource_version
            .clone()
            .unwrap_or_default();
        self.operator
            .cluster
            .commit(snapshot.namespace(), snapshot.name(), &version, change)
            .await
    }

    fn committed(&self, memory: &Mutex<Memory>, snapshot: &Snapshot, status: &CanaryStatus) {
        let mut memory = lock(memory);
        let canary = &snapshot.canary;
        let recorder = &self.operator.recorder;
        if let Some(asked_at) = memory.asked_at {
            recorder.step(canary, snapshot.now.duration_since(asked_at).as_secs_f64());
        }
        // A write within a step leaves its time as it was, and the step goes on.
        let before = snapshot.canary.status.as_ref();
        let before = before.and_then(|status| status.last_transition_time.as_ref());
        if status.last_transition_time.as_ref() != before {
            memory.done();
        }
        recorder.status(canary, status.phase);
        if status.phase != snapshot.phase() {
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

    fn record(&self, snapshot: &Snapshot, evidence: &rollout::Evidence) {
        let recorder = &self.operator.recorder;
        recorder.status(&snapshot.canary, snapshot.phase());
        if let Some(weights) = rollout::weights(snapshot) {
            recorder.weights(&snapshot.canary, weights.primary, weights.canary);
        }
        for (metric, value) in rollout::samples(snapshot, evidence) {
            recorder.sample(&snapshot.canary, &metric, value);
        }
    }

    /// Tells what was not told in this step.
    fn notify(
        &self,
        memory: &Mutex<Memory>,
        snapshot: &Snapshot,
        notifications: Vec<Notification>,
    ) {
        let notifications = lock(memory).untold(&snapshot.step(), notifications);
        self.operator
            .reporter
            .notify(&snapshot.canary, notifications);
    }

    /// Says that a Canary cannot be read: once for each of its versions.
    fn notify_unreadable(
        &self,
        reference: &ObjectRef,
        error: &serde_json::Error,
        metadata: &ObjectMeta,
    ) {
        let version = metadata.resource_version.clone();
        let is_told = self.with(reference, |remembered| {
            std::mem::replace(&mut remembered.poison, version.clone()) == version
        });
        self.operator.meters.error("poison");
        if is_told {
            return;
        }
        let canary = Canary {
            metadata: metadata.clone(),
            ..Canary::default()
        };
        let message = format!(
            "canary cannot be read: {error}; nothing is done for it until the field is mended"
        );
        let notification = Notification::Event {
            kind: EventKind::Warning,
            message,
            phase: CanaryPhase::New,
            checksum: String::new(),
        };
        self.operator.reporter.notify(&canary, vec![notification]);
    }

    /// How long a canary may rest if nothing changes.
    fn rest(&self, reference: &ObjectRef, snapshot: &Snapshot) -> Duration {
        let rest = if self.cache.uses_unwatched_kind(reference) {
            UNWATCHED_REST
        } else {
            REST
        };
        // Not all in one breath, though all may have begun to rest in one.
        rest.mul_f64(0.75 + 0.25 * part(&snapshot.canary))
    }

    /// Forgets canaries that are gone, and counts those that are there.
    fn sweep(&self) {
        let mut namespaces: BTreeMap<String, usize> = BTreeMap::new();
        let live: HashSet<_> = self.cache.canaries().into_iter().collect();
        for canary in &live {
            *namespaces.entry(canary.namespace.clone()).or_default() += 1;
        }
        let operator = &self.operator;
        operator.recorder.total(&namespaces);
        operator.meters.cached(&self.cache.sizes());
        let mut gone = Vec::new();
        self.remembered().retain(|reference, remembered| {
            let lives = live.contains(reference);
            if !lives {
                operator.answers.forget(reference);
                let target = remembered.target.take();
                gone.extend(target.map(|target| (target, reference.namespace.clone())));
            }
            lives
        });
        for (target, namespace) in gone {
            self.forget(&target, &namespace);
        }
    }
}

/// Whether nothing but a change can matter to a canary: it is between runs, as it should be, and nothing is to be said of it.
fn rests(snapshot: &Snapshot, requeue: Requeue) -> bool {
    use CanaryPhase as P;
    let is_settled = matches!(snapshot.phase(), P::Initialized | P::Succeeded | P::Failed)
        && snapshot.recently_written.is_empty()
        && snapshot.changed.is_none()
        && snapshot.conflicting_canary.is_none();
    match requeue {
        Requeue::OnChange => true,
        Requeue::AtTick => is_settled,
        Requeue::Ready | Requeue::Approval(_) | Requeue::At(_) => false,
    }
}

/// When to look again if nothing changes before.
fn until_next(snapshot: &Snapshot, requeue: Requeue) -> Duration {
    let interval = snapshot.canary.interval();
    let jitter = jitter(&snapshot.canary);
    let transition = snapshot
        .canary
        .status
        .as_ref()
        .and_then(|status| Some(status.last_transition_time.as_ref()?.0));
    let at = match requeue {
        Requeue::At(at) => at,
        Requeue::OnChange => return REST,
        Requeue::AtTick | Requeue::Ready | Requeue::Approval(_) => {
            let now = before(snapshot.now, jitter);
            let from = transition
                .and_then(|transition| last_tick(transition, interval, now).or(Some(transition)));
            let tick = from.unwrap_or(now).checked_add(interval);
            let Ok(at) = tick.and_then(|tick| tick.checked_add(jitter)) else {
                return interval;
            };
            at
        }
    };
    positive(at.duration_since(snapshot.now))
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

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}
