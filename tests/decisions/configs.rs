//! Releases of what a pod reads besides its image.

use super::*;

/// A ConfigMap `color`, read by the target, which may do without it or not; the release of it is over.
fn with_config(optional: bool) -> Model {
    let mut model = release(json!({"stepWeight": 50}));
    let target = model.snapshot.reference(Kind::Deployment, "podinfo");
    let target = model.snapshot.objects.get_mut(&target).unwrap();
    target["spec"]["template"]["spec"]["containers"][0]["envFrom"] =
        json!([{"configMapRef": {"name": "color", "optional": optional}}]);
    if !optional {
        color(&mut model, "red");
    }
    model.run_until(CanaryPhase::Succeeded);
    model
}

fn color(model: &mut Model, color: &str) {
    let name = model.snapshot.reference(Kind::ConfigMap, "color");
    let object =
        json!({"metadata": {"name": "color", "namespace": "test"}, "data": {"color": color}});
    model.store(name, object);
}

fn copy(model: &Model) -> Option<Value> {
    let name = model.snapshot.reference(Kind::ConfigMap, "color-primary");
    Some(model.snapshot.objects.get(&name)?["data"]["color"].clone())
}

fn lines(model: &Model, what: &str) -> usize {
    model.transcript().matches(what).count()
}

#[test]
fn the_primary_sees_a_config_with_the_template_that_was_analysed_with_it() {
    let mut model = with_config(false);
    assert_eq!(copy(&model), Some(json!("red")));
    color(&mut model, "blue");
    while model.snapshot.phase() != CanaryPhase::Promoting {
        model.reconcile();
        assert_eq!(copy(&model), Some(json!("red")), "{}", model.transcript());
    }
    model.run_until(CanaryPhase::Succeeded);
    assert_eq!(copy(&model), Some(json!("blue")));
    let transcript = model.transcript();
    let lines: Vec<_> = transcript
        .lines()
        .map(|line| line.split_off_time())
        .collect();
    let at = lines
        .iter()
        .rposition(|line| line.contains("ConfigMap color-primary"))
        .unwrap();
    assert!(
        lines[at + 1].contains("patch  Deployment podinfo-primary: template"),
        "right after it: {transcript}"
    );
}

trait Line {
    fn split_off_time(&self) -> String;
}

impl Line for &str {
    fn split_off_time(&self) -> String {
        self.split_once(" s ")
            .map_or(*self, |(_, rest)| rest)
            .to_owned()
    }
}

/// A rollback leaves the primary what it had.
#[test]
fn a_config_that_fails_its_analysis_never_reaches_the_primary() {
    let mut model = with_config(false);
    model.metric = "97.5".to_owned();
    color(&mut model, "blue");
    model.run_until(CanaryPhase::Failed);
    assert_eq!(copy(&model), Some(json!("red")));
}

#[test]
fn a_config_that_a_pod_can_do_without_is_a_new_version_when_it_comes_and_when_it_goes() {
    let mut model = with_config(true);
    assert_eq!(copy(&model), None);
    let runs = lines(&model, "New revision detected! Scaling up");
    color(&mut model, "red");
    for _ in 0..60 {
        model.reconcile();
    }
    model.run_until(CanaryPhase::Succeeded);
    assert_eq!(copy(&model), Some(json!("red")));
    assert_eq!(lines(&model, "New revision detected! Scaling up"), runs + 1);
    let name = model.snapshot.reference(Kind::ConfigMap, "color");
    model.snapshot.objects.remove(&name);
    for _ in 0..60 {
        model.reconcile();
    }
    model.run_until(CanaryPhase::Succeeded);
    assert_eq!(lines(&model, "New revision detected! Scaling up"), runs + 2);
}

/// The status of an operator that did not track configs has none on record.
#[test]
fn to_begin_to_track_configs_restarts_no_analysis_that_has_none() {
    let mut model = release(json!({"stepWeight": 20}));
    while rollout::weights(&model.snapshot).unwrap().canary == 0 {
        model.reconcile();
    }
    model
        .snapshot
        .canary
        .status
        .as_mut()
        .unwrap()
        .tracked_configs = None;
    model.run_until(CanaryPhase::Succeeded);
    assert_eq!(
        lines(&model, "Restarting analysis"),
        0,
        "{}",
        model.transcript()
    );
}

#[test]
fn a_config_that_is_missing_is_said_in_flaggers_words_and_nothing_is_made_without_it() {
    let mut model = with_config(false);
    for gone in [
        model.snapshot.reference(Kind::ConfigMap, "color"),
        model
            .snapshot
            .reference(Kind::Deployment, "podinfo-primary"),
    ] {
        model.snapshot.objects.remove(&gone);
    }
    for _ in 0..30 {
        model.reconcile();
    }
    assert!(model.snapshot.primary().is_none(), "{}", model.transcript());
    let said = "GetTargetConfigs failed: configmap color.test get query error: configmap  color.test get query error: configmaps \"color\" not found";
    assert!(
        model.told.iter().any(|line| line.contains(said)),
        "{:?}",
        model.told
    );
    color(&mut model, "red");
    for _ in 0..30 {
        model.reconcile();
    }
    assert!(model.snapshot.primary().is_some(), "{}", model.transcript());
}

/// Flagger looks for new versions again when the promotion is over.
#[test]
fn a_config_that_changes_while_its_version_is_promoted_is_the_next_version() {
    let mut model = with_config(false);
    color(&mut model, "blue");
    while copy(&model) != Some(json!("blue")) {
        model.reconcile();
    }
    model.run_until_phase(CanaryPhase::Promoting);
    model.reconcile();
    color(&mut model, "green");
    model.run_until(CanaryPhase::Succeeded);
    assert_eq!(lines(&model, "Restarting analysis"), 0);
    assert_eq!(copy(&model), Some(json!("blue")));
    model.run_until_phase(CanaryPhase::Progressing);
    model.run_until(CanaryPhase::Succeeded);
    assert_eq!(copy(&model), Some(json!("green")));
}
