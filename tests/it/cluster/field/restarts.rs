//! Cases in which the operator is restarted, so that they need a control plane of their own.

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::super::{Outcome, Rig, Scenario, check, ensure, labels, text};
use flagger_rs::api::canary::Canary;

/// The revision in the status before the restart: a hash of Flagger's.
const FLAGGERS: &str = "7cdf59dbf5";

/// Plays two cases with one restart: `f03-selector-label` (an idle canary, and other flags) and `f14-restarted-primary` (an idle canary
/// that Flagger left, whose primary a user has restarted).
pub async fn an_operator_with_other_flags_takes_over(rig: &Rig) -> Outcome {
    let operator = rig
        .launch("before", &["-selector-labels=app,deploy"])
        .await?;
    let web = Scenario::new(rig, "f03-selector-label").await;
    web.apply_as_user(&web.field("f03-selector-label")).await?;
    let ledger = Scenario::new(rig, "f14-restarted-primary").await;
    ledger
        .apply_as_user(&ledger.field("f14-restarted-primary"))
        .await?;
    web.phase_of("web", "Initialized").await?;
    ledger.phase_of("ledger", "Initialized").await?;
    labels::until_served(&web, "web").await?;
    operator.terminate().await.map_err(text)?;

    ledger
        .kubectl("rollout restart deploy/ledger-primary")
        .await?;
    let canaries: Api<Canary> = Api::namespaced(ledger.client.clone(), &ledger.ns);
    let status = json!({"status": {"lastAppliedSpec": FLAGGERS, "lastPromotedSpec": FLAGGERS}});
    canaries
        .patch_status("ledger", &PatchParams::default(), &Patch::Merge(status))
        .await
        .map_err(text)?;
    check::is_clean(rig, &ledger.ns).await?;

    let operator = rig
        .launch("after", &["-selector-labels=deploy,app"])
        .await?;
    web.kubectl("set image deploy/web main=example/app:2")
        .await?;
    // During this wait, the other canary has ticks, too.
    labels::promoted(&web, "web", "example/app:2").await?;
    let canary = canaries.get("ledger").await.map_err(text)?;
    let status = canary.status.unwrap_or_default();
    ensure(
        status.phase.as_str() == "Initialized"
            && status.last_applied_spec.as_deref() != Some(FLAGGERS),
        format!("{status:?}"),
    )?;
    let events = ledger.events();
    let run = events.iter().find(|line| line.contains("New revision"));
    ensure(run.is_none(), format!("{run:?}"))?;
    operator.terminate().await.map(drop).map_err(text)
}
