//! The record of a version that waits for its run.

use super::*;

/// The change from one status to another, of a canary whose target has this image.
fn change(before: Value, after: Value, image: &str) -> (Snapshot, CanaryStatus) {
    let mut snapshot = at(before);
    let target = snapshot.reference(Kind::Deployment, "podinfo");
    let labels = json!({"app": "podinfo"});
    let containers = json!([{"name": "podinfod", "image": image}]);
    let object = json!({"metadata": {"name": "podinfo"}, "spec": {"selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}}}});
    snapshot.objects.insert(target, object);
    (snapshot, parsed(after))
}

const fn committed<'a>(
    (snapshot, status): &'a (Snapshot, CanaryStatus),
    measurements: &'a Measurements,
) -> Committed<'a> {
    Committed {
        snapshot,
        status,
        measurements,
    }
}

/// The status of a version with this image, in this phase.
fn of(image: &str, phase: &str) -> Value {
    let (snapshot, _) = change(json!({"phase": phase}), json!({"phase": phase}), image);
    let (revision, _) = rollout::version(&snapshot).unwrap();
    let mut status = status(phase, 0);
    status["lastAppliedSpec"] = json!(revision);
    status
}

/// The status while a version waits. It does not have the revision of this version.
fn waiting() -> Value {
    of("app:1", "Waiting")
}

fn waits_from_now() -> Record {
    let wait = change(of("app:1", "Succeeded"), waiting(), "app:2");
    let none = Measurements::default();
    let begins = committed(&wait, &none);
    assert!(begins.starts() && begins.concerns_a_run());
    Record::begin(begins)
}

#[test]
fn each_action_before_the_run_is_in_the_record_of_the_version_that_waits() {
    let none = Measurements::default();
    let mut record = waits_from_now();
    let act = |id: &str, second| {
        acted(
            waiting(),
            second,
            &format!("{id} pause by jane: night"),
            "Paused",
        )
    };
    for (before, after) in [(waiting(), act("a1", 1)), (act("a1", 1), act("a2", 2))] {
        let action = change(before, after, "app:2");
        assert!(record.note(committed(&action, &none)));
    }
    let start = change(act("a2", 2), of("app:2", "Progressing"), "app:2");
    let start = committed(&start, &none);
    assert!(!start.starts() && !start.is_of_another_run(&record.spec.revision));
    assert!(record.note(start), "the start of the run is written");
    let actions: Vec<_> = record
        .spec
        .actions
        .iter()
        .map(|it| &it.action[..2])
        .collect();
    assert_eq!(actions, ["a1", "a2"]);
    let phases: Vec<_> = record
        .evidence
        .timeline
        .iter()
        .map(|it| it.phase.as_str())
        .collect();
    assert_eq!(phases, ["Waiting", "Progressing"]);
}

#[test]
fn a_version_that_comes_during_the_wait_has_a_record_of_its_own() {
    let none = Measurements::default();
    let record = waits_from_now();
    let newer = change(waiting(), of("app:3", "Progressing"), "app:3");
    assert!(committed(&newer, &none).is_of_another_run(&record.spec.revision));
}

#[test]
fn a_version_that_is_aborted_or_taken_back_before_its_run_has_an_end() {
    let none = Measurements::default();
    let pending = |mut status: Value, outcome: &str| {
        let condition = json!({"type": "NoticePending", "status": "True", "reason": outcome, "message": "by jane"});
        status["conditions"] = json!([condition]);
        status
    };
    for (after, image, result) in [
        (
            pending(of("app:2", "Failed"), "Aborted"),
            "app:2",
            ReleaseResult::Aborted,
        ),
        (
            pending(of("app:1", "Succeeded"), "Reverted"),
            "app:1",
            ReleaseResult::Withdrawn,
        ),
    ] {
        let mut record = waits_from_now();
        let end = change(waiting(), after, image);
        let end = committed(&end, &none);
        assert!(end.concerns_a_run() && record.note(end));
        assert_eq!(record.spec.result, result);
        // Another process has begun the record.
        let running = [Release::new("r", waits_from_now().spec)];
        assert!(
            matches!(of_run(&running, end), OfRun::Running(_)),
            "{result:?}"
        );
    }
}
