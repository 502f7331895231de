//! Predicts the next writes of the operator for a Canary. This module makes the operator's own decisions one after the other, and assumes
//! that each write succeeds, that the primary is as ready as the target, and that every gateway has applied its route.

use std::collections::VecDeque;

use jiff::SignedDuration;
use serde_json::Value;

use crate::{
    api::{
        canary::{CanaryPhase, CanaryStatus, Strategy},
        percent::Percent,
    },
    notifications::{EventKind, Notification},
    providers,
    rollout::{
        self, Decision, Evidence, FirstAction, Preview, Requeue, audit, decide, is_in_run,
        new_version, preview, spec_problem,
    },
    snapshot::{Action, Changed, ObjectRef, Snapshot, Tick, Weights, Write},
};

/// The most decisions in a row. An initialization takes about ten.
const ROUNDS: usize = 40;
/// A change of this age is no longer debounced.
const OLD: SignedDuration = SignedDuration::from_mins(1);

/// The operator's decisions about one Canary. The caller reads the objects and tries the writes that [`Foresight::go_on`] names.
pub struct Foresight {
    snapshot: Snapshot,
    /// Whether the prediction covers the initialization, to its end. If not, the prediction ends at the next run, or at the next step of a
    /// run.
    is_new: bool,
    rounds: usize,
    writes: VecDeque<Write>,
    /// The status after these writes.
    status: Option<CanaryStatus>,
    is_over: bool,
    problems: Vec<String>,
    steps: Vec<String>,
}

/// The next thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Read these objects.
    Read(Vec<ObjectRef>),
    /// Try this write.
    Try(Box<Write>),
    /// The prediction has ended.
    End,
}

/// The result of a prediction.
#[derive(Clone, Debug)]
pub struct Foreseen {
    /// The objects after the predicted writes.
    pub snapshot: Snapshot,
    /// The reasons why the Canary would not be released, in the operator's words.
    pub problems: Vec<String>,
    /// The next steps, in a sentence.
    pub then: String,
}

impl Foresight {
    /// Starts a prediction for a Canary. Its objects are not read yet.
    pub fn of(snapshot: Snapshot) -> Self {
        let is_new = is_new(&snapshot);
        Self {
            is_new,
            problems: spec_problem(&snapshot).into_iter().collect(),
            snapshot,
            rounds: 0,
            writes: VecDeque::new(),
            status: None,
            is_over: false,
            steps: Vec::new(),
        }
    }

    /// The next thing to do.
    pub fn go_on(&mut self) -> Next {
        loop {
            if let Some(write) = self.writes.pop_front() {
                return Next::Try(Box::new(write));
            }
            if let Some(status) = self.status.take() {
                self.enter(status);
            }
            if self.is_over || self.rounds == ROUNDS {
                return Next::End;
            }
            let needs = rollout::needs(&self.snapshot);
            let missing: Vec<_> = needs.difference(&self.snapshot.seen).cloned().collect();
            if !missing.is_empty() {
                return Next::Read(missing);
            }
            self.rounds += 1;
            self.decide();
        }
    }

    /// Adds an object that the caller has read; `None` if it does not exist.
    pub fn read(&mut self, object: ObjectRef, value: Option<Value>) {
        if let Some(value) = value {
            self.snapshot.objects.insert(object.clone(), value);
        }
        self.snapshot.seen.insert(object);
    }

    /// Adds the object as it would be after a write that the caller has tried.
    pub fn written(&mut self, object: &ObjectRef, mut after: Value) {
        let primary = self.snapshot.canary.primary_workload_name();
        let target = self
            .snapshot
            .target()
            .and_then(|target| target.get("status"));
        if object.name == primary
            && after.pointer("/spec/template").is_some()
            && let Some(status) = target.cloned()
        {
            after["status"] = status;
        }
        // The prediction assumes that Knative's gateway has the written routes. The status reports the routes of the gateway.
        let routes = after.pointer("/spec/traffic").cloned();
        if let (Some(routes), Some(reported)) = (routes, after.pointer_mut("/status/traffic")) {
            *reported = routes;
        }
        let generation = after.pointer("/metadata/generation").cloned();
        if let (Some(generation), Some(status)) = (generation, after.get_mut("status")) {
            observe(status, &generation);
        }
        self.snapshot.objects.insert(object.clone(), after);
    }

    /// The objects after the writes that are predicted so far.
    pub const fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The Canary and its objects at the end.
    pub fn end(mut self) -> Foreseen {
        let last = preview(&self.asked());
        self.refused(&last);
        let is_initialized = self.snapshot.phase() == CanaryPhase::Initialized;
        let then = if self.is_new && is_initialized {
            "initializes the canary: the primary gets the target's version and all traffic; the next version is the first that is analysed".to_owned()
        } else if self.is_new {
            last.to_string()
        } else {
            self.steps.dedup();
            self.steps.join(", then ")
        };
        Foreseen {
            snapshot: self.snapshot,
            problems: self.problems,
            then,
        }
    }

    /// The snapshot for the next decision. In it, an initialization skips the analysis, so that the decision neither waits for pods that do
    /// not exist yet nor queries a metric server.
    fn asked(&self) -> Snapshot {
        let mut asked = self.snapshot.clone();
        asked.tick = Some(Tick {
            at: asked.now,
            late: false,
        });
        let rested = asked.now.saturating_sub(OLD).unwrap_or(asked.now);
        asked.changed = new_version(&asked).map(|_| Changed {
            first: rested,
            last: rested,
        });
        asked.canary.spec.skip_analysis |= asked.phase() == CanaryPhase::Initializing;
        asked
    }

    fn decide(&mut self) {
        let asked = self.asked();
        if !self.is_new {
            let preview = preview(&asked);
            self.refused(&preview);
            if self.steps.is_empty() || preview.action != FirstAction::Nothing {
                self.steps.push(preview.to_string());
            }
        }
        match decide(&asked, &Evidence::new()) {
            Decision::Do(plan) => {
                if let Err(why) = audit(&asked, &plan) {
                    self.problem(format!("unsafe plan: {why}"));
                    self.is_over = true;
                    return;
                }
                // After a plan without a write and without a status, the next decision would be the same again.
                self.is_over = plan.writes.is_empty() && plan.status.is_none();
                self.writes = plan.writes.into();
                self.status = plan.status;
            }
            Decision::Wait(Requeue::At(end), _) if self.is_new && end > self.snapshot.now => {
                self.snapshot.now = end;
            }
            Decision::Wait(_, notifications) => {
                notifications
                    .iter()
                    .filter_map(warning)
                    .for_each(|why| self.problem(why));
                self.is_over = true;
            }
            Decision::Ask(..) => self.is_over = true,
        }
    }

    /// Commits the status of a plan whose writes are made.
    fn enter(&mut self, status: CanaryStatus) {
        let before = self.snapshot.phase();
        self.snapshot.canary.status = Some(status);
        let phase = self.snapshot.phase();
        let is_adopted = before == phase && !is_in_run(phase);
        self.is_over = if self.is_new {
            !is_new(&self.snapshot)
        } else {
            !is_adopted
        };
    }

    fn refused(&mut self, preview: &Preview) {
        if preview.action == FirstAction::Refused {
            self.problem(preview.why.clone());
        }
    }

    fn problem(&mut self, why: String) {
        if !self.problems.contains(&why) {
            self.problems.push(why);
        }
    }
}

fn is_new(snapshot: &Snapshot) -> bool {
    matches!(
        snapshot.phase(),
        CanaryPhase::New | CanaryPhase::Initializing
    )
}

/// The text of a Warning.
fn warning(notification: &Notification) -> Option<String> {
    match notification {
        Notification::Event {
            kind: EventKind::Warning,
            message,
            ..
        } => Some(message.clone()),
        Notification::Event { .. } | Notification::Alert { .. } => None,
    }
}

/// Sets each observed generation, as if each controller had processed the object.
fn observe(status: &mut Value, generation: &Value) {
    match status {
        Value::Object(fields) => {
            for (field, value) in fields {
                if field == "observedGeneration" {
                    *value = generation.clone();
                } else {
                    observe(value, generation);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| observe(item, generation)),
        _ => {}
    }
}

/// The object after a write, without the changes that the API server makes. `None` if a patch does not fit.
pub fn result(write: &Write, before: Option<&Value>) -> Option<Value> {
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

/// The writes into routes of the user (`routeRefs`) at the first step of the next run; none if the Canary names no route, if a run has got
/// further, or if the routes get no weights before the promotion.
///
/// # Errors
/// The weights of a route cannot be set.
pub fn first_step(snapshot: &Snapshot) -> Result<Vec<Write>, String> {
    let (canary, router) = (&snapshot.canary, providers::router(snapshot));
    let phase = snapshot.phase();
    let is_before = !is_in_run(phase) || phase == CanaryPhase::Progressing;
    let is_before = is_before && snapshot.status().canary_weight == 0;
    let has_steps = canary.strategy() == Strategy::Canary && !canary.skip_analysis();
    if !router.are_users() || !is_before || !has_steps {
        return Ok(Vec::new());
    }
    let first = Weights::canary(canary.next_weight(Percent::ZERO));
    let writes = router.set_weights(snapshot, &first);
    writes.map_err(|why| why.to_string())
}

/// The Canary under analysis, so that the objects which its metrics need are read.
pub fn analysed(mut snapshot: Snapshot) -> Snapshot {
    let status = snapshot.canary.status.get_or_insert_default();
    status.phase = CanaryPhase::Progressing;
    snapshot
}
