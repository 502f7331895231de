//! Each object that the operator writes, in full, for Canaries that use all fields of their router and target.
//!
//! A file in `tests/objects` begins with the objects of a user. The rest of the file shows, at four moments of a release, each object that
//! the operator created, and as comments each field that it changed and the event about each write that the API server refuses. A new case is a new file; `UPDATE_TRANSCRIPTS=1` writes the rest of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
};

use flagger_rs::{
    api::canary::CanaryPhase,
    rollout,
    snapshot::{ObjectRef, Weights},
};
use serde_json::Value;

use super::{files, simulation::Simulation};

/// The line before the objects of a moment. The first moment is the user's.
const MOMENT: &str = "# ---- ";

/// Plays the release of the user's objects in a file, and compares the objects that the operator writes with the file.
fn check(name: &str) {
    let path = files::path("tests/objects").join(format!("{name}.yaml"));
    let file = fs::read_to_string(&path).unwrap();
    let end = file[1..].find(MOMENT).map_or(file.len(), |at| at + 1);
    let given = &file[..end];
    let seen = format!("{given}{}", played(&files::documents(given)));
    if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
        fs::write(&path, &seen).unwrap();
        return;
    }
    let lines = seen.lines().zip(file.lines());
    let differs = lines.enumerate().find(|(_, (seen, file))| seen != file);
    assert!(
        seen == file,
        "{} differs (UPDATE_TRANSCRIPTS=1 accepts the new one), first in line {differs:?}",
        path.display()
    );
}

/// The objects that the operator writes: for the new Canary, in the first step of the analysis, with the promotion, and for the
/// deletion.
fn played(given: &[Value]) -> String {
    let mut sim = Simulation::given(given);
    let mut known = stripped(&sim);
    let mut text = String::new();
    let mut write = |sim: &mut Simulation, moment: &str| {
        let now = stripped(sim);
        let _ = writeln!(text, "{MOMENT}{moment}");
        let refusals: BTreeSet<_> = sim.refusals.drain(..).collect();
        for refusal in refusals {
            let _ = writeln!(text, "# refused: {refusal}");
        }
        for (name, object) in &now {
            let Some(before) = known.get(name) else {
                let _ = write!(text, "---\n{}", serde_saphyr::to_string(object).unwrap());
                continue;
            };
            for change in changes(before, object, "") {
                let _ = writeln!(text, "# {} {}: {change}", name.kind.name(), name.name);
            }
        }
        known = now;
    };
    sim.run_until(CanaryPhase::Initialized);
    sim.run(20);
    write(&mut sim, "after the initialization");
    sim.update(given);
    let has_begun = |sim: &Simulation| {
        let is_moved = rollout::weights(&sim.snapshot).is_some_and(|now| now != Weights::PRIMARY);
        is_moved || sim.snapshot.phase() == CanaryPhase::Succeeded
    };
    for _ in 0..200 {
        if !has_begun(&sim) {
            sim.reconcile();
        }
    }
    write(&mut sim, "in the first step of the analysis");
    sim.run_until(CanaryPhase::Succeeded);
    write(&mut sim, "after the promotion");
    sim.snapshot.canary.spec.revert_on_deletion = true;
    sim.run(20);
    sim.delete();
    sim.run(100);
    assert!(sim.is_gone(), "{}", sim.transcript());
    write(&mut sim, "after the deletion, with revertOnDeletion");
    text
}

/// The differences of two values, each as a JSON pointer and the new value.
fn changes(before: &Value, after: &Value, path: &str) -> Vec<String> {
    match (before, after) {
        _ if before == after => vec![],
        (Value::Object(one), Value::Object(other)) => {
            let keys: BTreeSet<_> = one.keys().chain(other.keys()).collect();
            let of = |key: &String| changes(&before[key], &after[key], &format!("{path}/{key}"));
            keys.into_iter().flat_map(of).collect()
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            let pairs = one.iter().zip(other).enumerate();
            pairs
                .flat_map(|(i, (one, other))| changes(one, other, &format!("{path}/{i}")))
                .collect()
        }
        (_, Value::Null) => vec![format!("{path} is removed")],
        _ => vec![format!("{path} {after}")],
    }
}

/// All objects, without the fields that the API server and the controllers of Kubernetes write.
fn stripped(sim: &Simulation) -> BTreeMap<ObjectRef, Value> {
    let mut objects = sim.snapshot.objects.clone();
    for object in objects.values_mut() {
        object.as_object_mut().unwrap().remove("status");
        let metadata = object["metadata"].as_object_mut().unwrap();
        metadata.remove("uid");
        metadata.remove("generation");
    }
    objects
}

#[test]
fn every_file_is_checked() {
    let files = fs::read_dir(files::path("tests/objects")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names
        .map(|name| name.trim_end_matches(".yaml").to_owned())
        .collect();
    names.sort();
    assert_eq!(names, CASES);
}

macro_rules! cases {
    ($($test:ident: $file:literal),+ $(,)?) => {
        const CASES: &[&str] = &[$($file),+];

        $(#[test]
        fn $test() {
            check($file);
        })+
    };
}

cases! {
    apisix_gets_a_second_route: "apisix",
    appmesh_gets_all_fields: "appmesh",
    appmesh_routes_a_test: "appmesh-ab",
    appmesh_takes_existing_objects_over: "appmesh-adopted",
    appmesh_v1beta1_gets_all_fields: "appmesh-v1beta1",
    appmesh_v1beta1_routes_a_test: "appmesh-v1beta1-ab",
    contour_gets_all_fields: "contour",
    contour_routes_a_test: "contour-ab",
    contour_takes_an_existing_proxy_over: "contour-adopted",
    contour_mirrors_requests: "contour-mirror",
    a_daemon_set_and_its_copy_differ_in_name_and_label: "daemon-set",
    gateway_api_gets_all_fields: "gateway-api",
    gateway_api_routes_a_test: "gateway-api-ab",
    gateway_api_takes_an_existing_route_over: "gateway-api-adopted",
    gateway_api_keeps_sessions: "gateway-api-session",
    gateway_api_v1beta1_gets_its_fields: "gateway-api-v1beta1",
    gloo_gets_a_route_table_and_two_upstreams: "gloo",
    gloo_routes_a_test: "gloo-ab",
    istio_gets_all_fields: "istio",
    istio_routes_a_test_of_a_delegate: "istio-ab",
    istio_takes_existing_objects_over: "istio-adopted",
    istio_mirrors_requests: "istio-mirror",
    istio_keeps_sessions: "istio-session",
    istio_routes_connections: "istio-tcp",
    pods_of_the_primary_keep_apart_by_its_own_labels: "kept-apart",
    kuma_gets_a_traffic_route: "kuma",
    linkerd_gets_a_traffic_split: "linkerd",
    linkerd_takes_an_existing_split_over: "linkerd-adopted",
    nginx_gets_a_second_ingress: "nginx",
    nginx_gets_the_annotations_of_a_test: "nginx-ab",
    osm_gets_a_traffic_split: "osm",
    a_target_with_other_labels_is_released_by_the_primarys_own: "other-labels",
    a_scaled_object_is_copied: "scaled-object",
    a_service_is_copied: "service",
    skipper_gets_a_second_ingress: "skipper",
    smi_v1alpha3_routes_a_test: "smi-v1alpha3",
    traefik_gets_a_traefik_service: "traefik",
    traefik_takes_an_existing_service_over: "traefik-adopted",
}
