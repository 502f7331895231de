//! The objects that a decision reads.

use std::collections::BTreeSet;

use super::checks::metrics;
use crate::{
    providers,
    snapshot::{Kind, ObjectRef, Snapshot, TargetKind},
    workload::{config, scaler},
};

/// The objects that a decision needs. The caller reads them and asks again, until the snapshot contains all of them: an object may refer
/// to others.
pub fn needs(snapshot: &Snapshot) -> BTreeSet<ObjectRef> {
    let mut needs = claims(snapshot);
    if let (true, Some(template)) = (
        snapshot.settings.config_tracking,
        snapshot.target().and_then(|t| t.pointer("/spec/template")),
    ) {
        for (kind, name) in config::references(template).into_keys() {
            needs.insert(snapshot.reference(kind, &config::copy_name(&name)));
            needs.insert(snapshot.reference(kind, &name));
        }
    }
    needs.extend(metrics::needs(snapshot));
    needs
}

/// The objects that belong to one canary: the target, and those that a release writes. Two canaries that claim the same object would
/// undo each other's writes. Copies of configs are not among them: canaries that use one config share its copy.
pub fn claims(snapshot: &Snapshot) -> BTreeSet<ObjectRef> {
    let canary = &snapshot.canary;
    let Some(kind) = TargetKind::of(canary) else {
        return BTreeSet::new();
    };
    let target = &canary.spec.target_ref.name;
    let mut claims: BTreeSet<_> = [
        snapshot.reference(kind.kind(), target),
        snapshot.reference(kind.kind(), &canary.primary_workload_name()),
        snapshot.reference(Kind::Service, canary.apex_name()),
        snapshot.reference(Kind::Service, &canary.primary_name()),
        snapshot.reference(Kind::Service, &canary.canary_name()),
    ]
    .into();
    if kind == TargetKind::Service {
        claims.insert(snapshot.reference(Kind::Service, &format!("{target}-canary")));
    }
    if let Ok(router) = providers::router(snapshot) {
        claims.extend(router.objects(canary));
    }
    claims.extend(scaler::objects(snapshot));
    claims
}

/// The objects whose full content a decision needs: the configs whose copy for the primary is missing or outdated, and the credentials
/// of metric servers. For other configs, the cache's checksum is enough.
pub fn needed_in_full(snapshot: &Snapshot) -> BTreeSet<ObjectRef> {
    let mut needed = metrics::needs(snapshot);
    needed.retain(|object| object.kind == Kind::Secret);
    let template = snapshot.target().and_then(|t| t.pointer("/spec/template"));
    for (kind, name) in template
        .map(config::references)
        .unwrap_or_default()
        .into_keys()
    {
        let copy = config::copy_name(&name);
        let Some(source) = snapshot.object(kind, &name) else {
            continue;
        };
        let existing = snapshot.object(kind, &copy);
        if config::is_tracked(source) && !existing.is_some_and(|copy| config::is_same(source, copy))
        {
            needed.insert(snapshot.reference(kind, &name));
            needed.insert(snapshot.reference(kind, &copy));
        }
    }
    needed
}
