//! The charts in `deploy/charts`, with the real Helm on a real API server.
//!
//! | question | file |
//! | --- | --- |
//! | do the charts install what the overlays install? | `overlays.rs` |
//! | does Flagger's chart become ours, with a user's values as they are? | `upgrade.rs` |
//! | do other values install other rights, and does `helm test` work? | `install.rs` |

mod install;
mod overlays;
mod upgrade;

use serde_json::{Value, json};
use testbed::{helm::Helm, operator::Operator};

use super::{Outcome, Rig, ensure, rig::FLAGGER, text};
use crate::files;

/// The cluster, and a Helm for it.
struct Charts<'a> {
    rig: &'a Rig,
    helm: Helm,
}

pub async fn are_what_the_overlays_are_and_replace_flaggers(rig: &Rig) -> Vec<String> {
    let helm = Helm::new(rig.bed.plane.kubeconfig(), rig.bed.folder()).await;
    let charts = match helm {
        Ok(helm) => Charts { rig, helm },
        Err(error) => return vec![error.to_string()],
    };
    // One after the other, because all of them install the same CRDs and ClusterRoles.
    let results = [
        ("lint", charts.are_accepted_by_lint().await),
        (
            "template",
            overlays::each_is_the_chart_with_values(&charts).await,
        ),
        (
            "upgrade",
            upgrade::flaggers_release_becomes_ours(&charts).await,
        ),
        (
            "install",
            install::other_values_install_other_rights(&charts).await,
        ),
        (
            "the load tester",
            install::the_load_tester_of_flagger_becomes_ours(&charts).await,
        ),
    ];
    let failed = results
        .into_iter()
        .filter_map(|(part, result)| Some(format!("{part}: {}", result.err()?)));
    failed.collect()
}

impl Charts<'_> {
    /// Runs Helm on a chart of ours: `CHART` in the arguments is its path.
    async fn run(&self, chart: &str, args: &[&str]) -> Result<String, String> {
        let path = files::path("deploy/charts")
            .join(chart)
            .display()
            .to_string();
        let args: Vec<_> = args
            .iter()
            .map(|arg| if *arg == "CHART" { &path } else { *arg })
            .collect();
        self.helm.run(&args).await.map_err(text)
    }

    async fn are_accepted_by_lint(&self) -> Outcome {
        for chart in ["flagger", "loadtester"] {
            self.run(chart, &["lint", "--strict", "CHART"]).await?;
            let wrong = ["lint", "CHART", "--set-json", "image=1"];
            ensure(
                self.run(chart, &wrong).await.is_err(),
                "the schema refuses values of the wrong type",
            )?;
        }
        Ok(())
    }

    /// Writes a file of values. Returns its path.
    fn values(&self, name: &str, text_of: &str) -> Result<String, String> {
        let file = self.rig.bed.folder().join(name);
        std::fs::write(&file, text_of).map_err(text)?;
        Ok(file.display().to_string())
    }

    /// The defaults of a chart of Flagger's, as a file of values.
    async fn defaults(&self, chart: &str) -> Result<String, String> {
        let defaults = self.helm.run(&["show", "values", chart]).await;
        self.values("defaults.yaml", &defaults.map_err(text)?)
    }

    /// An object of the cluster.
    async fn object(&self, namespace: &str, resource: &str) -> Result<Value, String> {
        let args = ["-n", namespace, "get", resource, "-o", "json"];
        let found = self.rig.bed.kubectl(&args).await.map_err(text)?;
        serde_json::from_str(&found).map_err(text)
    }

    /// Starts a process with the flags of the Deployment and the rights of its ServiceAccount.
    async fn operator(&self, namespace: &str, name: &str) -> Result<Operator, String> {
        let deployment = self.object(namespace, "deployment/flagger").await?;
        let pod = &deployment["spec"]["template"]["spec"];
        let command = strings(&pod["containers"][0]["command"]);
        ensure(command[0] == "./flagger", &command[0])?;
        let account = pod["serviceAccountName"].as_str().unwrap_or_default();
        let kubeconfig = self.rig.bed.kubeconfig_of(namespace, account).await;
        let kubeconfig = kubeconfig.map_err(text)?;
        let flags: Vec<_> = command[1..].iter().map(String::as_str).collect();
        let program = std::path::Path::new(FLAGGER);
        let bed = &self.rig.bed;
        let started = bed.operator(name, program, &kubeconfig, &flags).await;
        started.map_err(text)
    }

    async fn namespace(&self, name: &str) -> Outcome {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let applied = self.rig.bed.apply(&object.to_string()).await;
        applied.map(drop).map_err(text)
    }
}

/// A list of strings.
fn strings(list: &Value) -> Vec<String> {
    serde_json::from_value(list.clone()).unwrap_or_default()
}

/// The verbs of all rules of a role.
fn verbs(role: &Value) -> Vec<String> {
    let rules = role["rules"].as_array().into_iter().flatten();
    // The operator deletes nothing but its own records.
    let rules = rules.filter(|rule| rule["resources"] != serde_json::json!(["releases"]));
    rules.flat_map(|rule| strings(&rule["verbs"])).collect()
}

/// Whether a role grants something for these objects.
fn grants(role: &Value, resource: &str) -> bool {
    let mut rules = role["rules"].as_array().into_iter().flatten();
    rules.any(|rule| {
        strings(&rule["resources"])
            .iter()
            .any(|other| other == resource)
    })
}
