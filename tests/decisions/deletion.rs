//! The deletion of a Canary with `revertOnDeletion`, which restores the target, its Service and its route.

use flagger_rs::{api::canary::CanaryPhase, snapshot::Kind};
use serde_json::json;

use super::{
    contour::contour_is_late,
    routes::on,
    simulation::{Rollout, Simulation, release},
    transcript,
};

/// A deleted canary with `revertOnDeletion`; the operator crashes after this write of its deletion.
fn reverted(crash: Option<usize>) -> Simulation {
    let mut sim = release(json!({"stepWeight": 50}));
    sim.snapshot.canary.spec.revert_on_deletion = true;
    sim.run_until(CanaryPhase::Succeeded);
    sim.crash_after = crash.map(|crash| sim.writes + crash);
    sim.delete();
    sim.run(200);
    sim
}

#[test]
fn a_deletion_restores_the_replicas_of_the_target() {
    let sim = reverted(None);
    assert!(sim.is_gone(), "{}", sim.transcript());
    assert_eq!(sim.snapshot.target().unwrap()["spec"]["replicas"], 2);
    transcript("revert-on-deletion", &sim);
}

#[test]
fn a_crash_at_any_write_of_a_deletion_loses_nothing() {
    let undisturbed = reverted(None);
    for crash in 1..8 {
        let sim = reverted(Some(crash));
        assert!(sim.is_gone(), "{}", sim.transcript());
        assert_eq!(sim.outcome(), undisturbed.outcome());
    }
}

/// The pods of the target start within an interval, or take longer.
#[test]
fn a_deletion_warns_only_if_the_target_needs_more_than_an_interval() {
    for (seconds, warns) in [(8, false), (25, true)] {
        let mut sim = release(json!({"stepWeight": 50}));
        sim.snapshot.canary.spec.revert_on_deletion = true;
        sim.run_until(CanaryPhase::Succeeded);
        sim.dead = true;
        sim.delete();
        let start = sim.snapshot.now.as_second();
        while sim.snapshot.now.as_second() < start + seconds {
            sim.reconcile();
        }
        sim.dead = false;
        sim.run(100);
        assert!(sim.is_gone(), "{}", sim.transcript());
        let warnings =
            sim.count_notified("Warning [Terminating] canary not ready during finalizing");
        assert_eq!(warnings > 0, warns, "{:#?}", sim.notified);
    }
}

#[test]
fn a_deletion_does_not_wait_for_a_target_that_does_not_exist() {
    let mut sim = release(json!({"stepWeight": 50}));
    sim.snapshot.canary.spec.revert_on_deletion = true;
    sim.reconcile();
    let target = sim.snapshot.reference(Kind::Deployment, "podinfo");
    sim.snapshot.objects.remove(&target);
    sim.delete();
    sim.run(10);
    assert!(sim.is_gone(), "{}", sim.transcript());
}

/// The target cannot take the traffic back, so it stays where it is. (Flagger waits, too.)
#[test]
fn a_deletion_takes_no_traffic_from_the_only_ready_pods() {
    type Obstacle = fn(&mut Simulation);
    let obstacles: [Obstacle; 2] = [
        |sim| sim.dead = true,
        |sim| sim.roll_out("podinfo", Rollout::AtZero),
    ];
    for obstacle in obstacles {
        let mut sim = release(json!({"stepWeight": 50}));
        sim.snapshot.canary.spec.revert_on_deletion = true;
        sim.snapshot.canary.spec.progress_deadline_seconds = Some(60);
        sim.run_until(CanaryPhase::Succeeded);
        sim.delete();
        let begun = sim.snapshot.now;
        while sim.snapshot.now.duration_since(begun).as_secs() < 600 {
            obstacle(&mut sim);
            sim.reconcile();
            assert!(!sim.is_gone(), "{}", sim.transcript());
        }
        assert_eq!(sim.canary_weight(), 0, "{}", sim.transcript());
        assert!(sim.count_notified("canary not ready during finalizing") > 0);
    }
}

/// A deletion must not wait for ever, because its namespace would hang in `Terminating`.
#[test]
fn no_obstacle_holds_a_deletion_longer_than_the_deadline() {
    type Obstacle = fn(&mut Simulation);
    let obstacles: [(&str, &str, Obstacle); 3] = [
        ("Contour sees no route", "contour", |sim| {
            contour_is_late(sim, true);
        }),
        ("Contour is uninstalled", "contour", |sim| {
            let proxy = sim.snapshot.reference(Kind::HttpProxy, "podinfo");
            sim.snapshot.objects.remove(&proxy);
        }),
        (
            "the namespace is deleted, and so are all pods",
            "istio",
            |sim| {
                sim.dead = true;
                let primary = sim.snapshot.reference(Kind::Deployment, "podinfo-primary");
                sim.snapshot.objects.remove(&primary);
            },
        ),
    ];
    for (name, provider, obstacle) in obstacles {
        let mut sim = on(provider, json!({"stepWeight": 50}));
        sim.snapshot.canary.spec.revert_on_deletion = true;
        sim.snapshot.canary.spec.progress_deadline_seconds = Some(120);
        sim.run_until(CanaryPhase::Succeeded);
        sim.delete();
        let begun = sim.snapshot.now;
        while !sim.is_gone() && sim.snapshot.now.duration_since(begun).as_secs() < 200 {
            obstacle(&mut sim);
            sim.reconcile();
        }
        assert!(sim.is_gone(), "{name}: {}", sim.transcript());
    }
}
