//! One of the two compared API servers: sends requests to it, and makes its answers comparable.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::StreamExt;
use kube::{Client, client::Body};
use serde_json::{Value, json};

use super::objects::{Kind, Object};

/// An API server, in one namespace.
pub struct ApiServer {
    client: Client,
    namespace: String,
    /// The resourceVersions and uids of each object, in the order of the answers.
    versions: BTreeMap<Object, Vec<String>>,
    uids: BTreeMap<Object, Vec<String>>,
    begin: BTreeMap<Kind, String>,
}

impl ApiServer {
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            versions: BTreeMap::new(),
            uids: BTreeMap::new(),
            begin: BTreeMap::new(),
        }
    }

    /// Records the revisions at which watches will begin.
    pub async fn begin(&mut self, kinds: &BTreeSet<Kind>) {
        for kind in kinds {
            let (_, list) = self
                .send("GET", &self.path(*kind), ["", ""], &Value::Null)
                .await;
            let revision = list["metadata"]["resourceVersion"].as_str().unwrap();
            self.begin.insert(*kind, revision.to_owned());
        }
    }

    /// Events have a namespace of their own, because the API server writes events about Services.
    pub fn namespace(&self, kind: Kind) -> String {
        match kind {
            Kind::Event => format!("{}-events", self.namespace),
            _ => self.namespace.clone(),
        }
    }

    pub fn path(&self, kind: Kind) -> String {
        format!(
            "{}/namespaces/{}/{}",
            kind.root(),
            self.namespace(kind),
            kind.plural()
        )
    }

    /// The first or the last known resourceVersion of an object.
    pub fn version(&self, object: &Object, first: bool) -> Option<String> {
        let versions = self.versions.get(object)?;
        if first {
            versions.first().cloned()
        } else {
            versions.last().cloned()
        }
    }

    pub fn uid(&self, object: &Object) -> Option<String> {
        self.uids.get(object)?.last().cloned()
    }

    pub async fn send(
        &self,
        method: &str,
        path: &str,
        [content_type, accept]: [&str; 2],
        body: &Value,
    ) -> (u16, Value) {
        let body = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in [("content-type", content_type), ("accept", accept)] {
            if !value.is_empty() {
                request = request.header(name, value);
            }
        }
        let response = self
            .client
            .send(request.body(Body::from(body)).unwrap())
            .await
            .unwrap();
        let code = response.status().as_u16();
        let bytes = response.into_body().collect_bytes().await.unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        (
            code,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        )
    }

    /// An answer in which values that only this server can know are replaced by their order of appearance.
    pub fn comparable(&mut self, kind: Kind, mut answer: Value) -> Value {
        let answer_kind = answer["kind"].as_str().unwrap_or_default();
        if answer_kind.ends_with("List") {
            return self.comparable_list(kind, answer);
        }
        if answer_kind == "Status" {
            return self.comparable_status(answer);
        }
        let Some(name) = answer["metadata"]["name"].as_str() else {
            return answer;
        };
        let object = Object {
            kind,
            name: name.to_owned(),
        };
        let meta = answer["metadata"].as_object_mut().unwrap();
        meta.remove("managedFields");
        for (field, seen) in [
            ("resourceVersion", &mut self.versions),
            ("uid", &mut self.uids),
        ] {
            let Some(value) = meta.get(field).and_then(Value::as_str).map(str::to_owned) else {
                continue;
            };
            let seen = seen.entry(object.clone()).or_default();
            let place = seen
                .iter()
                .position(|other| *other == value)
                .unwrap_or_else(|| {
                    seen.push(value);
                    seen.len() - 1
                });
            meta.insert(field.to_owned(), json!(place));
        }
        for field in ["creationTimestamp", "deletionTimestamp"] {
            if meta.get(field).is_some_and(Value::is_string) {
                meta.insert(field.to_owned(), json!("then"));
            }
        }
        let namespace = meta.get_mut("namespace").unwrap();
        *namespace = json!(*namespace == self.namespace(kind));
        if kind == Kind::Service
            && answer["spec"]["clusterIP"]
                .as_str()
                .is_some_and(|ip| ip != "None")
        {
            let spec = &mut answer["spec"];
            assert_eq!(spec["clusterIPs"][0], spec["clusterIP"]);
            spec["clusterIP"] = json!("an address");
            spec["clusterIPs"] = json!(["an address"]);
        }
        answer
    }

    fn comparable_list(&mut self, kind: Kind, mut answer: Value) -> Value {
        if let Value::Array(items) = answer["items"].take() {
            let items: Vec<_> = items
                .into_iter()
                .map(|item| self.comparable(kind, item))
                .collect();
            answer["items"] = json!(items);
        }
        answer["metadata"]["resourceVersion"] = Value::Null;
        answer
    }

    fn comparable_status(&self, answer: Value) -> Value {
        let mut text = answer.to_string();
        for (object, uids) in &self.uids {
            for (place, uid) in uids.iter().enumerate() {
                text = text.replace(uid, &format!("uid {place} of {}", object.name));
            }
        }
        for (object, versions) in &self.versions {
            for (place, version) in versions.iter().enumerate() {
                text = text.replace(
                    &format!("({version})"),
                    &format!("(version {place} of {})", object.name),
                );
            }
        }
        let mut answer: Value = serde_json::from_str(&text).unwrap();
        if let Some(causes) = answer
            .pointer_mut("/details/causes")
            .and_then(Value::as_array_mut)
        {
            // Some kinds validate metadata twice.
            causes.dedup();
        }
        if answer["reason"] == "BadRequest" {
            // The text comes from another JSON library.
            answer["message"] = Value::Null;
        }
        answer
    }

    /// The objects of a kind, one by one.
    pub async fn pages(&mut self, kind: Kind) -> Vec<Value> {
        let mut pages = Vec::new();
        let mut more = String::new();
        loop {
            let path = format!("{}?limit=1{more}", self.path(kind));
            let (code, page) = self.send("GET", &path, ["", ""], &Value::Null).await;
            let meta = &page["metadata"];
            // The token may be missing or empty.
            let token = meta["continue"]
                .as_str()
                .filter(|token| !token.is_empty())
                .map(str::to_owned);
            let left = json!([meta["remainingItemCount"], meta["continue"].is_string()]);
            let mut page = self.comparable(kind, page);
            page["metadata"] = left;
            pages.push(json!([code, page]));
            let Some(token) = token else {
                return pages;
            };
            more = format!(
                "&continue={}",
                url::form_urlencoded::byte_serialize(token.as_bytes()).collect::<String>()
            );
        }
    }

    /// The watch events of a kind since the beginning: `count` of them, or all that are available at once.
    pub async fn events(
        &mut self,
        kind: Kind,
        metadata_only: bool,
        count: Option<usize>,
    ) -> Vec<Value> {
        let from = format!("resourceVersion={}", self.begin[&kind]);
        self.watch(kind, &from, metadata_only, count).await
    }

    /// All objects of a kind, as a streamed list.
    pub async fn streamed(&mut self, kind: Kind, count: Option<usize>) -> Vec<Value> {
        let all =
            "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
        let mut events = self.watch(kind, all, false, count).await;
        for event in &mut events {
            if event[0] == "BOOKMARK" {
                // Clients use only this annotation of the bookmark.
                event[1] = event[1]["metadata"]["annotations"]["k8s.io/initial-events-end"].clone();
            }
        }
        events
    }

    async fn watch(
        &mut self,
        kind: Kind,
        from: &str,
        metadata_only: bool,
        count: Option<usize>,
    ) -> Vec<Value> {
        let path = format!("{}?watch=true&timeoutSeconds=10&{from}", self.path(kind));
        let accept = if metadata_only {
            super::step::METADATA
        } else {
            "application/json"
        };
        let request = http::Request::get(path)
            .header("accept", accept)
            .body(Body::empty())
            .unwrap();
        let response = self.client.send(request).await.unwrap();
        let mut frames = axum::body::Body::new(response.into_body()).into_data_stream();
        let (mut text, mut events) = (String::new(), Vec::new());
        while count.is_none_or(|count| events.len() < count) {
            let patience = if count.is_some() {
                Duration::from_secs(5)
            } else {
                Duration::from_millis(1)
            };
            let Ok(Some(Ok(frame))) = tokio::time::timeout(patience, frames.next()).await else {
                break;
            };
            text += std::str::from_utf8(&frame).unwrap();
            while let Some((line, rest)) = text.split_once('\n') {
                let event: Value = serde_json::from_str(line).unwrap();
                text = rest.to_owned();
                events.push(json!([
                    event["type"],
                    self.comparable(kind, event["object"].clone())
                ]));
            }
        }
        events
    }
}
