//! Runs Helm.

use std::path::{Path, PathBuf};

use crate::{
    Error,
    binaries::{self, Binaries},
    process::{guarded, output},
};

/// A Helm with administrator's rights, which leaves the files of the user's own Helm alone.
#[derive(Clone, Debug)]
pub struct Helm {
    binaries: Binaries,
    kubeconfig: PathBuf,
    folder: PathBuf,
}

impl Helm {
    /// Uses the cluster of this kubeconfig. Helm's own files are below the folder. The first use on a machine builds Helm.
    pub async fn new(kubeconfig: PathBuf, folder: &Path) -> Result<Self, Error> {
        let find = || binaries::find_or_build(&[binaries::HELM]);
        let binaries = tokio::task::spawn_blocking(find)
            .await
            .map_err(|e| Error::Failed(e.to_string()))??;
        Ok(Self {
            binaries,
            kubeconfig,
            folder: folder.join("helm"),
        })
    }

    /// The path of one of Flagger's own charts: `flagger-1.44.0.tgz` or `loadtester-0.38.0.tgz`.
    pub fn of_flagger(&self, chart: &str) -> Result<String, Error> {
        Ok(self.binaries.path(chart)?.display().to_string())
    }

    /// Runs Helm. Returns its output; an error has its error output.
    pub async fn run(&self, args: &[&str]) -> Result<String, Error> {
        let program = self.binaries.path("helm")?;
        let mut command = guarded(program);
        command
            .args(args)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HELM_CACHE_HOME", self.folder.join("cache"))
            .env("HELM_CONFIG_HOME", self.folder.join("config"))
            .env("HELM_DATA_HOME", self.folder.join("data"));
        let output = output(command).await.map_err(|e| Error::io(program, e))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Error::Command {
            command: format!("helm {}", args.join(" ")),
            output: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}
