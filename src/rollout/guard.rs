//! Canaries that are not run: suspended, invalid, or second to another one with the same target.

use super::{
    phase::{self, Intent},
    plan::{Decision, Next},
    rollback,
    say::event,
};
use crate::{
    api::canary::{CanaryPhase, Strategy},
    notice::EventKind,
    route::Dialect,
    world::{TargetKind, World},
};

/// The decision about a canary that must not be run as it is; `None` if it can be.
pub fn refuse(world: &World) -> Option<Decision> {
    if rollback::is_under_way(world) || rollback::is_owed(world) {
        // Traffic returns to the primary, and people hear of it, whatever the spec says by now.
        return None;
    }
    // A new one becomes known first: its status says so, whether it is suspended or not.
    if world.canary.spec.suspend && world.phase() != CanaryPhase::New {
        let text = "skipping canary run as object is suspended".to_owned();
        return Some(Decision::Wait(
            Next::Change,
            vec![event(world, EventKind::Normal, text)],
        ));
    }
    let rival = world.rival.as_ref().map(|rival| {
        format!(
            "canary {} is not run: {rival} has the same target {}",
            world.full_name(),
            world.full_target()
        )
    });
    say(world, Intent::TargetConflict, "SameTarget", rival)
        .or_else(|| say(world, Intent::Invalid, "InvalidSpec", invalid(world)))
}

/// Says a problem once, in the status and in an event, and takes it back when it is gone.
fn say(world: &World, intent: Intent, reason: &str, problem: Option<String>) -> Option<Decision> {
    let known = phase::intent(world, intent).map(|(_, message)| message.to_owned());
    if known == problem {
        // The other canary of a conflict may go without a sign.
        return problem.map(|_| Decision::Wait(Next::Due, Vec::new()));
    }
    let status = phase::status(world);
    Some(match problem {
        Some(problem) => {
            let status = phase::with_intent(status, world, intent, reason, &problem);
            Decision::commit(status, vec![event(world, EventKind::Warning, problem)])
        }
        None => Decision::commit(phase::without_intent(status, intent), Vec::new()),
    })
}

/// What is wrong with a spec, if anything: the field, and why.
fn invalid(world: &World) -> Option<String> {
    let problem = target(world)
        .or_else(|| references(world))
        .or_else(|| analysis(world))
        .or_else(|| {
            let metrics = || super::metrics::unsupported(world);
            let problem = Dialect::of(world).err().or_else(metrics)?;
            Some(format!("spec.provider: {problem}"))
        })?;
    Some(format!("invalid canary spec: {problem}"))
}

fn target(world: &World) -> Option<String> {
    let spec = &world.canary.spec;
    if TargetKind::of(&world.canary).is_none() {
        return Some(format!(
            "spec.targetRef: {} {} is not supported yet, only Deployment, DaemonSet and core Service are",
            spec.target_ref.api_version, spec.target_ref.kind
        ));
    }
    if !(1..=65535).contains(&spec.service.port) {
        return Some(format!(
            "spec.service.port: {} is not a port (1 to 65535)",
            spec.service.port
        ));
    }
    None
}

fn references(world: &World) -> Option<String> {
    if !world.settings.no_cross_namespace_refs {
        return None;
    }
    let namespace = world.namespace();
    let foreign = |other: &Option<String>| {
        other
            .as_deref()
            .filter(|other| !other.is_empty() && *other != namespace)
            .map(str::to_owned)
    };
    let analysis = world.canary.spec.analysis.as_ref()?;
    let templates = analysis
        .metrics
        .iter()
        .filter_map(|m| m.template_ref.as_ref())
        .map(|r| ("metric template", &r.name, &r.namespace));
    let providers = analysis.alerts.iter().map(|a| {
        (
            "alert provider",
            &a.provider_ref.name,
            &a.provider_ref.namespace,
        )
    });
    templates.chain(providers).find_map(|(what, name, other)| {
        foreign(other).map(|other| {
            format!("can't access {what} {name}.{other}, cross-namespace references are blocked")
        })
    })
}

fn analysis(world: &World) -> Option<String> {
    let canary = &world.canary;
    let Some(analysis) = &canary.spec.analysis else {
        return Some("spec.analysis: required".to_owned());
    };
    if let Some(affinity) = &analysis.session_affinity
        && affinity.primary_cookie_name.as_ref() == Some(&affinity.cookie_name)
    {
        return Some(
            "can't use the same cookie name for both primary and cookie name; please update them to be different"
                .to_owned(),
        );
    }
    if canary.skip_analysis() {
        return None;
    }
    let splits = Dialect::of(world).is_ok_and(Dialect::splits);
    if canary.strategy() != Strategy::Canary || !splits {
        return None;
    }
    let weights = analysis.step_weights.as_deref().unwrap_or_default();
    if let Some(i) = weights
        .windows(2)
        .position(|pair| matches!(pair, [a, b] if a >= b))
    {
        return Some(format!(
            "spec.analysis.stepWeights[{}]: must be greater than the one before",
            i + 1
        ));
    }
    if weights.is_empty() && analysis.step_weight.unwrap_or(0) <= 0 {
        return Some("spec.analysis.stepWeight: must be greater than 0".to_owned());
    }
    if weights.first().is_some_and(|first| *first <= 0) {
        return Some("spec.analysis.stepWeights[0]: must be greater than 0".to_owned());
    }
    None
}
