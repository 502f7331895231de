//! An API server that is slow, or has no time for the operator. As in `faults.rs`, each scenario has an operator of its own behind a proxy.

use std::{collections::BTreeMap, time::Duration};

use futures::{FutureExt, future::join_all};
use testbed::{
    proxy::{Fault, LoggedRequest},
    wait::until,
};

use super::{
    Outcome, Rig, Scenario, ensure,
    faults::{Behind, none_is_superfluous, same_end, two_steps},
    text,
    traffic::Traffic,
};

/// The time by which a slow API server delays each request.
const LATE: Duration = Duration::from_millis(200);
/// The time for which the API server refuses the operator's requests.
const REFUSED: Duration = Duration::from_secs(30);
/// The greatest number of refused requests: the API server asks to wait a second. The pauses of watches grow.
const REFUSALS: usize = 32;
/// The same for the watches of one kind.
const REFUSED_WATCHES: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn a_release_survives_a_slow_api_server_and_one_that_refuses_requests_for_a_while() {
    let rig = Rig::idle().await;
    let results = join_all([
        Scenario::run(&rig, "slow", slow).boxed_local(),
        Scenario::run(&rig, "too-many-requests", refusing).boxed_local(),
    ])
    .await;
    rig.end(results.into_iter().filter_map(Result::err).collect())
        .await;
}

/// A release takes the same steps with the same requests.
async fn slow(s: Scenario<'_>) -> Outcome {
    let behind = Behind::proxy(&s, "proxy").await?;
    let operator = behind.launch(&[]).await?;
    s.initialized(two_steps()).await?;
    let (rows, before) = (s.table().len(), behind.proxy.log().len());
    let traffic = Traffic::of(&s);
    behind.proxy.always(Fault::Late(LATE), |_| true);
    s.image("3.1.1").await?;
    s.phase("Succeeded").await?;
    same_end(&s, &traffic, rows).await?;
    let asked = behind.since(before);
    let is_late = |asked: &LoggedRequest| asked.verb == "watch" || asked.took >= LATE;
    ensure(asked.iter().all(is_late), "each request is late")?;
    none_is_superfluous(&asked)?;
    operator.terminate().await.map(drop).map_err(text)
}

/// The API server refuses all requests but those of the lease, as its priority and fairness does: it asks to try again after a second.
async fn refusing(s: Scenario<'_>) -> Outcome {
    let behind = Behind::proxy(&s, "proxy").await?;
    let operator = behind.launch(&[]).await?;
    s.initialized(two_steps()).await?;
    let rows = s.table().len();
    let traffic = Traffic::of(&s);
    s.image("3.1.1").await?;
    s.line("Progressing 20").await?;
    let (before, begun) = (behind.proxy.log().len(), behind.proxy.age());
    let is_refused = |asked: &LoggedRequest| asked.resource != "leases";
    behind.proxy.always(Fault::Answer(429), is_refused);
    until(REFUSED * 2, "the end of the refusals", async || {
        let passed = behind.proxy.age() - begun;
        let is_over = passed >= REFUSED;
        is_over.then_some(()).ok_or_else(|| format!("{passed:?}"))
    })
    .await
    .map_err(text)?;
    behind.proxy.no_plans();
    let asked = behind.since(before);
    let refused: Vec<_> = asked.iter().filter(|it| it.code == Some(429)).collect();
    eprintln!("    {} requests were refused in {REFUSED:?}", refused.len());
    let mut counts = BTreeMap::new();
    for asked in refused {
        let watched = (asked.verb == "watch").then_some(&asked.resource);
        *counts.entry(watched).or_insert(0) += 1;
    }
    let is_patient = counts.iter().all(|(watched, count)| {
        let most = watched.map_or(REFUSALS, |_| REFUSED_WATCHES);
        (1..=most).contains(count)
    });
    ensure(
        counts.contains_key(&None) && is_patient,
        format!("{counts:?}"),
    )?;
    s.phase("Succeeded").await?;
    same_end(&s, &traffic, rows).await?;
    operator.terminate().await.map(drop).map_err(text)
}
