//! Routes of the user that a Canary names (`spec.service.routeRefs`). The operator writes the weights of the two versions in them and
//! nothing else: no label, no annotation, no owner, no finalizer (but see the last two points). Any provider can be combined with them. (Not in Flagger, which makes the
//! route itself, and takes over one of the same name.)
//!
//! * A rule leads to the promoted version by the Service that clients call, or by the primary's, and to the canary's Service. The first is
//!   better: the rule leads there before the Canary exists and, with `revertOnDeletion`, after its deletion.
//! * The sum of both weights stays, so the shares of other backends stay as well.
//! * Each write is a JSON patch that tests the names of the rules and backends: a rule that was moved is never changed by mistake. It is no
//!   server-side apply, because Flux strips a list that another manager has applied.
//! * The status shows the progress of a release, not the route: others may edit the weights at any time, for example a tool that applies
//!   the manifest of the route again. Such edits are put back.
//! * The status records the routes before the first write (`used.rs`), so that they are given back whatever becomes of the spec. A route is
//!   given back with all its weight for the promoted version. This is how it must be before a release, so the record needs no weights.
//! * With mode `Template`, the operator sets the weights in a copy of the route (`template.rs`).
//! * With `affinity: accept`, a rule has the canary's backend only while the version gets requests.

mod acceptance;
mod kinds;
mod objects;
mod patch;
mod rules;
mod template;
mod used;

use std::collections::BTreeSet;

use serde_json::Value;

use super::{RouteError, Router, route::has_parents};
use crate::{
    api::{
        canary::{Canary, Strategy},
        percent::Percent,
    },
    snapshot::{ObjectRef, Snapshot, Weights, Write, route_references::Named},
};
use kinds::Place;
pub use kinds::is_route;
pub use objects::check_namespace;
use objects::{live, of_route, with_weights};
use patch::patch;
use rules::Rule;
pub use used::{Used, named, named_or_recorded, record, recorded};

/// The router of a Canary that names routes of the user.
#[derive(Clone, Copy, Debug)]
pub struct OwnRoutes;

impl Router for OwnRoutes {
    fn objects(&self, canary: &Canary) -> BTreeSet<ObjectRef> {
        let named = used::named(canary).unwrap_or_default();
        named.into_iter().map(|used| used.route).collect()
    }

    fn sources(&self, snapshot: &Snapshot) -> BTreeSet<ObjectRef> {
        let named = used::named(&snapshot.canary).unwrap_or_default();
        let routes = named.iter().flat_map(Used::routes).cloned();
        routes
            .filter(|route| check_namespace(snapshot, route).is_ok())
            .collect()
    }

    fn are_users(&self) -> bool {
        true
    }

    /// The sum of the weights in each rule decides (`rules::check`).
    fn splits_tenths(&self) -> bool {
        true
    }

    fn repairs(
        &self,
        snapshot: &Snapshot,
        _selector: &(String, String),
        weights: &Weights,
    ) -> Result<Vec<Write>, RouteError> {
        if let Some(why) = unsupported(&snapshot.canary) {
            return Err(RouteError::InvalidCanary(why));
        }
        let named = used::named(&snapshot.canary);
        let named = named.map_err(|error| RouteError::InvalidCanary(error.to_string()))?;
        let mut writes = Vec::new();
        for used in &named {
            if let Some(template) = &used.template {
                writes.extend(template::copied(snapshot, used, template, weights)?);
                continue;
            }
            let route = live(snapshot, &used.route)?;
            let chosen = rules::chosen(route, &snapshot.canary, used);
            let chosen: Result<Vec<_>, _> = chosen.into_iter().collect();
            let chosen = chosen.and_then(|rules| {
                rules.iter().try_for_each(rules::check)?;
                Ok(rules)
            });
            let chosen = chosen.map_err(|problem| of_route(&used.route, problem))?;
            writes.extend(patch(&used.route, route, &chosen, weights));
        }
        Ok(writes)
    }

    /// The greatest weight that the canary has in a rule. A route that does not exist sends it no request.
    fn current_weights(&self, snapshot: &Snapshot) -> Result<Weights, RouteError> {
        let mut canary = Percent::ZERO;
        for used in &in_use(snapshot) {
            let (rules, problem) = withdrawable(snapshot, used, &[]);
            if let Some(why) = problem {
                return Err(why);
            }
            for rule in rules {
                canary = rule.percent().max(canary);
            }
        }
        Ok(Weights::canary(canary))
    }

    /// All requests can be led to the primary if a route was deleted, or if a rule that gives the canary no weight was removed or renamed.
    fn set_weights(
        &self,
        snapshot: &Snapshot,
        weights: &Weights,
    ) -> Result<Vec<Write>, RouteError> {
        if weights.canary > Percent::ZERO {
            return self.repairs(snapshot, &Default::default(), weights);
        }
        withdrawals(snapshot, &in_use(snapshot), &[])
    }

    fn named(&self, _snapshot: &Snapshot) -> &'static [Named] {
        &[Named::Copies]
    }

    /// The record in the status names the routes to give back, also if the spec names others now (`given_back`).
    fn restore(&self, _snapshot: &Snapshot) -> Option<Write> {
        None
    }

    fn reverted(&self, _snapshot: &Snapshot) -> Option<Write> {
        None
    }

    fn accepted(&self, snapshot: &Snapshot) -> Result<(), RouteError> {
        let refusal = first_refusal(snapshot, |it| !it.is_good || !it.is_current);
        refusal.map_or(Ok(()), Err)
    }

    fn lag(&self, snapshot: &Snapshot) -> Option<RouteError> {
        first_refusal(snapshot, |it| !it.is_current)
    }
}

/// The writes that give back the routes of a record, or those of their rules that are not among the routes `kept`.
///
/// # Errors
/// A rule leads requests to the canary, and the operator cannot tell which weights to set.
pub fn given_back(snapshot: &Snapshot, kept: &[Used]) -> Result<Vec<Write>, RouteError> {
    withdrawals(snapshot, &used::recorded(snapshot.status()), kept)
}

/// The writes that take the parents from the copies of a record that are not among the routes `kept`. A Canary that is deleted needs none,
/// because its copies are deleted, too.
///
/// # Errors
/// A route of the user does not lead the requests of its copy yet.
pub fn retired(snapshot: &Snapshot, kept: &[Used]) -> Result<Vec<Write>, RouteError> {
    let is_deleted = snapshot.canary.metadata.deletion_timestamp.is_some();
    let mut writes = Vec::new();
    for used in &used::recorded(snapshot.status()) {
        let is_kept = kept.iter().any(|kept| kept.route == used.route);
        if let Some(template) = used.template.as_ref().filter(|_| !is_kept) {
            writes.extend(template::retired(snapshot, used, template)?);
        }
    }
    writes.retain(|_| !is_deleted);
    Ok(writes)
}

/// The copies that the operator makes of routes of the user.
pub fn copies(canary: &Canary) -> BTreeSet<ObjectRef> {
    let named = used::named(canary).unwrap_or_default().into_iter();
    let copies = named.filter(|used| used.template.is_some());
    copies.map(|used| used.route).collect()
}

/// Whether an object is a copy of a user's route that leads no request, because the Canary that owns it does not name the route any more.
pub fn is_left(canary: &Canary, object: &ObjectRef, live: &Value) -> bool {
    copies(canary).contains(object) && !has_parents(live)
}

/// The reason why a Canary cannot be combined with routes of the user; `None` if it can.
pub fn unsupported(canary: &Canary) -> Option<String> {
    let analysis = canary.spec.analysis.as_ref();
    let needs_rules = "needs rules of its own, but with routeRefs the operator only sets weights";
    if canary.strategy() == Strategy::AbTesting {
        return Some(format!("spec.analysis.match {needs_rules}"));
    }
    let sessions = analysis.and_then(|analysis| analysis.session_affinity.as_ref());
    sessions.map(|_| format!("spec.analysis.sessionAffinity {needs_rules}"))
}

/// The first route that both Canaries name, with a rule in which both would set weights.
pub fn shared_with(snapshot: &Snapshot, other: &Canary) -> Option<ObjectRef> {
    let (own, theirs) = (used::named(&snapshot.canary), used::named(other));
    let (own, theirs) = (own.unwrap_or_default(), theirs.unwrap_or_default());
    let is_shared = |own: &Used, their: &Used| {
        let Some(route) = snapshot.objects.get(&own.route) else {
            return false;
        };
        let places = rules::places(route, other, their);
        let mut own = rules::places(route, &snapshot.canary, own).into_iter();
        own.any(|place| places.contains(&place))
    };
    let shared = own.into_iter().find(|own| {
        let mut same = theirs.iter().filter(|their| their.route == own.route);
        same.any(|their| is_shared(own, their))
    })?;
    Some(shared.route)
}

/// The routes that may lead requests to the canary: those that the spec names or, if it cannot be read, those of the record.
fn in_use(snapshot: &Snapshot) -> Vec<Used> {
    used::named(&snapshot.canary).unwrap_or_else(|_| used::recorded(snapshot.status()))
}

/// The rules of a route from which the canary's weight can be taken, and what is wrong with another rule that gives the canary a weight.
/// The rules at the places `kept` are not looked at.
fn withdrawable<'a>(
    snapshot: &'a Snapshot,
    used: &Used,
    kept: &[Place],
) -> (Vec<Rule<'a>>, Option<RouteError>) {
    let route = match with_weights(snapshot, used) {
        Ok(Some(route)) => route,
        Ok(None) => return (Vec::new(), None),
        Err(why) => return (Vec::new(), Some(why)),
    };
    let canary = &snapshot.canary;
    let (mut found, mut problem) = (Vec::new(), None);
    for rule in rules::chosen(route, canary, used) {
        match rule {
            Ok(rule) => found.push(rule),
            Err(why) => problem = problem.or(Some(why)),
        }
    }
    let of_found = found.iter().map(|rule: &Rule<'_>| rule.place);
    let known: Vec<_> = of_found.chain(kept.iter().copied()).collect();
    let problem = problem.filter(|_| rules::leads_beside(used, route, canary, &known));
    found.retain(|rule| !kept.contains(&rule.place));
    (found, problem.map(|why| of_route(&used.route, why)))
}

/// The writes that take the canary's weight from these routes, but not from rules that are among the routes `kept`. If some rules cannot
/// be changed, these are the writes of the others.
///
/// # Errors
/// A rule cannot be changed, and there is nothing else to write.
fn withdrawals(
    snapshot: &Snapshot,
    routes: &[Used],
    kept: &[Used],
) -> Result<Vec<Write>, RouteError> {
    let (mut writes, mut problem) = (Vec::new(), None);
    for used in routes {
        let route = match with_weights(snapshot, used) {
            Ok(Some(route)) => route,
            Ok(None) => continue,
            Err(why) => {
                problem = problem.or(Some(why));
                continue;
            }
        };
        // A rule that loses `affinity: accept` is given back first.
        let same = kept.iter().filter(|kept| {
            kept.route == used.route && kept.accepts_affinity == used.accepts_affinity
        });
        let places = same.flat_map(|kept| rules::places(route, &snapshot.canary, kept));
        let places: Vec<_> = places.collect();
        let (rules, why) = withdrawable(snapshot, used, &places);
        problem = problem.or(why);
        writes.extend(match used.template {
            None => patch(&used.route, route, &rules, &Weights::PRIMARY),
            Some(_) => template::withdrawn(&used.route, route, &rules),
        });
    }
    // The first write that fails ends a plan, so a refused one must not keep the others from being made.
    let refused = snapshot.refused.as_ref().map(|refused| &refused.object);
    writes.sort_by_key(|write| refused == Some(&write.object));
    match problem {
        Some(why) if writes.is_empty() => Err(why),
        _ => Ok(writes),
    }
}

fn first_refusal(
    snapshot: &Snapshot,
    is_refusal: impl Fn(&acceptance::Reported<'_>) -> bool,
) -> Option<RouteError> {
    let used = in_use(snapshot);
    let mut routes = used.iter().filter_map(|used| {
        let route = snapshot.objects.get(&used.route)?;
        acceptance::refusal(&used.route, route, &is_refusal)
    });
    routes.next()
}

#[cfg(test)]
mod tests;
