#![allow(clippy::disallowed_methods, reason = "the tests compare with files")]

mod hostile;

use std::sync::Arc;

use jiff::Timestamp;
use maud::Markup;
use serde_json::{Value, json};

use super::{
    setup::{Finding, Known, setup},
    site::{login, message},
    *,
};
use crate::{
    api::{
        action::Verb,
        release::{Release, RunEvidence},
    },
    records::pack,
    view::{Seen, Typed, Version, View},
};

fn now() -> Timestamp {
    "2026-11-28T10:12:03Z".parse().unwrap()
}

fn typed() -> Typed {
    Typed::new("kubectl flagger", &[])
}

fn with_site<T>(show: impl FnOnce(&Site<'_>) -> T) -> T {
    let typed = typed();
    show(&Site {
        now: now(),
        typed: &typed,
        embed: false,
    })
}

fn canary(name: &str, status: &Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop", "creationTimestamp": "2026-11-20T10:00:00Z", "labels": {"team": "a"}},
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}, "service": {"port": 9898},
            "analysis": {"interval": "1m", "threshold": 5, "stepWeight": 10, "maxWeight": 50,
                "metrics": [{"name": "request-success-rate", "thresholdRange": {"min": 99}, "interval": "1m"},
                    {"name": "request-duration", "thresholdRange": {"max": 500}, "interval": "30s"}],
                "webhooks": [{"name": "load-test", "url": "http://tester/"}]}},
        "status": status})
}

fn status(phase: &str, weight: i64, conditions: &Value) -> Value {
    json!({"phase": phase, "canaryWeight": weight, "failedChecks": 1, "iterations": 0, "lastAppliedSpec": "v1-b", "lastPromotedSpec": "v1-a",
        "lastTransitionTime": "2026-11-28T10:11:37Z", "conditions": conditions})
}

fn workload(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "podinfod", "image": image}]}}}})
}

fn pod(name: &str, state: &Value, ready: &str) -> Value {
    json!({"metadata": {"name": name, "creationTimestamp": "2026-11-28T10:08:00Z"},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}], "containerStatuses": [state]}})
}

fn progressing() -> View {
    let running = json!({"restartCount": 0, "state": {"running": {}}});
    let crashing = json!({"restartCount": 6, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}});
    let verdict = json!([{"type": "Verdict", "status": "True", "reason": "Threshold",
        "message": "Failed check 1 of 5: request-duration was 812 ms, above the maximum 500 ms."}]);
    let seen = Seen {
        canary: canary("podinfo", &status("Progressing", 30, &verdict)),
        target: Some(workload("podinfo:3.1.1")),
        primary: Some(workload("podinfo:3.1.0")),
        pods: Some(vec![
            (Version::Primary, pod("podinfo-primary-x", &running, "True")),
            (Version::Canary, pod("podinfo-a", &crashing, "False")),
        ]),
        events: Some(vec![
            json!({"type": "Warning", "message": "Halt podinfo.shop advancement request duration 812ms > 500ms", "lastTimestamp": "2026-11-28T10:11:37Z", "count": 2}),
        ]),
        unanswered: false,
    };
    View::of(&seen, now())
}

fn aborted() -> View {
    let verdict = json!([{"type": "Verdict", "status": "True", "reason": "Aborted", "message": "Aborted by jane@example.com: errors."}]);
    let seen = Seen {
        canary: canary("podinfo", &status("Failed", 0, &verdict)),
        ..Seen::default()
    };
    View::of(&seen, now())
}

fn evidence() -> Value {
    let compared = |requests: u32, bad: u32| {
        json!({"state": "undecided", "decides": true, "detail": "not decided yet", "requests": requests, "bad": bad,
            "primaryRequests": requests * 9, "primaryBad": bad, "evidence": 0.5})
    };
    let measurement = |minute: u32, weight: u32, duration: f64, requests: u32| {
        let failure = (duration > 500.0)
            .then(|| format!("request-duration was {duration} ms, above the maximum 500 ms"));
        json!({"at": format!("2026-11-28T10:{minute:02}:37Z"), "weight": weight, "values": [
            {"metric": 0, "value": duration, "failure": failure},
            {"metric": 1, "comparison": compared(requests, requests / 100)}]})
    };
    json!({"metrics": [
            {"name": "request-duration", "provider": "prometheus", "host": "prometheus:9090", "query": "histogram_quantile(0.99, …)", "window": "30s", "unit": "ms", "max": 500.0},
            {"name": "errors", "provider": "prometheus", "host": "prometheus:9090", "query": "", "window": "1m", "unit": ""}],
        "measurements": [measurement(8, 10, 120.0, 1000), measurement(9, 20, 130.5, 2000), measurement(10, 20, 812.0, 4000), measurement(11, 30, 240.0, 6000)],
        "hooks": [{"at": "2026-11-28T10:08:37Z", "name": "load-test", "kind": "rollout", "host": "tester", "status": 200, "answer": ""},
            {"at": "2026-11-28T10:09:37Z", "name": "acceptance", "kind": "pre-rollout", "host": "tester", "answer": "connection refused"}],
        "timeline": [{"at": "2026-11-28T10:07:37Z", "phase": "Progressing", "weight": 0}, {"at": "2026-11-28T10:08:37Z", "phase": "Progressing", "weight": 10},
            {"at": "2026-11-28T10:11:37Z", "phase": "Progressing", "weight": 30}]})
}

fn release_of(name: &str, change: Value) -> Release {
    let evidence: RunEvidence = serde_json::from_value(evidence()).unwrap();
    let mut spec = json!({"canary": "podinfo", "revision": "v1-b", "from": "v1-a", "strategy": "canary", "result": "Running", "trigger": "argocd",
        "images": [{"name": "podinfod", "from": "podinfo:3.1.0", "to": "podinfo:3.1.1"}],
        "configs": [{"name": "configmap/podinfo", "from": "1a2b", "to": "3c4d"}],
        "startedAt": "2026-11-28T10:07:37Z", "steps": 5, "reached": 3, "weight": 30, "evidence": pack(&evidence)});
    for (field, value) in change.as_object().unwrap() {
        spec[field] = value.clone();
    }
    serde_json::from_value(
        json!({"apiVersion": "flagger-rs.github.io/v1alpha1", "kind": "Release",
        "metadata": {"name": name, "namespace": "shop"}, "spec": spec}),
    )
    .unwrap()
}

fn records() -> Vec<Release> {
    vec![
        release_of("podinfo-3", json!({})),
        release_of(
            "podinfo-2",
            json!({"result": "Promoted", "revision": "v1-a", "startedAt": "2026-11-27T10:00:00Z", "endedAt": "2026-11-27T10:09:00Z",
            "images": [{"name": "podinfod", "from": "podinfo:3.0.9", "to": "podinfo:3.1.0"}], "evidence": null}),
        ),
        release_of(
            "podinfo-1",
            json!({"result": "Failed", "revision": "v1-0", "startedAt": "2026-11-20T10:00:00Z", "endedAt": "2026-11-20T10:04:00Z",
            "cause": {"code": "Threshold", "sentence": "request-duration was 812 ms, above the maximum 500 ms."}}),
        ),
    ]
}

fn named() -> Named {
    Named::new("shop", "podinfo").unwrap()
}

/// Compares with a file in `tests/pages`; `UPDATE_TEXTS=1` writes it. Each element is on a line of its own.
fn is_page(name: &str, html: &str) {
    let html = html.replace("><", ">\n<");
    let path = format!(
        "{}/src/dashboard/tests/pages/{name}.html",
        env!("CARGO_MANIFEST_DIR")
    );
    if std::env::var_os("UPDATE_TEXTS").is_some() {
        std::fs::write(&path, &html).unwrap();
    }
    let file = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        file == html,
        "{path} is stale: UPDATE_TEXTS=1 cargo test --lib dashboard\n{html}"
    );
}

fn rows() -> Vec<Arc<Row>> {
    let failed = json!([{"type": "Verdict", "status": "True", "reason": "Aborted", "message": "Aborted by jane@example.com: errors at the checkout."}]);
    let all = [
        canary("cart", &status("Succeeded", 0, &json!([]))),
        canary("podinfo", &status("Progressing", 30, &json!([]))),
        canary("search", &status("Failed", 0, &failed)),
    ];
    all.into_iter()
        .map(|it| Arc::new(Row::of(it, now())))
        .collect()
}

fn page_of(view: &View, may: &[Verb], named_record: Option<&str>) -> String {
    let (canary, records) = (named(), records());
    let shown = Shown {
        canary: &canary,
        view,
        records: Some(&records),
        named: named_record,
        may,
    };
    with_site(|site| release(site, &shown)).into_string()
}

#[test]
fn each_page_is_as_in_its_file() {
    is_page(
        "fleet",
        &with_site(|site| fleet(site, &Filter::new("", 1), &rows(), |_| true)).into_string(),
    );
    is_page("release", &page_of(&progressing(), &Verb::ALL, None));
    is_page("record", &page_of(&progressing(), &[], Some("podinfo-1")));
    let (canary, records) = (named(), records());
    let pair = ("podinfo-1".to_owned(), "podinfo-3".to_owned());
    is_page(
        "history",
        &with_site(|site| history(site, &canary, Some(&records), Some(&pair))).into_string(),
    );
    let finding = |subject: &str, state, command: Option<&str>| Finding {
        subject: subject.to_owned(),
        state,
        text: "A sentence.".to_owned(),
        command: command.map(str::to_owned),
    };
    let findings = [
        finding("Operator", Known::Good, None),
        finding(
            "Records",
            Known::Bad,
            Some("flagger crds | kubectl apply -f -"),
        ),
        finding("Policy", Known::Hidden, None),
        finding("Rights", Known::Note, None),
    ];
    is_page("setup", &setup(&findings).into_string());
    is_page(
        "login",
        &login(
            "/c/shop/podinfo",
            Some("The API server does not accept this token."),
        )
        .into_string(),
    );
    let error = with_site(|site| {
        let command = Some("kubectl flagger list -A");
        message(site, "This cannot be shown", "One.\nTwo.", command)
    });
    is_page("frame", &framed(false, error));
    is_page("embed", &framed(true, Markup::default()));
}

fn framed(embed: bool, content: Markup) -> String {
    let typed = typed();
    let site = Site {
        now: now(),
        typed: &typed,
        embed,
    };
    let assets = Assets {
        style: "/assets/1/style.css".to_owned(),
        icon: "/assets/1/icon.svg".to_owned(),
        scripts: vec!["/assets/1/page.js".to_owned()],
    };
    let place = Place::parse("/?q=ns%3Ashop").unwrap();
    let page = Page {
        title: place.title(),
        user: Some("jane@example.com"),
        has_logout: true,
        live: Some((&place, "1a2b".to_owned())),
        content,
    };
    document(&site, &assets, &page)
}

#[test]
fn what_needs_attention_is_first_and_the_filter_chooses() {
    let shown = |filter: &str| {
        let html =
            with_site(|site| fleet(site, &Filter::new(filter, 1), &rows(), |_| true)).into_string();
        let rows = html.split("<tr id=\"r-shop.").skip(1);
        rows.map(|row| row.split('"').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(shown(""), ["search", "podinfo", "cart"]);
    for (filter, expected) in [
        ("POD", &["podinfo"][..]),
        ("checkout", &["search"]),
        ("ns:shop phase:failed", &["search"]),
        ("phase:progressing", &["podinfo"]),
        ("ns:other", &[]),
        ("team=a cart", &["cart"]),
        ("team=b", &[]),
        ("nothing", &[]),
    ] {
        assert_eq!(shown(filter), expected, "{filter}");
    }
}

#[test]
fn a_row_reports_an_operator_that_gives_no_sign() {
    let podinfo = rows().swap_remove(1);
    let at = |minutes: i64| now() + jiff::SignedDuration::from_mins(minutes);
    assert!(podinfo.silent(at(9)).is_none());
    let silent = podinfo.silent(at(11)).unwrap();
    assert_eq!(silent.rank(), Rank::Attention);
    assert!(silent.silent(at(12)).is_none(), "it is reported once");
    let html =
        with_site(|site| fleet(site, &Filter::new("sign", 1), &[Arc::new(silent)], |_| true));
    let html = html.into_string();
    assert!(
        html.contains("There is no sign of the operator since 2026-11-28T10:11:37Z."),
        "{html}"
    );
    // An idle canary needs no sign.
    assert!(rows()[0].silent(at(100_000)).is_none());
}

#[test]
fn a_row_has_the_versions_and_the_measured_traffic_of_its_own_release() {
    let [_, podinfo, search] = rows().try_into().unwrap();
    let measured = Arc::new(Recorded::of(&release_of("podinfo-3", json!({}))));
    let others = Arc::new(Recorded::of(&release_of(
        "podinfo-2",
        json!({"revision": "v1-old"}),
    )));
    let html = |row: &Arc<Row>, recorded: &Arc<Recorded>, reads: bool| {
        let row = Arc::new(Row::clone(row).with(Some(recorded)));
        with_site(|site| fleet(site, &Filter::new("", 1), &[row], |_| reads)).into_string()
    };
    let page = html(&podinfo, &measured, true);
    assert!(
        page.contains("<bdi>podinfo:3.1.0</bdi> → <bdi>podinfo:3.1.1</bdi>"),
        "{page}"
    );
    assert!(
        page.contains("30 %<div class=\"dim\">10 % measured</div>"),
        "{page}"
    );
    // The record was written at another weight.
    let page = html(&search, &measured, true);
    assert!(
        page.contains("podinfo:3.1.1") && !page.contains("measured"),
        "{page}"
    );
    for (recorded, reads) in [(&others, true), (&measured, false)] {
        let page = html(&podinfo, recorded, reads);
        assert!(
            !page.contains("podinfo:3.1.1") && !page.contains("measured"),
            "{page}"
        );
    }
}

#[test]
fn a_long_list_has_pages() {
    let all = (0..250).map(|n| canary(&format!("c{n:03}"), &status("Succeeded", 0, &json!([]))));
    let all: Vec<_> = all.map(|it| Arc::new(Row::of(it, now()))).collect();
    let page = |page| {
        with_site(|site| fleet(site, &Filter::new("ns:shop", page), &all, |_| true)).into_string()
    };
    assert_eq!(page(1).matches("<tr id=").count(), 100);
    assert!(
        page(1).contains("Page 1 of 3") && page(1).contains("href=\"/?q=ns%3Ashop&amp;page=2\"")
    );
    assert_eq!(page(3).matches("<tr id=").count(), 50);
    // A page that does not exist any more.
    assert_eq!(page(99), page(3).replace("page=3", "page=99"));
}

#[test]
fn only_the_buttons_that_are_possible_and_allowed_are_shown() {
    let buttons = |view: &View, may: &[Verb]| {
        let html = page_of(view, may, None);
        let forms = html.split("action=\"/c/shop/podinfo/").skip(1);
        forms
            .map(|form| form.split('"').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let view = progressing();
    assert_eq!(
        buttons(&view, &Verb::ALL),
        ["pause", "skip", "promote", "abort"]
    );
    assert_eq!(buttons(&view, &[Verb::Pause, Verb::Retry]), ["pause"]);
    assert_eq!(buttons(&view, &[]), [""; 0]);
    for (may, expected) in [
        (
            &[][..],
            Some("may not pause, skip, promote or abort this release"),
        ),
        (
            &[Verb::Pause, Verb::Abort],
            Some("may not skip or promote this release"),
        ),
        (&Verb::ALL, None),
    ] {
        let html = page_of(&view, may, None);
        match expected {
            Some(expected) => assert!(html.contains(expected), "{html}"),
            None => assert!(!html.contains("Your account may not"), "{html}"),
        }
    }
    let html = page_of(&view, &[Verb::Abort], None);
    assert!(
        html.contains("kubectl flagger -n shop abort podinfo --reason"),
        "{html}"
    );
    assert!(html.contains("name=\"revision\" value=\"v1-b\""), "{html}");
}

/// A person on call who has aborted a release reads what is possible now, and not that the account may do nothing.
#[test]
fn each_action_without_a_button_has_a_true_sentence() {
    let html = page_of(&aborted(), &[], None);
    assert!(html.contains("may not retry this release"), "{html}");
    for verb in ["Pause", "Skip", "Promote", "Abort", "Resume"] {
        let sentence = format!("<li>{verb} is possible ");
        assert!(html.contains(&sentence), "{verb}: {html}");
    }
    assert!(!html.contains("<li>Retry is possible"), "{html}");
    let html = page_of(&aborted(), &[Verb::Retry], None);
    assert!(html.contains("Retry podinfo") && !html.contains("Your account may not"));
    for view in [progressing(), aborted()] {
        let html = page_of(&view, &Verb::ALL, None);
        for verb in Verb::ALL {
            let button = html.contains(&format!("id=\"do-{verb}\""));
            let sentence = html
                .to_lowercase()
                .contains(&format!("<li>{verb} is possible"));
            assert!(button != sentence, "{verb}: {html}");
        }
    }
}
