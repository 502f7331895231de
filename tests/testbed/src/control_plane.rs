//! etcd, kube-apiserver and kube-controller-manager.

use std::{
    fs,
    net::TcpListener,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use kube::{Client, Config, config::KubeConfigOptions};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{Error, binaries::Binaries, cell::network, process::Process, wait::until};

/// The administrator's token.
pub const TOKEN: &str = "testbed-admin";
/// The longest time in which a component must start.
const START: Duration = Duration::from_secs(60);

/// The network that a control plane listens on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Loopback, on free ports. Nodes and Services have no network.
    Loopback,
    /// The network namespace of a cell, on the usual ports.
    Cell,
}

/// A running control plane.
pub struct ControlPlane {
    binaries: Binaries,
    folder: PathBuf,
    place: Place,
    etcd: Part,
    apiserver: Part,
    controller_manager: Part,
    etcd_url: String,
    etcd_peer_url: String,
    port: u16,
}

/// A process of the control plane that a test may stop and start again while others use it.
#[derive(Default)]
struct Part(Mutex<Option<Process>>);

impl Part {
    fn put(&self, process: Process) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
    }

    /// Sends SIGKILL and waits for the end.
    async fn kill(&self) {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(process) = taken {
            process.kill().await;
        }
    }

    fn signal(&self, signal: Signal) -> Result<(), Error> {
        let process = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        process
            .as_ref()
            .map_or(Ok(()), |process| process.signal(signal))
    }
}

impl ControlPlane {
    /// Starts etcd, the API server and the controller manager, with their files in this folder.
    pub async fn start(binaries: Binaries, folder: &Path, place: Place) -> Result<Self, Error> {
        let key = rcgen::KeyPair::generate().map_err(|e| Error::Failed(format!("a key: {e}")))?;
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).map_err(|e| Error::io(&path, e))
        };
        write("sa.key", &key.serialize_pem())?;
        write("sa.pub", &key.public_key_pem())?;
        write(
            "tokens.csv",
            &format!("{TOKEN},admin,admin,system:masters\n"),
        )?;
        write("audit.yaml", AUDIT_POLICY)?;
        let [port, etcd, peer] = match place {
            Place::Loopback => free_ports()?,
            Place::Cell => [network::API_PORT, 2379, 2380],
        };
        let plane = Self {
            binaries,
            folder: folder.to_owned(),
            place,
            etcd: Part::default(),
            apiserver: Part::default(),
            controller_manager: Part::default(),
            etcd_url: format!("http://127.0.0.1:{etcd}"),
            etcd_peer_url: format!("http://127.0.0.1:{peer}"),
            port,
        };
        write("admin.kubeconfig", &plane.kubeconfig_with(TOKEN, None))?;
        plane.start_etcd()?;
        plane.start_apiserver().await?;
        plane.start_controller_manager()?;
        Ok(plane)
    }

    /// The URL of the API server.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("admin.kubeconfig")
    }

    /// A kubeconfig with this token, and with the API server's certificate as the one to trust.
    pub fn kubeconfig_with(&self, token: &str, namespace: Option<&str>) -> String {
        kubeconfig(&self.folder, &self.url(), token, namespace)
    }

    /// Starts etcd. A restarted etcd has its earlier data.
    pub fn start_etcd(&self) -> Result<(), Error> {
        let args = [
            format!("--data-dir={}", self.folder.join("etcd").display()),
            format!("--listen-client-urls={}", self.etcd_url),
            format!("--advertise-client-urls={}", self.etcd_url),
            format!("--listen-peer-urls={}", self.etcd_peer_url),
            "--unsafe-no-fsync".to_owned(),
            "--log-level=error".to_owned(),
        ];
        let program = self.binaries.path("etcd")?;
        let process = Process::start("etcd", program, &args, &[], &self.folder)?;
        self.etcd.put(process);
        Ok(())
    }

    /// Kills etcd.
    pub async fn stop_etcd(&self) {
        self.etcd.kill().await;
    }

    /// Stops etcd with SIGSTOP, or resumes it with SIGCONT.
    pub fn freeze_etcd(&self, frozen: bool) -> Result<(), Error> {
        let signal = if frozen {
            Signal::SIGSTOP
        } else {
            Signal::SIGCONT
        };
        self.etcd.signal(signal)
    }

    /// Compacts etcd's history up to now: watches from earlier resourceVersions fail with 410, and their clients list again.
    pub async fn compact_etcd(&self) -> Result<(), Error> {
        let ask = async |what: &str, body: Value| -> reqwest::Result<Value> {
            let url = format!("{}/v3/kv/{what}", self.etcd_url);
            let direct = reqwest::Client::builder().no_proxy().build()?;
            let request = direct.post(url).body(body.to_string());
            let answer = request.send().await?.error_for_status()?.text().await?;
            Ok(serde_json::from_str(&answer).unwrap_or_default())
        };
        let failed = |error: reqwest::Error| Error::Failed(format!("etcd: {error}"));
        let any = ask("range", json!({"key": "YQ=="})).await.map_err(failed)?;
        let revision = any.pointer("/header/revision").cloned();
        ask("compaction", json!({"revision": revision}))
            .await
            .map_err(failed)?;
        Ok(())
    }

    fn apiserver_args(&self) -> Vec<String> {
        let file = |name: &str| self.folder.join(name).display().to_string();
        let (bind, advertise, endpoint) = match self.place {
            // The API server refuses a loopback address as an endpoint, and a bed needs no endpoint.
            Place::Loopback => ("127.0.0.1", "127.0.0.1", "none"),
            Place::Cell => ("0.0.0.0", network::NODE_IP, "lease"),
        };
        [
            format!("--etcd-servers={}", self.etcd_url),
            format!("--secure-port={}", self.port),
            format!("--bind-address={bind}"),
            format!("--advertise-address={advertise}"),
            format!("--endpoint-reconciler-type={endpoint}"),
            "--allow-privileged=true".to_owned(),
            format!("--cert-dir={}", file("certs")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-signing-key-file={}", file("sa.key")),
            format!("--service-account-key-file={}", file("sa.pub")),
            format!("--token-auth-file={}", file("tokens.csv")),
            "--authorization-mode=RBAC".to_owned(),
            "--feature-gates=MutatingAdmissionPolicy=true".to_owned(),
            "--runtime-config=admissionregistration.k8s.io/v1beta1=true".to_owned(),
            format!("--service-cluster-ip-range={}", network::SERVICES),
            format!("--audit-policy-file={}", file("audit.yaml")),
            format!("--audit-log-path={}", file("audit.log")),
            // Never rotate: readers of the audit log read one file.
            "--audit-log-maxsize=0".to_owned(),
        ]
        .to_vec()
    }

    /// Starts the API server, for the first time or again.
    pub async fn start_apiserver(&self) -> Result<(), Error> {
        let args = self.apiserver_args();
        let mut process = Process::start(
            "kube-apiserver",
            self.binaries.path("kube-apiserver")?,
            &args,
            &[],
            &self.folder,
        )?;
        let kubeconfig = self.kubeconfig();
        let ready = until(START, "the API server to be ready", async || {
            process.must_run().map_err(|e| e.to_string())?;
            let client = client(&kubeconfig).await.map_err(|e| e.to_string())?;
            let request = http::Request::get("/readyz")
                .body(Vec::new())
                .map_err(|e| e.to_string())?;
            client
                .request_text(request)
                .await
                .map_err(|e| e.to_string())
        })
        .await;
        let failure = ready.err().map(|error| Error::Start {
            error: error.to_string(),
            log: process.log_tail(),
        });
        self.apiserver.put(process);
        failure.map_or(Ok(()), Err)
    }

    /// Kills the API server.
    pub async fn stop_apiserver(&self) {
        self.apiserver.kill().await;
    }

    /// Kills the controller manager: from now on no pods are created, and no orphans are deleted.
    pub async fn stop_controllers(&self) {
        self.controller_manager.kill().await;
    }

    fn start_controller_manager(&self) -> Result<(), Error> {
        let file = |name: &str| self.folder.join(name).display().to_string();
        let args = [
            format!("--kubeconfig={}", file("admin.kubeconfig")),
            format!("--service-account-private-key-file={}", file("sa.key")),
            format!("--root-ca-file={}", file("certs/apiserver.crt")),
            "--leader-elect=false".to_owned(),
            "--controllers=*,-nodeipam,-cloud-node-lifecycle-controller".to_owned(),
            "--secure-port=0".to_owned(),
            "--kube-api-qps=200".to_owned(),
            "--kube-api-burst=400".to_owned(),
            "--horizontal-pod-autoscaler-sync-period=2s".to_owned(),
        ];
        let process = Process::start(
            "kube-controller-manager",
            self.binaries.path("kube-controller-manager")?,
            &args,
            &[],
            &self.folder,
        )?;
        self.controller_manager.put(process);
        Ok(())
    }

    /// Kills all processes of the control plane.
    pub async fn stop(self) {
        for part in [self.controller_manager, self.apiserver, self.etcd] {
            part.kill().await;
        }
    }
}

/// A kubeconfig for this token and this address of the API server, whose certificate is in `folder`.
pub fn kubeconfig(folder: &Path, server: &str, token: &str, namespace: Option<&str>) -> String {
    json!({"apiVersion": "v1", "kind": "Config", "current-context": "testbed",
        "clusters": [{"name": "testbed", "cluster": {"server": server, "certificate-authority": folder.join("certs/apiserver.crt"),
            // The certificate is valid for this name, but not for every address.
            "tls-server-name": "kubernetes.default.svc"}}],
        "users": [{"name": "user", "user": {"token": token}}],
        "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": "user", "namespace": namespace.unwrap_or("default")}}]})
    .to_string()
}

/// A client with the rights of a kubeconfig.
pub async fn client(kubeconfig: &Path) -> Result<Client, Error> {
    let text = fs::read_to_string(kubeconfig).map_err(|e| Error::io(kubeconfig, e))?;
    let kubeconfig = serde_json::from_str(&text).map_err(|e| Error::Failed(e.to_string()))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let config = config.map_err(|e| Error::Failed(e.to_string()))?;
    Client::try_from(config).map_err(Error::Kube)
}

const AUDIT_POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
# A watch is logged when it starts, because it may never end.
omitStages: [RequestReceived]
rules:
- level: Metadata
  userGroups: [system:serviceaccounts]
- level: None
";

/// The range of ports to choose from. It is below the NodePorts of Kubernetes, and below the ephemeral ports of Linux: an outgoing
/// connection could take one of those before the server listens.
const PORTS: Range<u16> = 10_000..30_000;

/// Returns ports that no process listens on. No port is returned twice.
pub fn free_ports<const N: usize>() -> Result<[u16; N], Error> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let count = u32::from(PORTS.end - PORTS.start);
    // Different processes start at different ports.
    let begin = std::process::id().wrapping_mul(997);
    let mut ports = [0; N];
    for port in &mut ports {
        let mut tries = (0..count).map(|_| {
            let n = begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % count;
            PORTS.start + u16::try_from(n).unwrap_or_default()
        });
        *port = tries
            .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
            .ok_or_else(|| {
                let none = std::io::Error::from(std::io::ErrorKind::AddrInUse);
                Error::io(Path::new("loopback"), none)
            })?;
    }
    Ok(ports)
}
