//! The writes of the primary's copies of configs.

use serde_json::{Map, Value};

use crate::{
    api::canary::CanaryPhase,
    rollout::release::Release,
    snapshot::{Action, Kind, Write},
    workload::{
        config::copies::{Copies, Copy},
        metadata::{included, owner_reference},
    },
};

impl Release<'_> {
    /// The writes that give the primary the content of its configs: of copies that are missing or outdated, or that lack the Canary as an
    /// owner. The content that a copy has now is kept first.
    pub fn config_copies(&self) -> Vec<Write> {
        let owner = owner_reference(&self.snapshot.canary);
        let all = Copies::of(self.snapshot);
        let writes = |(kind, source, copy): (Kind, &Value, Copy<'_>)| {
            let kept = (!copy.is_current(source)).then(|| all.keep(kind, &copy));
            let wanted = copy.write(kind, source, self.labels(source), &owner);
            let wanted = wanted.map(|wanted| self.copy_write(kind, &copy, wanted));
            kept.flatten().into_iter().chain(wanted)
        };
        self.copies().flat_map(writes).collect()
    }

    /// Whether each config of the target has a copy with its content.
    pub fn has_current_copies(&self) -> bool {
        self.copies()
            .all(|(_, source, copy)| copy.is_current(source))
    }

    /// The writes that keep the copies which the primary uses now. The Canary becomes an owner, so that the copy stays when another Canary
    /// that uses it is deleted. A missing copy is created again from its source, if the source still has the content that was promoted.
    pub fn config_repairs(&self) -> Vec<Write> {
        let status = self.snapshot.status();
        let is_idle = matches!(
            status.phase,
            CanaryPhase::Initialized | CanaryPhase::Succeeded
        );
        // A closure, because only a missing copy needs the result.
        let is_promoted = || {
            is_idle && self.same_configs(status.tracked_configs.as_ref())
                || self.primary_has_these_configs()
        };
        let owner = owner_reference(&self.snapshot.canary);
        let copies = Copies::of(self.snapshot);
        self.copies()
            .filter_map(|(kind, source, wanted)| {
                let used = copies.used(kind, source)?;
                let repaired = if used.existing.is_some() {
                    used.owned(&owner)
                } else if used.name == wanted.name && is_promoted() {
                    used.write(kind, source, self.labels(source), &owner)
                } else {
                    None
                };
                Some(self.copy_write(kind, &used, repaired?))
            })
            .collect()
    }

    /// The configs of the target that are copied: their kind, the config and its copy.
    fn copies(&self) -> impl Iterator<Item = (Kind, &Value, Copy<'_>)> {
        let copies = Copies::of(self.snapshot);
        self.tracked.keys().filter_map(move |(kind, name)| {
            let source = self.snapshot.object(*kind, name)?;
            Some((*kind, source, copies.choose(*kind, source)))
        })
    }

    /// The labels that a copy of this config gets.
    fn labels(&self, source: &Value) -> Map<String, Value> {
        let labels = source.pointer("/metadata/labels");
        let labels = labels.and_then(Value::as_object).cloned();
        let prefixes = &self.snapshot.settings.include_label_prefix;
        included(&labels.unwrap_or_default(), prefixes)
    }

    fn copy_write(&self, kind: Kind, copy: &Copy<'_>, wanted: Value) -> Write {
        let (action, verb) = if copy.existing.is_some() {
            (Action::Replace(wanted), "updating")
        } else {
            (Action::Create(wanted), "creating")
        };
        let name = &copy.name;
        let failure = format!(
            "{verb} {} {name}.{} failed: ",
            kind.name().to_lowercase(),
            self.snapshot.namespace()
        );
        Write {
            object: self.snapshot.reference(kind, name),
            action,
            failure,
        }
    }
}
