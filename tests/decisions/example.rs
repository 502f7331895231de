//! The example of a test in `.github/CONTRIBUTING.md`.

use flagger_rs::api::canary::CanaryPhase;
use serde_json::json;

use super::simulation::release;

/// The usual metric must be at least 99.
#[test]
fn a_bad_version_is_rolled_back() {
    let mut sim = release(json!({"stepWeight": 20, "threshold": 2}));
    sim.metric = "97.5".to_owned();
    sim.run_until(CanaryPhase::Failed);
    assert_eq!(sim.canary_weight(), 0);
}
