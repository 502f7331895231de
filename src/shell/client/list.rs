//! `list`: the canaries of a namespace or of all, page by page.

use std::{collections::BTreeMap, pin::pin};

use futures::StreamExt;
use kube::api::ListParams;
use serde_json::Value;

use super::{
    output::{print, remark},
    read::{Context, now},
    trouble::{Stop, Wanted},
};
use crate::{
    api::percent::Percent,
    cli::client::{Code, Format, List},
    shell::api_server::person::{Change, PAGE, Resource},
    snapshot::Kind,
    view::{
        Seen, State, View, list_json,
        render::{Columns, Table, change_line, head, row},
    },
};

/// A remark names at most this many canaries.
const NAMED: usize = 5;

/// Lists canaries.
pub async fn list(context: &Context, list: &List) -> Result<Code, Stop> {
    let namespace = (!list.all_namespaces).then(|| context.person.namespace());
    let listing = Listing {
        context,
        list,
        namespace,
        wanted: Wanted {
            verb: "list",
            namespace,
            canary: None,
            typed: &context.typed,
        },
    };
    let known = listing.all().await?;
    if list.watch {
        listing.watch(known).await?;
    }
    Ok(Code::Yes)
}

struct Listing<'a> {
    context: &'a Context,
    list: &'a List,
    namespace: Option<&'a str>,
    wanted: Wanted<'a>,
}

/// The workloads by kind, namespace and name.
type Workloads = BTreeMap<(&'static str, String, String), Value>;

/// The printed state, weight and sentence of each canary, by namespace and name.
type Known = BTreeMap<String, (State, Percent, String)>;

fn printed(view: &View) -> (State, Percent, String) {
    (view.state, view.weight.intended, view.sentence.clone())
}

impl Listing<'_> {
    /// Prints all canaries, page by page. Each page is printed as soon as the API server has answered.
    async fn all(&self) -> Result<Known, Stop> {
        let workloads = self.workloads().await?;
        let mut params = ListParams::default().limit(PAGE);
        params.label_selector.clone_from(&self.list.selector);
        let canaries = Resource::of(Kind::Canary);
        let mut printer = Printer::new(self);
        let mut known = Known::new();
        loop {
            let page = self
                .context
                .person
                .page(canaries, self.namespace, &params)
                .await;
            let (items, next) = page.map_err(|error| self.wanted.failed(&error))?;
            let views = items.into_iter().map(|canary| view(canary, &workloads));
            let mut views: Vec<_> = views.collect();
            known.extend(views.iter().map(|view| (view.full_name(), printed(view))));
            views.retain(|view| self.is_wanted(view));
            if params.continue_token.is_none() && next.is_none() {
                views.sort_by_key(|view| !view.needs_attention);
            }
            printer.page(views)?;
            params.continue_token = next;
            if params.continue_token.is_none() {
                printer.end()?;
                return Ok(known);
            }
        }
    }

    /// The workloads, for their images; read for `-o wide` only.
    async fn workloads(&self) -> Result<Workloads, Stop> {
        let mut all = Workloads::new();
        if self.list.output != Format::Wide {
            return Ok(all);
        }
        for kind in [Kind::Deployment, Kind::DaemonSet] {
            let listed = self
                .context
                .person
                .list(Resource::of(kind), self.namespace, ListParams::default())
                .await;
            // A person who may not read workloads sees no images.
            for workload in listed.unwrap_or_default() {
                let text = |pointer: &str| {
                    workload
                        .pointer(pointer)
                        .and_then(Value::as_str)
                        .unwrap_or_default()
                        .to_owned()
                };
                let key = (
                    kind.name(),
                    text("/metadata/namespace"),
                    text("/metadata/name"),
                );
                all.insert(key, workload);
            }
        }
        Ok(all)
    }

    fn is_wanted(&self, view: &View) -> bool {
        let has_phase = |phase: &String| view.has_phase(phase);
        self.list.phase.as_ref().is_none_or(has_phase)
            && (!self.list.failed || view.state == State::Failed)
    }

    /// Prints each change, as one line or one object, until the process is interrupted.
    async fn watch(&self, mut known: Known) -> Result<(), Stop> {
        let selector = self.list.selector.as_deref();
        let mut changes = pin!(self.context.person.watch_all(
            Kind::Canary,
            self.namespace,
            selector
        ));
        while let Some(change) = changes.next().await {
            let canary = match change {
                Ok(Change::Began | Change::Complete) => continue,
                Ok(Change::Is(canary)) => canary,
                Ok(Change::Gone(canary)) => {
                    let gone = view(canary, &Workloads::new());
                    known.remove(&gone.full_name());
                    remark(&format!("canary {} was deleted", gone.full_name()));
                    continue;
                }
                Err(error) if error.code().is_some() => return Err(self.wanted.failed(&error)),
                Err(error) => {
                    remark(&error.to_string());
                    continue;
                }
            };
            let view = view(canary, &Workloads::new());
            let state = printed(&view);
            let before = known.insert(view.full_name(), state.clone());
            if before != Some(state) && self.is_wanted(&view) {
                match self.list.output {
                    Format::Json => print(&format!("{}\n", view.json()))?,
                    Format::Yaml => print(&yaml(&view.json()))?,
                    Format::Name => print(&name(&view))?,
                    Format::Table | Format::Wide => {
                        self.context.output.lines(&[change_line(&view, now())])?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Prints pages.
struct Printer<'a> {
    listing: &'a Listing<'a>,
    columns: Columns,
    table: Table,
    /// The views of all pages so far, for the output forms that are printed as a whole.
    kept: Vec<View>,
    count: usize,
    attention: Vec<String>,
}

impl<'a> Printer<'a> {
    fn new(listing: &'a Listing<'a>) -> Self {
        Self {
            listing,
            columns: Columns {
                namespace: listing.list.all_namespaces,
                wide: listing.list.output == Format::Wide,
            },
            table: Table::default(),
            kept: Vec::new(),
            count: 0,
            attention: Vec::new(),
        }
    }

    fn page(&mut self, views: Vec<View>) -> Result<(), Stop> {
        let is_first = self.count == 0;
        self.count += views.len();
        let attention = views.iter().filter(|view| view.needs_attention);
        self.attention.extend(attention.map(View::full_name));
        match self.listing.list.output {
            Format::Json | Format::Yaml => self.kept.extend(views),
            Format::Name => print(&views.iter().map(name).collect::<String>())?,
            Format::Table | Format::Wide if views.is_empty() => {}
            Format::Table | Format::Wide => {
                let now = now();
                let head = (is_first && !self.listing.list.no_headers).then(|| head(self.columns));
                let rows = views.iter().map(|view| row(view, self.columns, now));
                let lines = self
                    .table
                    .lines(&head.into_iter().chain(rows).collect::<Vec<_>>());
                self.listing.context.output.lines(&lines)?;
            }
        }
        Ok(())
    }

    fn end(self) -> Result<(), Stop> {
        match self.listing.list.output {
            Format::Json => return print(&format!("{:#}\n", list_json(&self.kept))),
            Format::Yaml => return print(&yaml(&list_json(&self.kept))),
            Format::Name => return Ok(()),
            Format::Table | Format::Wide => {}
        }
        if self.count == 0 {
            let place = match self.listing.namespace {
                Some(namespace) => format!(
                    "in namespace {namespace}; other namespaces: {} list -A",
                    self.listing.context.typed.flagger
                ),
                None => "in any namespace".to_owned(),
            };
            let list = self.listing.list;
            let is_filtered = list.phase.is_some() || list.failed || list.selector.is_some();
            let which = if is_filtered { " match" } else { " found" };
            remark(&format!("no canaries{which} {place}"));
        } else if self.count > usize::try_from(PAGE).unwrap_or(usize::MAX)
            && !self.attention.is_empty()
        {
            let named: Vec<_> = self
                .attention
                .iter()
                .take(NAMED)
                .map(String::as_str)
                .collect();
            let more = if self.attention.len() > NAMED {
                ", …"
            } else {
                ""
            };
            remark(&format!(
                "{} of {} need attention: {}{more}",
                self.attention.len(),
                self.count,
                named.join(", ")
            ));
        }
        Ok(())
    }
}

/// The view of a listed canary.
fn view(canary: Value, workloads: &Workloads) -> View {
    let text = |pointer: &str| {
        canary
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let kind = match text("/spec/targetRef/kind").as_str() {
        "Deployment" => Kind::Deployment.name(),
        "DaemonSet" => Kind::DaemonSet.name(),
        _ => "",
    };
    let key = (
        kind,
        text("/metadata/namespace"),
        text("/spec/targetRef/name"),
    );
    let target = workloads.get(&key).cloned();
    let seen = Seen {
        canary,
        target,
        ..Seen::default()
    };
    View::of(&seen, now())
}

/// The name of the object, as `kubectl get -o name` prints it.
pub fn name(view: &View) -> String {
    format!("canary.flagger.app/{}\n", view.name)
}

/// A value as a document of YAML.
pub fn yaml(value: &Value) -> String {
    // A JSON value always has a text.
    let text = serde_saphyr::to_string(value).unwrap_or_default();
    format!("---\n{text}")
}
