use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    api::canary::CanaryPhase,
    notifications::{Frequency, Severity, chats::Slack},
    shell::{
        api_server::{
            Leadership,
            fake::{Answer, FakeApiServer, Request, refusal},
        },
        lock::lock,
    },
    snapshot::{HttpResponse, Origin, OtherNamespaces},
};

fn canary(alerts: Value) -> Canary {
    serde_json::from_value(json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary",
        "metadata": {"name": "web", "namespace": "shop", "uid": "u-1"},
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "service": {"port": 80},
            "analysis": {"interval": "1m", "threshold": 1, "stepWeight": 10, "alerts": alerts}}}))
    .unwrap()
}

fn alert(severity: Severity) -> Vec<Notification> {
    vec![Notification::Alert {
        severity,
        text: "Canary failed".to_owned(),
        fields: Vec::new(),
        announces: None,
    }]
}

fn event() -> Notification {
    Notification::Event {
        kind: EventKind::Warning,
        message: "Rolling back".to_owned(),
        phase: CanaryPhase::Failed,
        checksum: "1".to_owned(),
        frequency: Frequency::Once,
    }
}

/// The API server has these AlertProviders, all for Slack, and one Secret. It accepts Events.
fn with_providers(request: &Request) -> Answer {
    let provider = |spec: Value| {
        let object = json!({"apiVersion": "flagger.app/v1beta1", "kind": "AlertProvider", "metadata": {"name": "any"}, "spec": spec});
        Some((200, object))
    };
    let (_, path) = request.line.split_once("/namespaces/").unwrap();
    match path.trim_end_matches('?') {
        "shop/alertproviders/all" => {
            provider(json!({"type": "slack", "address": "http://chat/all"}))
        }
        "shop/alertproviders/errors" => {
            provider(json!({"type": "slack", "address": "http://chat/errors"}))
        }
        "ops/alertproviders/all" => {
            provider(json!({"type": "slack", "secretRef": {"name": "chat"}}))
        }
        // aHR0cDovL2NoYXQvb3Bz is the base64 of http://chat/ops.
        "ops/secrets/chat" => Some((
            200,
            json!({"metadata": {"name": "chat"}, "data": {"address": "aHR0cDovL2NoYXQvb3Bz"}}),
        )),
        "shop/events" => Some((201, json!({"metadata": {}, "involvedObject": {}}))),
        _ => refusal(404),
    }
}

/// A delivery with a global chat and a global event webhook.
struct Rig {
    server: FakeApiServer,
    delivery: Delivery,
    called: Arc<Mutex<Vec<String>>>,
}

impl Rig {
    /// All webhooks and chats answer with this status.
    fn new(leadership: Leadership, status: u16) -> Self {
        let server = FakeApiServer::answering(with_providers);
        let called = Arc::new(Mutex::new(Vec::new()));
        let http = Http::faked({
            let called = called.clone();
            Arc::new(move |request: &HttpRequest| {
                lock(&called).push(request.url.0.clone());
                let body = String::new();
                Box::pin(async move { Ok(HttpResponse { status, body }) })
            })
        });
        let global = GlobalReceivers {
            chat: Some(Chat {
                service: &Slack,
                address: Secret("http://chat/global".to_owned()),
                token: None,
                proxy: None,
                username: "flagger".to_owned(),
                channel: "general".to_owned(),
                origin: Origin::Administrator,
            }),
            event_webhook: Some(Secret("http://events/all".to_owned())),
            other_namespaces: OtherNamespaces::Allowed,
        };
        let cluster = server.cluster(leadership);
        Self {
            delivery: Delivery::new(cluster, http, global),
            server,
            called,
        }
    }

    /// Returns the addresses that were called.
    async fn deliver(&self, alerts: Value, notifications: Vec<Notification>) -> Vec<String> {
        self.delivery.deliver(&canary(alerts), notifications).await;
        std::mem::take(&mut *lock(&self.called))
    }
}

#[tokio::test]
async fn an_alert_is_sent_to_the_chats_that_the_canary_names_for_it_or_else_to_the_global_one() {
    let rig = Rig::new(Leadership::always(), 200);
    let alerts = json!([{"name": "a", "providerRef": {"name": "all"}},
        {"name": "b", "severity": "error", "providerRef": {"name": "errors"}},
        {"name": "c", "severity": "warn", "providerRef": {"name": "all", "namespace": "ops"}},
        {"name": "d", "providerRef": {"name": "missing"}}]);
    for (severity, chats) in [
        (Severity::Info, &["http://chat/all"][..]),
        (Severity::Warn, &["http://chat/all", "http://chat/ops"]),
        (
            Severity::Error,
            &["http://chat/all", "http://chat/errors", "http://chat/ops"],
        ),
    ] {
        let called = rig.deliver(alerts.clone(), alert(severity)).await;
        assert_eq!(called, chats, "{severity:?}");
    }
    let called = rig.deliver(json!([]), alert(Severity::Info)).await;
    assert_eq!(called, ["http://chat/global"]);
}

#[tokio::test]
async fn with_the_flag_no_alert_provider_of_another_namespace_is_read_or_called() {
    let mut rig = Rig::new(Leadership::always(), 200);
    rig.delivery.global.other_namespaces = OtherNamespaces::Blocked;
    let alerts = json!([{"name": "a", "providerRef": {"name": "all", "namespace": "ops"}},
        {"name": "b", "providerRef": {"name": "all"}}]);
    let called = rig.deliver(alerts, alert(Severity::Error)).await;
    assert_eq!(called, ["http://chat/all"]);
    let requests = rig.server.take_lines();
    assert!(
        requests.iter().all(|line| !line.contains("/ops/")),
        "{requests:?}"
    );
}

#[tokio::test]
async fn an_event_is_written_and_sent_to_the_event_webhook() {
    let rig = Rig::new(Leadership::always(), 200);
    let called = rig.deliver(json!([]), vec![event(), event()]).await;
    assert_eq!(called, ["http://events/all"; 2]);
    let methods: Vec<_> = rig.server.take_lines();
    assert!(
        methods[0].starts_with("POST ") && methods[1].starts_with("PATCH "),
        "{methods:?}"
    );
}

#[tokio::test]
async fn many_failed_checks_of_a_step_become_few_events_but_the_event_webhook_gets_each() {
    for (checks, written, last) in [(10, 10, "Halt 9"), (60, 10, "51 more events at this step")] {
        let rig = Rig::new(Leadership::always(), 200);
        let halt = |n| match event() {
            Notification::Event {
                kind,
                phase,
                checksum,
                ..
            } => Notification::Event {
                kind,
                message: format!("Halt {n}"),
                phase,
                checksum,
                frequency: Frequency::Recurring,
            },
            alert @ Notification::Alert { .. } => alert,
        };
        let mut step: Vec<_> = (0..checks).map(halt).collect();
        step.push(event());
        let called = rig.deliver(json!([]), step).await;
        assert_eq!(called.len(), checks + 1);
        let requests = rig.server.take();
        let texts: Vec<_> = requests
            .iter()
            .map(|request| request.body["message"].as_str().unwrap())
            .collect();
        assert_eq!(texts.len(), written + 1, "{texts:?}");
        assert!(texts[written - 1].starts_with(last), "{texts:?}");
        assert_eq!(texts[written], "Rolling back");
    }
}

#[tokio::test]
async fn a_process_that_does_not_lead_notifies_nobody() {
    let rig = Rig::new(Leadership::never(), 200);
    let both = [vec![event()], alert(Severity::Error)].concat();
    assert_eq!(rig.deliver(json!([]), both).await, [""; 0]);
    assert_eq!(rig.server.take_lines(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_loses_the_lease_while_it_writes_an_event_sends_nothing_more() {
    let (lease, right) = watch::channel(Instant::now() + Duration::from_secs(2));
    let silent = FakeApiServer::answering(|_| None);
    let mut rig = Rig::new(Leadership::always(), 200);
    rig.delivery.events = Events::new(silent.cluster(Leadership::always()));
    rig.delivery.cluster =
        FakeApiServer::answering(with_providers).cluster(Leadership::until(right));
    let both = [vec![event()], alert(Severity::Error)].concat();
    assert_eq!(rig.deliver(json!([]), both).await, [""; 0]);
    drop(lease);
}

#[tokio::test]
async fn only_a_chat_that_is_gone_is_reported_on_the_canary() {
    for (status, writes) in [(200, 0), (403, 0), (500, 0), (404, 1), (410, 1)] {
        let rig = Rig::new(Leadership::always(), status);
        rig.deliver(json!([]), alert(Severity::Info)).await;
        let requests = rig.server.take();
        assert_eq!(requests.len(), writes, "{status}");
        for request in requests {
            let message = request.body["message"].as_str().unwrap();
            assert_eq!(request.body["type"], "Warning");
            assert!(message.contains("the chat's webhook is gone"), "{message}");
        }
    }
}
