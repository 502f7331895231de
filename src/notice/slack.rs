//! Slack's incoming webhooks, and its bot API where a token is given (`pkg/notifier/slack.go`).

use std::time::Duration;

use serde_json::json;

use super::alert::{AlertMessage, Chat, Severity};
use crate::world::{HttpRequest, Method, Secret};

/// The longest that a message may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The call that posts a message.
pub fn request(chat: &Chat, message: &AlertMessage) -> Result<HttpRequest, String> {
    if url::Url::parse(&chat.address.0).is_err() {
        // The address itself is a secret.
        return Err("error: invalid Slack hook URL".to_owned());
    }
    for (name, value) in [("username", &chat.username), ("channel", &chat.channel)] {
        if value.is_empty() {
            return Err(format!("error: empty Slack {name}"));
        }
    }
    let fields: Vec<_> = message
        .fields
        .iter()
        .map(|(title, value)| json!({"title": title, "value": value, "short": false}))
        .collect();
    let mut attachment = json!({
        "color": if message.severity == Severity::Error { "danger" } else { "good" },
        "author_name": message.canary, "mrkdwn_in": ["text"], "fields": fields});
    if !message.text.is_empty() {
        attachment["text"] = json!(message.text);
    }
    let body = json!({"channel": chat.channel, "username": chat.username, "icon_url": "", "icon_emoji": ":rocket:",
        "attachments": [attachment]});
    let mut headers = vec![(
        "Content-type".to_owned(),
        Secret("application/json".to_owned()),
    )];
    if let Some(token) = &chat.token {
        headers.push((
            "Authorization".to_owned(),
            Secret(format!("Bearer {}", token.0)),
        ));
    }
    Ok(HttpRequest {
        method: Method::Post,
        url: chat.address.clone(),
        headers,
        body: Some(body.to_string()),
        timeout: TIMEOUT,
        retries: 0,
        budget: None,
        proxy: chat.proxy.clone(),
        insecure_skip_verify: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notice::alert::ChatService;

    fn chat() -> Chat {
        Chat {
            service: ChatService::Slack,
            address: Secret("https://hooks.slack.com/x".to_owned()),
            token: Some(Secret("t".to_owned())),
            proxy: None,
            username: "flagger".to_owned(),
            channel: "general".to_owned(),
        }
    }

    #[test]
    fn a_message_has_the_form_that_slack_wants() {
        let message = AlertMessage {
            canary: "podinfo.test".to_owned(),
            text: "hello".to_owned(),
            severity: Severity::Error,
            fields: vec![("Cluster".to_owned(), "prod".to_owned())],
        };
        let request = request(&chat(), &message).unwrap();
        let body: serde_json::Value =
            serde_json::from_str(request.body.as_deref().unwrap()).unwrap();
        assert_eq!(
            body,
            json!({"channel": "general", "username": "flagger", "icon_url": "", "icon_emoji": ":rocket:",
                "attachments": [{"color": "danger", "author_name": "podinfo.test", "text": "hello", "mrkdwn_in": ["text"],
                    "fields": [{"title": "Cluster", "value": "prod", "short": false}]}]})
        );
        assert_eq!(
            request.headers[1],
            ("Authorization".to_owned(), Secret("Bearer t".to_owned()))
        );
    }

    #[test]
    fn a_bad_address_is_said_without_saying_it() {
        let chat = Chat {
            address: Secret("secret-address".to_owned()),
            ..chat()
        };
        let message = AlertMessage {
            canary: String::new(),
            text: String::new(),
            severity: Severity::Info,
            fields: vec![],
        };
        assert_eq!(
            request(&chat, &message).unwrap_err(),
            "error: invalid Slack hook URL"
        );
    }
}
