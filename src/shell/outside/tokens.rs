//! Tokens and keys for the clouds' APIs: fetched when a metric needs them, and kept until shortly before they end. A provider that nobody
//! uses costs nothing. One exchange is made at a time for each identity; the others wait for its result.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::timeout;

use super::http::{Caller, Http};
use crate::{
    metrics::identity::{Grant, Identity, Pass, Step, environment::Environment, refusal},
    shell::{clock, lock::lock},
    snapshot::{Failure, HttpRequest, HttpResponse},
};

/// A token is not used shortly before it expires, because the server's clock may differ. By then the metadata services of all clouds have a
/// new token.
const MARGIN: Duration = Duration::from_secs(120);
/// For how long a failed exchange is not repeated: many canaries may need it at the same time.
const PAUSE: Duration = Duration::from_secs(10);
/// The longest time that an exchange may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// The maximum number of identities of one namespace whose tokens are kept. Users choose the identities.
const MAX_OF_NAMESPACE: usize = 16;

/// Fetches and keeps tokens. Each namespace has its own tokens for the identities that its users chose.
pub struct Tokens {
    http: Http,
    environment: Environment,
    /// The results by namespace. Those of the operator's pod are under the empty name. The identity that was used last is at the end.
    held: Mutex<HashMap<String, Vec<(Identity, Entry)>>>,
}

/// The result of the last exchange for an identity. Its lock is held during an exchange.
type Entry = Arc<tokio::sync::Mutex<Option<Held>>>;

struct Held {
    result: Result<Pass, Failure>,
    /// The end of the exchange.
    since: Timestamp,
    /// The instant from which the next exchange may be made.
    until: Timestamp,
}

impl Tokens {
    /// Tokens for the identities that this environment names, and for those of users.
    pub fn new(http: Http, environment: Environment) -> Self {
        Self {
            http,
            environment,
            held: Mutex::default(),
        }
    }

    /// Tokens for the identities of this pod, and for those of users.
    pub fn of_the_pod(http: Http) -> Self {
        Self::new(http, Environment::of(|name| std::env::var(name).ok()))
    }

    /// Sends a request for a canary in a namespace, and returns what `read` makes of the answer. The request proves an identity, if there
    /// is one. A proof that the server does not accept is not used again: with the next one, the request is sent once more.
    pub async fn ask<T, R>(
        &self,
        namespace: &str,
        identity: Option<&Identity>,
        request: HttpRequest,
        read: R,
    ) -> T
    where
        T: Send + 'static,
        R: FnOnce(Result<HttpResponse, Failure>) -> T + Send + 'static,
    {
        let caller = Caller::Namespace(namespace);
        let Some(identity) = identity else {
            return self.http.ask(caller, &request, read).await;
        };
        let pass = match self.pass(namespace, identity).await {
            Ok(pass) => pass,
            Err(failure) => return read(Err(failure)),
        };
        let shown = pass.clone();
        let attempt = move |answer: Result<HttpResponse, Failure>| match answer {
            Ok(answer) if shown.is_rejected(&answer) => Err((shown.hide(answer), read)),
            answer => Ok(read(answer.map(|answer| shown.hide(answer)))),
        };
        let signed = pass.on(request.clone(), clock::now());
        let (answer, read) = match self.http.ask(caller, &signed, attempt).await {
            Ok(read) => return read,
            Err(rejected) => rejected,
        };
        self.reject(namespace, identity);
        match self.pass(namespace, identity).await {
            Ok(next) if next != pass => {
                let signed = next.on(request, clock::now());
                let read = move |answer: Result<_, _>| read(answer.map(|answer| next.hide(answer)));
                self.http.ask(caller, &signed, read).await
            }
            _ => read(Ok(answer)),
        }
    }

    /// Returns the proof of an identity, or the reason why the exchange failed, now or a moment ago.
    pub async fn pass(&self, namespace: &str, identity: &Identity) -> Result<Pass, Failure> {
        let entry = self.entry(namespace, identity);
        let mut held = entry.lock().await;
        let known = held.as_ref().filter(|held| clock::now() < held.until);
        if let Some(known) = known {
            return known.result.clone();
        }
        let grant = self.exchange(namespace, identity).await;
        let since = clock::now();
        let (result, until) = match grant {
            Ok(Grant { pass, until }) => (Ok(pass), until.saturating_sub(MARGIN)),
            Err(why) => {
                let why = format!("cannot prove an identity to {}: {why}", identity.cloud());
                let failure = Failure { why, attempts: 1 };
                (Err(failure), since.saturating_add(PAUSE))
            }
        };
        *held = Some(Held {
            result: result.clone(),
            since,
            // Both sums are out of range only some thousand years ahead.
            until: until.unwrap_or_default(),
        });
        result
    }

    /// Makes the next exchange possible soon, because the cloud does not accept the proof of the identity.
    fn reject(&self, namespace: &str, identity: &Identity) {
        let entry = self.entry(namespace, identity);
        // While its lock is held, the next exchange is under way.
        if let Ok(mut held) = entry.try_lock()
            && let Some(held) = held.as_mut()
        {
            let soon = held.since.saturating_add(PAUSE).unwrap_or_default();
            held.until = held.until.min(soon);
        }
    }

    fn entry(&self, namespace: &str, identity: &Identity) -> Entry {
        let mut held = lock(&self.held);
        let owner = owner(namespace, identity);
        let entries = held.entry(owner.to_owned()).or_default();
        let known = entries.iter().position(|(of, _)| of == identity);
        let (identity, entry) = match known {
            Some(known) => entries.remove(known),
            None => (identity.clone(), Entry::default()),
        };
        if entries.len() >= MAX_OF_NAMESPACE {
            entries.remove(0);
        }
        entries.push((identity, entry.clone()));
        entry
    }

    async fn exchange(&self, namespace: &str, identity: &Identity) -> Result<Grant, String> {
        // An exchange for an identity that users chose takes one of the places of their namespace.
        let caller = if identity.is_of_the_pod() {
            Caller::Operator
        } else {
            Caller::Namespace(namespace)
        };
        let steps = timeout(DEADLINE, self.steps(caller, identity)).await;
        steps.unwrap_or_else(|_| {
            let seconds = DEADLINE.as_secs();
            Err(format!("no answer within {seconds} s"))
        })
    }

    async fn steps(&self, caller: Caller<'_>, identity: &Identity) -> Result<Grant, String> {
        let mut seen = Vec::new();
        loop {
            let step = identity.next(&self.environment, &seen, clock::now());
            match step.map_err(|error| error.to_string())? {
                Step::Read(file) => {
                    let content = tokio::fs::read_to_string(&file).await;
                    seen.push(content.map_err(|error| format!("cannot read {file}: {error}"))?);
                }
                Step::Call(request) => {
                    let answer = self.http.send_for(caller, &request).await;
                    let answer = answer.map_err(|failure| failure.why)?;
                    if answer.status != 200 {
                        return Err(refusal(&request, answer).to_string());
                    }
                    seen.push(answer.body);
                }
                Step::Done(grant) => return Ok(grant),
            }
        }
    }
}

/// The namespace that an identity belongs to.
const fn owner<'a>(namespace: &'a str, identity: &Identity) -> &'a str {
    if identity.is_of_the_pod() {
        ""
    } else {
        namespace
    }
}
