//! The condition `WriteRefused`: the API server refuses a write during a release or an initialization. (Flagger only sends events, which
//! the API server deletes after an hour.)

use super::{StatusChange, transitions::needs_writes};
use crate::{
    api::status::ConditionType,
    rollout::plan::Decision,
    snapshot::{Snapshot, redacted},
};

/// Records the refusal in the status, and removes it when the object was written. `None` if there is nothing to change, or if only repairs
/// are written now.
pub fn report(snapshot: &Snapshot) -> Option<Decision> {
    let Some(refused) = &snapshot.refused else {
        let is_known = snapshot.status().has_condition(ConditionType::WriteRefused);
        let without = || StatusChange::within_step(snapshot).build();
        return is_known.then(|| Decision::commit(without(), Vec::new()));
    };
    let kind = refused.object.kind.name();
    let beginning = format!(
        "The API server refuses the write of {kind} {}: ",
        refused.object.name
    );
    let known = snapshot.status().condition(ConditionType::WriteRefused);
    let known = known.and_then(|known| known.message.as_deref());
    // The API server may word its reason differently each time, so only the beginning is compared.
    let is_known = known.is_some_and(|known| known.starts_with(&beginning));
    if is_known || !needs_writes(snapshot.status()) {
        return None;
    }
    let why = redacted(&refused.why);
    let message = format!("{beginning}{}.", why.trim_end().trim_end_matches('.'));
    let change = StatusChange::within_step(snapshot);
    let change = change.set(ConditionType::WriteRefused, kind, &message);
    Some(Decision::commit(change.build(), Vec::new()))
}
