//! `deploy/REFERENCE.md` is generated from the code: flags, metrics, providers and fields, as this version has them.
//!
//! After a change of one of them, write it anew:
//!
//! ```text
//! UPDATE_REFERENCE=1 cargo test --test repository reference
//! ```

use std::{collections::BTreeSet, fmt::Write as _, fs};

use flagger_rs::{
    api::{self, status::VerdictCode},
    cli::{
        self, FlagSpec,
        client::{self, Program},
    },
    loadtester,
    metrics::identity::environment::VARIABLES,
    notifications::chats,
    providers::{PROVIDERS, Provider, Support},
    shell::telemetry::{self, Metric},
};
use serde_json::Value;

use crate::{files, routers};

const FILE: &str = "deploy/REFERENCE.md";
const UPDATE: &str = "UPDATE_REFERENCE=1 cargo test --test repository reference";

#[test]
fn the_reference_is_generated_from_the_code() {
    let generated = reference();
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write(files::path(FILE), &generated).unwrap();
    }
    let file = fs::read_to_string(files::path(FILE)).unwrap_or_default();
    assert!(file == generated, "{FILE} is stale: {UPDATE}");
}

/// The text of the reference.
pub fn reference() -> String {
    let head = format!(
        "# Reference\n\nGenerated from the code, for this version. Do not edit it; after a change of the code run `{UPDATE}`.\n\n\
         [Commands](#commands) · [verbs](#verbs-of-the-command-line) · [flags of the operator](#flags-of-the-operator) · [flags of the load tester](#flags-of-the-load-tester) · \
         [metrics](#metrics-of-the-operator) · [routers](#routers) · [metric providers](#metric-providers) · \
         [chat services](#chat-services) · fields of [Canary](#canary), [MetricTemplate](#metrictemplate), [AlertProvider](#alertprovider), \
         [Release](#release) · [codes of `Verdict`](#codes-of-verdict)\n\n"
    );
    [
        head,
        commands(),
        verbs(),
        operator_flags(),
        loadtester_flags(),
        metrics(),
        routers(),
        metric_servers(),
        chat_services(),
        fields(),
        verdict_codes(),
    ]
    .concat()
}

/// A section with a sentence and a table.
fn section(title: &str, sentence: &str, columns: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("## {title}\n\n");
    if !sentence.is_empty() {
        let _ = writeln!(text, "{sentence}\n");
    }
    let _ = writeln!(text, "| {} |", columns.join(" | "));
    let _ = writeln!(text, "|{}", " --- |".repeat(columns.len()));
    for row in rows {
        let cells: Vec<_> = row.iter().map(|cell| one_line(cell)).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text.push('\n');
    text
}

/// A text as a cell of a table.
fn one_line(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").replace('|', "\\|")
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

/// Names as code, with commas.
fn codes<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.into_iter().map(code).collect();
    names.join(", ")
}

fn commands() -> String {
    let rows = [
        ("flagger", "runs the operator"),
        (
            "flagger check",
            "prints the next action for each canary, and missing rights; writes nothing. `-o json` is for scripts",
        ),
        ("flagger crds", "prints the CRDs"),
        (
            "flagger VERB, kubectl flagger VERB",
            "watches and steers releases: [the verbs](#verbs-of-the-command-line)",
        ),
        ("flagger -version", "prints the version"),
        ("flagger -h", "prints the flags"),
    ];
    let rows = rows.map(|(command, effect)| vec![code(command), effect.to_owned()]);
    section("Commands", "", &["command", "effect"], &rows)
}

fn verbs() -> String {
    let all = client::command(Program::Flagger);
    let own = |verb: &clap::Command| {
        let flags = verb.get_arguments().filter(|flag| !flag.is_positional());
        let names = flags.filter_map(|flag| Some(format!("--{}", flag.get_long()?)));
        names.collect::<Vec<_>>()
    };
    let row = |verb: &clap::Command| {
        let about = verb.get_about().map(ToString::to_string);
        let operand = verb.get_positionals().next();
        let operand = operand.map(|name| format!(" {}", name.get_id().as_str().to_uppercase()));
        let flags = own(verb);
        vec![
            code(&format!(
                "{}{}",
                verb.get_name(),
                operand.unwrap_or_default()
            )),
            about.unwrap_or_default(),
            codes(flags.iter().map(String::as_str)),
        ]
    };
    let verbs = all.get_subcommands().filter(|verb| !verb.is_hide_set());
    let rows: Vec<_> = verbs.map(row).collect();
    let common = own(&all);
    let sentence = format!(
        "`flagger VERB --help` has the details. All verbs take {}. {}",
        codes(common.iter().map(String::as_str)),
        client::CODES
    );
    section(
        "Verbs of the command line",
        &sentence,
        &["verb", "effect", "flags"],
        &rows,
    )
}

fn operator_flags() -> String {
    let row = |flag: &FlagSpec| {
        vec![
            code(&format!("-{}", flag.name)),
            codes(flag.env),
            codes(Some(flag.default).filter(|default| !default.is_empty())),
            flag.help().into_owned(),
        ]
    };
    let rows: Vec<_> = cli::FLAGS.iter().map(row).collect();
    section(
        "Flags of the operator",
        "In Go's syntax: one or two dashes, and `=` or a space before the value. An environment variable wins over its flag.",
        &["flag", "environment variable", "default", "purpose"],
        &rows,
    )
}

fn loadtester_flags() -> String {
    let row = |(name, default, purpose): &(&str, &str, &str)| {
        vec![
            code(&format!("-{name}")),
            codes(Some(*default).filter(|default| !default.is_empty())),
            (*purpose).to_owned(),
        ]
    };
    let rows: Vec<_> = loadtester::args::FLAGS.iter().map(row).collect();
    let sentence = format!(
        "If the environment variable {} is set, callers must know this token.",
        code(loadtester::args::TOKEN)
    );
    section(
        "Flags of the load tester",
        &sentence,
        &["flag", "default", "purpose"],
        &rows,
    )
}

fn metrics() -> String {
    let row = |metric: &Metric| {
        vec![
            code(metric.name),
            metric.kind.to_string(),
            codes(metric.labels.iter().copied()),
            metric.help.to_owned(),
        ]
    };
    let rows: Vec<_> = telemetry::exported_metrics().map(row).collect();
    section(
        "Metrics of the operator",
        "At `/metrics` of the port `-port`. `flagger_*` are Flagger's; `flagger_rs_*` are about the operator itself.",
        &["metric", "type", "labels", "meaning"],
        &rows,
    )
}

fn routers() -> String {
    let canary = routers::canary();
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let row = |provider: &Provider| {
        let cells = match provider.router {
            Support::Istio => return None,
            Support::Own(router) => {
                let objects = router.objects(&canary);
                let kinds: BTreeSet<_> = objects.iter().map(|object| object.kind.name()).collect();
                let queries = match provider.queries {
                    Support::Own(_) => "yes",
                    Support::Istio => "Istio's",
                };
                [
                    codes(kinds),
                    yes(router.splits_traffic()),
                    yes(router.mirrors()),
                    queries.to_owned(),
                ]
            }
        };
        Some([vec![code(provider.name())], cells.to_vec()].concat())
    };
    let rows: Vec<_> = PROVIDERS.iter().filter_map(row).collect();
    section(
        "Routers",
        "The flag `-mesh-provider` names the router of all canaries, `spec.provider` that of one. An unknown name means `istio`, as in Flagger.",
        &[
            "provider",
            "route objects",
            "splits traffic",
            "mirrors requests",
            "built-in metrics",
        ],
        &rows,
    )
}

/// The `type`s that a CRD accepts at this path of its spec.
fn accepted_types(kind: &str, path: &str) -> Vec<String> {
    let crds = api::crds();
    let crd = crds.iter().find(|crd| crd["spec"]["names"]["kind"] == kind);
    let schema = crd.and_then(|crd| {
        crd.pointer(&format!(
            "/spec/versions/0/schema/openAPIV3Schema/properties/spec/{path}/enum"
        ))
    });
    serde_json::from_value(schema.unwrap().clone()).unwrap()
}

fn metric_servers() -> String {
    let types = accepted_types("MetricTemplate", "properties/provider/properties/type");
    let row = |name: &String| vec![code(name), example("metrics", name)];
    let rows: Vec<_> = types.iter().map(row).collect();
    let text = format!(
        "A MetricTemplate names one in `spec.provider.type`. At a cloud, the identity of the operator's own pod is found by these variables of \
         its environment: {}.",
        codes(VARIABLES)
    );
    section("Metric providers", &text, &["type", "example"], &rows)
}

fn chat_services() -> String {
    let rows: Vec<_> = chats::names()
        .map(|name| vec![code(name), example("alerts", name)])
        .collect();
    section(
        "Chat services",
        "An AlertProvider names one in `spec.type`. Without alerts of its own a Canary reports to the chat of the flags `-slack-url` or `-msteams-url`.",
        &["type", "example"],
        &rows,
    )
}

/// A link to the example with an object of this type.
fn example(folder: &str, type_: &str) -> String {
    let folder = format!("examples/{folder}");
    let mut entries: Vec<_> = fs::read_dir(files::path(&folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    let has = |path: &std::path::PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        text.lines()
            .any(|line| line.trim() == format!("type: {type_}"))
    };
    let found = entries.into_iter().find(has);
    found.map_or_else(String::new, |path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        format!("[{folder}/{name}](../{folder}/{name})")
    })
}

fn fields() -> String {
    let sections = ["Canary", "MetricTemplate", "AlertProvider", "Release"].map(|kind| {
        let crds = api::crds();
        let crd = crds.iter().find(|crd| crd["spec"]["names"]["kind"] == kind);
        let schema = &crd.unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut rows = Vec::new();
        add_fields("", schema, &mut rows);
        let sentence = match kind {
            "Canary" => {
                "The same as `kubectl explain canary.spec --recursive`. `[]` is a list, `*` any key."
            }
            "Release" => "The record of a run. Only the operator writes it.",
            _ => "",
        };
        section(kind, sentence, &["field", "type", "meaning"], &rows)
    });
    sections.concat()
}

/// The codes of the condition `Verdict`, with their doc comments.
fn verdict_codes() -> String {
    let source = fs::read_to_string(files::path("src/api/status.rs")).unwrap();
    let file = syn::parse_file(&source).unwrap();
    let codes = file.items.iter().find_map(|item| match item {
        syn::Item::Enum(item) if item.ident == "VerdictCode" => Some(item),
        _ => None,
    });
    let rows: Vec<_> = codes
        .unwrap()
        .variants
        .iter()
        .map(|variant| {
            vec![
                code(&variant.ident.to_string()),
                doc_comment(&variant.attrs),
            ]
        })
        .collect();
    let names: Vec<_> = rows.iter().map(|row| row[0].clone()).collect();
    assert_eq!(names, VerdictCode::ALL.map(|it| code(it.as_str())));
    let text = section(
        "Codes of Verdict",
        "The `reason` of the condition `Verdict`, and `spec.cause.code` of a Release.",
        &["code", "meaning"],
        &rows,
    );
    text.trim_end().to_owned() + "\n"
}

fn doc_comment(attributes: &[syn::Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| {
        let syn::Meta::NameValue(pair) = &attribute.meta else {
            return None;
        };
        match &pair.value {
            syn::Expr::Lit(syn::ExprLit {
                lit: syn::Lit::Str(text),
                ..
            }) if pair.path.is_ident("doc") => Some(text.value()),
            _ => None,
        }
    });
    lines.collect::<Vec<_>>().concat().trim().to_owned()
}

/// Adds the fields of a schema. Each field comes before its inner fields.
fn add_fields(at: &str, schema: &Value, rows: &mut Vec<Vec<String>>) {
    let required = |name: &str| {
        let names = schema["required"].as_array();
        names.is_some_and(|names| names.iter().any(|required| required == name))
    };
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        if at.is_empty() && !["spec", "status"].contains(&name.as_str()) {
            continue;
        }
        let path = if at.is_empty() {
            name.clone()
        } else {
            format!("{at}.{name}")
        };
        add_field(&path, field, required(name), rows);
    }
}

fn add_field(path: &str, field: &Value, required: bool, rows: &mut Vec<Vec<String>>) {
    let mut type_ = field["type"].as_str().unwrap_or("any").to_owned();
    if field["x-kubernetes-int-or-string"] == true {
        "integer or string".clone_into(&mut type_);
    }
    if required {
        type_.push_str(", required");
    }
    let mut meaning = field["description"].as_str().unwrap_or_default().to_owned();
    let values = field["enum"].as_array().into_iter().flatten();
    let values: Vec<_> = values
        .filter_map(Value::as_str)
        .filter(|value| !value.is_empty())
        .collect();
    match values.as_slice() {
        [] => {}
        [only] => drop(write!(meaning, " Always `{only}`.")),
        several => drop(write!(
            meaning,
            " One of {}.",
            codes(several.iter().copied())
        )),
    }
    rows.push(vec![code(path), type_, meaning]);
    add_fields(path, field, rows);
    for (inner, suffix) in [
        (&field["items"], "[]"),
        (&field["additionalProperties"], ".*"),
    ] {
        if inner["properties"].is_object() {
            add_fields(&format!("{path}{suffix}"), inner, rows);
        }
    }
}
