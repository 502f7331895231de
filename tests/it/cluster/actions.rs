//! People control a release by an annotation, within the rights of their roles, while tools apply the manifest again.

use serde_json::{Value, json};

use super::{Outcome, PATIENCE, Scenario, ensure, text};
use flagger_rs::{
    api::action::{ANNOTATION, Action, Signature, Verb},
    snapshot::Kind,
};
use testbed::wait::until;

pub async fn people_steer_a_release_within_the_rights_of_their_roles(s: Scenario<'_>) -> Outcome {
    s.podinfo().await?;
    let canary = s.canary_named("podinfo", json!({"stepWeight": 20, "maxWeight": 60}));
    s.apply(&canary).await?;
    s.phase("Initialized").await?;
    for (user, role) in [
        ("jane", "flagger-on-call"),
        ("bob", "flagger-release-manager"),
    ] {
        let role = format!("--clusterrole={role}");
        let user = format!("--user={user}");
        let args = ["-n", &s.ns, "create", "rolebinding"];
        let args = [&args[..], &[&user["--user=".len()..], &role, &user]].concat();
        s.rig.bed.kubectl(&args).await.map_err(text)?;
    }
    s.image("3.1.1").await?;
    s.line("Progressing 20").await?;

    // A pause outlasts each way in which a tool applies the manifest again.
    // The API server encodes these characters in another way than this program.
    s.act("jane", Verb::Pause, "jane", "errors > 5 % & p99 < 5ms")
        .await?;
    s.event("Pause requested by jane: errors > 5 % & p99 < 5ms")
        .await?;
    s.unannotated().await?;
    s.apply(&canary).await?;
    let mut manifest = canary.clone();
    manifest["metadata"]["namespace"] = json!(s.ns);
    let manifest = manifest.to_string();
    s.rig.bed.apply(&manifest).await.map_err(text)?;
    s.ticks().await?;
    ensure(s.weight().await? == 20, "the weight is held")?;

    for (user, verb, author, reason, why) in [
        (
            "jane",
            Verb::Promote,
            "jane",
            "it is late",
            "jane may not promote canary podinfo",
        ),
        (
            "jane",
            Verb::Abort,
            "bob",
            "errors",
            "the author of the action must be jane",
        ),
        (
            "jane",
            Verb::Abort,
            "jane",
            "",
            "to abort a release needs a reason",
        ),
    ] {
        let refused = s.act(user, verb, author, reason).await;
        let refusal = refused.err().unwrap_or_default();
        ensure(refusal.contains(why), format!("{refusal:?} has no {why:?}"))?;
    }
    let half = json!({"metadata": {"annotations": {ANNOTATION: "abort podinfo-1"}}});
    let refusal = s.patch_as("jane", &half).await.err().unwrap_or_default();
    let why = "an action is VERB, or VERB REVISION ID TIME AUTHOR [REASON…]";
    ensure(refusal.contains(why), refusal)?;
    let spec = json!({"spec": {"skipAnalysis": true}});
    let changed = s.patch_as("jane", &spec).await.err().unwrap_or_default();
    let why = "jane may not change the spec of canary podinfo";
    ensure(changed.contains(why), changed)?;

    s.act("jane", Verb::Abort, "jane", "errors at the checkout")
        .await?;
    s.event("aborted by jane: errors at the checkout").await?;
    s.phase("Failed").await?;
    ensure(s.weight().await? == 0, "traffic is on the primary")?;
    s.act("bob", Verb::Retry, "bob", "the database is back")
        .await?;
    s.line("Progressing 20").await?;
    s.act("bob", Verb::Promote, "bob", "the fix is urgent")
        .await?;
    s.phase("Succeeded").await?;
    let canary = s.get(Kind::Canary, "podinfo").await?;
    ensure(
        canary["metadata"]["annotations"].get(ANNOTATION).is_none(),
        &canary["metadata"],
    )?;
    let promoted = s.get(Kind::Deployment, "podinfo-primary").await?;
    let container = &promoted["spec"]["template"]["spec"]["containers"][0];
    ensure(container["image"] == "podinfo:3.1.1", container)
}

impl Scenario<'_> {
    /// Waits until the operator has removed the annotation.
    async fn unannotated(&self) -> Outcome {
        until(PATIENCE, "the removal of the annotation", async || {
            let canary = self.get(Kind::Canary, "podinfo").await?;
            let annotations = &canary["metadata"]["annotations"];
            ensure(annotations.get(ANNOTATION).is_none(), annotations)
        })
        .await
        .map_err(text)
    }

    /// Writes the annotation as this user.
    async fn act(&self, user: &str, verb: Verb, author: &str, reason: &str) -> Outcome {
        let canary = self.get(Kind::Canary, "podinfo").await?;
        let revision = canary["status"]["lastAppliedSpec"].as_str();
        let now = jiff::Timestamp::now();
        let action = Action {
            verb,
            signature: Some(Signature {
                revision: revision.unwrap_or_default().to_owned(),
                id: format!("{verb}-{}", now.as_nanosecond()),
                at: now,
                author: author.to_owned(),
            }),
            reason: reason.to_owned(),
        };
        let line = action.to_string();
        let patch = json!({"metadata": {"annotations": {ANNOTATION: line}}});
        self.patch_as(user, &patch).await
    }

    async fn patch_as(&self, user: &str, patch: &Value) -> Outcome {
        let (user, patch) = (format!("--as={user}"), patch.to_string());
        let args = [
            "-n", &self.ns, "patch", "canary", "podinfo", "--type", "merge",
        ];
        let args = [&args[..], &["-p", &patch, &user]].concat();
        let done = self.rig.bed.kubectl(&args).await;
        done.map(drop).map_err(text)
    }
}
