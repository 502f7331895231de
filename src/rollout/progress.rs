//! The progress of the objects for which a run waits. The progress deadline counts from the last one.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use super::{
    release::{Release, version},
    safety::own_routes,
    status::transitions::is_in_run,
};
use crate::{
    api::status::ConditionType,
    providers,
    snapshot::{Kind, ObjectRef, Progress, Readiness, Snapshot},
    workload::metadata,
};

/// The progress of the objects for which a run waits, or a version that is to start a run: rollouts, and the routes, under the name of the
/// Canary.
pub fn progress(snapshot: &Snapshot) -> BTreeMap<ObjectRef, Progress> {
    let mut waits = rollouts(snapshot);
    if !waits_for_routes(snapshot) {
        return waits;
    }
    // The data plane accepts routes as a whole, so they have no progress in between. But a change of the Canary's spec, another version, or
    // another action of a person counts as progress, and the deadline starts again.
    let action = snapshot.status().condition(ConditionType::Action);
    let mut hasher = DefaultHasher::new();
    let of_canary = snapshot.canary.metadata.generation;
    let tried = action.map(|action| (&action.reason, &action.message));
    (of_canary, tried, version(snapshot)).hash(&mut hasher);
    let none = Progress {
        rollout: hasher.finish().cast_signed(),
        pods: 0,
    };
    let routes = snapshot.reference(Kind::Canary, snapshot.name());
    waits.insert(routes, none);
    waits
}

/// Whether the data plane has not accepted the routes, or routes of the user cannot be used.
fn waits_for_routes(snapshot: &Snapshot) -> bool {
    let router = providers::router(snapshot);
    let has_users = router.are_users() || own_routes::are_recorded(snapshot.status());
    let trouble = || Release::of(snapshot).ok()?.users_routes_trouble();
    router.accepted(snapshot).is_err() || (has_users && trouble().is_some())
}

fn rollouts(snapshot: &Snapshot) -> BTreeMap<ObjectRef, Progress> {
    let status = snapshot.status();
    let release = if is_in_run(status.phase) {
        Release::of(snapshot).ok()
    } else {
        None
    };
    let Some(release) = release else {
        return BTreeMap::new();
    };
    let primary = || (release.primary_readiness(), snapshot.primary());
    let canary = || (release.canary_readiness(), snapshot.canary_workload());
    [primary(), canary()]
        .into_iter()
        .filter(|(readiness, _)| *readiness != Readiness::Ready)
        .filter_map(|(_, workload)| {
            let workload = workload?;
            let name = snapshot.reference(release.kind.workload(), metadata::name(workload));
            Some((name, release.kind.progress(workload)))
        })
        .collect()
}
