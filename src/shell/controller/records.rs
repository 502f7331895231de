//! Writes the records of runs ([`crate::records`]). A record that cannot be written delays a step of a release by two requests at most, and
//! the end by four.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use tokio::time::timeout;
use tracing::warn;

use super::{context::full_name, reconcile::Reconciliation, recording::Recording};
use crate::{
    api::{
        canary::CanaryStatus,
        release::{CANARY_UID, Release, ReleaseResult},
        status::ConditionType,
    },
    records::{self, Committed, OfRun, Record},
    rollout::Measurements,
    shell::{api_server::ClusterError, lock::lock},
    snapshot::{Action, Kind, ObjectRef, Snapshot, TargetKind, Write},
};

/// The longest time that a change of the status waits for the record.
const DEADLINE: Duration = Duration::from_secs(10);
/// The maximum number of records that are deleted at the start of a run.
const DELETIONS: usize = 10;

impl Reconciliation<'_> {
    /// Adds a change of the status to the record of the run.
    pub(super) async fn record(&self, committed: Committed<'_>) {
        if self.operator().records.history() == 0 || !committed.concerns_a_run() {
            return;
        }
        let entry = self.recording();
        let known = std::mem::take(&mut *lock(&entry));
        let was_unbegun = matches!(known, Recording::Unbegun);
        // The next change of the status tries again.
        let later = if committed.starts() || was_unbegun {
            Recording::Unbegun
        } else {
            Recording::Unknown
        };
        let recording = match timeout(DEADLINE, self.recorded(known, committed)).await {
            Ok(Ok(recording)) => recording,
            // A release waits once for a slow API server, and not again at each change of its status.
            Err(_) if was_unbegun => Recording::Nothing,
            Err(_) => later,
            Ok(Err(error)) if is_temporary(&error) => later,
            Ok(Err(error)) => {
                self.report_unrecorded(&error);
                Recording::Nothing
            }
        };
        *lock(&entry) = recording;
    }

    /// Adds the measurements of a wait, during a pause or at a gate, to the record of the run. Most are written with the next change of the
    /// status.
    pub(super) async fn record_wait(&self, snapshot: &Snapshot, measurements: &Measurements) {
        if !measurements.values.is_empty() {
            self.record(Committed {
                snapshot,
                status: snapshot.status(),
                measurements,
            })
            .await;
        }
    }

    /// Writes the end of a run into its record, after its notifications were sent and before the commit removes the pending condition.
    /// Notifications do not wait for the record, and a crash does not lose the end. A failed request is tried once more: after the commit, no
    /// later change of the status writes the end.
    pub(super) async fn complete_record(&self, snapshot: &Snapshot, status: &CanaryStatus) {
        let pending = ConditionType::NotificationPending;
        let is_sent = snapshot.status().has_condition(pending) && !status.has_condition(pending);
        if is_sent {
            let measurements = &Measurements::default();
            let committed = Committed {
                snapshot,
                status,
                measurements,
            };
            self.record(committed).await;
            if !lock(&self.recording()).is_saved() {
                self.record(committed).await;
            }
        }
    }

    /// The knowledge of this process about the record.
    fn recording(&self) -> Arc<Mutex<Recording>> {
        self.context
            .with_entry(self.canary, |entry| entry.recording.clone())
    }

    /// The record after a change of the status.
    async fn recorded(
        &self,
        known: Recording,
        committed: Committed<'_>,
    ) -> Result<Recording, ClusterError> {
        let snapshot = committed.snapshot;
        // The commit that replaced the run of this record may have been carried out, although its answer was lost.
        let is_of_another_run = matches!(&known, Recording::Running { record, .. } if committed.is_of_another_run(&record.spec.revision));
        if committed.starts() || is_of_another_run {
            let releases = self.releases(snapshot).await?;
            return self.begin(known, committed, &releases).await;
        }
        let (mut record, was_saved) = match known {
            Recording::Nothing => return Ok(Recording::Nothing),
            Recording::Ended if committed.ends() => return Ok(Recording::Ended),
            Recording::Running { record, is_saved } => (record, is_saved),
            // The commit that started the run, or the request that created its record, may have been carried out, although its answer was
            // lost.
            Recording::Ended | Recording::Unbegun | Recording::Unknown => {
                let releases = self.releases(snapshot).await?;
                match records::of_run(&releases, committed) {
                    OfRun::Running(release) => (Box::new(Record::resume(release)), true),
                    OfRun::Complete => return Ok(Recording::Ended),
                    OfRun::Missing => return self.begin(known, committed, &releases).await,
                }
            }
        };
        // The notifications about the end of a run are sent before the end is recorded.
        let has_ended = record.spec.ended_at.is_some();
        let is_worth_it = !has_ended && record.note(committed);
        let is_sent = !committed.has_unsent_notifications();
        let is_saved = if (is_worth_it || !was_saved) && is_sent {
            self.save(&record).await?
        } else {
            was_saved && is_sent
        };
        if is_saved && committed.ends() {
            return Ok(Recording::Ended);
        }
        Ok(Recording::Running { record, is_saved })
    }

    /// Begins the record of a run. Ends the one of the run before, and deletes records that are outdated.
    /// `releases` are those of the canary.
    async fn begin(
        &self,
        known: Recording,
        committed: Committed<'_>,
        releases: &[Release],
    ) -> Result<Recording, ClusterError> {
        let snapshot = committed.snapshot;
        // An earlier process began the run, and ended before it wrote the record.
        let is_late = matches!(known, Recording::Unknown) && !committed.starts();
        let earlier = match known {
            Recording::Running { record, .. } => Some(*record),
            Recording::Unknown | Recording::Unbegun | Recording::Ended | Recording::Nothing => None,
        };
        if !self.end_earlier(snapshot, earlier, releases).await {
            return Ok(Recording::Unbegun);
        }
        let outdated = records::outdated(releases, self.operator().records.history());
        for name in outdated.iter().take(DELETIONS) {
            let release = self.release(name);
            let deleting = self.operator().cluster.delete_release(&release);
            if let Err(error) = deleting.await {
                warn!("record {name} of a release is not deleted: {error}");
            }
        }
        let mut record = Box::new(Record::begin(committed));
        record.spec.gaps = i64::from(is_late);
        if let Some(author) = committed.retried_by() {
            record.spec.trigger = Some(author);
        } else if let Some(kind) =
            TargetKind::of(&snapshot.canary).filter(|_| !record.changes_configs_only())
        {
            let name = &snapshot.canary.spec.target_ref.name;
            let target = snapshot.reference(kind.kind(), name);
            let trigger = self.operator().cluster.last_other_manager(&target).await;
            record.spec.trigger = trigger.unwrap_or_default();
        }
        self.create(snapshot, &record).await?;
        Ok(if committed.ends() {
            Recording::Ended
        } else {
            let is_saved = true;
            Recording::Running { record, is_saved }
        })
    }

    /// Ends the records of earlier runs that have no end. Returns `false` if that has to be tried again.
    async fn end_earlier(
        &self,
        snapshot: &Snapshot,
        earlier: Option<Record>,
        releases: &[Release],
    ) -> bool {
        let mut is_done = true;
        let unended = |release: &&Release| release.spec.result == ReleaseResult::Running;
        for release in releases.iter().filter(unended) {
            let name = release.metadata.name.clone().unwrap_or_default();
            let known = earlier.clone().filter(|earlier| earlier.name == name);
            let is_known = known.is_some();
            let mut record = known.unwrap_or_else(|| Record::resume(release));
            // This process may have added the end to its copy of the record, but failed to write it. Then only write it.
            if record.spec.ended_at.is_none() && is_known {
                record.supersede(snapshot.now);
            } else if record.spec.ended_at.is_none() {
                let promoted = snapshot.status().last_promoted_spec.as_deref();
                record.lose(snapshot.now, promoted);
            }
            match self.save(&record).await {
                Ok(is_saved) => is_done &= is_saved,
                Err(error) => warn!("record {name} of a release has no end: {error}"),
            }
        }
        is_done
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
        self.operator().cluster.apply(&write).await.map(|_| ())
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
        let canary = full_name(self.canary);
        if !matches!(error.code(), Some(403 | 404)) {
            warn!(canary, "the record of a release is not written: {error}");
        } else if self.operator().records.is_first_report() {
            warn!(
                canary,
                "records of releases are not written: {error}. Install the CRD Release (`flagger crds` prints it) and grant list, create, patch and delete of releases.flagger-rs.github.io, or start the operator with -release-history=0"
            );
        }
    }
}

/// Whether the same request may succeed later. An expired token is renewed, and a conflict or a lost answer may hide that the request was
/// carried out.
const fn is_temporary(error: &ClusterError) -> bool {
    match error {
        ClusterError::Refused { code, .. } => matches!(*code, 401 | 408 | 409 | 429 | 500..),
        ClusterError::Unreachable(_)
        | ClusterError::NotLeader
        | ClusterError::Lost(_)
        | ClusterError::Unreadable(_) => true,
    }
}
