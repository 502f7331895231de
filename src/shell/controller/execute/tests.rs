use serde_json::json;

use super::*;

#[test]
fn a_merge_patch_turns_one_status_into_another() {
    let condition = json!([{"type": "Promoted", "status": "False"}]);
    let states = [
        json!({}),
        json!({"phase": "Progressing", "canaryWeight": 5, "trackedConfigs": {"a": "1", "b": "2"}}),
        json!({"phase": "Progressing", "canaryWeight": 10, "trackedConfigs": {"b": "3", "c": "4"}}),
        json!({"phase": "Succeeded", "conditions": condition}),
        json!({"phase": "Succeeded", "conditions": [], "trackedConfigs": {}}),
        json!({"trackedConfigs": {"nested": {"a": "1"}}}),
    ];
    for from in &states {
        for to in &states {
            let patch = merge_patch(from, to);
            let mut patched = from.clone();
            json_patch::merge(&mut patched, &patch);
            assert_eq!(patched, *to, "{from} and {patch}");
        }
    }
}

#[test]
fn a_merge_patch_has_only_what_changes() {
    let before = json!({"phase": "Progressing", "canaryWeight": 5, "iterations": 0, "trackedConfigs": {"a": "1", "b": "2"}});
    let after = json!({"phase": "Progressing", "canaryWeight": 10, "trackedConfigs": {"a": "1"}});
    let patch = json!({"canaryWeight": 10, "iterations": null, "trackedConfigs": {"b": null}});
    assert_eq!(merge_patch(&before, &after), patch);
    assert_eq!(merge_patch(&after, &after), json!({}));
    assert_eq!(merge_patch(&json!(null), &after), after, "the first status");
}

/// Alert rules about failed releases use this counter.
#[test]
fn a_run_is_counted_as_it_ended() {
    use CanaryPhase as P;
    let canary = |skips: bool| -> Canary {
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"});
        let spec = json!({"targetRef": target, "service": {"port": 80}, "analysis": {"stepWeight": 10}, "skipAnalysis": skips});
        serde_json::from_value(json!({"metadata": {"name": "podinfo"}, "spec": spec})).unwrap()
    };
    for (phase, analysed, skipped) in [
        (P::New, None, None),
        (P::Initializing, None, None),
        (P::Initialized, None, None),
        (P::Waiting, None, None),
        (P::Progressing, None, None),
        (P::WaitingPromotion, None, None),
        (P::Promoting, None, None),
        (P::Finalising, None, None),
        (
            P::Succeeded,
            Some(RunResult::Promoted),
            Some(RunResult::Skipped),
        ),
        (P::Failed, Some(RunResult::Failed), Some(RunResult::Failed)),
        (P::Terminating, None, None),
        (P::Terminated, None, None),
    ] {
        assert_eq!(run_result(&canary(false), phase), analysed, "{phase}");
        assert_eq!(run_result(&canary(true), phase), skipped, "{phase}");
    }
}
