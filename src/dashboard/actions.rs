//! The buttons of a canary: each has a field for the reason, and the equal command.

use maud::{Markup, html};

use super::{
    place::Named,
    site::Site,
    text::{NAME, cut},
};
use crate::{
    api::{action::Verb, canary::CanaryPhase},
    view::{State, View},
};

/// The longest reason, in characters. The line of an action has 1024 bytes, and the other words need up to 400.
pub const REASON: usize = 150;

/// The verbs that the operator can accept in this state.
pub fn possible(view: &View) -> &'static [Verb] {
    use Verb::{Abort, Pause, Promote, Resume, Retry, Skip};
    let is = |phase: CanaryPhase| view.phase == phase.as_str();
    match view.state {
        State::Failed if view.is_back() => &[],
        State::Failed => &[Retry],
        State::Paused => &[Resume, Skip, Promote, Abort],
        State::Waiting if is(CanaryPhase::Progressing) => &[Skip, Promote, Pause, Abort],
        State::Waiting => &[Resume, Skip, Promote, Pause, Abort],
        State::Progressing => &[Pause, Skip, Promote, Abort],
        State::Promoting if is(CanaryPhase::Promoting) => &[Abort],
        _ => &[],
    }
}

/// The effect of a verb in a sentence.
const fn effect(verb: Verb) -> &'static str {
    match verb {
        Verb::Promote => "Promotes the version now, without further steps and checks.",
        Verb::Skip => "Ends this step, or opens the gate at which the release waits.",
        Verb::Pause => "Holds the weight. Checks go on, and may roll the version back.",
        Verb::Resume => "Ends the pause, or opens the gate at which the release waits.",
        Verb::Abort => "Returns the traffic to the primary now, and marks the version as failed.",
        Verb::Retry => "Releases the failed version again.",
    }
}

/// The word on the button.
const fn title(verb: Verb) -> &'static str {
    match verb {
        Verb::Promote => "Promote",
        Verb::Skip => "Skip",
        Verb::Pause => "Pause",
        Verb::Resume => "Resume",
        Verb::Abort => "Abort",
        Verb::Retry => "Retry",
    }
}

/// The version that an action is meant for: the one that the page shows.
fn revision(view: &View) -> Option<&str> {
    let waits = view.phase == CanaryPhase::Waiting.as_str();
    let revision = if waits {
        &view.revision.target
    } else {
        &view.revision.applied
    };
    revision.as_deref()
}

/// When a verb is possible.
const fn when(verb: Verb) -> &'static str {
    match verb {
        Verb::Promote | Verb::Skip => "while a version takes its steps, is paused, or waits.",
        Verb::Pause => "while a version takes its steps, or waits.",
        Verb::Resume => {
            "while a version is paused, or waits before its first step or before its promotion."
        }
        Verb::Abort => {
            "from the begin of a release until the primary gets the version, unless the version is rolled back already."
        }
        Verb::Retry => "after a version has failed, as long as the target has this version.",
    }
}

/// The buttons of the verbs that are possible now and that the user may use. Each other verb has a sentence that says why it has none.
pub fn actions(site: &Site<'_>, canary: &Named, view: &View, may: &[Verb]) -> Markup {
    let possible = possible(view);
    let (allowed, forbidden): (Vec<Verb>, Vec<Verb>) =
        possible.iter().partition(|verb| may.contains(verb));
    let impossible = Verb::ALL.iter().filter(|verb| !possible.contains(verb));
    html! {
        @if !allowed.is_empty() {
            section.actions aria-labelledby="h-actions" {
                h2.hidden #h-actions { "Actions" }
                @for verb in allowed { (action(site, canary, view, verb)) }
            }
        }
        @if !forbidden.is_empty() {
            p.dim {
                "Your account may not " (any_of(&forbidden)) " this release: each of these verbs is a right of its own, and needs the right to patch the Canary, too. "
                code { (site.typed.kubectl) " -n " (canary.namespace) " auth can-i --list" }
            }
        }
        details.others.dim {
            summary { "Other actions" }
            ul.plain { @for verb in impossible { li { (title(*verb)) " is possible " (when(*verb)) } } }
        }
    }
}

/// The verbs as words: `pause, skip or abort`.
fn any_of(verbs: &[Verb]) -> String {
    let words: Vec<_> = verbs.iter().map(|verb| verb.as_str()).collect();
    match words.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

fn action(site: &Site<'_>, canary: &Named, view: &View, verb: Verb) -> Markup {
    let (word, field) = (verb.as_str(), format!("reason-{verb}"));
    let needs_reason = verb.needs_reason();
    let Named { namespace, name } = canary;
    let reason = if needs_reason {
        " --reason \"…\""
    } else {
        ""
    };
    let command = format!(
        "{} -n {namespace} {word} {name}{reason}",
        site.typed.flagger
    );
    html! {
        details.action.danger[matches!(verb, Verb::Abort | Verb::Promote)] id={ "do-" (word) } {
            summary { (title(verb)) }
            form method="post" action={ (canary.address()) "/" (word) } {
                p { (effect(verb)) }
                @if let Some(revision) = revision(view) { input type="hidden" name="revision" value=(cut(revision, NAME)); }
                @if site.embed { input type="hidden" name="embed" value="1"; }
                label for=(field) { @if needs_reason { "Reason, which everybody can read" } @else { "Reason (optional)" } }
                input id=(field) type="text" name="reason" maxlength=(REASON) required[needs_reason] autocomplete="off";
                button type="submit" { (title(verb)) " " (canary.name) }
                p.dim { "The same as " code { (command) } }
            }
        }
    }
}
