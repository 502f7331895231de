#![allow(clippy::disallowed_methods, reason = "the tests compare with files")]

//! Tests of records: how they grow, how small they stay, and the text of `explain`.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::*;
use crate::{
    api::release::{HookCall, Measured, Metric},
    rollout,
    routers::tests::{canary_analysis, snapshot},
    snapshot::Tick,
};

mod waits;

const QUERY: &str =
    "sum(rate(requests_total{code!~\"5..\"}[1m])) / sum(rate(requests_total[1m])) * 100";

/// A snapshot whose status is this.
fn at(status: Value) -> Snapshot {
    let mut snapshot = snapshot("istio", json!({"port": 80}), canary_analysis(), json!({}));
    snapshot.canary.status = Some(serde_json::from_value(status).unwrap());
    snapshot
}

fn status(phase: &str, weight: i64) -> Value {
    json!({"phase": phase, "canaryWeight": weight, "lastAppliedSpec": "v1-2", "lastPromotedSpec": "v1-1",
        "lastTransitionTime": format!("2026-01-01T00:{weight:02}:00Z"), "conditions": []})
}

fn parsed(status: Value) -> CanaryStatus {
    serde_json::from_value(status).unwrap()
}

fn measured(value: f64, failure: Option<&str>) -> Measurements {
    let metric = Metric {
        name: "request-success-rate".into(),
        provider: "prometheus".into(),
        host: "prometheus".into(),
        query: QUERY.into(),
        unit: "%".into(),
        min: Some(99.0),
        ..Metric::default()
    };
    let measured = Measured {
        metric: 0,
        value: Some(value),
        failure: failure.map(str::to_owned),
        comparison: None,
    };
    let hooks = vec![HookCall {
        name: "load".into(),
        kind: "rollout".into(),
        host: "loadtester".into(),
        status: Some(200),
        ..HookCall::default()
    }];
    Measurements {
        values: vec![(metric, measured)],
        hooks,
    }
}

/// Adds the change from one status to another.
fn note(record: &mut Record, before: Value, after: Value, measurements: &Measurements) -> bool {
    let (snapshot, status) = (at(before), parsed(after));
    record.note(Committed {
        snapshot: &snapshot,
        status: &status,
        measurements,
    })
}

fn begun() -> Record {
    let (snapshot, status) = (at(status("Succeeded", 0)), parsed(status("Progressing", 0)));
    let committed = Committed {
        snapshot: &snapshot,
        status: &status,
        measurements: &Measurements::default(),
    };
    assert!(committed.starts() && committed.concerns_a_run());
    Record::begin(committed)
}

#[test]
fn a_run_without_failures_is_written_only_at_its_start_and_its_end() {
    let mut record = begun();
    let measurements = measured(99.9, None);
    for weight in 1..9 {
        let (before, after) = (
            status("Progressing", weight - 1),
            status("Progressing", weight),
        );
        assert!(!note(&mut record, before, after, &measurements), "{weight}");
    }
    let mut end = status("Succeeded", 0);
    end["conditions"] =
        json!([{"type": "NoticePending", "status": "True", "reason": "Promoted", "message": ""}]);
    assert!(note(
        &mut record,
        status("Finalising", 0),
        end,
        &Measurements::default()
    ));
    let spec = &record.spec;
    assert_eq!(spec.result, ReleaseResult::Promoted);
    assert_eq!((spec.weight, record.evidence.measurements.len()), (8, 8));
    assert_eq!(record.evidence.metrics.len(), 1);
    assert_eq!(
        spec.cause.as_ref().unwrap().sentence,
        "The version was promoted."
    );
}

/// Both are 1 % in the field `canaryWeight`.
#[test]
fn a_step_from_a_tenth_to_one_percent_is_a_step_of_the_record() {
    let at = |weight: i64, exact: Value| {
        let mut status = status("Progressing", weight);
        if !exact.is_null() {
            status["lastTransitionTime"] = json!("2026-01-01T00:00:30Z");
        }
        status["canaryWeightDecimal"] = exact;
        status
    };
    let mut record = begun();
    let steps = [
        status("Progressing", 0),
        at(1, json!(0.1)),
        at(1, Value::Null),
        at(50, Value::Null),
    ];
    for pair in steps.windows(2) {
        let (before, after) = (pair[0].clone(), pair[1].clone());
        note(&mut record, before, after, &measured(99.9, None));
    }
    let evidence = unpack(&pack(&record.evidence).unwrap()).unwrap();
    let timeline = evidence.timeline.iter().map(|it| it.weight.to_string());
    assert_eq!(timeline.collect::<Vec<_>>(), ["0", "0.1", "1", "50"]);
    let measured = evidence.measurements.iter().map(|it| it.weight.to_string());
    assert_eq!(measured.collect::<Vec<_>>(), ["0", "0.1", "1"]);
    assert_eq!(record.spec.weight, 50);
}

#[test]
fn a_failed_check_and_an_action_are_written_at_once() {
    let mut record = begun();
    let mut failed = status("Progressing", 5);
    failed["conditions"] = json!([{"type": "Verdict", "status": "True", "reason": "Threshold", "message": "Failed check 1 of 5."}]);
    let measurements = measured(90.0, Some("too low"));
    assert!(note(
        &mut record,
        status("Progressing", 5),
        failed.clone(),
        &measurements
    ));
    assert_eq!(record.spec.cause.as_ref().unwrap().code, "Threshold");
    // The same status again adds nothing.
    assert!(!note(
        &mut record,
        failed.clone(),
        failed.clone(),
        &measurements
    ));
    let mut paused = status("Progressing", 5);
    paused["conditions"] = json!([{"type": "Action", "status": "True", "reason": "Accepted", "message": "ID pause by jane"}]);
    assert!(note(&mut record, failed, paused, &Measurements::default()));
    assert_eq!(record.spec.actions[0].action, "ID pause by jane");
    assert_eq!(record.spec.cause, None);
}

#[test]
fn two_changes_within_one_step_are_one_look() {
    let mut record = begun();
    let step = status("Progressing", 5);
    for value in [90.0, 91.0] {
        note(
            &mut record,
            step.clone(),
            step.clone(),
            &measured(value, None),
        );
    }
    assert_eq!(record.evidence.measurements.len(), 1);
    assert_eq!(record.evidence.measurements[0].values[0].value, Some(91.0));
    assert_eq!(record.evidence.hooks.len(), 1);
}

#[test]
fn a_record_of_a_very_long_run_stays_small_and_keeps_its_failures() {
    let mut record = begun();
    for n in 0..1000_i64 {
        let failure = (n == 3).then_some("too low");
        let mut before = status("Progressing", 1);
        let at = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(n);
        before["lastTransitionTime"] = json!(at.to_string());
        note(
            &mut record,
            before,
            status("Progressing", n % 50),
            &measured(1.0, failure),
        );
    }
    let packed = pack(&record.evidence).unwrap();
    assert!(packed.len() < 32 * 1024, "{}", packed.len());
    let evidence = unpack(&packed).unwrap();
    assert_eq!(evidence, record.evidence);
    assert_eq!(
        evidence
            .measurements
            .iter()
            .filter(|it| !it.passed())
            .count(),
        1
    );
    assert!(evidence.left_out > 800, "{}", evidence.left_out);
}

#[test]
fn evidence_that_someone_else_wrote_is_not_believed() {
    for odd in ["", "%", "aGVsbG8=", "H4sIAAAAAAAA"] {
        assert_eq!(unpack(odd), None, "{odd}");
    }
    let spec = ReleaseSpec {
        canary: "podinfo\n\u{1b}[31m".into(),
        evidence: Some("aGVsbG8=".into()),
        ..ReleaseSpec::default()
    };
    let text = explain(&spec);
    assert!(text.contains("The evidence cannot be read"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn a_record_of_an_earlier_process_goes_on_with_a_gap() {
    let mut record = begun();
    note(
        &mut record,
        status("Progressing", 0),
        status("Progressing", 10),
        &measured(99.9, None),
    );
    let canary = at(status("Progressing", 10)).canary;
    let object = record.object(&canary);
    assert_eq!(object["metadata"]["labels"][RESULT], "Running");
    let resumed = Record::resume(&read(&object).unwrap());
    assert_eq!(resumed.name, record.name);
    assert_eq!(resumed.spec.gaps, 1);
    assert_eq!(resumed.evidence, record.evidence);
}

/// A status with an action of a person.
fn acted(mut status: Value, second: u32, message: &str, requested: &str) -> Value {
    let at = format!("2026-01-01T01:00:{second:02}Z");
    status["conditions"] = json!([
        {"type": "Action", "status": "True", "reason": "Accepted", "message": message, "lastUpdateTime": at, "lastTransitionTime": at},
        {"type": requested, "status": "True", "reason": "Accepted", "message": "", "lastUpdateTime": at, "lastTransitionTime": at},
    ]);
    status
}

#[test]
fn an_action_between_two_measurements_replaces_none_of_them() {
    let mut record = begun();
    let none = Measurements::default();
    let running = |weight| status("Progressing", weight);
    note(&mut record, running(10), running(20), &measured(99.1, None));
    let paused = acted(running(20), 0, "k1 pause jane: look", "Paused");
    note(&mut record, running(20), paused.clone(), &none);
    note(&mut record, paused, running(30), &measured(99.2, None));
    assert_eq!(record.evidence.measurements.len(), 2);
}

#[test]
fn each_tick_of_a_pause_measures_once() {
    let mut record = begun();
    let paused = acted(
        status("Progressing", 20),
        0,
        "k1 pause jane: look",
        "Paused",
    );
    let mut written = Vec::new();
    for minute in 0..10 {
        let mut snapshot = at(paused.clone());
        snapshot.tick = Some(Tick {
            at: format!("2026-01-01T02:{minute:02}:00Z").parse().unwrap(),
            late: false,
        });
        let status = snapshot.status().clone();
        // An event during the step repeats its decision.
        for value in [99.1, 99.2] {
            let is_written = record.note(Committed {
                snapshot: &snapshot,
                status: &status,
                measurements: &measured(value, None),
            });
            written.push(is_written);
        }
    }
    let values = { record.evidence.measurements.iter() }.map(|it| it.values[0].value);
    assert_eq!(values.collect::<Vec<_>>(), [Some(99.2); 10]);
    // The first one has the pause itself, and the tenth measurement is written once.
    let at = |(place, is_written): (usize, &bool)| is_written.then_some(place);
    let places: Vec<_> = written.iter().enumerate().filter_map(at).collect();
    assert_eq!(places, [0, 18]);
}

#[test]
fn the_action_that_began_a_run_and_one_before_a_crash_are_in_its_record() {
    let retry = acted(
        status("Failed", 0),
        0,
        "k1 retry jane: fixed",
        "RetryRequested",
    );
    let (snapshot, after) = (at(retry), parsed(status("Progressing", 0)));
    let committed = Committed {
        snapshot: &snapshot,
        status: &after,
        measurements: &Measurements::default(),
    };
    let record = Record::begin(committed);
    let actions = |record: &Record| -> Vec<String> {
        { record.spec.actions.iter() }
            .map(|it| it.action.clone())
            .collect()
    };
    assert_eq!(actions(&record), ["k1 retry jane: fixed"]);

    let mut record = begun();
    record.spec.started_at = Some(Time("2026-01-01T01:00:00Z".parse().unwrap()));
    let running = || status("Progressing", 10);
    let skipped =
        |id: &str, second| acted(running(), second, &format!("{id} skip jane: go"), "Other");
    // The operator ended before it recorded this action.
    note(
        &mut record,
        skipped("k2", 5),
        running(),
        &Measurements::default(),
    );
    note(
        &mut record,
        skipped("k2", 5),
        skipped("k3", 6),
        &Measurements::default(),
    );
    // The ID of an action by hand changes once its annotation is removed.
    note(
        &mut record,
        running(),
        skipped("-", 7),
        &Measurements::default(),
    );
    note(
        &mut record,
        skipped("-", 7),
        skipped("by-hand", 7),
        &Measurements::default(),
    );
    let expected = ["k2 skip jane: go", "k3 skip jane: go", "- skip jane: go"];
    assert_eq!(actions(&record), expected);
}

/// The record that `of_run` finds for the change from one status to another, after a restart of the operator.
fn found(releases: &[Release], before: Value, after: Value) -> String {
    let (snapshot, status) = (at(before), parsed(after));
    let committed = Committed {
        snapshot: &snapshot,
        status: &status,
        measurements: &Measurements::default(),
    };
    match of_run(releases, committed) {
        OfRun::Running(release) => format!("running {}", release.metadata.name.as_ref().unwrap()),
        OfRun::Complete => "complete".into(),
        OfRun::Missing => "missing".into(),
    }
}

#[test]
fn after_a_restart_the_record_of_the_run_is_found_or_known_to_be_missing() {
    let release = |name: &str, revision: &str, result| {
        let order = i64::try_from(name.len()).unwrap();
        let spec = ReleaseSpec {
            revision: revision.into(),
            started_at: Some(Time(Timestamp::from_second(order).unwrap())),
            result,
            ..ReleaseSpec::default()
        };
        Release::new(name, spec)
    };
    let running = || status("Progressing", 10);
    let succeeded = |revision: &str| {
        let mut status = status("Succeeded", 0);
        status["lastAppliedSpec"] = json!(revision);
        status
    };
    let ours = release("ours", "v1-2", ReleaseResult::Running);
    let earlier = release("old", "v1-1", ReleaseResult::Running);
    let both = [earlier.clone(), ours.clone()];
    assert_eq!(found(&both, running(), running()), "running ours");
    // The status of the new run was committed, but its record was not created.
    let earlier = [earlier];
    assert_eq!(found(&earlier, running(), running()), "missing");
    assert_eq!(found(&[], running(), running()), "missing");
    // The user took the version back: the status has the revision of the primary.
    let taken_back = || {
        let mut status = succeeded("v1-1");
        status["conditions"] = json!([{"type": "NoticePending", "status": "True", "reason": "Reverted", "message": ""}]);
        status
    };
    assert_eq!(found(&[ours], taken_back(), taken_back()), "running ours");
    let ended = |time: &str| {
        let mut ended = release("ours", "v1-2", ReleaseResult::Promoted);
        ended.spec.ended_at = Some(Time(time.parse().unwrap()));
        [ended]
    };
    let (this, before) = (ended("2026-01-01T00:00:01Z"), ended("2025-12-31T23:59:59Z"));
    assert_eq!(found(&this, taken_back(), taken_back()), "complete");
    // A run without a record does not end the record of an earlier run.
    let unended = [release("old", "v1-1", ReleaseResult::Running)];
    assert_eq!(
        found(&unended, succeeded("v1-2"), succeeded("v1-2")),
        "missing"
    );
    // The operator created no record for the run that began and ended with one commit.
    assert_eq!(
        found(&before, succeeded("v1-2"), succeeded("v1-2")),
        "missing"
    );
}

#[test]
fn the_last_promoted_and_the_last_failed_record_are_kept() {
    let release = |name: &str, second: i64, result| {
        let spec = ReleaseSpec {
            started_at: Some(Time(Timestamp::from_second(second).unwrap())),
            result,
            ..ReleaseSpec::default()
        };
        Release::new(name, spec)
    };
    let releases = [
        release("a", 1, ReleaseResult::Failed),
        release("b", 2, ReleaseResult::Promoted),
        release("c", 3, ReleaseResult::Superseded),
        release("d", 4, ReleaseResult::Superseded),
        release("e", 5, ReleaseResult::Superseded),
    ];
    assert_eq!(outdated(&releases, 3), ["c"]);
    assert_eq!(outdated(&releases, 1), ["e", "d", "c"]);
    assert_eq!(outdated(&releases, 9), [""; 0]);
}

/// A step each minute, and an end five seconds after the last one.
fn set_times(record: &mut Record) {
    let start: Timestamp = "2026-11-28T10:12:03Z".parse().unwrap();
    let time = |seconds| Some(Time(start + SignedDuration::from_secs(seconds)));
    record.spec.started_at = time(0);
    record.spec.ended_at = time(125);
    let evidence = &mut record.evidence;
    for (call, seconds) in evidence.hooks.iter_mut().zip([60, 120]) {
        call.at = time(seconds);
    }
    for (measurement, seconds) in evidence.measurements.iter_mut().zip([60, 120]) {
        measurement.at = time(seconds);
    }
    for (moment, seconds) in evidence.timeline.iter_mut().zip([0, 60, 125]) {
        moment.at = time(seconds);
    }
}

#[test]
fn an_explanation_begins_with_a_sentence_and_shows_the_measurements() {
    let mut record = begun();
    record.spec.images = changes(
        &[("app".into(), "repo/podinfo:3.1.0".into())],
        &[("app".into(), "repo/podinfo:3.1.1".into())],
    );
    record.spec.trigger = Some("kubectl".into());
    note(
        &mut record,
        status("Progressing", 0),
        status("Progressing", 10),
        &measured(99.9, None),
    );
    let mut failed = status("Progressing", 10);
    let sentence = "Failed check 1 of 1: request-success-rate was 93.2 %, below the minimum 99 %.";
    failed["conditions"] =
        json!([{"type": "Verdict", "status": "True", "reason": "Threshold", "message": sentence}]);
    let why = "request-success-rate was 93.2 %, below the minimum 99 %";
    note(
        &mut record,
        status("Progressing", 10),
        failed,
        &measured(93.2, Some(why)),
    );
    let mut end = status("Failed", 0);
    let sentence = "1 failed check reached the threshold of 1. In the last one, request-success-rate was 93.2 %, below the minimum 99 %.";
    end["conditions"] = json!([
        {"type": "NoticePending", "status": "True", "reason": "FailedChecks", "message": "1"},
        {"type": "Verdict", "status": "True", "reason": "Threshold", "message": sentence}]);
    note(
        &mut record,
        status("Progressing", 10),
        end,
        &Measurements::default(),
    );
    set_times(&mut record);
    let object = record.object(&at(status("Failed", 0)).canary);
    let spec: ReleaseSpec = serde_json::from_value(object["spec"].clone()).unwrap();
    let text = explain(&spec);
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/records/tests/explanation.txt"
    );
    if std::env::var_os("UPDATE_TEXTS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let file = std::fs::read_to_string(path).unwrap_or_default();
    assert!(file == text, "{path} is not:\n{text}");
}

#[test]
fn a_change_of_a_config_within_a_run_starts_another_run() {
    let mut changed = status("Progressing", 0);
    changed["trackedConfigs"] = json!({"configmap/color": "2"});
    let (snapshot, status) = (at(status("Progressing", 20)), parsed(changed));
    let committed = Committed {
        snapshot: &snapshot,
        status: &status,
        measurements: &Measurements::default(),
    };
    assert!(committed.starts());
}

#[test]
fn evidence_with_a_hundred_long_queries_fits_into_its_object() {
    let mut evidence = RunEvidence::default();
    let mut noise: u32 = 1;
    for place in 0..100 {
        let mut query = String::new();
        while query.len() < 2000 {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            query += &noise.to_string();
        }
        evidence.metrics.push(Metric {
            query,
            ..Metric::default()
        });
        let value = Measured {
            metric: place,
            ..Measured::default()
        };
        evidence.measurements.push(Measurement {
            values: vec![value],
            ..Measurement::default()
        });
    }
    let packed = pack(&evidence).unwrap();
    assert!(packed.len() <= 32 * 1024);
    let kept = unpack(&packed).unwrap();
    assert_eq!(kept.metrics.len(), kept.measurements.len());
    assert!(!kept.measurements.is_empty() && kept.left_out > 0);
}

#[test]
fn a_run_whose_end_nobody_recorded_is_no_failure_if_the_primary_has_its_version() {
    for (promoted, result) in [
        ("v1-2", ReleaseResult::Promoted),
        ("v1-1", ReleaseResult::Superseded),
    ] {
        let mut record = begun();
        record.lose(Timestamp::UNIX_EPOCH, Some(promoted));
        assert_eq!(record.spec.result, result);
    }
}
