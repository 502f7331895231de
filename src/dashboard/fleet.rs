//! The list of canaries.

use std::sync::Arc;

use maud::{Markup, html};

use super::{
    filter::Filter,
    marks,
    place::{Named, Place},
    recorded::Recorded,
    row::{Rank, Row},
    site::Site,
    text::{NAME, cut, name, number, since, until},
};
use crate::api::percent::Percent;

/// The number of canaries on one page.
pub const PAGE: usize = 100;
/// The maximum number of characters of a reason; the page of the canary has all.
const REASON: usize = 240;

/// The canaries that match a filter, those that need attention first. `rows` are all that the user may list, by name.
/// `reads`: whether the user may list the records of a namespace.
pub fn fleet(
    site: &Site<'_>,
    filter: &Filter,
    rows: &[Arc<Row>],
    reads: impl Fn(&str) -> bool,
) -> Markup {
    let mut matching: Vec<&Arc<Row>> = rows.iter().filter(|row| filter.matches(row)).collect();
    matching.sort_by_key(|row| row.rank());
    let attention = matching
        .iter()
        .take_while(|row| row.rank() == Rank::Attention);
    let attention = attention.count();
    let pages = matching.len().div_ceil(PAGE).max(1);
    let page = filter.page.min(pages);
    let shown = matching.iter().skip((page - 1) * PAGE).take(PAGE);
    html! {
        h1.hidden { "Canaries" }
        (search(site, filter))
        p.counts {
            (matching.len()) " of " (rows.len()) " canaries"
            @if attention > 0 { ", " strong { (attention) @if attention == 1 { " needs attention" } @else { " need attention" } } }
        }
        @if matching.is_empty() {
            p.empty {
                @if rows.is_empty() { "There are no canaries that you may list." }
                @else { "No canary matches the filter. " a href=(site.href(&Place::first())) { "Show all" } }
            }
        } @else {
            table.fleet.stack {
                thead { tr {
                    th scope="col" { "State" }
                    th scope="col" { "Canary" }
                    th scope="col" { "Progress" }
                    th.num scope="col" { "Traffic" }
                    th.num.wide scope="col" { "Failed checks" }
                    th.wide scope="col" { "Changed" }
                    th.wide scope="col" { "Ends in" }
                } }
                tbody { @for row in shown { (line(site, row, reads(&row.view.namespace))) } }
            }
        }
        @if pages > 1 { (paging(site, filter, page, pages)) }
    }
}

fn search(site: &Site<'_>, filter: &Filter) -> Markup {
    html! {
        form.search role="search" method="get" action="/" {
            label.hidden for="q" { "Filter" }
            input #q type="search" name="q" value=(filter.text) maxlength="200" autocomplete="off" spellcheck="false"
                placeholder="text  ns:shop  phase:failed  team=a" aria-describedby="keys";
            @if site.embed { input type="hidden" name="embed" value="1"; }
            button type="submit" { "Filter" }
            span #keys .dim { kbd { "/" } " filter, " kbd { "↑" } kbd { "↓" } " choose, " kbd { "Enter" } " open" }
        }
    }
}

fn line(site: &Site<'_>, row: &Row, reads: bool) -> Markup {
    let view = &row.view;
    let has_reason = view.needs_attention || !view.code.is_empty();
    let href = Named::new(&view.namespace, &view.name).map(|canary| {
        site.href(&Place::Release {
            canary,
            record: None,
        })
    });
    let recorded = row.recorded.as_ref().filter(|_| reads);
    let measured = recorded.and_then(|it| it.measured_at(view.weight.intended));
    html! {
        tr id={ "r-" (cut(&view.namespace, NAME)) "." (cut(&view.name, NAME)) } {
            td { (marks::state(view.state)) }
            td.canary {
                a.open href=[href] { span.dim { (name(&view.namespace)) "/" } strong { (name(&view.name)) } }
                @if let Some(recorded) = recorded { (versions(recorded)) }
                @if has_reason { div.why { bdi { (cut(&view.sentence, REASON)) } } }
            }
            td.progress {
                (marks::bar(view))
                @if let Some((taken, all)) = view.progress() { span.dim { (taken) "/" (all) } }
            }
            td.num data-label="traffic" {
                @if view.weight.intended > Percent::ZERO || (view.strategy == "canary" && view.state.is_in_run()) { (view.weight.intended) " %" } @else { "–" }
                @if let Some(measured) = measured { div.dim { (number(measured)) " % measured" } }
            }
            td.num.wide {
                @if view.state.is_in_run() { (view.failed_checks.now) "/" (view.failed_checks.threshold) } @else { "–" }
            }
            td.wide { (since(view.since, site.now)) }
            td.wide {
                @match view.ends.filter(|ends| *ends > site.now) {
                    Some(ends) => (until(ends, site.now)),
                    None => "–",
                }
            }
        }
    }
}

fn versions(recorded: &Recorded) -> Markup {
    let (from, to) = &recorded.versions;
    html! {
        div.dim {
            bdi { (from) } " → " bdi { (to) }
            @if recorded.more > 0 { ", " (recorded.more) " more" }
        }
    }
}

fn paging(site: &Site<'_>, filter: &Filter, page: usize, pages: usize) -> Markup {
    let href = |page: usize| site.href(&Place::Fleet(filter.on_page(page)));
    html! {
        nav.paging aria-label="Pages of the list" {
            @if page > 1 { a rel="prev" href=(href(page - 1)) { "Previous" } }
            span { "Page " (page) " of " (pages) }
            @if page < pages { a rel="next" href=(href(page + 1)) { "Next" } }
        }
    }
}
