//! Alerts: who wants which, what they say, and where they go (`pkg/controller/events.go`, `pkg/notifier`).

use std::time::Duration;

use serde_json::Value;
use url::Url;

use super::{discord, google_chat, rocket, slack, teams};
use crate::{
    api::{
        alert_provider::AlertProvider,
        canary::{Canary, CanaryAlert, Strategy},
    },
    metrics::shown,
    snapshot::{HttpRequest, HttpResponse, Method, Secret},
};

/// The longest that a message may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How bad news is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// As it should be.
    Info,
    /// Somebody is waited for.
    Warn,
    /// A release failed.
    Error,
}

/// A message for a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertMessage {
    /// `NAME.NAMESPACE` of the Canary.
    pub canary: String,
    /// The text.
    pub text: String,
    /// How bad it is.
    pub severity: Severity,
    /// Name and value, in order.
    pub fields: Vec<(String, String)>,
}

impl AlertMessage {
    /// A message about a canary.
    pub fn new(
        canary: &Canary,
        severity: Severity,
        text: String,
        fields: Vec<(String, String)>,
    ) -> Self {
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        Self {
            canary: format!(
                "{}.{}",
                name(&canary.metadata.name),
                name(&canary.metadata.namespace)
            ),
            text,
            severity,
            fields,
        }
    }
}

/// The chats that this version can write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChatService {
    /// Slack, or what understands its webhooks.
    Slack,
    /// Microsoft Teams.
    Teams,
    /// Discord.
    Discord,
    /// Rocket.Chat.
    Rocket,
    /// Google Chat.
    GoogleChat,
}

impl ChatService {
    /// The service that an `AlertProvider`'s `type` names.
    pub fn named(name: &str) -> Result<Self, String> {
        match name {
            "slack" => Ok(Self::Slack),
            "msteams" => Ok(Self::Teams),
            "discord" => Ok(Self::Discord),
            "rocket" => Ok(Self::Rocket),
            "gchat" => Ok(Self::GoogleChat),
            other => Err(format!("provider {other} not supported")),
        }
    }

    /// What Flagger calls its addresses.
    const fn address(self) -> &'static str {
        match self {
            Self::Slack => "Slack hook URL",
            Self::Teams => "MS Teams webhook URL",
            Self::Discord => "Discord hook URL",
            Self::Rocket => "Rocket hook URL",
            Self::GoogleChat => "Google Chat webhook URL",
        }
    }
}

/// What of a message differs from chat to chat.
pub struct Post {
    /// Where it goes.
    pub address: Url,
    /// The token of a bot, for the chats that know bots.
    pub token: Option<Secret>,
    /// The message in the chat's own form.
    pub body: Value,
}

/// A chat, and how to write to it.
#[derive(Clone, Debug)]
pub struct Chat {
    /// What it is.
    pub service: ChatService,
    /// Where it is.
    pub address: Secret,
    /// The token of a bot, if one writes.
    pub token: Option<Secret>,
    /// The proxy to reach it through.
    pub proxy: Option<Secret>,
    /// Who writes.
    pub username: String,
    /// Where to.
    pub channel: String,
}

impl Chat {
    /// The chat of an `AlertProvider`; the address in its Secret wins.
    pub fn of(provider: &AlertProvider, secret: Option<&Value>) -> Result<Self, String> {
        let spec = &provider.spec;
        let in_secret = |key: &str| secret.and_then(|secret| secret_text(secret, key));
        let address = match secret {
            Some(_) => in_secret("address").ok_or("secret does not contain an address")?,
            None => spec.address.clone().unwrap_or_default(),
        };
        let or = |value: &Option<String>, default: &str| {
            value
                .clone()
                .filter(|v| !v.is_empty())
                .unwrap_or_else(|| default.to_owned())
        };
        Ok(Self {
            service: ChatService::named(&spec.type_).map_err(|e| format!("error: {e}"))?,
            address: Secret(address.trim().to_owned()),
            token: in_secret("token")
                .filter(|token| !token.is_empty())
                .map(|token| Secret(token.trim().to_owned())),
            proxy: spec
                .proxy
                .clone()
                .filter(|proxy| !proxy.is_empty())
                .map(Secret),
            username: or(&spec.username, "flagger"),
            channel: or(&spec.channel, "general"),
        })
    }

    /// The call that posts a message.
    pub fn request(&self, message: &AlertMessage) -> Result<HttpRequest, String> {
        // The address itself is a secret.
        let address = Url::parse(&self.address.0)
            .map_err(|_| format!("error: invalid {}", self.service.address()))?;
        let Post {
            address,
            token,
            body,
        } = match self.service {
            ChatService::Slack => slack::post(self, address, message),
            ChatService::Teams => teams::post(address, message),
            ChatService::Discord => discord::post(self, address, message),
            ChatService::Rocket => rocket::post(self, address, message),
            ChatService::GoogleChat => google_chat::post(address, message),
        };
        let mut headers = vec![(
            "Content-type".to_owned(),
            Secret("application/json".to_owned()),
        )];
        headers.extend(token.map(|token| {
            let bearer = Secret(format!("Bearer {}", token.0));
            ("Authorization".to_owned(), bearer)
        }));
        Ok(HttpRequest {
            method: Method::Post,
            url: Secret(address.into()),
            headers,
            body: Some(body.to_string()),
            timeout: TIMEOUT,
            retries: 0,
            budget: None,
            proxy: self.proxy.clone(),
            insecure_skip_verify: false,
        })
    }
}

/// Whether nobody listens at a chat's address any more: until somebody changes it, no message will arrive.
pub const fn is_gone(response: &HttpResponse) -> bool {
    matches!(response.status, 404 | 410)
}

/// What is said of a message that a chat did not take, and what to do where that is plain.
pub fn refused(response: &HttpResponse) -> String {
    let advice = if is_gone(response) {
        "; the chat's webhook is gone, no alert will arrive until its address is that of a new one"
    } else {
        ""
    };
    let HttpResponse { status, body } = response;
    let text = if body.is_empty() {
        String::new()
    } else {
        format!(": {}", shown(body))
    };
    format!("postMessage failed: sending notification bad response {status}{text}{advice}")
}

/// A value of a Secret, as text.
pub fn secret_text(secret: &Value, key: &str) -> Option<String> {
    let value = secret.get("data")?.get(key)?.clone();
    let bytes: k8s_openapi::ByteString = serde_json::from_value(value).ok()?;
    String::from_utf8(bytes.0).ok()
}

/// Whether an alert of a Canary wants news this bad. Without a severity it wants all, as Flagger's documentation says
/// (its code then sends none).
pub fn wants(alert: &CanaryAlert, severity: Severity) -> bool {
    severity
        >= match alert.severity.as_deref() {
            Some("error") => Severity::Error,
            Some("warn") => Severity::Warn,
            _ => Severity::Info,
        }
}

/// The fields of an alert: the cluster, and what is to know about a canary if it is given.
pub fn fields(cluster: &str, canary: Option<&Canary>) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let mut add = |name: &str, value: String| fields.push((name.to_owned(), value));
    if !cluster.is_empty() {
        add("Cluster", cluster.to_owned());
    }
    let Some(canary) = canary else { return fields };
    let target = &canary.spec.target_ref;
    add(
        "Target",
        format!(
            "{}/{}.{}",
            target.kind,
            target.name,
            canary.metadata.namespace.as_deref().unwrap_or_default()
        ),
    );
    add("Failed checks threshold", canary.threshold().to_string());
    add(
        "Progress deadline",
        format!("{}s", canary.progress_deadline_seconds()),
    );
    if let Some(routing) = routing(canary) {
        add("Traffic routing", routing);
    }
    fields
}

fn routing(canary: &Canary) -> Option<String> {
    match canary.strategy() {
        Strategy::AbTesting => return Some("A/B Testing".to_owned()),
        Strategy::BlueGreen => return Some("Blue/Green".to_owned()),
        Strategy::Canary => {}
    }
    let analysis = canary.spec.analysis.as_ref()?;
    let max = analysis.max_weight.unwrap_or(0);
    let weights = analysis.step_weights.as_deref().unwrap_or_default();
    if let Some(step) = analysis.step_weight.filter(|step| *step > 0) {
        return Some(format!("Weight step: {step} max: {max}"));
    }
    let list: Vec<_> = weights.iter().map(i64::to_string).collect();
    (!list.is_empty()).then(|| format!("Weight steps: {} max: {max}", list.join(",")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn provider(spec: Value) -> AlertProvider {
        serde_json::from_value(json!({"apiVersion": "flagger.app/v1beta1", "kind": "AlertProvider", "metadata": {"name": "on-call"}, "spec": spec})).unwrap()
    }

    #[test]
    fn the_address_in_the_secret_wins() {
        let provider =
            provider(json!({"type": "slack", "address": "http://a", "secretRef": {"name": "s"}}));
        let chat = Chat::of(
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
        assert_eq!(
            Chat::of(&provider, Some(&json!({"data": {}}))).unwrap_err(),
            "secret does not contain an address"
        );
    }

    #[test]
    fn an_alert_without_severity_wants_all_news() {
        let alert = |severity: Option<&str>| CanaryAlert {
            severity: severity.map(str::to_owned),
            ..CanaryAlert::default()
        };
        assert!(wants(&alert(None), Severity::Info) && wants(&alert(Some("")), Severity::Info));
        assert!(
            !wants(&alert(Some("warn")), Severity::Info)
                && wants(&alert(Some("warn")), Severity::Error)
        );
        assert!(!wants(&alert(Some("error")), Severity::Warn));
    }

    #[test]
    fn the_fields_describe_the_release() {
        let canary = |analysis: Value| -> Canary {
            serde_json::from_value(json!({"metadata": {"name": "podinfo", "namespace": "test"}, "apiVersion": "flagger.app/v1beta1", "kind": "Canary",
                "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}, "service": {"port": 80}, "analysis": analysis}})).unwrap()
        };
        let routing = |analysis| {
            fields("", Some(&canary(analysis)))
                .into_iter()
                .nth(3)
                .map(|(_, value)| value)
        };
        assert_eq!(
            routing(json!({"interval": "1m", "threshold": 5, "stepWeight": 10, "maxWeight": 50}))
                .unwrap(),
            "Weight step: 10 max: 50"
        );
        assert_eq!(
            routing(json!({"interval": "1m", "threshold": 5, "stepWeights": [1, 2]})).unwrap(),
            "Weight steps: 1,2 max: 0"
        );
        assert_eq!(
            routing(json!({"interval": "1m", "threshold": 5, "iterations": 2})).unwrap(),
            "Blue/Green"
        );
        let all = fields(
            "prod",
            Some(&canary(
                json!({"interval": "1m", "threshold": 0, "iterations": 2, "match": [{}]}),
            )),
        );
        let text: Vec<_> = all
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            text.join(" | "),
            "Cluster=prod | Target=Deployment/podinfo.test | Failed checks threshold=1 | Progress deadline=600s | Traffic routing=A/B Testing"
        );
    }
}
