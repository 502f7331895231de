//! `history` and `explain`: the records of a canary's runs.

use std::cmp::Reverse;

use jiff::Timestamp;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::{
    Context,
    list::yaml,
    output::{Output, print, remark},
    read::now,
    trouble::Stop,
};
use crate::{
    api::release::{CANARY_UID, Release},
    cli::client::{Code, Explain, Format, History},
    records,
    shell::api_server::{ClusterError, person::RELEASES},
    view::{
        API_VERSION, State, View, Seen,
        render::{Table, history_head, history_row},
        releases::ReleaseView,
    },
};

/// Lists the releases of a canary, newest first.
pub async fn history(context: &Context, args: &History) -> Result<Code, Stop> {
    let canary = context.canary(&args.name).await?;
    let releases = context.releases(&args.name, &canary).await?;
    let views: Vec<_> = releases.iter().map(ReleaseView::of).collect();
    match args.output {
        Format::Json => print(&format!("{:#}\n", list_json(&views)))?,
        Format::Yaml => print(&yaml(&list_json(&views)))?,
        Format::Name => {
            let names = views.iter().map(|view| format!("release.flagger-rs.github.io/{}\n", view.name));
            print(&names.collect::<String>())?;
        }
        Format::Table | Format::Wide if views.is_empty() => {}
        Format::Table | Format::Wide => {
            let wide = args.output == Format::Wide;
            let head = (!args.no_headers).then(|| history_head(wide));
            let now = now();
            let rows = views.iter().map(|view| history_row(view, wide, now));
            let rows: Vec<_> = head.into_iter().chain(rows).collect();
            context.output.lines(&Table::default().lines(&rows))?;
        }
    }
    if views.is_empty() {
        remark(&format!("canary {}/{} has no records of releases yet", context.person.namespace(), args.name));
    }
    Ok(Code::Yes)
}

fn list_json(views: &[ReleaseView]) -> Value {
    json!({"apiVersion": API_VERSION, "kind": "ReleaseViewList", "items": views})
}

/// Explains the last release of a canary, or the one of this name.
pub async fn explain(context: &Context, args: &Explain) -> Result<Code, Stop> {
    let canary = context.canary(&args.name).await?;
    let releases = match context.releases(&args.name, &canary).await {
        // Without records the condition tells what is known.
        Err(Stop::Trouble(trouble)) if args.release.is_none() => {
            remark(&trouble.message);
            Vec::new()
        }
        releases => releases?,
    };
    let found = match &args.release {
        Some(name) => releases.iter().find(|release| release.metadata.name.as_ref() == Some(name)),
        None => releases.first(),
    };
    let Some(release) = found else {
        return without_record(context, args, canary);
    };
    match args.output {
        Format::Json | Format::Yaml => {
            let evidence = release.spec.evidence.as_deref().and_then(records::unpack);
            let mut value = serde_json::to_value(ReleaseView::of(release)).unwrap_or_default();
            value["apiVersion"] = json!(API_VERSION);
            value["kind"] = json!("ReleaseView");
            value["evidence"] = json!(evidence);
            print_value(args.output, &value)?;
        }
        Format::Table | Format::Wide | Format::Name => print(&records::explain(&release.spec))?,
    }
    Ok(Code::Yes)
}

fn print_value(format: Format, value: &Value) -> Result<(), Stop> {
    match format {
        Format::Yaml => print(&yaml(value)),
        _ => print(&format!("{value:#}\n")),
    }
}

/// What the status tells of a run that has no record.
fn without_record(context: &Context, args: &Explain, canary: Value) -> Result<Code, Stop> {
    if let Some(name) = &args.release {
        let (namespace, program) = (context.person.namespace(), context.program.typed());
        return Err(Stop::because(
            Code::NotFound,
            format!("canary {namespace}/{} has no release {name}\nSee which there are: {program} -n {namespace} history {0}", args.name),
        ));
    }
    let seen = Seen {
        canary,
        ..Seen::default()
    };
    let view = View::of(&seen, now());
    match args.output {
        Format::Json | Format::Yaml => print_value(args.output, &view.json())?,
        Format::Table | Format::Wide | Format::Name => {
            print(&format!("{}: {}: {}\n", view.full_name(), view.state.as_str(), view.sentence))?;
        }
    }
    Ok(Code::Yes)
}

impl Context {
    /// The records of a canary's runs, newest first.
    async fn releases(&self, name: &str, canary: &Value) -> Result<Vec<Release>, Stop> {
        let uid = canary.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
        let params = ListParams::default().labels(&format!("{CANARY_UID}={uid}"));
        let listed = self.person.list(RELEASES, Some(self.person.namespace()), params).await;
        let listed = listed.map_err(|error| self.no_records(name, &error))?;
        let mut releases: Vec<_> = listed.iter().filter_map(records::read).collect();
        releases.sort_by_key(|release| Reverse(release.spec.started_at.as_ref().map(|at| at.0)));
        Ok(releases)
    }

    fn no_records(&self, name: &str, error: &ClusterError) -> Stop {
        if error.code() == Some(404) {
            return Stop::because(
                Code::NotFound,
                format!("this cluster keeps no records of releases: it has no kind Release\nInstall it: flagger crds | kubectl apply --server-side -f -\nWhat is known now: {} -n {} get {name}", self.program.typed(), self.person.namespace()),
            );
        }
        self.wants("list the releases of", name).failed(error)
    }
}
