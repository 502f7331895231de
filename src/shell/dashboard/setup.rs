//! Finds the state of the installation, with the rights of the visitor.

use kube::api::ListParams;
use maud::Markup;
use tokio::time::Instant;

use super::{
    refusal::Refusal,
    visitor::{KEPT, Visitor},
};
use crate::{
    api::{
        action::Verb,
        status::{ConditionType, VerdictCode},
    },
    dashboard::setup::{Finding, Known, setup},
    shell::{
        api_server::{
            ClusterError,
            person::{Person, Resource},
        },
        lock::lock,
    },
    snapshot::Kind,
    view::{State, Typed, View},
};

/// The policy of `kustomize/actions`.
const POLICIES: Resource = Resource {
    group: "admissionregistration.k8s.io",
    version: "v1",
    plural: "validatingadmissionpolicies",
};
/// The binding of the policy.
const BINDINGS: Resource = Resource {
    group: "admissionregistration.k8s.io",
    version: "v1",
    plural: "validatingadmissionpolicybindings",
};
/// A finding names at most this many canaries.
const NAMED: usize = 5;

/// The page of the installation. `views`: the canaries that the visitor may list. An open page follows them; the API server is asked for the
/// rest once a minute.
pub async fn page(visitor: &Visitor, views: &[&View], typed: &Typed) -> Result<Markup, Refusal> {
    let known = lock(&visitor.installation).clone();
    let asked = match known.filter(|(read, _)| read.elapsed() < KEPT) {
        Some((_, findings)) => findings,
        None => {
            let (records, policy, rights) = tokio::join!(
                records(&visitor.person, &typed.kubectl),
                policy(&visitor.person, &typed.kubectl),
                rights(visitor, &typed.kubectl)
            );
            let findings = vec![records, policy, rights?];
            *lock(&visitor.installation) = Some((Instant::now(), findings.clone()));
            findings
        }
    };
    let seen = [
        version(),
        operator(views, typed),
        servers(views),
        writes(views),
    ];
    Ok(setup(&[&seen[..], &asked].concat()))
}

fn finding(subject: &str, state: Known, text: String, command: Option<String>) -> Finding {
    Finding {
        subject: subject.to_owned(),
        state,
        text,
        command,
    }
}

fn version() -> Finding {
    let text = format!(
        "This dashboard is flagger-rs {}.",
        env!("CARGO_PKG_VERSION")
    );
    finding("Version", Known::Good, text, None)
}

/// The names of some canaries.
fn names<'a>(views: impl Iterator<Item = &'a &'a View>) -> (usize, String) {
    let all: Vec<String> = views.map(|view| view.full_name()).collect();
    let more = if all.len() > NAMED { ", …" } else { "" };
    let first: Vec<_> = all.iter().take(NAMED).map(String::as_str).collect();
    (all.len(), format!("{}{more}", first.join(", ")))
}

fn operator(views: &[&View], typed: &Typed) -> Finding {
    let of = |state, text: String| finding("Operator", state, text, None);
    if views.is_empty() {
        let text = "There are no canaries that you may list.";
        return of(Known::Note, text.to_owned());
    }
    let is_silent = |view: &&&View| view.silent_since.is_some();
    let (new, names_of_new) = names(views.iter().filter(|view| view.state == State::New));
    let (silent, names_of_silent) = names(views.iter().filter(is_silent));
    let mut problems = Vec::new();
    if new > 0 {
        problems.push(format!(
            "No operator has handled {new} canaries: {names_of_new}."
        ));
    }
    if silent > 0 {
        problems.push(format!("The next step of {silent} canaries is overdue, and there is no sign of the operator: {names_of_silent}."));
    }
    if !problems.is_empty() {
        let command = Some(typed.operator_pods());
        return finding("Operator", Known::Bad, problems.join(" "), command);
    }
    let handled = format!(
        "An operator has handled all {} canaries that you may list",
        views.len()
    );
    if views.iter().any(|view| view.expected.is_some()) {
        let text = format!("{handled}, and the next step of no run is overdue.");
        return of(Known::Good, text);
    }
    // An operator writes nothing between runs.
    let text = format!(
        "{handled}. None of them takes steps now, so that they do not show whether it still runs."
    );
    finding("Operator", Known::Note, text, Some(typed.operator_pods()))
}

/// The metric servers as the last checks saw them: this process does not reach them.
fn servers(views: &[&View]) -> Finding {
    let codes = [
        VerdictCode::ProviderError,
        VerdictCode::NoData,
        VerdictCode::Stale,
    ];
    let codes = codes.map(VerdictCode::as_str);
    let is_silent = |view: &&&View| codes.contains(&view.code.as_str());
    let (count, names) = names(views.iter().filter(is_silent));
    if count == 0 {
        let text = "No canary reports a metric server that gives no values.".to_owned();
        return finding("Metric servers", Known::Good, text, None);
    }
    let text = format!(
        "The metric servers of {count} canaries gave no values at their last check: {names}"
    );
    finding("Metric servers", Known::Bad, text, None)
}

fn writes(views: &[&View]) -> Finding {
    let (subject, code) = ("Rights of the operator", ConditionType::WriteRefused);
    let (count, names) = names(views.iter().filter(|view| view.code == code.as_str()));
    if count == 0 {
        let text = "The API server refuses no write of the operator.".to_owned();
        return finding(subject, Known::Good, text, None);
    }
    let text =
        format!("The API server refuses writes of the operator for {count} canaries: {names}");
    finding(subject, Known::Bad, text, Some("flagger check".to_owned()))
}

async fn records(person: &Person, kubectl: &str) -> Finding {
    let params = ListParams::default().limit(1);
    let listed = person
        .page(Resource::of(Kind::Release), None, &params)
        .await;
    let (state, text, command) = match listed.map_err(|error| error.code()) {
        Ok(_) => (Known::Good, "The kind Release is installed.", None),
        Err(Some(404)) => (
            Known::Bad,
            "The kind Release is not installed, so no release is recorded.",
            Some(format!("flagger crds | {kubectl} apply --server-side -f -")),
        ),
        Err(_) => (
            Known::Hidden,
            "You may not list the records of all namespaces.",
            None,
        ),
    };
    finding("Records of releases", state, text.to_owned(), command)
}

/// Whether an object of this name exists.
async fn exists(person: &Person, resource: Resource, name: &str) -> Result<bool, ClusterError> {
    let params = ListParams::default()
        .fields(&format!("metadata.name={name}"))
        .limit(1);
    let (items, _) = person.page(resource, None, &params).await?;
    Ok(!items.is_empty())
}

async fn policy(person: &Person, kubectl: &str) -> Finding {
    let subject = "Policy for actions";
    let name = "flagger-actions";
    let found = tokio::join!(
        exists(person, POLICIES, name),
        exists(person, BINDINGS, name)
    );
    match found {
        (Ok(true), Ok(true)) => {
            let text = "The API server checks the author, the verb and the reason of each action.";
            finding(subject, Known::Good, text.to_owned(), None)
        }
        (Ok(_), Ok(_)) => {
            let text = "Without the policy, everybody who may patch a Canary may use every action, in any name.";
            let command = format!("{kubectl} apply -k kustomize/actions");
            finding(subject, Known::Note, text.to_owned(), Some(command))
        }
        _ => finding(
            subject,
            Known::Hidden,
            "You may not list the policies.".to_owned(),
            None,
        ),
    }
}

async fn rights(visitor: &Visitor, kubectl: &str) -> Result<Finding, Refusal> {
    let subject = "Your rights";
    let may = visitor.actions_on(None, &Verb::ALL).await?;
    let command = format!("{kubectl} auth can-i --list");
    if may.is_empty() {
        let text = "You have no actions in all namespaces; the page of each canary shows those that you have there.";
        return Ok(finding(
            subject,
            Known::Note,
            text.to_owned(),
            Some(command),
        ));
    }
    let verbs: Vec<_> = may.iter().map(|verb| verb.as_str()).collect();
    let text = format!("In all namespaces you may {}.", verbs.join(", "));
    Ok(finding(subject, Known::Good, text, Some(command)))
}
