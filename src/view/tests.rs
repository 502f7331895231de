#![allow(clippy::disallowed_methods, reason = "the tests compare with files")]

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    goal::{Follower, Judgement, Until, Wanted},
    render::{self, Columns, Table, paint},
    *,
};
use crate::{api::status::ConditionType, snapshot::revision::revision};

mod signs;

fn now() -> Timestamp {
    "2026-11-28T10:12:03Z".parse().unwrap()
}

fn workload(image: &str) -> Value {
    json!({"spec": {"selector": {"matchLabels": {"app": "podinfo"}}, "template": {"spec": {"containers": [{"name": "podinfod", "image": image}]}}}})
}

/// The name of the version with this image.
fn named(image: &str) -> String {
    revision(&workload(image)["spec"]["template"])
}

fn canary(status: &Value) -> Value {
    json!({"metadata": {"name": "podinfo", "namespace": "test", "creationTimestamp": "2026-11-20T10:00:00Z"},
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}, "service": {"port": 9898},
            "analysis": {"interval": "1m", "threshold": 5, "stepWeight": 10, "maxWeight": 50,
                "metrics": [{"name": "request-success-rate", "thresholdRange": {"min": 99}, "interval": "1m"},
                    {"name": "request-duration", "thresholdRange": {"max": 500}, "interval": "30s"}],
                "webhooks": [{"name": "acceptance-test", "type": "pre-rollout", "url": "http://tester/"},
                    {"name": "load-test", "url": "http://tester/"}]}},
        "status": status})
}

const OLD: &str = "ghcr.io/stefanprodan/podinfo:3.1.0";
const NEW: &str = "ghcr.io/stefanprodan/podinfo:3.1.1";

/// A status after the release of `applied`.
fn status(phase: &str, applied: &str, promoted: &str) -> Value {
    json!({"phase": phase, "canaryWeight": 0, "failedChecks": 0, "iterations": 0, "lastAppliedSpec": named(applied),
        "lastPromotedSpec": named(promoted), "lastTransitionTime": "2026-11-28T10:11:37Z"})
}

fn seen(status: &Value, target: &str, primary: &str) -> Seen {
    Seen {
        canary: canary(status),
        target: Some(workload(target)),
        primary: Some(workload(primary)),
        pods: Some(Vec::new()),
        events: Some(Vec::new()),
        ..Seen::default()
    }
}

fn progressing() -> Seen {
    let mut status = status("Progressing", NEW, OLD);
    status["canaryWeight"] = json!(30);
    status["failedChecks"] = json!(1);
    status["conditions"] = json!([{"type": "Promoted", "status": "Unknown", "reason": "Progressing", "message": "New revision detected."},
        {"type": "Verdict", "status": "True", "reason": "Threshold",
            "message": "Failed check 1 of 5: request-duration was 812 ms, above the maximum 500 ms."}]);
    let pod = |name: &str, state: Value, ready: bool| {
        json!({"metadata": {"name": name, "creationTimestamp": "2026-11-28T10:08:00Z"},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if ready {"True"} else {"False"}}],
                "containerStatuses": [state]}})
    };
    let running = json!({"restartCount": 0, "state": {"running": {}}});
    let crashing = json!({"restartCount": 6, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}});
    let mut seen = seen(&status, NEW, OLD);
    seen.pods = Some(vec![
        (
            Version::Primary,
            pod("podinfo-primary-7b9c-x", running.clone(), true),
        ),
        (Version::Canary, pod("podinfo-5d8f-b", crashing, false)),
        (Version::Canary, pod("podinfo-5d8f-a", running, true)),
    ]);
    seen.events = Some(vec![
        json!({"type": "Warning", "message": "Halt podinfo.test advancement request duration 812ms > 500ms", "lastTimestamp": "2026-11-28T10:11:37Z", "count": 2}),
        json!({"type": "Normal", "message": "Advance podinfo.test canary weight 30", "lastTimestamp": "2026-11-28T10:10:37Z"}),
    ]);
    seen
}

/// Compares with a file in `tests/texts`; `UPDATE_TEXTS=1` writes it.
fn is_text(name: &str, text: &str) {
    let path = format!(
        "{}/src/view/tests/texts/{name}.txt",
        env!("CARGO_MANIFEST_DIR")
    );
    if std::env::var_os("UPDATE_TEXTS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let file = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(file == text, "{path} is not:\n{text}");
}

fn detail(seen: &Seen, width: usize) -> String {
    let view = View::of(seen, now());
    let lines = render::detail(&view, width, now(), &Typed::new("kubectl flagger", &[]));
    lines
        .iter()
        .map(|line| paint(line, false, Some(width)) + "\n")
        .collect()
}

#[test]
fn a_canary_is_shown_as_in_the_text_files() {
    for width in [80, 200] {
        is_text(
            &format!("progressing-{width}"),
            &detail(&progressing(), width),
        );
    }
    let mut failed = status("Failed", NEW, OLD);
    failed["conditions"] = json!([{"type": "Verdict", "status": "True", "reason": "Aborted", "message": "Aborted by jane@example.com: errors at the checkout."},
        {"type": "Action", "status": "True", "reason": "Accepted", "message": "01-a abort by jane@example.com: errors at the checkout"}]);
    is_text("failed-80", &detail(&seen(&failed, NEW, OLD), 80));
    let mut paused = status("Progressing", NEW, OLD);
    paused["canaryWeight"] = json!(10);
    paused["conditions"] = json!([{"type": "Paused", "status": "True", "reason": "Accepted", "message": "by jane@example.com"}]);
    let unreadable = Seen {
        canary: canary(&paused),
        ..Seen::default()
    };
    is_text("paused-80", &detail(&unreadable, 80));
}

/// The JSON has numbers, and those that are whole are integers as before.
#[test]
fn steps_below_one_percent_are_shown_with_their_decimal_place() {
    let mut status = status("Progressing", NEW, OLD);
    status["canaryWeight"] = json!(1);
    status["canaryWeightDecimal"] = json!(0.5);
    let mut seen = seen(&status, NEW, OLD);
    seen.canary["spec"]["analysis"]["decimalStepWeights"] = json!([0.1, 0.5, 1, 50]);
    let view = View::of(&seen, now()).json();
    assert_eq!(view["weight"], json!({"intended": 0.5, "max": 50}));
    let steps = view["steps"].as_array().unwrap();
    let steps: Vec<_> = steps
        .iter()
        .map(|step| (&step["at"], &step["state"]))
        .collect();
    let (done, now, later) = (json!("done"), json!("now"), json!("later"));
    assert_eq!(
        steps,
        [
            (&json!(0.1), &done),
            (&json!(0.5), &now),
            (&json!(1), &later),
            (&json!(50), &later)
        ]
    );
    let text = detail(&seen, 80);
    for line in [
        "✓0.1 ▶0.5 ·1 ·50  step 2 of 4",
        "0.5 % to the canary, at most 50 %",
        "The version is analysed: 0.5 % of the traffic.",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn canaries_are_listed_as_in_the_text_file() {
    let columns = Columns {
        namespace: true,
        wide: false,
    };
    let mut blocked = status("Succeeded", OLD, OLD);
    blocked["conditions"] = json!([{"type": "Invalid", "status": "True", "reason": "Invalid", "message": "invalid canary spec: \u{1b}[31mno metric"}]);
    let all = [
        progressing(),
        seen(&status("Succeeded", OLD, OLD), OLD, OLD),
        seen(&blocked, OLD, OLD),
        seen(&json!(null), OLD, OLD),
    ];
    let table = |columns| {
        let rows = all
            .iter()
            .map(|seen| render::row(&View::of(seen, now()), columns, now()));
        let rows: Vec<_> = std::iter::once(render::head(columns)).chain(rows).collect();
        let lines = Table::default().lines(&rows);
        lines
            .iter()
            .map(|line| paint(line, false, None) + "\n")
            .collect::<String>()
    };
    let wide = Columns {
        wide: true,
        ..columns
    };
    is_text("list", &(table(columns) + "\n" + &table(wide)));
}

/// The JSON is an interface: you may add a field here, but not rename or remove one.
#[test]
fn the_json_of_a_view_is_as_documented() {
    is_text(
        "view",
        &format!("{:#}\n", View::of(&progressing(), now()).json()),
    );
}

#[test]
fn a_canary_that_cannot_be_read_is_shown_as_blocked() {
    let mut seen = progressing();
    seen.canary["spec"]["targetRef"] = json!(7);
    let view = View::of(&seen, now());
    assert_eq!((view.state, view.needs_attention), (State::Blocked, true));
    assert!(
        view.sentence
            .starts_with("The Canary cannot be read: invalid type: integer"),
        "{}",
        view.sentence
    );
    assert_eq!(view.full_name(), "test/podinfo");
}

/// The judgements of these canaries, one after the other.
fn follow(until: Until, wanted: Wanted, canaries: &[Seen]) -> Vec<Judgement> {
    let mut follower = Follower::new(until, wanted);
    let judge = |seen| follower.judge(&View::of(seen, now())).judgement;
    canaries.iter().map(judge).collect()
}

#[test]
fn a_version_is_waited_for_before_its_run_has_begun() {
    use Judgement::{No, NotBegun, NotYet, Superseded, WaitsForPerson, Yes};
    let image = || Wanted::Image("podinfo:3.1.1".to_owned());
    let before = seen(&status("Succeeded", OLD, OLD), OLD, OLD);
    let begins = seen(&status("Succeeded", OLD, OLD), NEW, OLD);
    let promoted = seen(&status("Succeeded", NEW, NEW), NEW, NEW);
    let failed = seen(&status("Failed", NEW, OLD), NEW, OLD);
    let gate = seen(&status("WaitingPromotion", NEW, OLD), NEW, OLD);
    let first_gate = seen(&status("Waiting", OLD, OLD), NEW, OLD);
    let newer = seen(&status("Progressing", NEW, OLD), "podinfo:3.1.2", OLD);
    let run = [before, begins.clone(), progressing()];
    let after = |last: &Seen| [&run[..], std::slice::from_ref(last)].concat();
    for (last, until, expected) in [
        (&promoted, Until::Ended, Yes),
        (&promoted, Until::Promoted, Yes),
        (&promoted, Until::Paused, No),
        (&promoted, Until::Failed, No),
        (&failed, Until::Ended, No),
        (&failed, Until::Failed, Yes),
        (&gate, Until::Promoted, WaitsForPerson),
        (&gate, Until::Paused, Yes),
        (&newer, Until::Promoted, Superseded),
    ] {
        let judged = follow(until, image(), &after(last));
        assert_eq!(judged, [NotBegun, NotBegun, NotYet, expected], "{until:?}");
    }
    assert_eq!(
        follow(Until::Paused, image(), &[begins, first_gate]),
        [NotBegun, Yes]
    );
    // An earlier version failed, not this one.
    let earlier = seen(&status("Failed", "podinfo:3.1.0-rc", OLD), NEW, OLD);
    assert_eq!(
        follow(Until::Ended, Wanted::Current, &[earlier]),
        [NotBegun]
    );
}

/// A person calls `flagger status` at once after `flagger retry`: the operator has accepted the action, and its run has not begun.
#[test]
fn a_failed_version_that_is_to_be_released_again_has_not_ended() {
    use Judgement::{No, NotYet, Yes};
    let failed = |conditions: Value| {
        let mut failed = status("Failed", NEW, OLD);
        failed["conditions"] = conditions;
        seen(&failed, NEW, OLD)
    };
    let condition = |type_: ConditionType| json!([{"type": type_.as_str(), "status": "True", "reason": "Accepted", "message": "by jane"}]);
    let again = failed(condition(ConditionType::RetryRequested));
    for wanted in [
        Wanted::Current,
        Wanted::Image(NEW.to_owned()),
        Wanted::Revision(named(NEW)),
    ] {
        for (until, otherwise) in [
            (Until::Promoted, No),
            (Until::Ended, No),
            (Until::Paused, No),
            (Until::Failed, Yes),
        ] {
            let run = [again.clone(), progressing()];
            assert_eq!(follow(until, wanted.clone(), &run), [NotYet, NotYet]);
            for other in [ConditionType::Action, ConditionType::Verdict] {
                let ended = [failed(condition(other))];
                assert_eq!(
                    follow(until, wanted.clone(), &ended),
                    [otherwise],
                    "{other:?}"
                );
            }
        }
    }
}

#[test]
fn a_version_that_was_promoted_stays_promoted_when_a_newer_one_begins() {
    use Judgement::{Superseded, Yes};
    let newer = seen(
        &status("Progressing", "podinfo:3.1.2", NEW),
        "podinfo:3.1.2",
        NEW,
    );
    let revision = |image: &str| Wanted::Revision(named(image));
    assert_eq!(
        follow(Until::Promoted, revision(NEW), std::slice::from_ref(&newer)),
        [Yes]
    );
    assert_eq!(
        follow(
            Until::Promoted,
            Wanted::Image(NEW.to_owned()),
            std::slice::from_ref(&newer)
        ),
        [Yes]
    );
    assert_eq!(
        follow(Until::Promoted, revision(OLD), &[newer]),
        [Superseded]
    );
}

/// After a failure the target may go back to the promoted version; after a failed change of a config it has that version all the time.
#[test]
fn a_failed_version_is_told_from_a_target_that_has_gone_back() {
    let with_code = |code: &str| {
        let mut failed = status("Failed", OLD, OLD);
        failed["conditions"] =
            json!([{"type": "Verdict", "status": "True", "reason": code, "message": "so it is"}]);
        seen(&failed, OLD, OLD)
    };
    let judged = |code| follow(Until::Promoted, Wanted::Current, &[with_code(code)]);
    assert_eq!(judged("Threshold"), [Judgement::No]);
    assert_eq!(judged("Reverted"), [Judgement::Yes]);
    let next = |code| View::of(&with_code(code), now()).next_commands(&Typed::new("flagger", &[]));
    let explain = "flagger -n test explain podinfo";
    assert_eq!(
        next("Threshold"),
        [explain, "flagger -n test retry podinfo"]
    );
    assert_eq!(next("Reverted"), [explain]);
}

/// The gate before more traffic is a part of the step. A skip ends the step, and nothing else opens the gate but the gate itself.
#[test]
fn a_closed_gate_before_more_traffic_waits_for_a_person() {
    let mut running = status("Progressing", NEW, OLD);
    running["conditions"] = json!([{"type": "Verdict", "status": "True", "reason": "Gate", "message": "Waits until the gate opens."}]);
    let view = View::of(&seen(&running, NEW, OLD), now());
    assert_eq!((view.state, view.next_step), (State::Waiting, None));
    let typed = Typed::new("flagger", &["--context prod".to_owned()]);
    let reason = "podinfo --reason \"…\"";
    let expected =
        ["skip", "abort"].map(|verb| format!("flagger --context prod -n test {verb} {reason}"));
    assert_eq!(view.next_commands(&typed), expected);
}

#[test]
fn images_that_differ_in_their_registry_only_are_shown_whole() {
    let pair = text::image_pair("a.io/team/web:1", "b.io/x/web:1");
    assert_eq!(pair, ("a.io/team/web:1", "b.io/x/web:1"));
    assert_eq!(
        text::image_pair("a.io/web:1", "a.io/web:2"),
        ("web:1", "web:2")
    );
    assert_eq!(
        text::image_pair("a.io/web:1", "a.io/web:1"),
        ("web:1", "web:1")
    );
}

/// The sentence of a release that cannot go on has the write that is refused.
#[test]
fn a_refused_write_is_in_the_sentence() {
    let mut running = status("Progressing", NEW, OLD);
    running["conditions"] = json!([{"type": "WriteRefused", "status": "True", "reason": "VirtualService", "message": "The API server refuses it."}]);
    let view = View::of(&seen(&running, NEW, OLD), now());
    assert_eq!(
        view.sentence,
        "The version has no traffic yet: its pods must be ready first. The API server refuses it."
    );
    assert_eq!(
        (view.state, view.code.as_str()),
        (State::Progressing, "WriteRefused")
    );
    assert!(view.needs_attention && view.next_step.is_none());
}

/// A comparison of the canary with the primary found too few requests.
#[test]
fn a_version_that_a_comparison_cannot_decide_about_waits_for_a_person() {
    let mut running = status("Progressing", NEW, OLD);
    for (code, judgement) in [
        ("LowTraffic", Judgement::NotYet),
        ("Undecided", Judgement::WaitsForPerson),
    ] {
        running["conditions"] =
            json!([{"type": "Verdict", "status": "True", "reason": code, "message": "Waits."}]);
        let judged = follow(
            Until::Promoted,
            Wanted::Current,
            &[seen(&running, NEW, OLD)],
        );
        assert_eq!(judged, [judgement], "{code}");
    }
    let commands =
        View::of(&seen(&running, NEW, OLD), now()).next_commands(&Typed::new("flagger", &[]));
    assert_eq!(commands[0], "flagger -n test skip podinfo --reason \"…\"");
}

/// A pipeline may ask for its version after a newer version has taken its place.
#[test]
fn the_records_tell_what_became_of_a_version_that_is_gone() {
    let newer = seen(
        &status("Progressing", "podinfo:3.1.2", OLD),
        "podinfo:3.1.2",
        OLD,
    );
    let view = View::of(&newer, now());
    let recorded = |result: &str| {
        let record = json!({"canary": "podinfo", "revision": named(NEW), "strategy": "canary", "result": result,
            "images": [{"name": "podinfod", "from": OLD, "to": NEW}]});
        vec![serde_json::from_value(record).unwrap()]
    };
    let judge = |wanted: Wanted, records| {
        let mut follower = Follower::new(Until::Ended, wanted).with_records(records);
        let judged = follower.judge(&view);
        (judged.judgement, judged.word)
    };
    let superseded = (Judgement::Superseded, "Superseded");
    let (image, revision) = (
        || Wanted::Image("podinfo:3.1.1".to_owned()),
        || Wanted::Revision(named(NEW)),
    );
    assert_eq!(judge(image(), recorded("Superseded")), superseded);
    assert_eq!(judge(revision(), recorded("Superseded")), superseded);
    let failed = (Judgement::No, "Failed");
    for result in ["Failed", "Aborted"] {
        assert_eq!(judge(revision(), recorded(result)), failed, "{result}");
        assert_eq!(judge(image(), recorded(result)), failed, "{result}");
    }
    // A revert in Git brings an image back, and the record is about its earlier run.
    let pending = (Judgement::NotBegun, "Pending");
    assert_eq!(judge(image(), recorded("Promoted")), pending);
    let mut older = recorded("Superseded");
    older.extend(recorded("Failed"));
    older[0].images[0].to = "podinfo:3.1.2".to_owned();
    assert_eq!(judge(image(), older), failed);
    assert_eq!(judge(image(), Vec::new()), pending);
    let unknown = (Judgement::Superseded, "Unknown");
    assert_eq!(judge(revision(), Vec::new()), unknown);
    // The word is about the wanted version, although the view is about the newer one.
    let promoted = Wanted::Image("podinfo:3.1.0".to_owned());
    assert_eq!(
        judge(promoted, Vec::new()),
        (Judgement::Yes, State::Promoted.as_str())
    );
}

#[test]
fn without_the_right_to_read_the_target_the_status_alone_decides() {
    use Judgement::{NotYet, Unknown, Yes};
    let hidden = |status: &Value| Seen {
        canary: canary(status),
        ..Seen::default()
    };
    let canaries = [
        hidden(&status("Progressing", NEW, OLD)),
        hidden(&status("Succeeded", NEW, NEW)),
    ];
    assert_eq!(
        follow(Until::Promoted, Wanted::Current, &canaries),
        [NotYet, Yes]
    );
    assert_eq!(
        follow(
            Until::Promoted,
            Wanted::Image(NEW.to_owned()),
            &canaries[..1]
        ),
        [Unknown]
    );
}

#[test]
fn outside_a_run_the_status_does_not_tell_about_a_target_that_cannot_be_read() {
    use Judgement::{NotYet, Unknown, Yes};
    let hidden = |status: &Value| Seen {
        canary: canary(status),
        ..Seen::default()
    };
    let promoted = status("Succeeded", OLD, OLD);
    let until = |canaries: &[Seen]| follow(Until::Promoted, Wanted::Current, canaries);
    assert_eq!(until(&[hidden(&promoted)]), [Unknown]);
    // If the API server does not answer once, that does not mean that a right is missing.
    let unanswered = Seen {
        unanswered: true,
        ..hidden(&promoted)
    };
    let image = Wanted::Image(OLD.to_owned());
    assert_eq!(
        follow(Until::Promoted, image, std::slice::from_ref(&unanswered)),
        [NotYet]
    );
    assert_eq!(
        until(&[unanswered, seen(&promoted, OLD, OLD)]),
        [NotYet, Yes]
    );
}

#[test]
fn a_release_is_a_row_of_the_history() {
    let release = crate::records::read(&json!({"apiVersion": "flagger-rs.github.io/v1alpha1", "kind": "Release",
        "metadata": {"name": "podinfo-1"}, "spec": {"canary": "podinfo", "revision": "v1-b", "strategy": "canary", "result": "Failed",
            "images": [{"name": "podinfod", "from": OLD, "to": NEW}], "trigger": "argocd\u{1b}[31m",
            "startedAt": "2026-11-28T10:02:03Z", "endedAt": "2026-11-28T10:05:03Z", "evidence": "nonsense",
            "cause": {"code": "NoData", "sentence": "no data"}}}))
    .unwrap();
    let texts = |is_wide| -> Vec<_> {
        let row = render::history_row(&release, is_wide, now());
        let lines = Table::default().lines(&[render::history_head(is_wide), row]);
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        lines.iter().map(|line| words(&line.text())).collect()
    };
    let wide = texts(true);
    assert_eq!(wide[0], "WHEN FROM TO RESULT TOOK BY RELEASE WHY");
    assert!(wide[1].ends_with("podinfo-1 no data"), "{wide:?}");
    let texts = texts(false);
    assert_eq!(texts[0], "WHEN FROM TO RESULT TOOK BY RELEASE");
    assert!(
        texts[1].starts_with("10m ago podinfo:3.1.0 podinfo:3.1.1 Failed 3m"),
        "{texts:?}"
    );
    assert!(!texts[1].contains('\u{1b}'), "{texts:?}");
    let decoded = crate::records::decoded(&release);
    assert_eq!(
        (&decoded["result"], &decoded["evidence"]),
        (&json!("Failed"), &Value::Null)
    );
}
