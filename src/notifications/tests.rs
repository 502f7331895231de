//! What each chat is sent. A new one adds a row to [`CHATS`].

use serde_json::{Value, json};

use super::{
    Severity,
    alert::{AlertMessage, Chat, ChatService, is_gone, refused},
};
use crate::snapshot::{HttpRequest, HttpResponse, Secret};

/// A chat, as far as the tests must know it.
struct Row {
    /// The `type` of an AlertProvider.
    type_: &'static str,
    /// The address that is given, and the one that is called.
    address: [&'static str; 2],
    /// What is sent of [`message`], for an error and for anything else.
    body: fn(is_error: bool) -> Value,
    /// What is said of an address that is none.
    invalid: &'static str,
}

const CHATS: [Row; 7] = [
    Row {
        type_: "slack",
        address: ["https://hooks.slack.com/x"; 2],
        body: |is_error| in_slacks_form(if is_error { "danger" } else { "good" }),
        invalid: "error: invalid Slack hook URL",
    },
    Row {
        type_: "discord",
        address: [
            "https://discord.com/api/webhooks/1/x?wait=true",
            "https://discord.com/api/webhooks/1/x/slack?wait=true",
        ],
        body: |is_error| in_slacks_form(if is_error { "danger" } else { "good" }),
        invalid: "error: invalid Discord hook URL",
    },
    Row {
        type_: "discord",
        address: ["https://discord.com/api/webhooks/1/x/slack"; 2],
        body: |is_error| in_slacks_form(if is_error { "danger" } else { "good" }),
        invalid: "error: invalid Discord hook URL",
    },
    Row {
        type_: "rocket",
        address: ["https://rocket.example.com/hooks/x"; 2],
        body: |is_error| in_slacks_form(if is_error { "#FF0000" } else { "#0076D7" }),
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
        service: ChatService::named(type_).unwrap(),
        address: Secret(address.to_owned()),
        token: Some(Secret("t".to_owned())),
        proxy: Some(Secret("http://proxy".to_owned())),
        username: "flagger".to_owned(),
        channel: "general".to_owned(),
    }
}

fn body(request: &HttpRequest) -> Value {
    serde_json::from_str(request.body.as_deref().unwrap()).unwrap()
}

#[test]
fn each_chat_is_sent_a_message_in_its_own_form() {
    for row in &CHATS {
        let chat = chat(row.type_, row.address[0]);
        for severity in [Severity::Info, Severity::Error] {
            let request = chat.request(&message(severity)).unwrap();
            assert_eq!(request.url.0, row.address[1]);
            let is_error = severity == Severity::Error;
            assert_eq!(body(&request), (row.body)(is_error), "{}", row.type_);
            let proxy = request.proxy.map(|proxy| proxy.0);
            assert_eq!(proxy.as_deref(), Some("http://proxy"));
            let names: Vec<_> = request.headers.iter().map(|(name, _)| name).collect();
            let expected: &[_] = match chat.service {
                ChatService::Slack => &["Content-type", "Authorization"],
                ChatService::Teams
                | ChatService::Discord
                | ChatService::Rocket
                | ChatService::GoogleChat => &["Content-type"],
            };
            assert_eq!(names, expected, "{}: a bot's token is Slack's", row.type_);
        }
    }
}

#[test]
fn a_bad_address_is_said_without_saying_it() {
    for row in &CHATS {
        let chat = chat(row.type_, "secret-address");
        let error = chat.request(&message(Severity::Info)).unwrap_err();
        assert_eq!(error, row.invalid);
    }
}

#[test]
fn a_message_without_fields_has_a_form_too() {
    for (row, list) in [
        (&CHATS[0], "/attachments/0/fields"),
        (&CHATS[4], "/sections/0/facts"),
    ] {
        let message = AlertMessage {
            fields: Vec::new(),
            ..message(Severity::Info)
        };
        let request = chat(row.type_, row.address[0]).request(&message).unwrap();
        assert_eq!(body(&request).pointer(list), Some(&json!([])), "{list}");
    }
}

#[test]
fn every_workflow_gets_a_card_that_it_can_take() {
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
fn a_chat_that_takes_no_message_is_quoted_and_one_that_is_gone_is_said_to_be() {
    let answer = |status, body: &str| HttpResponse {
        status,
        body: body.to_owned(),
    };
    for (status, body, gone, said) in [
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
        assert_eq!(refused(&answer), said);
        assert_eq!(is_gone(&answer), gone);
    }
    let hostile = answer(410, &"\u{1b}[31m\n".repeat(100_000));
    assert!(refused(&hostile).len() < 512);
}
