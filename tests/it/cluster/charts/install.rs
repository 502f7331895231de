//! New installations: with the rights of one namespace and another router, with rules for actions; `helm test`; the load tester.

use serde_json::{Value, json};
use testbed::wait::until;

use super::{Charts, grants, strings};
use crate::cluster::{Outcome, PATIENCE, Scenario, ensure, ingress, installs, rig::FLAGGER, text};

const NAMESPACE: &str = "chart-flagger";
const ACCOUNT: &str = "system:serviceaccount:chart-flagger:flagger";

pub async fn other_values_install_other_rights(charts: &Charts<'_>) -> Outcome {
    // The operator must handle the Canaries of this namespace, and no others.
    let s = Scenario::new(charts.rig, "chart-contour").await;
    let of = format!("namespace={}", s.ns);
    let mut args = vec![
        "install",
        "flagger",
        "CHART",
        "-n",
        NAMESPACE,
        "--create-namespace",
    ];
    for value in [
        of.as_str(),
        "meshProvider=contour",
        "ingressClass=contour",
        "eventWebhook=http://events/all",
        "slack.url=http://slack/global",
        "slack.channel=general",
        "actions.enabled=true",
    ] {
        args.extend(["--set", value]);
    }
    charts.run("flagger", &args).await?;
    let role = charts.object(&s.ns, "role/flagger").await?;
    ensure(
        grants(&role, "httpproxies") && !grants(&role, "virtualservices"),
        &role,
    )?;
    for absent in ["clusterrole/flagger", "clusterrole/flagger-edit"] {
        ensure(
            charts.object("", absent).await.is_err(),
            format!("{absent} is there"),
        )?;
    }
    charts
        .object("", "validatingadmissionpolicy/flagger-actions")
        .await?;
    let (namespace, inside) = (s.ns.clone(), ("canaries.flagger.app", s.ns.as_str()));
    installs::granted(charts.rig, ACCOUNT, &namespace).await?;
    ensure(
        installs::may(charts.rig, ACCOUNT, "list", inside).await
            && !installs::may(
                charts.rig,
                ACCOUNT,
                "list",
                ("canaries.flagger.app", "default"),
            )
            .await,
        "the rights are those of one namespace",
    )?;
    let operator = charts.operator(NAMESPACE, "chart-contour").await?;
    passes_its_test(charts, &operator.url).await?;
    ingress::contour_copies_requests_and_shares_them(s).await?;
    let delete = ["-n", &namespace, "delete", "canaries", "--all"];
    charts.rig.bed.kubectl(&delete).await.map_err(text)?;
    let code = operator.terminate().await.map_err(text)?;
    ensure(code.success(), code)?;
    installs::nothing_was_refused(charts.rig, ACCOUNT)?;
    let args = ["uninstall", "flagger", "-n", NAMESPACE];
    charts.helm.run(&args).await.map(drop).map_err(text)
}

/// `helm test` makes a pod. No container runs here: its command is run as a process that asks the operator, and ends the pod accordingly.
async fn passes_its_test(charts: &Charts<'_>, url: &str) -> Outcome {
    let test = charts
        .helm
        .run(&["test", "flagger", "-n", NAMESPACE, "--timeout", "2m"]);
    let pod = async {
        let pod = until(PATIENCE, "the pod of the test", async || {
            charts.object(NAMESPACE, "pod/flagger-test").await
        })
        .await
        .map_err(text)?;
        let command = strings(&pod["spec"]["containers"][0]["command"]);
        let [program, .., address] = command.as_slice() else {
            return Err(format!("{command:?}"));
        };
        let service = charts.object(NAMESPACE, "service/flagger").await?;
        let port = &service["spec"]["ports"][0]["port"];
        ensure(
            *address == format!("http://flagger.{NAMESPACE}:{port}/readyz"),
            address,
        )?;
        ensure(program == "/usr/bin/wget", program)?;
        let wget = charts.rig.bed.folder().join("wget");
        std::os::unix::fs::symlink(FLAGGER, &wget).map_err(text)?;
        let probe = tokio::process::Command::new(&wget)
            .arg("--spider")
            .arg(format!("{url}/readyz"))
            .status();
        let phase = if probe.await.map_err(text)?.success() {
            "Succeeded"
        } else {
            "Failed"
        };
        let status = json!({"status": {"phase": phase}}).to_string();
        let end = [
            "-n",
            NAMESPACE,
            "patch",
            "pod",
            "flagger-test",
            "--subresource=status",
            "--type=merge",
            "-p",
            &status,
        ];
        charts.rig.bed.kubectl(&end).await.map_err(text)
    };
    let (test, pod) = tokio::join!(test, pod);
    pod?;
    let output = test.map_err(text)?;
    ensure(output.contains("Succeeded"), output)
}

/// The load tester of Flagger's chart becomes ours: the same Deployment and Service, with the values as they are.
pub async fn the_load_tester_of_flagger_becomes_ours(charts: &Charts<'_>) -> Outcome {
    let theirs = charts
        .helm
        .of_flagger("loadtester-0.38.0.tgz")
        .map_err(text)?;
    let file = charts.defaults(&theirs).await?;
    let name = "flagger-loadtester";
    let rest = [
        "-n",
        "chart-tester",
        "--create-namespace",
        "-f",
        &file,
        "--set",
        "cmd.namespaceRegexp=^test$",
    ];
    let install = [&["install", name, &theirs], &rest[..]].concat();
    charts.helm.run(&install).await.map_err(text)?;
    let uid = |object: Value| object["metadata"]["uid"].clone();
    let before = charts
        .object("chart-tester", "deployment/flagger-loadtester")
        .await?;
    let upgrade = [&["upgrade", name, "CHART"], &rest[..]].concat();
    let notes = charts.run("loadtester", &upgrade).await?;
    ensure(
        notes.matches("\n* ").count() == 1 && notes.contains("\n* image.repository"),
        notes,
    )?;
    let after = charts
        .object("chart-tester", "deployment/flagger-loadtester")
        .await?;
    let command = &after["spec"]["template"]["spec"]["containers"][0]["command"];
    ensure(
        strings(command).contains(&"-namespace-regexp=^test$".to_owned()),
        command,
    )?;
    ensure(
        uid(before) == uid(after),
        "the Deployment was not made anew",
    )?;
    charts
        .object("chart-tester", "service/flagger-loadtester")
        .await?;
    charts
        .object("chart-tester", "networkpolicy/flagger-loadtester")
        .await?;
    let args = ["uninstall", name, "-n", "chart-tester"];
    charts.helm.run(&args).await.map(drop).map_err(text)
}
