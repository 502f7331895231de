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
    dashboard::{Named, setup::Finding},
    shell::{
        api_server::{ClusterError, person::Person},
        lock::lock,
    },
    snapshot::Kind,
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
    /// What the visitor's rights show of the installation, and when it was read.
    pub installation: Mutex<Option<(Instant, Vec<Finding>)>>,
    /// When the API server last accepted the login.
    pub accepted: Mutex<Instant>,
    /// When the visitor last came.
    pub came: Mutex<Instant>,
}

/// A right: the kind of the objects, the verb, the namespace and the name.
type Right = (Kind, &'static str, Option<String>, Option<String>);

/// The namespaces whose objects of a kind a visitor may list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Visible {
    /// All.
    All,
    /// These.
    Only(BTreeSet<String>),
}

impl Visible {
    /// Whether objects of a namespace are shown.
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
            installation: Mutex::default(),
            accepted: Mutex::new(now),
            came: Mutex::new(now),
        }
    }

    /// The namespaces among these whose objects of a kind the visitor may list. They are computed only if the visitor may not list those of all.
    ///
    /// # Errors
    /// The API server refused the question, or is unreachable.
    pub async fn visible(
        &self,
        kind: Kind,
        namespaces: impl FnOnce() -> BTreeSet<String>,
    ) -> Result<Visible, ClusterError> {
        if self.is_process || self.may((kind, "list", None, None)).await? {
            return Ok(Visible::All);
        }
        let asked = stream::iter(namespaces()).map(async |namespace| {
            let may = self.may((kind, "list", Some(namespace.clone()), None));
            Ok(may.await?.then_some(namespace))
        });
        let answers: Vec<Option<String>> = asked.buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(Visible::Only(answers.into_iter().flatten().collect()))
    }

    /// Whether the visitor may list the canaries of a namespace.
    ///
    /// # Errors
    /// The API server refused the question, or is unreachable.
    pub async fn may_list(&self, namespace: &str) -> Result<bool, ClusterError> {
        let right = (Kind::Canary, "list", Some(namespace.to_owned()), None);
        Ok(self.is_process || self.may(right).await?)
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
        let right = |verb| {
            let namespace = canary.map(|it| it.namespace.clone());
            (
                Kind::Canary,
                verb,
                namespace,
                canary.map(|it| it.name.clone()),
            )
        };
        if of.is_empty() || !self.may(right("patch")).await? {
            return Ok(Vec::new());
        }
        let asked = stream::iter(of.iter().copied()).map(async |verb| {
            let may = self.may(right(verb.as_str())).await?;
            Ok(may.then_some(verb))
        });
        let answers: Vec<Option<Verb>> = asked.buffered(AT_ONCE).try_collect().await?;
        Ok(answers.into_iter().flatten().collect())
    }

    /// Whether the visitor has a right. An answer counts for [`KEPT`].
    async fn may(&self, right: Right) -> Result<bool, ClusterError> {
        let known = lock(&self.rights).get(&right).copied();
        if let Some((may, asked)) = known
            && asked.elapsed() < KEPT
        {
            return Ok(may);
        }
        let (kind, verb, namespace, name) = right.clone();
        let attributes = ResourceAttributes {
            group: Some(kind.group_version().0.to_owned()),
            resource: Some(kind.plural().to_owned()),
            verb: Some(verb.to_owned()),
            namespace,
            name,
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
