//! The frame of all pages: head, navigation, and the element that is kept up to date.

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use url::form_urlencoded;

use super::{
    place::{Place, local},
    text::name,
};
use crate::view::Typed;

/// The settings of htmx: no style element, which the policy of the page forbids, and a `details` element that a person has opened stays open.
const HTMX: &str =
    r#"{"includeIndicatorCSS":false,"history":false,"morphIgnore":["data-htmx-powered","open"]}"#;

/// The circumstances in which a page is shown.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// The current time.
    pub now: Timestamp,
    /// The beginnings of the commands that a person may type.
    pub typed: &'a Typed,
    /// Whether the page is shown in a frame of another page, and has no head of its own.
    pub embed: bool,
}

impl Site<'_> {
    /// The address of a page. A link in a frame leads to a page for the frame.
    pub fn href(&self, place: &Place) -> String {
        self.with_embed(place.address())
    }

    /// An address of this server, for the frame if there is one.
    pub fn with_embed(&self, address: String) -> String {
        match (self.embed, address.contains('?')) {
            (false, _) => address,
            (true, false) => format!("{address}?embed=1"),
            (true, true) => format!("{address}&embed=1"),
        }
    }
}

/// A page.
#[derive(Clone, Debug)]
pub struct Page<'a> {
    /// The title of the window.
    pub title: String,
    /// The name of the user, if there is a login.
    pub user: Option<&'a str>,
    /// Whether the user can log out here.
    pub has_logout: bool,
    /// The page whose changes are followed, with the mark of the content that is shown now.
    pub live: Option<(&'a Place, String)>,
    /// The content.
    pub content: Markup,
}

/// The complete document.
pub fn document(site: &Site<'_>, assets: &Assets, page: &Page<'_>) -> String {
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="htmx-config" content=(HTMX);
                title { (page.title) " · Flagger" }
                link rel="icon" href=(assets.icon);
                link rel="stylesheet" href=(assets.style);
                @for script in &assets.scripts { script src=(script) defer {} }
                @if page.live.is_some() { noscript { meta http-equiv="refresh" content="15"; } }
            }
            body.embed[site.embed] {
                @if !site.embed { (head(page)) }
                main #main tabindex="-1" { (live(site, page)) }
            }
        }
    };
    document.into_string()
}

/// The content, in an element that follows changes if the page does.
fn live(site: &Site<'_>, page: &Page<'_>) -> Markup {
    let Some((place, shown)) = &page.live else {
        return page.content.clone();
    };
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("of", &place.address());
    query.append_pair("shown", shown);
    if site.embed {
        query.append_pair("embed", "1");
    }
    let events = format!("/events?{}", query.finish());
    // An answer that is no stream, such as the error page of a proxy, changes nothing.
    html! {
        div #live hx-sse:connect=(events) hx-swap="innerMorph" hx-status:4xx="swap:none" hx-status:5xx="swap:none" { (page.content) }
    }
}

fn head(page: &Page<'_>) -> Markup {
    html! {
        a.skip href="#main" { "Skip to the content" }
        header.top {
            nav aria-label="Pages" {
                a.brand href="/" { "Flagger" }
                a href="/" { "Canaries" }
                a href="/setup" { "Setup" }
            }
            p #connection role="status" {
                @if page.live.is_some() { "connecting" }
            }
            @if let Some(user) = page.user {
                p.user { span.hidden { "Logged in as " } (name(user)) }
            }
            @if page.has_logout {
                form method="post" action="/logout" { button.quiet type="submit" { "Log out" } }
            }
        }
    }
}

/// The addresses of the files that pages load. Each contains the checksum of its file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assets {
    /// The style sheet.
    pub style: String,
    /// The icon of the window.
    pub icon: String,
    /// The scripts, in their order.
    pub scripts: Vec<String>,
}

/// The document of a message, such as an error: a title, a text, and a command to type.
pub fn message(site: &Site<'_>, title: &str, text: &str, command: Option<&str>) -> Markup {
    html! {
        h1 { (name(title)) }
        @for line in text.lines().take(8) { p { (super::text::sentence(line)) } }
        @if let Some(command) = command { p { code { (command) } } }
        p { a href=(site.href(&Place::first())) { "All canaries" } }
    }
}

/// The form for a login. `next` is the address that it leads to.
pub fn login(next: &str, failure: Option<&str>) -> Markup {
    html! {
        h1 { "Log in" }
        @if let Some(failure) = failure { p.failure role="alert" { (super::text::sentence(failure)) } }
        form.login method="post" action="/login" {
            input type="hidden" name="next" value=(local(next));
            label for="token" { "Token of your account in the cluster" }
            input #token type="password" name="token" required autocomplete="off" autofocus;
            button type="submit" { "Log in" }
        }
        p.dim {
            "The dashboard shows what this account may list, and acts with its rights. It keeps the token in memory until you log out. For a ServiceAccount: "
            code { "kubectl -n NAMESPACE create token NAME" }
        }
    }
}

/// A document that loads its own address once more. A browser sends a strict cookie only if a page of the same site leads here.
pub fn again() -> String {
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head { title { "Flagger" } meta http-equiv="refresh" content="0"; }
            body { (PreEscaped("")) }
        }
    };
    document.into_string()
}
