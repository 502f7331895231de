//! kubectl, as a user runs it.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{io::AsyncWriteExt, process::Command};

use crate::Error;

/// kubectl with all rights.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// For the cluster that a kubeconfig names.
    pub const fn new(program: PathBuf, kubeconfig: PathBuf) -> Self {
        Self {
            program,
            kubeconfig,
        }
    }

    /// Which kubectl.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Runs it; what it printed, or what it complained of.
    pub async fn run(&self, args: &[&str]) -> Result<String, Error> {
        self.run_with(args, "").await
    }

    /// `kubectl apply` of YAML; waits until CRDs are served.
    pub async fn apply(&self, yaml: &str) -> Result<String, Error> {
        let args = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        let applied = self.run_with(&args, yaml).await?;
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

    async fn run_with(&self, args: &[&str], input: &str) -> Result<String, Error> {
        let io = |e| Error::io(&self.program, e);
        let mut child = Command::new(&self.program)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
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
            Err(Error::Command {
                command: format!("kubectl {}", args.join(" ")),
                said: String::from_utf8_lossy(&output.stderr).into_owned(),
            })
        }
    }
}
