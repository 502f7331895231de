//! A Canary that is deleted. What it owns goes with it; with `spec.revertOnDeletion` what it took over is given back before
//! (`pkg/controller/finalizer.go`), in an order that loses no request: the target up, then the routes, then the finalizer.

use super::{
    drain,
    events::event,
    phase,
    plan::{Decision, Plan, Requeue},
    release::Release,
    warn,
};
use crate::{
    api::canary::CanaryPhase,
    notifications::EventKind,
    snapshot::{Action, Kind, Readiness, Snapshot, Write},
};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// As long as this is on a Canary, the API server does not remove it.
const FINALIZER: &str = "finalizer.flagger.app";

/// Keeps the finalizer on a Canary that is to be reverted, and off any other; `None` if it is so.
pub fn prepare(snapshot: &Snapshot) -> Option<Decision> {
    (snapshot.canary.spec.revert_on_deletion != has_finalizer(snapshot)).then(|| {
        Decision::Do(finalizer_write(
            snapshot,
            snapshot.canary.spec.revert_on_deletion,
        ))
    })
}

/// What to do about a Canary that is being deleted.
pub fn decide(snapshot: &Snapshot) -> Decision {
    if !has_finalizer(snapshot) {
        return Decision::Wait(Requeue::Change, Vec::new());
    }
    if !snapshot.canary.spec.revert_on_deletion {
        return Decision::Do(finalizer_write(snapshot, false));
    }
    if snapshot.conflicting_canary.is_some() {
        // All that could be given back is the older canary's.
        return Decision::Do(gone(snapshot));
    }
    if snapshot.phase() != CanaryPhase::Terminating {
        let mut status = phase::enter(snapshot, CanaryPhase::Terminating);
        status.canary_weight = 0;
        status.iterations = 0;
        let text = format!("Terminating canary {}", snapshot.full_name());
        // The event is about the phase that ends, as Flagger's is.
        return Decision::commit(status, vec![event(snapshot, EventKind::Normal, text)]);
    }
    match Release::of(snapshot) {
        Ok(release) => revert(&release),
        // Somebody may mend it: the primary goes with the Canary, and the target may have no pods.
        Err(problem) if snapshot.target().is_some() && !is_late(snapshot) => {
            warn(snapshot, problem)
        }
        // Without its target there is nobody to give anything back to.
        Err(_) => Decision::Do(gone(snapshot)),
    }
}

fn revert(release: &Release<'_>) -> Decision {
    let snapshot = release.snapshot;
    let late = is_late(snapshot);
    let given_back = given_back(release);
    let mut up = release.scale_to_primary(late);
    up.extend(release.announce(&given_back));
    if !up.is_empty() {
        // A scaler that takes it back at once is not argued with before the next tick.
        up.retain(|write| !snapshot.recently_written.contains(&write.object));
        return if up.is_empty() {
            Decision::Wait(Requeue::AtTick, Vec::new())
        } else {
            writes(up)
        };
    }
    if let Readiness::Waiting(why) | Readiness::Failed(why) = release.canary_readiness()
        && !late
    {
        let text = format!("canary not ready during finalizing: {why}");
        return Decision::Wait(
            Requeue::AtTick,
            vec![event(snapshot, EventKind::Warning, text)],
        );
    }
    // What proxies have not heard of they cannot follow.
    if let Some(wait) = release.routes_lag().filter(|_| !late) {
        return wait;
    }
    if !given_back.is_empty() {
        return writes(given_back);
    }
    match drain::end(snapshot) {
        None => Decision::commit(drain::begin(phase::status(snapshot), snapshot), Vec::new()),
        Some(end) if snapshot.now < end => Decision::Wait(Requeue::At(end), Vec::new()),
        Some(_) => release
            .tidy_routes()
            .map_or_else(|| Decision::Do(gone(snapshot)), |write| writes(vec![write])),
    }
}

/// The Service and the routes as they were before the Canary.
fn given_back(release: &Release<'_>) -> Vec<Write> {
    let mut writes: Vec<_> = release.restored_apex().into_iter().collect();
    writes.extend(release.router.restore(release.snapshot));
    writes
}

/// Whether the target was waited for long enough.
fn is_late(snapshot: &Snapshot) -> bool {
    deadline(snapshot).is_none_or(|deadline| deadline <= snapshot.now)
}

/// Until when the target is waited for.
fn deadline(snapshot: &Snapshot) -> Option<Timestamp> {
    let since = phase::status(snapshot).last_transition_time?.0;
    let wait = SignedDuration::from_secs(snapshot.canary.progress_deadline_seconds());
    since.checked_add(wait).ok()
}

fn writes(writes: Vec<Write>) -> Decision {
    Decision::Do(Plan {
        writes,
        ..Plan::default()
    })
}

fn gone(snapshot: &Snapshot) -> Plan {
    let text = format!("Terminated canary {}", snapshot.full_name());
    Plan {
        notifications: vec![event(snapshot, EventKind::Normal, text)],
        ..finalizer_write(snapshot, false)
    }
}

fn has_finalizer(snapshot: &Snapshot) -> bool {
    let mut finalizers = snapshot.canary.metadata.finalizers.iter().flatten();
    finalizers.any(|finalizer| finalizer == FINALIZER)
}

/// Puts the finalizer on, or takes it off.
fn finalizer_write(snapshot: &Snapshot, on: bool) -> Plan {
    let meta = &snapshot.canary.metadata;
    let others = meta.finalizers.iter().flatten();
    let mut wanted: Vec<_> = others.filter(|other| *other != FINALIZER).collect();
    let own = FINALIZER.to_owned();
    if on {
        wanted.push(&own);
    }
    let test = |path: &str, value: Value| json!({"op": "test", "path": path, "value": value});
    let patch = json!([
        test("/metadata/uid", json!(meta.uid)),
        test("/metadata/resourceVersion", json!(meta.resource_version)),
        {"op": "add", "path": "/metadata/finalizers", "value": wanted},
    ]);
    let failure = format!(
        "updating the finalizer of {} failed: ",
        snapshot.full_name()
    );
    Plan {
        writes: vec![Write {
            object: snapshot.reference(Kind::Canary, snapshot.name()),
            action: Action::Patch(patch),
            failure,
        }],
        ..Plan::default()
    }
}
