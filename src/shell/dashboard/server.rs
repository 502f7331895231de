//! Routes requests to pages, and checks each before.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequestParts, Path, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header, request::Parts};
use maud::Markup;
use url::form_urlencoded;

use super::{
    assets,
    gate::{Caller, cookie},
    live::{self, Live},
    pace::Pace,
    refusal::Refusal,
    state::Dashboard,
    visitor::Visitor,
};
use crate::{
    api::action::Verb,
    cli::client::{Act, Auth},
    dashboard::{Named, Page, Place, REASON, document, local, site},
    shell::{
        client::ask,
        http_server::{ClientClock, Peer},
    },
    view::text::clean,
};

/// The maximum number of bytes of a form.
const FORM: usize = 16 << 10;
/// How many pages one visitor may load.
const PAGES: Pace = Pace {
    burst: 200,
    each: Duration::from_millis(50),
};
/// How many actions one visitor may ask for.
const ACTIONS: Pace = Pace {
    burst: 5,
    each: Duration::from_secs(2),
};

/// The routes.
pub fn router(dashboard: Arc<Dashboard>) -> Router {
    Router::new()
        .route("/healthz", get(async || "OK"))
        .route("/readyz", get(readiness))
        .route("/assets/{sum}/{name}", get(asset))
        .route("/login", get(login_form).post(log_in))
        .route("/logout", post(log_out))
        .route("/events", get(events))
        .route("/c/{namespace}/{name}/{last}", get(page).post(act))
        .fallback(get(page))
        .layer(DefaultBodyLimit::max(FORM))
        .layer(middleware::from_fn_with_state(dashboard.clone(), checked))
        .with_state(dashboard)
}

/// What is around the content of a document.
#[derive(Clone, Copy)]
struct Around<'a> {
    /// The visitor, if it is known who it is.
    visitor: Option<&'a Visitor>,
    /// Whether the document is in a frame of another page.
    embed: bool,
}

/// The content of a document.
struct Shown {
    title: String,
    content: Markup,
    live: Option<(Place, String)>,
}

impl Dashboard {
    /// A document with this content.
    fn document(&self, around: Around<'_>, shown: Shown) -> Response {
        let site = self.contents.site(around.embed);
        let visitor = around.visitor;
        let live = shown.live.as_ref();
        let page = Page {
            title: shown.title,
            user: visitor.and_then(|it| it.name.as_deref()),
            has_logout: visitor.is_some() && self.gate.auth() == Auth::Token,
            live: live.map(|(place, mark)| (place, mark.clone())),
            content: shown.content,
        };
        let document = document(&site, &self.assets, &page);
        (
            [(header::CONTENT_TYPE, "text/html; charset=utf-8")],
            document,
        )
            .into_response()
    }

    /// The page of a refusal: the form for a login, or the reason.
    fn refused(&self, refusal: &Refusal, next: &str, mut around: Around<'_>) -> Response {
        let text = refusal.to_string();
        let has_form = self.gate.auth() == Auth::Token
            && matches!(refusal, Refusal::NoLogin | Refusal::WrongToken);
        let content = if has_form {
            around.visitor = None;
            let failure = (*refusal != Refusal::NoLogin).then_some(text.as_str());
            site::login(next, failure)
        } else {
            let site = self.contents.site(around.embed);
            site::message(&site, "This cannot be shown", &text, None)
        };
        let shown = Shown {
            title: "Flagger".to_owned(),
            content,
            live: None,
        };
        let mut response = self.document(around, shown);
        *response.status_mut() = refusal.status();
        response
    }
}

/// A document for a visitor who is not known.
const STRANGER: Around<'_> = Around {
    visitor: None,
    embed: false,
};

type Server = State<Arc<Dashboard>>;

/// The client of a request.
struct Client {
    peer: Peer,
    clock: ClientClock,
    headers: HeaderMap,
}

impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        // The HTTP server adds both to each request.
        let peer = parts.extensions.get::<Peer>().copied();
        let clock = parts.extensions.get::<ClientClock>().cloned();
        let (peer, clock) = peer.zip(clock).ok_or(StatusCode::INTERNAL_SERVER_ERROR)?;
        Ok(Self {
            peer,
            clock,
            headers: parts.headers.clone(),
        })
    }
}

impl Client {
    /// The parts by which the gate finds the visitor.
    fn caller(&self) -> Caller<'_> {
        Caller {
            headers: &self.headers,
            peer: self.peer.0.ip(),
        }
    }
}

/// Checks a request, and adds the headers for security to its answer.
async fn checked(State(dashboard): Server, request: Request, next: Next) -> Response {
    let is_asset = request.uri().path().starts_with("/assets/");
    let checked = dashboard.policy.check(request.method(), request.headers());
    let mut response = match checked {
        Ok(()) => next.run(request).await,
        Err(refusal) => dashboard.refused(&refusal, "/", STRANGER),
    };
    dashboard.policy.protect(response.headers_mut(), is_asset);
    response
}

async fn readiness(State(dashboard): Server) -> (StatusCode, &'static str) {
    if dashboard.contents.fleet.is_complete() {
        (StatusCode::OK, "OK")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "canaries are being listed")
    }
}

async fn asset(Path((sum, name)): Path<(String, String)>) -> Response {
    assets::serve(&sum, &name)
}

/// The value of a field of a query or of a form.
fn field(encoded: &[u8], name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(encoded);
    let found = pairs.find(|(key, _)| key == name);
    found.map(|(_, value)| value.into_owned())
}

fn address(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |it| it.as_str())
}

async fn page(State(dashboard): Server, client: Client, uri: Uri) -> Response {
    let _waiting = client.clock.clone().pause();
    let embed = field(uri.query().unwrap_or_default().as_bytes(), "embed").is_some();
    let visitor = match dashboard.gate.admit(client.caller()).await {
        Ok(visitor) => visitor,
        Err(Refusal::NoLogin) if comes_from_elsewhere(&client.headers) => {
            let content_type = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
            return (content_type, site::again()).into_response();
        }
        Err(refusal) => {
            let stranger = Around { embed, ..STRANGER };
            return dashboard.refused(&refusal, address(&uri), stranger);
        }
    };
    let shown = async {
        if !visitor.pages.take(PAGES) {
            return Err(Refusal::TooMany);
        }
        let place = Place::parse(address(&uri)).ok_or(Refusal::Missing)?;
        let content = dashboard.contents.of(&visitor, &place, embed).await?;
        Ok(Shown {
            title: place.title(),
            content: maud::PreEscaped(content.html().to_owned()),
            live: place.is_live().then(|| (place, content.mark.clone())),
        })
    };
    let around = Around {
        visitor: Some(&visitor),
        embed,
    };
    match shown.await {
        Ok(shown) => dashboard.document(around, shown),
        Err(refusal) => dashboard.refused(&refusal, address(&uri), around),
    }
}

/// Whether a link on another site leads here. The browser then leaves out the strict cookie, and sends it if this server's own page leads here
/// once more.
fn comes_from_elsewhere(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site");
    site.is_some_and(|site| site == "cross-site" || site == "same-site")
        && cookie(headers).is_none()
}

async fn events(State(dashboard): Server, client: Client, uri: Uri) -> Response {
    let query = uri.query().unwrap_or_default().as_bytes();
    let place = field(query, "of").and_then(|of| Place::parse(&of));
    let Some(place) = place.filter(Place::is_live) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let waiting = client.clock.clone().pause();
    let visitor = match dashboard.gate.admit(client.caller()).await {
        Ok(visitor) => visitor,
        Err(Refusal::Unreachable(_) | Refusal::TooMany) => return live::busy(),
        Err(_) => return live::login(),
    };
    if !visitor.pages.take(PAGES) {
        return live::busy();
    }
    let places =
        [&visitor.streams, &dashboard.streams].map(|it| it.clone().try_acquire_owned().ok());
    let [Some(of_visitor), Some(of_all)] = places else {
        return live::busy();
    };
    drop(waiting);
    let Client {
        peer,
        clock,
        headers,
    } = client;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let has = last.map(str::to_owned).or_else(|| field(query, "shown"));
    Live {
        dashboard: dashboard.clone(),
        peer,
        clock,
        place,
        embed: field(query, "embed").is_some(),
        has: has.unwrap_or_default(),
        _places: [of_visitor, of_all],
        headers,
    }
    .response()
}

async fn login_form(State(dashboard): Server, uri: Uri) -> Response {
    if dashboard.gate.auth() != Auth::Token {
        return see("/", None);
    }
    let next = field(uri.query().unwrap_or_default().as_bytes(), "next");
    let next = next.as_deref().unwrap_or("/");
    dashboard.refused(&Refusal::NoLogin, next, STRANGER)
}

async fn log_in(State(dashboard): Server, client: Client, form: Bytes) -> Response {
    if dashboard.gate.auth() != Auth::Token {
        return see("/", None);
    }
    let _waiting = client.clock.clone().pause();
    let next = local(&field(&form, "next").unwrap_or_default());
    let token = field(&form, "token").unwrap_or_default();
    match dashboard.gate.log_in(&token, client.caller()).await {
        Ok(cookie) => see(&next, Some(&cookie)),
        Err(refusal) => dashboard.refused(&refusal, &next, STRANGER),
    }
}

async fn log_out(State(dashboard): Server, client: Client) -> Response {
    see("/", Some(&dashboard.gate.log_out(client.caller())))
}

/// Leads to another page of this server.
fn see(address: &str, cookie: Option<&str>) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    let value = |text: &str| HeaderValue::from_str(text).ok();
    let headers = [
        (header::LOCATION, value(address)),
        (header::SET_COOKIE, cookie.and_then(value)),
    ];
    for (name, value) in headers {
        value.map(|value| response.headers_mut().insert(name, value));
    }
    response
}

/// Asks the operator for an action, with the rights of the visitor.
async fn act(
    State(dashboard): Server,
    Path((namespace, name, verb)): Path<(String, String, String)>,
    client: Client,
    form: Bytes,
) -> Response {
    let _waiting = client.clock.clone().pause();
    let embed = field(&form, "embed").is_some();
    let canary = Named::new(&namespace, &name);
    let next = canary.as_ref().map(Named::address).unwrap_or_default();
    let visitor = match dashboard.gate.admit(client.caller()).await {
        Ok(visitor) => visitor,
        Err(refusal) => {
            let stranger = Around { embed, ..STRANGER };
            return dashboard.refused(&refusal, &next, stranger);
        }
    };
    let around = Around {
        visitor: Some(&visitor),
        embed,
    };
    let verb = Verb::ALL.into_iter().find(|it| it.as_str() == verb);
    let Some((canary, verb)) = canary.zip(verb) else {
        return dashboard.refused(&Refusal::Missing, &next, around);
    };
    match asked(&dashboard, &visitor, (&canary, verb), &form).await {
        Ok(()) => {
            let site = dashboard.contents.site(embed);
            see(&site.with_embed(next), None)
        }
        Err(refusal) => dashboard.refused(&refusal, &next, around),
    }
}

/// Asks the operator for the action of a form.
async fn asked(
    dashboard: &Dashboard,
    visitor: &Visitor,
    (canary, verb): (&Named, Verb),
    form: &[u8],
) -> Result<(), Refusal> {
    if !visitor.actions.take(ACTIONS) {
        return Err(Refusal::TooMany);
    }
    if !visitor.may_list(&canary.namespace).await? {
        return Err(Refusal::Missing);
    }
    let reason = clean(&field(form, "reason").unwrap_or_default());
    if reason.chars().count() > REASON {
        let text = format!("The reason is longer than {REASON} characters.");
        return Err(Refusal::Wrong(text));
    }
    let act = Act {
        name: canary.name.clone(),
        reason: Some(reason),
        revision: field(form, "revision").filter(|it| !it.is_empty()),
        wait: false,
    };
    ask(&dashboard.contents.context(visitor, canary), verb, &act).await?;
    Ok(())
}
