//! Runs one container: a process that is restarted when it ends, and its probes.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{Container, EnvVar, Pod, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
    jiff::Timestamp,
};
use kube::ResourceExt;
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use serde_json::{Value, json};
use tokio::{
    process::{Child, Command},
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{enter::Launch, images, kubelet::Kubelet, network, pod::Sandbox};
use crate::Error;

/// The longest pause before a restart. A real kubelet waits up to five minutes.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A container that has run for this long is restarted without a pause.
const STEADY: Duration = Duration::from_secs(60);

/// The state of a container.
#[derive(Clone, Debug)]
pub struct State {
    name: String,
    image: String,
    /// Whether it is ready for requests.
    pub ready: bool,
    restarts: u32,
    now: Value,
    last: Value,
}

impl State {
    /// The state of a container that is about to start.
    pub fn new(container: &Container) -> Self {
        Self {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            ready: false,
            restarts: 0,
            now: json!({"waiting": {"reason": "ContainerCreating"}}),
            last: json!({}),
        }
    }

    /// The container's part of the pod's status.
    pub fn status(&self) -> Value {
        json!({"name": self.name, "image": self.image, "imageID": self.image, "containerID": format!("testbed://{}", self.name),
            "ready": self.ready, "started": self.now.get("running").is_some(), "restartCount": self.restarts,
            "state": self.now, "lastState": self.last})
    }
}

/// A container to run.
pub struct Task {
    /// The node's kubelet.
    pub kubelet: Arc<Kubelet>,
    /// The pod's folder and network.
    pub sandbox: Arc<Sandbox>,
    /// The pod.
    pub pod: Pod,
    /// The container's spec.
    pub spec: Container,
    /// Receives the container's state.
    pub state: watch::Sender<State>,
}

/// Runs a container until `stop` is true and its process has ended.
pub async fn run(this: Task, mut stop: watch::Receiver<bool>) {
    let mut pause = Duration::ZERO;
    while !*stop.borrow() {
        let began = Instant::now();
        match this.start() {
            Ok(child) => this.supervise(child, &mut stop).await,
            Err(error) => {
                let waiting = json!({"waiting": {"reason": "CreateContainerError", "message": error.to_string()}});
                this.state.send_modify(|state| state.now = waiting);
            }
        }
        pause = if began.elapsed() > STEADY {
            Duration::ZERO
        } else {
            pause
        };
        tokio::select! {
            () = stopped(&mut stop) => {}
            () = sleep(pause) => {}
        }
        pause = (pause * 2).clamp(Duration::from_secs(1), LONGEST_PAUSE);
    }
}

impl Task {
    fn start(&self) -> Result<Child, Error> {
        let (folder, command) = self.command()?;
        let launch = Launch {
            env: self.env(&folder)?,
            folder,
        };
        let file = self.sandbox.folder.join(format!("{}.json", self.spec.name));
        let text = serde_json::to_vec(&launch).map_err(|e| Error::Failed(e.to_string()))?;
        fs::write(&file, text).map_err(|e| Error::io(&file, e))?;
        let log = self.sandbox.folder.join(format!("{}.log", self.spec.name));
        let out = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(|e| Error::io(&log, e))?;
        let err = out.try_clone().map_err(|e| Error::io(&log, e))?;
        let child = self
            .enter(&command)
            .stdout(out)
            .stderr(err)
            // `killpg` then ends its children too.
            .process_group(0)
            .spawn()
            .map_err(|e| Error::io(&self.kubelet.own, e))?;
        let file = self.sandbox.folder.join(format!("{}.pid", self.spec.name));
        fs::write(&file, child.id().unwrap_or(0).to_string()).map_err(|e| Error::io(&file, e))?;
        Ok(child)
    }

    /// The image's folder, and the command to run in it.
    fn command(&self) -> Result<(PathBuf, Vec<String>), Error> {
        let image = self.spec.image.as_deref().unwrap_or_default();
        let images = self.kubelet.folder.join("images");
        let folder = images::folder(&images, image).ok_or_else(|| {
            let (name, _) = images::split(image);
            Error::Failed(format!(
                "there is no program for image {image}: create the folder {}",
                images.join(name).display()
            ))
        })?;
        let env = self.env(&folder)?;
        let own = self
            .spec
            .command
            .clone()
            .filter(|command| !command.is_empty());
        let mut command = own.unwrap_or_else(|| vec!["./entrypoint".to_owned()]);
        command.extend(self.spec.args.clone().unwrap_or_default());
        let command = command
            .into_iter()
            .map(|word| expand(&word, &env))
            .collect();
        Ok((folder, command))
    }

    fn env(&self, folder: &Path) -> Result<BTreeMap<String, String>, Error> {
        let (_, tag) = images::split(self.spec.image.as_deref().unwrap_or_default());
        let mut path = vec![folder.to_owned(), self.kubelet.envoy.clone()];
        path.extend(std::env::split_paths(
            &std::env::var_os("PATH").unwrap_or_default(),
        ));
        let path = std::env::join_paths(path).map_err(|e| Error::Failed(e.to_string()))?;
        let mut env: BTreeMap<String, String> = [
            ("PATH", path.to_string_lossy().into_owned()),
            ("HOME", "/".to_owned()),
            ("HOSTNAME", self.pod.name_any()),
            (
                "TMPDIR",
                self.sandbox.folder.join("tmp").display().to_string(),
            ),
            // A program that is used for several tags reads its tag here.
            ("IMAGE_TAG", tag.to_owned()),
            ("KUBERNETES_SERVICE_HOST", network::KUBERNETES_IP.to_owned()),
            ("KUBERNETES_SERVICE_PORT", "443".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        for var in self.spec.env.iter().flatten() {
            let value = self.value(var)?;
            env.insert(var.name.clone(), expand(&value, &env));
        }
        Ok(env)
    }

    fn value(&self, var: &EnvVar) -> Result<String, Error> {
        let Some(from) = &var.value_from else {
            return Ok(var.value.clone().unwrap_or_default());
        };
        let field = from
            .field_ref
            .as_ref()
            .map(|field| field.field_path.as_str());
        Ok(match field {
            Some("metadata.name") => self.pod.name_any(),
            Some("metadata.namespace") => self.pod.namespace().unwrap_or_default(),
            Some("metadata.uid") => self.pod.uid().unwrap_or_default(),
            Some("status.podIP") => self.sandbox.ip.to_string(),
            Some("status.hostIP") => network::NODE_IP.to_owned(),
            _ => {
                return Err(Error::Failed(format!(
                    "env {}: a cell does not support this source",
                    var.name
                )));
            }
        })
    }

    /// A command in the container's namespaces, working directory and environment.
    fn enter(&self, command: &[String]) -> Command {
        let mut enter = Command::new(&self.kubelet.own);
        enter
            .arg("enter")
            .arg(&self.sandbox.folder)
            .args([&self.spec.name, "--"])
            .args(command)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        enter
    }

    /// Waits until the process has ended: by itself, because its liveness probe failed, or because of `stop`.
    async fn supervise(&self, mut child: Child, stop: &mut watch::Receiver<bool>) {
        let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) else {
            return;
        };
        let group = Pid::from_raw(id);
        let start = Timestamp::now();
        self.state
            .send_modify(|state| state.now = json!({"running": {"startedAt": start}}));
        let status = tokio::select! {
            status = child.wait() => status,
            () = self.live() => {
                // On an error the process has ended already.
                let _ = killpg(group, Signal::SIGKILL);
                child.wait().await
            }
            () = stopped(stop) => self.end(&mut child, group).await,
        };
        // End the children that the process left behind.
        let _ = killpg(group, Signal::SIGKILL);
        let code = status.ok().and_then(|status| status.code()).unwrap_or(137);
        let ended = json!({"terminated": {"exitCode": code, "reason": if code == 0 { "Completed" } else { "Error" },
            "startedAt": start, "finishedAt": Timestamp::now()}});
        self.state.send_modify(|state| {
            state.ready = false;
            state.restarts += 1;
            state.now = json!({"waiting": {"reason": "CrashLoopBackOff"}});
            state.last = ended;
        });
    }

    async fn end(
        &self,
        child: &mut Child,
        process: Pid,
    ) -> std::io::Result<std::process::ExitStatus> {
        let grace = self.pod.metadata.deletion_grace_period_seconds;
        let grace = grace.or(self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.termination_grace_period_seconds));
        let grace = Duration::from_secs(
            grace
                .and_then(|grace| u64::try_from(grace).ok())
                .unwrap_or(30),
        );
        let hook = self
            .spec
            .lifecycle
            .as_ref()
            .and_then(|life| life.pre_stop.as_ref());
        if let Some(command) = hook.and_then(|hook| hook.exec.as_ref()?.command.clone()) {
            let _ = timeout(grace, self.enter(&command).status()).await;
        }
        let _ = kill(process, Signal::SIGTERM);
        if let Ok(status) = timeout(grace, child.wait()).await {
            return status;
        }
        let _ = killpg(process, Signal::SIGKILL);
        child.wait().await
    }

    /// Runs the probes until the liveness probe fails.
    async fn live(&self) {
        if let Some(probe) = &self.spec.startup_probe {
            while !self.probe(probe).await {
                sleep(Duration::from_secs(1)).await;
            }
        }
        tokio::select! {
            () = self.watch_readiness() => {}
            () = self.watch_liveness() => {}
        }
    }

    async fn watch_readiness(&self) {
        let Some(probe) = &self.spec.readiness_probe else {
            self.state.send_modify(|state| state.ready = true);
            return std::future::pending().await;
        };
        sleep(seconds(probe.initial_delay_seconds, 0)).await;
        let mut failures = 0;
        loop {
            failures = if self.probe(probe).await {
                0
            } else {
                failures + 1
            };
            let ready = self.state.borrow().ready;
            if failures == 0 && !ready {
                self.state.send_modify(|state| state.ready = true);
            } else if failures >= probe.failure_threshold.unwrap_or(3) && ready {
                self.state.send_modify(|state| state.ready = false);
            }
            // Probe often until the container is ready, so that tests are fast.
            let ready = self.state.borrow().ready;
            sleep(if ready {
                seconds(probe.period_seconds, 10)
            } else {
                Duration::from_millis(500)
            })
            .await;
        }
    }

    async fn watch_liveness(&self) {
        let Some(probe) = &self.spec.liveness_probe else {
            return std::future::pending().await;
        };
        sleep(seconds(probe.initial_delay_seconds, 0)).await;
        let mut failures = 0;
        while failures < probe.failure_threshold.unwrap_or(3) {
            sleep(seconds(probe.period_seconds, 10)).await;
            failures = if self.probe(probe).await {
                0
            } else {
                failures + 1
            };
        }
    }

    /// Runs a probe from inside the pod: a request from outside would pass the proxy and count as traffic.
    async fn probe(&self, probe: &Probe) -> bool {
        let ip = self.sandbox.ip;
        let own = self.kubelet.own.display().to_string();
        let ask = |url: String| vec![own.clone(), "probe".to_owned(), url];
        let command = if let Some(exec) = &probe.exec {
            exec.command.clone().unwrap_or_default()
        } else if let Some(http) = &probe.http_get {
            let path = http.path.as_deref().unwrap_or("/");
            ask(format!(
                "http://{ip}:{}/{}",
                self.port(&http.port),
                path.trim_start_matches('/')
            ))
        } else if let Some(tcp) = &probe.tcp_socket {
            ask(format!("tcp://{ip}:{}", self.port(&tcp.port)))
        } else {
            return true;
        };
        let mut probed = self.enter(&command);
        probed.stdout(Stdio::null()).stderr(Stdio::null());
        let answered = timeout(seconds(probe.timeout_seconds, 1), probed.status()).await;
        answered.is_ok_and(|status| status.is_ok_and(|status| status.success()))
    }

    fn port(&self, port: &IntOrString) -> i32 {
        match port {
            IntOrString::Int(number) => *number,
            IntOrString::String(name) => {
                let mut ports = self.spec.ports.iter().flatten();
                let named = ports.find(|port| port.name.as_ref() == Some(name));
                named.map_or(0, |port| port.container_port)
            }
        }
    }
}

/// Waits until `stop` is true.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A dropped sender means stop, too.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(
        value
            .and_then(|value| u64::try_from(value).ok())
            .unwrap_or(default),
    )
}

/// Replaces `$(NAME)` by the value of NAME in the environment.
fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    env.iter().fold(text.to_owned(), |text, (name, value)| {
        text.replace(&format!("$({name})"), value)
    })
}
