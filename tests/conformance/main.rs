//! Compares this operator with recordings of Flagger 1.44: `cargo test --features conformance --test conformance`.
//!
//! `golden/NAME.json` records the actions of Flagger 1.44.0 in a scenario on a real control plane: each change of the Canary, each event,
//! route, workload, alert, hook call and metric query, step by step. `scenarios/NAME.yaml` is the scenario: the actions of its user, and
//! the answers of the fake servers. This test plays all scenarios at the same time, each in a namespace of its own on one
//! [`testbed::Bed`] without containers, and compares the two recordings of each line by line. `departures.yaml` lists the intended
//! differences, each with its reason. The test fails on any other difference, on a departure that explains nothing, on a recording
//! without a scenario, and on a scenario whose wait times out.
//!
//! # One scenario
//!
//! ```text
//! CONFORMANCE_ONLY='istio-suspend,router-*' cargo test --features conformance --test conformance
//! ```
//!
//! The test writes its recording to `target/conformance/NAME.json` (or to the folder `CONFORMANCE_OUT`), in the format of Flagger's.
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
//! The field is STEP/STREAM. Streams are `status` (each change of the Canary), `notices` (each event, as the event webhook received it),
//! `events` (the Event objects), `routes` (the number of a route object's shape, and its weights), `workloads`, `timeline` (the order of
//! changes to the Canary, routes and workloads), `hooks`, `alerts`, `queries`, `table` (`kubectl get`), and `notes` (failures of the
//! scenario itself). A line that repeats is written once, with ×n. `shapes/KIND/NAME` contains the shapes by number: route objects without
//! weights. `objects/AT/KIND/NAME` contains the objects of a snapshot. Masked are uids, versions, times, addresses, hashes of revisions
//! (numbered as they appear: `<rev1>`), random cookies, and the reason why a rollout is not finished yet.
//!
//! # How to add a departure
//!
//! First be sure that the difference is wanted. Then add an entry to `departures.yaml` that covers as few scenarios, fields and lines as
//! possible; the comment at the top of that file explains the format. Write the reason for a reader who knows Flagger but not this
//! project: the actor, the action, and why that is better.

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
mod mask;
mod objects;
mod player;
mod rig;
#[path = "../files/routers.rs"]
mod routers;
mod scenario;
mod seen;
mod servers;
mod transcript;
mod watches;

use std::collections::BTreeSet;

use departures::Departures;
use scenario::Scenario;

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_flagger_sees_the_same() {
    let all = Scenario::all();
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

/// A recording without a scenario, or a scenario without a recording, would not be compared.
#[test]
fn each_scenario_has_its_recording() {
    let scenarios: BTreeSet<_> = Scenario::all().into_iter().map(|s| s.name).collect();
    let recordings = transcript::recorded();
    assert_eq!(scenarios, recordings);
    assert!(scenarios.len() >= 58);
}
