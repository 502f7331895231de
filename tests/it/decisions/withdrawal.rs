//! A canary that cannot answer gets no traffic.

use flagger_rs::{api::canary::CanaryPhase, rollout, world::Kind};
use serde_json::json;

use super::{
    model::{Model, release},
    transcript,
};

fn at_weight(weight: u8) -> Model {
    let mut model = release(json!({"stepWeight": 20, "maxWeight": 40, "threshold": 2}));
    while rollout::weights(&model.world).unwrap().canary < weight {
        model.look();
    }
    model
}

/// Flagger leaves a fifth of the clients with errors until the progress deadline, ten minutes by default.
#[test]
fn clients_do_not_meet_a_canary_whose_pods_are_gone() {
    let mut model = at_weight(20);
    model.dead = true;
    model.look();
    assert_eq!(rollout::weights(&model.world).unwrap().canary, 0);
    model.dead = false;
    model.run_until(CanaryPhase::Succeeded);
    transcript("canary-without-pods", &model);
}

#[test]
fn a_version_that_keeps_losing_its_pods_is_rolled_back() {
    let mut model = at_weight(20);
    for _ in 0..2 {
        model.dead = true;
        model.look();
        model.dead = false;
        for _ in 0..25 {
            model.look();
        }
    }
    model.run_until(CanaryPhase::Failed);
}

#[test]
fn clients_do_not_meet_a_canary_that_somebody_deleted() {
    let mut model = at_weight(20);
    let target = model.world.reference(Kind::Deployment, "podinfo");
    let deleted = model.world.objects.remove(&target).unwrap();
    model.look();
    assert_eq!(rollout::weights(&model.world).unwrap().canary, 0);
    model.world.objects.insert(target, deleted);
    model.run_until(CanaryPhase::Succeeded);
}

#[test]
fn a_promotion_whose_canary_dies_goes_on() {
    let mut model = at_weight(40);
    model.run_until_phase(CanaryPhase::Promoting);
    model.dead = true;
    model.look();
    model.look();
    assert_eq!(rollout::weights(&model.world).unwrap().canary, 0);
    model.dead = false;
    model.run_until(CanaryPhase::Succeeded);
}

#[test]
fn a_new_version_whose_pods_take_the_place_of_the_old_ones_is_no_failed_check() {
    let mut model = at_weight(20);
    model.image("podinfo:3");
    model.dead = true;
    model.look();
    let status = model.world.canary.status.clone().unwrap();
    assert_eq!(rollout::weights(&model.world).unwrap().canary, 0);
    assert_eq!((status.failed_checks, status.canary_weight), (0, 0));
    let last = model.told.last().unwrap();
    assert!(last.contains("Restarting analysis"), "{last}");
    model.dead = false;
    model.run_until(CanaryPhase::Succeeded);
    assert!(model.outcome().contains("podinfo:3"), "{}", model.outcome());
}

/// The step after it would begin where the share was.
#[test]
fn a_crash_while_traffic_is_taken_back_does_not_spare_the_version_its_steps() {
    let mut model = at_weight(40);
    model.dead = true;
    model.crash_after = Some(model.writes + 1);
    model.look();
    assert_eq!(rollout::weights(&model.world).unwrap().canary, 0);
    let status = |model: &Model| model.world.canary.status.clone().unwrap();
    assert_eq!(status(&model).canary_weight, 40, "the status was lost");
    model.look();
    let (weight, failed) = (status(&model).canary_weight, status(&model).failed_checks);
    assert_eq!((weight, failed), (0, 1));
    model.dead = false;
    while rollout::weights(&model.world).unwrap().canary == 0 {
        model.look();
    }
    assert_eq!(rollout::weights(&model.world).unwrap().canary, 20);
}
