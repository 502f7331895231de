//! Each release leaves a record, which has the reason of its end.

use flagger_rs::{
    api::release::{CANARY_UID, Release, ReleaseResult},
    records::explain,
    snapshot::Kind,
};
use kube::{Api, api::ListParams};
use serde_json::json;

use super::{Outcome, Scenario, ensure, equal, text};

pub async fn each_release_leaves_a_record_that_explains_it(s: Scenario<'_>) -> Outcome {
    s.initialized(json!({"stepWeight": 20, "maxWeight": 40}))
        .await?;
    s.release("3.1.1").await?;
    s.notified("Promotion completed!").await?;
    s.rig.bed.fakes.success_rate(&s.ns, 97.5);
    s.image("3.1.2").await?;
    s.phase("Failed").await?;
    s.notified("Canary failed!").await?;
    let sentence = "2 failed checks reached the threshold of 2. In the last one, request-success-rate was 97.5 %, below the minimum 99 %.";
    let canary = s.get(Kind::Canary, "podinfo").await?;
    let conditions = canary["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let verdict = conditions.find(|it| it["type"] == "Verdict");
    ensure(
        verdict.is_some_and(|it| it["reason"] == "Threshold" && it["message"] == sentence),
        format!("{verdict:?}"),
    )?;

    let releases = s.records().await?;
    let ends: Vec<_> = releases.iter().map(|release| release.spec.result).collect();
    let expected = [ReleaseResult::Promoted, ReleaseResult::Failed];
    ensure(ends == expected, format!("{ends:?}"))?;
    let uid = canary["metadata"]["uid"].as_str();
    let labels = releases[0].metadata.labels.clone().unwrap_or_default();
    ensure(
        labels.get(CANARY_UID).map(String::as_str) == uid,
        format!("{labels:?}"),
    )?;
    let promoted = explain(&releases[0].spec);
    for part in [
        "podinfo: 3.1.0 → 3.1.1 was promoted after ",
        ", at step 2 of 2.\nThe version was promoted.\n",
        "Metric request-success-rate, at least 99 %",
        "acceptance-test (pre-rollout at hooks) answered 200",
        "Progressing at weight 20",
    ] {
        ensure(
            promoted.contains(part),
            format!("{part:?} is missing in\n{promoted}"),
        )?;
    }
    let failed = explain(&releases[1].spec);
    let measured =
        "weight  20  97.5 %  failed: request-success-rate was 97.5 %, below the minimum 99 %";
    ensure(failed.matches(measured).count() == 2, &failed)?;
    ensure(failed.lines().nth(1) == Some(sentence), &failed)?;
    ensure(releases[1].spec.trigger.is_some(), &failed)?;
    let changed = &releases[1].spec.images[0];
    equal(
        "the images",
        &[changed.from.clone(), changed.to.clone()],
        &["podinfo:3.1.1", "podinfo:3.1.2"],
    )?;

    Ok(())
}

pub async fn a_release_goes_on_where_records_cannot_be_written(s: Scenario<'_>) -> Outcome {
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": format!("no-records-{}", s.ns)},
        "spec": {"matchConstraints": {"resourceRules": [{"apiGroups": ["flagger-rs.github.io"], "apiVersions": ["*"],
            "operations": ["CREATE"], "resources": ["releases"]}]},
            "validations": [{"expression": "false", "message": "no records here"}]}});
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": format!("no-records-{}", s.ns)},
        "spec": {"policyName": format!("no-records-{}", s.ns), "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": s.ns}}}}});
    for object in [policy, binding] {
        let object = serde_json::to_string(&object).map_err(text)?;
        s.rig.bed.apply(&object).await.map_err(text)?;
    }
    s.initialized(json!({"stepWeight": 50})).await?;
    // The API server applies a new policy some moments later.
    let until_known = async || {
        let release = json!({"apiVersion": "flagger-rs.github.io/v1alpha1", "kind": "Release",
            "metadata": {"name": "probe", "namespace": s.ns}, "spec": {"canary": "probe"}});
        let refused = s.rig.bed.apply(&release.to_string()).await;
        match refused.err().map(text) {
            Some(why) if why.contains("no records here") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    testbed::wait::until(super::PATIENCE, "the policy", until_known)
        .await
        .map_err(text)?;
    s.release("3.1.1").await?;
    let records = s.records().await?;
    ensure(
        records.iter().all(|release| release.spec.canary == "probe"),
        format!("{records:?}"),
    )
}

impl Scenario<'_> {
    /// The records in the namespace, oldest first.
    async fn records(&self) -> Result<Vec<Release>, String> {
        let releases: Api<Release> = Api::namespaced(self.client.clone(), &self.ns);
        let mut releases = releases
            .list(&ListParams::default())
            .await
            .map_err(text)?
            .items;
        releases.sort_by_key(|release| release.spec.started_at.as_ref().map(|at| at.0));
        Ok(releases)
    }
}
