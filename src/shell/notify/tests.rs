use std::future::pending;

use serde_json::Value;
use tokio::time::{Duration, Instant, sleep, timeout};

use super::*;
use crate::{
    api::canary::CanaryPhase,
    notifications::{EventKind, Frequency},
    shell::api_server::{Leadership, fake::FakeApiServer},
    snapshot::{HttpRequest, HttpResponse, Secret},
};

fn event(message: &str) -> Vec<Notification> {
    vec![Notification::Event {
        kind: EventKind::Warning,
        message: message.to_owned(),
        phase: CanaryPhase::Progressing,
        checksum: String::new(),
        frequency: Frequency::Recurring,
    }]
}

fn canary(name: &str) -> Canary {
    let mut canary = Canary::default();
    canary.metadata.name = Some(name.to_owned());
    canary.metadata.uid = Some(name.to_owned());
    canary
}

/// A notifier whose event webhook takes a second for each call. Calls about the canary `hanging` are never answered, and the first call
/// about `panicking` panics.
struct Rig {
    notifier: Notifier,
    /// The canary and the text of each call.
    sent: Arc<Mutex<Vec<(String, String)>>>,
    /// The address of each call.
    urls: Arc<Mutex<Vec<String>>>,
}

impl Rig {
    /// The API server answers no request.
    fn new() -> Self {
        let server = FakeApiServer::answering(|_| None);
        let sent: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
        let urls: Arc<Mutex<Vec<String>>> = Arc::default();
        let http = Http::faked({
            let (sent, urls) = (sent.clone(), urls.clone());
            Arc::new(move |request: &HttpRequest| {
                lock(&urls).push(request.url.0.clone());
                let body: Value = serde_json::from_str(request.body.as_ref().unwrap()).unwrap();
                let text = |path| body.pointer(path).and_then(Value::as_str);
                let name = text("/name").unwrap_or_default().to_owned();
                let message = text("/metadata/eventMessage").unwrap_or_default();
                assert_ne!((name.as_str(), message), ("panicking", "first"));
                lock(&sent).push((name.clone(), message.to_owned()));
                Box::pin(async move {
                    if name == "hanging" {
                        pending::<()>().await;
                    }
                    sleep(Duration::from_secs(1)).await;
                    Ok(HttpResponse {
                        status: 200,
                        body: String::new(),
                    })
                })
            })
        });
        let global = GlobalReceivers {
            event_webhook: Some(Secret("http://events/".to_owned())),
            ..GlobalReceivers::default()
        };
        let cluster = server.cluster(Leadership::always());
        Self {
            notifier: Notifier::new(cluster, http, global),
            sent,
            urls,
        }
    }

    /// The texts that were sent about a canary.
    fn sent(&self, canary: &str) -> Vec<String> {
        let sent = lock(&self.sent);
        let of_canary = sent.iter().filter(|(name, _)| name == canary);
        of_canary.map(|(_, text)| text.clone()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_notification_that_a_question_waits_for_is_delivered_even_if_the_queue_is_full() {
    let (rig, canary) = (Rig::new(), canary("web"));
    for n in 0..2 * MAX_QUEUED {
        rig.notifier.notify(&canary, event(&format!("halt {n}")));
    }
    rig.notifier.deliver(&canary, event("rolled back")).await;
    let sent = rig.sent("web");
    assert_eq!(sent.len(), MAX_QUEUED + 1);
    assert_eq!(sent.last().unwrap(), "rolled back");
}

#[tokio::test(start_paused = true)]
async fn notifications_of_a_canary_are_delivered_in_order() {
    let (rig, canary) = (Rig::new(), canary("web"));
    for text in ["first", "second", "third"] {
        rig.notifier.notify(&canary, event(text));
    }
    rig.notifier.all_delivered().await;
    assert_eq!(rig.sent("web"), ["first", "second", "third"]);
}

#[tokio::test(start_paused = true)]
async fn all_are_delivered_only_once_the_last_receiver_has_answered() {
    let (rig, start) = (Rig::new(), Instant::now());
    rig.notifier.all_delivered().await;
    assert_eq!(start.elapsed(), Duration::ZERO, "there is none");
    for name in ["a", "b"] {
        rig.notifier.notify(&canary(name), event("first"));
    }
    rig.notifier.all_delivered().await;
    // The writes of both Events are given up after four seconds, and the webhook takes one more.
    assert_eq!(start.elapsed().as_secs(), 5);
    assert_eq!((rig.sent("a").len(), rig.sent("b").len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_hangs_or_a_panic_stops_no_other_notification() {
    let rig = Rig::new();
    for text in ["first", "second"] {
        for name in ["hanging", "panicking", "web"] {
            rig.notifier.notify(&canary(name), event(text));
        }
    }
    let web = canary("web");
    let delivered = rig.notifier.deliver(&web, event("third"));
    let delivered = timeout(Duration::from_secs(30), delivered).await;
    assert!(delivered.is_ok(), "{:?}", rig.sent("web"));
    assert_eq!(rig.sent("web"), ["first", "second", "third"]);
    assert_eq!(rig.sent("panicking"), ["second"]);
    // The call has a deadline: then the next notification has its turn.
    rig.notifier.all_delivered().await;
    assert_eq!(rig.sent("hanging"), ["first", "second"]);
}

#[tokio::test(start_paused = true)]
async fn a_notification_that_waits_goes_to_the_receivers_of_when_it_was_decided() {
    let rig = Rig::new();
    let with_webhook = |generation: i64, url: &str| -> Canary {
        let webhook = serde_json::json!({"name": "all", "type": "event", "url": url});
        let mut canary = canary("web");
        canary.metadata.generation = Some(generation);
        canary.spec.analysis =
            serde_json::from_value(serde_json::json!({"webhooks": [webhook]})).unwrap();
        canary
    };
    for (generation, url) in [(1, "http://old/"), (2, "http://new/"), (2, "http://new/")] {
        let text = format!("for {url}");
        rig.notifier
            .notify(&with_webhook(generation, url), event(&text));
    }
    rig.notifier.all_delivered().await;
    let urls = lock(&rig.urls).clone();
    assert_eq!(urls, ["http://old/", "http://new/", "http://new/"]);
}
