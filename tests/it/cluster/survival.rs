//! Checks that a release survives kills, lost leases, outages of the control plane, and missing watches.

use std::time::{Duration, Instant};

use serde_json::json;
use testbed::{bed::ACCOUNT, wait::until};

use super::{
    Outcome, PATIENCE, Rig, Scenario, ensure, equal,
    faults::{ended, same_end},
    text,
    traffic::Traffic,
};
use flagger_rs::{
    shell::api_server::lease,
    snapshot::{Kind, Shard},
};

pub const STEPS: [&str; 6] = [
    "Progressing 0",
    "Progressing 20",
    "Progressing 40",
    "Promoting 40",
    "Finalising 0",
    "Succeeded 0",
];

pub async fn a_kill_in_the_middle_neither_adds_nor_skips_a_step(rig: &Rig) -> Outcome {
    Scenario::run(
        rig,
        "a_kill_in_the_middle_neither_adds_nor_skips_a_step",
        |s| async move {
            let mut operator = s.rig.launch("killed-0", &[]).await?;
            s.initialized(json!({"stepWeight": 20, "maxWeight": 40}))
                .await?;
            let seen = s.table().len();
            s.image("3.1.1").await?;
            for (i, line) in STEPS.iter().enumerate() {
                s.line(line).await?;
                operator.kill().await;
                operator = s.rig.launch(&format!("killed-{}", i + 1), &[]).await?;
            }
            s.phase("Succeeded").await?;
            equal("the table", &s.table()[seen..], &STEPS)?;
            let mut sent = s.events();
            sent.dedup();
            let count = |text: &str| sent.iter().filter(|line| line.contains(text)).count();
            ensure(
                count("Promotion completed!") == 1,
                format!("the end is reported: {sent:?}"),
            )?;
            ensure(
                s.get(Kind::Deployment, "podinfo").await?["spec"]["replicas"] == 0,
                "the canary is gone",
            )?;
            let code = operator.terminate().await.map_err(text)?;
            ensure(code.success(), code)
        },
    )
    .await
}

pub async fn two_operators_without_leader_election_are_reported(s: Scenario<'_>) -> Outcome {
    let operators = [
        s.rig.launch("alone-1", &[]).await?,
        s.rig.launch("alone-2", &[]).await?,
    ];
    s.initialized(json!({"stepWeight": 10, "maxWeight": 50}))
        .await?;
    s.image("3.1.1").await?;
    s.event("Warning Another operator changes the status of podinfo.")
        .await?;
    s.phase("Succeeded").await?;
    for operator in operators {
        let code = operator.terminate().await.map_err(text)?;
        ensure(code.success(), code)?;
    }
    Ok(())
}

pub async fn a_second_operator_takes_over_when_the_leader_dies_or_stops(rig: &Rig) -> Outcome {
    Scenario::run(
        rig,
        "a_second_operator_takes_over_when_the_leader_dies",
        |s| async move {
            // The Role grants leases in the namespace of the operator.
            let args = [
                "-enable-leader-election",
                "-leader-election-namespace=istio-system",
            ];
            let first = s.rig.launch("leader-1", &args).await?;
            s.initialized(json!({"stepWeight": 20, "maxWeight": 40}))
                .await?;
            let second = s.rig.launch("leader-2", &args).await?;
            let seen = s.table().len();
            s.image("3.1.1").await?;
            s.line("Progressing 20").await?;
            first.kill().await;
            s.phase("Succeeded").await?;
            equal("the table", &s.table()[seen..], &STEPS)?;
            // A leader that stops releases the lease, so that the other process need not wait.
            let third = s.rig.launch("leader-3", &args).await?;
            let code = second.terminate().await.map_err(text)?;
            ensure(code.success(), format!("a graceful end is 0, not {code}"))?;
            let start = Instant::now();
            s.image("3.1.2").await?;
            until(Duration::from_secs(10), "the third to lead", async || {
                let table = s.table();
                if table.last().is_some_and(|line| line == "Progressing 0") {
                    Ok(())
                } else {
                    Err(format!("{table:?}"))
                }
            })
            .await
            .map_err(text)?;
            eprintln!("    hand-over took {:?}", start.elapsed());
            third.terminate().await.map(drop).map_err(text)
        },
    )
    .await
}

/// Two operators share the canaries by a label, and elect their leaders by two leases. In the middle of a release the canary moves from one to
/// the other.
pub async fn a_canary_moves_to_the_operator_of_another_shard(s: Scenario<'_>) -> Outcome {
    const SHARDS: [&str; 2] = ["sharding.fluxcd.io/key=one", "!sharding.fluxcd.io/key"];
    let mut operators = Vec::new();
    for (n, shard) in SHARDS.into_iter().enumerate() {
        let selector = format!("-watch-label-selector={shard}");
        let namespace = format!("-leader-election-namespace={}", s.ns);
        let lease = lease::name(Some(&Shard::parse(shard).map_err(text)?));
        s.rig.may_hold(&lease, &s.ns).await?;
        let args = ["-enable-leader-election", &namespace, &selector];
        operators.push(s.rig.launch(&format!("shard-{n}"), &args).await?);
    }
    s.initialized(json!({"stepWeight": 20, "maxWeight": 40}))
        .await?;
    let rows = s.table().len();
    let traffic = Traffic::of(&s);
    s.image("3.1.1").await?;
    s.line("Progressing 20").await?;
    let label = json!({"metadata": {"labels": {"sharding.fluxcd.io/key": "one"}}});
    s.patch("canary", "podinfo", &label).await?;
    s.phase("Succeeded").await?;
    same_end(&s, &traffic, rows).await?;
    let events = s.events();
    let is_warning = |event: &&String| event.contains("Another operator");
    ensure(
        !events.iter().any(|event| is_warning(&event)),
        format!("{events:?}"),
    )?;
    for operator in operators {
        let code = operator.terminate().await.map_err(text)?;
        ensure(code.success(), code)?;
    }
    Ok(())
}

/// A user deletes the lease, or writes another holder into it. The operator acquires the lease again as soon as it may.
pub async fn a_lease_that_is_deleted_or_stolen_stops_no_release(s: Scenario<'_>) -> Outcome {
    s.rig.may_lead_in(&s.ns).await?;
    let namespace = format!("-leader-election-namespace={}", s.ns);
    let args = ["-enable-leader-election", &namespace];
    let operator = s.rig.launch("lease", &args).await?;
    s.initialized(json!({"stepWeight": 20, "maxWeight": 40}))
        .await?;
    let rows = s.table().len();
    let traffic = Traffic::of(&s);
    s.image("3.1.1").await?;
    s.line("Progressing 0").await?;
    s.delete("lease", &lease::name(None)).await?;
    s.line("Progressing 20").await?;
    let thief = json!({"spec": {"holderIdentity": "a thief"}});
    s.patch("lease", &lease::name(None), &thief).await?;
    let steps = s.table().len();
    until(PATIENCE, "the lease to be held again", async || {
        let holder = [
            "-n",
            &s.ns,
            "get",
            "lease",
            &lease::name(None),
            "-o",
            "jsonpath={.spec.holderIdentity}",
        ];
        let holder = s.rig.bed.kubectl(&holder).await.map_err(text)?;
        (holder.trim() != "a thief").then_some(()).ok_or(holder)
    })
    .await
    .map_err(text)?;
    // One step may have been under way. The other holder counts as gone after a minute.
    ensure(
        s.table().len() <= steps + 1,
        format!("steps without the lease: {:?}", s.table()),
    )?;
    s.phase("Succeeded").await?;
    same_end(&s, &traffic, rows).await?;
    let code = operator.terminate().await.map_err(text)?;
    ensure(code.success(), code)
}

/// In each step of a release, the control plane has another fault. Each step is taken exactly once.
pub async fn a_release_survives_faults_of_the_control_plane(s: Scenario<'_>) -> Outcome {
    let plane = &s.rig.bed.plane;
    s.initialized(json!({"stepWeight": 10, "maxWeight": 50}))
        .await?;
    let rows = s.table().len();
    let traffic = Traffic::of(&s);
    s.image("3.1.1").await?;

    s.line("Progressing 10").await?;
    plane.freeze_etcd(true).map_err(text)?;
    pass(Duration::from_secs(30)).await;
    plane.freeze_etcd(false).map_err(text)?;

    s.line("Progressing 20").await?;
    plane.stop_etcd().await;
    pass(Duration::from_secs(5)).await;
    plane.start_etcd().map_err(text)?;

    s.line("Progressing 30").await?;
    // A restarted API server does not serve earlier watch events.
    plane.stop_apiserver().await;
    plane.compact_etcd().await.map_err(text)?;
    pass(Duration::from_secs(30)).await;
    plane.start_apiserver().await.map_err(text)?;

    s.line("Progressing 40").await?;
    only(&s, &["get", "list", "watch"]).await?;

    s.line("Progressing 50").await?;
    only(&s, &[]).await?;

    s.phase("Succeeded").await?;
    equal("the table", &s.table()[rows..], &LONG)?;
    ended(&s, &traffic).await
}

/// The lines of the table of a release of five steps.
const LONG: [&str; 9] = [
    "Progressing 0",
    "Progressing 10",
    "Progressing 20",
    "Progressing 30",
    "Progressing 40",
    "Progressing 50",
    "Promoting 50",
    "Finalising 0",
    "Succeeded 0",
];

/// How long a fault lasts.
async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Restricts the account to rights with these verbs, and waits until a request with another verb is refused.
async fn only(s: &Scenario<'_>, verbs: &[&str]) -> Outcome {
    let role = ["get", "clusterrole", "flagger", "-o", "json"];
    let role = s.rig.bed.kubectl(&role).await.map_err(text)?;
    let mut role: serde_json::Value = serde_json::from_str(&role).map_err(text)?;
    role["metadata"] = json!({"name": "flagger"});
    let mut less = role.clone();
    for rule in less["rules"].as_array_mut().into_iter().flatten() {
        let rights = rule["verbs"].as_array_mut().into_iter();
        rights.for_each(|rights| {
            rights.retain(|verb| verb.as_str().is_some_and(|verb| verbs.contains(&verb)))
        });
    }
    let rules = less["rules"].as_array_mut().into_iter();
    rules.for_each(|rules| rules.retain(|rule| rule["verbs"] != json!([])));
    let apply = async |role: &serde_json::Value| {
        s.rig
            .bed
            .apply(&role.to_string())
            .await
            .map(drop)
            .map_err(text)
    };
    let refused = || -> Result<usize, String> {
        let audit = s.rig.bed.audit().map_err(text)?;
        let refused = audit.iter().filter(|line| {
            line.user == ACCOUNT
                && line.code == 403
                && !verbs.contains(&line.verb.as_str())
                && line.namespace == s.ns
        });
        Ok(refused.count())
    };
    let before = refused()?;
    apply(&less).await?;
    until(PATIENCE, "a refusal", async || {
        let now = refused()?;
        (now > before).then_some(()).ok_or_else(|| now.to_string())
    })
    .await
    .map_err(text)?;
    apply(&role).await
}

/// The operator has no right to watch Secrets, and Istio is not installed yet. It reads objects instead, and watches them without a
/// restart as soon as it can.
pub async fn kinds_that_cannot_be_watched_are_read_instead(rig: &Rig) -> Outcome {
    Scenario::run(
        rig,
        "kinds_that_cannot_be_watched_are_read_instead",
        |s| async move {
            let kubectl = async |args: &[&str]| rig.bed.kubectl(args).await.map_err(text);
            split_configs_rule(rig).await?;
            add_rule_for_secrets(rig, &["get", "create", "update"]).await?;
            let crd = "virtualservices.networking.istio.io";
            let definition = kubectl(&["get", "crd", crd, "-o", "json"]).await?;
            let mut definition: serde_json::Value = serde_json::from_str(&definition).map_err(text)?;
            definition["metadata"] = json!({"name": crd});
            kubectl(&["delete", "crd", crd]).await?;

            let operator = s.rig.launch("unwatched", &[]).await?;
            s.podinfo().await?;
            s.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "data": {"key": "YQ=="}}))
                .await?;
            let uses = json!([{"secretRef": {"name": "key"}}]);
            s.patch("deployment", "podinfo", &json!({"spec": {"template": {"spec": {"containers": [{"name": "podinfod", "envFrom": uses}]}}}}))
                .await?;
            s.canary(json!({"stepWeight": 50, "maxWeight": 50})).await?;
            s.event("VirtualService podinfo.").await?;
            rig.bed.apply(&definition.to_string()).await.map_err(text)?;
            s.phase("Initialized").await?;
            ensure(
                s.get(Kind::Secret, "key-primary").await?["data"]["key"] == "YQ==",
                "the primary has a copy",
            )?;
            add_rule_for_secrets(rig, &["list", "watch"]).await?;
            s.patch("secret", "key", &json!({"data": {"key": "Yg=="}}))
                .await?;
            s.phase("Succeeded").await?;
            ensure(
                s.get(Kind::Secret, "key-primary").await?["data"]["key"] == "Yg==",
                "a change of it is released",
            )?;
            let code = operator.terminate().await.map_err(text)?;
            ensure(code.success(), code)
        },
    )
    .await
}

/// Removes the rights for Secrets from the rule that also grants ConfigMaps.
async fn split_configs_rule(rig: &Rig) -> Outcome {
    let args = ["get", "clusterrole", "flagger", "-o", "json"];
    let role = rig.bed.kubectl(&args).await.map_err(text)?;
    let mut role: serde_json::Value = serde_json::from_str(&role).map_err(text)?;
    for rule in role["rules"].as_array_mut().into_iter().flatten() {
        if rule["resources"] == json!(["configmaps", "secrets"]) {
            rule["resources"] = json!(["configmaps"]);
        }
    }
    rig.bed
        .apply(&role.to_string())
        .await
        .map(drop)
        .map_err(text)
}

async fn add_rule_for_secrets(rig: &Rig, verbs: &[&str]) -> Outcome {
    let rule = json!({"apiGroups": [""], "resources": ["secrets"], "verbs": verbs});
    let patch = json!([{"op": "add", "path": "/rules/0", "value": rule}]).to_string();
    let args = [
        "patch",
        "clusterrole",
        "flagger",
        "--type=json",
        "-p",
        &patch,
    ];
    rig.bed.kubectl(&args).await.map(drop).map_err(text)
}
