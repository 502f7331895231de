//! Sends a user's requests to the API server.

use http::Request;
use kube::Client;
use serde_json::{Value, json};

/// The field manager of these requests. It distinguishes their writes from those of the operator.
pub const USER: &str = "scenario";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const MERGE: &str = "application/merge-patch+json";
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
const CLUSTER_SCOPED: [&str; 4] = [
    "Namespace",
    "Node",
    "CustomResourceDefinition",
    "TrafficRoute",
];

/// The name of an object. Scenarios write it as `apps/v1 Deployment podinfo`.
#[derive(Clone, Debug)]
pub struct Name {
    pub version: String,
    pub kind: String,
    /// `None` means the namespace of the scenario.
    pub namespace: Option<String>,
    pub name: String,
}

impl Name {
    pub fn new(version: &str, kind: &str, name: &str) -> Self {
        Self {
            version: version.to_owned(),
            kind: kind.to_owned(),
            namespace: None,
            name: name.to_owned(),
        }
    }

    /// Parses a name as scenarios write it.
    pub fn read(text: &str) -> Self {
        let words: Vec<_> = text.split(' ').collect();
        let [version, kind, name] = words[..] else {
            panic!("`{text}` is not of the form `apps/v1 Deployment podinfo`")
        };
        Self::new(version, kind, name)
    }

    pub fn of(object: &Value) -> Self {
        let text = |at: &str| {
            object
                .pointer(at)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        Self {
            namespace: object["metadata"]["namespace"].as_str().map(str::to_owned),
            ..Self::new(text("/apiVersion"), text("/kind"), text("/metadata/name"))
        }
    }
}

/// The API server refused a request or is unreachable (then `code` is 0).
#[derive(Debug)]
pub struct Refused {
    pub code: u16,
    pub why: String,
}

/// A client of the API server with a default namespace.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    pub namespace: String,
}

impl Cluster {
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
        }
    }

    fn collection(&self, of: &Name) -> String {
        let Name { version, kind, .. } = of;
        let root = if version.contains('/') { "apis" } else { "api" };
        let plural = plural(kind);
        if CLUSTER_SCOPED.contains(&kind.as_str()) {
            return format!("/{root}/{version}/{plural}");
        }
        let namespace = of.namespace.as_ref().unwrap_or(&self.namespace);
        format!("/{root}/{version}/namespaces/{namespace}/{plural}")
    }

    fn path(&self, of: &Name) -> String {
        format!("{}/{}", self.collection(of), of.name)
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        content: &str,
        body: Option<&Value>,
    ) -> Result<Value, Refused> {
        let accept = if content == TABLE {
            TABLE
        } else {
            "application/json"
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("{path}?fieldManager={USER}"))
            .header("accept", accept)
            .header(
                "content-type",
                if content == TABLE {
                    "application/json"
                } else {
                    content
                },
            )
            .body(
                body.map(|body| body.to_string().into_bytes())
                    .unwrap_or_default(),
            );
        let answer = self.client.request(request.unwrap()).await;
        answer.map_err(|error| match error {
            kube::Error::Api(status) => Refused {
                code: status.code,
                why: status.message.clone(),
            },
            other => Refused {
                code: 0,
                why: other.to_string(),
            },
        })
    }

    /// Reads an object. Returns `None` if it does not exist.
    pub async fn get(&self, of: &Name) -> Result<Option<Value>, Refused> {
        let path = self.path(of);
        found(self.send("GET", &path, "application/json", None).await)
    }

    pub async fn list(&self, version: &str, kind: &str) -> Result<Vec<Value>, Refused> {
        let path = self.collection(&Name::new(version, kind, ""));
        let list = self.send("GET", &path, "application/json", None).await?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Returns the table that `kubectl get` prints for a kind.
    pub async fn table(&self, version: &str, kind: &str) -> Result<Value, Refused> {
        let path = self.collection(&Name::new(version, kind, ""));
        self.send("GET", &path, TABLE, None).await
    }

    pub async fn create(&self, object: &Value) -> Result<Value, Refused> {
        let name = Name::of(object);
        let path = self.collection(&name);
        self.send("POST", &path, "application/json", Some(object))
            .await
    }

    pub async fn patch(&self, of: &Name, with: &Value) -> Result<Value, Refused> {
        self.patch_as(MERGE, of, with).await
    }

    pub async fn patch_as(&self, content: &str, of: &Name, with: &Value) -> Result<Value, Refused> {
        let path = self.path(of);
        self.send("PATCH", &path, content, Some(with)).await
    }

    /// Creates an object, or patches it if it exists.
    pub async fn apply(&self, object: &Value) -> Result<Value, Refused> {
        match self.create(object).await {
            Err(refused) if refused.code == 409 => self.patch(&Name::of(object), object).await,
            other => other,
        }
    }

    /// Like [`Self::apply`], and keeps the applied object in an annotation, as `kubectl apply` does.
    pub async fn kubectl_apply(&self, mut object: Value) -> Result<Value, Refused> {
        let text = format!("{object}\n");
        let patch = json!({"metadata": {"annotations": {LAST_APPLIED: text}}});
        crate::objects::merge(&mut object, &patch);
        self.apply(&object).await
    }

    /// Deletes an object. It is no error if the object does not exist.
    pub async fn delete(&self, of: &Name) -> Result<(), Refused> {
        let path = self.path(of);
        found(self.send("DELETE", &path, "application/json", None).await).map(drop)
    }
}

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

fn found(answer: Result<Value, Refused>) -> Result<Option<Value>, Refused> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(refused) if refused.code == 404 => Ok(None),
        Err(refused) => Err(refused),
    }
}

/// Returns the plural of a kind, as paths contain it.
pub fn plural(kind: &str) -> String {
    match kind {
        "Ingress" => "ingresses".to_owned(),
        "Canary" => "canaries".to_owned(),
        "HTTPProxy" => "httpproxies".to_owned(),
        _ => format!("{}s", kind.to_lowercase()),
    }
}
