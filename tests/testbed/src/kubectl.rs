//! Runs kubectl.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{
    Error,
    process::{guarded, output},
};

/// A kubectl with the rights of its kubeconfig.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// Uses this program for the cluster of this kubeconfig.
    pub const fn new(program: PathBuf, kubeconfig: PathBuf) -> Self {
        Self {
            program,
            kubeconfig,
        }
    }

    /// The path of kubectl.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// `kubectl apply` of YAML; waits until CRDs are served.
    pub async fn apply(&self, yaml: &str) -> Result<String, Error> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let file = self
            .kubeconfig
            .with_file_name(format!("apply-{count}.yaml"));
        fs::write(&file, yaml).map_err(|e| Error::io(&file, e))?;
        let file = file.display().to_string();
        let args = ["apply", "--server-side", "--force-conflicts", "-f", &file];
        let applied = self.run(&args).await?;
        self.established(&applied).await?;
        Ok(applied)
    }

    /// `kubectl apply -k`; waits until CRDs are served.
    pub async fn apply_kustomize(&self, folder: &Path) -> Result<String, Error> {
        let folder = folder.display().to_string();
        let applied = self.run(&["apply", "-k", &folder]).await?;
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
            self.run(&args).await?;
        }
        Ok(())
    }

    /// Runs kubectl. Returns its output; an error has its error output.
    pub async fn run(&self, args: &[&str]) -> Result<String, Error> {
        let mut command = guarded(&self.program);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(args);
        let output = output(command)
            .await
            .map_err(|e| Error::io(&self.program, e))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Error::Command {
            command: format!("kubectl {}", args.join(" ")),
            output: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}
