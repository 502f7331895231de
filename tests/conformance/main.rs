//! Compares what a user sees here with recordings of Flagger 1.44: `cargo test --features conformance --test conformance`.
//!
//! `golden/NAME.json` is what Flagger 1.44.0 did in a scenario on a real control plane: each change of the Canary, each event, route,
//! workload, alert, hook call and metric query, step by step. `scenarios/NAME.yaml` is the scenario: what its user does, and what the
//! servers around the operator answer. This target plays all of them with the operator at once, each in a namespace of its own on one
//! [`testbed::Bed`] without containers, and compares what was recorded with what Flagger did, line by line. What differs on purpose
//! stands in `departures.yaml`, each with its reason. Everything else that differs fails, and so do a departure that explains nothing, a
//! recording without a scenario, and a scenario that waited in vain.
//!
//! # One scenario
//!
//! ```text
//! CONFORMANCE_ONLY='istio-suspend,router-*' cargo test --features conformance --test conformance
//! ```
//!
//! The test writes its transcript to `target/conformance/NAME.json` (or to the folder `CONFORMANCE_OUT`), in the form of the recordings.
//! Departures that explain nothing are only told where all scenarios ran.
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
//! The field is STEP/STREAM. Streams are `status` (each change of the Canary), `notices` (each event, as the event webhook was told),
//! `events` (the Event objects), `routes` (the number of a route object's shape, and its weights), `workloads`, `timeline` (what moved
//! before what), `hooks`, `alerts`, `queries`, `table` (`kubectl get`), and `notes` (what went wrong in the scenario itself). A line that
//! repeats is written once, with ×n. `shapes/KIND/NAME` is what the numbers of the shapes stand for, `objects/AT/KIND/NAME` the objects of
//! a snapshot. Masked are uids, versions, times, addresses, hashes of revisions (numbered as they appear: `<rev1>`), random cookies, and
//! why a rollout is not finished yet.
//!
//! # How to add a departure
//!
//! First be sure that the difference is wanted. Then add an entry to `departures.yaml`, for as few scenarios, fields and lines as explain
//! it; its head says how. The reason is for a reader who knows Flagger and nothing of this project: who does what, and why that is better.

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

/// Routers and targets that the operator does not have yet. It must refuse the Canaries of these scenarios with the condition `Invalid`.
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

/// A recording that nothing is compared with proves nothing, and neither does a scenario without one.
#[test]
fn each_scenario_has_its_recording() {
    let scenarios: BTreeSet<_> = Scenario::all().into_iter().map(|s| s.name).collect();
    let recordings = transcript::recorded();
    assert_eq!(scenarios, recordings);
    assert!(scenarios.len() >= 58);
}
