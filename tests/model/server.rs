//! The API server as a service: executes requests on the store, and answers like the real one.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::body::Body;
use http::{Request, Response};
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use super::{
    defaults,
    faults::{Fault, Plan},
    patch,
    refusal::Refusal,
    request::{ApiRequest, Verb},
    store::{Change, Deletion, Key, Part, Store, Writer, version_of},
    watch::changes,
};

/// The time after which an operator's client gives up.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(40);
/// The delay of a request that is executed late.
const LATE: Duration = Duration::from_secs(30);

/// A request that was received, as in an audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub at: Timestamp,
    pub by: String,
    pub verb: Verb,
    /// `canaries/status`.
    pub resource: String,
    pub name: String,
    /// The status of the answer; 0 without an answer.
    pub code: u16,
}

/// A running model. Clones share the state.
#[derive(Clone)]
pub struct Model(Arc<Shared>);

struct Shared {
    store: Mutex<Store>,
    plan: Mutex<Plan>,
    received: Mutex<Vec<Received>>,
    revision: watch::Sender<u64>,
    /// The client that was killed last.
    killed: watch::Sender<Option<String>>,
    start: (Timestamp, Instant),
}

impl Model {
    /// An empty cluster at this time, which advances with tokio's clock.
    pub fn new(now: Timestamp) -> Self {
        let store = Store::new();
        Self(Arc::new(Shared {
            revision: watch::Sender::new(store.revision),
            store: Mutex::new(store),
            plan: Mutex::default(),
            received: Mutex::default(),
            killed: watch::Sender::new(None),
            start: (now, Instant::now()),
        }))
    }

    /// A client with a name, which faults and the history refer to.
    pub fn client(&self, name: &str) -> Client {
        let (model, name) = (self.clone(), name.to_owned());
        let service = tower::service_fn(move |request| model.clone().serve(name.clone(), request));
        Client::new(service, "default")
    }

    pub fn now(&self) -> Timestamp {
        let (start, instant) = self.0.start;
        start + instant.elapsed()
    }

    /// The instant at which the model's clock shows this time.
    pub fn instant(&self, at: Timestamp) -> Instant {
        let (start, instant) = self.0.start;
        instant + Duration::try_from(at.duration_since(start)).unwrap_or_default()
    }

    pub fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.plan.lock().unwrap()
    }

    pub fn received(&self) -> Vec<Received> {
        self.0.received.lock().unwrap().clone()
    }

    pub fn history(&self) -> Vec<Change> {
        self.store().since(0).to_vec()
    }

    /// Changes at each new revision.
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.0.revision.subscribe()
    }

    /// Changes when a client is killed.
    pub fn kills(&self) -> watch::Receiver<Option<String>> {
        self.0.killed.subscribe()
    }

    /// Kills a client: its requests are not executed any more.
    pub fn kill(&self, name: &str) {
        self.plan().kill(name);
        self.0.killed.send_replace(Some(name.to_owned()));
    }

    /// Compacts the history up to now, as etcd does from time to time.
    pub fn compact(&self) {
        let mut store = self.store();
        store.compacted = store.revision;
    }

    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.store().get(&Key::new(plural, namespace, name)).ok()
    }

    pub fn store(&self) -> MutexGuard<'_, Store> {
        self.0.store.lock().unwrap()
    }

    /// Changes the store directly, without faults.
    pub fn write<T>(&self, by: &str, change: impl FnOnce(&mut Store, &Writer) -> T) -> T {
        let writer = Writer {
            name: by.to_owned(),
            now: self.now(),
        };
        let mut store = self.store();
        let result = change(&mut store, &writer);
        self.0.revision.send_if_modified(|revision| {
            std::mem::replace(revision, store.revision) != store.revision
        });
        result
    }

    async fn serve(
        self,
        by: String,
        request: Request<kube::client::Body>,
    ) -> io::Result<Response<Body>> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.map_err(io::Error::other)?;
        if parts.uri.path() == "/version" {
            return Ok(answer(
                200,
                &json!({"major": "1", "minor": "35", "gitVersion": "v1.35.0"}),
            ));
        }
        let Some(call) = ApiRequest::parse(&parts) else {
            let unknown = Response::builder()
                .status(404)
                .header("content-type", "text/plain");
            return Ok(unknown.body(Body::from("404 page not found\n")).unwrap());
        };
        let fault = self.plan().fault_of(&by, &call);
        let slow = self.plan().slow.get(call.resource.plural).copied();
        if let Some(slow) = slow {
            tokio::time::sleep(slow).await;
        }
        let is_done = fault.is_none_or(Fault::is_done);
        let usual = if is_done {
            let answer = self.execute(&by, &call, &body);
            Some(answer.unwrap_or_else(|refusal| self::answer(refusal.code, &refusal.status())))
        } else {
            None
        };
        if fault == Some(Fault::Late) {
            let (model, by, call) = (self.clone(), by.clone(), call.clone());
            tokio::spawn(async move {
                tokio::time::sleep(LATE).await;
                // The client has given up: nobody receives the answer.
                let _ = model.execute(&by, &call, &body);
            });
        }
        let result = self.with_fault(&by, fault, usual).await;
        let code = result
            .as_ref()
            .map_or(0, |response| response.status().as_u16());
        self.log(&by, &call, code);
        result
    }

    fn log(&self, by: &str, call: &ApiRequest, code: u16) {
        let resource = match call.subresource.as_str() {
            "" => call.resource.plural.to_owned(),
            sub => format!("{}/{sub}", call.resource.plural),
        };
        self.0.received.lock().unwrap().push(Received {
            at: self.now(),
            by: by.to_owned(),
            verb: call.verb,
            resource,
            name: call.name.clone(),
            code,
        });
    }

    async fn with_fault(
        &self,
        by: &str,
        fault: Option<Fault>,
        usual: Option<Response<Body>>,
    ) -> io::Result<Response<Body>> {
        let reset = || io::Error::new(io::ErrorKind::ConnectionReset, "connection reset by peer");
        let Some(fault) = fault else {
            return usual.ok_or_else(reset);
        };
        match fault {
            Fault::Status(_) | Fault::DoneBut(_) => {
                let refusal = fault.refusal().unwrap();
                Ok(answer(refusal.code, &refusal.status()))
            }
            Fault::ResetBefore | Fault::ResetAfter => Err(reset()),
            Fault::Hang | Fault::Late => {
                tokio::time::sleep(CLIENT_TIMEOUT).await;
                Err(io::ErrorKind::TimedOut.into())
            }
            Fault::DieBefore | Fault::DieAfter => {
                self.kill(by);
                std::future::pending().await
            }
            Fault::Truncated => {
                let (parts, body) = usual.ok_or_else(reset)?.into_parts();
                let complete = axum::body::to_bytes(body, usize::MAX)
                    .await
                    .map_err(io::Error::other)?;
                Ok(Response::from_parts(
                    parts,
                    Body::from(complete.slice(..complete.len() / 2)),
                ))
            }
        }
    }

    fn execute(&self, by: &str, call: &ApiRequest, body: &[u8]) -> Result<Response<Body>, Refusal> {
        let served = |object: &Value| served(call, object);
        match call.verb {
            Verb::Get => Ok(answer(200, &served(&*self.store().get(&call.key())?))),
            Verb::List => self.list(call),
            Verb::Watch => changes(self.clone(), call.clone()),
            Verb::Create => {
                let body = read(body)?;
                let name = body["metadata"]["name"].as_str().unwrap_or_default();
                let key = Key::new(call.resource.plural, &call.namespace, name);
                let made =
                    self.write(by, |store, writer| store.create(&key, body.clone(), writer))?;
                Ok(answer(201, &served(&made)))
            }
            Verb::Update => self.update(by, call, read(body)?),
            Verb::Patch => {
                let patch = read(body)?;
                let key = call.key();
                let written = self.write(by, |store, writer| {
                    let old = store.get(&key)?;
                    let wanted =
                        patch::apply(&call.content_type, self::served(call, &old), &patch)?;
                    let uid = &wanted["metadata"]["uid"];
                    if *uid != old["metadata"]["uid"] {
                        return Err(Refusal::invalid(
                            &key,
                            "metadata.uid",
                            &format!("Invalid value: {uid}: field is immutable"),
                        ));
                    }
                    store.update(&key, part(call), wanted, writer)
                })?;
                Ok(answer(200, &served(&written)))
            }
            Verb::Delete => {
                let options = if body.is_empty() {
                    json!({})
                } else {
                    read(body)?
                };
                let key = call.key();
                let deletion =
                    self.write(by, |store, writer| store.delete(&key, &options, writer))?;
                let status = match deletion {
                    Deletion::Gone(object) if !call.resource.returns_deleted => {
                        success(&key, &object)
                    }
                    Deletion::Gone(object) | Deletion::Marked(object) => served(&object),
                };
                Ok(answer(200, &status))
            }
        }
    }

    fn update(&self, by: &str, call: &ApiRequest, body: Value) -> Result<Response<Body>, Refusal> {
        let key = call.key();
        let name = body["metadata"]["name"].as_str().unwrap_or_default();
        if name != call.name {
            let message = format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                call.name
            );
            return Err(Refusal::plain(400, "BadRequest", &message));
        }
        let (code, written) = self.write(by, |store, writer| {
            let old = match store.get(&key) {
                Ok(old) => old,
                Err(not_found) if call.resource.put_creates && call.subresource.is_empty() => {
                    if let Some(wanted) = body["metadata"]["uid"].as_str() {
                        return Err(other_uid(&key, wanted, ""));
                    }
                    if version_of(&body).is_some() {
                        return Err(not_found);
                    }
                    return Ok((201, store.create(&key, body, writer)?));
                }
                Err(refusal) => return Err(refusal),
            };
            let (wanted, is) = (&body["metadata"]["uid"], &old["metadata"]["uid"]);
            if wanted.as_str().is_some_and(|uid| !uid.is_empty()) && wanted != is {
                return Err(other_uid(
                    &key,
                    wanted.as_str().unwrap(),
                    is.as_str().unwrap(),
                ));
            }
            Ok((200, store.update(&key, part(call), body, writer)?))
        })?;
        Ok(answer(code, &served(call, &written)))
    }

    /// A list, or a page of one. The token has the revision of the pages, and the last object of the page before.
    fn list(&self, call: &ApiRequest) -> Result<Response<Body>, Refusal> {
        let store = self.store();
        let (revision, after) = match call.param("continue").split_once('~') {
            Some((revision, after)) => (revision.parse().unwrap_or(0), after.to_owned()),
            None => (store.revision, String::new()),
        };
        if revision < store.compacted {
            return Err(Refusal::expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
            ));
        }
        let selector = call.selector();
        let place = |key: &Key| format!("{}/{}", key.namespace, key.name);
        let objects = store.at(call.resource.plural, revision);
        let found: Vec<_> = objects
            .iter()
            .filter(|(key, object)| place(key) > after && selector.matches(object))
            .collect();
        let limit = call.number("limit").filter(|limit| *limit > 0);
        let page = limit.map_or(found.len(), |limit| {
            found.len().min(usize::try_from(limit).unwrap())
        });
        let mut meta = json!({"resourceVersion": revision.to_string()});
        if call.resource.custom && !call.metadata_only {
            meta["continue"] = json!("");
        }
        if page < found.len() {
            meta["continue"] = json!(format!("{revision}~{}", place(found[page - 1].0)));
            if call.param("labelSelector").is_empty() && call.param("fieldSelector").is_empty() {
                meta["remainingItemCount"] = json!(found.len() - page);
            }
        }
        let items: Vec<_> = found[..page]
            .iter()
            .map(|(_, object)| item(call, object))
            .collect();
        let (kind, version) = if call.metadata_only {
            (
                "PartialObjectMetadataList".to_owned(),
                "meta.k8s.io/v1".to_owned(),
            )
        } else {
            (
                format!("{}List", call.resource.kind),
                call.resource.api_version(&call.version),
            )
        };
        // The API server sends null for an empty list of metadata.
        let items = if call.metadata_only && items.is_empty() {
            Value::Null
        } else {
            json!(items)
        };
        Ok(answer(
            200,
            &json!({"kind": kind, "apiVersion": version, "metadata": meta, "items": items}),
        ))
    }
}

fn part(call: &ApiRequest) -> Part {
    if call.subresource.is_empty() {
        Part::Main
    } else {
        Part::Status
    }
}

/// The object in the requested version, or its metadata only.
pub fn served(call: &ApiRequest, object: &Value) -> Value {
    if call.metadata_only {
        let mut meta = object["metadata"].clone();
        if let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(defaults::TEMPLATES);
            if annotations.is_empty() {
                meta.as_object_mut().unwrap().remove("annotations");
            }
        }
        return json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta});
    }
    let mut object = object.clone();
    object["apiVersion"] = json!(call.resource.api_version(&call.version));
    object
}

/// An object in a list. Built-in kinds have neither kind nor apiVersion there.
fn item(call: &ApiRequest, object: &Value) -> Value {
    let mut object = served(call, object);
    if !call.resource.custom && !call.metadata_only {
        for field in ["kind", "apiVersion"] {
            object.as_object_mut().unwrap().remove(field);
        }
    }
    object
}

fn success(key: &Key, object: &Value) -> Value {
    let mut details =
        json!({"name": key.name, "kind": key.resource().path(), "uid": object["metadata"]["uid"]});
    if !key.resource().group.is_empty() {
        details["group"] = json!(key.resource().group);
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// A PUT for another object of the same name.
fn other_uid(key: &Key, wanted: &str, is: &str) -> Refusal {
    let folder = match (key.plural, key.resource()) {
        ("services", _) => "services/specs".to_owned(),
        (_, resource) if resource.custom => format!("{}/{}", resource.group, resource.path()),
        (plural, _) => plural.to_owned(),
    };
    let Key {
        namespace, name, ..
    } = key;
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: /registry/{folder}/{namespace}/{name}, ResourceVersion: 0, \
         AdditionalErrorMsg: Precondition failed: UID in precondition: {wanted}, UID in object meta: {is}"
    );
    Refusal::precondition(key, &why)
}

fn read(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::plain(400, "BadRequest", &error.to_string()))
}

fn answer(code: u16, body: &Value) -> Response<Body> {
    let response = Response::builder()
        .status(code)
        .header("content-type", "application/json");
    response.body(Body::from(body.to_string())).unwrap()
}
