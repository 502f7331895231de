//! Decides: on this thread or, about a large Canary, on another one. This thread renews the lease, answers probes and takes the steps of
//! all other canaries, so it must not compute for long.

use std::{panic::resume_unwind, sync::Arc};

use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::{
    rollout::{self, Decision, Evidence, Measurements, decide},
    routers::conditions,
    snapshot::Snapshot,
};

/// With more metrics than this, a Canary is large: a decision may render the query of each.
const METRICS: usize = 16;
/// With more combined conditions than this, a Canary is large.
const CONDITIONS: usize = 100;

/// Decides about all canaries. Clones share the limit of large decisions.
#[derive(Clone)]
pub struct Deciding {
    /// Decisions about large Canaries are made one at a time.
    large: Arc<Semaphore>,
}

impl Default for Deciding {
    fn default() -> Self {
        Self {
            large: Arc::new(Semaphore::new(1)),
        }
    }
}

/// A decision, and the snapshot that it is about.
pub struct Decided {
    pub snapshot: Box<Snapshot>,
    pub decision: Decision,
    /// The values of the metrics. Empty while questions are asked, because values need their answers.
    pub samples: Vec<(String, f64)>,
    /// The measurements and calls of the step: those that led to a change of the status, or those of a wait.
    pub measurements: Measurements,
}

impl Deciding {
    /// Decides.
    pub async fn decide(&self, snapshot: Snapshot, evidence: Arc<Evidence>) -> Decided {
        let snapshot = Box::new(snapshot);
        if !is_large(&snapshot) {
            return decided(snapshot, &evidence);
        }
        // This fails only for a closed semaphore, and nothing closes it.
        let permit = self.large.clone().acquire_owned().await;
        let deciding = spawn_blocking(move || {
            let decided = decided(snapshot, &evidence);
            drop(permit);
            decided
        });
        deciding
            .await
            .unwrap_or_else(|panic| resume_unwind(panic.into_panic()))
    }
}

fn decided(snapshot: Box<Snapshot>, evidence: &Evidence) -> Decided {
    let decision = decide(&snapshot, evidence);
    let samples = match decision {
        Decision::Ask(..) => Vec::new(),
        Decision::Do(_) | Decision::Wait(..) => rollout::samples(&snapshot, evidence),
    };
    let is_complete = match &decision {
        Decision::Do(plan) => plan.status.is_some(),
        Decision::Wait(..) => true,
        Decision::Ask(..) => false,
    };
    let measurements = if is_complete {
        rollout::measurements(&snapshot, evidence)
    } else {
        Measurements::default()
    };
    Decided {
        snapshot,
        decision,
        samples,
        measurements,
    }
}

fn is_large(snapshot: &Snapshot) -> bool {
    let canary = &snapshot.canary;
    let metrics = canary
        .spec
        .analysis
        .iter()
        .flat_map(|analysis| &analysis.metrics);
    let (test, own) = (conditions::of_test(canary), conditions::of_service(canary));
    metrics.count() > METRICS || test.len().max(1).saturating_mul(own.len()) > CONDITIONS
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        api::canary::CanaryPhase,
        notifications::webhook,
        rollout::{Answer, Question},
        routers::tests::{canary_analysis, snapshot},
        snapshot::HttpResponse,
    };

    fn with_metrics(count: usize) -> Snapshot {
        let mut analysis = canary_analysis();
        analysis["metrics"] = vec![json!({"name": "m", "query": "q"}); count].into();
        snapshot("istio", json!({"port": 80}), analysis, json!({}))
    }

    #[tokio::test]
    async fn a_decision_about_a_large_canary_keeps_this_thread_free() {
        let deciding = Deciding::default();
        let busy = deciding.large.clone().acquire_owned().await;
        let mut large = tokio::spawn({
            let deciding = deciding.clone();
            async move {
                deciding
                    .decide(with_metrics(METRICS + 1), Arc::default())
                    .await
            }
        });
        tokio::task::yield_now().await;
        // A decision about a large Canary waits for another large one. A decision about a small Canary does not wait.
        let small = deciding.decide(with_metrics(METRICS), Arc::default()).await;
        assert!(!large.is_finished());
        drop(busy);
        let large = (&mut large).await.unwrap();
        assert_eq!(large.decision, small.decision);
    }

    /// The record of a run begins with the gate that let the version in.
    #[test]
    fn the_call_of_the_gate_before_a_run_is_measured() {
        let mut analysis = canary_analysis();
        analysis["webhooks"] =
            json!([{"name": "go", "type": "confirm-rollout", "url": "http://gate/"}]);
        let mut snapshot = snapshot("istio", json!({"port": 80}), analysis, json!({}));
        let status = json!({"phase": "Initialized", "lastAppliedSpec": "v1-old"});
        snapshot.canary.status = Some(serde_json::from_value(status).unwrap());
        let hook = &snapshot.canary.spec.analysis.as_ref().unwrap().webhooks[0];
        let request = webhook::request(&snapshot.canary, hook, CanaryPhase::Waiting).unwrap();
        let label = "webhook 0".to_owned();
        let question = Arc::new(Question::Call { label, request });
        let body = String::new();
        let answer = Answer::Response(HttpResponse { status: 403, body });
        let decided = decided(Box::new(snapshot), &[(question, answer)].into());
        assert!(matches!(decided.decision, Decision::Wait(..)));
        let calls = decided.measurements.hooks.iter();
        let calls: Vec<_> = calls.map(|it| (it.kind.as_str(), it.status)).collect();
        assert_eq!(calls, [("confirm-rollout", Some(403))]);
    }

    #[test]
    fn a_canary_with_many_combined_conditions_is_large() {
        let with = |test: usize, own: usize| {
            let condition = json!({"uri": {"prefix": "/a"}});
            let mut analysis = canary_analysis();
            analysis["match"] = vec![condition.clone(); test].into();
            let service = json!({"port": 80, "match": vec![condition; own]});
            is_large(&snapshot("istio", service, analysis, json!({})))
        };
        assert_eq!(
            [with(10, 10), with(10, 11), with(0, 101), with(0, 100)],
            [false, true, true, false]
        );
    }
}
