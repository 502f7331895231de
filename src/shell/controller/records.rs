//! Writes the records of runs ([`crate::records`]). A record that cannot be written delays no release.

use serde_json::Value;
use tracing::warn;

use super::{reconcile::Reconciliation, recording::Recording};
use crate::{
    api::release::{CANARY_UID, Release, ReleaseResult},
    records::{self, Committed, Record},
    rollout::is_in_run,
    shell::{api_server::ClusterError, lock::lock},
    snapshot::{Action, Kind, ObjectRef, Snapshot, TargetKind, Write},
};

impl Reconciliation<'_> {
    /// Adds a change of the status to the record of the run.
    pub(super) async fn record(&self, committed: Committed<'_>) {
        if self.operator().records.history() == 0 || !committed.concerns_a_run() {
            return;
        }
        let entry = self
            .context
            .with_entry(self.canary, |entry| entry.recording.clone());
        let known = std::mem::take(&mut *lock(&entry));
        let recording = match self.recorded(known, committed).await {
            Ok(recording) => recording,
            // Nothing is lost yet: the next change of the status begins with a look.
            Err(error) if is_temporary(&error) => Recording::Unknown,
            Err(error) => {
                self.report_unrecorded(&error);
                Recording::Nothing
            }
        };
        *lock(&entry) = recording;
    }

    /// The record after a change of the status.
    async fn recorded(
        &self,
        known: Recording,
        committed: Committed<'_>,
    ) -> Result<Recording, ClusterError> {
        let snapshot = committed.snapshot;
        if committed.starts() {
            return self.begin(known, committed).await;
        }
        let (mut record, was_saved) = match known {
            Recording::Nothing => return Ok(Recording::Nothing),
            Recording::Running { record, is_saved } => (record, is_saved),
            Recording::Unknown => match self.resumed(committed).await? {
                Some(record) => (Box::new(record), true),
                None if is_in_run(committed.status.phase) => {
                    let mut record = Record::begin(committed);
                    record.spec.gaps = 1;
                    self.create(snapshot, &record).await?;
                    (Box::new(record), true)
                }
                None => return Ok(Recording::Nothing),
            },
        };
        // The notifications of an end are sent after the end is recorded.
        let has_ended = record.spec.ended_at.is_some();
        let is_worth_it = !has_ended && record.note(committed);
        let is_saved = if is_worth_it || !was_saved {
            self.save(&record).await?
        } else {
            true
        };
        if is_saved && committed.ends() {
            return Ok(Recording::Nothing);
        }
        Ok(Recording::Running { record, is_saved })
    }

    /// Begins the record of a run. Ends the one of the run before, and deletes records that are outdated.
    async fn begin(
        &self,
        known: Recording,
        committed: Committed<'_>,
    ) -> Result<Recording, ClusterError> {
        let snapshot = committed.snapshot;
        let earlier = match known {
            Recording::Running { record, .. } => Some(*record),
            Recording::Unknown | Recording::Nothing => None,
        };
        let releases = self.releases(snapshot).await?;
        let unended = |release: &&Release| release.spec.result == ReleaseResult::Running;
        for release in releases.iter().filter(unended) {
            let name = release.metadata.name.clone().unwrap_or_default();
            let known = earlier.clone().filter(|earlier| earlier.name == name);
            let spec = serde_json::to_value(&release.spec).unwrap_or_default();
            let record = known.or_else(|| Record::resume(&name, &spec));
            if let Some(mut record) = record {
                // The end of the run before may have been seen, and not written.
                if record.spec.ended_at.is_none() {
                    record.supersede(snapshot.now);
                }
                self.save(&record).await?;
            }
        }
        for name in records::outdated(&releases, self.operator().records.history()) {
            self.operator()
                .cluster
                .delete_release(&self.release(&name))
                .await?;
        }
        let mut record = Box::new(Record::begin(committed));
        if let Some(kind) = TargetKind::of(&snapshot.canary) {
            let name = &snapshot.canary.spec.target_ref.name;
            let target = snapshot.reference(kind.kind(), name);
            record.spec.trigger = self.operator().cluster.last_other_manager(&target).await?;
        }
        self.create(snapshot, &record).await?;
        let is_saved = true;
        Ok(Recording::Running { record, is_saved })
    }

    /// The record that an earlier process began for the run that this change is about.
    async fn resumed(&self, committed: Committed<'_>) -> Result<Option<Record>, ClusterError> {
        let revision = committed.status.last_applied_spec.as_ref();
        let releases = self.releases(committed.snapshot).await?;
        let of_run = releases.iter().find(|release| {
            release.spec.result == ReleaseResult::Running
                && Some(&release.spec.revision) == revision
        });
        Ok(of_run.and_then(|release| {
            let spec = serde_json::to_value(&release.spec).ok()?;
            Record::resume(release.metadata.name.as_deref()?, &spec)
        }))
    }

    /// The records of the canary. Those that cannot be read are left out.
    async fn releases(&self, snapshot: &Snapshot) -> Result<Vec<Release>, ClusterError> {
        let uid = snapshot.canary.metadata.uid.as_deref().unwrap_or_default();
        let selector = format!("{CANARY_UID}={uid}");
        let namespace = Some(self.canary.namespace.as_str());
        let listing = self
            .operator()
            .cluster
            .list(Kind::Release, namespace, Some(&selector));
        Ok(listing.await?.iter().filter_map(records::read).collect())
    }

    async fn create(&self, snapshot: &Snapshot, record: &Record) -> Result<(), ClusterError> {
        let write = Write {
            object: self.release(&record.name),
            action: Action::Create(record.object(&snapshot.canary)),
            failure: String::new(),
        };
        match self.operator().cluster.apply(&write).await {
            // The request before this one was carried out, but its answer was lost.
            Ok(_) | Err(ClusterError::Lost(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Brings the object up to date. Returns `false` if that has to be tried again.
    async fn save(&self, record: &Record) -> Result<bool, ClusterError> {
        let patch: Value = record.patch();
        let object = self.release(&record.name);
        match self.operator().cluster.patch_release(&object, patch).await {
            Ok(()) => Ok(true),
            Err(error) if is_temporary(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn release(&self, name: &str) -> ObjectRef {
        ObjectRef {
            kind: Kind::Release,
            namespace: self.canary.namespace.clone(),
            name: name.to_owned(),
        }
    }

    fn report_unrecorded(&self, error: &ClusterError) {
        if self.operator().records.is_first_report() {
            warn!(
                "records of releases are not written: {error}. Install the CRD Release (`flagger crds` prints it) and grant list, create, patch and delete of releases.flagger-rs.github.io, or start the operator with -release-history=0"
            );
        }
    }
}

/// Whether the same request may succeed later.
const fn is_temporary(error: &ClusterError) -> bool {
    match error {
        ClusterError::Refused { code, .. } => *code >= 500 || *code == 429,
        ClusterError::Unreachable(_) | ClusterError::NotLeader => true,
        ClusterError::Lost(_) | ClusterError::Unreadable(_) => false,
    }
}
