//! One canary: its state in a sentence, its buttons, steps, pods and events, and the record of a release.

use maud::{Markup, html};

use super::{
    actions::actions,
    marks,
    place::{Named, Place},
    record::{newest, record},
    site::Site,
    text::{name, sentence, since, until},
};
use crate::{
    api::{action, release::Release, status::ConditionType},
    view::{Event, Image, Pod, Version, View},
};

/// The maximum number of pods, images, events and other entries.
const ENTRIES: usize = 100;
/// The maximum number of events.
const EVENTS: usize = 30;

/// The content of the page of a canary.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The canary.
    pub canary: &'a Named,
    /// Its view.
    pub view: &'a View,
    /// Its records, newest first; `None` if the user may not read them.
    pub records: Option<&'a [Release]>,
    /// The name of the record that the address has; `None` for the last one.
    pub named: Option<&'a str>,
    /// The verbs that the user may use on this canary.
    pub may: &'a [action::Verb],
}

impl<'a> Shown<'a> {
    /// The record that is shown; `None` if there is none.
    pub fn record(&self) -> Option<&'a Release> {
        let mut records = self.records?.iter();
        match self.named {
            Some(named) => records.find(|it| it.metadata.name.as_deref() == Some(named)),
            None => records.next(),
        }
    }
}

/// The page of a canary. If its address names a record, the page shows the record only.
pub fn release(site: &Site<'_>, shown: &Shown<'_>) -> Markup {
    let record = shown.record();
    html! {
        (head(site, shown))
        @if shown.named.is_none() {
            (now(site, shown))
        }
        @match record {
            Some(found) => {
                @if shown.named.is_none() && !shown.view.is_recorded_by(&found.spec.revision, found.spec.result) { p.dim { "The last recorded release is another version:" } }
                (self::record(site, found))
            }
            None if shown.records.is_none() => p.dim { "You may not read the records of releases." },
            None => p.dim { "No release of this canary is recorded." },
        }
    }
}

fn head(site: &Site<'_>, shown: &Shown<'_>) -> Markup {
    let Shown { canary, view, .. } = shown;
    let history = Place::History {
        canary: (*canary).clone(),
        compared: None,
    };
    let current = Place::Release {
        canary: (*canary).clone(),
        record: None,
    };
    html! {
        p.crumbs {
            a href=(site.href(&Place::first())) { "Canaries" } " / "
            @if shown.named.is_some() { a href=(site.href(&current)) { "Current state" } " / " }
            a href=(site.href(&history)) { "History" }
        }
        h1 { span.dim { (name(&canary.namespace)) "/" } (name(&canary.name)) }
        @if shown.named.is_none() {
            p.sentence role="status" { (marks::state(view.state)) " " (sentence(&view.sentence)) }
        }
    }
}

/// The state now.
fn now(site: &Site<'_>, shown: &Shown<'_>) -> Markup {
    let view = shown.view;
    html! {
        (facts(site, view))
        (actions(site, shown.canary, view, shown.may))
        (steps(site, view))
        div.columns {
            (images(view.images.as_deref()))
            (checks(view))
        }
        (pods(site, view.pods.as_deref()))
        (events(site, view))
    }
}

fn facts(site: &Site<'_>, view: &View) -> Markup {
    html! {
        dl.facts {
            dt { "Target" } dd { (name(&view.target.kind)) " " (name(&view.target.name)) ", " (view.strategy) }
            dt { "Changed" } dd { (since(view.since, site.now)) @if view.since.is_some() { " ago" } }
            @if let Some(action) = &view.action {
                dt { "Last action" } dd {
                    @if action.accepted { (marks::chip("good", "✓", "accepted")) } @else { (marks::chip("bad", "✗", "refused")) }
                    " " (sentence(&action.text))
                }
            }
            @for condition in view.conditions.iter().filter(|it| it.type_ == ConditionType::WriteRefused.as_str()).take(1) {
                dt { "Write refused" } dd { (sentence(&condition.message)) }
            }
        }
    }
}

fn steps(site: &Site<'_>, view: &View) -> Markup {
    let Some((taken, all)) = view.progress() else {
        return html! {};
    };
    let is_canary = view.strategy == "canary";
    html! {
        section.steps aria-labelledby="h-steps" {
            h2 #h-steps { "Steps" }
            (marks::bar(view))
            p {
                @if is_canary { "Step " } @else { "Iteration " } (taken) " of " (all) ", "
                (view.weight.intended) " % of the traffic to the canary, at most " (view.weight.max) " %"
                @if let (Some(next), Some(ends)) = (view.next_step, view.ends) {
                    ". Next step in " (until(next, site.now)) ", promoted in " (until(ends, site.now)) " at the earliest"
                }
                "."
            }
            p { (view.failed_checks.now) " of " (view.failed_checks.threshold) " failed checks until rollback." }
        }
    }
}

/// The images of the primary and of the target.
fn images(images: Option<&[Image]>) -> Markup {
    let side = |side: &Option<String>| html! { @match side { Some(image) => (super::text::path(image)), None => span.dim { "none" } } };
    html! {
        section {
            h3 { "Images" }
            @match images {
                None => p.dim { "You may not read the workloads." },
                Some([]) => p.dim { "The workloads do not exist." },
                Some(images) => {
                    table.diff.stack {
                        thead { tr { th scope="col" { "Container" } th scope="col" { "Primary" } th scope="col" { "Target" } } }
                        tbody { @for image in images.iter().take(ENTRIES) {
                            tr.changed[image.primary != image.canary] {
                                th scope="row" { (name(&image.container)) }
                                td { (side(&image.primary)) }
                                td { @if image.primary != image.canary { span.plus { "→ " } } (side(&image.canary)) }
                            }
                        } }
                    }
                }
            }
        }
    }
}

/// The metrics and webhooks that the Canary names.
fn checks(view: &View) -> Markup {
    let bound =
        |word: &str, bound: Option<f64>| Some(format!("{word} {}", super::text::number(bound?)));
    html! {
        section {
            h3 { "Checks of each step" }
            @if view.checks.is_empty() && view.hooks.is_empty() { p.dim { "The Canary names no metrics and no webhooks." } }
            ul.plain {
                @for check in view.checks.iter().take(ENTRIES) {
                    @let bounds = [bound("at least", check.min), bound("at most", check.max)];
                    li { (name(&check.name)) span.dim { " " (bounds.into_iter().flatten().collect::<Vec<_>>().join(", ")) " over " (name(&check.interval)) } }
                }
                @for hook in view.hooks.iter().take(ENTRIES) {
                    li { (name(&hook.name)) span.dim { " webhook, " (name(&hook.type_)) } }
                }
            }
        }
    }
}

fn pods(site: &Site<'_>, pods: Option<&[Pod]>) -> Markup {
    html! {
        section {
            h2 { "Pods" }
            @match pods {
                None => p.dim { "You may not list the pods." },
                Some([]) => p.dim { "There are no pods." },
                Some(all) => {
                    table.pods.stack {
                        thead { tr {
                            th scope="col" { "Version" } th scope="col" { "Pod" } th scope="col" { "State" }
                            th.num scope="col" { "Restarts" } th.wide scope="col" { "Age" }
                        } }
                        tbody { @for pod in all.iter().take(ENTRIES) { (self::pod(site, pod)) } }
                    }
                    @if all.len() > ENTRIES { p.dim { (all.len() - ENTRIES) " more pods are not shown." } }
                }
            }
        }
    }
}

fn pod(site: &Site<'_>, pod: &Pod) -> Markup {
    let version = match pod.of {
        Version::Canary => "canary",
        Version::Primary => "primary",
    };
    html! {
        tr {
            td { (version) }
            td { (name(&pod.name)) }
            td {
                @if pod.ready { (marks::chip("good", "✓", "ready")) } @else { (marks::chip("bad", "✗", "not ready")) }
                " " (sentence(&pod.status))
            }
            td.num data-label="restarts" { @if pod.restarts > 0 { strong { (pod.restarts) } } @else { "0" } }
            td.wide { (since(pod.created, site.now)) }
        }
    }
}

fn events(site: &Site<'_>, view: &View) -> Markup {
    html! {
        section {
            h2 { "Events" }
            @match view.events.as_deref() {
                None => p.dim { "You may not list the events." },
                Some([]) => p.dim { "There are no events of the last hour." },
                Some(events) => {
                    table.events.stack {
                        thead { tr { th scope="col" { "Age" } th scope="col" { "Type" } th scope="col" { "Message" } } }
                        tbody { @for event in newest(events, EVENTS).iter().rev() { (self::event(site, event)) } }
                    }
                }
            }
        }
    }
}

fn event(site: &Site<'_>, event: &Event) -> Markup {
    html! {
        tr {
            td { (since(event.at, site.now)) }
            td {
                @if event.type_ == "Warning" { (marks::chip("warn", "!", "Warning")) } @else { (name(&event.type_)) }
            }
            td { (sentence(&event.message)) @if event.count > 1 { span.dim { " ×" (event.count) } } }
        }
    }
}
