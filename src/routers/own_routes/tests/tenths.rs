//! Weights that are no whole percentages (`decimalStepWeights`) in routes of the user, whose sum stays.

use serde_json::{Value, json};

use super::*;

/// A Canary with these steps that names the HTTPRoute `web`, with these rules. `entry` has further fields of the `routeRefs`.
fn stepping(steps: Value, rules: Value, entry: Value) -> Snapshot {
    let mut refs = json!([{"kind": "HTTPRoute", "name": "web"}]);
    for (field, value) in entry.as_object().unwrap() {
        refs[0][field] = value.clone();
    }
    let mut snapshot = with(refs, [route(Kind::HttpRoute, "web", rules)]);
    let analysis = json!({"interval": "1m", "threshold": 1, "decimalStepWeights": steps});
    snapshot.canary.spec.analysis = serde_json::from_value(analysis).unwrap();
    snapshot
}

#[test]
fn each_tenth_is_read_as_it_was_set_and_the_sum_stays() {
    for sum in [1000, 2000, 10_000, 1_000_000] {
        let all: Vec<_> = (1..1000).map(Percent::of_tenths).collect();
        let mut snapshot = stepping(json!(all), json!([rule("api", [sum, 0])]), json!({}));
        for tenths in 0..=1000 {
            let weights = Weights::canary(Percent::of_tenths(tenths));
            let writes = repairs(&snapshot, &weights).unwrap();
            apply(&mut snapshot, writes);
            let [primary, canary] = [0, 1].map(|backend| {
                let path = format!("/spec/rules/0/backendRefs/{backend}/weight");
                let name = snapshot.reference(Kind::HttpRoute, "web");
                snapshot.objects[&name]
                    .pointer(&path)
                    .and_then(Value::as_u64)
                    .unwrap()
            });
            assert_eq!(
                [primary, canary],
                [sum - sum * tenths / 1000, sum * tenths / 1000]
            );
            assert_eq!(OwnRoutes.current_weights(&snapshot), Ok(weights), "{sum}");
            assert_eq!(repairs(&snapshot, &weights), Ok(vec![]));
        }
    }
}

/// 100 requests cannot be divided so that the canary gets a tenth of one.
#[test]
fn a_sum_in_which_a_step_is_no_whole_number_is_refused_before_a_run_and_a_sum_that_would_do_is_named()
 {
    let refused = |steps: Value, sum: u64| {
        let snapshot = stepping(steps, json!([rule("api", [sum, 0])]), json!({}));
        repairs(&snapshot, &Weights::PRIMARY).err()
    };
    let why = "HTTPRoute web.test has weights in rule api that add up to 100 for both versions, of which 0.1 % is no whole number: let them add up to 1000";
    assert_eq!(refused(json!([0.1, 1]), 100).as_deref(), Some(why));
    assert!(refused(json!([1, 2.5]), 100).is_some_and(|why| why.contains("2.5 %")));
    for (steps, sum) in [
        (json!([0.1, 1]), 1000),
        (json!([0.5, 1]), 200),
        (json!([1, 50]), 100),
        (json!([1, 50]), 101),
    ] {
        assert_eq!(refused(steps.clone(), sum), None, "{steps} {sum}");
    }
    let snapshot = stepping(json!([0.1]), json!([rule("api", [100, 0])]), json!({}));
    assert_eq!(
        withdrawals(&snapshot),
        Ok(vec![]),
        "a rollback needs no sum"
    );
}

/// Where the operator adds and removes the canary's backend, only the shares of both matter.
#[test]
fn a_rule_that_gets_the_canarys_backend_in_runs_only_gets_a_sum_that_fits() {
    let backend =
        json!({"group": "", "kind": "Service", "name": "podinfo", "port": 80, "weight": 1});
    let rules = json!([{"name": "api", "backendRefs": [backend]}]);
    let accepts = json!({"affinity": "accept", "rules": ["api"]});
    let mut snapshot = stepping(json!([0.1, 50]), rules, accepts);
    for tenths in [1, 500, 0] {
        let weights = Weights::canary(Percent::of_tenths(tenths));
        let writes = repairs(&snapshot, &weights).unwrap();
        apply(&mut snapshot, writes);
        assert_eq!(OwnRoutes.current_weights(&snapshot), Ok(weights));
    }
}
