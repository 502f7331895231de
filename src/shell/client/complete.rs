//! Answers a shell that completes a command.

use std::time::Duration;

use kube::{api::ListParams, config::Kubeconfig};
use serde_json::Value;
use tokio::time::timeout;

use super::{output::print, trouble::Stop};
use crate::{
    cli::client::{
        Color, Reach,
        complete::{Candidates, candidates, directive, namespace, value_of},
    },
    shell::api_server::{
        ClusterError,
        person::{NAMESPACES, Person, Resource},
    },
    snapshot::Kind,
    view::text::clean,
};

/// The longest time for which a person who presses Tab waits for an answer of the API server.
const PATIENCE: Duration = Duration::from_secs(3);

/// When to use colors, from words that are not parsed yet.
pub fn color_of(args: &[String]) -> Color {
    match value_of(args, &["--color"]).as_deref() {
        Some("always") => Color::Always,
        Some("never") => Color::Never,
        _ => Color::Auto,
    }
}

/// Prints the candidates, one on each line with a remark. The last line is an instruction for the shell, as in kubectl's completion.
pub async fn answer(words: &[String]) -> Result<(), Stop> {
    let found = candidates(words);
    let named = |names: Vec<String>| {
        names
            .into_iter()
            .map(|name| (name, String::new()))
            .collect()
    };
    let candidates = match &found {
        Candidates::Words(words) => words.clone(),
        Candidates::Files => Vec::new(),
        Candidates::Contexts => named(contexts(words)),
        Candidates::Canaries | Candidates::Releases(_) | Candidates::Namespaces => {
            let names = timeout(PATIENCE, names(words, &found)).await;
            named(names.unwrap_or_default())
        }
    };
    let mut answer = String::new();
    for (word, remark) in candidates {
        answer.push_str(&word);
        if !remark.is_empty() {
            answer.push('\t');
            answer.push_str(&remark);
        }
        answer.push('\n');
    }
    print(&format!("{answer}:{}\n", directive(&found)))
}

fn contexts(words: &[String]) -> Vec<String> {
    let kubeconfig = match value_of(words, &["--kubeconfig"]) {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let contexts = kubeconfig
        .map(|kubeconfig| kubeconfig.contexts)
        .unwrap_or_default();
    contexts
        .into_iter()
        .map(|context| clean(&context.name))
        .collect()
}

/// The records of a canary's releases.
async fn releases_of(person: &Person, canary: &str) -> Result<Vec<Value>, ClusterError> {
    let releases = Resource::of(Kind::Release);
    let params = ListParams::default();
    let listed = person
        .list(releases, Some(person.namespace()), params)
        .await?;
    let is_of =
        |release: &Value| release.pointer("/spec/canary").and_then(Value::as_str) == Some(canary);
    Ok(listed.into_iter().filter(is_of).collect())
}

/// The names of canaries, of records or of namespaces; none if they cannot be listed.
async fn names(words: &[String], of: &Candidates) -> Vec<String> {
    let reach = Reach {
        namespace: namespace(words),
        context: value_of(words, &["--context"]),
        kubeconfig: value_of(words, &["--kubeconfig"]),
        as_user: value_of(words, &["--as"]),
        ..Reach::default()
    };
    let Ok(person) = Person::connect(&reach).await else {
        return Vec::new();
    };
    let listed = match of {
        Candidates::Namespaces => person.list(NAMESPACES, None, ListParams::default()).await,
        Candidates::Releases(canary) => releases_of(&person, canary).await,
        _ => {
            let canaries = Resource::of(Kind::Canary);
            person
                .list(canaries, Some(person.namespace()), ListParams::default())
                .await
        }
    };
    let name = |object: Value| {
        object
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .map(clean)
    };
    listed
        .unwrap_or_default()
        .into_iter()
        .filter_map(name)
        .collect()
}
