//! Checks that `flagger check` announces the first actions, finds missing rights, and writes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use serde_json::{Value, json};
use testbed::{bed::ACCOUNT, wait::until};
use tokio::process::Command;

use super::{FLAGGER, Outcome, Rig, ensure, text};

/// Runs `flagger check` with the rights of the operator's account. Returns its exit code and its output.
async fn run(kubeconfig: &Path, args: &[&str]) -> Result<(i32, String), String> {
    let output = Command::new(FLAGGER)
        .args(["check", "-mesh-provider=istio", "-kubeconfig"])
        .arg(kubeconfig)
        .args(args)
        .output()
        .await
        .map_err(text)?;
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8(printed).map_err(text)?;
    Ok((output.status.code().unwrap_or(-1), printed))
}

async fn report(kubeconfig: &Path, args: &[&str]) -> Result<(i32, Value), String> {
    let (code, printed) = run(kubeconfig, &[&["-o", "json"], args].concat()).await?;
    let report = serde_json::from_str(&printed).map_err(|error| format!("{error}: {printed}"))?;
    Ok((code, report))
}

/// The first action that `flagger check` announces for each namespace, and its reason. Fails if JSON and table disagree, if anything
/// is missing, or if the check wrote anything.
pub async fn first_actions(rig: &Rig) -> Result<BTreeMap<String, (String, String)>, String> {
    let kubeconfig = rig.kubeconfig();
    let (code, found) = report(kubeconfig, &[]).await?;
    ensure(
        lacks_only_history(&found["missing"]),
        format!("missing: {}", found["missing"]),
    )?;
    ensure(
        (code, &found["clean"]) == (1, &json!(false)),
        format!("{code}"),
    )?;
    let (code, table) = run(kubeconfig, &[]).await?;
    ensure(code == 1, format!("{code} {table}"))?;
    let field = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let mut all = BTreeMap::new();
    for row in found["canaries"].as_array().into_iter().flatten() {
        let (namespace, why) = (field(row, "namespace"), field(row, "why"));
        ensure(
            table
                .lines()
                .any(|line| line.starts_with(&namespace) && line.ends_with(&why)),
            format!("{namespace}: {table}"),
        )?;
        all.insert(namespace, (field(row, "first"), why));
    }
    wrote_nothing(rig)?;
    Ok(all)
}

/// `flagger check` announces no write for the canary of this namespace, and ends with 1 if a right is missing.
pub async fn is_clean(rig: &Rig, namespace: &str) -> Outcome {
    let (code, found) = report(rig.kubeconfig(), &["-namespace", namespace]).await?;
    let canaries = found["canaries"].as_array().ok_or("no canaries")?;
    let adopted = canaries.iter().map(|canary| &canary["first"]);
    let is_complete = found["missing"] == json!([]);
    ensure(
        adopted.eq(["adopts"])
            && lacks_only_history(&found["missing"])
            && code == i32::from(!is_complete),
        format!("{code} {found}"),
    )
}

/// `flagger check` names rights that were removed, and the objects that it cannot read without them. An account without any rights gets
/// an error that explains it.
pub async fn missing_rights_are_named(rig: &Rig, namespace: &str) -> Outcome {
    let role = rig
        .bed
        .kubectl(&["get", "clusterrole", "flagger", "-o", "json"])
        .await
        .map_err(text)?;
    let mut role: Value = serde_json::from_str(&role).map_err(text)?;
    let complete = role["rules"].clone();
    let rules = role["rules"].as_array_mut().ok_or("no rules")?;
    for rule in rules {
        if let Some(resources) = rule["resources"].as_array_mut() {
            resources.retain(|resource| resource != "services" && resource != "leases");
        }
    }
    // The API server refuses a rule without resources.
    let rules = role["rules"].as_array_mut().ok_or("no rules")?;
    rules.retain(|rule| rule["resources"] != json!([]));
    set_rules(rig, &role["rules"]).await?;
    until_services_are_missing(rig, namespace).await?;
    leases_are_needed_only_for_the_leader_election(rig).await?;
    set_rules(rig, &complete).await?;
    until(Duration::from_secs(30), "rights are back", async || {
        let (_, table) = run(rig.kubeconfig(), &[]).await?;
        (!table.lines().any(is_missing)).then_some(()).ok_or(table)
    })
    .await
    .map_err(text)?;
    an_account_without_rights_gets_a_reason(rig).await?;
    wrote_nothing(rig)
}

async fn set_rules(rig: &Rig, rules: &Value) -> Outcome {
    let patch = json!([{"op": "replace", "path": "/rules", "value": rules}]).to_string();
    let role = [
        "patch",
        "clusterrole",
        "flagger",
        "--type=json",
        "-p",
        &patch,
    ];
    rig.bed.kubectl(&role).await.map(drop).map_err(text)
}

/// Whether all missing rights are rights that Flagger's role does not grant. Without the right to former versions, a primary is not restored.
fn lacks_only_history(missing: &Value) -> bool {
    let mut missing = missing.as_array().unwrap().iter();
    missing.all(|right| is_history(right["resource"].as_str().unwrap()))
}

/// Whether a right is for former versions, for pods with the reason why a version fails, or for records. Flagger's account has none of
/// these rights.
fn is_history(right: &str) -> bool {
    let kinds = ["replicasets", "controllerrevisions", "pods", "releases"];
    kinds.iter().any(|kind| right.contains(kind))
}

fn is_missing(line: &str) -> bool {
    line.starts_with("missing right:") && !is_history(line)
}

/// Waits until `flagger check` names exactly the missing rights for Services, and cannot read those of this namespace.
async fn until_services_are_missing(rig: &Rig, namespace: &str) -> Outcome {
    let expected: BTreeSet<_> = [
        format!("missing right: create services in namespace {namespace}"),
        format!("missing right: get services in namespace {namespace}"),
        "missing right: list services in all namespaces".to_owned(),
        format!("missing right: update services in namespace {namespace}"),
        "missing right: watch services in all namespaces".to_owned(),
    ]
    .into();
    until(Duration::from_secs(30), "rights are missing", async || {
        let (code, table) = run(rig.kubeconfig(), &[]).await?;
        let missing: BTreeSet<_> = table
            .lines()
            .filter(|line| {
                is_missing(line)
                    && (line.contains(&format!(" {namespace}")) || line.contains("all namespaces"))
            })
            .filter(|line| line.ends_with(namespace) || line.ends_with("all namespaces"))
            .map(str::to_owned)
            .collect();
        let unreadable = table.lines().any(|line| {
            line.starts_with(namespace)
                && line.contains("cannot be read: services")
                && line.contains("is forbidden")
        });
        (code == 1 && unreadable && missing == expected)
            .then_some(())
            .ok_or(table)
    })
    .await
    .map_err(text)
}

async fn leases_are_needed_only_for_the_leader_election(rig: &Rig) -> Outcome {
    for (args, expected) in [(&["-enable-leader-election"][..], true), (&[], false)] {
        let (_, table) = run(rig.kubeconfig(), args).await?;
        let is_named = table.contains("missing right: update leases");
        ensure(is_named == expected, format!("{args:?}: {table}"))?;
    }
    Ok(())
}

async fn an_account_without_rights_gets_a_reason(rig: &Rig) -> Outcome {
    let nobody = rig
        .bed
        .kubeconfig_of("default", "default")
        .await
        .map_err(text)?;
    let (code, output) = run(&nobody, &[]).await?;
    ensure(
        code == 1
            && output.starts_with("canaries cannot be listed")
            && output.contains("forbidden"),
        format!("{code} {output}"),
    )?;
    let (code, output) = run(&nobody, &["-o=yaml"]).await?;
    ensure(code == 2, format!("{code} {output}"))
}

/// According to the audit log, the account only asked for its rights and read objects.
fn wrote_nothing(rig: &Rig) -> Outcome {
    let audit = rig.bed.audit().map_err(text)?;
    let ours: Vec<_> = audit.iter().filter(|line| line.user == ACCOUNT).collect();
    let is_question = |line: &&&testbed::Audit| line.resource == "selfsubjectaccessreviews";
    let questions = ours.iter().filter(is_question).count();
    let gets = ours.iter().filter(|line| line.verb == "get").count();
    ensure(
        questions > 0 && gets > 0,
        format!("{questions} questions, {gets} reads"),
    )?;
    let writes: Vec<_> = ours
        .iter()
        .filter(|line| !is_question(line) && !["get", "list"].contains(&line.verb.as_str()))
        .map(|line| format!("{} {} {}", line.verb, line.resource, line.namespace))
        .collect();
    ensure(writes.is_empty(), format!("{writes:?}"))
}
