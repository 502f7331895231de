//! Releases by the complete operator on the model.

use std::time::{Duration, Instant};

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{faults::Streams, invariants, request::Verb, rig::Rig};

#[tokio::test(start_paused = true)]
async fn a_release_of_ten_steps_takes_ten_minutes_of_virtual_time() {
    let begin = Instant::now();
    let mut rig = Rig::new().await;
    rig.start("operator");
    rig.walkthrough(json!({"analysis": {"stepWeight": 5}}));
    rig.until_phase("Initialized").await;
    rig.image("3.1.1");
    let start = rig.model.now();
    rig.until_phase("Progressing").await;
    rig.until_phase("Succeeded").await;
    let (virtual_time, real) = (rig.model.now().duration_since(start), begin.elapsed());
    println!(
        "{virtual_time:#} in {real:?}, {} requests, {} revisions",
        rig.model.received().len(),
        rig.model.history().len()
    );
    // Ten steps a minute apart, and the time before and after them.
    assert!((10..15).contains(&virtual_time.as_mins()), "{virtual_time}");
    let outcome = rig.outcome();
    let route = &outcome["virtualservices"]["podinfo"]["http"][0]["route"];
    assert_eq!(
        (&outcome["primary"], &outcome["replicas"]),
        (&json!("podinfo:3.1.1"), &json!(0)),
        "{outcome}"
    );
    assert_eq!(
        (&route[0]["weight"], &route[1]["weight"]),
        (&json!(100), &json!(0)),
        "{outcome}"
    );
    let wrong = invariants::violations(
        &rig.model.history(),
        rig.model.now(),
        &invariants::Tolerance::default(),
    );
    assert_eq!(wrong, Vec::<String>::new(), "{}", rig.transcript());
}

#[tokio::test(start_paused = true)]
async fn a_watch_from_a_compacted_revision_fails() {
    let rig = Rig::new().await;
    rig.create("configmaps", json!({"metadata": {"name": "a"}}));
    let old = rig.model.history()[0].revision;
    rig.create("configmaps", json!({"metadata": {"name": "b"}}));
    rig.model.compact();
    let request = format!("/api/v1/configmaps?watch=true&resourceVersion={old}");
    let request = http::Request::get(request).body(Vec::new()).unwrap();
    let answer = rig
        .model
        .client("test")
        .request_text(request)
        .await
        .unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(
        (&answer["type"], &answer["object"]["code"]),
        (&json!("ERROR"), &json!(410)),
        "{answer}"
    );
}

/// A watch loses all events of Deployments, and the next list is an hour away.
#[tokio::test(start_paused = true)]
async fn a_release_does_not_wait_for_the_next_list_when_readiness_events_are_lost() {
    let mut rig = Rig::new().await;
    rig.start("operator");
    rig.walkthrough(json!({"analysis": {"interval": "10s", "stepWeight": 25}}));
    rig.until_phase("Initialized").await;
    rig.image("3.1.1");
    rig.until_phase("Progressing").await;
    let begin = rig.model.now();
    rig.model
        .plan()
        .dropped
        .insert("deployments", (1..1000).collect());
    rig.until_phase("Succeeded").await;
    let took = rig.model.now().duration_since(begin);
    assert!(took.as_mins() < 5, "{took:#}:\n{}", rig.transcript());
}

/// A Deployment's pods are not ready for an hour, without any event: the operator re-reads it, but not at each tick.
#[tokio::test(start_paused = true)]
async fn a_long_wait_is_re_read_more_and_more_rarely() {
    let mut rig = Rig::new().await;
    rig.start("operator");
    rig.walkthrough(json!({"progressDeadlineSeconds": 7200, "analysis": {"interval": "10s"}}));
    rig.until_phase("Initialized").await;
    let patient = json!({"spec": {"progressDeadlineSeconds": 7200}});
    rig.patch("deployments", "podinfo", patient);
    rig.image("broken");
    rig.until_phase("Progressing").await;
    rig.pass(1500).await;
    let reads = |rig: &Rig| {
        let received = rig.model.received();
        let reads = received.iter().filter(|request| request.verb == Verb::Get);
        reads.count()
    };
    let before = reads(&rig);
    rig.pass(2000).await;
    // These are two hundred ticks, with the 256th among them.
    let count = reads(&rig) - before;
    assert!((1..=12).contains(&count), "{count} reads");
}

/// The cache of an API server may be stale, and an operator that starts has no newer data.
#[tokio::test(start_paused = true)]
async fn a_starting_operator_does_not_act_on_stale_reads() {
    let mut rig = Rig::new().await;
    rig.walkthrough(json!({}));
    rig.pass(5).await;
    let hour = Duration::from_secs(3600);
    rig.model.plan().late.insert("deployments", hour);
    rig.start("operator");
    rig.pass(2).await;
    let primary = rig.get("deployments", "podinfo-primary");
    assert!(primary.is_object(), "{}", rig.transcript());
}

/// Load balancers close connections, and API servers are replaced: neither makes the operator list again.
#[tokio::test(start_paused = true)]
async fn a_watch_resumes_after_a_broken_connection() {
    let mut rig = Rig::new().await;
    rig.model.plan().streams = Streams::Refused;
    rig.walkthrough(json!({}));
    rig.start("operator");
    rig.until_phase("Initialized").await;
    let before = lists(&rig);
    rig.model.plan().breaks += 1;
    rig.image("3.1.1");
    rig.until_phase("Progressing").await;
    rig.pass(60).await;
    assert_eq!(lists(&rig), before, "{}", rig.transcript());
}

/// An API server that refuses streamed lists, or never ends them, delays the operator by at most two minutes.
#[tokio::test(start_paused = true)]
async fn lists_are_paged_where_they_cannot_be_streamed() {
    let (usual, lists) = begin(Streams::Sent).await;
    assert_eq!(lists, 0);
    let (refused, lists) = begin(Streams::Refused).await;
    assert!(lists > 0);
    assert_eq!(refused, usual);
    let (endless, lists) = begin(Streams::Endless).await;
    assert!(lists > 0);
    assert!(endless.as_secs() < 120, "{endless:#}");
}

/// The time in which a Canary is initialized, and the number of lists.
async fn begin(streams: Streams) -> (SignedDuration, usize) {
    let mut rig = Rig::new().await;
    rig.model.plan().streams = streams;
    rig.walkthrough(json!({}));
    let begin = rig.model.now();
    rig.start("operator");
    rig.until_phase("Initialized").await;
    let took = rig.model.now().duration_since(begin);
    (took, lists(&rig))
}

/// The number of list requests so far. A run begins with a list of its records, whatever happens to watches.
fn lists(rig: &Rig) -> usize {
    let received = rig.model.received();
    let lists = received.iter().filter(|request| request.verb == Verb::List);
    lists
        .filter(|request| request.resource != "releases")
        .count()
}
