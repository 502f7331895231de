//! Texts of attackers: names, labels, events, answers of webhooks, and records that others have written.

use super::*;

/// Text that a browser would run, or that would hide the text beside it, or that is far too long.
fn hostile() -> String {
    format!(
        "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u{202e}\u{2066}&amp;\n{}",
        "A".repeat(1 << 20)
    )
}

#[test]
fn hostile_texts_are_escaped_and_cut_wherever_they_are() {
    let text = hostile();
    let mut view = progressing();
    for field in [
        &mut view.namespace,
        &mut view.name,
        &mut view.sentence,
        &mut view.code,
        &mut view.target.kind,
        &mut view.target.name,
    ] {
        field.clone_from(&text);
    }
    view.revision.applied = Some(text.clone());
    for image in view.images.iter_mut().flatten() {
        (image.container, image.primary, image.canary) =
            (text.clone(), Some(text.clone()), Some(text.clone()));
    }
    for check in &mut view.checks {
        (check.name, check.interval) = (text.clone(), text.clone());
    }
    for hook in &mut view.hooks {
        (hook.name, hook.type_) = (text.clone(), text.clone());
    }
    for pod in view.pods.iter_mut().flatten() {
        (pod.name, pod.status) = (text.clone(), text.clone());
    }
    let events = view.events.as_mut().unwrap();
    (events[0].message, events[0].type_) = (text.clone(), text.clone());
    let changed = json!({"canary": text, "trigger": text, "from": text, "cause": {"code": text, "sentence": text},
        "images": [{"name": text, "from": text, "to": text}], "configs": [{"name": text, "from": text, "to": text}],
        "actions": [{"at": null, "outcome": text, "action": text}]});
    let records = vec![
        release_of("podinfo-3", changed.clone()),
        release_of(&text, changed),
    ];
    let canary = named();
    let shown = Shown {
        canary: &canary,
        view: &view,
        records: Some(&records),
        named: None,
        may: &Verb::ALL,
    };
    let pair = ("podinfo-3".to_owned(), text.clone());
    let rows = [Arc::new(Row::of(
        json!({"metadata": {"name": text, "namespace": text, "labels": {"a": text}}, "status": {"phase": text}}),
        now(),
    ))];
    let recorded = Arc::new(Recorded::of(&records[0]));
    let with_record = [Arc::new(
        super::rows()[1].as_ref().clone().with(Some(&recorded)),
    )];
    assert!(with_record[0].recorded.is_some());
    let findings = [Finding {
        subject: "Operator".to_owned(),
        state: Known::Bad,
        text: text.clone(),
        command: Some(text.clone()),
    }];
    let pages = with_site(|site| {
        [
            release(site, &shown).into_string(),
            history(site, &canary, Some(&records), Some(&pair)).into_string(),
            fleet(site, &Filter::new(&text, 1), &rows, |_| true).into_string(),
            fleet(site, &Filter::new("", 1), &rows, |_| true).into_string(),
            fleet(site, &Filter::new("", 1), &with_record, |_| true).into_string(),
            login(&text, None).into_string(),
            login("/", Some(&text)).into_string(),
            message(site, &text, &text, None).into_string(),
            setup(&findings).into_string(),
        ]
    });
    for page in pages {
        assert!(
            !page.contains("<script") && !page.contains("<img"),
            "{page:.3000}"
        );
        assert!(!page.contains('\u{202e}') && !page.contains('\u{2066}'));
        assert!(!page.contains("\"'>"), "no attribute ends early");
        assert!(page.len() < 100_000, "{} bytes", page.len());
    }
}

#[test]
fn a_record_of_an_attacker_is_shown_without_harm() {
    let text = hostile();
    let hook = json!({"name": text, "kind": text, "host": text, "answer": text});
    let compared =
        json!({"state": text, "detail": text, "requests": 10.0, "primaryRequests": 10.0});
    let huge = json!({"metrics": [{"name": "m", "unit": text, "max": 1e308, "min": -1e308},
            {"name": text, "provider": text, "host": text, "query": text, "window": text}],
        "hooks": [hook, hook],
        "measurements": [{"at": "2026-11-28T10:08:37Z", "values": [{"metric": 0, "value": 1e308, "failure": text},
                {"metric": 1, "failure": text, "comparison": compared}]},
            {"at": "2026-11-28T10:08:37Z", "weight": -9_223_372_036_854_775_808_i64, "values": [{"metric": 0, "value": -1e308}]},
            {"at": null, "values": [{"metric": 7, "value": 1.0}, {"metric": 0, "comparison": {"requests": -1.0, "evidence": 1e308}}]}],
        "timeline": [{"at": "9999-12-30T00:00:00Z", "phase": text}, {"at": "0001-01-01T00:00:00Z"}]});
    let evidence: RunEvidence = serde_json::from_value(huge).unwrap();
    // The operator cuts what it packs, others need not.
    let mut pages = Vec::new();
    for (place, metric) in evidence.metrics.iter().enumerate() {
        let measured = super::super::record::measured(&evidence, place, metric);
        pages.push(measured.into_string());
    }
    pages.push(super::super::record::hooks(&evidence.hooks).into_string());
    for packed in [
        pack(&evidence),
        Some("no evidence".to_owned()),
        Some(String::new()),
    ] {
        let record = release_of(
            "podinfo-9",
            json!({"evidence": packed, "endedAt": "0001-01-01T00:00:00Z"}),
        );
        let html = with_site(|site| super::super::record::record(site, &record)).into_string();
        pages.push(html);
    }
    for html in pages {
        assert!(
            !html.contains("<script") && !html.contains("NaN") && html.len() < 100_000,
            "{html:.3000}"
        );
        assert!(
            !html.contains('\u{202e}') && !html.contains("\"'>"),
            "{html:.3000}"
        );
    }
}
