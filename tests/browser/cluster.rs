//! A real API server and a real operator: a person on call aborts a release, and another person promotes one and sees its end, although
//! the operator and the API server restart meanwhile.

use std::path::Path;

use serde_json::{Value, json};
use testbed::{Bed, bed::ROUTERS, operator::Operator, wait::until};

use super::{
    chromium::{Browser, PATIENCE},
    dashboard::{Dashboard, NOT_LOGGED_IN},
    files,
};

const FLAGGER: &str = env!("CARGO_BIN_EXE_flagger");

/// A Deployment, and its Canary with one step of half the traffic.
fn objects(name: &str) -> [Value; 2] {
    let labels = json!({"app": name});
    let ports = json!([{"name": "http", "containerPort": 9898}]);
    let container = json!({"name": "app", "image": "podinfo:3.1.0", "ports": ports});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}}}});
    let analysis = json!({"interval": "10s", "threshold": 5, "stepWeight": 50, "maxWeight": 50,
        "metrics": [{"name": "request-success-rate", "thresholdRange": {"min": 99}, "interval": "1m"}],
        "webhooks": [{"name": "load-test", "url": "http://hooks/shop/load", "timeout": "5s", "metadata": {"cmd": "hey"}}]});
    let canary = json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}, "progressDeadlineSeconds": 60,
            "service": {"port": 9898, "targetPort": 9898}, "analysis": analysis}});
    [deployment, canary]
}

/// A control plane with the operator's objects, the policy for actions, the dashboard's account, and two persons: one on call, and one
/// who may promote.
async fn start() -> Bed {
    let bed = Bed::start().await.unwrap();
    for kinds in ROUTERS {
        bed.apply(kinds).await.unwrap();
    }
    for overlay in ["kustomize/actions", "kustomize/dashboard"] {
        bed.apply_kustomize(&files::path(overlay)).await.unwrap();
    }
    for args in [
        "create namespace shop",
        "-n shop create serviceaccount oncall",
        "-n shop create serviceaccount lead",
        "-n shop create rolebinding lead --clusterrole=flagger-release-manager --serviceaccount=shop:lead",
        "-n shop create rolebinding oncall --clusterrole=flagger-on-call --serviceaccount=shop:oncall",
    ] {
        let args: Vec<_> = args.split(' ').collect();
        bed.kubectl(&args).await.unwrap();
    }
    bed
}

/// Waits until a canary has this phase.
async fn phase(bed: &Bed, name: &str, phase: &str) {
    let args = [
        "-n",
        "shop",
        "get",
        "canary",
        name,
        "-o",
        "jsonpath={.status.phase}",
    ];
    let is = until(PATIENCE * 2, phase, async || {
        let now = bed
            .kubectl(&args)
            .await
            .map_err(|error| error.to_string())?;
        if now.trim() == phase {
            Ok(())
        } else {
            Err(now)
        }
    });
    is.await.unwrap();
}

/// An operator with the rights of its account.
async fn operator(bed: &Bed, kubeconfig: &Path) -> Operator {
    let args = [
        "-mesh-provider=istio",
        "-metrics-server=http://prometheus:9090",
    ];
    let started = bed.operator("flagger", Path::new(FLAGGER), kubeconfig, &args);
    started.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_release_is_promoted_over_restarts_of_operator_and_api_server_and_another_is_aborted()
 {
    let bed = start().await;
    let overlay = files::path("tests/all-routers");
    let (_, of_operator) = bed.install(&overlay).await.unwrap();
    let first = operator(&bed, &of_operator).await;
    for object in ["checkout", "podinfo"].map(objects).concat() {
        bed.apply(&object.to_string()).await.unwrap();
    }
    let kubeconfig = bed
        .kubeconfig_of("flagger-dashboard", "flagger-dashboard")
        .await
        .unwrap();
    let dashboard = Dashboard::start(&kubeconfig.display().to_string(), &["--auth=token"]);
    let (lead, oncall) = tokio::join!(Browser::start(), Browser::start());
    for name in ["checkout", "podinfo"] {
        phase(&bed, name, "Initialized").await;
    }
    let (of_lead, of_oncall) = (token(&bed, "lead").await, token(&bed, "oncall").await);
    dashboard.log_in(&lead, "/c/shop/podinfo", &of_lead).await;
    dashboard
        .log_in(&oncall, "/c/shop/checkout", &of_oncall)
        .await;
    for browser in [&lead, &oncall] {
        browser.is_live().await;
    }
    for name in ["checkout", "podinfo"] {
        let workload = format!("deployment/{name}");
        let args = ["-n", "shop", "set", "image", &workload, "app=podinfo:3.1.1"];
        bed.kubectl(&args).await.unwrap();
    }
    promote(&lead).await;
    abort(&oncall).await;
    oncall.end(&[NOT_LOGGED_IN]).await;

    // The page of the release stays open while both are gone, and while they come back.
    assert!(first.terminate().await.unwrap().success());
    bed.plane.stop_apiserver().await;
    lead.shows("not current: the API server does not answer")
        .await;
    bed.plane.start_apiserver().await.unwrap();
    let second = operator(&bed, &of_operator).await;
    lead.is_live().await;
    lead.until(&state("Promoted")).await;
    lead.until("window.isTheSamePage === true").await;
    lead.picture("cluster-promoted").await;
    lead.end(&[NOT_LOGGED_IN]).await;
    drop(dashboard);
    assert!(second.terminate().await.unwrap().success());
    bed.stop().await;
}

/// The sentence of the page has this word.
fn state(word: &str) -> String {
    format!("/{word}/.test(document.querySelector('p.sentence')?.innerText)")
}

/// A token of a person.
async fn token(bed: &Bed, account: &str) -> String {
    let kubeconfig = bed.kubeconfig_of("shop", account).await.unwrap();
    let kubeconfig: Value = serde_json::from_slice(&std::fs::read(kubeconfig).unwrap()).unwrap();
    kubeconfig["users"][0]["user"]["token"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Aborts the release of the page that is open. The role grants no promotion.
async fn abort(browser: &Browser) {
    browser.until("!!document.getElementById('do-abort')").await;
    browser
        .until("!!document.getElementById('do-pause') && !document.getElementById('do-promote')")
        .await;
    browser.click("#do-abort summary").await;
    browser
        .fill("#reason-abort", "errors at the checkout")
        .await;
    browser.click("#do-abort button").await;
    browser.until(&state("Failed")).await;
    browser
        .shows("abort by system:serviceaccount:shop:oncall: errors at the checkout")
        .await;
    browser.picture("cluster-aborted").await;
}

/// Promotes the release of the page that is open, because its steps would take a minute.
async fn promote(browser: &Browser) {
    browser.click("#do-promote summary").await;
    browser.fill("#reason-promote", "the fix is urgent").await;
    browser.click("#do-promote button").await;
    browser
        .until("document.readyState === 'complete' && !document.querySelector('#do-promote[open]')")
        .await;
    browser.is_live().await;
    // A page that is loaded anew forgets this.
    browser.script("window.isTheSamePage = true").await;
    browser.until(&state("Promoting|Promoted")).await;
}
