//! Records the operator's calls of the fake servers, and returns their answers.

use http::HeaderMap;
use serde_json::{Value, json};

use super::{Answers, Seen, State};
use crate::mask::spaced;

impl Seen {
    /// Records a call of a webhook. Returns the answer.
    pub fn called(&self, method: &str, name: &str, headers: &HeaderMap, body: &str) -> Value {
        let mut state = self.state();
        let text = state.payload(body);
        let content = match header(headers, "content-type") {
            Some("application/json") => "",
            Some(other) => other,
            None => "-",
        };
        let usual = || Answers::new(&[json!(200)]);
        let answer = state
            .hooks
            .entry(name.to_owned())
            .or_insert_with(usual)
            .next();
        let code = answer.get(0).unwrap_or(&answer).clone();
        let line = format!("{method} {name} {content}{text} → {code}");
        state.add(&self.masks, "hooks", &line, 0);
        answer
    }

    /// Records a call of the event webhook.
    pub fn noticed(&self, body: &str) {
        let mut state = self.state();
        let parsed: Value = serde_json::from_str(&state.payload(body)).unwrap_or_default();
        let text = |at: &str| parsed.pointer(at).and_then(Value::as_str).unwrap_or("None");
        let mut line = format!(
            "{} [{}] {}: {}",
            text("/metadata/eventType"),
            text("/phase"),
            text("/name"),
            text("/metadata/eventMessage")
        );
        for (key, value) in parsed["metadata"].as_object().into_iter().flatten() {
            if !["eventMessage", "eventType", "timestamp"].contains(&key.as_str()) {
                line += &format!(" {key}={value}");
            }
        }
        if text("/metadata/timestamp") != "<ms>" {
            line += " bad timestamp";
        }
        state.add(&self.masks, "notices", &line, 0);
    }

    /// Records an alert to a chat.
    pub fn alerted(&self, path: &str, headers: &HeaderMap, body: &str) {
        let body: Value = serde_json::from_str(body).unwrap_or_else(|_| json!(body));
        let line = format!(
            "{path}{} {}",
            authorization(headers),
            spaced(&body.to_string())
        );
        self.state().add(&self.masks, "alerts", &line, 0);
    }

    /// Records a query of a metric. Returns the answer.
    pub fn asked(&self, method: &str, path: &str, headers: &HeaderMap, query: &str) -> Value {
        let mut state = self.state();
        let scripted = state
            .metrics
            .iter_mut()
            .find(|(pattern, _)| pattern.is_match(query));
        let answer = match scripted {
            Some((_, answers)) => answers.next(),
            None => usual(query),
        };
        let own: String = headers
            .iter()
            .filter(|(name, _)| name.as_str().starts_with("x-"))
            .map(|(name, value)| {
                format!(
                    " {}: {}",
                    titled(name.as_str()),
                    value.to_str().unwrap_or_default()
                )
            })
            .collect();
        let reply = answer
            .as_str()
            .map_or_else(|| answer.to_string(), str::to_owned);
        let line = format!(
            "{method} {path}{}{own} «{query}» → {reply}",
            authorization(headers)
        );
        state.add(&self.masks, "queries", &line, 0);
        answer
    }
}

/// Returns the default answer to a query: a good value.
pub fn usual(query: &str) -> Value {
    if query.contains("vector(1)") {
        json!(1)
    } else if query.contains("http_request_duration_seconds_bucket") {
        json!(0.1)
    } else {
        json!(100)
    }
}

impl State {
    /// Returns the body of a webhook call with its checksum and time masked. The order of its keys does not change.
    fn payload(&mut self, body: &str) -> String {
        let Ok(parsed) = serde_json::from_str::<Value>(body) else {
            return body.to_owned();
        };
        let mut text = spaced(body);
        if let Some(sum) = parsed["checksum"].as_str() {
            let number = self.numbers.of("sum", Some(sum));
            text = text.replace(
                &format!("\"checksum\": \"{sum}\""),
                &format!("\"checksum\": \"{number}\""),
            );
        }
        let time = parsed
            .pointer("/metadata/timestamp")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if time.len() == 13 && time.bytes().all(|digit| digit.is_ascii_digit()) {
            text = text.replace(
                &format!("\"timestamp\": \"{time}\""),
                "\"timestamp\": \"<ms>\"",
            );
        }
        text
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn authorization(headers: &HeaderMap) -> String {
    header(headers, "authorization")
        .map(|value| format!(" {value}"))
        .unwrap_or_default()
}

/// Returns the name of a header in the spelling of Flagger's recordings. HTTP ignores case.
fn titled(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let (first, rest) = word.split_at(1);
        first.to_uppercase() + rest
    });
    words.collect::<Vec<_>>().join("-")
}
