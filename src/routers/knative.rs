//! Knative: the routes of the target itself, a Knative Service (Flagger: `pkg/router/knative.go`). They lead to Revisions of it: to the
//! latest one, which is the canary, and to the one that was promoted.
//!
//! The entry of the latest Revision has `latestRevision: true`, as with Flagger, and no name: Knative leads its share to the latest Revision
//! that is ready. Between runs its share is 0, so that a new Revision gets no request before its analysis. A Revision that comes in the middle
//! of a run takes the share over as soon as it is ready, until the operator begins the analysis anew.
//!
//! The entries of `spec.traffic` with a share are ours. Tags, which give a Revision an address of its own, stay.
//! `spec.service` is not used.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    RouteError, Router,
    conditions::refuse_test,
    route::{items, not_found, percent, reference},
};
use crate::{
    api::{canary::Canary, percent::Percent},
    snapshot::{
        Kind, ObjectRef, Snapshot, Weights, Write,
        knative::{PRIMARY, is_tag, latest, lead, primary, put},
    },
    workload::knative::replace,
};

const KIND: Kind = Kind::KnativeService;

/// The router of Knative.
#[derive(Clone, Copy, Debug)]
pub struct Knative;

impl Router for Knative {
    fn objects(&self, canary: &Canary) -> BTreeSet<ObjectRef> {
        [reference(canary, KIND, &canary.spec.target_ref.name)].into()
    }

    /// The Revisions, whose status shows whether they are ready.
    fn sources(&self, snapshot: &Snapshot) -> BTreeSet<ObjectRef> {
        let Ok(live) = live(snapshot) else {
            return BTreeSet::new();
        };
        let revisions = [latest(live), primary(live)].into_iter().flatten();
        let reference = |name| snapshot.reference(Kind::KnativeRevision, name);
        revisions.map(reference).collect()
    }

    /// The target belongs to the user, so the operator does not adopt it.
    fn reconcile(
        &self,
        snapshot: &Snapshot,
        selector: &(String, String),
        weights: &Weights,
    ) -> Result<Vec<Write>, RouteError> {
        self.repairs(snapshot, selector, weights)
    }

    /// Before the first promotion there is no Revision to lead to. (Flagger names one here, too.)
    fn repairs(
        &self,
        snapshot: &Snapshot,
        _selector: &(String, String),
        weights: &Weights,
    ) -> Result<Vec<Write>, RouteError> {
        refuse_test(&snapshot.canary, "Knative")?;
        let live = live(snapshot)?;
        let Some(primary) = primary(live) else {
            return Ok(Vec::new());
        };
        let is_current = routed(live, primary).is_some_and(|now| routes(live, primary, &now));
        if is_current {
            return Ok(Vec::new());
        }
        Ok(vec![write(live, primary, weights)])
    }

    fn current_weights(&self, snapshot: &Snapshot) -> Result<Weights, RouteError> {
        let (live, primary) = promoted(snapshot)?;
        let invalid =
            || RouteError::NoWeights(format!("{} traffic spec invalid", full_name(snapshot)));
        routed(live, primary).ok_or_else(invalid)
    }

    fn set_weights(
        &self,
        snapshot: &Snapshot,
        weights: &Weights,
    ) -> Result<Vec<Write>, RouteError> {
        let (live, primary) = promoted(snapshot)?;
        if routes(live, primary, weights) {
            return Ok(Vec::new());
        }
        Ok(vec![write(live, primary, weights)])
    }

    /// All requests go to the latest Revision, as without a Canary. (Flagger leaves them at the one that was promoted, also when a new
    /// version comes.)
    fn reverted(&self, snapshot: &Snapshot) -> Option<Write> {
        let live = live(snapshot).ok()?;
        let mut wanted = live.clone();
        let annotations = wanted.pointer_mut("/metadata/annotations");
        annotations?.as_object_mut()?.remove(PRIMARY)?;
        put(
            &mut wanted,
            vec![json!({"latestRevision": true, "percent": 100})],
        );
        Some(replace(wanted))
    }

    /// A step waits until Knative has processed the routes.
    fn accepted(&self, snapshot: &Snapshot) -> Result<(), RouteError> {
        self.lag(snapshot).map_or(Ok(()), Err)
    }

    /// Knative reports the generation of the Service that it has processed, and the shares that its gateway has.
    fn lag(&self, snapshot: &Snapshot) -> Option<RouteError> {
        let (live, primary) = promoted(snapshot).ok()?;
        let number = |pointer: &str| live.pointer(pointer).and_then(Value::as_i64);
        let is_observed = number("/status/observedGeneration") == number("/metadata/generation");
        let wanted = routed(live, primary)?;
        let routed = share(live, "/status/traffic", to_canary);
        let is_routed = Percent::from(routed.unwrap_or(0)) == wanted.canary;
        (!is_observed || !is_routed).then(|| {
            let name = full_name(snapshot);
            RouteError::NotAccepted(format!("{name} is not processed yet by Knative"))
        })
    }
}

fn live(snapshot: &Snapshot) -> Result<&Value, RouteError> {
    let name = &snapshot.canary.spec.target_ref.name;
    let missing = || not_found(full_name(snapshot), "get query error:", KIND, name);
    snapshot.object(KIND, name).ok_or_else(missing)
}

/// The Service, and the Revision that was promoted.
fn promoted(snapshot: &Snapshot) -> Result<(&Value, &str), RouteError> {
    let live = live(snapshot)?;
    let missing = || RouteError::NoWeights(format!("{} annotation not found", full_name(snapshot)));
    Ok((live, primary(live).ok_or_else(missing)?))
}

fn full_name(snapshot: &Snapshot) -> String {
    format!("Knative Service {}", snapshot.full_target())
}

/// The write that gives both Revisions these shares.
fn write(live: &Value, primary: &str, weights: &Weights) -> Write {
    let mut wanted = live.clone();
    lead(&mut wanted, primary, weights);
    replace(wanted)
}

fn to_canary(entry: &Value) -> bool {
    entry["latestRevision"] == true
}

/// The share of the first entry that `leads`; `None` if there is none.
fn share(service: &Value, list: &str, leads: impl Fn(&Value) -> bool) -> Option<u8> {
    let mut entries = items(service, list).filter(|entry| !is_tag(entry));
    let entry = entries.find(|entry| leads(entry))?;
    Some(percent(entry.get("percent")))
}

/// The shares of the latest Revision and of the primary; `None` if one of them has none, or if others have one, too.
fn routed(service: &Value, primary: &str) -> Option<Weights> {
    let to_primary = |entry: &Value| !to_canary(entry) && entry["revisionName"] == primary;
    let primary = share(service, "/spec/traffic", to_primary)?;
    let canary = share(service, "/spec/traffic", to_canary)?;
    // Knative accepts only shares with the sum 100.
    (primary.checked_add(canary) == Some(100)).then(|| Weights::canary(canary))
}

/// Whether exactly these shares are routed.
fn routes(service: &Value, primary: &str, weights: &Weights) -> bool {
    let shares = items(service, "/spec/traffic").filter(|entry| !is_tag(entry));
    routed(service, primary) == Some(*weights) && shares.count() == 2
}

#[cfg(test)]
mod tests;
