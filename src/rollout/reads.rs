//! The objects that a decision reads.

use std::collections::BTreeSet;

use serde_json::Value;

use super::checks::metrics;
use crate::{
    api::status::ConditionType,
    providers,
    routers::own_routes::{self, Used},
    snapshot::{Kind, ObjectRef, Snapshot, TargetKind},
    workload::{
        config::{
            self,
            copies::{Copies, Copy},
        },
        metadata::owner_reference,
        scaler,
    },
};

/// The objects that a decision needs. The caller reads them and asks again, until the snapshot contains all of them: an object may refer
/// to others.
pub fn needs(snapshot: &Snapshot) -> BTreeSet<ObjectRef> {
    let mut needs = claims(snapshot);
    if let (true, Some(template)) = (snapshot.settings.config_tracking, template(snapshot)) {
        for (kind, name) in config::references(template).into_keys() {
            needs.insert(snapshot.reference(kind, &config::copy_name(&name)));
            needs.insert(snapshot.reference(kind, &name));
        }
        let all = Copies::of(snapshot);
        for (source, copy, used) in copies(snapshot, &all) {
            let used = used.map(|used| used.name);
            let names = copy.considered.into_iter().chain(used);
            needs.extend(names.map(|name| snapshot.reference(source.kind, &name)));
        }
        needs.extend(all.with_previous().flatten());
    }
    needs.extend(providers::router(snapshot).sources(snapshot));
    // These routes must be given back, whatever the spec names now.
    let recorded = own_routes::recorded(snapshot.status());
    needs.extend(recorded.iter().flat_map(Used::routes).cloned());
    needs.extend(metrics::needs(snapshot));
    needs
}

/// The template of the target's pods, if the operator manages them.
fn template(snapshot: &Snapshot) -> Option<&Value> {
    let kind = TargetKind::of(&snapshot.canary).filter(|kind| kind.has_pods());
    kind.and(snapshot.target())?.pointer("/spec/template")
}

/// The configs that the target refers to, as far as they are known, each with the copy that the primary gets and the one that it uses now.
fn copies<'a>(
    snapshot: &'a Snapshot,
    all: &Copies<'a>,
) -> Vec<(ObjectRef, Copy<'a>, Option<Copy<'a>>)> {
    let template = template(snapshot);
    let references = template.map(config::references).unwrap_or_default();
    let copy = |(kind, name): (Kind, String)| {
        let source = snapshot
            .object(kind, &name)
            .filter(|source| config::is_tracked(source))?;
        let reference = snapshot.reference(kind, &name);
        Some((reference, all.choose(kind, source), all.used(kind, source)))
    };
    references.into_keys().filter_map(copy).collect()
}

/// The configs that belong to no Canary and have the name of a copy that the primary needs.
pub fn foreign_copies(snapshot: &Snapshot) -> BTreeSet<ObjectRef> {
    if !snapshot.settings.config_tracking {
        return BTreeSet::new();
    }
    let copies = copies(snapshot, &Copies::of(snapshot)).into_iter();
    let foreign = |(source, copy, _): (ObjectRef, Copy<'_>, _)| {
        Some(snapshot.reference(source.kind, &copy.foreign?))
    };
    copies.filter_map(foreign).collect()
}

/// The routes of the user that the Canary names, or that are to be given back, and the operator's copies of them.
pub fn users_routes(snapshot: &Snapshot) -> BTreeSet<ObjectRef> {
    let used = own_routes::named_or_recorded(&snapshot.canary);
    used.iter().flat_map(Used::routes).cloned().collect()
}

/// The objects that belong to one canary: the target, and those that a release writes. Two canaries that claim the same object would
/// undo each other's writes. Copies of configs are not among them: canaries that use one config share its copy. Neither are routes of the
/// user: canaries may share a route, but no rule ([`own_routes::shared_with`]).
pub fn claims(snapshot: &Snapshot) -> BTreeSet<ObjectRef> {
    let canary = &snapshot.canary;
    let Some(kind) = TargetKind::of(canary) else {
        return BTreeSet::new();
    };
    let target = &canary.spec.target_ref.name;
    if kind == TargetKind::Knative {
        // Knative makes the Services, and the primary is one of its Revisions.
        return [snapshot.reference(kind.kind(), target)].into();
    }
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
    let router = providers::router(snapshot);
    claims.extend(if router.are_users() {
        own_routes::copies(canary)
    } else {
        router.objects(canary)
    });
    claims.extend(scaler::objects(snapshot));
    claims
}

/// The objects whose full content a decision needs: the configs whose copy for the primary is missing or outdated, the copies that get an
/// owner or their previous content, and the credentials of metric servers. For other configs, the cache's checksum is enough.
pub fn needed_in_full(snapshot: &Snapshot) -> BTreeSet<ObjectRef> {
    let mut needed = metrics::needs(snapshot);
    needed.retain(|object| object.kind == Kind::Secret);
    let owner = owner_reference(&snapshot.canary);
    let all = Copies::of(snapshot);
    for (source, copy, used) in copies(snapshot, &all) {
        let config = snapshot.objects.get(&source);
        let is_current = config.is_some_and(|config| copy.is_current(config));
        let unowned = used
            .iter()
            .chain([&copy])
            .filter(|copy| !copy.has_owner(&owner));
        needed.extend(unowned.map(|copy| snapshot.reference(source.kind, &copy.name)));
        if !is_current {
            needed.insert(snapshot.reference(source.kind, &copy.name));
            needed.insert(source);
        }
    }
    if snapshot
        .status()
        .has_condition(ConditionType::PromotionFailed)
    {
        needed.extend(all.with_previous().flatten());
    }
    needed
}
