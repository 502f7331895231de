//! Only `shell/api_server` has the client of the API server, so that all requests go through it.

use super::{paths::Uses, source::Source};

const CLIENT: [&str; 2] = ["kube", "Client"];
const OWNER: &str = "shell/api_server/";

fn offences(source: &Source) -> Vec<(String, String)> {
    if source.file.starts_with(OWNER) {
        return Vec::new();
    }
    let uses = Uses::of(source);
    // `kube::client::Client` is the same type.
    let is_client = |path: &[String]| {
        path.first().is_some_and(|first| first == CLIENT[0])
            && path.iter().any(|name| name == CLIENT[1])
    };
    let found = uses.paths.iter().filter(|used| is_client(&used.path));
    found
        .map(|used| {
            let text = format!(
                "src/{}:{}: {} belongs in src/{OWNER}",
                source.file,
                used.line,
                used.path.join("::")
            );
            (source.file.clone(), text)
        })
        .collect()
}

#[test]
fn only_the_folder_for_requests_has_the_client() {
    let sources = super::source::all();
    super::assert_none(sources.iter().flat_map(offences).collect(), &[]);
}

#[test]
fn the_client_by_any_spelling_is_an_offence() {
    let offends = |file: &str, text: &str| !offences(&Source::parse(file, text)).is_empty();
    for text in [
        "use kube::Client;",
        "use kube::{Api, Client as C};",
        "fn a(client: &kube::client::Client) {}",
        "use kube as k; fn a(client: k::Client) {}",
    ] {
        assert!(offends("shell/controller/mod.rs", text), "{text}");
        assert!(!offends("shell/api_server/lease.rs", text), "{text}");
    }
    assert!(!offends(
        "shell/mod.rs",
        "use reqwest::Client; use kube::Api;"
    ));
}
