//! An Analysis of Keptn: created, read until it is complete, and then deleted, whatever its outcome is.

use std::time::Duration;

use serde::Deserialize;

use super::named::Named;
use crate::{
    metrics::{
        answer::{json, refusal},
        error::MetricError,
        provider::{Exchange, Next},
    },
    snapshot::HttpResponse,
};

/// The pause before each read.
const PAUSE: Duration = Duration::from_secs(1);
/// The most reads. (Flagger waits for 10 seconds.)
const READS: usize = 10;

type Answer = Result<HttpResponse, MetricError>;

/// The next request, or the value, after the answers so far. The first is that to the creation, the last may be that to the deletion.
pub fn next(named: &Named, exchange: &Exchange<'_>) -> Next {
    let name = named.analysis(exchange.begun);
    let (path, endpoint) = (named.path("analyses", &name), &exchange.access.endpoint);
    let reads = reads(exchange.budget);
    for (place, answer) in exchange.answers.iter().enumerate() {
        let outcome = match place {
            0 => created(named, answer).err().map(Err),
            _ => pass(named, answer, place >= reads),
        };
        let Some(outcome) = outcome else { continue };
        return match (exchange.answers.get(place + 1), answer) {
            (Some(deletion), _) => Next::Value(deleted(named, &name, deletion).and(outcome)),
            // Nothing was created.
            (None, Ok(_)) if place == 0 => Next::Value(outcome),
            (None, _) => Next::Send(Box::new(endpoint.delete(&path)), Duration::ZERO),
        };
    }
    Next::Send(Box::new(endpoint.get(&path, &[])), PAUSE)
}

/// The greatest number of reads of the state, because a step of a short interval must end before the next one begins.
fn reads(budget: Duration) -> usize {
    let seconds = usize::try_from(budget.as_secs()).unwrap_or(READS);
    seconds.saturating_sub(1).clamp(1, READS)
}

fn created(named: &Named, answer: &Answer) -> Result<(), MetricError> {
    let call = format!("could not create Keptn Analysis {}", named.full_name());
    accepted(&call, answer).map(drop)
}

/// The outcome of an Analysis that is complete, or whose state cannot be read; `None` if it is not complete yet. Keptn omits the field
/// `pass` if it is false. (Flagger waits for the field.)
fn pass(named: &Named, answer: &Answer, is_last: bool) -> Option<Result<f64, MetricError>> {
    let name = named.full_name();
    let call = format!("could not check status of created Keptn Analysis {name}");
    let state = accepted(&call, answer).and_then(json::<Analysis>);
    match state {
        Ok(Analysis {
            status:
                Some(Status {
                    state: Some(state),
                    pass,
                }),
        }) if state == "Completed" => Some(Ok(if pass == Some(true) { 1.0 } else { 0.0 })),
        Ok(_) if is_last => Some(Err(MetricError::Failed(format!(
            "encountered timeout while waiting for Keptn Analysis {name} to be finished"
        )))),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    }
}

/// It is an error if an Analysis cannot be deleted, because each query would leave one behind.
fn deleted(named: &Named, name: &str, answer: &Answer) -> Result<(), MetricError> {
    match answer {
        Ok(HttpResponse { status: 404, .. }) => Ok(()),
        answer => {
            let namespace = &named.namespace;
            let call = format!("could not delete Keptn Analysis {namespace}/{name}");
            accepted(&call, answer).map(drop)
        }
    }
}

fn accepted<'a>(call: &str, answer: &'a Answer) -> Result<&'a str, MetricError> {
    match answer {
        Ok(HttpResponse { status, body }) if (200..300).contains(status) => Ok(body),
        Ok(response) => Err(MetricError::failed(call, &refusal(response))),
        Err(error) => Err(MetricError::failed(call, &error.to_string())),
    }
}

/// The fields of an Analysis that count.
#[derive(Deserialize)]
struct Analysis {
    status: Option<Status>,
}

#[derive(Deserialize)]
struct Status {
    state: Option<String>,
    pass: Option<bool>,
}
