//! Only the shells and the binaries do I/O, read the clock or the environment, or are async. All other code computes with values.

use super::{
    paths::{Form, Uses},
    source::Source,
};

/// The crates that code without I/O may use. Before another crate is used there, add it to this list.
const PURE_CRATES: [&str; 29] = [
    "alloc",
    "aws_lc_rs",
    "base64",
    "clap",
    "core",
    "crate",
    "flate2",
    "gtmpl_ng",
    "http",
    "jiff",
    "json_patch",
    "k8s_openapi",
    "kube",
    "maud",
    "percent_encoding",
    "rand",
    "rand_distr",
    "regex",
    "schemars",
    "rustfmt",
    "serde",
    "serde_json",
    "serde_saphyr",
    "sha2",
    "similar",
    "std",
    "thiserror",
    "unicode_width",
    "url",
];

/// The paths in those crates that do I/O, or read the clock or the environment.
const IMPURE: [&str; 15] = [
    "jiff::Timestamp::now",
    "rand::rng",
    "rand::random",
    "jiff::Zoned::now",
    "jiff::tz::TimeZone::system",
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::sync::mpsc",
];

/// The only names of `kube` that are about types, not about requests.
const PURE_KUBE: [&str; 4] = [
    "CustomResource",
    "CustomResourceExt",
    "Resource",
    "ResourceExt",
];

/// The macros that write to the terminal.
const IMPURE_MACROS: [&str; 5] = ["dbg", "eprint", "eprintln", "print", "println"];

fn offences(source: &Source) -> Vec<(String, String)> {
    if source.is_shell() {
        return Vec::new();
    }
    let uses = Uses::of(source);
    let paths = uses.paths.iter().filter_map(|used| {
        let why = objection(&used.path, used.form)?;
        Some((used.line, format!("{} {why}", used.path.join("::"))))
    });
    let asyncs = uses
        .asyncs
        .iter()
        .map(|found| (found.line, format!("{} belongs in a shell", found.what)));
    let macros = uses
        .macros
        .iter()
        .filter(|(_, name)| IMPURE_MACROS.contains(&name.as_str()));
    let macros = macros.map(|(line, name)| (*line, format!("{name}! belongs in a shell")));
    let all = paths.chain(asyncs).chain(macros);
    all.map(|(line, text)| {
        (
            source.file.clone(),
            format!("src/{}:{line}: {text}", source.file),
        )
    })
    .collect()
}

fn objection(path: &[String], form: Form) -> Option<&'static str> {
    let name = path.first()?;
    if !PURE_CRATES.contains(&name.as_str()) {
        return Some("is of a crate that is not in the list of crates without I/O");
    }
    if name == "kube"
        && !path
            .get(1)
            .is_some_and(|name| PURE_KUBE.contains(&name.as_str()))
    {
        return Some("is of the client of Kubernetes and belongs in a shell");
    }
    let is_impure = IMPURE.iter().any(|impure| {
        let impure: Vec<_> = impure.split("::").collect();
        let brings_in = form == Form::Glob && starts_with(&impure, path);
        let is_in = path.len() >= impure.len() && path.iter().zip(&impure).all(|(a, b)| a == b);
        brings_in || is_in
    });
    is_impure.then_some("belongs in a shell")
}

fn starts_with(path: &[&str], prefix: &[String]) -> bool {
    path.len() >= prefix.len() && path.iter().zip(prefix).all(|(a, b)| a == b)
}

#[test]
fn only_the_shells_and_the_binaries_do_io() {
    let sources = super::source::all();
    super::assert_none(sources.iter().flat_map(offences).collect(), &[]);
}

#[cfg(test)]
mod tests {
    use super::{Source, offences};

    fn offends(text: &str) -> bool {
        !offences(&Source::parse("rollout/mod.rs", text)).is_empty()
    }

    #[test]
    fn io_by_any_spelling_is_an_offence() {
        for text in [
            "use std::{fs, env};",
            "use std::fs as files;",
            "use std as s; fn a() { s::fs::read(1) }",
            "use std::*;",
            "use std::{collections::BTreeMap, io::{self}};",
            "fn a() { ::std::fs::read(1) }",
            "fn a() { std::env::var(\"A\") }",
            "fn a() { if b() { use std::process::Command; } }",
            "mod inner { use std::net::*; }",
        ] {
            assert!(offends(text), "{text}");
        }
    }

    #[test]
    fn clocks_are_an_offence() {
        for text in [
            "use jiff::Timestamp; fn a() { Timestamp::now() }",
            "use jiff::Timestamp as T; const A: fn() = T::now;",
            "fn a() { assert!(b < jiff::Timestamp::now()) }",
            "use std::time::{Duration, Instant};",
        ] {
            assert!(offends(text), "{text}");
        }
        assert!(!offends(
            "use std::time::Duration; use jiff::Timestamp; fn a() { Timestamp::UNIX_EPOCH }"
        ));
    }

    #[test]
    fn async_code_is_an_offence() {
        for text in [
            "fn a() { tokio::spawn(b) }",
            "async fn a() {}",
            "trait A { async fn a(); }",
            "fn a() { let b = async { 1 }; }",
            "fn a() { vec![async { 1 }] }",
            "fn a() { let b = async || 1; }",
        ] {
            assert!(offends(text), "{text}");
        }
    }

    #[test]
    fn clients_and_output_are_an_offence() {
        for text in [
            "use kube::{Api, ResourceExt};",
            "use kube::*;",
            "fn a(b: &reqwest::Client) {}",
            "use axum::Router;",
            "fn a() { println!(\"b\") }",
        ] {
            assert!(offends(text), "{text}");
        }
        assert!(!offends("use kube::{CustomResource, ResourceExt};"));
    }

    #[test]
    fn the_shells_may_do_io() {
        for file in [
            "shell/clock.rs",
            "loadtester/shell/mod.rs",
            "main.rs",
            "bin/loadtester.rs",
        ] {
            assert!(
                offences(&Source::parse(file, "use std::fs;")).is_empty(),
                "{file}"
            );
        }
        assert!(!offences(&Source::parse("loadtester/task.rs", "use std::fs;")).is_empty());
    }
}
