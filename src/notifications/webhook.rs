//! Webhooks: the requests of hooks and of event webhooks, and how a hook's answer is judged (Flagger: `pkg/controller/webhook.go`).

mod error;

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::EventKind;
use crate::{
    api::{
        canary::{Canary, CanaryPhase, CanaryStatus, CanaryWebhook, WebhookType},
        duration, limits,
    },
    snapshot::{Failure, HttpRequest, HttpResponse, Method, Origin, Secret, excerpt, go},
};

pub use error::WebhookError;

/// The longest that one attempt may take if the hook has no `timeout`.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The request of a hook in a release.
pub fn request(
    canary: &Canary,
    hook: &CanaryWebhook,
    phase: CanaryPhase,
) -> Result<HttpRequest, WebhookError> {
    let status = canary.status.clone().unwrap_or_default();
    let payload = payload(
        canary,
        phase,
        &checksum(&status),
        hook.metadata.clone().unwrap_or_default(),
    );
    post(&Secret(hook.url.clone()), Some(hook), &payload)
}

/// An event, for the payload of event webhooks.
pub struct Event<'a> {
    /// `Normal` or `Warning`.
    pub kind: EventKind,
    /// The text.
    pub message: &'a str,
    /// The phase of the canary.
    pub phase: CanaryPhase,
    /// The checksum of the release.
    pub checksum: &'a str,
    /// The time of the event, in milliseconds since 1970.
    pub unix_millis: i64,
}

impl Event<'_> {
    /// The requests that announce the event: to the canary's own event hooks, or to the operator's webhook if it has none.
    pub fn requests(
        &self,
        canary: &Canary,
        global: Option<&Secret>,
    ) -> Vec<Result<HttpRequest, WebhookError>> {
        let hooks = canary
            .spec
            .analysis
            .iter()
            .flat_map(|analysis| &analysis.webhooks)
            // A Canary with more webhooks is not run. The limit holds for the event that reports this, too.
            .take(limits::WEBHOOKS);
        let own: Vec<_> = hooks
            .filter(|hook| hook.type_ == WebhookType::Event)
            .collect();
        if own.is_empty() {
            let payload = || self.payload(canary, None);
            let global = global.iter();
            return global.map(|url| post(url, None, &payload())).collect();
        }
        own.into_iter()
            .map(|hook| {
                let payload = self.payload(canary, hook.metadata.as_ref());
                post(&Secret(hook.url.clone()), Some(hook), &payload)
            })
            .collect()
    }

    fn payload(&self, canary: &Canary, metadata: Option<&BTreeMap<String, String>>) -> String {
        let mut metadata = metadata.cloned().unwrap_or_default();
        metadata.insert("eventMessage".to_owned(), self.message.to_owned());
        metadata.insert("eventType".to_owned(), self.kind.as_str().to_owned());
        metadata.insert("timestamp".to_owned(), self.unix_millis.to_string());
        payload(canary, self.phase, self.checksum, metadata)
    }
}

/// Decides whether a hook passes: with any 2xx. (Flagger accepts no status above 202, so that 204 fails.)
pub fn judge(
    request: &HttpRequest,
    answer: Result<&HttpResponse, &Failure>,
) -> Result<(), WebhookError> {
    match answer {
        Ok(HttpResponse {
            status: 200..300, ..
        }) => Ok(()),
        Ok(response) if response.is_worth_a_retry() => Err(WebhookError::GaveUp {
            host: host(&request.url),
            url: public(&request.url),
            // The sender returns such an answer only after the last attempt.
            attempts: u64::from(request.retries) + 1,
            last: Ok((response.status, excerpt(&response.body))),
        }),
        Ok(response) => Err(WebhookError::Rejected {
            host: host(&request.url),
            status: response.status,
            answer: excerpt(&response.body),
        }),
        Err(failure) => Err(WebhookError::GaveUp {
            host: host(&request.url),
            url: public(&request.url),
            attempts: failure.attempts,
            last: Err(excerpt(&failure.why)),
        }),
    }
}

/// The host of a URL; empty if there is none.
pub fn host(url: &Secret) -> String {
    let url = url::Url::parse(&url.0).ok();
    let host = url.as_ref().and_then(url::Url::host_str);
    host.unwrap_or_default().to_owned()
}

/// Returns a URL without its password and its query, as Flagger's events show it.
fn public(url: &Secret) -> String {
    let Ok(mut url) = url::Url::parse(&url.0) else {
        return "an invalid URL".to_owned();
    };
    if url.password().is_some() {
        // Fails only for URLs that cannot have a password.
        let _ = url.set_password(Some("xxxxx"));
    }
    url.set_query(None);
    url.to_string()
}

fn post(
    url: &Secret,
    hook: Option<&CanaryWebhook>,
    payload: &str,
) -> Result<HttpRequest, WebhookError> {
    url::Url::parse(&url.0).map_err(WebhookError::InvalidUrl)?;
    let timeout = hook.and_then(|hook| hook.timeout.as_deref());
    let timeout = match timeout.filter(|timeout| timeout.len() >= 2) {
        Some(text) => duration::read(text).map_err(WebhookError::InvalidTimeout)?,
        None => TIMEOUT,
    };
    Ok(HttpRequest {
        method: Method::Post,
        url: url.clone(),
        headers: vec![(
            "Content-Type".to_owned(),
            Secret("application/json".to_owned()),
        )],
        body: Some(payload.to_owned()),
        timeout,
        retries: hook
            .and_then(|hook| hook.retries)
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(0),
        budget: None,
        proxy: None,
        insecure_skip_verify: hook.is_some_and(|hook| hook.disable_tls),
        origin: match hook {
            Some(_) => Origin::User,
            None => Origin::Administrator,
        },
    })
}

/// The body of a webhook's request, in Flagger's order of fields.
#[derive(Serialize)]
struct Payload<'a> {
    name: &'a str,
    namespace: &'a str,
    phase: &'a str,
    checksum: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
}

fn payload(
    canary: &Canary,
    phase: CanaryPhase,
    checksum: &str,
    metadata: BTreeMap<String, String>,
) -> String {
    let name = canary.metadata.name.as_deref().unwrap_or_default();
    let namespace = canary.metadata.namespace.as_deref().unwrap_or_default();
    let payload = Payload {
        name,
        namespace,
        phase: phase.as_str(),
        checksum,
        metadata,
    };
    // Serializing cannot fail: strings and maps of strings always have a JSON form.
    go::escaped(&serde_json::to_string(&payload).unwrap_or_default())
}

/// The checksum of a release's configs and spec. Flagger computes it from the dump of a Go struct.
pub fn checksum(status: &CanaryStatus) -> String {
    let configs = match &status.tracked_configs {
        None => "<nil>".to_owned(),
        Some(configs) => {
            let pairs: Vec<_> = configs
                .iter()
                .map(|(key, value)| format!("{key}:{value}"))
                .collect();
            format!("map[{}]", pairs.join(" "))
        }
    };
    let applied = status.last_applied_spec.as_deref().unwrap_or_default();
    let dump = format!(
        "(struct {{ TrackedConfigs *map[string]string; LastAppliedSpec string }}){{TrackedConfigs:(*map[string]string){configs} LastAppliedSpec:(string){applied}}}"
    );
    let sum = dump.bytes().fold(0x811c_9dc5_u32, |sum, byte| {
        (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    // Kubernetes' "safe" alphabet, which has no vowels so that no words appear.
    let safe = ['4', '5', '6', '7', '8', '9', 'b', 'c', 'd', 'f'];
    sum.to_string()
        .chars()
        .filter_map(|digit| safe.get(digit.to_digit(10)? as usize))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn sum(configs: Option<&[(&str, &str)]>, applied: &str) -> String {
        checksum(&CanaryStatus {
            tracked_configs: configs.map(|pairs| {
                pairs
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                    .collect()
            }),
            last_applied_spec: Some(applied.to_owned()),
            ..CanaryStatus::default()
        })
    }

    #[test]
    fn checksums_are_flaggers() {
        assert_eq!(sum(None, ""), "758df7c9fc");
        assert_eq!(sum(None, "4cb74184589"), "7c9d467496");
        assert_eq!(sum(Some(&[]), "4cb74184589"), "56966965f5");
        assert_eq!(
            sum(
                Some(&[("test-config-map", "484637c76acaa7c6")]),
                "5f56684589"
            ),
            "85d557f47b"
        );
        assert_eq!(
            sum(
                Some(&[
                    ("configmap/a", "484637c76acaa7c6"),
                    ("secret/b", "0123456789abcdef")
                ]),
                "5f56684589"
            ),
            "7747b9db97"
        );
    }

    fn canary(hook: Value) -> Canary {
        serde_json::from_value(json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": "podinfo", "namespace": "test"},
            "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}, "service": {"port": 80},
                "analysis": {"interval": "1m", "threshold": 1, "stepWeight": 10, "webhooks": [hook]}}}))
        .unwrap()
    }

    fn request_of(hook: Value) -> Result<HttpRequest, WebhookError> {
        let canary = canary(hook);
        request(
            &canary,
            &canary.spec.analysis.as_ref().unwrap().webhooks[0],
            CanaryPhase::Progressing,
        )
    }

    #[test]
    fn a_hook_gets_flaggers_request() {
        let request = request_of(
            json!({"name": "load", "url": "http://t/", "metadata": {"cmd": "a && b <c>"}}),
        )
        .unwrap();
        assert_eq!(
            request.body.unwrap(),
            r#"{"name":"podinfo","namespace":"test","phase":"Progressing","checksum":"758df7c9fc","metadata":{"cmd":"a \u0026\u0026 b \u003cc\u003e"}}"#
        );
        assert_eq!(
            (request.timeout, request.retries),
            (Duration::from_secs(10), 0)
        );
        assert_eq!(
            (request.method, request.url.0.as_str()),
            (Method::Post, "http://t/")
        );
        let json = Secret("application/json".to_owned());
        assert_eq!(request.headers, [("Content-Type".to_owned(), json)]);
        assert!(!request.insecure_skip_verify && request.proxy.is_none());
        let request = request_of(json!({"name": "load", "url": "http://t/", "timeout": "1m", "retries": 3, "disableTLS": true})).unwrap();
        assert_eq!(
            (
                request.timeout,
                request.retries,
                request.insecure_skip_verify
            ),
            (Duration::from_secs(60), 3, true)
        );
        assert!(!request.body.unwrap().contains("metadata"));
        assert_eq!(
            request_of(json!({"name": "load", "url": "http://t/", "timeout": "1min"}))
                .unwrap_err()
                .to_string(),
            "time: unknown unit \"min\" in duration \"1min\""
        );
    }

    /// As in Flagger, a text of one character is no timeout.
    #[test]
    fn a_hook_without_a_timeout_has_ten_seconds() {
        for (timeout, seconds) in [("", 10), ("5", 10), ("5s", 5), ("2m", 120)] {
            let request =
                request_of(json!({"name": "load", "url": "http://t/", "timeout": timeout}));
            assert_eq!(request.unwrap().timeout.as_secs(), seconds, "{timeout}");
        }
        for (retries, number) in [(json!(null), 0), (json!(-1), 0), (json!(2), 2)] {
            let request =
                request_of(json!({"name": "load", "url": "http://t/", "retries": retries}));
            assert_eq!(request.unwrap().retries, number);
        }
        let error = request_of(json!({"name": "load", "url": "t"})).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the URL is not valid: relative URL without a base"
        );
    }

    #[test]
    fn any_2xx_passes() {
        let request = request_of(
            json!({"name": "load", "url": "http://u:secret@t/?token=secret", "retries": 1}),
        )
        .unwrap();
        let answer = |status| {
            let response = HttpResponse {
                status,
                body: "no\n".to_owned(),
            };
            judge(&request, Ok(&response)).map_err(|error| error.to_string())
        };
        for status in [200, 202, 204, 299] {
            assert_eq!(answer(status), Ok(()), "{status}");
        }
        for status in [199, 300, 403, 501] {
            assert_eq!(answer(status), Err("no ".to_owned()), "{status}");
        }
        assert_eq!(
            answer(500),
            Err("POST http://u:xxxxx@t/ giving up after 2 attempt(s)".to_owned())
        );
        let failure = Failure {
            why: "cannot connect".to_owned(),
            attempts: 1,
        };
        assert_eq!(
            judge(&request, Err(&failure)).unwrap_err().to_string(),
            "POST http://u:xxxxx@t/ giving up after 1 attempt(s): cannot connect",
            "a permanent failure is not retried"
        );
        let most = HttpRequest {
            retries: u32::MAX,
            ..request
        };
        let response = HttpResponse {
            status: 500,
            body: String::new(),
        };
        let error = judge(&most, Ok(&response)).unwrap_err().to_string();
        assert!(error.ends_with("after 4294967296 attempt(s)"), "{error}");
    }

    #[test]
    fn events_go_to_the_canarys_own_hook_or_to_the_operators() {
        let notify = |canary: &Canary, global: Option<&Secret>| {
            let event = Event {
                kind: EventKind::Warning,
                message: "text",
                phase: CanaryPhase::Failed,
                checksum: "sum",
                unix_millis: 7,
            };
            let requests = event.requests(canary, global).into_iter();
            requests.map(|r| r.unwrap()).collect::<Vec<_>>()
        };
        let global = Secret("http://global/".to_owned());
        let own = notify(
            &canary(
                json!({"name": "e", "type": "event", "url": "http://own/", "metadata": {"a": "b", "eventType": "mine"}}),
            ),
            Some(&global),
        );
        assert_eq!((own.len(), own[0].url.0.as_str()), (1, "http://own/"));
        assert_eq!(own[0].origin, Origin::User);
        assert_eq!(
            (own[0].method, own[0].timeout),
            (Method::Post, Duration::from_secs(10))
        );
        let body: Value = serde_json::from_str(own[0].body.as_deref().unwrap()).unwrap();
        assert_eq!(
            body["metadata"],
            json!({"a": "b", "eventMessage": "text", "eventType": "Warning", "timestamp": "7"})
        );
        assert_eq!(body["phase"], "Failed");
        let ours = notify(
            &canary(json!({"name": "l", "url": "http://l/"})),
            Some(&global),
        );
        assert_eq!(ours[0].url.0, "http://global/");
        assert_eq!(ours[0].origin, Origin::Administrator);
        assert!(notify(&canary(json!({"name": "l", "url": "http://l/"})), None).is_empty());
    }
}
