//! The goal that a pipeline waits for. A version has reached it, can still reach it, or cannot reach it any more.

use super::{
    Image, State, Target, View,
    text::{clean, short_image},
};
use crate::api::{
    release::{ReleaseResult, ReleaseSpec},
    status::ConditionType,
};

/// The goal of a wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Until {
    /// The version was promoted.
    Promoted,
    /// The run has ended: the version was promoted or rolled back.
    #[default]
    Ended,
    /// The run waits for a person: at a gate, or because it was paused.
    Paused,
    /// The version was rolled back.
    Failed,
}

/// The version that the pipeline waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The version that the target has when the wait begins.
    Current,
    /// The version with this image in one of its containers.
    Image(String),
    /// The version with this name in the status.
    Revision(String),
}

/// How far the version has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It has reached the goal.
    Yes,
    /// Its run ended without reaching the goal.
    No,
    /// Its run has not begun.
    NotBegun,
    /// Its run is in progress.
    NotYet,
    /// Its run waits for a person.
    WaitsForPerson,
    /// A newer version has taken its place.
    Superseded,
    /// Unknown, because the person may not read the workloads, by which versions are distinguished.
    Unknown,
}

/// A judgement, with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The judgement.
    pub judgement: Judgement,
    /// The state of the version in one word. A view may describe another version.
    pub word: &'static str,
    /// The sentence.
    pub sentence: String,
}

impl Judged {
    fn new(view: &View, judgement: Judgement, sentence: impl Into<String>) -> Self {
        let word = match judgement {
            Judgement::Superseded => "Superseded",
            Judgement::NotBegun => "Pending",
            Judgement::Yes
            | Judgement::No
            | Judgement::NotYet
            | Judgement::WaitsForPerson
            | Judgement::Unknown => view.state.as_str(),
        };
        Self {
            judgement,
            word,
            sentence: sentence.into(),
        }
    }
}

/// Follows one version of a canary.
#[derive(Clone, Debug)]
pub struct Follower {
    until: Until,
    wanted: Wanted,
    /// The revision of the version, once it was seen.
    revision: Option<String>,
    /// Whether the version was seen in the status or in the target.
    is_seen: bool,
    /// The records of the canary's runs, newest first.
    records: Vec<ReleaseSpec>,
}

/// Where the version is.
enum Place {
    /// The target does not have it yet.
    Absent(String),
    /// The target has it, and its run has not begun.
    Begins,
    /// The status describes it.
    Run,
    /// The primary has it.
    Promoted,
    /// The target had it, and has another one now.
    Gone,
    /// Its run has ended without a promotion, for this reason, and the target has another one now.
    Rejected(String),
    /// There is neither such a version nor a record of it.
    Unheard,
}

impl Follower {
    /// Follows the wanted version.
    pub fn new(until: Until, wanted: Wanted) -> Self {
        let revision = match &wanted {
            Wanted::Revision(revision) => Some(revision.clone()),
            Wanted::Current | Wanted::Image(_) => None,
        };
        Self {
            until,
            wanted,
            revision,
            is_seen: false,
            records: Vec::new(),
        }
    }

    /// Uses the records of the canary's runs, newest first. Only the records have a version that was replaced before the wait began.
    #[must_use]
    pub fn with_records(mut self, records: impl IntoIterator<Item = ReleaseSpec>) -> Self {
        self.records.extend(records);
        self
    }

    /// Judges the canary as it is now.
    pub fn judge(&mut self, view: &View) -> Judged {
        let judged = |judgement, sentence: String| Judged::new(view, judgement, sentence);
        if view.unanswered {
            let why = "The workloads could not be read just now.".to_owned();
            return judged(Judgement::NotYet, why);
        }
        if matches!(self.wanted, Wanted::Image(_)) && view.images.is_none() {
            let Target { kind, name } = &view.target;
            let why =
                format!("The {kind} {name} cannot be read, and it tells which image is released.");
            return judged(Judgement::Unknown, why);
        }
        if self.is_hidden(view) {
            let Target { kind, name } = &view.target;
            let why = format!(
                "{} The {kind} {name} cannot be read, and it tells whether this is about its version.",
                view.sentence
            );
            return judged(Judgement::Unknown, why);
        }
        self.remember(view);
        let place = self.place(view);
        self.is_seen |= matches!(place, Place::Begins | Place::Run | Place::Promoted);
        match place {
            Place::Absent(why) => judged(Judgement::NotBegun, why),
            Place::Gone => {
                let why = format!(
                    "{} has taken the place of the version that was waited for.",
                    newer(view)
                );
                judged(Judgement::Superseded, why)
            }
            Place::Rejected(why) => {
                let judgement = match self.until {
                    Until::Failed => Judgement::Yes,
                    Until::Promoted | Until::Ended | Until::Paused => Judgement::No,
                };
                Judged {
                    word: State::Failed.as_str(),
                    ..judged(judgement, why)
                }
            }
            Place::Unheard => {
                let why = "No version of this name is known: it was never released, or its record was deleted.";
                Judged {
                    word: "Unknown",
                    ..judged(Judgement::Superseded, why.to_owned())
                }
            }
            Place::Promoted => self.ended(true, view),
            Place::Begins if view.state.waits_for_a_person() => self.waits(view),
            Place::Begins => judged(Judgement::NotBegun, not_begun(view)),
            Place::Run => self.in_run(view),
        }
    }

    /// Whether the version cannot be known: outside a run, the status may describe the version before.
    fn is_hidden(&self, view: &View) -> bool {
        self.wanted == Wanted::Current
            && self.revision.is_none()
            && view.revision.target.is_none()
            && !view.state.is_in_run()
    }

    /// Remembers the revision of the wanted version when it is seen for the first time.
    fn remember(&mut self, view: &View) {
        let has_it = match &self.wanted {
            Wanted::Current => true,
            Wanted::Image(image) => has_image(view, image, |it| it.canary.as_deref()),
            Wanted::Revision(_) => false,
        };
        if self.revision.is_none() && has_it {
            let target = view.revision.target.clone();
            self.revision = target.or_else(|| view.revision.applied.clone());
        }
    }

    fn place(&self, view: &View) -> Place {
        let Some(revision) = &self.revision else {
            return self.absent(view);
        };
        let is = |other: &Option<String>| other.as_ref() == Some(revision);
        let is_target = view.revision.target.is_none() || is(&view.revision.target);
        let idle = !view.state.is_in_run();
        match () {
            // If only a config has changed and the run has failed, the failed revision is also the promoted one.
            () if view.state == State::Failed && is(&view.revision.applied) && !view.is_back() => {
                Place::Run
            }
            // This version was promoted, and no run of it is in progress.
            () if is(&view.revision.promoted) && (idle || !is(&view.revision.applied)) => {
                Place::Promoted
            }
            // The status describes a failed run until the next run begins.
            () if is(&view.revision.applied) && (is_target || view.state == State::Failed) => {
                Place::Run
            }
            () if is(&view.revision.target) => Place::Begins,
            () => self.past(Place::Unheard),
        }
    }

    /// The place of a version that neither the target nor the status has, by its record; `otherwise` without a record.
    fn past(&self, otherwise: Place) -> Place {
        let Some(record) = self.record() else {
            return if self.is_seen { Place::Gone } else { otherwise };
        };
        match record.result {
            ReleaseResult::Failed | ReleaseResult::Aborted => {
                let cause = record.cause.as_ref().map(|cause| clean(&cause.sentence));
                let why = cause.unwrap_or_else(|| "The version was rolled back.".to_owned());
                Place::Rejected(why)
            }
            ReleaseResult::Running
            | ReleaseResult::Promoted
            | ReleaseResult::Superseded
            | ReleaseResult::Withdrawn => Place::Gone,
        }
    }

    /// The place of a version whose revision is not known.
    fn absent(&self, view: &View) -> Place {
        let Wanted::Image(image) = &self.wanted else {
            return Place::Absent("The Canary has no version yet.".to_owned());
        };
        if has_image(view, image, |it| it.primary.as_deref()) {
            // The primary has it, and the target has another one already.
            return Place::Promoted;
        }
        // A promoted version may come again, for example by a revert in Git. Its record is then about the earlier run.
        let has_come_and_gone = |record: &ReleaseSpec| match record.result {
            ReleaseResult::Superseded => true,
            // If the target went back to the promoted version, it may get this version once more.
            ReleaseResult::Failed | ReleaseResult::Aborted => {
                view.revision.target != view.revision.promoted
            }
            ReleaseResult::Running | ReleaseResult::Promoted | ReleaseResult::Withdrawn => false,
        };
        if self.record().is_some_and(has_come_and_gone) {
            return self.past(Place::Gone);
        }
        let Target { kind, name } = &view.target;
        let why = format!(
            "The {kind} {name} does not have the image {image} yet; it has {}.",
            newer(view)
        );
        Place::Absent(why)
    }

    /// The newest record of the version.
    fn record(&self) -> Option<&ReleaseSpec> {
        let mut records = self.records.iter();
        records.find(|record| match (&self.wanted, &self.revision) {
            (Wanted::Image(image), _) => {
                let mut images = record.images.iter();
                images.any(|change| is_image(&change.to, image))
            }
            (Wanted::Current | Wanted::Revision(_), revision) => {
                revision.as_ref() == Some(&record.revision)
            }
        })
    }

    fn in_run(&self, view: &View) -> Judged {
        match view.state {
            State::Promoted => self.ended(true, view),
            State::Failed if !has(view, ConditionType::RetryRequested) => self.ended(false, view),
            state if state.waits_for_a_person() => self.waits(view),
            _ => Judged::new(view, Judgement::NotYet, &view.sentence),
        }
    }

    fn ended(&self, promoted: bool, view: &View) -> Judged {
        let is_as_asked = match self.until {
            // With `--until ended` as well, the exit code shows whether the version was promoted.
            Until::Promoted | Until::Ended => promoted,
            Until::Paused => false,
            Until::Failed => !promoted,
        };
        let judgement = if is_as_asked {
            Judgement::Yes
        } else {
            Judgement::No
        };
        if promoted && view.state != State::Promoted {
            let sentence = "The version was promoted.";
            return Judged {
                word: State::Promoted.as_str(),
                ..Judged::new(view, judgement, sentence)
            };
        }
        Judged::new(view, judgement, &view.sentence)
    }

    fn waits(&self, view: &View) -> Judged {
        let judgement = match self.until {
            Until::Paused => Judgement::Yes,
            Until::Promoted | Until::Ended | Until::Failed => Judgement::WaitsForPerson,
        };
        Judged::new(view, judgement, &view.sentence)
    }
}

fn has(view: &View, condition: ConditionType) -> bool {
    let type_ = condition.as_str();
    view.conditions.iter().any(|it| it.type_ == type_)
}

/// Whether a container has this image. Registry and folders may be left out.
fn has_image(view: &View, wanted: &str, of: impl Fn(&Image) -> Option<&str>) -> bool {
    let mut images = view.images.iter().flatten().filter_map(of);
    images.any(|image| is_image(image, wanted))
}

/// Whether this is the wanted image, whose registry and folders may be left out.
fn is_image(image: &str, wanted: &str) -> bool {
    let rest = image.strip_suffix(wanted);
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
}

/// Why the run of a version has not begun: the reason of the canary, if it has one.
fn not_begun(view: &View) -> String {
    let begins = "The run of the version has not begun.";
    if view.code.is_empty() {
        begins.to_owned()
    } else {
        format!("{begins} {}", view.sentence)
    }
}

/// The version that the target has, in words.
fn newer(view: &View) -> String {
    let images = view.images.iter().flatten();
    let images: Vec<_> = images
        .filter_map(|it| it.canary.as_deref())
        .map(short_image)
        .collect();
    match (
        images.as_slice(),
        &view.revision.target,
        &view.revision.applied,
    ) {
        ([], Some(revision), _) | ([], None, Some(revision)) => revision.clone(),
        ([], None, None) => "another version".to_owned(),
        (images, _, _) => images.join(", "),
    }
}
