use serde_json::{Value, json};

use super::*;
use crate::shell::api_server::{
    Leadership,
    fake::{FakeApiServer, Request, refusal},
};

fn canary() -> Canary {
    serde_json::from_value(json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary",
        "metadata": {"name": "web", "namespace": "shop", "uid": "u-1", "resourceVersion": "7"},
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "service": {"port": 80}}}))
    .unwrap()
}

/// Accepts Events, as an API server that stores none of them.
#[expect(clippy::unnecessary_wraps, reason = "this is one of several answers")]
fn accepting(request: &Request) -> Option<(u16, Value)> {
    let mut event = request.body.clone();
    event["metadata"]["name"] = json!("web.1");
    event["involvedObject"] = json!({});
    Some((200, event))
}

/// Methods and bodies of the requests.
fn sent(server: &FakeApiServer) -> Vec<(String, Value)> {
    let requests = server.take().into_iter();
    requests
        .map(|Request { line, body, .. }| (line.split(' ').next().unwrap().to_owned(), body))
        .collect()
}

#[tokio::test]
async fn an_event_is_about_its_canary_and_comes_from_flagger() {
    let server = FakeApiServer::answering(accepting);
    let events = Events::new(server.cluster(Leadership::always()));
    events.write(&canary(), EventKind::Warning, "Halt").await;
    let [request] = server.take().try_into().unwrap();
    assert_eq!(request.line, "POST /api/v1/namespaces/shop/events?");
    let mut event = request.body;
    let name = event["metadata"]["name"].take();
    assert!(name.as_str().unwrap().starts_with("web."), "{name}");
    let times = [
        event["firstTimestamp"].take(),
        event["lastTimestamp"].take(),
    ];
    assert_eq!(times[0], times[1]);
    let at: Timestamp = times[0].as_str().unwrap().parse().unwrap();
    assert!(clock::now().duration_since(at).as_secs() <= 60, "{at}");
    let expected = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": null, "namespace": "shop"},
        "involvedObject": {"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "name": "web", "namespace": "shop", "uid": "u-1",
            "resourceVersion": "7"},
        "type": "Warning", "reason": "Synced", "message": "Halt", "source": {"component": "flagger"}, "count": 1,
        "firstTimestamp": null, "lastTimestamp": null, "reportingComponent": "flagger", "reportingInstance": ""});
    assert_eq!(event, expected);
}

#[tokio::test]
async fn a_repeated_event_is_counted_up_and_another_one_is_new() {
    let server = FakeApiServer::answering(accepting);
    let events = Events::new(server.cluster(Leadership::always()));
    for (kind, message, method, count) in [
        (EventKind::Normal, "Advance", "POST", 1),
        (EventKind::Normal, "Advance", "PATCH", 2),
        (EventKind::Normal, "Advance", "PATCH", 3),
        (EventKind::Normal, "Promotion", "POST", 1),
        (EventKind::Warning, "Advance", "POST", 1),
        (EventKind::Normal, "Advance", "PATCH", 4),
    ] {
        events.write(&canary(), kind, message).await;
        let [(sent, body)] = sent(&server).try_into().unwrap();
        assert_eq!((sent.as_str(), &body["count"]), (method, &json!(count)));
        assert!(body["lastTimestamp"].is_string(), "{body}");
    }
}

#[tokio::test]
async fn the_count_of_an_earlier_process_continues() {
    let server = FakeApiServer::answering(|request| match request.line.split(' ').next() {
        Some("POST") => refusal(409),
        Some("GET") => Some((
            200,
            json!({"metadata": {}, "involvedObject": {}, "count": 5}),
        )),
        _ => accepting(request),
    });
    let events = Events::new(server.cluster(Leadership::always()));
    for (methods, count) in [(&["POST", "GET", "PATCH"][..], 6), (&["PATCH"], 7)] {
        events.write(&canary(), EventKind::Normal, "Advance").await;
        let (sent, bodies): (Vec<_>, Vec<_>) = sent(&server).into_iter().unzip();
        assert_eq!(sent, methods);
        assert_eq!(bodies.last().unwrap()["count"], count);
    }
}

#[tokio::test]
async fn an_event_that_has_expired_is_created_again() {
    let server = FakeApiServer::answering(|request| {
        let is_patch = request.line.starts_with("PATCH ");
        if is_patch {
            refusal(404)
        } else {
            accepting(request)
        }
    });
    let events = Events::new(server.cluster(Leadership::always()));
    events.write(&canary(), EventKind::Normal, "Advance").await;
    drop(sent(&server));
    events.write(&canary(), EventKind::Normal, "Advance").await;
    let (methods, bodies): (Vec<_>, Vec<_>) = sent(&server).into_iter().unzip();
    assert_eq!(methods, ["PATCH", "POST"]);
    assert_eq!(bodies[1]["count"], 1);
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_does_not_answer_delays_an_event_for_seconds_only() {
    let server = FakeApiServer::answering(|_| None);
    let events = Events::new(server.cluster(Leadership::always()));
    let start = tokio::time::Instant::now();
    events.write(&canary(), EventKind::Normal, "Advance").await;
    assert!(start.elapsed() <= DEADLINE, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_canary_with_many_changing_events_has_25_written_and_one_that_says_so() {
    let server = FakeApiServer::answering(accepting);
    let events = Events::new(server.cluster(Leadership::always()));
    let warning = EventKind::Warning;
    for n in 0..200 {
        let message = format!("Halt {n}");
        events.write_recurring(&canary(), warning, &message).await;
    }
    let written = sent(&server);
    assert_eq!(written.len(), 26);
    assert_eq!(written[25].1["message"], LIMITED);
    // The outcome of a run is always written.
    events.write(&canary(), warning, "Canary failed!").await;
    assert_eq!(sent(&server)[0].1["message"], "Canary failed!");
    tokio::time::advance(Duration::from_secs(300)).await;
    for n in 200..300 {
        let message = format!("Halt {n}");
        events.write_recurring(&canary(), warning, &message).await;
    }
    let written = sent(&server);
    let (methods, bodies): (Vec<_>, Vec<_>) = written.into_iter().unzip();
    assert_eq!(methods, ["POST", "PATCH"]);
    assert_eq!(bodies[0]["message"], "Halt 200");
    assert_eq!(bodies[1]["count"], 2, "{LIMITED}");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_repeated_too_often_keeps_its_full_count() {
    let server = FakeApiServer::answering(accepting);
    let events = Events::new(server.cluster(Leadership::always()));
    let repeat = async || {
        let waiting = "Halt waiting for approval";
        events
            .write_recurring(&canary(), EventKind::Warning, waiting)
            .await;
    };
    for _ in 0..40 {
        repeat().await;
    }
    assert_eq!(sent(&server).len(), 26);
    tokio::time::advance(Duration::from_secs(300)).await;
    repeat().await;
    let [(method, body)] = sent(&server).try_into().unwrap();
    assert_eq!((method.as_str(), &body["count"]), ("PATCH", &json!(41)));
}
