//! What webhooks are called with, and what their answers say (`pkg/controller/webhook.go`).

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::EventKind;
use crate::{
    api::{
        canary::{Canary, CanaryPhase, CanaryStatus, CanaryWebhook, WebhookType},
        duration,
    },
    metrics::shown,
    snapshot::{Failure, HttpRequest, HttpResponse, Method, Secret, go_escaped},
};

/// How long an attempt may take where the hook does not say.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The call of a hook in a release.
pub fn request(
    canary: &Canary,
    hook: &CanaryWebhook,
    phase: CanaryPhase,
) -> Result<HttpRequest, String> {
    let status = canary.status.clone().unwrap_or_default();
    let payload = payload(
        canary,
        phase,
        &checksum(&status),
        hook.metadata.clone().unwrap_or_default(),
    );
    call(&Secret(hook.url.clone()), Some(hook), &payload)
}

/// The calls that tell an event: to the canary's own event hooks, or else to the operator's.
pub fn events(
    canary: &Canary,
    global: Option<&Secret>,
    kind: EventKind,
    message: &str,
    phase: CanaryPhase,
    checksum: &str,
    unix_millis: i64,
) -> Vec<Result<HttpRequest, String>> {
    let hooks = canary
        .spec
        .analysis
        .iter()
        .flat_map(|analysis| &analysis.webhooks);
    let own: Vec<_> = hooks
        .filter(|hook| hook.type_ == WebhookType::Event)
        .collect();
    let about = |more: BTreeMap<String, String>| {
        let mut metadata = more;
        metadata.insert("eventMessage".to_owned(), message.to_owned());
        metadata.insert("eventType".to_owned(), kind.as_str().to_owned());
        metadata.insert("timestamp".to_owned(), unix_millis.to_string());
        payload(canary, phase, checksum, metadata)
    };
    if own.is_empty() {
        return global
            .iter()
            .map(|url| call(url, None, &about(BTreeMap::new())))
            .collect();
    }
    own.into_iter()
        .map(|hook| {
            call(
                &Secret(hook.url.clone()),
                Some(hook),
                &about(hook.metadata.clone().unwrap_or_default()),
            )
        })
        .collect()
}

/// Whether a hook's answer passes, or why not: any 2xx does. (Flagger stops at 202, so that 204 fails.)
pub fn judge(request: &HttpRequest, response: &HttpResponse) -> Result<(), String> {
    match response.status {
        200..300 => Ok(()),
        status if is_retried(status) => Err(gave_up(request, None)),
        _ => Err(shown(&response.body)),
    }
}

/// What is said of a hook that never gave an answer that counts.
pub fn gave_up(request: &HttpRequest, failure: Option<&Failure>) -> String {
    // An answer is given up only after the last attempt; a failure that no other attempt would mend, at once.
    let attempts = failure.map_or(u64::from(request.retries) + 1, |failure| failure.attempts);
    let tail = failure
        .map(|failure| format!(": {}", shown(&failure.why)))
        .unwrap_or_default();
    format!(
        "POST {} giving up after {attempts} attempt(s){tail}",
        public(&request.url)
    )
}

/// Whether an answer with this status is worth another attempt.
pub const fn is_retried(status: u16) -> bool {
    status == 429 || status == 0 || (status >= 500 && status != 501)
}

/// A URL without its secrets: the password, and whatever the query carries.
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

fn call(url: &Secret, hook: Option<&CanaryWebhook>, payload: &str) -> Result<HttpRequest, String> {
    if let Err(error) = url::Url::parse(&url.0) {
        return Err(format!("the URL is not valid: {error}"));
    }
    let timeout = match hook
        .and_then(|hook| hook.timeout.as_deref())
        .filter(|timeout| timeout.len() >= 2)
    {
        Some(text) => duration::read(text).map_err(|error| error.to_string())?,
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
    })
}

/// What a hook is told, in Flagger's order.
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
    // Strings and maps of strings always have a JSON form.
    go_escaped(&serde_json::to_string(&payload).unwrap_or_default())
}

/// The checksum of what a release is about: Flagger's, of the dump of a Go struct.
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
    // Kubernetes' "safe" alphabet: no vowels, so no words.
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

    fn called(hook: Value) -> Result<HttpRequest, String> {
        let canary = canary(hook);
        request(
            &canary,
            &canary.spec.analysis.as_ref().unwrap().webhooks[0],
            CanaryPhase::Progressing,
        )
    }

    #[test]
    fn a_hook_is_called_as_flagger_calls_it() {
        let request =
            called(json!({"name": "load", "url": "http://t/", "metadata": {"cmd": "a && b <c>"}}))
                .unwrap();
        assert_eq!(
            request.body.unwrap(),
            r#"{"name":"podinfo","namespace":"test","phase":"Progressing","checksum":"758df7c9fc","metadata":{"cmd":"a \u0026\u0026 b \u003cc\u003e"}}"#
        );
        assert_eq!(
            (request.timeout, request.retries),
            (Duration::from_secs(10), 0)
        );
        let request = called(json!({"name": "load", "url": "http://t/", "timeout": "1m", "retries": 3, "disableTLS": true})).unwrap();
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
            called(json!({"name": "load", "url": "http://t/", "timeout": "1min"})).unwrap_err(),
            "time: unknown unit \"min\" in duration \"1min\""
        );
    }

    #[test]
    fn any_2xx_passes() {
        let request =
            called(json!({"name": "load", "url": "http://u:secret@t/?token=secret", "retries": 1}))
                .unwrap();
        let answer = |status| {
            judge(
                &request,
                &HttpResponse {
                    status,
                    body: "no\n".to_owned(),
                },
            )
        };
        assert_eq!((answer(200), answer(204)), (Ok(()), Ok(())));
        assert_eq!(answer(403), Err("no ".to_owned()));
        assert_eq!(
            answer(500),
            Err("POST http://u:xxxxx@t/ giving up after 2 attempt(s)".to_owned())
        );
        let failure = |attempts| Failure {
            why: "cannot connect".to_owned(),
            attempts,
        };
        assert_eq!(
            gave_up(&request, Some(&failure(1))),
            "POST http://u:xxxxx@t/ giving up after 1 attempt(s): cannot connect",
            "a bad certificate is not asked for again"
        );
        let most = HttpRequest {
            retries: u32::MAX,
            ..request
        };
        assert!(gave_up(&most, None).ends_with("after 4294967296 attempt(s)"));
    }

    #[test]
    fn events_go_to_the_canarys_own_hook_or_to_the_operators() {
        let notify = |canary: &Canary, global: Option<&Secret>| {
            events(
                canary,
                global,
                EventKind::Warning,
                "text",
                CanaryPhase::Failed,
                "sum",
                7,
            )
            .into_iter()
            .map(|r| r.unwrap())
            .collect::<Vec<_>>()
        };
        let global = Secret("http://global/".to_owned());
        let own = notify(
            &canary(
                json!({"name": "e", "type": "event", "url": "http://own/", "metadata": {"a": "b", "eventType": "mine"}}),
            ),
            Some(&global),
        );
        assert_eq!(own[0].url.0, "http://own/");
        let body: Value = serde_json::from_str(own[0].body.as_deref().unwrap()).unwrap();
        assert_eq!(
            body["metadata"],
            json!({"a": "b", "eventMessage": "text", "eventType": "Warning", "timestamp": "7"})
        );
        assert_eq!(body["phase"], "Failed");
        assert_eq!(
            notify(
                &canary(json!({"name": "l", "url": "http://l/"})),
                Some(&global)
            )[0]
            .url
            .0,
            "http://global/"
        );
        assert!(notify(&canary(json!({"name": "l", "url": "http://l/"})), None).is_empty());
    }
}
