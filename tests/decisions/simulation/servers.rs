//! The answers of simulated webhooks and metric servers, and the events and alerts that were sent.

use flagger_rs::{
    metrics::{Asks, Query},
    notifications::{Frequency, Notification},
    rollout::{Answer, Question},
    snapshot::{Failure, HttpResponse},
};
use serde_json::{Value, json};

use super::Simulation;

impl Simulation {
    pub(super) fn answer(&mut self, question: &Question) -> Answer {
        match question {
            Question::Call { request, .. } => {
                let body: Value = serde_json::from_str(request.body.as_deref().unwrap()).unwrap();
                let hook = request.url.0.trim_start_matches("http://hooks/");
                let status = if self.closed.contains(hook) { 403 } else { 200 };
                let phase = body["phase"].as_str().unwrap();
                self.line(format!("call   {hook} ({phase}): {status}"));
                question.read(Ok(response(status, String::new())))
            }
            Question::Metric { query, label } if matches!(query.asks, Asks::Series { .. }) => {
                self.line(format!("ask    {label}"));
                question.read(self.series(query))
            }
            Question::Metric { query, .. } => {
                let url = &query.request(self.snapshot.now).url.0;
                let value = if url.contains("vector%281%29") {
                    self.online
                } else if ["histogram_quantile", "duration_seconds_bucket"]
                    .iter()
                    .all(|part| url.contains(part))
                {
                    // Applications report seconds. (Skipper's success rate is counted from a histogram, too.)
                    "0.1"
                } else {
                    &self.metric
                };
                let body = json!({"data": {"result": [{"value": [0, value]}]}});
                question.read(Ok(response(200, body.to_string())))
            }
            Question::List { .. } if self.failed_lists > 0 => {
                self.failed_lists -= 1;
                Answer::Failed(Failure {
                    why: "the API server is too busy".to_owned(),
                    attempts: 1,
                })
            }
            Question::List { kind, .. } => {
                let kept = self.kept.iter().filter(|(of, _)| of == kind);
                Answer::Objects(kept.map(|(_, object)| object.clone()).collect())
            }
            Question::Notify(notifications) => {
                self.notify(notifications.clone());
                Answer::Delivered
            }
        }
    }

    /// The series of both versions.
    fn series(&self, query: &Query) -> Result<HttpResponse, Failure> {
        let traffic = self.traffic.as_ref().filter(|traffic| !traffic.is_down);
        let Asks::Series { query, at } = &query.asks else {
            unreachable!("another question");
        };
        let answer = traffic.and_then(|traffic| traffic.answer(query, at.as_second()));
        let failure = || Failure {
            why: "connection refused".to_owned(),
            attempts: 1,
        };
        Ok(response(200, answer.ok_or_else(failure)?.to_string()))
    }

    pub(super) fn notify(&mut self, notifications: Vec<Notification>) {
        for notification in notifications {
            let (verb, line) = match notification {
                Notification::Event {
                    kind,
                    message,
                    phase,
                    frequency,
                    ..
                } => {
                    let verb = match frequency {
                        Frequency::Once => "notify",
                        Frequency::Recurring => "repeat",
                    };
                    (verb, format!("{} [{phase}] {message}", kind.as_str()))
                }
                Notification::Alert { severity, text, .. } => {
                    ("notify", format!("alert {severity:?}: {text}"))
                }
            };
            self.line(format!("{verb} {line}"));
            self.notified.push(line);
        }
    }
}

fn response(status: u16, body: String) -> HttpResponse {
    HttpResponse { status, body }
}
