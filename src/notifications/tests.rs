//! The table of chat services: the requests that post a message. A new service adds a row to [`ROWS`]; one with several forms has several.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use super::{
    Notification, Severity,
    chats::{self, Chat, ChatError, chat_of, is_gone, refused},
    message::AlertMessage,
};
use crate::{
    api::{self, alert_provider::AlertProvider, canary::Canary},
    snapshot::{HttpRequest, HttpResponse, Method, Origin, Secret},
};

/// The expectations for one form of messages of a chat service.
struct Row {
    /// The `type` of an AlertProvider.
    type_: &'static str,
    /// The address of the chat, and the address of the request.
    address: [&'static str; 2],
    /// The body for [`message`], for an error and for anything else.
    body: fn(is_error: bool) -> Value,
    /// Whether a bot's token is sent.
    sends_token: bool,
    /// The error about an invalid address.
    invalid: &'static str,
}

const ROWS: [Row; 7] = [
    Row {
        type_: "slack",
        address: ["https://hooks.slack.com/x"; 2],
        body: |is_error| in_slacks_form(if is_error { "danger" } else { "good" }),
        sends_token: true,
        invalid: "error: invalid Slack hook URL",
    },
    Row {
        type_: "discord",
        address: [
            "https://discord.com/api/webhooks/1/x?wait=true",
            "https://discord.com/api/webhooks/1/x/slack?wait=true",
        ],
        body: |is_error| in_slacks_form(if is_error { "danger" } else { "good" }),
        sends_token: false,
        invalid: "error: invalid Discord hook URL",
    },
    Row {
        type_: "discord",
        address: ["https://discord.com/api/webhooks/1/x/slack"; 2],
        body: |is_error| in_slacks_form(if is_error { "danger" } else { "good" }),
        sends_token: false,
        invalid: "error: invalid Discord hook URL",
    },
    Row {
        type_: "rocket",
        address: ["https://rocket.example.com/hooks/x"; 2],
        body: |is_error| in_slacks_form(if is_error { "#FF0000" } else { "#0076D7" }),
        sends_token: false,
        invalid: "error: invalid Rocket hook URL",
    },
    Row {
        type_: "msteams",
        address: ["https://example.webhook.office.com/webhookb2/x/IncomingWebhook/y/z"; 2],
        body: |is_error| {
            json!({"@type": "MessageCard", "@context": "http://schema.org/extensions",
                "themeColor": if is_error { "FF0000" } else { "0076D7" }, "summary": "podinfo.test",
                "sections": [{"activityTitle": "hello", "activitySubtitle": "podinfo.test",
                    "facts": [{"name": "Cluster", "value": "prod"}]}]})
        },
        sends_token: false,
        invalid: "error: invalid MS Teams webhook URL",
    },
    Row {
        type_: "msteams",
        address: ["https://prod-1.westeurope.logic.azure.com/workflows/x/triggers/manual/paths/invoke?sig=y";
            2],
        body: |is_error| {
            json!({"type": "message", "attachments": [{"contentType": "application/vnd.microsoft.card.adaptive", "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard", "version": "1.4",
                "msteams": {"width": "Full"}, "body": [
                    {"type": "TextBlock", "text": "hello", "wrap": true, "size": "medium", "weight": "bolder",
                        "color": if is_error { "attention" } else { "default" }},
                    {"type": "TextBlock", "text": "podinfo.test", "wrap": true, "isSubtle": true, "spacing": "none"},
                    {"type": "FactSet", "facts": [{"title": "Cluster", "value": "prod"}]}]}}]})
        },
        sends_token: false,
        invalid: "error: invalid MS Teams webhook URL",
    },
    Row {
        type_: "gchat",
        address: ["https://chat.googleapis.com/v1/spaces/x/messages?key=y&token=z"; 2],
        body: |_| {
            json!({"cards": [{"header": {"title": "Flagger", "subtitle": "podinfo.test", "imageUrl": "https://flagger.app/favicon.png"},
                "sections": [
                    {"widgets": [{"textParagraph": {"text": "<font color=#848484><strong>hello</strong></font>"}}]},
                    {"widgets": [{"textParagraph": {"text": "Cluster<br><font color=#848484><strong>prod</strong></font>"}}]}]}]})
        },
        sends_token: false,
        invalid: "error: invalid Google Chat webhook URL",
    },
];

fn in_slacks_form(colour: &str) -> Value {
    json!({"channel": "general", "username": "flagger", "icon_url": "", "icon_emoji": ":rocket:",
        "attachments": [{"color": colour, "author_name": "podinfo.test", "text": "hello", "mrkdwn_in": ["text"],
            "fields": [{"title": "Cluster", "value": "prod", "short": false}]}]})
}

fn message(severity: Severity) -> AlertMessage {
    AlertMessage {
        canary: "podinfo.test".to_owned(),
        text: "hello".to_owned(),
        severity,
        fields: vec![("Cluster".to_owned(), "prod".to_owned())],
    }
}

fn chat(type_: &str, address: &str) -> Chat {
    Chat {
        service: chats::named(type_).unwrap(),
        address: Secret(address.to_owned()),
        token: Some(Secret("t".to_owned())),
        proxy: Some(Secret("http://proxy".to_owned())),
        username: "flagger".to_owned(),
        channel: "general".to_owned(),
        origin: Origin::User,
    }
}

fn body(request: &HttpRequest) -> Value {
    serde_json::from_str(request.body.as_deref().unwrap()).unwrap()
}

#[test]
fn each_service_has_a_row() {
    let rows: BTreeSet<_> = ROWS.iter().map(|row| row.type_).collect();
    let services: BTreeSet<_> = chats::names().collect();
    assert_eq!(rows, services);
    assert_eq!(
        services.len(),
        chats::names().count(),
        "no name is used twice"
    );
}

#[test]
fn the_api_server_accepts_each_service_and_no_other() {
    let crds = api::crds();
    let crd = crds
        .iter()
        .find(|crd| crd["spec"]["names"]["kind"] == "AlertProvider");
    let schema = crd
        .unwrap()
        .pointer("/spec/versions/0/schema/openAPIV3Schema");
    let path = "/properties/spec/properties/type/enum";
    let accepted: Vec<String> =
        serde_json::from_value(schema.unwrap().pointer(path).unwrap().clone()).unwrap();
    assert_eq!(accepted, chats::names().collect::<Vec<_>>());
}

#[test]
fn each_service_gets_a_message_in_its_own_form() {
    for row in &ROWS {
        let chat = chat(row.type_, row.address[0]);
        for severity in [Severity::Info, Severity::Warn, Severity::Error] {
            let request = chat.request(&message(severity)).unwrap();
            assert_eq!(request.url.0, row.address[1]);
            let is_error = severity == Severity::Error;
            let mut expected = (row.body)(is_error);
            if severity == Severity::Warn && expected["type"] == "message" {
                // Only this form shows a warning differently from a success.
                expected["attachments"][0]["content"]["body"][0]["color"] = json!("warning");
            }
            assert_eq!(body(&request), expected, "{}", row.type_);
            let proxy = request.proxy.map(|proxy| proxy.0);
            assert_eq!(proxy.as_deref(), Some("http://proxy"));
            let headers = request.headers.iter();
            let headers: Vec<_> = headers
                .map(|(name, value)| format!("{name}: {}", value.0))
                .collect();
            let token = row.sends_token.then_some("Authorization: Bearer t");
            let expected: Vec<_> = ["Content-type: application/json"]
                .into_iter()
                .chain(token)
                .collect();
            assert_eq!(headers, expected, "{}", row.type_);
            assert_eq!((request.method, request.retries), (Method::Post, 0));
            assert_eq!(request.timeout, Duration::from_secs(5));
            assert!(!request.insecure_skip_verify && request.budget.is_none());
        }
    }
}

#[test]
fn an_invalid_address_is_not_printed() {
    for row in &ROWS {
        let chat = chat(row.type_, "secret-address");
        let error = chat.request(&message(Severity::Info)).unwrap_err();
        assert_eq!(error.to_string(), row.invalid);
    }
}

fn provider(spec: Value) -> AlertProvider {
    serde_json::from_value(json!({"apiVersion": "flagger.app/v1beta1", "kind": "AlertProvider", "metadata": {"name": "on-call"}, "spec": spec})).unwrap()
}

#[test]
fn the_address_in_the_secret_wins() {
    let provider =
        provider(json!({"type": "slack", "address": "http://a", "secretRef": {"name": "s"}}));
    let chat = chat_of(
        &provider,
        Some(&json!({"data": {"address": "aHR0cDovL2IK", "token": "dA=="}})),
    )
    .unwrap();
    assert_eq!(
        (chat.address.0.as_str(), chat.token.unwrap().0.as_str()),
        ("http://b", "t")
    );
    assert_eq!(
        (chat.username.as_str(), chat.channel.as_str()),
        ("flagger", "general")
    );
    assert_eq!(chat.origin, Origin::User);
    assert_eq!(
        chat_of(&provider, Some(&json!({"data": {}}))).unwrap_err(),
        ChatError::NoAddress
    );
}

#[test]
fn a_secret_goes_to_its_hosts_only_and_no_proxy_in_between_reads_it() {
    // The addresses in the Secrets are http://b, https://b.
    let (plain, encrypted) = ("aHR0cDovL2I=", "aHR0cHM6Ly9i");
    for (hosts, address, proxy, refused) in [
        ("b", plain, None, None),
        ("c", plain, None, Some("b")),
        ("b", plain, Some("http://p:3128"), Some("p")),
        ("b", plain, Some("10.0.0.1:3128"), Some("")),
        ("b,p", plain, Some("http://p:3128"), None),
        ("b", encrypted, Some("http://p:3128"), None),
    ] {
        let provider = provider(json!({"type": "slack", "proxy": proxy}));
        let annotations = json!({"flagger-rs.github.io/allowed-hosts": hosts});
        let secret = json!({"metadata": {"name": "s", "annotations": annotations},
            "data": {"address": address}});
        let error = chat_of(&provider, Some(&secret)).err();
        let error = error.map(|error| error.to_string());
        let expected = refused.map(|host| {
            format!(
                "secretRef error: the Secret s is not sent to {host}: its annotation flagger-rs.github.io/allowed-hosts allows only {hosts:?}"
            )
        });
        assert_eq!(error, expected, "{hosts} {proxy:?}");
    }
}

#[test]
fn the_token_of_a_service_account_is_sent_to_no_chat() {
    let secret = json!({"metadata": {"name": "s"}, "type": "kubernetes.io/service-account-token",
        "data": {"address": "aHR0cDovL2I=", "token": "dA=="}});
    let error = chat_of(&provider(json!({"type": "slack"})), Some(&secret)).unwrap_err();
    let text = "secretRef error: the Secret s has the token of a ServiceAccount, which is sent to no other server";
    assert!(error.to_string().starts_with(text), "{error}");
}

/// Each row has the fields of an AlertProvider, the data of its Secret, and the chat: address, token, proxy, username, channel.
#[test]
fn a_chat_has_the_providers_fields_or_flaggers_defaults() {
    let own = json!({"type": "slack", "address": " http://a\n", "channel": "ops", "username": "bot", "proxy": "http://proxy"});
    let empty =
        json!({"type": "slack", "address": "http://a", "channel": "", "username": "", "proxy": ""});
    let none = json!({"type": "slack"});
    for (spec, data, chat) in [
        (own, None, ["http://a", "-", "http://proxy", "bot", "ops"]),
        (empty, None, ["http://a", "-", "-", "flagger", "general"]),
        (none.clone(), None, ["", "-", "-", "flagger", "general"]),
        (
            none.clone(),
            Some(json!({"address": "aHR0cDovL2I=", "token": "dAo="})),
            ["http://b", "t", "-", "flagger", "general"],
        ),
        (
            none,
            Some(json!({"address": "aHR0cDovL2I=", "token": ""})),
            ["http://b", "-", "-", "flagger", "general"],
        ),
    ] {
        let secret = data.map(|data| json!({"data": data}));
        let seen = chat_of(&provider(spec), secret.as_ref()).unwrap();
        let shown = |secret: Option<Secret>| secret.map_or("-".to_owned(), |secret| secret.0);
        let seen = [
            seen.address.0,
            shown(seen.token),
            shown(seen.proxy),
            seen.username,
            seen.channel,
        ];
        assert_eq!(seen, chat);
    }
}

#[test]
fn a_provider_of_an_unknown_type_is_refused() {
    let error = chat_of(
        &provider(json!({"type": "irc", "address": "http://a"})),
        None,
    )
    .unwrap_err();
    assert_eq!(error.to_string(), "error: provider irc not supported");
    let no_address = chat_of(&provider(json!({"type": "slack"})), Some(&json!({})));
    assert_eq!(
        no_address.unwrap_err().to_string(),
        "secret does not contain an address"
    );
}

/// Slack refuses an empty text. (Flagger omits the field too.)
#[test]
fn a_message_without_text_has_no_text() {
    let message = AlertMessage {
        text: String::new(),
        ..message(Severity::Info)
    };
    let request = chat("slack", "https://hooks.slack.com/x")
        .request(&message)
        .unwrap();
    assert_eq!(body(&request)["attachments"][0].get("text"), None);
}

#[test]
fn a_message_without_fields_has_empty_lists() {
    for (type_, list) in [
        ("slack", "/attachments/0/fields"),
        ("msteams", "/sections/0/facts"),
    ] {
        let row = ROWS.iter().find(|row| row.type_ == type_).unwrap();
        let message = AlertMessage {
            fields: Vec::new(),
            ..message(Severity::Info)
        };
        let request = chat(row.type_, row.address[0]).request(&message).unwrap();
        assert_eq!(body(&request).pointer(list), Some(&json!([])), "{list}");
    }
}

#[test]
fn workflows_get_adaptive_cards_and_other_addresses_get_message_cards() {
    for (address, is_adaptive) in [
        (
            "https://prod-1.westeurope.logic.azure.com:443/workflows/x/triggers/manual/paths/invoke?sig=y",
            true,
        ),
        (
            "https://default1.a.environment.api.powerplatform.com:443/powerautomate/automations/direct/workflows/x/triggers/manual/paths/invoke?sig=y",
            true,
        ),
        (
            "https://gateway.example.com/WORKFLOWS/x/triggers/manual/paths/invoke",
            true,
        ),
        (
            "https://outlook.office.com/webhook/x/IncomingWebhook/y/z",
            false,
        ),
        ("http://relay.example.com/teams", false),
        (
            "http://relay.example.com/?to=/workflows/x/paths/invoke",
            false,
        ),
        ("http://relay.example.com/workflows/x", false),
        ("http://relay.example.com/paths/invoke", false),
    ] {
        let request = chat("msteams", address)
            .request(&message(Severity::Warn))
            .unwrap();
        let body = body(&request);
        assert_eq!(body["type"] == "message", is_adaptive, "{address}");
        assert_eq!(body["@type"] == "MessageCard", !is_adaptive, "{address}");
    }
}

#[test]
fn a_refusal_is_quoted_and_says_if_the_webhook_is_gone() {
    let answer = |status, body: &str| HttpResponse {
        status,
        body: body.to_owned(),
    };
    for (status, body, gone, text) in [
        (
            400,
            "invalid_blocks",
            false,
            "postMessage failed: sending notification bad response 400: invalid_blocks",
        ),
        (
            500,
            "",
            false,
            "postMessage failed: sending notification bad response 500",
        ),
        (
            410,
            "Gone",
            true,
            "postMessage failed: sending notification bad response 410: Gone; the chat's webhook is gone, no alert will arrive until its address is that of a new one",
        ),
    ] {
        let answer = answer(status, body);
        assert_eq!(refused(&answer), text);
        assert_eq!(is_gone(&answer), gone);
    }
    let hostile = answer(410, &"\u{1b}[31m\n".repeat(100_000));
    assert!(refused(&hostile).len() < 512);
}

#[test]
fn only_an_alert_about_the_beginning_of_a_phase_opens_it() {
    let alert = |announces| Notification::Alert {
        severity: Severity::Info,
        text: "text".to_owned(),
        fields: vec![],
        announces,
    };
    let now = jiff::Timestamp::UNIX_EPOCH;
    assert_eq!(alert(Some(now)).announcement(), Some((now, "text")));
    assert_eq!(alert(None).announcement(), None);
}

#[test]
fn a_message_names_its_canary_with_the_namespace() {
    let mut canary = Canary::default();
    canary.metadata.name = Some("podinfo".to_owned());
    canary.metadata.namespace = Some("test".to_owned());
    let message = AlertMessage::new(&canary, Severity::Warn, "hello".to_owned(), vec![]);
    assert_eq!(
        (message.canary.as_str(), message.text.as_str()),
        ("podinfo.test", "hello")
    );
    assert_eq!(message.severity, Severity::Warn);
}
