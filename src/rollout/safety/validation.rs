//! Validation: canaries that are suspended, invalid, or in conflict with another canary are not run.

use std::fmt;

use crate::{
    api::{
        canary::{CanaryAnalysis, CanaryPhase, Strategy},
        limits,
        percent::{NoPercent, Percent},
        status::ConditionType,
    },
    providers,
    rollout::{
        checks::comparisons,
        messages::{self, run},
        plan::{Decision, Requeue},
        release::Release,
        rollback,
        status::{
            Outcome, StatusChange, outcome,
            transitions::{is_in_promotion, is_in_run, is_under_analysis},
        },
    },
    routers::{self, conditions, own_routes::Used, provider_name},
    snapshot::{Conflict, Snapshot, TargetKind, references, route_references},
    workload::ports,
};

/// The decision about a canary that must not be run; `None` if it can be run. A version under analysis that can no longer be judged is
/// rolled back, so that it does not keep its traffic.
pub fn refuse(snapshot: &Snapshot) -> Option<Decision> {
    if rollback::is_under_way(snapshot) || outcome::is_pending(snapshot) {
        // A rollback is completed and its outcome is sent, even if the spec has become invalid.
        return None;
    }
    // A new canary first gets a status, even if it is suspended.
    if snapshot.canary.spec.suspend && snapshot.phase() != CanaryPhase::New {
        let event = run::suspended(snapshot);
        return Some(Decision::Wait(Requeue::OnChange, vec![event]));
    }
    let phase = snapshot.phase();
    match problem(snapshot) {
        // The version passed its analysis: its promotion ends first.
        _ if is_in_promotion(phase) && can_end(snapshot) => None,
        // The version cannot be judged any more, so it is rolled back and loses its traffic.
        Some((_, why)) if is_under_analysis(phase) && can_end(snapshot) => {
            Some(rollback::begin(snapshot, &Outcome::Refused(why)))
        }
        problem => {
            let conditions = [ConditionType::TargetConflict, ConditionType::Invalid];
            report_once(snapshot, &conditions, problem)
        }
    }
}

/// The reason why the canary cannot be run, and the condition that records it; `None` if it can be run.
fn problem(snapshot: &Snapshot) -> Option<(ConditionType, String)> {
    // If another canary claims an object during a run, the run ends first: its version may have traffic, which must be judged.
    let runs = is_in_run(snapshot.phase()) && !same_target(snapshot);
    let conflict = snapshot.conflicting_canary.as_ref().filter(|_| !runs);
    let conflict = conflict.map(|conflict| conflict_message(snapshot, conflict));
    let invalid = || {
        let problem = invalid(snapshot)?;
        Some((ConditionType::Invalid, problem.to_string()))
    };
    conflict
        .map(|conflict| (ConditionType::TargetConflict, conflict))
        .or_else(invalid)
}

/// Whether the operator can still write the objects of the release.
fn can_end(snapshot: &Snapshot) -> bool {
    Release::of(snapshot).is_ok()
}

/// Whether an older canary has the same target, and not only another object that this one claims.
pub fn same_target(snapshot: &Snapshot) -> bool {
    let target = &snapshot.canary.spec.target_ref;
    let conflict = snapshot.conflicting_canary.as_ref();
    conflict.is_some_and(|Conflict { object, .. }| {
        object.name == target.name && object.kind.name() == target.kind
    })
}

fn conflict_message(snapshot: &Snapshot, Conflict { canary, object }: &Conflict) -> String {
    let full = snapshot.full_name();
    if same_target(snapshot) {
        let target = snapshot.full_target();
        return format!("canary {full} is not run: {canary} has the same target {target}");
    }
    let (kind, name) = (object.kind.name(), &object.name);
    if routers::own_routes::copies(&snapshot.canary).contains(object) {
        return format!(
            "canary {full} is not run: {canary} makes the copy {kind} {} of the same route; let each Canary have a route of its own",
            object.full_name()
        );
    }
    if providers::router(snapshot).are_users() && routers::own_routes::is_route(object.kind) {
        return format!(
            "canary {full} is not run: {canary} sets the weights of the same rule of {kind} {}; name other rules in routeRefs of one of both",
            object.full_name()
        );
    }
    format!(
        "canary {full} is not run: {canary} has the {kind} {name}, too; give one of both another target, service name or autoscaler"
    )
}

/// Reports a problem once, as a condition and as an event. Removes the condition of a problem that is gone. `conditions` are all that the
/// caller reports.
pub(super) fn report_once(
    snapshot: &Snapshot,
    conditions: &[ConditionType],
    problem: Option<(ConditionType, String)>,
) -> Option<Decision> {
    let conditions = conditions.iter().copied();
    let known: Vec<_> = conditions
        .clone()
        .filter_map(|type_| {
            let condition = snapshot.status().condition(type_)?;
            Some((type_, condition.message.clone().unwrap_or_default()))
        })
        .collect();
    if known.iter().eq(&problem) {
        // The other canary of a conflict may be deleted without an event for this one, so reconcile again at the next tick.
        return problem.map(|_| Decision::wait(Requeue::AtTick));
    }
    let change = StatusChange::within_step(snapshot);
    let change = conditions.fold(change, StatusChange::clear);
    let Some((type_, problem)) = problem else {
        return Some(Decision::commit(change.build(), Vec::new()));
    };
    let reason = match type_ {
        // This reason was chosen before conflicts about other objects existed.
        ConditionType::TargetConflict => "SameTarget",
        ConditionType::ForeignObject => "NotOwned",
        _ => "InvalidSpec",
    };
    let status = change.set(type_, reason, &problem).build();
    let event = messages::warning(snapshot, problem);
    Some(Decision::commit(status, vec![event]))
}

const POSITIVE: &str = "must be greater than 0";

/// A problem in a field of the spec that prevents runs.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid canary spec: {0}")]
struct InvalidSpec(String);

fn at(field: impl fmt::Display, problem: impl fmt::Display) -> InvalidSpec {
    InvalidSpec(format!("{field}: {problem}"))
}

/// The first problem of a spec, as the condition `Invalid` has it.
pub fn spec_problem(snapshot: &Snapshot) -> Option<String> {
    invalid(snapshot).map(|problem| problem.to_string())
}

/// The first problem of a spec.
fn invalid(snapshot: &Snapshot) -> Option<InvalidSpec> {
    // The limits come first: the other rules read the lists.
    too_large(snapshot)
        .or_else(|| target(snapshot))
        .or_else(|| references(snapshot))
        .or_else(|| own_routes(snapshot))
        .or_else(|| analysis(snapshot))
        .or_else(|| comparison(snapshot))
}

/// The limits keep one Canary from taking memory or time that other canaries need.
fn too_large(snapshot: &Snapshot) -> Option<InvalidSpec> {
    let canary = &snapshot.canary;
    if let Some(list) = limits::exceeded(&canary.spec) {
        return Some(InvalidSpec(list.to_string()));
    }
    let (test, own) = (conditions::of_test(canary), conditions::of_service(canary));
    let product = conditions::size(test, own).err()?;
    Some(InvalidSpec(product.to_string()))
}

fn target(snapshot: &Snapshot) -> Option<InvalidSpec> {
    let spec = &snapshot.canary.spec;
    let Some(kind) = TargetKind::of(&snapshot.canary) else {
        let (version, kind) = (&spec.target_ref.api_version, &spec.target_ref.kind);
        let problem = format!(
            "{version} {kind} is no kind of target, only Deployment, DaemonSet, core Service and Knative Service are"
        );
        return Some(at("spec.targetRef", problem));
    };
    let is_knative = kind == TargetKind::Knative;
    let provider = provider_name(snapshot);
    if is_knative != (provider == "knative") {
        let (version, kind) = (&spec.target_ref.api_version, &spec.target_ref.kind);
        return Some(InvalidSpec(if is_knative {
            format!("can't use {provider} provider with Knative Service as target")
        } else {
            format!("can't use {version}/{kind} as target if provider is set to knative")
        }));
    }
    if is_knative {
        // Knative chooses the ports and the number of pods.
        let scaler = spec.autoscaler_ref.as_ref();
        return scaler.map(|_| InvalidSpec("can't use autoscaler with Knative Service".to_owned()));
    }
    let discovers = snapshot.target().filter(|_| spec.service.port_discovery);
    let template = discovers.and_then(|target| target.pointer("/spec/template"));
    let count = template.map_or(0, ports::count);
    if count > limits::PORTS {
        let problem = format!(
            "the target has {count} container ports, but at most {} are supported",
            limits::PORTS
        );
        return Some(at("spec.service.portDiscovery", problem));
    }
    let port = spec.service.port;
    (!(1..=65535).contains(&port)).then(|| {
        at(
            "spec.service.port",
            format!("{port} is not a port (1 to 65535)"),
        )
    })
}

fn references(snapshot: &Snapshot) -> Option<InvalidSpec> {
    let of_routes = || {
        let named = providers::router(snapshot).named(snapshot);
        route_references::routes(snapshot, named).err()
    };
    let blocked = references::first_blocked(&snapshot.canary, snapshot.other_namespaces());
    let blocked = blocked.or_else(of_routes)?;
    Some(InvalidSpec(blocked.to_string()))
}

/// The routes of the user: the list can be read, and the spec asks for nothing that needs more than weights.
fn own_routes(snapshot: &Snapshot) -> Option<InvalidSpec> {
    let canary = &snapshot.canary;
    if !canary.has_route_refs() {
        return None;
    }
    if TargetKind::of(canary) == Some(TargetKind::Knative) {
        return Some(at(
            "spec.service.routeRefs",
            "can't be used with Knative Service as target",
        ));
    }
    let named = match routers::own_routes::named(canary) {
        Ok(named) => named,
        Err(error) => return Some(InvalidSpec(error.to_string())),
    };
    let blocked = |used: &Used| routers::own_routes::check_namespace(snapshot, &used.route).err();
    let blocked = named.iter().find_map(blocked);
    let blocked = blocked.map(|blocked| InvalidSpec(blocked.to_string()));
    blocked.or_else(|| routers::own_routes::unsupported(canary).map(InvalidSpec))
}

fn comparison(snapshot: &Snapshot) -> Option<InvalidSpec> {
    let (place, problem) = comparisons::problem(snapshot)?;
    Some(at(
        format!("spec.analysis.metrics[{place}].compare"),
        problem,
    ))
}

fn analysis(snapshot: &Snapshot) -> Option<InvalidSpec> {
    let canary = &snapshot.canary;
    let Some(analysis) = &canary.spec.analysis else {
        return Some(at("spec.analysis", "required"));
    };
    if let Some(affinity) = &analysis.session_affinity
        && affinity.primary_cookie_name.as_ref() == Some(&affinity.cookie_name)
    {
        return Some(InvalidSpec(
            "can't use the same cookie name for both primary and cookie name; please update them to be different"
                .to_owned(),
        ));
    }
    if canary.skip_analysis() || canary.strategy() != Strategy::Canary {
        return None;
    }
    if analysis.has_decimals() {
        return decimals(snapshot, analysis);
    }
    if !providers::router(snapshot).splits_traffic() {
        return None;
    }
    let field = "spec.analysis.stepWeights";
    match analysis.step_weights.as_deref().unwrap_or_default() {
        [] if analysis.step_weight.unwrap_or(0) <= 0 => {
            Some(at("spec.analysis.stepWeight", POSITIVE))
        }
        weights => not_ascending(field, weights, 0),
    }
}

/// The first weight of a list that is not greater than the one before, or the first one if it is not greater than `zero`.
fn not_ascending<T: PartialOrd>(field: &str, weights: &[T], zero: T) -> Option<InvalidSpec> {
    let not_greater = weights
        .windows(2)
        .position(|pair| matches!(pair, [a, b] if a >= b));
    if let Some(i) = not_greater {
        let field = format!("{field}[{}]", i + 1);
        return Some(at(field, "must be greater than the one before"));
    }
    let is_positive = weights.first().is_none_or(|first| *first > zero);
    (!is_positive).then(|| at(format!("{field}[0]"), POSITIVE))
}

/// The problem of `decimalStepWeights`. Only a weight that is not whole needs more of a router than `stepWeights`.
fn decimals(snapshot: &Snapshot, analysis: &CanaryAnalysis) -> Option<InvalidSpec> {
    let field = "spec.analysis.decimalStepWeights";
    let mut weights = Vec::new();
    for (i, number) in analysis.decimal_step_weights.iter().flatten().enumerate() {
        match Percent::exact(*number) {
            Some(weight) => weights.push(weight),
            None => {
                let field = format!("{field}[{i}]");
                let problem = format!("{number} {NoPercent}");
                return Some(at(field, problem));
            }
        }
    }
    if let Some(problem) = not_ascending(field, &weights, Percent::ZERO) {
        return Some(problem);
    }
    let mut weights = weights.iter().enumerate();
    let (i, weight) = weights.find(|(_, weight)| !weight.is_whole())?;
    let (router, provider) = (providers::router(snapshot), provider_name(snapshot));
    let why = match () {
        () if router.splits_tenths() => return None,
        () if router.splits_traffic() => {
            format!("the smallest step of the provider {provider} is 1 %")
        }
        () => format!("the provider {provider} does not split traffic"),
    };
    let problem = format!("{weight} % cannot be routed: {why}");
    Some(at(format!("{field}[{i}]"), problem))
}
