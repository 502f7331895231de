//! Reads objects, and tries writes as dry runs.

use futures::{StreamExt, stream};
use serde_json::Value;

use super::{Planning, is_forbidden};
use crate::{
    plan::{By, Changes, Foreseen, Foresight, Tried, first_step, result, write},
    shell::{
        api_server::{ClusterError, trial::Unknown},
        client::trouble::Stop,
    },
    snapshot::{Action, Kind, ObjectRef, Write},
};

/// How many objects are read at the same time.
const PARALLEL: usize = 8;

/// The reason why a write was not made as a dry run.
enum NotTried {
    /// The API server would refuse it from everyone.
    Refused(String),
    /// The API server did not try it.
    Untried(String),
}

impl Planning<'_> {
    /// Reads objects. Those of the files are as if they were applied.
    pub(super) async fn objects(
        &mut self,
        objects: Vec<ObjectRef>,
    ) -> Result<Vec<(ObjectRef, Option<Value>)>, Stop> {
        let person = &self.context.person;
        let reads = objects.into_iter().map(async |object| {
            let read = person.read(&object).await;
            (object, read)
        });
        let reads: Vec<_> = stream::iter(reads).buffered(PARALLEL).collect().await;
        let mut known = Vec::new();
        for (object, read) in reads {
            let live = match read {
                Err(error) if is_forbidden(&error) => {
                    self.lacks("get", object.kind, &object.namespace);
                    let (kind, name) = (object.kind.name(), &object.name);
                    let why = format!("{kind} {name}, which you may not read, counts as missing");
                    self.plan.not_checked.push(why);
                    self.unread.insert(object.clone());
                    None
                }
                read => read.map_err(|error| self.wants("plan").failed(&error))?,
            };
            let value = match self.manifest(&object) {
                Some(manifest) => {
                    let Tried { after, refused, .. } = self.apply(&object, live, manifest).await;
                    let (kind, name) = (object.kind.name(), &object.name);
                    let why = refused.map(|why| format!("{kind} {name} is refused: {why}"));
                    self.plan.problems.extend(why);
                    after
                }
                None => live,
            };
            known.push((object, value));
        }
        Ok(known)
    }

    /// Tries to apply a manifest.
    pub(super) async fn apply(
        &mut self,
        object: &ObjectRef,
        live: Option<Value>,
        manifest: &Value,
    ) -> Tried {
        let write = write(object, live.as_ref(), manifest);
        let mut tried = Self::tried(object, By::You, live);
        self.carry_out(&write, &mut tried, Unknown::Refused).await;
        tried
    }

    /// Tries a write of the operator.
    pub(super) async fn try_write(&mut self, foresight: &mut Foresight, write: &Write) {
        let object = &write.object;
        let before = foresight.snapshot().objects.get(object).cloned();
        let tried = self.tried_by_operator(write, before).await;
        if let Some(after) = tried.after.clone() {
            foresight.written(object, after);
        }
        self.changes.add(tried);
    }

    /// Tries the writes of the first step of a run into routes of the user. A Canary with a problem has no first step.
    pub(super) async fn first_step(&mut self, foreseen: &mut Foreseen) {
        if !foreseen.problems.is_empty() {
            return;
        }
        let mut changes = Changes::default();
        match first_step(&foreseen.snapshot) {
            Ok(writes) => {
                for write in writes {
                    let before = foreseen.snapshot.objects.get(&write.object).cloned();
                    changes.add(self.tried_by_operator(&write, before).await);
                }
            }
            Err(why) => foreseen.problems.push(why),
        }
        self.plan.first_step = changes.shown();
    }

    async fn tried_by_operator(&mut self, write: &Write, before: Option<Value>) -> Tried {
        let object = &write.object;
        let mut tried = Self::tried(object, By::Operator, before);
        if self.changes.has(object) {
            // The dry run of an earlier write of this object was not stored, so a dry run of this write would be wrong.
            tried.after = result(write, tried.before.as_ref());
        } else if self.unread.contains(object) {
            tried.after = result(write, tried.before.as_ref());
            tried.untried = Some("you may not read it, so it is shown as new".to_owned());
        } else if self.manifest(object).is_some() {
            tried.after = result(write, tried.before.as_ref());
            tried.untried = Some("the manifest changes it first".to_owned());
        } else {
            self.carry_out(write, &mut tried, Unknown::Dropped).await;
        }
        tried
    }

    async fn carry_out(&mut self, write: &Write, tried: &mut Tried, unknown: Unknown) {
        let done = self.context.person.dry_run(write, unknown).await;
        match done {
            Ok(after) => tried.after = Some(after),
            Err(error) => {
                tried.after = result(write, tried.before.as_ref());
                match self.not_tried(write, &error).await {
                    NotTried::Refused(why) => tried.refused = Some(why),
                    NotTried::Untried(why) => {
                        let (kind, name) = (write.object.kind.name(), &write.object.name);
                        let what = format!("whether the API server accepts {kind} {name}: {why}");
                        self.plan.not_checked.push(what);
                        tried.untried = Some(why);
                    }
                }
            }
        }
    }

    /// Returns why a write was not tried. A right that only the person lacks does not hinder the operator. A refusal by admission hinders
    /// both.
    async fn not_tried(&mut self, write: &Write, error: &ClusterError) -> NotTried {
        let object = &write.object;
        let verb = match write.action {
            Action::Create(_) => "create",
            Action::Replace(_) => "update",
            Action::Patch(_) => "patch",
        };
        let why = error.to_string();
        // The API server repeats values in some messages.
        let shown = if object.kind == Kind::Secret {
            error.code().map_or_else(
                || "the API server has no answer".to_owned(),
                |code| format!("status {code}"),
            )
        } else {
            why.clone()
        };
        match error.code() {
            Some(403) if why.contains("blockOwnerDeletion") => {
                self.missing(self.right_of_person("update", "canaries/finalizers"));
                NotTried::Untried("you may not update canaries/finalizers".to_owned())
            }
            Some(403) if !self.may(verb, object).await => {
                self.lacks(verb, object.kind, &object.namespace);
                NotTried::Untried(format!("you may not {verb} {}", object.kind.plural()))
            }
            // A webhook that may have side effects is not called.
            Some(400) if why.contains("dry run") => NotTried::Untried(shown),
            Some(400 | 403 | 404 | 413 | 422) => NotTried::Refused(shown),
            Some(_) | None => NotTried::Untried(shown),
        }
    }
}
