//! Tests of the operator's decisions: complete releases on a simulated cluster, in virtual time, with no I/O, API server or waiting.
//!
//! `cargo test --test decisions` needs no cluster and ends within seconds.
//!
//! Some tests compare the transcript of a release with a file in `tests/transcripts`. A transcript lists each write, webhook call and
//! notification with its second. After an intended change, accept the new transcripts and review their difference:
//!
//! ```text
//! UPDATE_TRANSCRIPTS=1 cargo test --test decisions && git diff tests/transcripts
//! ```
//!
//! | question | file |
//! | --- | --- |
//! | how does each strategy run, and how does it end? | `releases.rs`, `gates.rs`, `withdrawal.rs`, `edges.rs` |
//! | what happens to the primary after a failed promotion? | `restore.rs` |
//! | which actions may a person ask for, where, and what is their effect? | `actions.rs`, `steering.rs` |
//! | what happens to a run whose Canary becomes invalid? | `refused_runs.rs` |
//! | when is a step taken, and by which bounds is it judged? | `readiness.rs`, `metrics.rs` |
//! | how are steps below one percent taken, and by which routers? | `decimals.rs` |
//! | how is a canary compared with the primary? | `comparison.rs` |
//! | does the primary keep its pods? | `capacity.rs` |
//! | what differs per router, target, autoscaler, config? | `routes.rs`, `contour.rs`, `appmesh.rs`, `knative.rs`, `targets.rs`, `scalers.rs`, `configs.rs` |
//! | which pods do the Services reach, with any labels, flags and other workloads? | `labels.rs` |
//! | which objects of other owners does the operator not change? | `ownership.rs` |
//! | what if other actors change the operator's objects, or the API server refuses its writes? | `other_actors.rs`, `refused_writes.rs` |
//! | which requests of an A/B test reach the canary? | `conditions.rs` |
//! | what if the data plane never accepts a route? | `unaccepted.rs` |
//! | what happens to routes of the user that a Canary names? | `own_routes.rs`, `own_route_kinds.rs` |
//! | what if a Canary's route becomes a GRPCRoute, or an HTTPRoute again? | `route_kinds.rs` |
//! | which objects of other namespaces may a route name? | `references.rs` |
//! | what does each object that the operator writes look like, in full? | `objects.rs`, with the files in `tests/objects` |
//! | how does a canary begin, and what remains when it is deleted? | `bootstrap.rs`, `deletion.rs` |
//! | what happens if the operator crashes after any write, or another one with another clock takes over? | `crashes.rs`, `clocks.rs` |
//! | which defects of Flagger are fixed here? | `known_defects.rs` |
//! | what holds for every release? | `properties.rs`, `any_state.rs` (property tests), `fuzz.rs` |
//! | which plans are refused? | `audit.rs` (by the operator), `simulation/judge.rs` (by these tests, which judge every plan) |
//! | how large may a Canary and the answers for it be? | `limits.rs` |
//! | does each example in the documentation work? | `example_canaries.rs` |
//! | what does `flagger check` announce? | `preview.rs` |
//! | how does one write a test? | `example.rs` |
//! | does `plan` foresee what the operator writes? | `plan.rs` |

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "the names of tests are their documentation, and a panic is how a test fails"
)]

mod actions;
mod any_state;
mod appmesh;
mod audit;
mod bootstrap;
mod capacity;
mod clocks;
mod comparison;
mod conditions;
mod configs;
mod contour;
mod crashes;
mod decimals;
mod deletion;
mod early;
mod edges;
mod example;
mod example_canaries;
#[path = "../files/mod.rs"]
mod files;
mod fuzz;
mod gates;
mod istio_reporters;
mod knative;
mod known_defects;
mod labels;
mod limits;
mod metrics;
mod objects;
mod other_actors;
mod own_route_kinds;
mod own_routes;
mod ownership;
mod plan;
mod preview;
mod properties;
mod readiness;
mod references;
mod refused_runs;
mod refused_writes;
mod releases;
mod restore;
mod route_kinds;
#[path = "../files/routers.rs"]
mod routers;
mod routes;
mod scalers;
mod simulation;
mod steering;
mod targets;
mod unaccepted;
mod withdrawal;

use std::fs;

use simulation::Simulation;

/// Compares the transcript of a release with its file, which `UPDATE_TRANSCRIPTS=1` writes.
fn transcript(name: &str, sim: &Simulation) {
    let path = files::path("tests/transcripts").join(format!("{name}.txt"));
    let seen = sim.transcript();
    if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
        fs::write(&path, &seen).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        seen == expected,
        "{} differs (UPDATE_TRANSCRIPTS=1 accepts the new one); this release was:\n{seen}",
        path.display()
    );
}
