//! Checks that this operator can replace Flagger 1.44: on clusters as Flagger left them (`tests/takeover`), finished releases stay as they
//! are, and releases under way continue from where they were.

use std::collections::BTreeMap;

use futures::future::join_all;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use testbed::wait::until;

use super::check;
use super::{Outcome, PATIENCE, Rig, Scenario, ensure, text};
use crate::files;
use flagger_rs::{api::canary::Canary, snapshot::Kind};

/// The states in which Flagger left its canaries, and what must follow from each.
const STATES: [(&str, Then); 21] = [
    ("ab-midway", Then::Reaches("iteration 3")),
    ("bluegreen-midway", Then::Reaches("iteration 3")),
    ("failed", Then::Rests),
    ("failed-promotion", Then::Rests),
    ("failed-v2", Then::Rests),
    ("finalising", Then::Reaches("Succeeded")),
    ("initialized", Then::Rests),
    ("initialized-revert", Then::Rests),
    ("progressing-0", Then::Reaches("Succeeded")),
    ("progressing-20", Then::Reaches("Succeeded")),
    ("progressing-gatewayapi", Then::Reaches("Succeeded")),
    ("promoting-rolling", Then::Reaches("Succeeded")),
    ("promoting-steps", Then::Reaches("Succeeded")),
    ("session-midway", Then::Reaches("weight 20")),
    ("succeeded", Then::Rests),
    ("succeeded-daemonset", Then::Rests),
    ("succeeded-skipped", Then::Rests),
    ("succeeded-v2", Then::Rests),
    ("succeeded-then-changed", Then::Reaches("Succeeded")),
    ("waiting", Then::Reaches("Succeeded")),
    ("waiting-promotion", Then::Reaches("Succeeded")),
];

#[derive(Clone, Copy)]
enum Then {
    /// The only write replaces the name of the revision, once. No event is sent.
    Rests,
    /// The release continues to this phase, iteration or weight.
    Reaches(&'static str),
}

/// With `with_later_versions`, the states of versions after 1.44 are played, too. The CRDs of 1.44 lack some of their fields.
pub async fn each_state_of_flagger_is_taken_over(
    rig: &Rig,
    with_later_versions: bool,
) -> Vec<String> {
    let states = STATES.into_iter();
    let states = states.filter(|(state, _)| with_later_versions || !state.ends_with("-v2"));
    let loaded = states.map(|(state, then)| async move {
        let s = Scenario::new(rig, &format!("takeover_{state}")).await;
        load(&s, state).await?;
        Ok::<_, String>((s, state, then))
    });
    let loaded: Result<Vec<_>, _> = join_all(loaded).await.into_iter().collect();
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return vec![error],
    };
    let announced = match announced(rig, &loaded).await {
        Ok(announced) => announced,
        Err(why) => return vec![format!("flagger check: {why}")],
    };
    let operator = rig.launch("takeover", &[]).await.unwrap();
    let outcomes = loaded.into_iter().map(|(s, state, then)| {
        let announced = announced.get(&s.ns).cloned().unwrap_or_default();
        async move {
            let outcome = match then {
                Then::Rests => stays_idle(&s, state).await,
                Then::Reaches(end) => reaches(&s, state, end).await,
            };
            // The operator sends an event after the status that it announces.
            let came_true = async || came_true(&s, &announced);
            let outcome = match outcome {
                Ok(()) => until(PATIENCE, "the announced action", came_true)
                    .await
                    .map_err(text),
                failed => failed,
            };
            outcome.map_err(|why| format!("{state}: {why}\n{:?}\n{:?}", s.table(), s.events()))
        }
    });
    let failed = join_all(outcomes)
        .await
        .into_iter()
        .filter_map(Result::err)
        .collect();
    operator.terminate().await.unwrap();
    failed
}

/// The first actions that `flagger check` announces: none for finished releases, some for those under way.
async fn announced(
    rig: &Rig,
    loaded: &[(Scenario<'_>, &'static str, Then)],
) -> Result<BTreeMap<String, (String, String)>, String> {
    let announced = check::first_actions(rig).await?;
    for (s, state, then) in loaded {
        let Some((first, why)) = announced.get(&s.ns) else {
            return Err(format!("{state} is not listed: {announced:?}"));
        };
        let ends = matches!(then, Then::Rests);
        ensure(
            (first == "adopts") == ends,
            format!("{state}: {first} {why}"),
        )?;
        if ends {
            check::is_clean(rig, &s.ns).await?;
        }
    }
    check::missing_rights_are_named(rig, "takeover-succeeded").await?;
    Ok(announced)
}

/// Checks that the first action was the announced one: whether a run started, which event was sent, and the phase.
fn came_true(s: &Scenario<'_>, (first, why): &(String, String)) -> Outcome {
    let sent = s.events();
    let is_sent = |text: &str| sent.iter().any(|line| line.contains(text));
    ensure(
        (first == "starts") == is_sent("New revision detected! Scaling up"),
        format!("announced: {first} {why}"),
    )?;
    if let Some((_, event)) = why.split_once(", Advance ") {
        ensure(is_sent(event), format!("announced: {event}"))?;
    }
    if let Some((_, phase)) = why.split_once(", enters ") {
        let reached = s.table().iter().any(|line| line.starts_with(phase));
        ensure(reached, format!("announced: {phase}"))?;
    }
    Ok(())
}

/// Creates the objects in their order, each with an owner that exists here, then the status of the Canary. Waits until the pods are in
/// their former state.
pub async fn load(s: &Scenario<'_>, state: &str) -> Outcome {
    let saved = saved(state)?;
    let mut uids: BTreeMap<String, Value> = BTreeMap::new();
    let mut wanted = Vec::new();
    for object in saved["objects"].as_array().into_iter().flatten() {
        let mut object = object.clone();
        let field = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (kind, name) = (field(&object["kind"]), field(&object["metadata"]["name"]));
        make_creatable(&mut object, &uids);
        if name == "podinfo-primary" && kind == "Deployment" {
            // If only the primary could not run a version, the pods of the primary are broken here too.
            let image = &mut object["spec"]["template"]["spec"]["containers"][0]["image"];
            *image = json!(field(image).replace("noprimary", "broken"));
        }
        if kind == "Canary" && s.ns.ends_with("bluegreen-midway") {
            // No application runs here, so none can report metrics of its own.
            object["spec"]["analysis"]["metrics"] = json!([]);
        }
        let status = object
            .as_object_mut()
            .and_then(|object| object.remove("status"));
        s.apply(&object).await?;
        if kind == "Canary" {
            let canaries: Api<Canary> = Api::namespaced(s.client.clone(), &s.ns);
            let patch = json!({"status": status});
            let canary = canaries
                .patch_status(&name, &PatchParams::default(), &Patch::Merge(patch))
                .await
                .map_err(text)?;
            uids.insert(name, json!(canary.metadata.uid));
        } else if matches!(kind.as_str(), "Deployment" | "DaemonSet") {
            wanted.push((kind, name));
        }
    }
    for (kind, name) in wanted {
        idle(s, &kind, &name).await?;
    }
    Ok(())
}

/// Reads a state as Flagger left it.
fn saved(state: &str) -> Result<Value, String> {
    let path = files::path("tests/takeover").join(format!("{state}.json"));
    let saved = std::fs::read_to_string(path).map_err(text)?;
    // Webhooks answer at this address here.
    let saved = saved.replace("http://127.0.0.1:8563/hook/", "http://hooks/");
    serde_json::from_str(&saved).map_err(text)
}

/// Removes the fields that an API server assigns, and replaces the owners by those with these UIDs.
fn make_creatable(object: &mut Value, uids: &BTreeMap<String, Value>) {
    if object["kind"] == "Service" {
        remove(&mut object["spec"], "clusterIPs");
        if object["spec"]["clusterIP"] != "None" {
            remove(&mut object["spec"], "clusterIP");
        }
    }
    let metadata = &mut object["metadata"];
    remove(metadata, "uid");
    let Some(owners) = metadata["ownerReferences"].as_array_mut() else {
        return remove(metadata, "ownerReferences");
    };
    for owner in owners {
        let uid = uids.get(owner["name"].as_str().unwrap_or_default());
        owner["uid"] = uid.cloned().unwrap_or_default();
    }
}

fn remove(object: &mut Value, field: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove(field);
    }
}

/// Waits until the rollout of a workload is complete.
async fn idle(s: &Scenario<'_>, kind: &str, name: &str) -> Outcome {
    let kind = if kind == "DaemonSet" {
        Kind::DaemonSet
    } else {
        Kind::Deployment
    };
    until(PATIENCE, name, async || {
        let object = s.get(kind, name).await?;
        let status = &object["status"];
        let image = object
            .pointer("/spec/template/spec/containers/0/image")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let never = [":broken", ":slow"].iter().any(|tag| image.contains(tag));
        let wanted = object["spec"]["replicas"]
            .as_i64()
            .or(status["desiredNumberScheduled"].as_i64());
        let ready = status["readyReplicas"]
            .as_i64()
            .or(status["numberReady"].as_i64())
            .unwrap_or(0);
        let observed = status["observedGeneration"] == object["metadata"]["generation"];
        (observed && (never || Some(ready) == wanted))
            .then_some(())
            .ok_or_else(|| status.to_string())
    })
    .await
    .map_err(text)
}

/// Checks that, while ticks pass, the operator writes nothing but the status, once, changes only names of revisions there, and sends no
/// event.
pub async fn stays_idle(s: &Scenario<'_>, state: &str) -> Outcome {
    s.ticks().await?;
    let reads = ["get", "list", "watch"];
    let writes: Vec<_> = s
        .requests()?
        .iter()
        .filter(|line| !reads.contains(&line.verb.as_str()))
        .map(|line| format!("{} {}", line.verb, line.resource))
        .collect();
    ensure(writes == ["patch canaries/status"], format!("{writes:?}"))?;
    let saved = saved(state)?;
    let mut objects = saved["objects"].as_array().into_iter().flatten();
    let canary = objects.find(|object| object["kind"] == "Canary");
    let before = canary.map(|canary| canary["status"].clone());
    let after = s.get(Kind::Canary, "podinfo").await?;
    only_revisions_are_renamed(&before.unwrap_or_default(), &after["status"])?;
    ensure(s.events().is_empty(), "no event was sent")
}

/// Fails unless the status names the applied revision anew, the promoted one only if it is the same, and has not changed otherwise.
fn only_revisions_are_renamed(before: &Value, after: &Value) -> Outcome {
    let name = &after["lastAppliedSpec"];
    let mut expected = before.clone();
    if before["lastPromotedSpec"] == before["lastAppliedSpec"] {
        expected["lastPromotedSpec"] = name.clone();
    }
    expected["lastAppliedSpec"] = name.clone();
    let is_named = name.as_str().is_some_and(|name| !name.is_empty());
    ensure(
        is_named && *name != before["lastAppliedSpec"] && expected == *after,
        format!("the status was {before} and is {after}"),
    )
}

#[test]
fn a_status_in_which_more_than_the_names_of_revisions_has_changed_is_found() {
    let status = |applied: &str, promoted: &str, weight: i64| json!({"lastAppliedSpec": applied, "lastPromotedSpec": promoted, "canaryWeight": weight});
    let (idle, failed) = (status("a", "a", 0), status("b", "a", 0));
    for (before, after, is_accepted) in [
        (&idle, status("c", "c", 0), true),
        (&failed, status("c", "a", 0), true),
        (&idle, status("a", "a", 0), false),
        (&idle, status("c", "a", 0), false),
        (&failed, status("c", "c", 0), false),
        (&idle, status("c", "c", 5), false),
        (
            &idle,
            json!({"lastAppliedSpec": "c", "lastPromotedSpec": "c"}),
            false,
        ),
        (
            &idle,
            json!({"canaryWeight": 0, "lastPromotedSpec": "a"}),
            false,
        ),
    ] {
        let outcome = only_revisions_are_renamed(before, &after);
        assert_eq!(outcome.is_ok(), is_accepted, "{before} {after}");
    }
}

async fn reaches(s: &Scenario<'_>, state: &str, end: &str) -> Outcome {
    let canaries: Api<Canary> = Api::namespaced(s.client.clone(), &s.ns);
    let cookie = |canary: &Canary| {
        canary
            .status
            .as_ref()
            .and_then(|status| status.session_affinity_cookie.clone())
    };
    let before = canaries.get("podinfo").await.map_err(text)?;
    if state == "succeeded-then-changed" {
        s.line("Progressing 25").await?;
    }
    until(PATIENCE, end, async || {
        let canary = canaries.get("podinfo").await.map_err(text)?;
        let status = canary.status.clone().unwrap_or_default();
        let seen = [
            status.phase.to_string(),
            format!("weight {}", status.canary_weight),
            format!("iteration {}", status.iterations),
        ];
        seen.contains(&end.to_owned())
            .then_some(())
            .ok_or_else(|| format!("{seen:?} {:?}", status.conditions))
    })
    .await
    .map_err(text)?;
    // The operator starts no run a second time.
    let anew = [
        "Starting canary analysis",
        "Restarting analysis",
        "New revision detected",
    ];
    let may = match state {
        "progressing-0" => 1..2,
        "succeeded-then-changed" | "waiting" => 1..3,
        _ => 0..1,
    };
    let sent = s.events();
    let begun = sent
        .iter()
        .filter(|line| anew.iter().any(|text| line.contains(text)))
        .count();
    ensure(may.contains(&begun), format!("begun again: {sent:?}"))?;
    if state == "session-midway" {
        let after = canaries.get("podinfo").await.map_err(text)?;
        ensure(
            cookie(&before).is_some() && cookie(&before) == cookie(&after),
            "the cookie stays",
        )?;
    }
    Ok(())
}
