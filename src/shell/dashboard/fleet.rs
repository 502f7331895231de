//! All canaries, kept up to date by one watch for the whole process.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt;
use jiff::Timestamp;
use serde_json::Value;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, interval, sleep},
};

use crate::{
    api::release::{RESULT, Release},
    dashboard::{Named, Recorded, Row},
    records,
    shell::{
        api_server::person::{Change, Person},
        client::remark,
        clock,
        lock::lock,
    },
    snapshot::Kind,
};

/// A watch that fails again and again does so at least this often. One that works again reports nothing until a canary changes.
const RECOVERED: Duration = Duration::from_secs(45);
/// The least time between two versions of the list.
const PAUSE: Duration = Duration::from_secs(1);
/// How often to search for runs whose operator gives no sign.
const SEARCH: Duration = Duration::from_secs(5);

/// The namespace and the name of a canary.
pub(super) type Key = (String, String);

/// All canaries. Clones are the same.
#[derive(Clone)]
pub struct Fleet(Arc<Inner>);

struct Inner {
    rows: Mutex<BTreeMap<Key, Arc<Row>>>,
    /// The newest record of each canary that is in a run, or whose last version has failed.
    records: Mutex<BTreeMap<Key, Arc<Recorded>>>,
    /// Wakes the task that publishes a version.
    changed: Notify,
    /// Counts the versions of the list; 0 until all canaries have been listed.
    version: watch::Sender<u64>,
    /// When the watch last failed, unless it has seen a change since.
    failed: Mutex<Option<Instant>>,
}

impl Default for Fleet {
    fn default() -> Self {
        Self(Arc::new(Inner {
            rows: Mutex::default(),
            records: Mutex::default(),
            changed: Notify::new(),
            version: watch::Sender::new(0),
            failed: Mutex::default(),
        }))
    }
}

impl Fleet {
    /// Follows all canaries of a namespace, or of all, and publishes their changes. Does not end.
    pub async fn follow(&self, person: Person, namespace: Option<&str>) {
        tokio::join!(
            self.watch(&person, namespace),
            self.watch_records(&person, namespace),
            self.publish()
        );
    }

    async fn watch(&self, person: &Person, namespace: Option<&str>) {
        let mut changes = pin!(person.watch_all(Kind::Canary, namespace, None));
        let mut listed: Option<BTreeMap<Key, Arc<Row>>> = None;
        while let Some(change) = changes.next().await {
            *lock(&self.0.failed) = change.is_err().then(Instant::now);
            match change {
                Ok(Change::Began) => listed = Some(BTreeMap::new()),
                Ok(Change::Is(canary)) => {
                    let (key, row) = row(canary);
                    match &mut listed {
                        Some(listed) => drop(listed.insert(key, row)),
                        None => self.change(|rows| {
                            rows.insert(key.clone(), row);
                            self.add_record(rows, &key);
                        }),
                    }
                }
                Ok(Change::Gone(canary)) => {
                    let (key, _) = row(canary);
                    self.change(|rows| drop(rows.remove(&key)));
                }
                // A canary that was deleted while the watch was interrupted is not in the list.
                Ok(Change::Complete) => {
                    if let Some(listed) = listed.take() {
                        self.change(|rows| {
                            *rows = listed;
                            let keys: Vec<_> = rows.keys().cloned().collect();
                            for key in &keys {
                                self.add_record(rows, key);
                            }
                        });
                    }
                }
                Err(error) => remark(&format!("the canaries cannot be watched now: {error}")),
            }
        }
    }

    /// Follows the records of runs that are in progress or have failed. Without the rights, or without the kind, the list has no versions.
    async fn watch_records(&self, person: &Person, namespace: Option<&str>) {
        let selector = format!("{RESULT} in (Running,Failed,Aborted)");
        let mut changes = pin!(person.watch_all(Kind::Release, namespace, Some(&selector)));
        let mut is_reported = false;
        while let Some(change) = changes.next().await {
            let (object, is_gone) = match change {
                Ok(Change::Is(object)) => (object, false),
                Ok(Change::Gone(object)) => (object, true),
                Err(error) if !is_reported => {
                    is_reported = true;
                    remark(&format!(
                        "the records of releases cannot be watched, so the list has no versions: {error}"
                    ));
                    continue;
                }
                Ok(Change::Began | Change::Complete) | Err(_) => continue,
            };
            if let Some(release) = records::read(&object) {
                self.set_record(&release, is_gone);
            }
        }
    }

    /// Notes that a record has changed or is gone. An older one than the known one does not count.
    pub(super) fn set_record(&self, release: &Release, is_gone: bool) {
        let recorded = Arc::new(Recorded::of(release));
        let namespace = release.metadata.namespace.clone().unwrap_or_default();
        let key = (namespace, release.spec.canary.clone());
        {
            let mut records = lock(&self.0.records);
            let known = records.get(&key);
            let is_other = known.is_some_and(|known| known.name != recorded.name);
            let is_older = known.is_some_and(|known| known.started > recorded.started);
            if is_other && (is_gone || is_older) {
                return;
            }
            if is_gone {
                records.remove(&key);
            } else {
                records.insert(key.clone(), recorded);
            }
        }
        // Without a row, the canaries may not be listed yet.
        if self.add_record(&mut lock(&self.0.rows), &key) {
            self.0.changed.notify_one();
        }
    }

    /// Adds the record to the row of a canary, or removes it from the row. Returns whether the row has changed.
    fn add_record(&self, rows: &mut BTreeMap<Key, Arc<Row>>, key: &Key) -> bool {
        let recorded = lock(&self.0.records).get(key).cloned();
        let Some(row) = rows.get_mut(key) else {
            return false;
        };
        let has_changed = row.recorded.is_some() || recorded.is_some();
        if has_changed {
            *row = Arc::new(Row::clone(row).with(recorded.as_ref()));
        }
        has_changed
    }

    /// Publishes the changes of each second as one version, so that each list is rendered once for all of them. Does not end.
    pub(super) async fn publish(&self) {
        let mut searches = interval(SEARCH);
        loop {
            tokio::select! {
                () = self.0.changed.notified() => {
                    self.0.version.send_modify(|version| *version += 1);
                    sleep(PAUSE).await;
                }
                _ = searches.tick() => self.find_silent(clock::now()),
            }
        }
    }

    /// Reports the operator that gives no sign in the rows of its runs. No change of a canary would do so.
    fn find_silent(&self, now: Timestamp) {
        let mut has_changed = false;
        for row in lock(&self.0.rows).values_mut() {
            if let Some(silent) = row.silent(now) {
                *row = Arc::new(silent);
                has_changed = true;
            }
        }
        if has_changed {
            self.0.changed.notify_one();
        }
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut BTreeMap<Key, Arc<Row>>)) {
        change(&mut lock(&self.0.rows));
        self.0.changed.notify_one();
    }

    /// The canaries in these namespaces, by name.
    pub fn rows(&self, is_visible: impl Fn(&str) -> bool) -> Vec<Arc<Row>> {
        let rows = lock(&self.0.rows);
        let visible = rows
            .iter()
            .filter(|((namespace, _), _)| is_visible(namespace));
        visible.map(|(_, row)| row.clone()).collect()
    }

    /// One canary.
    pub fn row(&self, canary: &Named) -> Option<Arc<Row>> {
        let key = (canary.namespace.clone(), canary.name.clone());
        lock(&self.0.rows).get(&key).cloned()
    }

    /// The namespaces that have canaries.
    pub fn namespaces(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for (namespace, _) in lock(&self.0.rows).keys() {
            if all.last() != Some(namespace) {
                all.insert(namespace.clone());
            }
        }
        all
    }

    /// Whether all canaries have been listed.
    pub fn is_complete(&self) -> bool {
        *self.0.version.borrow() > 0
    }

    /// Whether the API server reports changes, as far as it is known.
    pub fn is_current(&self) -> bool {
        lock(&self.0.failed).is_none_or(|failed| failed.elapsed() > RECOVERED)
    }

    /// The number of the published version, and of each further one.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.version.subscribe()
    }
}

fn row(canary: Value) -> (Key, Arc<Row>) {
    let row = Row::of(canary, clock::now());
    let key = (row.view.namespace.clone(), row.view.name.clone());
    (key, Arc::new(row))
}
