//! A simulated cluster for one canary: enough of Kubernetes, of webhooks and of metric servers for a release to run, in memory.
//!
//! Pods are ready at once, and a second passes whenever the operator waits. Each plan is audited before it is carried out, and so is
//! every prefix of it, because a crash may cut it off there.
//!
//! | question | file |
//! | --- | --- |
//! | what does a simulation begin with? | `start.rs` |
//! | what does a write change, and what do Kubernetes and KEDA do then? | `cluster.rs` |
//! | what do webhooks, metric servers and chats answer? | `servers.rs` |
//! | which counters does Prometheus have? | `traffic.rs` |
//! | what can a user change between two reconciles? | `edits.rs` |
//! | which plan is wrong? | `judge.rs` |
//! | what is there to assert on? | `transcript.rs`, and the public fields of [`Simulation`] |

mod cluster;
mod edits;
mod judge;
mod knative;
mod servers;
mod start;
mod traffic;
mod transcript;

use std::{collections::BTreeSet, sync::Arc};

use flagger_rs::{
    api::canary::{CanaryPhase, CanaryStatus},
    notifications::Notification,
    rollout::{self, Decision, Evidence, Plan, Question},
    shell::controller::reconcile_state::ReconcileState,
    snapshot::{Kind, Snapshot},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

pub use edits::{AnyState, Revision, Rollout};
use judge::Moment;
pub use start::{release, release_of, scaled};
pub use traffic::Traffic;

/// No release of these tests needs more reconciles than this.
const BOUND: usize = 2000;

pub struct Simulation {
    pub snapshot: Snapshot,
    pub evidence: Evidence,
    /// The operator's own memory of the notifications and answers of a step.
    pub memory: ReconcileState,
    /// The value that metric servers return.
    pub metric: String,
    /// The value that metric servers return to the query which checks that they are online.
    pub online: &'static str,
    /// The requests of clients, for canaries that are compared with their primary.
    pub traffic: Option<Traffic>,
    /// The names of the webhooks that answer with 403.
    pub closed: BTreeSet<&'static str>,
    /// No pod of the canary is ready.
    pub dead: bool,
    /// Pods of the primary with this image never become ready.
    pub broken: Option<&'static str>,
    /// One pod of this workload never becomes ready.
    pub short: Option<&'static str>,
    /// No pod of this workload is ready.
    pub unready: Option<&'static str>,
    /// Until the operator waits, time stands still, and neither pods nor autoscalers change.
    pub frozen: bool,
    /// An admission policy of the cluster: changes each object that the operator or a user writes.
    pub policy: Option<fn(Kind, &mut Value)>,
    /// How many seconds pass until the answers to the questions of a reconcile arrive.
    pub answers_take: i64,
    /// The operator crashes, once, after this many writes.
    pub crash_after: Option<usize>,
    pub writes: usize,
    /// The former versions of workloads, by the kind of the object that keeps them.
    pub kept: Vec<(Kind, Value)>,
    /// How many more lists of them fail.
    pub failed_lists: usize,
    /// The event about each write, if the API server had refused it with the message `…`.
    pub refusals: Vec<String>,
    /// Each event and alert that was sent.
    pub notified: Vec<String>,
    /// Each cookie that any route set or took back.
    pub cookies: BTreeSet<String>,
    /// The canary's weight after each write of a route during the analysis.
    pub analysed: Vec<u8>,
    /// The canary's weight after each write of a route.
    pub routed: Vec<u8>,
    /// The transcript.
    lines: Vec<String>,
}

impl Simulation {
    /// Reconciles until the canary is in this phase and no operation is pending in its conditions.
    pub fn run_until(&mut self, end: CanaryPhase) {
        for _ in 0..BOUND {
            self.reconcile();
            let status = self.snapshot.canary.status.clone().unwrap_or_default();
            let mut conditions = status.conditions.iter().flatten();
            // `PromotionFailed` stays for as long as the primary is broken, `Action` and `Verdict` until the next run, `RouteRefs` for as
            // long as the Canary names routes of a user, `GrpcRoute` for as long as it has a GRPCRoute.
            let stay = [
                "Promoted",
                "PromotionFailed",
                "Action",
                "Verdict",
                "RouteRefs",
                "GrpcRoute",
            ];
            let is_idle = conditions.all(|c| stay.contains(&c.type_.as_str()));
            if status.phase == end && is_idle {
                return;
            }
        }
        panic!("the canary never reached {end}:\n{}", self.transcript());
    }

    /// Reconciles until the canary is in this phase.
    pub fn run_until_phase(&mut self, phase: CanaryPhase) {
        for _ in 0..BOUND {
            if self.snapshot.phase() == phase {
                return;
            }
            self.reconcile();
        }
        panic!("the canary never reached {phase}:\n{}", self.transcript());
    }

    /// Reconciles this many times.
    pub fn run(&mut self, reconciles: usize) {
        for _ in 0..reconciles {
            self.reconcile();
        }
    }

    /// Reconciles once, as the shell does. If the operator waits, a second passes.
    pub fn reconcile(&mut self) {
        if !self.frozen {
            self.run_keda();
            self.run_pods();
            self.run_knative();
            self.observe();
        }
        match rollout::decide(&self.snapshot, &self.evidence) {
            Decision::Ask(questions, notifications) => self.ask(questions, notifications),
            Decision::Wait(requeue, notifications) => {
                let step = self.snapshot.step();
                let unsent = self.memory.unsent_of_wait(&step, requeue, notifications);
                self.notify(unsent);
                self.memory.waited(self.snapshot.tick, requeue);
                self.evidence.clear();
                self.wait();
            }
            // Another actor undoes these writes again and again.
            Decision::Do(plan) if plan.is_paused(&self.snapshot) => self.wait(),
            Decision::Do(plan) => self.carry_out(plan),
        }
    }

    fn wait(&mut self) {
        self.frozen = false;
        self.snapshot.now = Timestamp::from_second(self.snapshot.now.as_second() + 1).unwrap();
        if let Some(traffic) = &mut self.traffic {
            traffic.flow(self.snapshot.now, rollout::weights(&self.snapshot));
        }
    }

    /// Sets the fields of the snapshot that depend on the time and on what happened before.
    fn observe(&mut self) {
        if let Some(status) = &mut self.snapshot.canary.status {
            self.memory.future_times.clamp(status, self.snapshot.now);
        }
        let status = self.snapshot.canary.status.as_ref();
        let transition = status.and_then(|status| Some(status.last_transition_time.as_ref()?.0));
        let (interval, now) = (self.snapshot.canary.interval(), self.snapshot.now);
        self.snapshot.tick = self.memory.tick(transition, interval, now);
        self.snapshot.recently_written = self.memory.recently_written(transition, interval, now);
        self.snapshot.paused = self.memory.repeated_writes.paused(now);
        self.snapshot.undone = self.memory.repeated_writes.undone();
        let version = rollout::new_version(&self.snapshot);
        self.snapshot.changed = self.memory.changed(version, now);
        let progress = rollout::progress(&self.snapshot);
        self.snapshot.stalled = self.memory.stalled(progress, now);
    }

    /// Another process takes over. Its clock is this far behind that of the process that wrote the status.
    pub fn hand_over(&mut self, behind: SignedDuration) {
        self.end_step();
        self.memory = ReconcileState::default();
        let Some(status) = &mut self.snapshot.canary.status else {
            return;
        };
        let conditions = status.conditions.iter_mut().flatten();
        let of_conditions =
            conditions.flat_map(|c| [&mut c.last_update_time, &mut c.last_transition_time]);
        let times = of_conditions.chain([&mut status.last_transition_time]);
        times.flatten().for_each(|time| time.0 += behind);
    }

    fn ask(&mut self, questions: Vec<Question>, notifications: Vec<Notification>) {
        let is_known = |question| self.evidence.contains_key(question);
        assert!(
            !questions.iter().all(is_known),
            "all these questions were answered already: {questions:?}"
        );
        let unsent = self.memory.unsent(&self.snapshot.step(), notifications);
        self.notify(unsent);
        self.memory.asks(self.snapshot.tick, self.snapshot.now);
        for question in questions {
            let answer = self.answer(&question);
            self.evidence.insert(Arc::new(question), answer);
        }
        let arrival = self.snapshot.now.as_second() + self.answers_take;
        self.snapshot.now = Timestamp::from_second(arrival).unwrap();
    }

    fn end_step(&mut self) {
        self.memory.step_ended();
        self.evidence.clear();
    }

    fn carry_out(&mut self, plan: Plan) {
        let notifications = plan.notifications.clone();
        let unsent = self.memory.unsent(&self.snapshot.step(), notifications);
        self.audit(&plan);
        let before = Moment::of(&self.snapshot);
        if self.carry_out_writes(plan) {
            self.notify(unsent);
        }
        let wrong = judge::wrong(&before, &Moment::of(&self.snapshot));
        assert!(wrong.is_empty(), "{wrong:?}\n{}", self.transcript());
    }

    /// Carries out the writes of a plan. Returns false if the operator crashed.
    fn carry_out_writes(&mut self, plan: Plan) -> bool {
        for write in plan.writes {
            self.write(write);
            if self.crashes() {
                return false;
            }
        }
        if let Some(status) = plan.status {
            self.write_status(status);
            return !self.crashes();
        }
        true
    }

    /// Fails unless the plan is safe, and every prefix of it.
    fn audit(&self, plan: &Plan) {
        assert_eq!(rollout::audit(&self.snapshot, plan), Ok(()), "{plan:?}");
        for cut in 0..plan.writes.len() {
            let writes = plan.writes[..cut].to_vec();
            let prefix = Plan {
                writes,
                ..Plan::default()
            };
            let verdict = rollout::audit(&self.snapshot, &prefix);
            assert_eq!(verdict, Ok(()), "{prefix:?}");
        }
    }

    fn write_status(&mut self, status: CanaryStatus) {
        self.line(transcript::status_line(&status));
        let before = self.snapshot.canary.status.as_ref();
        let step = before.and_then(|before| before.last_transition_time.clone());
        // If a write leaves the transition time as it was, the step continues.
        let continues = step == status.last_transition_time;
        self.snapshot.canary.status = Some(status);
        if !continues {
            self.end_step();
            self.snapshot.tick = None;
        }
    }

    /// Counts a write. Returns true if the operator crashes after it; it has lost its memory then.
    fn crashes(&mut self) -> bool {
        self.writes += 1;
        let crashes = self.crash_after == Some(self.writes);
        if crashes {
            self.line("CRASH".to_owned());
            self.end_step();
            self.memory = ReconcileState::default();
        }
        crashes
    }
}
