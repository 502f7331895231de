//! Releases while an admission policy or another controller changes the operator's objects.

use futures::TryStreamExt;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;
use testbed::wait::until;

use super::{Outcome, PATIENCE, Scenario, ensure, text};
use flagger_rs::snapshot::Kind;

/// `tests/field/f13-mutated-primary.yaml`: the policy is younger than the target, so the target's pods do not have the label until the
/// operator writes the target.
pub async fn an_admission_policy_that_labels_all_pods_starts_no_run_and_no_fight(
    s: Scenario<'_>,
) -> Outcome {
    let objects = s.field("f13-mutated-primary");
    let (canary, others) = objects.split_last().ok_or("no objects")?;
    let (target, policy) = others.split_first().ok_or("no target")?;
    s.apply_as_user(std::slice::from_ref(target)).await?;
    s.apply_as_user(policy).await?;
    s.until_labelled().await?;
    s.apply_as_user(std::slice::from_ref(canary)).await?;
    s.phase_of("news", "Initialized").await?;
    s.notified("Initialization done!").await?;
    s.kubectl("set image deploy/news main=example/app:2")
        .await?;
    s.phase_of("news", "Succeeded").await?;
    let primary = s.get(Kind::Deployment, "news-primary").await?;
    ensure(
        primary.pointer("/spec/template/metadata/labels/cost-center") == Some(&json!("42")),
        "the primary has the label of the policy",
    )?;
    let manager = primary.pointer("/metadata/managedFields/0/manager");
    ensure(
        manager == Some(&json!("flagger")),
        format!("the manager is Flagger's, not {manager:?}"),
    )?;
    let events = s.events();
    let runs = events
        .iter()
        .filter(|line| line.contains("New revision detected!"));
    ensure(runs.count() == 1, format!("{events:?}"))?;
    let writes = s.requests()?;
    let writes = writes.iter().filter(|line| {
        line.resource == "deployments" && ["create", "patch"].contains(&&*line.verb)
    });
    // The primary is created and promoted; the target is scaled down, up and down.
    let writes = writes.count();
    ensure(writes == 5, format!("{writes} writes of Deployments"))
}

/// A policy forbids the writes of a route. While the release cannot go on, the status has the reason.
pub async fn a_release_that_may_not_write_says_so_and_goes_on_later(s: Scenario<'_>) -> Outcome {
    s.initialized(json!({"stepWeight": 50, "maxWeight": 50}))
        .await?;
    let name = format!("no-routes-{}", s.ns);
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {"matchConstraints": {"resourceRules": [{"apiGroups": ["networking.istio.io"], "apiVersions": ["*"],
            "operations": ["UPDATE"], "resources": ["virtualservices"]}]},
            "validations": [{"expression": "false", "message": "no routes here"}]}});
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": s.ns}}}}});
    for object in [policy, binding] {
        s.rig.bed.apply(&object.to_string()).await.map_err(text)?;
    }
    // The API server applies a new policy some moments later.
    let until_known = async || {
        let now = jiff::Timestamp::now().as_nanosecond();
        let route = "virtualservice.networking.istio.io podinfo";
        let label = format!("label --overwrite {route} probe=t{now}");
        let labelled = s.kubectl(&label).await;
        match labelled {
            Err(why) if why.contains("no routes here") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    until(PATIENCE, "the policy", until_known)
        .await
        .map_err(text)?;
    s.image("3.1.1").await?;
    let sentence = "The API server refuses the write of VirtualService podinfo: ";
    let refused = async || {
        let canary = s.get(Kind::Canary, "podinfo").await?;
        let conditions = canary["status"]["conditions"].to_string();
        let is_reported = conditions.contains(sentence) && conditions.contains("no routes here");
        is_reported.then_some(()).ok_or(conditions)
    };
    until(PATIENCE, "the condition", refused)
        .await
        .map_err(text)?;
    s.kubectl(&format!("delete validatingadmissionpolicybinding {name}"))
        .await?;
    s.phase("Succeeded").await?;
    let canary = s.get(Kind::Canary, "podinfo").await?;
    let conditions = canary["status"]["conditions"].to_string();
    ensure(!conditions.contains("WriteRefused"), conditions)
}

/// Another controller gives the Service another label after each write.
pub async fn an_actor_that_undoes_each_write_is_named_and_met_with_growing_pauses(
    s: Scenario<'_>,
) -> Outcome {
    s.initialized(json!({"stepWeight": 50, "maxWeight": 50}))
        .await?;
    let service = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Service"));
    let services: Api<DynamicObject> = Api::namespaced_with(s.client.clone(), &s.ns, &service);
    let janitor = tokio::spawn(undo(services));
    let event = s.event("does not keep what is written").await?;
    ensure(
        event.contains("Service podinfo-canary.") && event.contains("\"janitor\" changes it back"),
        event,
    )?;
    // The repeated repairs do not delay a release.
    s.release("3.1.1").await?;
    let writes = s.requests()?;
    let writes = writes
        .iter()
        .filter(|line| {
            line.resource == "services" && line.name == "podinfo-canary" && line.verb == "update"
        })
        .count();
    ensure(
        (3..=7).contains(&writes),
        format!("{writes} writes of the Service"),
    )?;
    janitor.abort();
    Ok(())
}

async fn undo(services: Api<DynamicObject>) {
    let only = watcher::Config::default().fields("metadata.name=podinfo-canary");
    let mut changes = Box::pin(
        watcher(services.clone(), only)
            .default_backoff()
            .applied_objects(),
    );
    let params = PatchParams {
        field_manager: Some("janitor".to_owned()),
        ..PatchParams::default()
    };
    let label = Patch::Merge(json!({"metadata": {"labels": {"app": "cleaned"}}}));
    while let Ok(Some(_)) = changes.try_next().await {
        let _ = services.patch("podinfo-canary", &params, &label).await;
    }
}

impl Scenario<'_> {
    /// Waits until the API server applies the policy.
    async fn until_labelled(&self) -> Outcome {
        let probe = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "probe"},
            "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "probe"}},
                "template": {"metadata": {"labels": {"app": "probe"}}, "spec": {"containers": [{"name": "probe", "image": "podinfo:1"}]}}}});
        testbed::wait::until(super::PATIENCE, "the policy", async || {
            let _ = self.delete("deployment", "probe").await;
            self.apply(&probe).await?;
            let made = self.get(Kind::Deployment, "probe").await?;
            let label = made.pointer("/spec/template/metadata/labels/cost-center");
            label.map(drop).ok_or_else(|| made.to_string())
        })
        .await
        .map_err(text)
    }
}
