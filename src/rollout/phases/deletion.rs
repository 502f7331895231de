//! The deletion of a Canary. The objects that it owns are deleted with it. With `spec.revertOnDeletion`, the operator first restores the
//! objects that the Canary took over (Flagger: `pkg/controller/finalizer.go`), in an order that loses no request: it scales the target
//! up, then restores the routes, then removes the finalizer.

use serde_json::{Value, json};

use crate::{
    api::canary::CanaryPhase,
    rollout::{
        messages::run,
        plan::{Decision, Plan, Requeue},
        release::Release,
        safety::{own_routes, ownership, validation},
        status::{StatusChange, draining},
    },
    snapshot::{Action, Kind, Readiness, Snapshot, TargetKind, Write},
};

/// While this finalizer is on a Canary, the API server does not remove the Canary.
const FINALIZER: &str = "finalizer.flagger.app";

/// Adds the finalizer to a Canary with `revertOnDeletion`, or with routes of the user, and removes it from any other. `None` if nothing is
/// to be changed.
pub fn prepare(snapshot: &Snapshot) -> Option<Decision> {
    let canary = &snapshot.canary;
    let wanted = canary.spec.revert_on_deletion
        || canary.has_route_refs()
        || own_routes::are_recorded(snapshot.status());
    (wanted != has_finalizer(snapshot)).then(|| finalizer_write(snapshot, wanted))
}

/// The decision about a Canary that is being deleted.
pub fn decide(snapshot: &Snapshot) -> Decision {
    if !has_finalizer(snapshot) {
        return Decision::wait(Requeue::OnChange);
    }
    if !snapshot.canary.spec.revert_on_deletion {
        // The Service of the canary is deleted with the Canary, so no route of the user may lead there.
        let since = snapshot.canary.metadata.deletion_timestamp.as_ref();
        let returns = own_routes::release(snapshot).filter(|_| !snapshot.exceeds_deadline(since));
        return returns.unwrap_or_else(|| finalizer_write(snapshot, false));
    }
    if validation::same_target(snapshot) {
        // The objects belong to the older canary.
        return finish(snapshot);
    }
    if snapshot.phase() != CanaryPhase::Terminating {
        let terminating = StatusChange::enter(snapshot, CanaryPhase::Terminating).progress(0, 0);
        return Decision::commit(terminating.build(), vec![run::terminating(snapshot)]);
    }
    match Release::of(snapshot) {
        Ok(release) => revert(&release),
        // A user may still fix the target. The primary is deleted with the Canary, and the target may have no pods.
        Err(blocked) if snapshot.target().is_some() && !is_late(snapshot) => {
            blocked.report(snapshot)
        }
        // Without a target there is nothing to give traffic back to.
        Err(_) => finish(snapshot),
    }
}

/// Restores the objects that the Canary took over, one part per reconcile.
fn revert(release: &Release<'_>) -> Decision {
    let snapshot = release.snapshot;
    let late = is_late(snapshot) && !would_lose_traffic(snapshot);
    let mut restored = restored(release);
    // After the deadline, the operator skips writes that another actor reverts, so that the deletion ends.
    restored.retain(|write| !late || !snapshot.leaves_out(write));
    let mut up = release.scale_to_primary(late);
    up.extend(release.announce(&restored));
    if !up.is_empty() {
        // If a scaler reverts a write at once, wait for the next tick, but not for ever.
        up.retain(|write| !snapshot.leaves_out(write));
        if !up.is_empty() {
            return Decision::write(up);
        }
        if !late {
            let tick = snapshot.tick.as_ref();
            let why = "another actor undoes its scale-up";
            let event = tick.map(|_| run::not_ready_to_terminate(snapshot, why));
            return Decision::Wait(Requeue::AtTick, event.into_iter().collect());
        }
    }
    if let Readiness::Waiting(why) | Readiness::Failed(why) = release.canary_readiness()
        && !late
    {
        // Pods need some seconds to start, so the warning is sent only at a tick.
        let tick = snapshot.tick.as_ref();
        let event = tick.map(|_| run::not_ready_to_terminate(snapshot, &why));
        return Decision::Wait(Requeue::Ready, event.into_iter().collect());
    }
    // Proxies that have not seen the last routes would miss the next ones, too.
    if let Some(wait) = release.routes_lag().filter(|_| !late) {
        return wait;
    }
    if !restored.is_empty() {
        return Decision::write(restored);
    }
    if let Err(why) = own_routes::restored(snapshot)
        && !late
    {
        return why.report(snapshot);
    }
    match draining::end(snapshot) {
        None => {
            let draining = draining::begin(StatusChange::within_step(snapshot));
            Decision::commit(draining.build(), Vec::new())
        }
        Some(end) if snapshot.now < end => Decision::wait(Requeue::At(end)),
        Some(_) => match release.tidy_routes() {
            Some(write) => Decision::write(vec![write]),
            None => finish(snapshot),
        },
    }
}

/// Whether traffic would leave the only pods that are ready. It stays there, however long that takes, because a user may still fix the target.
/// (As in Flagger.) Knative itself sends requests to the latest Revision that is ready.
fn would_lose_traffic(snapshot: &Snapshot) -> bool {
    TargetKind::of(&snapshot.canary) != Some(TargetKind::Knative)
        && !snapshot.canary_has_ready_pods()
        && snapshot.primary_has_ready_pods()
}

/// The writes that restore the Service and the routes as they were before the Canary. Objects of others are not changed.
fn restored(release: &Release<'_>) -> Vec<Write> {
    let snapshot = release.snapshot;
    let mut writes: Vec<_> = release.restored_apex().into_iter().collect();
    writes.extend(release.router.restore(snapshot));
    // Objects that an older canary claims belong to that canary.
    let claimed = snapshot.conflicting_canary.as_ref();
    let is_claimed =
        |write: &Write| claimed.is_some_and(|conflict| conflict.object.name == write.object.name);
    writes.retain(|write| {
        ownership::foreign(snapshot, &write.object).is_none() && !is_claimed(write)
    });
    // These are the user's in any case, and only the recorded rules change.
    writes.extend(own_routes::restored(snapshot).unwrap_or_default());
    writes
}

/// Whether the progress deadline has passed since the deletion began.
fn is_late(snapshot: &Snapshot) -> bool {
    snapshot.exceeds_deadline(snapshot.status().last_transition_time.as_ref())
}

/// Removes the finalizer: the API server then removes the Canary.
fn finish(snapshot: &Snapshot) -> Decision {
    finalizer_write(snapshot, false).notifying(vec![run::terminated(snapshot)])
}

fn has_finalizer(snapshot: &Snapshot) -> bool {
    let mut finalizers = snapshot.canary.metadata.finalizers.iter().flatten();
    finalizers.any(|finalizer| finalizer == FINALIZER)
}

/// Adds the finalizer, or removes it, and leaves those of others.
fn finalizer_write(snapshot: &Snapshot, wanted: bool) -> Decision {
    let meta = &snapshot.canary.metadata;
    let others = meta.finalizers.iter().flatten();
    let mut finalizers: Vec<_> = others.filter(|other| *other != FINALIZER).collect();
    let own = FINALIZER.to_owned();
    if wanted {
        finalizers.push(&own);
    }
    let test = |path: &str, value: Value| json!({"op": "test", "path": path, "value": value});
    let patch = json!([
        test("/metadata/uid", json!(meta.uid)),
        test("/metadata/resourceVersion", json!(meta.resource_version)),
        {"op": "add", "path": "/metadata/finalizers", "value": finalizers},
    ]);
    Decision::Do(Plan {
        writes: vec![Write {
            object: snapshot.reference(Kind::Canary, snapshot.name()),
            action: Action::Patch(patch),
            failure: format!(
                "updating the finalizer of {} failed: ",
                snapshot.full_name()
            ),
        }],
        ..Plan::default()
    })
}
