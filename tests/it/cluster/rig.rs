//! Runs the operator for these tests: as a process with the rights of its ServiceAccount, on a real control plane.

use std::path::{Path, PathBuf};

use testbed::{
    Bed,
    bed::{APP_MESH, ROUTERS},
    operator::Operator,
    proxy::Proxy,
    wait::until,
};

use super::{Outcome, PATIENCE, ensure, text};
use crate::files;
use flagger_rs::shell::api_server::lease;

pub const FLAGGER: &str = env!("CARGO_BIN_EXE_flagger");

/// The beginning of a description that only our CRDs have: it shows which CRDs the API server serves.
const OUR_DESCRIPTION: &str = "The webhooks that the operator calls during a release";

/// A control plane, and an operator with the rights of its ServiceAccount, if one was started.
pub struct Rig {
    pub bed: Bed,
    pub operator: Option<Operator>,
    kubeconfig: PathBuf,
}

impl Rig {
    /// A control plane with the operator installed and running.
    pub async fn start(args: &[&str]) -> Self {
        let mut rig = Self::idle().await;
        rig.operator = Some(rig.launch("flagger", args).await.unwrap());
        rig
    }

    /// A control plane with the operator installed as by `kubectl apply -k kustomize/istio`, with the rights for the other routers too, but
    /// not running.
    pub async fn idle() -> Self {
        let bed = Bed::start().await.unwrap();
        for kinds in ROUTERS {
            bed.apply(kinds).await.unwrap();
        }
        let (installed, kubeconfig) = bed
            .install(&files::path("tests/all-routers"))
            .await
            .unwrap();
        assert_eq!(installed.lines().count(), 14, "{installed}");
        for (overlay, file) in [
            ("kustomize/istio", "istio"),
            ("kustomize/tester", "loadtester"),
        ] {
            let built = files::path(overlay).display().to_string();
            let plain = bed.kubectl(&["kustomize", &built]).await.unwrap();
            let file = format!("deploy/{file}.yaml");
            assert!(
                plain == std::fs::read_to_string(files::path(&file)).unwrap(),
                "{file} is stale: kubectl kustomize {overlay} > {file}"
            );
        }
        // In several scenarios, people control releases by actions.
        bed.apply_kustomize(&files::path("kustomize/actions"))
            .await
            .unwrap();
        // Until the API server has opened the storage of a new kind, it asks clients to try again, and scenarios count requests.
        bed.kubectl(&["get", "releases", "--all-namespaces"])
            .await
            .unwrap();
        Self {
            bed,
            kubeconfig,
            operator: None,
        }
    }

    /// A control plane without an operator and without its CRDs.
    pub async fn bare() -> Self {
        let bed = Bed::start().await.unwrap();
        bed.apply(APP_MESH).await.unwrap();
        Self {
            kubeconfig: bed.plane.kubeconfig(),
            bed,
            operator: None,
        }
    }

    /// Starts an operator with the rights of its ServiceAccount, and with flags of Flagger.
    pub async fn launch(&self, name: &str, args: &[&str]) -> Result<Operator, String> {
        self.launch_with(&self.kubeconfig, name, args).await
    }

    /// Starts a proxy for the requests of an operator, with the rights of its ServiceAccount.
    pub async fn proxy(&self, name: &str) -> Result<Proxy, String> {
        Proxy::start(name, &self.kubeconfig, self.bed.folder())
            .await
            .map_err(text)
    }

    /// Starts an operator with this kubeconfig.
    pub async fn launch_with(
        &self,
        kubeconfig: &Path,
        name: &str,
        args: &[&str],
    ) -> Result<Operator, String> {
        let mut all = vec![
            "-log-level=debug",
            "-mesh-provider=istio",
            "-metrics-server=http://prometheus:9090",
            "-slack-url=http://slack/global",
            "-slack-channel=general",
            "-event-webhook=http://events/all",
        ];
        all.extend(args);
        self.bed
            .operator(name, Path::new(FLAGGER), kubeconfig, &all)
            .await
            .map_err(text)
    }

    /// A kubeconfig with the rights of the operator's ServiceAccount.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Gives the operator's ServiceAccount the rights for leader election in this namespace, as our manifests do in the operator's.
    pub async fn may_lead_in(&self, namespace: &str) -> Outcome {
        self.may_hold(&lease::name(None), namespace).await
    }

    /// The same for the Lease of this name.
    pub async fn may_hold(&self, lease: &str, namespace: &str) -> Outcome {
        let account = files::path("kustomize/base/flagger/account.yaml");
        let account = std::fs::read_to_string(account).map_err(text)?;
        let name = format!("[{}]", lease::name(None));
        // Each Lease has a Role of its own.
        let account = account.replace(&name, &format!("[{lease}]")).replace(
            "name: flagger-leader-election\n",
            &format!("name: {lease}\n"),
        );
        let parts = account.split("\n---\n");
        let parts = parts.filter(|part| part.contains(&format!("name: {lease}\n")));
        let parts: Vec<_> = parts
            .map(|part| {
                let metadata = format!("metadata:\n  namespace: {namespace}\n");
                let part = part.trim_end().replace("metadata:\n", &metadata);
                let account = "    name: flagger";
                match part.strip_suffix(account) {
                    Some(binding) => format!("{binding}{account}\n    namespace: istio-system\n"),
                    None => part + "\n",
                }
            })
            .collect();
        ensure(parts.len() == 2, account)?;
        let applied = self.bed.apply(&parts.join("---\n")).await;
        applied.map(drop).map_err(text)
    }

    /// Replaces our CRDs and rights by Flagger's, as on a cluster where only the image was changed.
    pub async fn with_flaggers_kinds_and_rights(&self) -> Outcome {
        let find = || testbed::binaries::find_or_build(&[testbed::binaries::FLAGGER]);
        let found = tokio::task::spawn_blocking(find).await.map_err(text)?;
        let found = found.map_err(text)?;
        let kubectl = async |args: &[&str]| self.bed.kubectl(args).await.map_err(text);
        let path = found.path("flagger-crds.yaml").map_err(text)?;
        let output = kubectl(&["replace", "-f", &path.display().to_string()]).await?;
        ensure(output.lines().count() == 3, output)?;
        let account = found.path("flagger-account.yaml").map_err(text)?;
        let account = std::fs::read_to_string(account).map_err(text)?;
        let parts = account.split("\n---\n");
        let role = parts
            .into_iter()
            .find(|part| part.contains("\nkind: ClusterRole\n"));
        let role = role.ok_or("Flagger's account has no ClusterRole")?;
        self.bed.apply(role).await.map_err(text)?;
        // The API server serves the new schema some moments later.
        until(PATIENCE, "Flagger's CRDs", async || {
            let output = kubectl(&["explain", "canary.spec.analysis.webhooks"]).await?;
            let is_ours = output.contains(OUR_DESCRIPTION);
            if is_ours { Err(output) } else { Ok(()) }
        })
        .await
        .map_err(text)
    }

    /// `kubectl explain` shows the descriptions of our CRDs.
    pub async fn explains_fields(&self) -> Outcome {
        let output = self
            .bed
            .kubectl(&["explain", "canary.spec.analysis.webhooks"])
            .await
            .map_err(text)?;
        ensure(output.contains(OUR_DESCRIPTION), output)
    }

    /// Stops the operator and the control plane. Fails with these failures, if there are any.
    pub async fn end(mut self, failed: Vec<String>) {
        if let Some(operator) = self.operator.take() {
            let code = operator.terminate().await.unwrap();
            assert!(code.success(), "the operator ends with 0, not {code}");
        }
        if !failed.is_empty() {
            self.bed.keep_folder();
        }
        self.bed.stop().await;
        assert!(
            failed.is_empty(),
            "{} failed:\n\n{}",
            failed.len(),
            failed.join("\n\n")
        );
    }
}
