//! Clusters as Flagger 1.44 left them (`tests/takeover`), with this operator started on them: what had ended stays as it is, what was
//! under way goes on from where it was.

use std::collections::BTreeMap;

use futures::future::join_all;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use testbed::wait::until;

use super::check;
use super::rig::{Outcome, PATIENCE, Rig, Scenario, ensure, text};
use crate::files;
use flagger_rs::{api::canary::Canary, snapshot::Kind};

/// The states, and what must come of each.
const STATES: [(&str, Then); 19] = [
    ("ab-midway", Then::Reaches("iteration 3")),
    ("bluegreen-midway", Then::Reaches("iteration 3")),
    ("failed", Then::Rests),
    ("failed-promotion", Then::Rests),
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
    ("succeeded-then-changed", Then::Reaches("Succeeded")),
    ("waiting", Then::Reaches("Succeeded")),
    ("waiting-promotion", Then::Reaches("Succeeded")),
];

#[derive(Clone, Copy)]
enum Then {
    /// Nothing is written but our name for the revision, once; nothing is told.
    Rests,
    /// It goes on to this: a phase, an iteration or a weight.
    Reaches(&'static str),
}

pub async fn what_flagger_left_is_taken_over(rig: &Rig) -> Vec<String> {
    let loaded = STATES.map(|(state, then)| async move {
        let s = Scenario::new(rig, &format!("takeover_{state}")).await;
        load(&s, state).await?;
        Ok::<_, String>((s, state, then))
    });
    let loaded: Result<Vec<_>, _> = join_all(loaded).await.into_iter().collect();
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return vec![error],
    };
    let foretold = match foretold(rig, &loaded).await {
        Ok(foretold) => foretold,
        Err(why) => return vec![format!("flagger check: {why}")],
    };
    let operator = rig.launch("takeover", &[]).await.unwrap();
    let outcomes = loaded.into_iter().map(|(s, state, then)| {
        let foretold = foretold.get(&s.ns).cloned().unwrap_or_default();
        async move {
            let outcome = match then {
                Then::Rests => rests(&s).await,
                Then::Reaches(end) => reaches(&s, state, end).await,
            };
            // An event comes after the status that it tells of.
            let told = async || came_true(&s, &foretold);
            let outcome = match outcome {
                Ok(()) => until(PATIENCE, "what was foretold", told)
                    .await
                    .map_err(text),
                failed => failed,
            };
            outcome.map_err(|why| format!("{state}: {why}\n{:?}\n{:?}", s.table(), s.told()))
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

/// What `flagger check` says comes first: that what ended stays as it is, and that what is under way does not.
async fn foretold(
    rig: &Rig,
    loaded: &[(Scenario<'_>, &'static str, Then)],
) -> Result<BTreeMap<String, (String, String)>, String> {
    let foretold = check::foretold(rig).await?;
    for (s, state, then) in loaded {
        let Some((first, why)) = foretold.get(&s.ns) else {
            return Err(format!("{state} is not listed: {foretold:?}"));
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
    check::what_is_missing_is_named(rig, "takeover-succeeded").await?;
    Ok(foretold)
}

/// What came first is what was foretold: a run or none, an event, a phase.
fn came_true(s: &Scenario<'_>, (first, why): &(String, String)) -> Outcome {
    let told = s.told();
    let is_told = |text: &str| told.iter().any(|line| line.contains(text));
    ensure(
        (first == "starts") == is_told("New revision detected! Scaling up"),
        format!("foretold: {first} {why}"),
    )?;
    if let Some((_, event)) = why.split_once(", Advance ") {
        ensure(is_told(event), format!("foretold: {event}"))?;
    }
    if let Some((_, phase)) = why.split_once(", enters ") {
        let reached = s.table().iter().any(|line| line.starts_with(phase));
        ensure(reached, format!("foretold: {phase}"))?;
    }
    Ok(())
}

/// The objects in their order, each owned by what stands for its owner here; then the Canary's status. Until pods are as they were.
async fn load(s: &Scenario<'_>, state: &str) -> Outcome {
    let path = files::path("tests/takeover").join(format!("{state}.json"));
    let saved = std::fs::read_to_string(path).map_err(text)?;
    // Hooks answer here; of a version that only the primary could not run, its pods are broken.
    let saved = saved.replace("http://127.0.0.1:8563/hook/", "http://hooks/");
    let saved: Value = serde_json::from_str(&saved).map_err(text)?;
    let mut uids: BTreeMap<String, Value> = BTreeMap::new();
    let mut wanted = Vec::new();
    for object in saved["objects"].as_array().into_iter().flatten() {
        let mut object = object.clone();
        let (kind, name) = (
            object["kind"].as_str().unwrap_or_default().to_owned(),
            object["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        );
        if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
            for given in ["clusterIP", "clusterIPs"] {
                if kind == "Service" && spec.get(given) != Some(&json!("None")) {
                    spec.remove(given);
                }
            }
        }
        if name == "podinfo-primary" && kind == "Deployment" {
            let image = &mut object["spec"]["template"]["spec"]["containers"][0]["image"];
            *image = json!(
                image
                    .as_str()
                    .unwrap_or_default()
                    .replace("noprimary", "broken")
            );
        }
        object["metadata"]
            .as_object_mut()
            .map(|meta| meta.remove("uid"));
        for owner in object["metadata"]["ownerReferences"]
            .as_array_mut()
            .into_iter()
            .flatten()
        {
            owner["uid"] = uids
                .get(owner["name"].as_str().unwrap_or_default())
                .cloned()
                .unwrap_or_default();
        }
        if object["metadata"]["ownerReferences"].is_null() {
            object["metadata"]
                .as_object_mut()
                .map(|meta| meta.remove("ownerReferences"));
        }
        if kind == "Canary" && s.ns.ends_with("bluegreen-midway") {
            // Nobody sends load here that an application could report.
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

/// Until a workload's pods are what they will be.
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

/// Ticks pass, and nothing was written but its status, once, in silence.
async fn rests(s: &Scenario<'_>) -> Outcome {
    s.ticks().await?;
    let reads = ["get", "list", "watch"];
    let writes: Vec<_> = s
        .requests()?
        .iter()
        .filter(|line| !reads.contains(&line.verb.as_str()))
        .map(|line| format!("{} {}", line.verb, line.resource))
        .collect();
    ensure(
        writes.len() <= 1 && writes.iter().all(|write| write == "patch canaries/status"),
        format!("{writes:?}"),
    )?;
    ensure(s.told().is_empty(), "in silence")
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
    // Nothing starts over.
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
    let told = s.told();
    let begun = told
        .iter()
        .filter(|line| anew.iter().any(|text| line.contains(text)))
        .count();
    ensure(may.contains(&begun), format!("begun anew: {told:?}"))?;
    if state == "session-midway" {
        let after = canaries.get("podinfo").await.map_err(text)?;
        ensure(
            cookie(&before).is_some() && cookie(&before) == cookie(&after),
            "the cookie stays",
        )?;
    }
    Ok(())
}
