//! Whether everybody can read the pages: on narrow and wide screens, by day and by night, with a screen reader, and on paper.

use serde_json::{Value, json};

use super::{
    chromium::Browser,
    dashboard::{Dashboard, NOT_LOGGED_IN},
    objects::{PAGES, shop},
};

const CHECKS: &str = include_str!("checks.js");

/// The offences of the page that is shown.
async fn offences(browser: &Browser) -> Vec<String> {
    let found = browser.script(CHECKS).await;
    serde_json::from_value(found).unwrap()
}

/// The controls and pictures without a name, in the tree that a screen reader gets from Chromium.
async fn nameless(browser: &Browser) -> Vec<String> {
    let tree = browser
        .command("Accessibility.getFullAXTree", json!({}))
        .await;
    let nodes = tree["nodes"].as_array().unwrap().clone();
    let text = |node: &Value, field: &str| {
        node[field]["value"]
            .as_str()
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let is_focusable = |node: &Value| {
        let mut properties = node["properties"].as_array().into_iter().flatten();
        properties.any(|it| it["name"] == "focusable" && it["value"]["value"] == true)
    };
    let needs_name = |node: &&Value| {
        let role = text(node, "role");
        let is_frame = ["RootWebArea", "main"].contains(&role.as_str());
        node["ignored"] == false
            && !is_frame
            && (is_focusable(node) || ["image", "navigation", "region"].contains(&role.as_str()))
    };
    let found = nodes
        .iter()
        .filter(needs_name)
        .filter(|it| text(it, "name").is_empty() || text(it, "role") == "generic");
    found
        .map(|it| format!("{} without a name or a role: {it}", text(it, "role")))
        .collect()
}

/// All pages, with the form for a login and an error.
fn pages(open: &Dashboard, locked: &Dashboard) -> Vec<(String, String)> {
    let mut pages: Vec<_> = PAGES
        .iter()
        .map(|(name, path)| ((*name).to_owned(), open.at(path)))
        .collect();
    pages.push(("login".to_owned(), locked.at("/")));
    pages.push(("missing".to_owned(), open.at("/nowhere")));
    pages
}

/// The widths of screens: from a small phone to 4K, and the narrowest for each layout of the style sheet.
const WIDTHS: [u32; 8] = [320, 561, 760, 901, 1280, 1400, 2200, 3840];

#[tokio::test(flavor = "multi_thread")]
async fn each_page_is_readable_on_each_screen_by_day_and_by_night() {
    let server = shop().await;
    let open = Dashboard::start(&server.kubeconfig("of-admin"), &[]);
    let locked = Dashboard::start(&server.kubeconfig("of-process"), &["--auth=token"]);
    let browser = Browser::start().await;
    let mut found = Vec::new();
    for (name, url) in pages(&open, &locked) {
        browser.open(&url).await;
        // Open forms are part of the page.
        browser
            .script("document.querySelectorAll('details').forEach(it => { it.open = true; })")
            .await;
        for scheme in ["light", "dark"] {
            browser.show_on("screen", scheme).await;
            for width in WIDTHS {
                browser.resize(width, 900).await;
                let offences = offences(&browser).await;
                found.extend(
                    offences
                        .into_iter()
                        .map(|it| format!("{name}, {scheme}, {width}: {it}")),
                );
                if [320, 1280, 3840].contains(&width) {
                    browser.picture(&format!("{name}-{scheme}-{width}")).await;
                }
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
    browser.end(&[NOT_LOGGED_IN, "status of 404"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_screen_reader_names_each_control_and_picture() {
    let server = shop().await;
    let open = Dashboard::start(&server.kubeconfig("of-admin"), &[]);
    let locked = Dashboard::start(&server.kubeconfig("of-process"), &["--auth=token"]);
    let browser = Browser::start().await;
    let mut found = Vec::new();
    for (name, url) in pages(&open, &locked) {
        browser.open(&url).await;
        found.extend(
            nameless(&browser)
                .await
                .into_iter()
                .map(|it| format!("{name}: {it}")),
        );
    }
    assert!(found.is_empty(), "{found:#?}");
    browser.end(&[NOT_LOGGED_IN, "status of 404"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_printed_release_is_a_report_without_buttons() {
    let server = shop().await;
    let dashboard = Dashboard::start(&server.kubeconfig("of-admin"), &[]);
    let browser = Browser::start().await;
    browser.open(&dashboard.at("/c/shop/checkout")).await;
    // A person who works by night prints on white paper, too.
    for scheme in ["light", "dark"] {
        browser.show_on("print", scheme).await;
        browser.resize(794, 1123).await;
        let shown = "return [...document.querySelectorAll('header, nav, button, form, summary, .crumbs')]
            .filter(it => it.checkVisibility() && !it.closest('section.metric')).map(it => it.outerHTML)";
        assert_eq!(browser.script(shown).await, json!([]), "{scheme}");
        let text = browser.text().await;
        for part in [
            "shop/checkout",
            "request-duration",
            "812 ms",
            "CrashLoopBackOff",
            "checkout:3.1.1",
            "Failed check 1 of 5",
        ] {
            assert!(text.contains(part), "no {part}: {text}");
        }
        assert_eq!(offences(&browser).await, [""; 0], "{scheme}");
        browser.picture(&format!("print-{scheme}")).await;
    }
    browser.end(&[]).await;
}
