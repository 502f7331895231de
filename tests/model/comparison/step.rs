//! One random request, which can be sent to either API server.

use proptest::{
    prelude::{Just, Strategy, any as arbitrary},
    prop_oneof,
    sample::select,
};
use serde_json::{Value, json};

use super::{
    api_server::ApiServer,
    objects::{KINDS, Kind, Object},
};

pub const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";

/// The resourceVersion or uid that a request states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    Nothing,
    Current,
    /// The first resourceVersion, or a uid that no object has.
    Stale,
}

#[derive(Clone, Debug)]
pub enum Verb {
    Create {
        form: usize,
        with_version: bool,
    },
    Get {
        metadata_only: bool,
    },
    List {
        metadata_only: bool,
        selector: &'static str,
    },
    Replace {
        form: usize,
        version: Known,
        uid: Known,
    },
    /// A patch of a status has nothing but the status: the API server would record other fields in `managedFields`, which the model lacks.
    Merge {
        patch: usize,
        version: Known,
        status: bool,
    },
    Patch {
        patch: usize,
        version: Known,
    },
    Delete {
        version: Known,
        uid: Known,
    },
}

#[derive(Clone, Debug)]
pub struct Step {
    pub object: Object,
    verb: Verb,
}

/// Any request. There are few objects, so that requests are often for the same one.
pub fn any() -> impl Strategy<Value = Step> {
    let known = || {
        select(vec![
            Known::Nothing,
            Known::Current,
            Known::Current,
            Known::Stale,
        ])
    };
    let flag = arbitrary::<bool>;
    let selectors = vec![
        "",
        "labelSelector=app%3Dx",
        "labelSelector=app!%3Dx,tier",
        "labelSelector=!app",
        "fieldSelector=metadata.name%3Da",
    ];
    let verb = prop_oneof![
        4 => (0..3_usize, proptest::bool::weighted(0.05)).prop_map(|(form, with_version)| Verb::Create { form, with_version }),
        1 => flag().prop_map(|metadata_only| Verb::Get { metadata_only }),
        1 => (flag(), select(selectors)).prop_map(|(metadata_only, selector)| Verb::List { metadata_only, selector }),
        3 => (0..3_usize, known(), known()).prop_map(|(form, version, uid)| Verb::Replace { form, version, uid }),
        3 => (0..MERGES, known()).prop_map(|(patch, version)| Verb::Merge { patch, version, status: false }),
        1 => (select(vec![7, 8]), known()).prop_map(|(patch, version)| Verb::Merge { patch, version, status: true }),
        4 => (0..PATCHES, known()).prop_map(|(patch, version)| Verb::Patch { patch, version }),
        2 => (known(), known()).prop_map(|(version, uid)| Verb::Delete { version, uid }),
    ];
    (
        select(KINDS.to_vec()),
        prop_oneof![4 => Just("a"), 1 => Just("b")],
        verb,
    )
        .prop_map(|(kind, name, verb)| Step {
            object: Object {
                kind,
                name: name.to_owned(),
            },
            verb,
        })
}

/// An HTTP request.
struct Request {
    method: &'static str,
    path: String,
    content_type: &'static str,
    accept: &'static str,
    body: Value,
}

impl Request {
    fn read(path: String, accept: &'static str) -> Self {
        Self {
            method: "GET",
            path,
            content_type: "",
            accept,
            body: Value::Null,
        }
    }

    fn write(method: &'static str, path: String, content_type: &'static str, body: Value) -> Self {
        Self {
            method,
            path,
            content_type,
            accept: "",
            body,
        }
    }
}

impl Step {
    /// Sends the request. Returns the status, and the comparable part of the answer.
    pub async fn send(&self, server: &mut ApiServer) -> Value {
        let kind = self.object.kind;
        let Request {
            method,
            path,
            content_type,
            accept,
            body,
        } = self.request(server);
        let (code, answer) = server
            .send(method, &path, [content_type, accept], &body)
            .await;
        json!([code, server.comparable(kind, answer)])
    }

    fn request(&self, server: &ApiServer) -> Request {
        let collection = server.path(self.object.kind);
        let path = format!("{collection}/{}", self.object.name);
        match &self.verb {
            Verb::Create { form, with_version } => {
                let mut object = self.object(server, *form);
                if *with_version {
                    object["metadata"]["resourceVersion"] = json!("1");
                }
                Request::write("POST", collection, JSON, object)
            }
            Verb::Get { metadata_only } => {
                Request::read(path, if *metadata_only { METADATA } else { JSON })
            }
            Verb::List {
                metadata_only,
                selector,
            } => {
                let accept = if *metadata_only { METADATA_LIST } else { JSON };
                Request::read(format!("{collection}?{selector}"), accept)
            }
            Verb::Replace { form, version, uid } => {
                let mut object = self.object(server, *form);
                self.state(server, &mut object["metadata"], *version, *uid);
                Request::write("PUT", path, JSON, object)
            }
            Verb::Merge {
                patch,
                version,
                status,
            } => {
                let mut patch = self.merge(server, *patch);
                self.state(server, &mut patch["metadata"], *version, Known::Nothing);
                let has_subresource = *status && self.object.kind.has_status();
                let sub = if has_subresource { "/status" } else { "" };
                Request::write("PATCH", format!("{path}{sub}"), MERGE, patch)
            }
            Verb::Patch { patch, version } => {
                let mut operations = vec![];
                let mut known = json!({});
                self.state(server, &mut known, *version, *version);
                if let Some(version) = known.get("resourceVersion") {
                    operations.push(json!({"op": "test", "path": "/metadata/resourceVersion", "value": version}));
                }
                operations.extend(json_patch(*patch));
                Request::write("PATCH", path, JSON_PATCH, json!(operations))
            }
            Verb::Delete { version, uid } => {
                let mut known = json!({});
                self.state(server, &mut known, *version, *uid);
                Request::write("DELETE", path, JSON, json!({"preconditions": known}))
            }
        }
    }

    fn object(&self, server: &ApiServer, form: usize) -> Value {
        let namespace = server.path(self.object.kind);
        let namespace = namespace.split('/').rev().nth(1).unwrap();
        self.object.kind.object(&self.object.name, form, namespace)
    }

    /// Adds the stated resourceVersion and uid to metadata or preconditions.
    fn state(&self, server: &ApiServer, meta: &mut Value, version: Known, uid: Known) {
        let known = match version {
            Known::Nothing => None,
            Known::Current => server.version(&self.object, false),
            Known::Stale => server.version(&self.object, true),
        };
        if let Some(known) = known {
            meta["resourceVersion"] = json!(known);
        }
        let known = match uid {
            Known::Nothing => None,
            Known::Current => server.uid(&self.object),
            Known::Stale => Some("00000000-0000-0000-0000-000000000000".to_owned()),
        };
        if let Some(known) = known {
            meta["uid"] = json!(known);
        }
    }

    fn merge(&self, server: &ApiServer, patch: usize) -> Value {
        let namespace = server.path(self.object.kind);
        match patch {
            0 => json!({"metadata": {"labels": {"app": "z"}}}),
            1 => json!({"metadata": {"labels": {"app": null, "tier": "2"}}}),
            2 => json!({"metadata": {"annotations": {"note": "1"}}}),
            3 => json!({"metadata": {"annotations": null, "labels": null}}),
            4 => json!({"metadata": {"finalizers": ["test.example/hold"]}}),
            5 => json!({"metadata": {"finalizers": []}}),
            6 => json!({"metadata": {"finalizers": null}}),
            7 => json!({"metadata": {}}),
            8 if self.object.kind == Kind::Canary => {
                json!({"metadata": {}, "status": {"phase": "Failed", "canaryWeight": 5}})
            }
            8 => json!({"metadata": {}, "status": {"replicas": 3}}),
            9 => json!({"metadata": {"uid": "00000000-0000-0000-0000-000000000000"}}),
            form => {
                let mut content = self
                    .object
                    .kind
                    .content(form - 10, namespace.split('/').rev().nth(1).unwrap());
                content["metadata"] = json!({});
                content
            }
        }
    }
}

const MERGES: usize = 13;
const PATCHES: usize = 10;

fn json_patch(patch: usize) -> Vec<Value> {
    let op = |op: &str, path: &str, value: Value| json!({"op": op, "path": path, "value": value});
    let remove = |path: &str| json!({"op": "remove", "path": path});
    match patch {
        0 => vec![
            op("test", "/metadata/generation", json!(1)),
            op("add", "/metadata/labels", json!({"app": "x"})),
        ],
        1 => vec![op("add", "/metadata/labels/app", json!("w"))],
        2 => vec![op("replace", "/metadata/labels/app", json!("v"))],
        3 => vec![remove("/metadata/labels/app")],
        4 => vec![
            op("test", "/metadata/finalizers", Value::Null),
            op("add", "/metadata/finalizers", json!(["test.example/hold"])),
        ],
        5 => vec![remove("/metadata/finalizers")],
        6 => vec![
            op("add", "/metadata/annotations", json!({"note": "3"})),
            op("test", "/metadata/annotations/note", json!("3")),
        ],
        7 => vec![op("test", "/metadata/nothing/here", Value::Null)],
        8 => vec![op(
            "add",
            "/metadata/finalizers/-",
            json!("test.example/more"),
        )],
        _ => vec![],
    }
}
