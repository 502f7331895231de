//! The dashboard without a mouse.

use super::{chromium::Browser, dashboard::Dashboard, objects::shop, webdriver::key};

const FOCUSED: &str = "document.activeElement.innerText";

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_is_found_and_opened_with_keys_alone() {
    let server = shop().await;
    let dashboard = Dashboard::start(&server.kubeconfig("of-admin"), &[]);
    let browser = Browser::start().await;
    browser.open(&dashboard.at("/")).await;
    browser.is_live().await;
    browser.press("/").await;
    browser
        .until("document.activeElement.id === 'q' && document.activeElement.value === ''")
        .await;
    // A slash in the filter is a character.
    browser.press("ns:shop a/b").await;
    browser
        .until("document.getElementById('q').value === 'ns:shop a/b'")
        .await;
    for _ in 0.." a/b".len() {
        browser.press(key::BACKSPACE).await;
    }
    browser.press(key::ENTER).await;
    browser.until("location.search === '?q=ns%3Ashop'").await;
    browser
        .until("document.querySelectorAll('a.open').length === 3")
        .await;
    browser
        .until("!document.body.innerText.includes('ledger')")
        .await;

    browser.press(key::DOWN).await;
    // Canaries that need attention come first.
    browser.until(&format!("{FOCUSED} === 'shop/search'")).await;
    browser
        .until("getComputedStyle(document.activeElement).outlineStyle === 'solid'")
        .await;
    browser.press(key::DOWN).await;
    browser
        .until(&format!("{FOCUSED} === 'shop/checkout'"))
        .await;
    browser.press(key::UP).await;
    browser.press(key::UP).await;
    browser.until("document.activeElement.id === 'q'").await;
    browser.press(key::DOWN).await;
    browser.press(key::DOWN).await;
    browser.press(key::ENTER).await;
    browser
        .until("location.pathname === '/c/shop/checkout'")
        .await;
    browser.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_with_a_filter_shows_what_its_sender_saw() {
    let server = shop().await;
    let dashboard = Dashboard::start(&server.kubeconfig("of-admin"), &[]);
    let browser = Browser::start().await;
    for (query, expected) in [
        ("phase:failed", "shop/search"),
        ("ns:secret", "secret/ledger"),
        ("cart+ns:shop", "shop/cart"),
    ] {
        browser.open(&dashboard.at(&format!("/?q={query}"))).await;
        browser.is_live().await;
        let found =
            "return [...document.querySelectorAll('a.open')].map(it => it.innerText).join()";
        assert_eq!(browser.script(found).await, expected, "{query}");
    }
    // The filter stays when a canary changes.
    server.set(
        "shop",
        "cart",
        serde_json::json!({"phase": "Failed", "canaryWeight": 0}),
    );
    browser.shows("needs attention").await;
    browser
        .until("document.getElementById('q').value === 'cart ns:shop'")
        .await;
    browser
        .until("document.querySelectorAll('a.open').length === 1")
        .await;
    browser.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_focus_stays_where_it_is_when_a_canary_changes() {
    let server = shop().await;
    let dashboard = Dashboard::start(&server.kubeconfig("of-admin"), &[]);
    let browser = Browser::start().await;
    browser.open(&dashboard.at("/")).await;
    browser.is_live().await;
    browser.press(key::DOWN).await;
    browser.press(key::DOWN).await;
    let before = browser.script(&format!("return {FOCUSED}")).await;
    // The row moves to the top.
    server.set(
        "shop",
        "cart",
        serde_json::json!({"phase": "Failed", "canaryWeight": 0}),
    );
    browser
        .until("document.getElementById('r-shop.cart').innerText.includes('Failed')")
        .await;
    assert_eq!(browser.script(&format!("return {FOCUSED}")).await, before);
    browser.end(&[]).await;
}
