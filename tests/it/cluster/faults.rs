//! Checks that a release survives faults between the operator and the API server. Each scenario has an operator of its own, for its
//! namespace alone, behind a proxy that causes the fault.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, future::join_all, stream};
use serde_json::json;
use testbed::{
    operator::Operator,
    proxy::{Fault, LoggedRequest, Proxy},
    wait::until,
};

use flagger_rs::snapshot::Kind;

use super::{
    Outcome, PATIENCE, Rig, Scenario, ensure, equal, survival::STEPS, text, traffic::Traffic,
};

/// The number of writes of a release with a ConfigMap and a Secret, without events and its record. The leader is frozen at each of them in
/// turn.
const LEADER_WRITES: usize = 15;
/// All requests of a release of two steps, besides the renewal of watches.
const REQUESTS: [(&str, i32); 9] = [
    // Eight events.
    ("create events ", 8),
    // The record.
    ("create releases ", 1),
    // The operator reads the target once for the record, which names the last manager, and once before its promotion, because the cache may
    // be stale.
    ("get deployments podinfo", 2),
    // The earlier records.
    ("list releases ", 1),
    // Six lines of the table, and one after the notification of the end.
    ("patch canaries/status podinfo", 7),
    // The canary is scaled up, and down to zero.
    ("patch deployments podinfo", 2),
    // The promotion.
    ("patch deployments podinfo-primary", 1),
    // The end of the record.
    ("patch releases ", 1),
    // Two steps, and all traffic back to the primary.
    ("update virtualservices podinfo", 3),
];
/// The event that is sent at least once: the status has a condition until it is sent. A kill may lose other events of the plan that was
/// carried out last, because they are sent after its status is committed.
const END: &str = "Promotion completed!";
/// The greatest number of events that are pending at the same time: the analysis starts, a hook has passed, and the first weight is routed.
const PENDING_EVENTS: usize = 3;
/// The number of releases that run at the same time.
const AT_ONCE: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_before_or_after_any_write_does_not_change_a_release() {
    let rig = Rig::idle().await;
    let start = Instant::now();
    let events = std::sync::Mutex::default();
    let writes = std::sync::Mutex::default();
    let reference = Scenario::run(&rig, "undisturbed", |s| async {
        let (writes_of, events_of) = undisturbed(s).await?;
        *writes.lock().unwrap() = writes_of;
        *events.lock().unwrap() = events_of;
        Ok(())
    })
    .await;
    let (writes, events): (Vec<LoggedRequest>, Vec<String>) =
        (writes.into_inner().unwrap(), events.into_inner().unwrap());
    // The kills come alternately before a write is applied and after it. `tests/model/sweep.rs` tries both at each write.
    let faults = [Fault::Hold, Fault::Swallow].into_iter().cycle();
    let plans = (0..writes.len()).zip(faults);
    let tests = plans.map(|(n, fault)| {
        let (rig, events) = (&rig, &events);
        let name = format!("killed-at-{n}-{fault:?}").to_lowercase();
        async move { Scenario::run(rig, &name, |s| killed(s, n, fault, events)).await }
            .boxed_local()
    });
    let results: Vec<_> = stream::iter(tests)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    eprintln!(
        "    {} kills at {} writes: {} s",
        results.len(),
        writes.len(),
        start.elapsed().as_secs()
    );
    let results = results.into_iter().chain([reference]);
    rig.end(results.filter_map(Result::err).collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_survives_stalled_frozen_and_half_open_connections() {
    let rig = Rig::idle().await;
    let results = join_all([
        Scenario::run(&rig, "deployments-stalled", |s| stalled(s, "deployments")).boxed_local(),
        Scenario::run(&rig, "canaries-stalled", |s| stalled(s, "canaries")).boxed_local(),
        Scenario::run(&rig, "five-seconds-frozen", |s| silent(s, 5, false)).boxed_local(),
        Scenario::run(&rig, "half-a-minute-frozen", |s| silent(s, 30, false)).boxed_local(),
        Scenario::run(&rig, "half-a-minute-half-open", |s| silent(s, 30, true)).boxed_local(),
        Scenario::run(&rig, "half-open-at-once", |s| silent(s, 0, true)).boxed_local(),
    ])
    .await;
    rig.end(results.into_iter().filter_map(Result::err).collect())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn late_writes_of_a_former_leader_change_nothing() {
    let rig = Rig::idle().await;
    let tests = (0..LEADER_WRITES).map(|n| {
        let (rig, name) = (&rig, format!("leader-frozen-at-{n}"));
        async move { Scenario::run(rig, &name, |s| former_leader(s, n)).await }.boxed_local()
    });
    let results = join_all(tests).await;
    rig.end(results.into_iter().filter_map(Result::err).collect())
        .await;
}

/// The operator of a scenario, behind its proxy.
pub struct Behind<'a> {
    scenario: &'a Scenario<'a>,
    pub proxy: Proxy,
    name: String,
}

impl<'a> Behind<'a> {
    pub async fn proxy(scenario: &'a Scenario<'a>, name: &str) -> Result<Self, String> {
        let name = format!("{}-{name}", scenario.ns);
        let proxy = scenario.rig.proxy(&name).await?;
        Ok(Self {
            scenario,
            proxy,
            name,
        })
    }

    pub async fn launch(&self, args: &[&str]) -> Result<Operator, String> {
        let namespace = format!("-namespace={}", self.scenario.ns);
        let mut all = vec![namespace.as_str()];
        all.extend(args);
        let kubeconfig = &self.proxy.kubeconfig;
        let rig = self.scenario.rig;
        rig.launch_with(kubeconfig, &self.name, &all).await
    }

    /// The requests after the first `before` of the log.
    pub fn since(&self, before: usize) -> Vec<LoggedRequest> {
        self.proxy.log().split_off(before)
    }
}

pub fn two_steps() -> serde_json::Value {
    json!({"stepWeight": 20, "maxWeight": 40})
}

/// The events that were sent, without the name of the namespace.
fn events(s: &Scenario<'_>) -> Vec<String> {
    let events = s.events().into_iter();
    events
        .map(|line| line.replace(&s.ns, "NAMESPACE"))
        .collect()
}

/// A release without faults. Returns its writes and its events, in order. Fails if a request of it is superfluous.
async fn undisturbed(s: Scenario<'_>) -> Result<(Vec<LoggedRequest>, Vec<String>), String> {
    let behind = Behind::proxy(&s, "proxy").await?;
    let operator = behind.launch(&[]).await?;
    s.initialized(two_steps()).await?;
    let (rows, lines, before) = (s.table().len(), events(&s).len(), behind.proxy.log().len());
    let traffic = Traffic::of(&s);
    s.image("3.1.1").await?;
    s.phase("Succeeded").await?;
    same_end(&s, &traffic, rows).await?;
    let asked = behind.since(before);
    none_is_superfluous(&asked)?;
    operator.terminate().await.map_err(text)?;
    let writes = asked.into_iter().filter(LoggedRequest::is_write).collect();
    Ok((writes, events(&s).split_off(lines)))
}

/// The requests of a release of two steps are those that it needs, and none is refused.
pub fn none_is_superfluous(asked: &[LoggedRequest]) -> Outcome {
    for asked in asked {
        eprintln!("    {asked}");
    }
    let of_release = asked.iter().filter(|asked| asked.verb != "watch");
    let mut counts = BTreeMap::new();
    for asked in of_release {
        let LoggedRequest {
            verb,
            resource,
            name,
            ..
        } = asked;
        // The name of a record is unique.
        let name = if resource == "releases" { "" } else { name };
        *counts
            .entry(format!("{verb} {resource} {name}"))
            .or_insert(0) += 1;
    }
    ensure(
        counts
            .iter()
            .map(|(what, count)| (what.as_str(), *count))
            .eq(REQUESTS),
        format!("the requests of a release: {counts:?}"),
    )?;
    let refused = asked
        .iter()
        .find(|asked| asked.code.is_none_or(|code| code >= 300));
    ensure(refused.is_none(), format!("{refused:?}"))
}

/// Kills the operator at the n-th write of a release, before or after that write is done, and starts it again.
async fn killed(s: Scenario<'_>, n: usize, fault: Fault, expected: &[String]) -> Outcome {
    let behind = Behind::proxy(&s, "proxy").await?;
    let operator = behind.launch(&[]).await?;
    s.initialized(two_steps()).await?;
    let (rows, lines) = (s.table().len(), events(&s).len());
    let traffic = Traffic::of(&s);
    let mut met = behind.proxy.once(fault, n, LoggedRequest::is_write);
    s.image("3.1.1").await?;
    let at = met.within(PATIENCE).await.map_err(text)?;
    operator.kill().await;
    let before = events(&s).split_off(lines);
    let operator = behind.launch(&[]).await?;
    let end = async {
        s.phase("Succeeded").await?;
        same_end(&s, &traffic, rows).await?;
        let sent = events(&s).split_off(lines);
        only_pending_are_lost(expected, &before, &sent)?;
        let ends = sent.iter().filter(|line| line.contains(END)).count();
        ensure(ends <= 2, format!("{ends} times: {END}"))
    };
    end.await.map_err(|why| format!("killed at {at}: {why}"))?;
    let code = operator.terminate().await.map_err(text)?;
    ensure(code.success(), code)
}

/// Fails unless the events that were never sent are among the next ones at the kill, and do not include
/// the end. `expected` are all events in order, `before` those that were sent until the kill, and `sent` those until the end.
fn only_pending_are_lost(expected: &[String], before: &[String], sent: &[String]) -> Outcome {
    let is_pending = |line: &&String| !before.contains(line);
    let next = expected.iter().skip_while(|line| !is_pending(line));
    let next: Vec<_> = next.take(PENDING_EVENTS).collect();
    let lost = expected.iter().filter(|line| !sent.contains(line));
    let lost: Vec<_> = lost.collect();
    ensure(
        lost.iter()
            .all(|line| next.contains(line) && !line.contains(END)),
        format!("never sent: {lost:?}; pending at the kill: {next:?}"),
    )
}

#[test]
fn an_event_that_was_not_pending_at_the_kill_must_not_be_lost() {
    let lines = |numbers: &[usize]| -> Vec<String> {
        let name = |n: &usize| {
            if *n == 7 {
                format!("7 {END}")
            } else {
                n.to_string()
            }
        };
        numbers.iter().map(name).collect()
    };
    for (before, after, is_accepted) in [
        (&[][..], &[0, 1, 2, 3, 4, 5, 6, 7][..], true),
        (&[0], &[4, 5, 6, 7], true),
        (&[0], &[5, 6, 7], false),
        (&[0, 1], &[2, 3, 4, 6, 7], false),
        (&[0, 1, 2, 3, 4, 5], &[7], true),
        (&[0, 1, 2, 3, 4, 5, 6], &[], false),
        (&[0, 1, 2, 3, 4, 5, 6, 7], &[], true),
    ] {
        let all = lines(&[0, 1, 2, 3, 4, 5, 6, 7]);
        let sent = [lines(before), lines(after)].concat();
        let outcome = only_pending_are_lost(&all, &lines(before), &sent);
        assert_eq!(outcome.is_ok(), is_accepted, "{before:?} {after:?}");
    }
}

/// The release ended like one without faults: each step once, all traffic on the primary, which has had the new version since its
/// promotion, and ready pods on every side that had traffic.
pub async fn same_end(s: &Scenario<'_>, traffic: &Traffic, rows: usize) -> Outcome {
    equal("the table", &s.table()[rows..], &STEPS)?;
    ended(s, traffic).await
}

/// Like `same_end`, without the steps.
pub async fn ended(s: &Scenario<'_>, traffic: &Traffic) -> Outcome {
    ensure(s.weight().await? == 0, "all traffic is on the primary")?;
    let canary = s.get(Kind::Deployment, "podinfo").await?;
    ensure(canary["spec"]["replicas"] == 0, "the canary has no pods")?;
    let images = traffic.primary_images();
    ensure(
        images == ["podinfo:3.1.0", "podinfo:3.1.1"],
        format!("the primary's images: {images:?}"),
    )?;
    let (changes, lost) = traffic.lost();
    ensure(changes > 10, format!("only {changes} changes were seen"))?;
    ensure(lost.is_empty(), lost.join("\n"))
}

/// The open watch of a kind sends no more events.
async fn stalled(s: Scenario<'_>, resource: &'static str) -> Outcome {
    let behind = Behind::proxy(&s, "proxy").await?;
    let operator = behind.launch(&[]).await?;
    s.initialized(two_steps()).await?;
    let rows = s.table().len();
    let traffic = Traffic::of(&s);
    let stall = || {
        let now = behind.proxy.age();
        let stalls = move |asked: &LoggedRequest| asked.watches(resource) && asked.at < now;
        behind.proxy.always(Fault::Stall, stalls)
    };
    let mut met = stall();
    let start = Instant::now();
    if resource == "canaries" {
        other_host(&s).await?;
    } else {
        s.image("3.1.1").await?;
        s.line("Progressing 0").await?;
    }
    let took = start.elapsed();
    met.within(Duration::ZERO).await.map_err(text)?;
    eprintln!("    {resource} stalled: a change takes effect after {took:?}");
    ensure(
        took < Duration::from_secs(40),
        format!("the change took effect after {took:?}"),
    )?;
    let mut met = stall();
    let start = Instant::now();
    s.image("3.1.1").await?;
    s.phase("Succeeded").await?;
    met.within(Duration::ZERO).await.map_err(text)?;
    eprintln!(
        "    {resource} stalled again: the release ends after {:?}",
        start.elapsed()
    );
    same_end(&s, &traffic, rows).await?;
    operator.terminate().await.map(drop).map_err(text)
}

/// Gives the Canary another host, and waits until the route has it.
async fn other_host(s: &Scenario<'_>) -> Outcome {
    let other = "other.example.com";
    let change = json!({"spec": {"service": {"hosts": [other]}}});
    s.patch("canary", "podinfo", &change).await?;
    until(PATIENCE, "the other host", async || {
        let service = s.get(Kind::VirtualService, "podinfo").await?;
        let hosts = service["spec"]["hosts"].as_array();
        let there = hosts.is_some_and(|hosts| hosts.contains(&json!(other)));
        there.then_some(()).ok_or_else(|| service.to_string())
    })
    .await
    .map_err(text)
}

/// During a release the API server does not answer for some seconds. If `half_open`, the connections are dead afterwards, without a reset.
async fn silent(s: Scenario<'_>, seconds: u64, half_open: bool) -> Outcome {
    let behind = Behind::proxy(&s, "proxy").await?;
    let operator = behind.launch(&[]).await?;
    s.initialized(two_steps()).await?;
    let rows = s.table().len();
    let traffic = Traffic::of(&s);
    s.image("3.1.1").await?;
    s.line("Progressing 20").await?;
    behind.proxy.freeze();
    if half_open {
        behind.proxy.forget_connections();
    }
    let silence = Instant::now();
    until(
        Duration::from_secs(seconds + 10),
        "the silence to end",
        async || {
            let past = silence.elapsed();
            (past.as_secs() >= seconds)
                .then_some(())
                .ok_or_else(|| format!("{past:?}"))
        },
    )
    .await
    .map_err(text)?;
    behind.proxy.thaw();
    let back = Instant::now();
    s.line("Progressing 40").await?;
    let next = back.elapsed();
    s.phase("Succeeded").await?;
    eprintln!(
        "    {}: the next step {next:?} and the end {:?} after the API server was back",
        s.ns,
        back.elapsed()
    );
    same_end(&s, &traffic, rows).await?;
    ensure(
        next < Duration::from_secs(60),
        format!("the next step came {next:?} late"),
    )?;
    let code = operator.terminate().await.map_err(text)?;
    ensure(code.success(), code)
}

/// Freezes the leader and its n-th write during a release. A second operator completes the release. Then the first continues: that write
/// arrives, and any other that it still sends.
async fn former_leader(s: Scenario<'_>, n: usize) -> Outcome {
    s.rig.may_lead_in(&s.ns).await?;
    let lease = format!("-leader-election-namespace={}", s.ns);
    let args = ["-enable-leader-election", &lease];
    let former = Behind::proxy(&s, "former").await?;
    let first = former.launch(&args).await?;
    s.initialized(two_steps()).await?;
    let rows = s.table().len();
    let next = Behind::proxy(&s, "next").await?;
    let second = next.launch(&args).await?;
    let traffic = Traffic::of(&s);
    // Records are written without a condition, like events.
    let of_release = |asked: &LoggedRequest| {
        asked.is_write() && !["leases", "events", "releases"].contains(&asked.resource.as_str())
    };
    let mut met = former.proxy.once(Fault::Freeze, n, of_release);
    s.image_with_configs("3.1.1").await?;
    let late = met.within(PATIENCE).await.map_err(text)?;
    first.freeze().map_err(text)?;
    let start = Instant::now();
    s.phase("Succeeded").await?;
    let ended = start.elapsed();
    same_end(&s, &traffic, rows)
        .await
        .map_err(|why| format!("frozen at {late}: {why}"))?;
    // The last scenario freezes the last write: the other operator only repeats it.
    let repeated = next
        .proxy
        .log()
        .iter()
        .filter(|asked| of_release(asked))
        .count();
    ensure(
        n + 1 < LEADER_WRITES || repeated <= 1,
        format!("a release has more than {LEADER_WRITES} writes: {repeated} after {late}"),
    )?;
    let before = s.versions().await?;
    let sent = former.proxy.log().len();
    let thawed = former.proxy.age();
    former.proxy.thaw();
    until_answered(&former.proxy, &late).await?;
    first.thaw().map_err(text)?;
    until_standing_by(&former, sent).await?;
    let code = first.terminate().await.map_err(text)?;
    let log = former.proxy.log();
    let late = log
        .iter()
        .find(|asked| asked.at == late.at && asked.path == late.path);
    let late = late.map(ToString::to_string).unwrap_or_default();
    eprintln!("    {late}; ended by the other after {ended:?}; then {code}");
    let of_former = |asked: &&LoggedRequest| asked.at > thawed && asked.is_write();
    let still: Vec<_> = log
        .iter()
        .filter(of_former)
        .map(ToString::to_string)
        .collect();
    // The former leader sends requests for the lease only.
    ensure(
        still.iter().all(|asked| asked.contains(" leases ")),
        format!("sent after the lease was lost: {still:?}"),
    )?;
    let after = s.versions().await?;
    second.terminate().await.map_err(text)?;
    ensure(
        before == after,
        format!("{late} changed something: before {before:?} after {after:?}"),
    )
}

async fn until_answered(proxy: &Proxy, request: &LoggedRequest) -> Outcome {
    until(PATIENCE, "the late write to be answered", async || {
        let log = proxy.log();
        let answered = log
            .iter()
            .find(|asked| asked.at == request.at && asked.path == request.path);
        let code = answered.and_then(|asked| asked.code);
        code.map(drop).ok_or_else(|| request.to_string())
    })
    .await
    .map_err(text)
}

/// Waits until the former leader has noticed that it lost the lease: it stands by, and reads the lease again and again.
async fn until_standing_by(former: &Behind<'_>, sent: usize) -> Outcome {
    until(PATIENCE, "the former leader to stand by", async || {
        let log = former.since(sent);
        let reads = log
            .iter()
            .filter(|asked| asked.resource == "leases" && asked.code.is_some());
        let reads = reads.count();
        (reads > 3)
            .then_some(())
            .ok_or_else(|| format!("{reads} reads of the lease"))
    })
    .await
    .map_err(text)
}
