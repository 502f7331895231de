//! `lint`: reads manifests from files, folders or stdin, and prints the findings. Needs no cluster.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::json;

use super::{
    output::{Output, print, remark, text_width, unless_closed},
    trouble::Stop,
};
use crate::{
    api::canary::Canary,
    cli::{
        self, Command, Config,
        client::{Code, Format, Lint},
    },
    lint::{Finding, Level, Report, lint},
    rollout::spec_problem,
    shell::{client::list::yaml, controller::observe::empty_snapshot},
    snapshot::{Kind, ObjectRef, Settings},
    view::{
        API_VERSION,
        render::{Line, Style},
        text::clean,
    },
};

/// The file extensions of manifests.
const MANIFESTS: [&str; 3] = ["yaml", "yml", "json"];

/// Checks manifests.
pub fn run(output: Output, args: &Lint) -> Result<Code, Stop> {
    let files = read(&args.filename)?;
    let flag = format!("-mesh-provider={}", args.mesh_provider);
    let settings = Arc::new(operator(vec![flag])?.settings);
    let refusal = |canary: &Canary| refusal(canary, &settings);
    let texts = files
        .iter()
        .map(|(file, text)| (file.as_str(), text.as_str()));
    let report = lint(texts, &refusal);
    unless_closed(show(output, args.output, &report))?;
    Ok(if report.count(Level::Error) > 0 {
        Code::No
    } else {
        Code::Yes
    })
}

/// The configuration of an operator with these flags.
pub fn operator(flags: Vec<String>) -> Result<Config, Stop> {
    match cli::parse(flags, |_| None) {
        Ok(Command::Run(config)) => Ok(*config),
        Ok(Command::Crds | Command::Check(..)) => Err(Stop::because(
            Code::Usage,
            "flags of the operator are needed, not a command",
        )),
        Err(exit) => Err(Stop::because(Code::Usage, exit.text)),
    }
}

/// The reason why the operator would not run a Canary.
fn refusal(canary: &Canary, settings: &Arc<Settings>) -> Option<String> {
    let reference = ObjectRef {
        kind: Kind::Canary,
        namespace: canary.metadata.namespace.clone().unwrap_or_default(),
        name: canary.metadata.name.clone().unwrap_or_default(),
    };
    spec_problem(&empty_snapshot(canary.clone(), &reference, settings))
}

/// The files and their texts. `-` is stdin.
pub fn read(names: &[String]) -> Result<Vec<(String, String)>, Stop> {
    let mut all = Vec::new();
    for name in names {
        let failed = |error: io::Error| {
            Stop::because(Code::Usage, format!("{name} cannot be read: {error}"))
        };
        if name == "-" {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map_err(failed)?;
            all.push(("stdin".to_owned(), text));
            continue;
        }
        for path in manifests(Path::new(name)).map_err(failed)? {
            let text = fs::read_to_string(&path).map_err(failed)?;
            all.push((path.display().to_string(), text));
        }
    }
    Ok(all)
}

/// A file, or all manifests in a folder and its subfolders.
fn manifests(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let extension = path.extension().and_then(|extension| extension.to_str());
        if kind.is_dir() {
            found.extend(manifests(&path)?);
        } else if extension.is_some_and(|extension| MANIFESTS.contains(&extension)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn show(output: Output, format: Format, report: &Report) -> Result<(), Stop> {
    let (errors, warnings) = (report.count(Level::Error), report.count(Level::Warning));
    let value = || {
        json!({"apiVersion": API_VERSION, "kind": "LintReport", "findings": report.findings, "objects": report.objects,
            "errors": errors, "warnings": warnings})
    };
    match format {
        Format::Json => print(&format!("{:#}\n", value())),
        Format::Yaml => print(&yaml(&value())),
        Format::Table | Format::Wide | Format::Name => {
            let lines = report.findings.iter().map(line);
            let lines: Vec<_> = lines
                .flat_map(|line| line.wrapped(text_width(), 4))
                .collect();
            output.lines(&lines)?;
            remark(&format!(
                "objects: {}, errors: {errors}, warnings: {warnings}",
                report.objects
            ));
            Ok(())
        }
    }
}

fn line(finding: &Finding) -> Line {
    let style = match finding.level {
        Level::Error => Style::Bad,
        Level::Warning => Style::Warn,
    };
    let object = if finding.object.is_empty() {
        String::new()
    } else {
        format!(" {}:", clean(&finding.object))
    };
    let place = if finding.field.is_empty() {
        String::new()
    } else {
        format!(" {}:", clean(&finding.field))
    };
    let file = if finding.file.is_empty() {
        String::new()
    } else {
        format!("{}:{object} ", clean(&finding.file))
    };
    Line::plain(file).and(style, finding.level.as_str()).and(
        Style::Plain,
        format!(":{place} {}", clean(&finding.message)),
    )
}
