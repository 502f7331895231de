//! Texts of others, who may be attackers: names, labels, events, images, and the answers of webhooks.

use serde_json::json;
use testbed::wait::until;

use super::{
    chromium::{Browser, PATIENCE},
    dashboard::Dashboard,
    objects::{PAGES, fill, progressing, shop},
};

/// A text that a browser would run if it were markup, with marks that turn the direction of text, and so many further characters.
fn hostile(characters: usize) -> String {
    format!(
        "\"'></td></table><script>window.isHacked = true</script><img src=x onerror=\"window.isHacked = true\"><style>*{{display:none}}</style>\
         <div hx-get=\"/setup\" hx-trigger=\"load\">\u{202e}\u{2066}\u{5e9}\u{5dc}\u{5d5}\u{5dd} javascript:window.isHacked=true//{}",
        "W".repeat(characters)
    )
}

/// Checks a page: no script of others ran, the page is not wider than its window, and no text turns its surroundings.
const HARMLESS: &str = "!window.isHacked && !document.querySelector('main script, main img, main style, main [hx-get]')
    && document.documentElement.scrollWidth <= document.documentElement.clientWidth
    && !/[\\u202a-\\u202e\\u2066-\\u2069]/.test(document.documentElement.outerHTML)
    && document.documentElement.outerHTML.length < 300000";

#[tokio::test(flavor = "multi_thread")]
async fn no_text_of_others_runs_or_breaks_a_page() {
    let server = shop().await;
    let dashboard = Dashboard::start(&server.kubeconfig("of-admin"), &[]);
    let browser = Browser::start().await;
    browser.resize(1280, 900).await;
    browser.open(&dashboard.at("/c/shop/checkout")).await;
    browser.is_live().await;

    let (short, long) = (hostile(1000), hostile(1 << 20));
    fill(&server, &short, &long, &short);
    let mut status = progressing(30);
    status["conditions"][0]["message"] = json!(long);
    server.set("shop", "checkout", status);
    // The open page gets them as a message.
    browser.shows("30 % of the traffic").await;
    browser.shows("onerror=").await;
    browser.until(HARMLESS).await;
    server.set(
        "shop",
        &short,
        json!({"phase": "Failed", "canaryWeight": 0}),
    );
    server.edit("shop", "cart", |cart| {
        cart["metadata"]["labels"] = json!({"team": long});
        cart["spec"]["targetRef"]["name"] = json!(short);
    });
    // The list has the canary with the hostile name, too.
    browser.open(&dashboard.at("/")).await;
    browser
        .until("document.querySelectorAll('table.fleet tbody tr').length === 5")
        .await;
    for (name, path) in PAGES {
        browser.open(&dashboard.at(path)).await;
        browser.until(HARMLESS).await;
        browser.picture(&format!("hostile-{name}")).await;
        browser.resize(320, 900).await;
        browser.until(HARMLESS).await;
        browser.resize(1280, 900).await;
        assert_eq!(browser.complaints().await, [""; 0], "{path}");
    }
    let query =
        "/?q=%3Cscript%3Ewindow.isHacked=true%3C/script%3E%22onfocus=%22window.isHacked=true";
    browser.open(&dashboard.at(query)).await;
    browser.until(HARMLESS).await;
    browser.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_got_into_a_page_would_not_run() {
    let server = shop().await;
    let dashboard = Dashboard::start(&server.kubeconfig("of-admin"), &[]);
    let browser = Browser::start().await;
    browser.open(&dashboard.at("/")).await;
    let inject = "document.querySelector('main').insertAdjacentHTML('beforeend', '<img src=\"/none\" onerror=\"window.isHacked = true\">');
        const script = document.createElement('script');
        script.textContent = 'window.isHacked = true';
        document.body.append(script);";
    browser.script(inject).await;
    let mut complaints = Vec::new();
    let have_come = until(PATIENCE, "two complaints", async || {
        complaints.extend(browser.complaints().await);
        let is_of_policy = |it: &&String| it.contains("Content Security Policy");
        match complaints.iter().filter(is_of_policy).count() {
            0 | 1 => Err(complaints.join("\n")),
            _ => Ok(()),
        }
    });
    have_come.await.unwrap();
    assert_eq!(browser.script("return !window.isHacked").await, true);
    browser.end(&["Content Security Policy", "/none"]).await;
}
