//! Reads a canary and its objects. Objects that the person may not read are left out.

use jiff::Timestamp;
use kube::api::ListParams;
use serde_json::{Map, Value};

use super::{
    output::Output,
    trouble::{Stop, Wanted},
};
use crate::{
    api::canary::Canary,
    shell::{
        api_server::{
            ClusterError,
            person::{EVENTS, PODS, Person},
        },
        clock,
    },
    snapshot::{Kind, TargetKind, knative},
    view::{Seen, Typed, Version, View},
};

/// A command's connections: to the API server, and to the terminal.
pub struct Context {
    /// The API server.
    pub person: Person,
    /// The terminal.
    pub output: Output,
    /// The beginnings of the commands that messages tell to type.
    pub typed: Typed,
}

/// Which objects of a canary to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The target and the primary, by which a view distinguishes versions.
    Workloads,
    /// These, and the pods and events.
    All,
}

impl Context {
    /// The request of a command about one canary, for the text of its errors.
    pub fn wants<'a>(&'a self, verb: &'a str, name: &'a str) -> Wanted<'a> {
        Wanted {
            verb,
            namespace: Some(self.person.namespace()),
            canary: Some(name),
            typed: &self.typed,
        }
    }

    /// Reads a canary.
    pub async fn canary(&self, name: &str) -> Result<Value, Stop> {
        let read = self
            .person
            .get(Kind::Canary, self.person.namespace(), name)
            .await;
        read.map_err(|error| self.wants("get", name).failed(&error))
    }

    /// Reads the objects of a canary.
    pub async fn gather(&self, canary: Value, depth: Depth) -> Seen {
        let parsed = serde_json::from_value::<Canary>(canary.clone()).unwrap_or_default();
        let reader = Reader {
            person: &self.person,
            namespace: self.person.namespace(),
        };
        let (target, primary) = reader.workloads(&parsed).await;
        let unanswered = target.is_err() || primary.is_err();
        let mut seen = Seen {
            canary,
            target: target.unwrap_or_default(),
            primary: primary.unwrap_or_default(),
            unanswered,
            ..Seen::default()
        };
        if depth == Depth::All {
            let name = parsed.metadata.name.as_deref().unwrap_or_default();
            (seen.pods, seen.events) =
                tokio::join!(reader.pods(&parsed, &seen), reader.events(name));
        }
        seen
    }

    /// Reads the objects of a canary, and makes the view of them.
    pub async fn view(&self, canary: Value, depth: Depth) -> View {
        let seen = self.gather(canary, depth).await;
        View::of(&seen, now())
    }
}

/// The current time.
pub fn now() -> Timestamp {
    clock::now()
}

struct Reader<'a> {
    person: &'a Person,
    namespace: &'a str,
}

impl Reader<'_> {
    /// The target and the primary.
    async fn workloads(&self, canary: &Canary) -> (Readable, Readable) {
        let Some(kind) = TargetKind::of(canary) else {
            return (Ok(None), Ok(None));
        };
        let primary = canary.primary_workload_name();
        let target = &canary.spec.target_ref.name;
        let get =
            async |kind, name: &str| readable(self.person.get(kind, self.namespace, name).await);
        if kind != TargetKind::Knative {
            return tokio::join!(get(kind.kind(), target), get(kind.kind(), &primary));
        }
        let target = get(kind.kind(), target).await;
        let live = target.as_ref().ok().and_then(Option::as_ref);
        let primary = match live.and_then(knative::primary) {
            Some(revision) => get(Kind::KnativeRevision, revision).await,
            None => Ok(None),
        };
        (target, primary)
    }

    async fn pods(&self, canary: &Canary, seen: &Seen) -> Option<Vec<(Version, Value)>> {
        if !TargetKind::of(canary)?.has_pods() {
            return Some(Vec::new());
        }
        let of = async |version: Version, workload: &Option<Value>| {
            let Some(selector) = selector(workload.as_ref()?) else {
                return Some(Vec::new());
            };
            let params = ListParams::default().labels(&selector);
            let pods = self
                .person
                .list(PODS, Some(self.namespace), params)
                .await
                .ok()?;
            Some(
                pods.into_iter()
                    .map(|pod| (version, pod))
                    .collect::<Vec<_>>(),
            )
        };
        let (canary, primary) = tokio::join!(
            of(Version::Canary, &seen.target),
            of(Version::Primary, &seen.primary)
        );
        Some([canary?, primary?].concat())
    }

    async fn events(&self, name: &str) -> Option<Vec<Value>> {
        let fields = format!("involvedObject.kind=Canary,involvedObject.name={name}");
        let params = ListParams::default().fields(&fields);
        self.person
            .list(EVENTS, Some(self.namespace), params)
            .await
            .ok()
    }
}

/// An object: null if it does not exist, `None` if the person may not read it, an error if the API server did not answer.
type Readable = Result<Option<Value>, ClusterError>;

fn readable(read: Result<Value, ClusterError>) -> Readable {
    match read {
        Ok(object) => Ok(Some(object)),
        Err(error) => match error.code() {
            Some(404) => Ok(Some(Value::Null)),
            Some(401 | 403) => Ok(None),
            _ => Err(error),
        },
    }
}

/// The selector of a workload's pods; `None` if it does not exist.
fn selector(workload: &Value) -> Option<String> {
    let labels: &Map<String, Value> = workload
        .pointer("/spec/selector/matchLabels")?
        .as_object()?;
    let labels: Vec<_> = labels
        .iter()
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)))
        .collect();
    (!labels.is_empty()).then(|| labels.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_right_hides_an_object() {
        let answer = |code| {
            readable(Err(ClusterError::Refused {
                code,
                message: String::new(),
            }))
        };
        assert_eq!(answer(404).unwrap(), Some(Value::Null));
        assert_eq!(answer(401).unwrap(), None);
        assert_eq!(answer(403).unwrap(), None);
        assert!(answer(500).is_err() && answer(429).is_err());
        assert!(readable(Err(ClusterError::Unreachable(String::new()))).is_err());
    }
}
