//! The steps of the cases.

use flagger_rs::snapshot::Kind;
use serde_json::Value;
use testbed::{fakes::Answer, wait::until};

use super::super::{Outcome, PATIENCE, Scenario, ensure, text};
use Step::*;

/// A step. Fields of objects are JSON pointers, their values are JSON, and `NAMESPACE` in a text is the namespace of the case.
#[derive(Debug)]
pub enum Step {
    /// The user applies the objects of the case.
    Apply,
    /// The user applies the objects of the case, except those with this name.
    ApplyWithout(&'static str),
    /// The user runs kubectl with these words.
    Kubectl(&'static str),
    /// From now on, the server at this host and path answers with this status.
    Answers(&'static str, u16),
    /// Waits until this Canary is in this phase and nothing is pending.
    Phase(&'static str, &'static str),
    /// Waits for an event whose text contains this.
    Event(&'static str),
    /// Waits until a field of an object has this value.
    Becomes(Kind, &'static str, &'static str, &'static str),
    /// Waits until a field of an object is at least this number.
    Reaches(Kind, &'static str, &'static str, i64),
    /// Waits until two fields of an object are equal.
    Agree(Kind, &'static str, [&'static str; 2]),
    /// Waits until the server at this host and path has received at least this number of requests.
    Asked(&'static str, usize),
    /// Waits until the operator exports this line as a metric.
    Metric(&'static str),
    /// A field of an object has this value now. A field that is missing is null.
    Is(Kind, &'static str, &'static str, &'static str),
    /// There is no such object.
    Absent(Kind, &'static str),
    /// The operator has updated this object this number of times.
    Updates(Kind, &'static str, usize),
    /// The server at this host and path has received this number of requests.
    Calls(&'static str, usize),
    /// This number of events with this text has been sent.
    Events(&'static str, usize),
    /// Each request to this host had this `Authorization`, and there was one.
    Authorization(&'static str, &'static str),
}

impl Scenario<'_> {
    pub(super) async fn step(&self, objects: &[Value], step: &Step) -> Outcome {
        let here = |text: &str| text.replace("NAMESPACE", &self.ns);
        match *step {
            Apply => self.apply_as_user(objects).await,
            ApplyWithout(name) => {
                let is_meant = |object: &&Value| object["metadata"]["name"] != name;
                let objects: Vec<_> = objects.iter().filter(is_meant).cloned().collect();
                self.apply_as_user(&objects).await
            }
            Kubectl(words) => self.kubectl(words).await,
            Answers(to, status) => {
                let answer = Answer::Raw(status, "scripted".to_owned());
                self.rig.bed.fakes.script(&here(to), answer);
                Ok(())
            }
            Phase(canary, phase) => self.phase_of(canary, phase).await,
            Event(message) => self.event(&here(message)).await.map(drop),
            Becomes(kind, name, field, value) => {
                self.wait(async || self.is(kind, name, field, value).await)
                    .await
            }
            Reaches(kind, name, field, least) => {
                self.wait(async || {
                    let value = self.value(kind, name, field).await?;
                    ensure(value.as_i64() >= Some(least), value)
                })
                .await
            }
            Agree(kind, name, [one, other]) => {
                self.wait(async || {
                    let one = self.value(kind, name, one).await?;
                    self.is(kind, name, other, &one.to_string()).await
                })
                .await
            }
            Asked(to, least) => {
                let calls = || self.rig.bed.fakes.calls(&here(to)).len();
                self.wait(async || ensure(calls() >= least, calls())).await
            }
            Metric(line) => {
                let operator = self.rig.operator.as_ref().ok_or("no operator")?;
                self.wait(async || {
                    let metrics = operator.metrics().await.map_err(text)?;
                    let is_there = metrics.lines().any(|found| found == here(line));
                    ensure(is_there, "no such line")
                })
                .await
            }
            _ => self.check(step).await,
        }
    }

    /// The steps that do not wait.
    async fn check(&self, step: &Step) -> Outcome {
        let here = |text: &str| text.replace("NAMESPACE", &self.ns);
        let fakes = &self.rig.bed.fakes;
        match *step {
            Is(kind, name, field, value) => self.is(kind, name, field, value).await,
            Absent(kind, name) => {
                let found = self.get(kind, name).await;
                found.map_or(Ok(()), |object| Err(object.to_string()))
            }
            Updates(kind, name, count) => {
                let mut all = self.requests()?;
                let is_update = |verb: &str| ["update", "patch"].contains(&verb);
                all.retain(|line| {
                    line.resource == kind.plural() && line.name == name && is_update(&line.verb)
                });
                ensure(all.len() == count, format!("{all:?}"))
            }
            Calls(to, count) => {
                let calls = fakes.calls(&here(to));
                ensure(calls.len() == count, format!("{calls:?}"))
            }
            Events(message, count) => {
                let all = self.events();
                let found = all.iter().filter(|line| line.contains(message));
                ensure(found.count() == count, format!("{all:?}"))
            }
            Authorization(host, value) => {
                let all = fakes.authorizations(&here(host));
                let are_right = !all.is_empty() && all.iter().all(|found| found == value);
                ensure(are_right, format!("{all:?}"))
            }
            _ => unreachable!("{step:?} waits"),
        }
    }

    async fn wait(&self, holds: impl AsyncFnMut() -> Outcome) -> Outcome {
        until(PATIENCE, "it", holds)
            .await
            .map_err(|error| format!("{error}\nevents: {:?}", self.events()))
    }

    async fn value(&self, kind: Kind, name: &str, field: &str) -> Result<Value, String> {
        let object = self.get(kind, name).await?;
        Ok(object.pointer(field).cloned().unwrap_or_default())
    }

    async fn is(&self, kind: Kind, name: &str, field: &str, value: &str) -> Outcome {
        let expected: Value = serde_json::from_str(value).map_err(text)?;
        let found = self.value(kind, name, field).await?;
        ensure(found == expected, format!("it is {found}"))
    }
}
