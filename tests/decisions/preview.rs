//! The first action that `flagger check` announces for a canary.

use flagger_rs::{api::canary::CanaryPhase, rollout, snapshot::Kind};
use serde_json::json;

use super::simulation::{Simulation, release};

fn first(sim: &Simulation) -> String {
    rollout::preview(&sim.snapshot).to_string()
}

/// An idle canary whose status has revisions as Flagger names them.
fn idle_under_flagger() -> Simulation {
    let mut sim = release(json!({"stepWeight": 20, "webhooks": []}));
    sim.run_until(CanaryPhase::Succeeded);
    let status = sim.snapshot.canary.status.as_mut().unwrap();
    status.last_applied_spec = Some("6d8f5c7b9".to_owned());
    status.last_promoted_spec = Some("6d8f5c7b9".to_owned());
    sim
}

#[test]
fn nothing_is_done_for_an_idle_canary_except_that_flaggers_revision_is_renamed() {
    let mut sim = release(json!({"stepWeight": 20}));
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(first(&sim), "nothing");
    assert_eq!(
        first(&idle_under_flagger()),
        "adopts the status (one write)"
    );
}

#[test]
fn a_version_that_has_just_changed_starts_a_run() {
    let mut sim = release(json!({"stepWeight": 20, "webhooks": []}));
    let now = sim.snapshot.now;
    sim.snapshot.changed = Some(flagger_rs::snapshot::Changed {
        first: now,
        last: now,
    });
    assert_eq!(first(&sim), "starts a run");
    let gate = json!([{"name": "gate", "type": "confirm-rollout", "url": "http://hooks/gate"}]);
    let mut sim = release(json!({"stepWeight": 20, "webhooks": gate}));
    sim.snapshot.changed = Some(flagger_rs::snapshot::Changed {
        first: now,
        last: now,
    });
    assert_eq!(first(&sim), "starts a run: asks 1 webhook before");
}

/// The announcement does not depend on the tick, nor on whether the revision has our name or Flagger's.
#[test]
fn a_run_under_way_continues_from_its_weight() {
    let mut sim = release(json!({"stepWeight": 20}));
    while sim.routed.last() != Some(&20) {
        sim.reconcile();
    }
    while sim.snapshot.canary.status.as_ref().unwrap().canary_weight != 20 {
        sim.reconcile();
    }
    sim.snapshot.tick = None;
    let goes_on = "goes on: Progressing at weight 20, asks 1 webhook";
    assert_eq!(first(&sim), goes_on);
    let status = sim.snapshot.canary.status.as_mut().unwrap();
    status.last_applied_spec = Some("6d8f5c7b9".to_owned());
    assert_eq!(first(&sim), goes_on);
    // A version without ready pods loses its traffic before anything else happens.
    let target = sim.snapshot.reference(Kind::Deployment, "podinfo");
    let pods = &mut sim.snapshot.objects.get_mut(&target).unwrap()["status"];
    for count in ["readyReplicas", "availableReplicas"] {
        pods[count] = json!(0);
    }
    assert_eq!(
        first(&sim),
        "goes on: Progressing at weight 20, Halt podinfo.test advancement podinfo.test has no ready pod: routing all traffic to primary"
    );
}

#[test]
fn an_object_that_was_deleted_between_runs_is_repaired() {
    let mut sim = idle_under_flagger();
    let route = sim.snapshot.reference(Kind::VirtualService, "podinfo");
    sim.snapshot.objects.remove(&route);
    assert_eq!(first(&sim), "repairs: VirtualService podinfo");
}

#[test]
fn a_suspended_canary_stays_as_it_is() {
    let mut sim = idle_under_flagger();
    sim.snapshot.canary.spec.suspend = true;
    assert_eq!(
        first(&sim),
        "nothing: skipping canary run as object is suspended"
    );
}

#[test]
fn a_canary_that_cannot_run_is_refused_before_and_after_its_event() {
    let mut sim = idle_under_flagger();
    sim.snapshot.canary.spec.provider = Some("knative".to_owned());
    let refused = first(&sim);
    assert!(
        refused.starts_with(
            "refused: invalid canary spec: can't use apps/v1/Deployment as target if provider is set to knative"
        ),
        "{refused}"
    );
    sim.reconcile();
    assert_eq!(first(&sim), refused);
    let mut sim = idle_under_flagger();
    sim.conflict("older.test");
    assert_eq!(
        first(&sim),
        "refused: canary podinfo.test is not run: older.test has the same target podinfo.test"
    );
}

#[test]
fn a_missing_target_is_waited_for() {
    let mut sim = idle_under_flagger();
    let target = sim.snapshot.reference(Kind::Deployment, "podinfo");
    sim.snapshot.objects.remove(&target);
    let waits = first(&sim);
    assert!(
        waits.starts_with("waits: deployment podinfo.test get query error"),
        "{waits}"
    );
}

#[test]
fn a_new_canary_is_initialized() {
    let mut sim = idle_under_flagger();
    sim.snapshot.canary.status = None;
    assert_eq!(first(&sim), "goes on: new, enters Initializing");
}
