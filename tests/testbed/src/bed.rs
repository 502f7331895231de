//! A bed: a control plane without nodes, and fakes for the servers that an operator calls.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use kube::{Client, core::Request};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Error,
    agent::Agent,
    binaries,
    control_plane::{self, ControlPlane, Place},
    fakes::Fakes,
    folder::Folder,
    kubectl::Kubectl,
    operator::{Launch, Operator},
};

/// The CRDs that every bed installs.
const CRDS: [&str; 5] = [
    "istio-crds.yaml",
    "gateway-api-crds.yaml",
    "keda-crds.yaml",
    "contour-crds.yaml",
    "knative-crds.yaml",
];
/// SMI's own CRDs have a version (`apiextensions.k8s.io/v1beta1`) that API servers no longer accept.
const TRAFFIC_SPLITS: &str = include_str!("trafficsplits.yaml");
/// App Mesh's kinds, for [`Bed::apply`]. (Its own CRDs are in no module that this project builds.) With them, kubectl needs the full name
/// of Istio's VirtualServices.
pub const APP_MESH: &str = include_str!("appmesh.yaml");
/// The kinds of routers for [`Bed::apply`], besides those that every bed has: the CRDs as far as routes need them.
pub const ROUTERS: [&str; 5] = [
    include_str!("apisix.yaml"),
    APP_MESH,
    include_str!("gloo.yaml"),
    include_str!("kuma.yaml"),
    include_str!("traefik.yaml"),
];

/// The user name of an operator that a bed [installs](Bed::install).
pub const ACCOUNT: &str = "system:serviceaccount:istio-system:flagger";

/// One line of the API server's audit log: a request of a ServiceAccount.
#[derive(Clone, Debug)]
pub struct Audit {
    /// The user name.
    pub user: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`.
    pub verb: String,
    /// The API group; empty for the core.
    pub group: String,
    /// The resource, with its subresource if there is one (`canaries/status`).
    pub resource: String,
    /// The namespace; empty for cluster-wide requests.
    pub namespace: String,
    /// The object's name; empty for lists, watches and creates.
    pub name: String,
    /// The HTTP status of the answer.
    pub code: u16,
}

/// A control plane with a node agent and the servers that an operator calls.
pub struct Bed {
    /// etcd, API server, controller manager.
    pub plane: ControlPlane,
    /// The fake servers of metrics, webhooks and chats.
    pub fakes: Fakes,
    kubectl: Kubectl,
    client: Client,
    _agent: Agent,
    /// The last field, so that it is dropped last: the others write to the folder.
    folder: Folder,
}

impl Bed {
    /// Starts a bed with the CRDs of Istio, Gateway API, KEDA, Contour, Knative and SMI. The first start on a machine builds the control
    /// plane.
    pub async fn start() -> Result<Self, Error> {
        let find = || binaries::find_or_build(&[binaries::CONTROL_PLANE, binaries::CRDS]);
        let binaries = tokio::task::spawn_blocking(find)
            .await
            .map_err(|e| Error::Failed(e.to_string()))??;
        let mut folder = Folder::new()?;
        let plane = ControlPlane::start(binaries.clone(), folder.path(), Place::Loopback)
            .await
            .inspect_err(|_| folder.keep())?;
        let kubectl = Kubectl::new(binaries.path("kubectl")?.to_owned(), plane.kubeconfig());
        let client = control_plane::client(&plane.kubeconfig()).await?;
        let fakes = Fakes::start(client.clone()).await?;
        let agent = Agent::start(client.clone());
        let bed = Self {
            plane,
            fakes,
            kubectl,
            client,
            _agent: agent,
            folder,
        };
        for file in CRDS {
            let path = binaries.path(file)?;
            let crds = fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
            bed.apply(&crds).await?;
        }
        bed.apply(TRAFFIC_SPLITS).await?;
        Ok(bed)
    }

    /// A client with administrator's rights.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The folder with the logs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Keeps the folder when the bed is dropped.
    pub const fn keep_folder(&mut self) {
        self.folder.keep();
    }

    /// A kubectl with administrator's rights that does not borrow the bed.
    pub fn cli(&self) -> Kubectl {
        self.kubectl.clone()
    }

    /// Runs kubectl with administrator's rights. Returns its output; an error has its error output.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String, Error> {
        self.kubectl.run(args).await
    }

    /// `kubectl apply` of YAML; waits until CRDs are served.
    pub async fn apply(&self, yaml: &str) -> Result<String, Error> {
        self.kubectl.apply(yaml).await
    }

    /// `kubectl apply -k`; waits until CRDs are served.
    pub async fn apply_kustomize(&self, folder: &Path) -> Result<String, Error> {
        self.kubectl.apply_kustomize(folder).await
    }

    /// A kubeconfig with the token, and so the rights, of a ServiceAccount.
    pub async fn kubeconfig_of(
        &self,
        namespace: &str,
        service_account: &str,
    ) -> Result<PathBuf, Error> {
        let request = Request::new(format!("/api/v1/namespaces/{namespace}/serviceaccounts"));
        let token = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}});
        let request = request
            .create_subresource(
                "token",
                service_account,
                &kube::api::PostParams::default(),
                token.to_string().into_bytes(),
            )
            .map_err(|e| Error::Failed(e.to_string()))?;
        let answer: Value = self.client.request(request).await?;
        let token = answer
            .pointer("/status/token")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let path = self
            .folder
            .path()
            .join(format!("{namespace}-{service_account}.kubeconfig"));
        fs::write(&path, self.plane.kubeconfig_with(token, Some(namespace)))
            .map_err(|e| Error::io(&path, e))?;
        Ok(path)
    }

    /// Installs an operator from a kustomize overlay for `istio-system`, as a user does. Returns kubectl's output, and a kubeconfig with
    /// the operator's rights. Its Deployment is scaled to zero, because the operator under test is a process, not a pod.
    pub async fn install(&self, overlay: &Path) -> Result<(String, PathBuf), Error> {
        self.kubectl(&["create", "namespace", "istio-system"])
            .await?;
        let output = self.apply_kustomize(overlay).await?;
        self.kubectl(&[
            "-n",
            "istio-system",
            "scale",
            "deployment/flagger",
            "--replicas=0",
        ])
        .await?;
        Ok((output, self.kubeconfig_of("istio-system", "flagger").await?))
    }

    /// Starts an operator with the rights of a kubeconfig. Its HTTP requests go to the fakes.
    pub async fn operator(
        &self,
        name: &str,
        program: &Path,
        kubeconfig: &Path,
        args: &[&str],
    ) -> Result<Operator, Error> {
        Operator::start(Launch {
            name,
            program,
            kubeconfig,
            proxy: &self.fakes.proxy(),
            args,
            logs: self.folder.path(),
        })
        .await
    }

    /// All requests that ServiceAccounts have sent to the API server so far.
    pub fn audit(&self) -> Result<Vec<Audit>, Error> {
        let path = self.folder.path().join("audit.log");
        let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        Ok(text
            .lines()
            .filter_map(|line| serde_json::from_str::<AuditLine>(line).ok())
            .filter_map(AuditLine::read)
            .collect())
    }

    /// Stops everything. Deletes the folder, unless it is kept.
    pub async fn stop(self) {
        // Dropping the bed ends the rest.
        self.plane.stop_apiserver().await;
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuditLine {
    user: BTreeMap<String, Value>,
    verb: String,
    object_ref: Option<AuditObject>,
    response_status: Option<BTreeMap<String, Value>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AuditObject {
    resource: String,
    subresource: String,
    api_group: String,
    namespace: String,
    name: String,
}

impl AuditLine {
    fn read(self) -> Option<Audit> {
        let object = self.object_ref?;
        let code = self
            .response_status
            .and_then(|status| status.get("code")?.as_u64());
        let resource = if object.subresource.is_empty() {
            object.resource
        } else {
            format!("{}/{}", object.resource, object.subresource)
        };
        Some(Audit {
            user: self
                .user
                .get("username")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            verb: self.verb,
            group: object.api_group,
            resource,
            namespace: object.namespace,
            name: object.name,
            code: code.and_then(|code| u16::try_from(code).ok()).unwrap_or(0),
        })
    }
}
