//! Objects of other owners, and configs that two canaries share.

use flagger_rs::snapshot::Kind;
use serde_json::json;
use testbed::wait::until;

use super::{Outcome, PATIENCE, Scenario, ensure, text};

/// Waits until the copy of the config has this number of owners.
async fn until_owned(s: &Scenario<'_>, by: usize) -> Outcome {
    until(PATIENCE, "owners of the copy", async || {
        let copy = s.get(Kind::ConfigMap, "settings-primary").await?;
        let owners = copy["metadata"]["ownerReferences"].as_array();
        ensure(owners.map(Vec::len) == Some(by), &copy["metadata"])
    })
    .await
    .map_err(text)
}

pub async fn an_object_of_another_owner_is_left_as_it_is_until_it_is_given_away(
    s: Scenario<'_>,
) -> Outcome {
    s.podinfo().await?;
    s.apply(
        &json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "podinfo-primary"},
        "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]}}),
    )
    .await?;
    let before = s.get(Kind::Service, "podinfo-primary").await?;
    s.canary(json!({"stepWeight": 50})).await?;
    s.event(&format!(
        "Warning canary podinfo.{} is not run: the Service podinfo-primary exists already and belongs to no Canary",
        s.ns
    ))
    .await?;
    ensure(
        s.get(Kind::Service, "podinfo-primary").await? == before,
        "the Service is as it was",
    )?;
    ensure(
        s.get(Kind::Service, "podinfo-canary").await.is_err(),
        "nothing else is made",
    )?;
    let given = json!({"metadata": {"annotations": {"flagger-rs.github.io/adopt": "true"}}});
    s.patch("service", "podinfo-primary", &given).await?;
    s.phase("Initialized").await?;
    let after = s.get(Kind::Service, "podinfo-primary").await?;
    ensure(
        after["spec"]["selector"] == json!({"app": "podinfo-primary"}),
        &after,
    )
}

pub async fn each_primary_keeps_the_config_that_its_version_passed_with(
    s: Scenario<'_>,
) -> Outcome {
    s.rig.bed.fakes.script(
        &format!("hooks/{}/not-ok", s.ns),
        testbed::fakes::Answer::Raw(500, "no".to_owned()),
    );
    s.apply_as_user(&s.field("f01-shared-config")).await?;
    for name in ["good", "bad"] {
        s.phase_of(name, "Initialized").await?;
    }
    until_owned(&s, 2).await?;
    s.patch("configmap", "settings", &json!({"data": {"mode": "new"}}))
        .await?;
    s.phase_of("good", "Succeeded").await?;
    s.phase_of("bad", "Failed").await?;
    let mode = async |name: &str| {
        let primary = s.get(Kind::Deployment, name).await?;
        let containers = &primary["spec"]["template"]["spec"]["containers"];
        let copy = containers[0]["envFrom"][0]["configMapRef"]["name"].clone();
        let copy = s
            .get(Kind::ConfigMap, copy.as_str().unwrap_or_default())
            .await?;
        Ok::<_, String>(copy["data"]["mode"].clone())
    };
    ensure(mode("good-primary").await? == "new", "the promoted config")?;
    ensure(
        mode("bad-primary").await? == "old",
        "the config that failed",
    )?;
    s.delete("canary", "good").await?;
    until_owned(&s, 1).await?;
    ensure(mode("bad-primary").await? == "old", "the copy stays")
}
