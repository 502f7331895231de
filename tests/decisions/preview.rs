//! What would come first for a canary, as `flagger check` says it.

use flagger_rs::{api::canary::CanaryPhase, rollout, snapshot::Kind};
use serde_json::json;

use super::model::{Model, release};

fn first(model: &Model) -> String {
    rollout::preview(&model.snapshot).to_string()
}

/// A canary at rest, as Flagger names its revision.
fn flaggers() -> Model {
    let mut model = release(json!({"stepWeight": 20, "webhooks": []}));
    model.run_until(CanaryPhase::Succeeded);
    let status = model.snapshot.canary.status.as_mut().unwrap();
    status.last_applied_spec = Some("6d8f5c7b9".to_owned());
    status.last_promoted_spec = Some("6d8f5c7b9".to_owned());
    model
}

#[test]
fn what_is_settled_rests_and_what_flagger_settled_gets_our_name() {
    let mut model = release(json!({"stepWeight": 20}));
    model.run_until(CanaryPhase::Succeeded);
    assert_eq!(first(&model), "nothing");
    assert_eq!(first(&flaggers()), "adopts the status (one write)");
}

#[test]
fn a_new_version_starts_a_run_though_it_has_not_rested_yet() {
    let mut model = release(json!({"stepWeight": 20, "webhooks": []}));
    let now = model.snapshot.now;
    model.snapshot.changed = Some(flagger_rs::snapshot::Changed {
        first: now,
        last: now,
    });
    assert_eq!(first(&model), "starts a run");
    let gate = json!([{"name": "gate", "type": "confirm-rollout", "url": "http://hooks/gate"}]);
    let mut model = release(json!({"stepWeight": 20, "webhooks": gate}));
    model.snapshot.changed = Some(flagger_rs::snapshot::Changed {
        first: now,
        last: now,
    });
    assert_eq!(first(&model), "starts a run: asks 1 webhook before");
}

/// Whether its next step is tick or not, and whether the revision has our name or Flagger's.
#[test]
fn a_run_goes_on_from_where_it_is() {
    let mut model = release(json!({"stepWeight": 20}));
    while model.routed.last() != Some(&20) {
        model.reconcile();
    }
    while model.snapshot.canary.status.as_ref().unwrap().canary_weight != 20 {
        model.reconcile();
    }
    model.snapshot.tick = None;
    let goes_on = "goes on: Progressing at weight 20, asks 1 webhook";
    assert_eq!(first(&model), goes_on);
    let status = model.snapshot.canary.status.as_mut().unwrap();
    status.last_applied_spec = Some("6d8f5c7b9".to_owned());
    assert_eq!(first(&model), goes_on);
    // A version without pods gets no traffic: that comes before everything else.
    let target = model.snapshot.reference(Kind::Deployment, "podinfo");
    let pods = &mut model.snapshot.objects.get_mut(&target).unwrap()["status"];
    for count in ["readyReplicas", "availableReplicas"] {
        pods[count] = json!(0);
    }
    assert_eq!(
        first(&model),
        "goes on: Progressing at weight 20, Halt podinfo.test advancement podinfo.test has no ready pod: routing all traffic to primary"
    );
}

#[test]
fn what_was_deleted_between_runs_is_repaired() {
    let mut model = flaggers();
    let route = model.snapshot.reference(Kind::VirtualService, "podinfo");
    model.snapshot.objects.remove(&route);
    assert_eq!(first(&model), "repairs: VirtualService podinfo");
}

#[test]
fn what_is_suspended_stays_as_it_is() {
    let mut model = flaggers();
    model.snapshot.canary.spec.suspend = true;
    assert_eq!(
        first(&model),
        "nothing: skipping canary run as object is suspended"
    );
}

#[test]
fn what_cannot_be_run_is_refused_before_and_after_that_was_said() {
    let mut model = flaggers();
    model.snapshot.canary.spec.provider = Some("kuma".to_owned());
    let refused = first(&model);
    assert!(
        refused
            .starts_with("refused: invalid canary spec: spec.provider: kuma is not supported yet"),
        "{refused}"
    );
    model.reconcile();
    assert_eq!(first(&model), refused);
    let mut model = flaggers();
    model.snapshot.conflicting_canary = Some("older.test".to_owned());
    assert_eq!(
        first(&model),
        "refused: canary podinfo.test is not run: older.test has the same target podinfo.test"
    );
}

#[test]
fn what_is_missing_is_waited_for() {
    let mut model = flaggers();
    let target = model.snapshot.reference(Kind::Deployment, "podinfo");
    model.snapshot.objects.remove(&target);
    let waits = first(&model);
    assert!(
        waits.starts_with("waits: deployment podinfo.test get query error"),
        "{waits}"
    );
}

#[test]
fn a_new_canary_is_initialized() {
    let mut model = flaggers();
    model.snapshot.canary.status = None;
    assert_eq!(first(&model), "goes on: new, enters Initializing");
}
