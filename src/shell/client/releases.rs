//! `explain` and `history`: the records of a canary's runs.

use kube::api::ListParams;
use serde_json::{Value, json};

use super::{
    list::yaml,
    output::{is_terminal, print, remark, text_width, unless_closed},
    read::{Context, now},
    trouble::Stop,
};
use crate::{
    api::{
        release::{CANARY_UID, Release, ReleaseResult},
        status::ConditionType,
    },
    cli::client::{Canary, Code, Explain, Format},
    records,
    shell::api_server::person::Resource,
    snapshot::Kind,
    view::{
        API_VERSION, Condition, Seen, State, View,
        render::{Line, Table, history_head, history_row},
    },
};

/// Lists the recorded releases of a canary, newest first.
pub async fn history(context: &Context, args: &Canary) -> Result<Code, Stop> {
    let canary = context.canary(&args.name).await?;
    let releases = context.releases(&args.name, &canary).await?;
    if releases.is_empty() {
        remark(&context.no_record(&args.name, &canary));
    }
    let printed = match args.output {
        Format::Json | Format::Yaml => {
            let items: Vec<_> = releases.iter().map(record).collect();
            let list =
                json!({"apiVersion": API_VERSION, "kind": "ReleaseRecordList", "items": items});
            print(&value(args.output, &list))
        }
        Format::Name => print(&releases.iter().map(name).collect::<String>()),
        Format::Table | Format::Wide if releases.is_empty() => Ok(()),
        Format::Table | Format::Wide => {
            let is_wide = args.output == Format::Wide;
            let rows = { releases.iter() }.map(|release| history_row(release, is_wide, now()));
            let rows: Vec<_> = std::iter::once(history_head(is_wide)).chain(rows).collect();
            context.output.lines(&Table::default().lines(&rows))
        }
    };
    unless_closed(printed)?;
    Ok(Code::Yes)
}

/// The name of a record, as kubectl prints it.
fn name(release: &Release) -> String {
    let name = release.metadata.name.as_deref().unwrap_or_default();
    format!("release.flagger-rs.github.io/{name}\n")
}

/// A record as JSON, with its version and kind.
fn record(release: &Release) -> Value {
    let mut record = records::decoded(release);
    record["apiVersion"] = json!(API_VERSION);
    record["kind"] = json!("ReleaseRecord");
    record["name"] = json!(release.metadata.name);
    record["namespace"] = json!(release.metadata.namespace);
    record
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
            Format::Json | Format::Yaml => value(args.output, &record(release)),
            Format::Name => name(release),
            Format::Table | Format::Wide if args.release.is_none() => {
                shown(&last(&canary, release))
            }
            Format::Table | Format::Wide => shown(&records::explain(&release.spec)),
        },
        (None, Some(release)) => return Err(context.no_release(&args.name, release)),
        (None, None) => {
            remark(&context.no_record(&args.name, &canary));
            without_record(args, canary)
        }
    };
    unless_closed(print(&text))?;
    Ok(Code::Yes)
}

/// Returns the state of the canary and the explanation of its last record. If the record is that of the canary's last run, and this run is
/// over, returns the explanation only. A record is not written at each step, so the steps of a run in progress are taken from the status.
fn last(canary: &Value, release: &Release) -> String {
    let view = seen(canary.clone());
    let mut spec = release.spec.clone();
    let is_running = spec.result == ReleaseResult::Running;
    let is_recorded = view.is_recorded_by(&spec.revision, spec.result);
    let is_over = matches!(view.state, State::Promoted | State::Failed);
    let (name, word) = (view.full_name(), view.state.as_str());
    let now = format!("{name}: {word}: {}\n", view.sentence);
    let before = match (is_recorded, is_over) {
        (true, true) => String::new(),
        (true, false) if is_running => {
            let taken = i64::try_from(view.steps_taken()).unwrap_or(i64::MAX);
            spec.reached = spec.reached.max(taken);
            // The status has the newest sentence already.
            spec.cause = None;
            now + "\n"
        }
        _ => now + "\nThe last recorded release:\n",
    };
    before + &records::explain(&spec)
}

/// A text for the terminal, if there is one; otherwise its lines stay whole.
fn shown(text: &str) -> String {
    if is_terminal() {
        wrapped(text, text_width())
    } else {
        text.to_owned()
    }
}

/// A text whose lines have at most this width if blanks allow it. The rest of a line is two columns further right than its beginning.
fn wrapped(text: &str, width: usize) -> String {
    let broken = text.lines().flat_map(|line| {
        let indent = line.len() - line.trim_start().len();
        Line::plain(line).wrapped(width, indent + 2)
    });
    let lines = broken.map(|line| format!("{}\n", line.text().trim_end()));
    lines.collect()
}

/// The view of a Canary alone.
fn seen(canary: Value) -> View {
    let seen = Seen {
        canary,
        ..Seen::default()
    };
    View::of(&seen, now())
}

fn value(format: Format, value: &Value) -> String {
    match format {
        Format::Yaml => yaml(value),
        _ => format!("{value:#}\n"),
    }
}

/// The sentence of the condition `Verdict`, for a run that has no record.
fn without_record(args: &Explain, canary: Value) -> String {
    let view = seen(canary);
    let mut conditions = view.conditions.iter();
    let verdict = conditions.find(|condition| condition.type_ == ConditionType::Verdict.as_str());
    match args.output {
        Format::Json | Format::Yaml => {
            let cause = |it: &Condition| json!({"code": it.reason, "sentence": it.message});
            let record = json!({"apiVersion": API_VERSION, "kind": "ReleaseRecord", "namespace": view.namespace,
                "canary": view.name, "cause": verdict.map(cause)});
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
    pub async fn releases(&self, name: &str, canary: &Value) -> Result<Vec<Release>, Stop> {
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
        releases.sort_by_key(records::newest_first_key);
        Ok(releases)
    }

    fn no_record(&self, name: &str, canary: &Value) -> String {
        let view = seen(canary.clone());
        let is_new = matches!(view.phase.as_str(), "" | "Initializing" | "Initialized");
        if is_new {
            return format!(
                "canary {} has had no release yet. Its first one begins when its {} {} has another version than now",
                view.full_name(),
                view.target.kind,
                view.target.name
            );
        }
        format!(
            "no release of canary {}/{name} is recorded: none has begun since the operator records them, the kind Release is not installed, the operator may not write Releases, or it runs with -release-history=0\nSee whether the kind is there: {} get crd releases.flagger-rs.github.io",
            self.person.namespace(),
            self.typed.kubectl
        )
    }

    fn no_release(&self, name: &str, release: &str) -> Stop {
        let namespace = self.person.namespace();
        Stop::because(
            Code::NotFound,
            format!(
                "canary {namespace}/{name} has no recorded release {release}\nSee which there are: {} -n {namespace} get releases",
                self.typed.kubectl
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_breaks_no_word_on_a_narrow_terminal() {
        let text = "Failed: too slow.\n\n  10:00:00  weight  20  512 ms  failed: above 500 ms\n";
        let lines =
            "Failed: too slow.\n\n  10:00:00  weight  20\n    512 ms  failed: above\n    500 ms\n";
        assert_eq!(wrapped(text, 26), lines);
        assert_eq!(wrapped(text, 80), text);
    }
}
