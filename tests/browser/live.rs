//! An open page follows a release, and its visitor steers it.

use serde_json::json;

use super::{
    chromium::Browser,
    dashboard::{Dashboard, NOT_LOGGED_IN},
    objects::{progressing, shop},
};

/// A page that is loaded anew forgets this.
const REMEMBER: &str = "window.isTheSamePage = true";
const REMEMBERS: &str = "window.isTheSamePage === true";

#[tokio::test(flavor = "multi_thread")]
async fn an_open_page_shows_each_step_without_a_reload() {
    let server = shop().await;
    let dashboard = Dashboard::start(&server.kubeconfig("of-admin"), &[]);
    let browser = Browser::start().await;
    browser.open(&dashboard.at("/c/shop/checkout")).await;
    browser.is_live().await;
    browser.script(REMEMBER).await;
    browser.shows("Step 2 of 5, 20 % of the traffic").await;
    for (step, weight) in [(3, 30), (4, 40)] {
        server.set("shop", "checkout", progressing(weight));
        browser
            .shows(&format!("Step {step} of 5, {weight} % of the traffic"))
            .await;
    }
    server.set(
        "shop",
        "checkout",
        json!({"phase": "Succeeded", "canaryWeight": 0}),
    );
    browser
        .until("/Promoted/.test(document.querySelector('p.sentence').innerText)")
        .await;
    assert!(
        !browser
            .text()
            .await
            .contains("of the traffic to the canary")
    );
    browser.until(REMEMBERS).await;

    // The list of all canaries follows them, too.
    browser.open(&dashboard.at("/")).await;
    browser.is_live().await;
    browser.script(REMEMBER).await;
    server.set("shop", "checkout", progressing(50));
    browser
        .until("document.getElementById('r-shop.checkout').innerText.includes('50 %')")
        .await;
    browser.until(REMEMBERS).await;
    browser.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_whose_files_arrive_slowly_follows_changes() {
    let server = shop().await;
    let dashboard = Dashboard::start(&server.kubeconfig("of-admin"), &[]);
    let browser = Browser::start().await;
    browser.command("Network.enable", json!({})).await;
    let slow = json!({"offline": false, "latency": 300, "downloadThroughput": 50_000, "uploadThroughput": 50_000});
    browser
        .command("Network.emulateNetworkConditions", slow)
        .await;
    browser.open(&dashboard.at("/c/shop/checkout")).await;
    browser.is_live().await;
    server.set("shop", "checkout", progressing(30));
    browser.shows("30 % of the traffic").await;
    let scripts = "return performance.getEntriesByType('resource')
        .filter(it => it.initiatorType === 'script').map(it => it.duration)";
    let scripts = browser.script(scripts).await;
    assert!(scripts[0].as_f64().unwrap() > 500.0, "{scripts}: not slow");
    // When there were several, the first one could start the page before the others had arrived. It never became live then.
    assert_eq!(scripts.as_array().unwrap().len(), 1, "{scripts}");
    browser.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_that_is_being_typed_survives_a_step() {
    let server = shop().await;
    let dashboard = Dashboard::start(&server.kubeconfig("of-admin"), &[]);
    let browser = Browser::start().await;
    browser.open(&dashboard.at("/c/shop/checkout")).await;
    browser.is_live().await;
    browser.click("#do-abort summary").await;
    browser.fill("#reason-abort", "errors at the").await;
    server.set("shop", "checkout", progressing(30));
    browser.shows("30 % of the traffic").await;
    browser.press(" checkout").await;
    browser
        .until("document.getElementById('reason-abort').value === 'errors at the checkout'")
        .await;
    browser.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_needs_a_reason_and_is_sent_with_it() {
    let server = shop().await;
    let dashboard = Dashboard::start(&server.kubeconfig("of-process"), &["--auth=token"]);
    let browser = Browser::start().await;
    dashboard
        .log_in(&browser, "/c/shop/checkout", "of-jane")
        .await;
    browser.click("#do-abort summary").await;
    browser.shows("-n shop abort checkout --reason").await;
    // Without a reason, the browser does not send the form.
    browser.click("#do-abort button").await;
    browser
        .until("document.querySelector('#reason-abort:invalid') === document.activeElement")
        .await;
    assert!(server.received("PATCH").is_empty());
    browser
        .fill("#reason-abort", "errors at the checkout")
        .await;
    browser.click("#do-abort button").await;
    browser
        .until("document.readyState === 'complete' && !document.querySelector('#do-abort[open]')")
        .await;
    assert_eq!(browser.url().await, dashboard.at("/c/shop/checkout"));
    let patches = server.received("PATCH");
    let line = &patches[0].body["metadata"]["annotations"]["flagger-rs.github.io/action"];
    let line = line.as_str().unwrap();
    assert!(line.starts_with("abort v1-b "), "{line}");
    assert!(
        line.ends_with(" jane@example.com errors at the checkout"),
        "{line}"
    );

    browser.is_live().await;
    let aborted = "Aborted by jane@example.com: errors at the checkout.";
    server.set(
        "shop",
        "checkout",
        json!({"phase": "Failed", "canaryWeight": 0, "conditions": [
        {"type": "Verdict", "status": "True", "reason": "Aborted", "message": aborted}]}),
    );
    browser.shows(aborted).await;
    browser.until("!document.getElementById('do-abort')").await;
    browser.end(&[NOT_LOGGED_IN]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_abort_sees_no_button_and_is_refused() {
    let server = shop().await;
    let dashboard = Dashboard::start(&server.kubeconfig("of-process"), &["--auth=token"]);
    let browser = Browser::start().await;
    dashboard
        .log_in(&browser, "/c/shop/checkout", "of-viewer")
        .await;
    browser.shows("Progressing").await;
    assert_eq!(
        browser
            .script("return document.querySelectorAll('main form, main button').length")
            .await,
        0
    );
    // The visitor makes the form that the page does not have.
    let form = "const form = document.createElement('form');
        form.method = 'post';
        form.action = '/c/shop/checkout/abort';
        form.innerHTML = '<input name=\"reason\" value=\"I can\">';
        document.body.append(form);
        form.submit();";
    browser.script(form).await;
    browser
        .shows("viewer@example.com may not abort canary checkout")
        .await;
    let canary = server.received("PATCH");
    assert!(canary.iter().all(|it| it.user == "viewer@example.com"));
    browser.end(&[NOT_LOGGED_IN, "status of 403"]).await;
}
