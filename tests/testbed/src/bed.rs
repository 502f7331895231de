//! The fast bed: a control plane whose pods are names only, and fakes for all that an operator calls.

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
    operator::Operator,
};

/// What every bed knows besides Kubernetes' own kinds.
const CRDS: [&str; 4] = [
    "istio-crds.yaml",
    "gateway-api-crds.yaml",
    "keda-crds.yaml",
    "contour-crds.yaml",
];
/// What SMI published is of a form that API servers have dropped.
const TRAFFIC_SPLITS: &str = include_str!("trafficsplits.yaml");

/// Who an operator that a bed [installs](Bed::install) is to the API server.
pub const ACCOUNT: &str = "system:serviceaccount:istio-system:flagger";

/// One line of the API server's audit log: what a `ServiceAccount` asked for.
#[derive(Clone, Debug)]
pub struct Audit {
    /// Who.
    pub user: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`.
    pub verb: String,
    /// The API group; empty for the core.
    pub group: String,
    /// The resource, with its subresource if there is one (`canaries/status`).
    pub resource: String,
    /// Where, if anywhere.
    pub namespace: String,
    /// Which, if one.
    pub name: String,
    /// The HTTP status of the answer.
    pub code: u16,
}

/// A control plane with a node agent and the servers that an operator calls.
pub struct Bed {
    /// etcd, API server, controller manager.
    pub plane: ControlPlane,
    /// Metrics, webhooks, chats.
    pub fakes: Fakes,
    kubectl: Kubectl,
    client: Client,
    _agent: Agent,
    /// The last to be dropped: the others write to it.
    folder: Folder,
}

impl Bed {
    /// Starts a bed, with the kinds of Istio, Gateway API, KEDA, Contour and SMI. The first time on a machine this builds the control plane.
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

    /// A client with all rights.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Where the logs are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Keeps the folder when the bed ends.
    pub const fn keep_folder(&mut self) {
        self.folder.keep();
    }

    /// kubectl with all rights, for who needs it longer than the bed can be borrowed.
    pub fn cli(&self) -> Kubectl {
        self.kubectl.clone()
    }

    /// Runs kubectl with all rights; what it printed, or what it complained of.
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

    /// A kubeconfig with no more than a `ServiceAccount`'s rights: with a token of its own, as a pod would have it.
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

    /// Installs an operator from a kustomize overlay for `istio-system`, as a user does; what kubectl said, and a kubeconfig with its
    /// rights. Its own pod is scaled to zero: it has no container here, the process under test stands for it.
    pub async fn install(&self, overlay: &Path) -> Result<(String, PathBuf), Error> {
        self.kubectl(&["create", "namespace", "istio-system"])
            .await?;
        let said = self.apply_kustomize(overlay).await?;
        self.kubectl(&[
            "-n",
            "istio-system",
            "scale",
            "deployment/flagger",
            "--replicas=0",
        ])
        .await?;
        Ok((said, self.kubeconfig_of("istio-system", "flagger").await?))
    }

    /// Starts an operator under a kubeconfig's rights.
    pub async fn operator(
        &self,
        name: &str,
        program: &Path,
        kubeconfig: &Path,
        args: &[&str],
    ) -> Result<Operator, Error> {
        Operator::start(
            name,
            program,
            kubeconfig,
            &self.fakes.proxy(),
            args,
            self.folder.path(),
        )
        .await
    }

    /// What `ServiceAccounts` asked the API server for so far.
    pub fn audit(&self) -> Result<Vec<Audit>, Error> {
        let path = self.folder.path().join("audit.log");
        let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        Ok(text
            .lines()
            .filter_map(|line| serde_json::from_str::<AuditLine>(line).ok())
            .filter_map(AuditLine::read)
            .collect())
    }

    /// Ends all; the folder goes, unless it is to be kept.
    pub async fn stop(self) {
        // What remains of the bed is dropped.
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
