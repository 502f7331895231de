//! A real Kubernetes control plane on this machine, for the operator's tests and its demo: no containers, no root.
//!
//! ```text
//!   etcd ◄── kube-apiserver ◄── kube-controller-manager        real, as processes on loopback
//!                  ▲  ▲
//!    node agent ───┘  └─── operator under test ──HTTP_PROXY──► fakes: Prometheus, load tester, chats, event webhook
//!    (pods become Running and Ready)                              (metrics follow from the routed weights and ready pods)
//! ```
//!
//! A [`Bed`] is a value: it starts all, and when it is dropped, or this process ends in whatever way, all is gone. Several beds can
//! run at once. Where something fails, the folder with all logs is kept and named.

pub mod agent;
pub mod binaries;
pub mod control_plane;
pub mod fakes;
pub mod operator;
pub mod process;
pub mod wait;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
};

use kube::{Client, core::Request};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use agent::Agent;
use binaries::Binaries;
use control_plane::ControlPlane;
use fakes::Fakes;
use operator::Operator;

/// Istio's kinds, as far as a release needs them.
const ISTIO: &str = include_str!("../crds/istio.yaml");

/// Why a bed, or something in it, failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or a program.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: String,
        /// What of it.
        error: std::io::Error,
    },
    /// Something that must be there is not.
    #[error("{0}")]
    Missing(String),
    /// A program ended by itself.
    #[error("{name} ended by itself ({status}); its last words:\n{log}")]
    Ended {
        /// Which.
        name: String,
        /// How.
        status: String,
        /// What it said.
        log: String,
    },
    /// A component did not start.
    #[error("{error}; its last words:\n{log}")]
    Start {
        /// Why.
        error: String,
        /// What it said.
        log: String,
    },
    /// What was waited for did not come.
    #[error("waited in vain for {what}; last seen: {last}")]
    Timeout {
        /// For what.
        what: String,
        /// What was seen instead.
        last: String,
    },
    /// The API server refused, or could not be asked.
    #[error(transparent)]
    Kube(#[from] kube::Error),
}

impl Error {
    fn io(path: &Path, error: std::io::Error) -> Self {
        Self::Io {
            path: path.display().to_string(),
            error,
        }
    }
}

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
    binaries: Binaries,
    client: Client,
    folder: PathBuf,
    _agent: Agent,
    keep: bool,
}

impl Drop for Bed {
    fn drop(&mut self) {
        if self.keep || std::thread::panicking() {
            eprintln!("testbed: logs are in {}", self.folder.display());
        } else {
            // Files that cannot be removed are the system's to clean.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

impl Bed {
    /// Starts a bed, with Istio's kinds. The first time on a machine this builds the control plane.
    pub async fn start() -> Result<Self, Error> {
        let binaries = tokio::task::spawn_blocking(binaries::find_or_build)
            .await
            .map_err(|e| Error::Missing(e.to_string()))??;
        let folder = new_folder()?;
        let plane = ControlPlane::start(binaries.clone(), &folder)
            .await
            .inspect_err(|_| {
                eprintln!("testbed: logs are in {}", folder.display());
            })?;
        let client = plane.client(&plane.kubeconfig()).await?;
        let fakes = Fakes::start(client.clone()).await?;
        let agent = Agent::start(client.clone());
        let bed = Self {
            plane,
            fakes,
            binaries,
            client,
            folder,
            _agent: agent,
            keep: false,
        };
        bed.apply(ISTIO).await?;
        Ok(bed)
    }

    /// A client with all rights.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Where the logs are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps the folder when the bed ends.
    pub const fn keep_folder(&mut self) {
        self.keep = true;
    }

    /// Runs kubectl with all rights; what it printed, or what it complained of.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String, Error> {
        self.kubectl_with(args, "").await
    }

    /// `kubectl apply` of YAML; waits until CRDs are served.
    pub async fn apply(&self, yaml: &str) -> Result<String, Error> {
        let applied = self
            .kubectl_with(
                &["apply", "--server-side", "--force-conflicts", "-f", "-"],
                yaml,
            )
            .await?;
        self.established(&applied).await?;
        Ok(applied)
    }

    /// `kubectl apply -k`; waits until CRDs are served.
    pub async fn apply_kustomize(&self, folder: &Path) -> Result<String, Error> {
        let applied = self
            .kubectl(&["apply", "-k", &folder.display().to_string()])
            .await?;
        self.established(&applied).await?;
        Ok(applied)
    }

    async fn established(&self, applied: &str) -> Result<(), Error> {
        let crds: Vec<_> = applied
            .split_whitespace()
            .filter(|word| word.starts_with("customresourcedefinition"))
            .collect();
        if !crds.is_empty() {
            let mut args = vec!["wait", "--for=condition=Established", "--timeout=30s"];
            args.extend(crds);
            self.kubectl(&args).await?;
        }
        Ok(())
    }

    async fn kubectl_with(&self, args: &[&str], input: &str) -> Result<String, Error> {
        let io = |e| Error::io(&self.binaries.kubectl, e);
        let mut child = tokio::process::Command::new(&self.binaries.kubectl)
            .arg("--kubeconfig")
            .arg(self.plane.kubeconfig())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(io)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await.map_err(io)?;
        }
        let output = child.wait_with_output().await.map_err(io)?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(Error::Missing(format!(
                "kubectl {}: {}",
                args.join(" "),
                String::from_utf8_lossy(&output.stderr)
            )))
        }
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
            .map_err(|e| Error::Missing(e.to_string()))?;
        let answer: Value = self.client.request(request).await?;
        let token = answer
            .pointer("/status/token")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let path = self
            .folder
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
            &self.folder,
        )
        .await
    }

    /// What `ServiceAccounts` asked the API server for so far.
    pub fn audit(&self) -> Result<Vec<Audit>, Error> {
        let path = self.folder.join("audit.log");
        let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        Ok(text
            .lines()
            .filter_map(|line| serde_json::from_str::<AuditLine>(line).ok())
            .filter_map(AuditLine::read)
            .collect())
    }

    /// Ends all; the folder goes, unless it is to be kept.
    pub async fn stop(mut self) {
        // The plane is a field: what remains of the bed drops after it.
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

/// A folder of our own, for this bed.
fn new_folder() -> Result<PathBuf, Error> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("testbed-{}-{count}", std::process::id()));
    fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
    Ok(folder)
}
