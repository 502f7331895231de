//! Each object that the operator writes, in full, for Canaries that use all fields of their router and target.
//!
//! A file in `tests/objects` begins with the objects of a user. The rest of the file has, for four moments of a release, each object that
//! the operator created. Comments show each field that it changed, and the event about each write that the API server refuses. A new case
//! is a new file; `UPDATE_TRANSCRIPTS=1` writes the rest of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::PathBuf,
};

use flagger_rs::{
    api::canary::CanaryPhase,
    rollout,
    snapshot::{Kind, ObjectRef, Weights},
};
use serde_json::Value;

use super::{
    files,
    routers::{ROUTERS, Row},
    simulation::Simulation,
};

/// The line before the objects of a moment. The first moment is the user's.
const MOMENT: &str = "# ---- ";

fn path(name: &str) -> PathBuf {
    files::path("tests/objects").join(format!("{name}.yaml"))
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap()
}

/// Plays the release of the user's objects in a file, and compares the objects that the operator writes with the file.
fn check(name: &str) -> Result<(), String> {
    let file = read(name);
    let end = file[1..].find(MOMENT).map_or(file.len(), |at| at + 1);
    let given = &file[..end];
    let seen = format!("{given}{}", played(&files::documents(given)));
    if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
        fs::write(path(name), &seen).unwrap();
        return Ok(());
    }
    if seen == file {
        return Ok(());
    }
    let lines = seen.lines().zip(file.lines());
    let differs = lines.enumerate().find(|(_, (seen, file))| seen != file);
    Err(format!(
        "{name}.yaml differs (UPDATE_TRANSCRIPTS=1 accepts the new one), first in line {differs:?}"
    ))
}

/// The objects that the operator writes at each moment: for the new Canary, in the first step of the analysis, with the promotion, and for
/// the deletion.
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

/// All files are played before the test fails, so that one run shows each difference.
#[test]
fn each_object_is_as_its_file_shows_it() {
    let differences = names().into_iter().filter_map(|name| check(&name).err());
    let differences: Vec<_> = differences.collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// (A Knative Service is the target, which the operator does not create.)
#[test]
fn the_files_show_each_kind_that_a_router_writes() {
    let files: Vec<_> = names().iter().map(|name| read(name)).collect();
    let written = ROUTERS.iter().flat_map(Row::written);
    for (kind, name) in written.filter(|(kind, _)| *kind != Kind::KnativeService) {
        let created = format!(
            "\napiVersion: {}\nkind: {}\n",
            kind.api_version(),
            kind.name()
        );
        let is_shown = files.iter().any(|file| file.contains(&created));
        assert!(is_shown, "tests/objects shows no {kind:?} {name}");
    }
}

fn names() -> Vec<String> {
    let files = fs::read_dir(files::path("tests/objects")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names
        .map(|name| name.trim_end_matches(".yaml").to_owned())
        .collect()
}
