//! Releases of the whole operator on the model.

use std::time::{Duration, Instant};

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{call::Verb, faults::Streams, invariants, rig::Rig};

#[tokio::test(start_paused = true)]
async fn a_release_of_ten_steps_takes_ten_minutes_of_the_models_time() {
    let begin = Instant::now();
    let mut rig = Rig::new().await;
    rig.start("operator");
    rig.walkthrough(json!({"analysis": {"stepWeight": 5}}));
    rig.phase("Initialized").await;
    rig.image("3.1.1");
    let start = rig.model.now();
    rig.phase("Progressing").await;
    rig.phase("Succeeded").await;
    let (virtual_time, real) = (rig.model.now().duration_since(start), begin.elapsed());
    println!(
        "{virtual_time:#} in {real:?}, {} requests, {} revisions",
        rig.model.asked().len(),
        rig.model.history().len()
    );
    // Ten steps a minute apart, and what comes before and after.
    assert!((10..15).contains(&virtual_time.as_mins()), "{virtual_time}");
    let outcome = rig.outcome();
    let route = &outcome["route"]["http"][0]["route"];
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
    let wrong = invariants::violations(&rig.model.history(), rig.model.now());
    assert_eq!(wrong, Vec::<String>::new(), "{}", rig.story());
}

#[tokio::test(start_paused = true)]
async fn what_the_history_has_lost_cannot_be_watched_from() {
    let rig = Rig::new().await;
    rig.create("configmaps", json!({"metadata": {"name": "a"}}));
    let old = rig.model.history()[0].revision;
    rig.create("configmaps", json!({"metadata": {"name": "b"}}));
    rig.model.compact();
    let request = format!("/api/v1/configmaps?watch=true&resourceVersion={old}");
    let request = http::Request::get(request).body(Vec::new()).unwrap();
    let said = rig
        .model
        .client("test")
        .request_text(request)
        .await
        .unwrap();
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&said["type"], &said["object"]["code"]),
        (&json!("ERROR"), &json!(410)),
        "{said}"
    );
}

/// A watch that goes silent about one kind, and says nothing of it: its list is an hour away.
#[tokio::test(start_paused = true)]
async fn a_release_does_not_wait_an_hour_for_pods_whose_readiness_no_news_told() {
    let mut rig = Rig::new().await;
    rig.start("operator");
    rig.walkthrough(json!({"analysis": {"interval": "10s", "stepWeight": 25}}));
    rig.phase("Initialized").await;
    rig.image("3.1.1");
    rig.phase("Progressing").await;
    let begin = rig.model.now();
    rig.model
        .plan()
        .dropped
        .insert("deployments", (1..1000).collect());
    rig.phase("Succeeded").await;
    let took = rig.model.now().duration_since(begin);
    assert!(took.as_mins() < 5, "{took:#}:\n{}", rig.story());
}

/// For an hour a Deployment's pods are not ready, and nothing is said of them: that is looked at, but not at each tick.
#[tokio::test(start_paused = true)]
async fn a_long_wait_is_looked_at_more_and_more_rarely() {
    let mut rig = Rig::new().await;
    rig.start("operator");
    rig.walkthrough(json!({"progressDeadlineSeconds": 7200, "analysis": {"interval": "10s"}}));
    rig.phase("Initialized").await;
    let patient = json!({"spec": {"progressDeadlineSeconds": 7200}});
    rig.patch("deployments", "podinfo", patient);
    rig.image("broken");
    rig.phase("Progressing").await;
    rig.rest(1500).await;
    let reads = |rig: &Rig| {
        let asked = rig.model.asked();
        let reads = asked.iter().filter(|asked| asked.verb == Verb::Get);
        reads.count()
    };
    let before = reads(&rig);
    rig.rest(2000).await;
    // Two hundred ticks, with the 256th among them.
    let looks = reads(&rig) - before;
    assert!((1..=12).contains(&looks), "{looks} reads");
}

/// What an API server has in its cache may be old; nothing is known at the start that would be newer.
#[tokio::test(start_paused = true)]
async fn an_operator_begins_with_what_there_is_and_not_with_what_there_was() {
    let mut rig = Rig::new().await;
    rig.walkthrough(json!({}));
    rig.rest(5).await;
    let hour = Duration::from_secs(3600);
    rig.model.plan().late.insert("deployments", hour);
    rig.start("operator");
    rig.rest(2).await;
    let primary = rig.get("deployments", "podinfo-primary");
    assert!(primary.is_object(), "{}", rig.story());
}

/// Behind a load balancer that closes connections, or beside an API server that is replaced, nothing has to be listed anew.
#[tokio::test(start_paused = true)]
async fn a_watch_whose_connection_breaks_goes_on_where_it_was() {
    let mut rig = Rig::new().await;
    rig.model.plan().streams = Streams::Refused;
    rig.walkthrough(json!({}));
    rig.start("operator");
    rig.phase("Initialized").await;
    let before = lists(&rig);
    rig.model.plan().breaks += 1;
    rig.image("3.1.1");
    rig.phase("Progressing").await;
    rig.rest(60).await;
    assert_eq!(lists(&rig), before, "{}", rig.story());
}

/// An API server that sends no lists as streams, or comes to no end with them, makes nobody wait for long.
#[tokio::test(start_paused = true)]
async fn where_lists_do_not_come_as_streams_they_come_in_pages() {
    let (usual, lists) = begin(Streams::Sent).await;
    assert_eq!(lists, 0);
    let (refused, lists) = begin(Streams::Refused).await;
    assert!(lists > 0);
    assert_eq!(refused, usual);
    let (endless, lists) = begin(Streams::Endless).await;
    assert!(lists > 0);
    assert!(endless.as_secs() < 120, "{endless:#}");
}

/// How long a Canary takes to be initialized, and how many lists there were.
async fn begin(streams: Streams) -> (SignedDuration, usize) {
    let mut rig = Rig::new().await;
    rig.model.plan().streams = streams;
    rig.walkthrough(json!({}));
    let begin = rig.model.now();
    rig.start("operator");
    rig.phase("Initialized").await;
    let took = rig.model.now().duration_since(begin);
    (took, lists(&rig))
}

/// How many pages of lists were asked for so far.
fn lists(rig: &Rig) -> usize {
    let asked = rig.model.asked();
    let lists = asked.iter().filter(|asked| asked.verb == Verb::List);
    lists.count()
}
