//! A person who uses the dashboard: a connection with the person's own rights, and what is known about these.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::authorization::v1::ResourceAttributes;
use tokio::{sync::Semaphore, time::Instant};

use super::pace::Requests;
use crate::{
    api::action::Verb,
    dashboard::Named,
    shell::{
        api_server::{ClusterError, person::Person},
        lock::lock,
    },
};

/// How long an answer about a right counts.
pub const KEPT: Duration = Duration::from_secs(60);
/// The maximum number of answers about rights.
const ANSWERS: usize = 4096;
/// The maximum number of questions about rights at the same time.
const AT_ONCE: usize = 16;
/// The maximum number of open pages that are followed for one visitor.
const STREAMS: usize = 20;

/// A person who uses the dashboard.
pub struct Visitor {
    /// A key that no other visitor has.
    pub key: [u8; 32],
    /// The name; `None` without a login.
    pub name: Option<String>,
    /// The API server, with the rights of this person.
    pub person: Person,
    /// The requests for pages so far.
    pub pages: Requests,
    /// The actions so far.
    pub actions: Requests,
    /// The places for pages that are followed.
    pub streams: Arc<Semaphore>,
    /// Whether the process reads the list with the rights of this person. Its content then needs no further question.
    is_process: bool,
    rights: Mutex<HashMap<Right, (bool, Instant)>>,
    /// When the API server last accepted the login.
    pub accepted: Mutex<Instant>,
    /// When the visitor last came.
    pub came: Mutex<Instant>,
}

/// A right: verb, namespace and name. All are about canaries.
type Right = (&'static str, Option<String>, Option<String>);

/// The namespaces whose canaries a visitor may list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Visible {
    /// All.
    All,
    /// These.
    Only(BTreeSet<String>),
}

impl Visible {
    /// Whether canaries of a namespace are shown.
    pub fn has(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(namespaces) => namespaces.contains(namespace),
        }
    }
}

impl Visitor {
    /// A visitor who has just come.
    pub fn new(key: [u8; 32], name: Option<String>, person: Person) -> Self {
        let now = Instant::now();
        Self {
            key,
            is_process: name.is_none(),
            name,
            person,
            pages: Requests::default(),
            actions: Requests::default(),
            streams: Arc::new(Semaphore::new(STREAMS)),
            rights: Mutex::default(),
            accepted: Mutex::new(now),
            came: Mutex::new(now),
        }
    }

    /// The namespaces among these whose canaries the visitor may list.
    ///
    /// # Errors
    /// The API server refused the question, or is unreachable.
    pub async fn visible(&self, namespaces: BTreeSet<String>) -> Result<Visible, ClusterError> {
        if self.is_process || self.may("list", None, None).await? {
            return Ok(Visible::All);
        }
        let asked = stream::iter(namespaces).map(async |namespace| {
            let may = self.may("list", Some(&namespace), None).await?;
            Ok(may.then_some(namespace))
        });
        let answers: Vec<Option<String>> = asked.buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(Visible::Only(answers.into_iter().flatten().collect()))
    }

    /// Whether the visitor may list the canaries of a namespace.
    ///
    /// # Errors
    /// The API server refused the question, or is unreachable.
    pub async fn may_list(&self, namespace: &str) -> Result<bool, ClusterError> {
        Ok(self.is_process || self.may("list", Some(namespace), None).await?)
    }

    /// The actions that the visitor may use on a canary, or on all if none is named. Each is a patch of the Canary, so the visitor needs that
    /// right, too.
    ///
    /// # Errors
    /// The API server refused the question, or is unreachable.
    pub async fn actions_on(
        &self,
        canary: Option<&Named>,
        of: &[Verb],
    ) -> Result<Vec<Verb>, ClusterError> {
        let namespace = canary.map(|it| it.namespace.as_str());
        let name = canary.map(|it| it.name.as_str());
        if of.is_empty() || !self.may("patch", namespace, name).await? {
            return Ok(Vec::new());
        }
        let asked = stream::iter(of.iter().copied()).map(async |verb| {
            let may = self.may(verb.as_str(), namespace, name).await?;
            Ok(may.then_some(verb))
        });
        let answers: Vec<Option<Verb>> = asked.buffered(AT_ONCE).try_collect().await?;
        Ok(answers.into_iter().flatten().collect())
    }

    /// Whether the visitor has a right to canaries. An answer counts for [`KEPT`].
    async fn may(
        &self,
        verb: &'static str,
        namespace: Option<&str>,
        name: Option<&str>,
    ) -> Result<bool, ClusterError> {
        let right = (verb, namespace.map(str::to_owned), name.map(str::to_owned));
        let known = lock(&self.rights).get(&right).copied();
        if let Some((may, asked)) = known
            && asked.elapsed() < KEPT
        {
            return Ok(may);
        }
        let attributes = ResourceAttributes {
            group: Some("flagger.app".to_owned()),
            resource: Some("canaries".to_owned()),
            verb: Some(verb.to_owned()),
            namespace: right.1.clone(),
            name: right.2.clone(),
            ..ResourceAttributes::default()
        };
        let may = self.person.i_may(attributes).await?;
        let mut rights = lock(&self.rights);
        if rights.len() >= ANSWERS {
            rights.retain(|_, (_, asked)| asked.elapsed() < KEPT);
        }
        if rights.len() < ANSWERS {
            rights.insert(right, (may, Instant::now()));
        }
        Ok(may)
    }
}
