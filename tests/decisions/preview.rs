//! What would come first for a canary, as `flagger check` says it.

use flagger_rs::{api::canary::CanaryPhase, rollout, snapshot::Kind};
use serde_json::json;

use super::simulation::{Simulation, release};

fn first(sim: &Simulation) -> String {
    rollout::preview(&sim.snapshot).to_string()
}

/// A canary at rest, as Flagger names its revision.
fn flaggers() -> Simulation {
    let mut sim = release(json!({"stepWeight": 20, "webhooks": []}));
    sim.run_until(CanaryPhase::Succeeded);
    let status = sim.snapshot.canary.status.as_mut().unwrap();
    status.last_applied_spec = Some("6d8f5c7b9".to_owned());
    status.last_promoted_spec = Some("6d8f5c7b9".to_owned());
    sim
}

#[test]
fn what_is_settled_rests_and_what_flagger_settled_gets_our_name() {
    let mut sim = release(json!({"stepWeight": 20}));
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(first(&sim), "nothing");
    assert_eq!(first(&flaggers()), "adopts the status (one write)");
}

#[test]
fn a_new_version_starts_a_run_though_it_has_not_rested_yet() {
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

/// Whether its next step is tick or not, and whether the revision has our name or Flagger's.
#[test]
fn a_run_goes_on_from_where_it_is() {
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
    // A version without pods gets no traffic: that comes before everything else.
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
fn what_was_deleted_between_runs_is_repaired() {
    let mut sim = flaggers();
    let route = sim.snapshot.reference(Kind::VirtualService, "podinfo");
    sim.snapshot.objects.remove(&route);
    assert_eq!(first(&sim), "repairs: VirtualService podinfo");
}

#[test]
fn what_is_suspended_stays_as_it_is() {
    let mut sim = flaggers();
    sim.snapshot.canary.spec.suspend = true;
    assert_eq!(
        first(&sim),
        "nothing: skipping canary run as object is suspended"
    );
}

#[test]
fn what_cannot_be_run_is_refused_before_and_after_that_was_said() {
    let mut sim = flaggers();
    sim.snapshot.canary.spec.provider = Some("kuma".to_owned());
    let refused = first(&sim);
    assert!(
        refused
            .starts_with("refused: invalid canary spec: spec.provider: kuma is not supported yet"),
        "{refused}"
    );
    sim.reconcile();
    assert_eq!(first(&sim), refused);
    let mut sim = flaggers();
    sim.snapshot.conflicting_canary = Some("older.test".to_owned());
    assert_eq!(
        first(&sim),
        "refused: canary podinfo.test is not run: older.test has the same target podinfo.test"
    );
}

#[test]
fn what_is_missing_is_waited_for() {
    let mut sim = flaggers();
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
    let mut sim = flaggers();
    sim.snapshot.canary.status = None;
    assert_eq!(first(&sim), "goes on: new, enters Initializing");
}
