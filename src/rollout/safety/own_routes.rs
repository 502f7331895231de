//! The operator records the routes of the user before it sets weights in them, and gives back each route or rule that the Canary does not
//! name any more: all its weight is for the promoted version then.

use crate::{
    api::{canary::CanaryStatus, status::ConditionType},
    rollout::{
        blocked::Blocked,
        messages,
        plan::{Decision, Requeue},
        release::Release,
        status::{
            StatusChange, outcome,
            transitions::{is_between_runs, is_under_analysis},
        },
    },
    routers::own_routes::{self, Used},
    snapshot::{Snapshot, Write},
};

/// The reason of the record.
const WEIGHTS_SET: &str = "WeightsSet";
/// The reason of a record with a copy that leads requests, although the Canary does not name it any more.
const COPY_LEADS: &str = "CopyLeads";

/// Whether the status records routes to give back.
pub fn are_recorded(status: &CanaryStatus) -> bool {
    status.has_condition(ConditionType::RouteRefs)
}

/// Gives back what the Canary does not name any more, then records what it names. `None` if the record is current, if the list of the
/// Canary cannot be read, or if a version has to wait for that ([`not_given_back`]).
pub fn follow_spec(release: &Release<'_>) -> Option<Decision> {
    let snapshot = release.snapshot;
    let named = own_routes::named(&snapshot.canary).ok()?;
    let recorded = own_routes::recorded(snapshot.status());
    if recorded == named && are_recorded(snapshot.status()) != named.is_empty() {
        return None;
    }
    match give_back(snapshot, &named) {
        // The version is checked meanwhile, or fails.
        Some(Decision::Wait(..)) if is_under_analysis(snapshot.phase()) || fails(release) => {
            return record_all(snapshot, &named, None);
        }
        Some(decision) => return Some(decision),
        None => {}
    }
    match own_routes::retired(snapshot, &named) {
        Ok(writes) if writes.is_empty() => {}
        Ok(mut writes) => {
            writes.retain(|write| !snapshot.leaves_out(write));
            return if writes.is_empty() {
                record_all(snapshot, &named, None)
            } else {
                Some(Decision::write(writes))
            };
        }
        // The copy leads the requests to the primary, so the Canary goes on.
        Err(why) => return record_all(snapshot, &named, Some(&why.to_string())),
    }
    let change = StatusChange::within_step(snapshot);
    let change = if named.is_empty() {
        change.clear(ConditionType::RouteRefs)
    } else {
        let record = own_routes::record(&named);
        change.set(ConditionType::RouteRefs, WEIGHTS_SET, &record)
    };
    Some(Decision::commit(change.build(), Vec::new()))
}

/// Whether a new version fails because a route could not be given back until the progress deadline, or has failed and is not notified yet.
/// It gets no pods: the run ends before it scales the target up.
fn fails(release: &Release<'_>) -> bool {
    let snapshot = release.snapshot;
    let is_new = is_between_runs(snapshot.phase()) && release.changed();
    outcome::is_pending(snapshot) || (is_new && release.routes_overdue().is_some())
}

/// Adds the routes that the Canary names to the record, and keeps those that cannot be given back yet. `why` a copy is kept is reported
/// once. `None` if that is recorded.
fn record_all(snapshot: &Snapshot, named: &[Used], why: Option<&str>) -> Option<Decision> {
    let mut all = own_routes::recorded(snapshot.status());
    all.extend(named.iter().cloned());
    all.sort();
    all.dedup();
    let record = own_routes::record(&all);
    let reason = why.map_or(WEIGHTS_SET, |_| COPY_LEADS);
    let status = snapshot.status();
    let known = status.condition(ConditionType::RouteRefs)?;
    if known.reason == reason && known.message.as_deref() == Some(&record) {
        return None;
    }
    let change = StatusChange::within_step(snapshot);
    let change = change.set(ConditionType::RouteRefs, reason, &record);
    let event = why.map(|why| messages::warning(snapshot, why.to_owned()));
    Some(Decision::commit(
        change.build(),
        event.into_iter().collect(),
    ))
}

/// Whether no route that the Canary does not name any more leads requests to the canary.
pub fn is_given_back(snapshot: &Snapshot) -> bool {
    // If the list cannot be read, the router has the recorded routes.
    let Ok(named) = own_routes::named(&snapshot.canary) else {
        return true;
    };
    own_routes::given_back(snapshot, &named).is_ok_and(|writes| writes.is_empty())
}

/// The reason why a route that the Canary does not name any more cannot be given back; `None` if none is to be given back.
pub fn not_given_back(snapshot: &Snapshot) -> Option<String> {
    if !are_recorded(snapshot.status()) {
        return None;
    }
    let named = own_routes::named(&snapshot.canary).ok()?;
    match give_back(snapshot, &named)? {
        Decision::Wait(_, events) => events.iter().find_map(messages::warned).map(str::to_owned),
        Decision::Ask(..) | Decision::Do(_) => None,
    }
}

/// Gives all recorded routes back, for a Canary that is deleted; `None` if they are given back.
pub fn release(snapshot: &Snapshot) -> Option<Decision> {
    give_back(snapshot, &[])
}

/// The writes that give all recorded routes back.
///
/// # Errors
/// A rule leads requests to the canary, and the operator cannot tell which weights to set; or a route of the user does not lead the requests
/// of its copy yet.
pub fn restored(snapshot: &Snapshot) -> Result<Vec<Write>, Blocked> {
    let writes = own_routes::given_back(snapshot, &[])?;
    if writes.is_empty() {
        own_routes::retired(snapshot, &[])?;
    }
    Ok(writes)
}

/// Gives back the recorded routes and rules that are not among `kept`; `None` if there is nothing to give back. While the API server
/// refuses that, or another actor undoes it, the Canary waits: requests may reach a canary that is scaled down next.
fn give_back(snapshot: &Snapshot, kept: &[Used]) -> Option<Decision> {
    let mut writes = match own_routes::given_back(snapshot, kept) {
        Ok(writes) if writes.is_empty() => return None,
        Ok(writes) => writes,
        Err(why) => return Some(Blocked::from(why).report(snapshot)),
    };
    if !snapshot.primary_has_ready_pods() && snapshot.canary_has_ready_pods() {
        let primary = Blocked::NoReadyPod {
            workload: snapshot.canary.primary_workload_name(),
            namespace: snapshot.namespace().to_owned(),
        };
        return Some(primary.report(snapshot));
    }
    let first = writes[0].object.clone();
    // The route may have been written in this step. It does not wait for the next one.
    writes.retain(|write| !snapshot.is_paused(write));
    if writes.is_empty() {
        let event = messages::run::not_given_back(snapshot, &first);
        return Some(Decision::Wait(Requeue::AtTick, vec![event]));
    }
    Some(Decision::write(writes))
}
