//! The login with a token, its end, and the logout.

use super::{
    chromium::{Browser, PATIENCE},
    dashboard::{Dashboard, NOT_LOGGED_IN},
    objects::shop,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_login_leads_to_the_page_that_was_asked_for_and_ends_on_request() {
    let server = shop().await;
    let dashboard = Dashboard::start(&server.kubeconfig("of-process"), &["--auth=token"]);
    let browser = Browser::start().await;
    browser.open(&dashboard.at("/c/shop/checkout")).await;
    browser.until("document.activeElement.id === 'token'").await;
    assert!(!browser.text().await.contains("Progressing"));
    browser.fill("#token", "of-nobody").await;
    browser.click("form.login button").await;
    browser
        .shows("The API server does not accept this token.")
        .await;
    browser.fill("#token", "of-jane").await;
    browser.click("form.login button").await;
    browser.shows("Progressing").await;
    assert_eq!(browser.url().await, dashboard.at("/c/shop/checkout"));
    assert_eq!(
        browser.script("return document.cookie").await,
        "",
        "no script reads the session"
    );
    let text = browser.text().await;
    assert!(
        text.contains("jane@example.com") && !text.contains("of-jane"),
        "{text}"
    );

    // Jane may not list the other namespace.
    browser.open(&dashboard.at("/")).await;
    browser.shows("checkout").await;
    assert!(!browser.text().await.contains("ledger"));
    browser.open(&dashboard.at("/c/secret/ledger")).await;
    browser
        .shows("There is no such page, or you may not see it.")
        .await;
    browser.open(&dashboard.at("/")).await;
    browser.click("header form button").await;
    browser
        .until("!!document.querySelector('form.login')")
        .await;
    browser.open(&dashboard.at("/c/shop/checkout")).await;
    browser
        .until("!!document.querySelector('form.login')")
        .await;
    browser.end(&[NOT_LOGGED_IN, "status of 404"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_page_asks_for_a_new_token_when_the_old_one_expires() {
    let server = shop().await;
    let dashboard = Dashboard::start(&server.kubeconfig("of-process"), &["--auth=token"]);
    let browser = Browser::start().await;
    dashboard
        .log_in(&browser, "/c/shop/checkout", "of-jane")
        .await;
    browser.is_live().await;
    server.expire("of-jane");
    // The dashboard asks the API server about a token once a minute.
    browser
        .until_within(PATIENCE * 2, "!!document.querySelector('form.login')")
        .await;
    let text = browser.text().await;
    assert!(
        text.contains("It may have expired.") && !text.contains("Progressing"),
        "{text}"
    );
    browser.fill("#token", "of-admin").await;
    browser.click("form.login button").await;
    browser.shows("Progressing").await;
    assert_eq!(browser.url().await, dashboard.at("/c/shop/checkout"));
    browser.end(&[NOT_LOGGED_IN]).await;
}
