//! `explain` and `history`: the records of a canary's runs.

use std::cmp::Reverse;

use kube::api::ListParams;
use serde_json::{Value, json};

use super::{
    list::yaml,
    output::{print, remark, unless_closed},
    read::{Context, now},
    trouble::Stop,
};
use crate::{
    api::{
        release::{CANARY_UID, Release},
        status::ConditionType,
    },
    cli::client::{Code, Explain, Format},
    records,
    shell::api_server::person::Resource,
    snapshot::Kind,
    view::{
        Condition, Seen, View,
        render::{Table, history_head, history_row},
    },
};

/// Lists the recorded releases of a canary, newest first.
pub async fn history(context: &Context, name: &str) -> Result<Code, Stop> {
    let canary = context.canary(name).await?;
    let releases = context.releases(name, &canary).await?;
    if releases.is_empty() {
        remark(&context.no_record(name));
        return Ok(Code::Yes);
    }
    let rows = releases.iter().map(|release| history_row(release, now()));
    let rows: Vec<_> = std::iter::once(history_head()).chain(rows).collect();
    unless_closed(context.output.lines(&Table::default().lines(&rows)))?;
    Ok(Code::Yes)
}

/// Explains the last release of a canary, or the one of this name.
pub async fn explain(context: &Context, args: &Explain) -> Result<Code, Stop> {
    let canary = context.canary(&args.name).await?;
    let releases = context.releases(&args.name, &canary).await?;
    let found = match &args.release {
        Some(name) => releases
            .iter()
            .find(|release| release.metadata.name.as_ref() == Some(name)),
        None => releases.first(),
    };
    let text = match (found, &args.release) {
        (Some(release), _) => match args.output {
            Format::Json | Format::Yaml => value(args.output, &records::decoded(release)),
            Format::Name => format!(
                "release.flagger-rs.github.io/{}\n",
                release.metadata.name.as_deref().unwrap_or_default()
            ),
            Format::Table | Format::Wide => records::explain(&release.spec),
        },
        (None, Some(release)) => return Err(context.no_release(&args.name, release)),
        (None, None) => {
            remark(&context.no_record(&args.name));
            without_record(args, canary)
        }
    };
    unless_closed(print(&text))?;
    Ok(Code::Yes)
}

fn value(format: Format, value: &Value) -> String {
    match format {
        Format::Yaml => yaml(value),
        _ => format!("{value:#}\n"),
    }
}

/// The sentence of the condition `Verdict`, for a run that has no record.
fn without_record(args: &Explain, canary: Value) -> String {
    let seen = Seen {
        canary,
        ..Seen::default()
    };
    let view = View::of(&seen, now());
    let mut conditions = view.conditions.iter();
    let verdict = conditions.find(|condition| condition.type_ == ConditionType::Verdict.as_str());
    match args.output {
        Format::Json | Format::Yaml => {
            let cause = |it: &Condition| json!({"code": it.reason, "sentence": it.message});
            let record = json!({"canary": view.name, "cause": verdict.map(cause)});
            value(args.output, &record)
        }
        Format::Table | Format::Wide => verdict.map_or_else(String::new, |verdict| {
            format!("{}: {}\n", view.full_name(), verdict.message)
        }),
        Format::Name => String::new(),
    }
}

impl Context {
    /// The records of a canary's runs, newest first; none if the cluster does not know their kind.
    async fn releases(&self, name: &str, canary: &Value) -> Result<Vec<Release>, Stop> {
        let uid = canary.pointer("/metadata/uid").and_then(Value::as_str);
        let label = format!("{CANARY_UID}={}", uid.unwrap_or_default());
        let params = ListParams::default().labels(&label);
        let kind = Resource::of(Kind::Release);
        let listed = self
            .person
            .list(kind, Some(self.person.namespace()), params)
            .await;
        let listed = match listed {
            Err(error) if error.code() == Some(404) => Vec::new(),
            listed => {
                listed.map_err(|error| self.wants("list the releases of", name).failed(&error))?
            }
        };
        let mut releases: Vec<_> = listed.iter().filter_map(records::read).collect();
        releases.sort_by_key(|release| Reverse(release.spec.started_at.as_ref().map(|at| at.0)));
        Ok(releases)
    }

    fn no_record(&self, name: &str) -> String {
        format!(
            "no release of canary {}/{name} is recorded: none has begun since the operator records them, the kind Release is not installed, the operator may not write Releases, or it runs with -release-history=0\nSee whether the kind is there: kubectl get crd releases.flagger-rs.github.io",
            self.person.namespace()
        )
    }

    fn no_release(&self, name: &str, release: &str) -> Stop {
        let namespace = self.person.namespace();
        Stop::because(
            Code::NotFound,
            format!(
                "canary {namespace}/{name} has no recorded release {release}\nSee which there are: kubectl -n {namespace} get releases"
            ),
        )
    }
}
