//! Compares runs of this operator with recordings of Flagger 1.44: `cargo test --features conformance --test conformance`.
//!
//! `golden/NAME.json` records how Flagger 1.44.0 played a scenario on a real control plane: each change of the Canary, each event, route,
//! workload, alert, hook call and metric query, step by step. `scenarios/NAME.yaml` is the scenario: the actions of its user, and the
//! answers of the servers around the operator. This target plays all scenarios at the same time, each in its own namespace on one
//! [`testbed::Bed`] without containers, and compares the operator's transcripts with Flagger's recordings line by line. The file
//! `departures.yaml` lists the intended differences with their reasons. The test fails for every other difference, for a departure that
//! explains nothing, for a recording without a scenario, and for a scenario that timed out.
//!
//! # One scenario
//!
//! ```text
//! CONFORMANCE_ONLY='istio-suspend,router-*' cargo test --features conformance --test conformance
//! ```
//!
//! The test writes its transcript to `target/conformance/NAME.json` (or to the folder `CONFORMANCE_OUT`), in the form of the recordings.
//! It reports departures that explain nothing only if all scenarios ran.
//!
//! # How to read a difference
//!
//! ```text
//! istio-bg: Blue/green, two iterations; rollback.
//!   release 3.1.1/notices
//!     Flagger  Normal [Progressing] podinfo: Advance podinfo.istiobg canary iteration 1/2
//!     here     Normal [Progressing] podinfo: Advanced podinfo.istiobg canary iteration 1/2
//! ```
//!
//! The field is STEP/STREAM. Streams are `status` (each change of the Canary), `notices` (each event that the event webhook received),
//! `events` (the Event objects), `routes` (the number of a route object's shape, and its weights), `workloads`, `timeline` (the order of
//! changes across objects), `hooks`, `alerts`, `queries`, `table` (`kubectl get`), and `notes` (failures of the scenario itself). A line
//! that repeats is written once, with ×n. The field `shapes/KIND/NAME` lists the numbered shapes of a route, and `objects/AT/KIND/NAME`
//! holds an object of a snapshot. The test masks uids, versions, times, addresses, hashes of revisions (numbered as they appear:
//! `<rev1>`), random cookies, and the reason why a rollout is not finished yet.
//!
//! # How to add a departure
//!
//! First make sure that the difference is intended. Then add an entry to `departures.yaml` that matches as few scenarios, fields and lines
//! as possible; the head of that file explains the format. Write the reason for a reader who knows Flagger but not this project: say who
//! does what, and why that is better.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "tests say what they mean by their names, and end where something is wrong"
)]

mod cluster;
mod compare;
mod departures;
mod kinds;
mod mask;
mod objects;
mod player;
mod rig;
mod scenario;
mod seen;
mod servers;
mod transcript;
mod watches;

use std::collections::BTreeSet;

use departures::Departures;
use scenario::Scenario;

/// Scenarios of routers and targets that the operator does not support yet. It must refuse the Canaries of these scenarios with the condition `Invalid`.
/// Remove the row when you add the router: the scenario is then compared like all others.
const NOT_SUPPORTED_YET: [&str; 8] = [
    "router-apisix",
    "router-appmesh",
    "router-appmesh-v1beta2",
    "router-gloo",
    "router-knative",
    "router-kuma",
    "router-skipper",
    "router-traefik",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_flagger_sees_the_same() {
    let all = Scenario::all();
    let names: BTreeSet<_> = all.iter().map(|scenario| scenario.name.as_str()).collect();
    for name in NOT_SUPPORTED_YET {
        assert!(names.contains(name), "{name} is no scenario");
    }
    let only = std::env::var("CONFORMANCE_ONLY").unwrap_or_else(|_| "*".to_owned());
    let is_wanted = |name: &str| only.split(',').any(|glob| departures::matches(glob, name));
    let chosen: Vec<_> = all.iter().filter(|s| is_wanted(&s.name)).collect();
    assert!(
        !chosen.is_empty(),
        "CONFORMANCE_ONLY={only} names no scenario"
    );

    let departures = Departures::read();
    let mut failed = rig::play(&chosen, &departures).await;
    if chosen.len() == all.len() {
        failed.extend(departures.stale());
    }
    assert!(failed.is_empty(), "\n\n{}\n", failed.join("\n\n"));
}

/// A recording without a scenario proves nothing, and neither does a scenario without a recording.
#[test]
fn each_scenario_has_its_recording() {
    let scenarios: BTreeSet<_> = Scenario::all().into_iter().map(|s| s.name).collect();
    let recordings = transcript::recorded();
    assert_eq!(scenarios, recordings);
    assert!(scenarios.len() >= 58);
}
