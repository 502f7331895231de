//! All canaries, kept up to date by one watch for the whole process.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt;
use serde_json::Value;
use tokio::{sync::watch, time::Instant};

use crate::{
    dashboard::{Named, Row},
    shell::{
        api_server::{person::Person, visitors::Followed},
        client::remark,
        clock,
        lock::lock,
    },
    snapshot::Kind,
};

/// A watch that fails again and again does so at least this often. One that works again reports nothing until a canary changes.
const RECOVERED: Duration = Duration::from_secs(45);

/// The namespace and the name of a canary.
pub(super) type Key = (String, String);

/// All canaries. Clones are the same.
#[derive(Clone)]
pub struct Fleet(Arc<Inner>);

struct Inner {
    rows: Mutex<BTreeMap<Key, Arc<Row>>>,
    /// Counts the changes; 0 until all canaries have been listed.
    version: watch::Sender<u64>,
    /// When the watch last failed, unless it has seen a change since.
    failed: Mutex<Option<Instant>>,
}

impl Default for Fleet {
    fn default() -> Self {
        Self(Arc::new(Inner {
            rows: Mutex::default(),
            version: watch::Sender::new(0),
            failed: Mutex::default(),
        }))
    }
}

impl Fleet {
    /// Follows all canaries of a namespace, or of all. Does not end.
    pub async fn follow(&self, person: Person, namespace: Option<&str>) {
        let mut changes = pin!(person.follow(Kind::Canary, namespace));
        let mut listed: Option<BTreeMap<Key, Arc<Row>>> = None;
        while let Some(change) = changes.next().await {
            *lock(&self.0.failed) = change.is_err().then(Instant::now);
            match change {
                Ok(Followed::Restarted) => listed = Some(BTreeMap::new()),
                Ok(Followed::Is(canary)) => {
                    let (key, row) = row(canary);
                    match &mut listed {
                        Some(listed) => drop(listed.insert(key, row)),
                        None => self.change(|rows| drop(rows.insert(key, row))),
                    }
                }
                Ok(Followed::Gone(canary)) => {
                    let (key, _) = row(canary);
                    self.change(|rows| drop(rows.remove(&key)));
                }
                // A canary that was deleted while the watch was interrupted is not in the list.
                Ok(Followed::Complete) => {
                    if let Some(listed) = listed.take() {
                        self.change(|rows| *rows = listed);
                    }
                }
                Err(error) => remark(&format!("the canaries cannot be watched now: {error}")),
            }
        }
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut BTreeMap<Key, Arc<Row>>)) {
        change(&mut lock(&self.0.rows));
        self.0.version.send_modify(|version| *version += 1);
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
        let rows = lock(&self.0.rows);
        rows.keys()
            .map(|(namespace, _)| namespace.clone())
            .collect()
    }

    /// Whether all canaries have been listed.
    pub fn is_complete(&self) -> bool {
        *self.0.version.borrow() > 0
    }

    /// Whether the API server reports changes, as far as it is known.
    pub fn is_current(&self) -> bool {
        lock(&self.0.failed).is_none_or(|failed| failed.elapsed() > RECOVERED)
    }

    /// The number of changes so far, and each further change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.version.subscribe()
    }
}

fn row(canary: Value) -> (Key, Arc<Row>) {
    let row = Row::of(canary, clock::now());
    let key = (row.view.namespace.clone(), row.view.name.clone());
    (key, Arc::new(row))
}
