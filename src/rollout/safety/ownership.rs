//! The operator does not change objects of other owners. It does not run a canary that needs the name of such an object: an event and the
//! condition `ForeignObject` name the object. The condition is removed when the object is gone or is given to the canary (see
//! [`workload::ownership`](crate::workload::ownership)). The same holds for a route of which an adoption would drop a field.
//!
//! The refusal comes before the first write of the initialization, and between two runs. A run goes on meanwhile, with its routes and its
//! rollback, but a plan that would change a foreign object is not executed. (Flagger replaces such objects.)

use std::collections::BTreeSet;

use serde_json::Value;

use super::validation::report_once;
use crate::{
    api::{canary::CanaryPhase, status::ConditionType},
    providers,
    rollout::{
        blocked::Blocked,
        plan::{Decision, Plan},
        reads,
        status::transitions::is_in_run,
    },
    routers::own_routes,
    snapshot::{Action, Kind, ObjectRef, Snapshot, TargetKind, Write},
    workload::{
        metadata::{FLAGGER_ID, FLUX, owner_renewal},
        ownership::{Foreign, NotOwn, Ownership},
        scaler,
    },
};

/// The actor that creates an object which a canary needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Creator {
    /// The user, or a controller of Kubernetes: the target, its autoscaler and its configs, the user's Ingress, the routes in which the
    /// operator only sets weights, and all objects that it only reads.
    User,
    /// The user or, if the user did not, the initialization: the Service that clients call, and its route. Flagger adopts those that exist.
    Either,
    /// The initialization. If such an object has no owner later, it lost the owner, or Flagger did not give it one. (The marks of the
    /// object show whether it is still the same object.)
    Initialization,
    /// The operator, when the spec or the target first asks for it.
    Operator,
}

/// Reports the first object that belongs to someone else; `None` if there is none.
pub fn refuse(snapshot: &Snapshot) -> Option<Decision> {
    let mut needed: BTreeSet<_> = reads::claims(snapshot);
    needed.extend(reads::foreign_copies(snapshot));
    let mut foreign = needed.iter().filter_map(|object| foreign(snapshot, object));
    let foreign = foreign.next().or_else(|| loses(snapshot));
    let type_ = ConditionType::ForeignObject;
    let problem = foreign.map(|foreign| (type_, foreign.to_string()));
    report_once(snapshot, &[type_], problem)
}

/// The decision, unless it would change an object of someone else. Writes of routes are not checked: a rollback is never held up. Copies of
/// routes are, because a rollback leaves out those of others.
pub fn checked(snapshot: &Snapshot, decision: Decision) -> Result<Decision, Blocked> {
    let Decision::Do(Plan { writes, .. }) = &decision else {
        return Ok(decision);
    };
    let mut routes = providers::router(snapshot).objects(&snapshot.canary);
    let copies = own_routes::copies(&snapshot.canary);
    routes.retain(|route| !copies.contains(route));
    let objects = writes.iter().map(|write| &write.object);
    let mut others = objects.filter(|object| !routes.contains(*object));
    match others.find_map(|object| foreign(snapshot, object)) {
        Some(foreign) => Err(foreign.into()),
        None => Ok(decision),
    }
}

/// The reason why an object that exists is not the canary's; `None` if the operator may change it.
pub fn foreign(snapshot: &Snapshot, object: &ObjectRef) -> Option<Foreign> {
    let live = snapshot.objects.get(object)?;
    let creator = creator(snapshot, object);
    let owner = Ownership::of(live, &snapshot.canary);
    let is_external = creator == Creator::Either && live["spec"]["type"] == "ExternalName";
    let why = match (creator, owner) {
        (Creator::Either, _) if is_external => NotOwn::ExternalName,
        (Creator::User, _)
        | (_, Ownership::Own)
        | (Creator::Either, Ownership::Unowned | Ownership::Other(_)) => return None,
        // The copy of a user's route that another Canary has left leads no request.
        (Creator::Operator, Ownership::OtherCanary(_))
            if own_routes::is_left(&snapshot.canary, object, live) =>
        {
            return None;
        }
        (_, Ownership::OtherCanary(name)) => NotOwn::Owned(format!("Canary {name}")),
        (_, Ownership::Other(owner)) => NotOwn::Owned(owner),
        (Creator::Initialization, Ownership::Unowned)
            if is_initialized(snapshot) && is_marked(object, live) =>
        {
            return None;
        }
        // Another actor has replaced a Service that clients of this run may reach. The run cannot go on without it, so it is repaired. (As in
        // Flagger.)
        (Creator::Initialization, Ownership::Unowned)
            if is_in_run(snapshot.phase()) && object.kind == Kind::Service =>
        {
            return None;
        }
        (_, Ownership::Unowned) if has_orphans(snapshot) => return None,
        (_, Ownership::Unowned) => NotOwn::Unowned,
    };
    Some(Foreign {
        canary: snapshot.full_name(),
        object: object.clone(),
        why,
    })
}

/// Makes objects of an earlier Canary of this name belong to this one, for example after a restore from a backup. `None` if they belong to
/// it.
pub fn renew(snapshot: &Snapshot) -> Option<Decision> {
    let renewal = |(object, live): (&ObjectRef, _)| {
        let patch = owner_renewal(live, &snapshot.canary)?;
        // Objects that are only read may belong to a Canary of this name in another namespace.
        if !reads::claims(snapshot).contains(object) {
            return None;
        }
        let (kind, name) = (object.kind.name().to_lowercase(), &object.name);
        let failure = format!(
            "updating the owner of {kind} {name}.{} failed: ",
            object.namespace
        );
        Some(Write {
            object: object.clone(),
            action: Action::Patch(patch),
            failure,
        })
    };
    let mut writes: Vec<_> = snapshot.objects.iter().filter_map(renewal).collect();
    writes.retain(|write| !snapshot.leaves_out(write));
    (!writes.is_empty()).then(|| Decision::write(writes))
}

/// Whether an object belongs to someone else, or is a route of which an adoption would drop a field.
pub fn is_of_others(snapshot: &Snapshot, object: &ObjectRef) -> bool {
    foreign(snapshot, object).is_some()
        || loses(snapshot).is_some_and(|foreign| foreign.object == *object)
}

/// Returns the user's route if its adoption would drop one of its fields.
fn loses(snapshot: &Snapshot) -> Option<Foreign> {
    let (object, field) = providers::router(snapshot).loses(snapshot)?;
    Some(Foreign {
        canary: snapshot.full_name(),
        object,
        why: NotOwn::Loses(field),
    })
}

fn creator(snapshot: &Snapshot, object: &ObjectRef) -> Creator {
    use Creator::{Either, Initialization, Operator, User};
    let canary = &snapshot.canary;
    let spec = &canary.spec;
    let router = providers::router(snapshot);
    if router.are_users() {
        if own_routes::copies(canary).contains(object) {
            return Operator;
        }
        if router.objects(canary).contains(object) {
            return User;
        }
    }
    let is = |name: &str| object.name == name;
    let created_unless = |is_users: bool, created: Creator| {
        if is_users { User } else { created }
    };
    match object.kind {
        Kind::Deployment | Kind::DaemonSet => {
            created_unless(!is(&canary.primary_workload_name()), Initialization)
        }
        Kind::Service if TargetKind::of(canary) == Some(TargetKind::Service) => {
            created_unless(is(&spec.target_ref.name), Initialization)
        }
        Kind::ConfigMap | Kind::Secret => {
            let is_in_the_way = reads::foreign_copies(snapshot).contains(object);
            created_unless(!is_in_the_way, Operator)
        }
        Kind::HorizontalPodAutoscaler | Kind::ScaledObject => {
            created_unless(!scaler::is_primarys(canary, &object.name), Operator)
        }
        Kind::Ingress => {
            let source = spec.ingress_ref.as_ref();
            let is_source = source.is_some_and(|source| is(&source.name));
            created_unless(is_source, Initialization)
        }
        Kind::ReplicaSet
        | Kind::ControllerRevision
        | Kind::Pod
        | Kind::KnativeService
        | Kind::KnativeRevision
        | Kind::Canary
        | Kind::MetricTemplate
        | Kind::AlertProvider
        | Kind::Release => User,
        // Services, and the objects of routers.
        _ if is_apex(snapshot, object) => Either,
        _ => Initialization,
    }
}

/// Whether an object has the name that clients call. A user may have created such an object before the Canary. In App Mesh's `v1beta1`, the
/// name of a VirtualService ends with the namespace.
fn is_apex(snapshot: &Snapshot, object: &ObjectRef) -> bool {
    let apex = snapshot.canary.apex_name();
    let full = format!("{apex}.{}", snapshot.namespace());
    object.name == apex || object.name == full
}

/// Whether the initialization is over, so that all its objects have been created.
fn is_initialized(snapshot: &Snapshot) -> bool {
    let phase = snapshot.phase();
    !matches!(phase, CanaryPhase::New | CanaryPhase::Initializing)
}

/// Whether an object has the marks that the operator and Flagger give to the objects which they create: the annotations for Flux, and
/// `flagger-id` in the template of a primary. After an edit of the Canary, another provider or service name needs objects that the
/// initialization did not make. Kinds without marks count as marked.
fn is_marked(object: &ObjectRef, live: &Value) -> bool {
    let has = |pointer: &str, key: &str| {
        live.pointer(pointer)
            .is_some_and(|map| map.get(key).is_some())
    };
    match object.kind {
        Kind::Deployment | Kind::DaemonSet => {
            has("/spec/template/metadata/annotations", FLAGGER_ID)
        }
        Kind::Service | Kind::DestinationRule => FLUX
            .iter()
            .any(|(key, _)| has("/metadata/annotations", key)),
        _ => true,
    }
}

/// Whether an earlier Canary left its objects behind, without owners (`kubectl delete --cascade=orphan`). The mark in the primary's
/// template shows this, because only the operator and Flagger write it.
fn has_orphans(snapshot: &Snapshot) -> bool {
    let mark = format!("/spec/template/metadata/annotations/{FLAGGER_ID}");
    snapshot.primary().is_some_and(|primary| {
        primary.pointer(&mark).is_some()
            && Ownership::of(primary, &snapshot.canary) == Ownership::Unowned
    })
}
