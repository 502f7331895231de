//! Makes the content of each page: reads what the visitor may read, and renders it.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::body::Bytes;
use maud::Markup;
use tokio::time::{Instant, timeout};

use super::{
    fleet::Fleet,
    refusal::Refusal,
    setup,
    visitor::{Visible, Visitor},
};
use crate::{
    api::release::Release,
    dashboard::{self, Filter, Named, Place, Row, Shown, Site, possible},
    shell::{
        client::{Context, Depth, Output},
        clock,
        lock::lock,
    },
    snapshot::Kind,
    view::{Typed, View},
};

/// How long the objects of a canary count as current, unless the canary changes.
const CURRENT: Duration = Duration::from_secs(4);
/// How long a rendered list counts as current, unless a canary changes. Its ages are then rendered anew.
const RENDERED: Duration = Duration::from_secs(15);
/// The maximum number of canaries whose objects are kept, and of lists that are kept.
const KEPT: usize = 64;
/// How long a page waits for the first list of all canaries.
const FIRST_LIST: Duration = Duration::from_secs(5);

/// Makes the content of pages.
pub struct Contents {
    /// All canaries.
    pub fleet: Fleet,
    /// The beginnings of the commands that a person may type.
    pub typed: Typed,
    details: Mutex<HashMap<([u8; 32], Named), Kept>>,
    lists: Mutex<HashMap<List, Rendered>>,
    marks: RandomState,
    /// The number of lists that were rendered.
    #[cfg(test)]
    pub rendered: std::sync::atomic::AtomicUsize,
}

/// A list of canaries. Visitors with the same rights share it.
#[derive(PartialEq, Eq, Hash)]
struct List {
    /// The query of its address.
    filter: String,
    /// The namespaces whose canaries it has.
    canaries: Visible,
    /// The namespaces whose records it shows.
    records: Visible,
    /// Whether it is in a frame.
    embed: bool,
}

/// A list, with the number of changes that it has, and the time at which it was rendered.
type Rendered = (u64, Instant, Arc<Content>);

/// The content of a page. Open pages with the same content share it.
pub struct Content {
    /// A mark: two contents with the same mark are the same.
    pub mark: String,
    /// The event for open pages: the mark, and the markup on one line.
    pub message: Bytes,
    /// The part of the event that is markup.
    markup: Range<usize>,
}

impl Content {
    /// The markup.
    pub fn html(&self) -> &str {
        let markup = self.message.get(self.markup.clone());
        str::from_utf8(markup.unwrap_or_default()).unwrap_or_default()
    }
}

/// The objects of a canary, as a visitor may read them.
struct Detail {
    view: View,
    /// Newest first; `None` if the visitor may not read them.
    records: Option<Vec<Release>>,
}

struct Kept {
    read: Instant,
    row: Option<Arc<Row>>,
    detail: Arc<Detail>,
}

impl Contents {
    /// Makes the content of pages about these canaries.
    pub fn new(fleet: Fleet, typed: Typed) -> Self {
        Self {
            fleet,
            typed,
            details: Mutex::default(),
            lists: Mutex::default(),
            marks: RandomState::new(),
            #[cfg(test)]
            rendered: std::sync::atomic::AtomicUsize::new(0),
        }
    }

    /// The circumstances of a page that is shown now.
    pub fn site(&self, embed: bool) -> Site<'_> {
        Site {
            now: clock::now(),
            typed: &self.typed,
            embed,
        }
    }

    fn content(&self, markup: Markup) -> Arc<Content> {
        // A line of an event ends at each of these characters.
        let html = markup.into_string().replace(['\n', '\r'], " ");
        let mark = format!("{:016x}", self.marks.hash_one(&html));
        let head = format!("id: {mark}\ndata: ");
        let message = [head.as_str(), &html, "\n\n"].concat();
        Arc::new(Content {
            mark,
            message: message.into(),
            markup: head.len()..head.len() + html.len(),
        })
    }

    /// The content of a page for a visitor.
    pub async fn of(
        &self,
        visitor: &Visitor,
        place: &Place,
        embed: bool,
    ) -> Result<Arc<Content>, Refusal> {
        let site = self.site(embed);
        let markup: Markup = match place {
            Place::Fleet(filter) => return self.list(visitor, filter, embed).await,
            Place::Setup => {
                let visible = self.visible(visitor, Kind::Canary).await?;
                let rows = self.fleet.rows(|namespace| visible.has(namespace));
                let views: Vec<&View> = rows.iter().map(|row| &row.view).collect();
                setup::page(visitor, &views, &self.typed).await?
            }
            Place::Release { canary, record } => {
                self.release(visitor, &site, canary, record.as_deref())
                    .await?
            }
            Place::History { canary, compared } => {
                let detail = self.detail(visitor, canary).await?;
                dashboard::history(&site, canary, detail.records.as_deref(), compared.as_ref())
            }
        };
        Ok(self.content(markup))
    }

    /// The namespaces with canaries whose objects of a kind a visitor may list.
    async fn visible(&self, visitor: &Visitor, kind: Kind) -> Result<Visible, Refusal> {
        let mut changes = self.fleet.changes();
        let complete = changes.wait_for(|version| *version > 0);
        if !matches!(timeout(FIRST_LIST, complete).await, Ok(Ok(_))) {
            return Err(Refusal::Unreachable(
                "the canaries are not listed yet".to_owned(),
            ));
        }
        Ok(visitor.visible(kind, || self.fleet.namespaces()).await?)
    }

    async fn list(
        &self,
        visitor: &Visitor,
        filter: &Filter,
        embed: bool,
    ) -> Result<Arc<Content>, Refusal> {
        let canaries = self.visible(visitor, Kind::Canary).await?;
        let records = self.visible(visitor, Kind::Release).await?;
        let version = *self.fleet.changes().borrow();
        let key = List {
            filter: filter.query(),
            canaries,
            records,
            embed,
        };
        if let Some((of, rendered, list)) = lock(&self.lists).get(&key)
            && *of == version
            && rendered.elapsed() < RENDERED
        {
            return Ok(list.clone());
        }
        let rows = self.fleet.rows(|namespace| key.canaries.has(namespace));
        let reads = |namespace: &str| key.records.has(namespace);
        let list = self.content(dashboard::fleet(&self.site(embed), filter, &rows, reads));
        #[cfg(test)]
        self.rendered
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut lists = lock(&self.lists);
        if lists.len() >= KEPT {
            lists.retain(|_, (of, rendered, _)| *of == version && rendered.elapsed() < RENDERED);
        }
        if lists.len() < KEPT {
            lists.insert(key, (version, Instant::now(), list.clone()));
        }
        Ok(list)
    }

    async fn release(
        &self,
        visitor: &Visitor,
        site: &Site<'_>,
        canary: &Named,
        record: Option<&str>,
    ) -> Result<Markup, Refusal> {
        let detail = self.detail(visitor, canary).await?;
        let verbs = possible(&detail.view);
        let may = match record {
            Some(_) => Vec::new(),
            None => visitor.actions_on(Some(canary), verbs).await?,
        };
        let shown = Shown {
            canary,
            view: &detail.view,
            records: detail.records.as_deref(),
            named: record,
            may: &may,
        };
        if record.is_some() && detail.records.is_some() && shown.record().is_none() {
            return Err(Refusal::Missing);
        }
        Ok(dashboard::release(site, &shown))
    }

    /// The connection of a visitor, for a canary.
    pub fn context(&self, visitor: &Visitor, canary: &Named) -> Context {
        Context {
            person: visitor.person.within(&canary.namespace),
            output: Output::new(false, false),
            typed: self.typed.clone(),
        }
    }

    /// The objects of a canary, with the rights of the visitor.
    async fn detail(&self, visitor: &Visitor, canary: &Named) -> Result<Arc<Detail>, Refusal> {
        if !visitor.may_list(&canary.namespace).await? {
            return Err(Refusal::Missing);
        }
        let key = (visitor.key, canary.clone());
        let row = self.fleet.row(canary);
        if let Some(kept) = lock(&self.details).get(&key) {
            let is_same = match (&kept.row, &row) {
                (Some(before), Some(now)) => Arc::ptr_eq(before, now),
                (before, now) => before.is_none() && now.is_none(),
            };
            if is_same && kept.read.elapsed() < CURRENT {
                return Ok(kept.detail.clone());
            }
        }
        let detail = Arc::new(self.read(visitor, canary).await?);
        let mut details = lock(&self.details);
        if details.len() >= KEPT {
            details.retain(|_, kept| kept.read.elapsed() < CURRENT);
        }
        if details.len() < KEPT {
            let kept = Kept {
                read: Instant::now(),
                row,
                detail: detail.clone(),
            };
            details.insert(key, kept);
        }
        Ok(detail)
    }

    async fn read(&self, visitor: &Visitor, canary: &Named) -> Result<Detail, Refusal> {
        let context = self.context(visitor, canary);
        let read = context
            .person
            .get(Kind::Canary, &canary.namespace, &canary.name);
        let object = read.await.map_err(|error| match error.code() {
            Some(404) => Refusal::Missing,
            _ => error.into(),
        })?;
        let (view, records) = tokio::join!(
            context.view(object.clone(), Depth::All),
            context.releases(&canary.name, &object)
        );
        // A visitor who may not list the records sees the rest.
        Ok(Detail {
            view,
            records: records.ok(),
        })
    }
}
