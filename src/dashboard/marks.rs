//! Small parts of several pages: states, results and bars. None carries its meaning by color alone.

use maud::{Markup, html};

use crate::{
    api::release::ReleaseResult,
    view::{Progress, State, View},
};

/// The most steps that a bar shows one by one.
const SEGMENTS: usize = 25;

/// The class and the sign of a state.
const fn of_state(state: State) -> (&'static str, &'static str) {
    match state {
        State::Promoted => ("good", "✓"),
        State::Failed | State::RollingBack | State::Blocked => ("bad", "✗"),
        State::Paused | State::Waiting | State::Suspended => ("warn", "‖"),
        State::Progressing | State::Promoting => ("busy", "▶"),
        State::New | State::Initializing | State::Terminating => ("idle", "·"),
    }
}

/// The state as a sign and a word.
pub fn state(state: State) -> Markup {
    let (class, sign) = of_state(state);
    chip(class, sign, state.as_str())
}

/// The result of a release as a sign and a word.
pub fn result(result: ReleaseResult) -> Markup {
    let (class, sign) = match result {
        ReleaseResult::Promoted => ("good", "✓"),
        ReleaseResult::Failed => ("bad", "✗"),
        ReleaseResult::Aborted => ("warn", "✗"),
        ReleaseResult::Running => ("busy", "▶"),
        ReleaseResult::Superseded | ReleaseResult::Withdrawn => ("idle", "·"),
    };
    chip(class, sign, result.as_str())
}

/// A sign and a word.
pub fn chip(class: &str, sign: &str, word: &str) -> Markup {
    html! { span class={ "chip " (class) } { span aria-hidden="true" { (sign) } " " (word) } }
}

/// The steps of a run as a bar.
pub fn bar(view: &View) -> Markup {
    let Some((taken, all)) = view.progress() else {
        return html! {};
    };
    let what = if view.strategy == "canary" {
        "step"
    } else {
        "iteration"
    };
    let words = format!("{what} {taken} of {all}");
    let segments = |state: Progress| {
        let of_state = view.steps.iter().enumerate();
        let of_state = of_state.filter(|(_, step)| step.state == state);
        of_state
            .map(|(place, _)| segment(state, place * 100 / all, 100 / all))
            .collect()
    };
    let parts = if all <= SEGMENTS {
        [Progress::Done, Progress::Now, Progress::Later].map(|state| (state, segments(state)))
    } else {
        let done = segment(Progress::Done, 0, taken * 100 / all);
        let later = segment(Progress::Later, 0, 100);
        [
            (Progress::Later, later),
            (Progress::Done, done),
            (Progress::Now, String::new()),
        ]
    };
    // A list has hundreds of bars and is sent again and again, so all segments of a state are one short path.
    html! {
        svg.bar viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label=(words) {
            @for (state, path) in parts.iter().filter(|(_, path)| !path.is_empty()) {
                path class=(class(*state)) d=(path) {}
            }
        }
    }
}

const fn class(state: Progress) -> &'static str {
    match state {
        Progress::Done => "done",
        Progress::Now => "now",
        Progress::Later => "later",
    }
}

/// A rectangle, as a part of a path.
fn segment(state: Progress, from: usize, width: usize) -> String {
    // A step that comes later is flat, so that the bar is readable without colors.
    let (y, height) = if state == Progress::Later {
        (3, 2)
    } else {
        (0, 8)
    };
    let width = width.saturating_sub(1).max(1);
    format!("M{from} {y}h{width}v{height}h-{width}z")
}
