//! The published bounds, with fewer runs than the tables.

use super::{
    judges::{self, Test},
    tables::{BARE, FEW, by_step, default, dependent_laws, of_pods, share},
    traffic::Law,
};

const RUNS: u32 = 600;

fn failed(law: Law, test: Test) -> f64 {
    share(RUNS, 11, |seed| {
        judges::sequential(law, test, seed).is_some()
    })
}

#[test]
fn a_version_that_is_not_worse_is_failed_in_at_most_one_run_of_a_hundred() {
    for rate in [1.0, 10.0, 100.0] {
        for test in [BARE, default()] {
            let share = failed(Law::plain(rate), test);
            assert!(share <= 0.01, "{rate} requests/s, {test:?}: {share}");
        }
    }
}

#[test]
fn bursts_and_unequal_pods_raise_no_more_false_alarms() {
    for (name, law) in dependent_laws() {
        let share = failed(law, default());
        assert!(share <= 0.01, "{name}: {share}");
    }
    // Without the corrections, there are many false alarms. Otherwise this test would not show that the corrections have an effect.
    let most = dependent_laws()
        .into_iter()
        .map(|(_, law)| failed(law, BARE));
    assert!(most.fold(0.0, f64::max) > 0.1);
}

/// As in a release: by the counters of each pod, twice in a step, with few pods that differ.
#[test]
fn few_and_unequal_pods_raise_no_more_false_alarms_in_a_release() {
    for (canary, primary, pods) in FEW {
        let law = of_pods(pods);
        let failed = |increase| {
            share(RUNS, 16, |seed| {
                judges::operator(law.worse(increase), (canary, primary), seed).is_some()
            })
        };
        let place = format!("{canary} and {primary} pods that differ by {pods}");
        let (none, clear) = (failed(0.0), failed(0.05));
        assert!(none <= 0.01, "{place}: {none}");
        assert!(clear >= 0.85, "{place}: {clear}");
    }
}

#[test]
fn regressions_are_found_within_the_published_steps() {
    for (rate, increase, step, least) in [
        (100.0, 0.05, 1, 0.95),
        (100.0, 0.01, 2, 0.95),
        (10.0, 0.05, 2, 0.9),
    ] {
        let law = Law::plain(rate).worse(increase);
        let found = by_step(RUNS, 12, |seed| judges::sequential(law, BARE, seed));
        assert!(
            found[step - 1] >= least,
            "{rate} requests/s, +{increase}: {found:?}"
        );
    }
}

/// Also if the primary had another latency half an hour ago.
#[test]
fn a_version_that_is_slower_by_a_fifth_is_found_in_two_steps() {
    for before in [1.0, 0.6, 1.5] {
        let found = by_step(60, 13, |seed| {
            judges::sequential_latency(100.0, (before, 1.2), 0.4, seed)
        });
        assert!(found[1] >= 0.95, "{before}: {found:?}");
        let equal = by_step(RUNS, 14, |seed| {
            judges::sequential_latency(100.0, (before, 1.0), 0.4, seed)
        });
        assert!(equal[4] <= 0.01, "{before}: {equal:?}");
    }
}

/// The simulations of the other judges have the known error rates of these judges.
#[test]
fn thresholds_and_rank_tests_are_wrong_as_often_as_they_are_known_to_be() {
    let law = Law::plain(10.0);
    let hasty = share(RUNS, 15, |seed| judges::threshold(law, 1, seed).is_some());
    assert!((0.04..0.15).contains(&hasty), "{hasty}");
    let patient = share(RUNS, 15, |seed| {
        judges::threshold(law.worse(0.01), 5, seed).is_some()
    });
    assert!((0.4..0.6).contains(&patient), "{patient}");
    let ranks = share(RUNS, 15, |seed| judges::mann_whitney(law, seed));
    assert!((0.6..0.9).contains(&ranks), "{ranks}");
    let oracle = [1, 2].map(|step| judges::oracle(law.worse(0.01), step));
    assert!(
        (oracle[0] - 0.14).abs() < 0.03 && (oracle[1] - 0.32).abs() < 0.03,
        "{oracle:?}"
    );
}
