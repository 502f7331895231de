#![expect(clippy::float_cmp, reason = "these values are exact")]

use proptest::prelude::*;

use super::{
    counters::{Increments, Reading},
    history::since_change,
    power::Plan,
    *,
};

fn counts(all: u32, bad: u32) -> Counts {
    Counts::new(f64::from(all), f64::from(bad)).unwrap()
}

/// The probability of each number of bad requests.
fn binomial(all: u32, rate: f64) -> Vec<f64> {
    let mut ways = 1.0;
    (0..=all)
        .map(|bad| {
            let (bad_, all_) = (f64::from(bad), f64::from(all));
            let probability = ways * rate.powf(bad_) * (1.0 - rate).powf(all_ - bad_);
            ways *= (all_ - bad_) / (bad_ + 1.0);
            probability
        })
        .collect()
}

proptest! {
    /// The mean of an e-value under its null hypothesis is at most 1, by enumeration of all counts of a window.
    #[test]
    fn an_e_value_has_a_mean_of_at_most_one_without_a_difference(
        (canary, primary) in (0_u32..12, 0_u32..12),
        (absolute, factor) in (prop_oneof![Just(0.0), 0.0..0.2_f64], prop_oneof![Just(1.0), 1.0..2.0_f64]),
        (history, failed) in (0_u32..200, 0.0..1.0_f64),
        (primary_rate, share) in (0.0..1.0_f64, 0.0..=1.0_f64),
        latency in any::<bool>(),
    ) {
        let margin = Margin::new(absolute, factor).unwrap();
        let measure = if latency { Measure::Latency } else { Measure::Errors };
        let history = Counts::new(f64::from(history), (f64::from(history) * failed).floor()).unwrap();
        // Above a limit of 1 no rate is worse.
        let limit = margin.limit(primary_rate);
        let worse = (limit <= 1.0).then(|| (false, (limit + (1.0 - limit) * share).min(1.0)));
        let within = (true, limit.min(1.0) * share);
        for (is_worse, canary_rate) in std::iter::once(within).chain(worse) {
            let mut mean = 0.0;
            for (bad_c, probability_c) in binomial(canary, canary_rate).iter().enumerate() {
                for (bad_p, probability_p) in binomial(primary, primary_rate).iter().enumerate() {
                    let window = Window {
                        canary: counts(canary, u32::try_from(bad_c).unwrap()),
                        primary: counts(primary, u32::try_from(bad_p).unwrap()),
                    };
                    let mut test = Comparison::new(measure, margin, history);
                    test.add(window);
                    let evidence = if is_worse { test.worse(1.0) } else { test.not_worse(1.0) };
                    mean += probability_c * probability_p * evidence.exp();
                }
            }
            prop_assert!(mean <= 1.0 + 1e-9, "{is_worse}: {mean}");
        }
    }

    #[test]
    fn any_counts_give_finite_evidence(windows in prop::collection::vec(((0_u32..1_000_000, 0.0..=1.0_f64), (0_u32..1_000_000, 0.0..=1.0_f64)), 0..6),
        (absolute, factor) in (0.0..1.0_f64, 1.0..100.0_f64)) {
        let mut test = Comparison::new(Measure::Errors, Margin::new(absolute, factor).unwrap(), Counts::NONE);
        let counts = |(all, rate): (u32, f64)| Counts::new(f64::from(all), (f64::from(all) * rate).floor()).unwrap();
        for (canary, primary) in windows {
            test.add(Window { canary: counts(canary), primary: counts(primary) });
            prop_assert!(test.worse(1.0).is_finite() && test.not_worse(1.0).is_finite());
        }
    }
}

#[test]
fn a_clear_regression_is_proven_and_an_equal_version_is_not() {
    let history = counts(100_000, 100);
    let test = |bad| {
        let mut test = Comparison::new(Measure::Errors, Margin::NONE, history);
        test.add(Window {
            canary: counts(600, bad),
            primary: counts(5_400, 5),
        });
        test.worse(1.0)
    };
    assert!(is_proven(test(30), 0.01), "5 % of 600 requests");
    assert!(!is_proven(test(1), 0.05), "as the primary");
    assert!(!is_proven(test(0), 0.05), "better than the primary");
    // With more dispersion, the same counts are less evidence.
    let mut dispersed = Comparison::new(Measure::Errors, Margin::NONE, history);
    dispersed.add(Window {
        canary: counts(600, 30),
        primary: counts(5_400, 5),
    });
    assert!(dispersed.worse(10.0) < dispersed.worse(1.0));
}

/// A dependency that fails for both versions alike is no regression.
#[test]
fn both_versions_may_fail() {
    let mut test = Comparison::new(Measure::Errors, Margin::NONE, counts(100_000, 100));
    for _ in 0..20 {
        test.add(Window {
            canary: counts(100, 50),
            primary: counts(900, 450),
        });
        assert!(!is_proven(test.worse(1.0), 0.05));
    }
}

#[test]
fn a_version_within_the_margin_is_proven_not_worse_in_the_end() {
    let margin = Margin::new(0.0025, 1.25).unwrap();
    let mut test = Comparison::new(Measure::Errors, margin, counts(100_000, 100));
    let mut windows = 0;
    while !is_proven(test.not_worse(1.0), 0.05) {
        test.add(Window {
            canary: counts(1_000, 1),
            primary: counts(9_000, 9),
        });
        windows += 1;
        assert!(windows < 10);
    }
    assert!(windows > 0);
    let mut without = Comparison::new(Measure::Errors, Margin::NONE, counts(100_000, 100));
    without.add(Window {
        canary: counts(1_000_000, 1_000),
        primary: counts(1_000_000, 1_000),
    });
    assert_eq!(without.not_worse(1.0), 0.0, "nothing proves equality");
}

#[test]
fn without_requests_of_both_versions_nothing_is_proven() {
    for (canary, primary) in [
        (counts(1_000, 1_000), Counts::NONE),
        (Counts::NONE, counts(1_000, 0)),
    ] {
        let mut test = Comparison::new(Measure::Errors, Margin::NONE, counts(100_000, 100));
        test.add(Window { canary, primary });
        assert!(
            test.worse(1.0).abs() < 1e-6,
            "{canary:?} {primary:?}: {}",
            test.worse(1.0)
        );
    }
}

#[test]
fn numbers_that_are_no_counts_are_refused() {
    for (all, bad) in [
        (f64::NAN, 0.0),
        (f64::INFINITY, 0.0),
        (-1.0, 0.0),
        (1.0, 2.0),
        (1.0, f64::NAN),
        (1.0, -1.0),
    ] {
        assert_eq!(Counts::new(all, bad), None, "{all} {bad}");
    }
    for (absolute, factor) in [
        (-0.1, 1.0),
        (1.0, 1.0),
        (0.0, 0.9),
        (f64::NAN, 1.0),
        (0.0, f64::INFINITY),
    ] {
        assert_eq!(Margin::new(absolute, factor), None, "{absolute} {factor}");
    }
}

#[test]
fn independent_requests_have_no_dispersion_and_bursts_have() {
    let even = [
        counts(1_000, 5),
        counts(1_000, 5),
        counts(1_000, 6),
        counts(1_000, 4),
    ];
    assert_eq!(dispersion::of_bursts(&even), 1.0);
    let bursts = [
        counts(1_000, 20),
        counts(1_000, 0),
        counts(1_000, 0),
        counts(1_000, 0),
    ];
    assert!(dispersion::of_bursts(&bursts) > 10.0);
    assert_eq!(dispersion::of_bursts(&[]), 1.0);
    assert_eq!(dispersion::of_bursts(&[counts(10, 0), counts(10, 0)]), 1.0);
}

/// Both versions share a rate that changes.
#[test]
fn a_rate_that_changes_and_stays_is_no_dispersion_and_short_bursts_are() {
    let minutes = |bad: &[u32]| -> Vec<_> { bad.iter().map(|bad| counts(1_000, *bad)).collect() };
    let repeat = |times: usize, bad: u32| vec![bad; times];
    let lasting = [
        [repeat(20, 10), repeat(20, 300)].concat(),
        // A rolling update takes some minutes.
        [repeat(20, 10), vec![90, 160, 230], repeat(20, 300)].concat(),
        // The application is young.
        [repeat(1, 10), vec![150], repeat(5, 300)].concat(),
        // The release before ended a minute ago.
        [repeat(20, 10), repeat(1, 300)].concat(),
        // A worse version that was replaced.
        [repeat(20, 10), repeat(8, 300), repeat(20, 10)].concat(),
        (0..60).map(|minute| 100 + 2 * minute).collect(),
    ];
    for rates in lasting {
        let dispersion = dispersion::of_bursts(&minutes(&rates));
        assert_eq!(dispersion, 1.0, "{rates:?}");
    }
    let bursts = [
        [repeat(30, 10), vec![100], repeat(30, 10)].concat(),
        [repeat(30, 10), vec![60, 60], repeat(30, 10)].concat(),
        [vec![10, 100], repeat(30, 10)].concat(),
        [repeat(30, 10), vec![100, 10]].concat(),
        vec![10, 100, 10, 10],
    ];
    for rates in bursts {
        let dispersion = dispersion::of_bursts(&minutes(&rates));
        assert!(dispersion > 3.0, "{rates:?}: {dispersion}");
    }
}

#[test]
fn a_run_begins_with_the_rate_since_its_last_change() {
    let changed = [
        vec![counts(1_000, 10); 20],
        vec![counts(1_000, 300); 10],
        vec![Counts::NONE],
        vec![counts(1_000, 11); 29],
    ];
    assert_eq!(since_change(&changed.concat()), counts(29_000, 319));
    let burst = [vec![counts(1_000, 10); 58], vec![counts(1_000, 300); 2]];
    assert_eq!(since_change(&burst.concat()), counts(60_000, 1_180));
    assert_eq!(since_change(&[]), Counts::NONE);
}

#[test]
fn pods_that_differ_disperse_and_two_pods_tell_nothing() {
    let alike = [counts(1_000, 50), counts(1_000, 51), counts(1_000, 49)];
    assert_eq!(dispersion::of_pods(&alike, 2, 500.0), 1.0);
    let unlike = [counts(1_000, 10), counts(1_000, 50), counts(1_000, 150)];
    assert!(dispersion::of_pods(&unlike, 2, 500.0) > 5.0);
    let few = dispersion::of_pods(&alike[..2], 2, 500.0);
    assert!(few > 1.5, "two pods are assumed to differ: {few}");
    assert_eq!(dispersion::of_pods(&[], 0, 500.0), 1.0);
}

#[test]
fn one_bad_pod_is_named() {
    let pods = |bad: [u32; 3]| {
        let named = ["a", "b", "c"].into_iter().zip(bad);
        named
            .map(|(name, bad)| (name, counts(100, bad)))
            .collect::<Vec<_>>()
    };
    assert_eq!(pods::one_pod(pods([0, 9, 1])), Some("b"));
    assert_eq!(pods::one_pod(pods([3, 9, 1])), None);
    assert_eq!(pods::one_pod(pods([0, 0, 0])), None);
    assert_eq!(pods::one_pod([("a", counts(100, 9))]), None, "its only pod");
    assert_eq!(
        pods::one_pod([("a", counts(900, 9)), ("b", counts(100, 1))]),
        None,
        "its share"
    );
}

#[test]
fn latencies_are_compared_at_bounds_that_some_requests_exceed() {
    // For each bound, the number of 1,000 requests that were not slower.
    let slower = |fast: [u32; 3]| {
        let bounds = [100.0, 250.0, 500.0].into_iter().zip(fast);
        let bounds = bounds.map(|(bound, fast)| (bound, vec![counts(1_000, 1_000 - fast)]));
        bounds.collect::<Vec<_>>()
    };
    let history = slower([600, 950, 999]);
    let mut test = MetricTest::of_durations(&rules(Measure::Latency), &history, None);
    let compared: Vec<_> = test.bounds().collect();
    assert_eq!(compared, [250.0], "40 % and 0.1 % are left out");
    let slow = slower([600, 850, 999]);
    let at = |bounds: &[(f64, Vec<Counts>)], bound: f64| {
        let found = bounds.iter().find(|(of, _)| *of == bound);
        found.map(|(_, blocks)| blocks[0])
    };
    test.add(|bound| {
        Some(Window {
            canary: at(&slow, bound?)?,
            primary: at(&history, bound?)?,
        })
    });
    assert!(is_proven(test.worse(1.0), 0.01));
    let fast = slower([1_000, 1_000, 1_000]);
    let lowest = MetricTest::of_durations(&rules(Measure::Latency), &fast, None);
    assert_eq!(lowest.bounds().collect::<Vec<_>>(), [100.0]);
    let all_slow = slower([0, 100, 200]);
    let highest = MetricTest::of_durations(&rules(Measure::Latency), &all_slow, None);
    assert_eq!(highest.bounds().collect::<Vec<_>>(), [500.0]);
}

#[test]
fn counters_count_each_request_once_and_leave_restarts_out() {
    let reading = |pods: &[(&str, u32, u32)]| -> Reading {
        { pods.iter() }
            .map(|(name, all, bad)| ((*name).to_owned(), counts(*all, *bad)))
            .collect()
    };
    let first = [("a", 100, 1)];
    let more = [("a", 150, 2), ("new", 7, 1)];
    let between = |before: &[_], now: &[_]| Increments::between(&reading(before), &reading(now));
    assert_eq!(
        between(&first, &more).total(),
        counts(57, 2),
        "a new pod began with 0"
    );
    assert_eq!(between(&more, &[("a", 160, 2)]).total(), counts(10, 0));
    let back = between(&more, &[("a", 20, 0), ("new", 9, 1)]);
    assert_eq!(back.total(), counts(2, 0));
    assert_eq!(back.restarted.iter().collect::<Vec<_>>(), ["a"]);
    // The bad requests of the pod decreased although all requests grew: two replicas of Prometheus differ.
    let odd = between(&more, &[("a", 160, 0)]);
    assert_eq!((odd.total(), odd.restarted.len()), (Counts::NONE, 1));
}

/// The numbers of the research that the defaults were chosen from: a base rate of 0.1 %, a weight of 10 %, 5 % false alarms.
#[test]
fn the_requests_that_a_regression_needs_are_known_before_the_run() {
    let plan = |increase, margin| Plan {
        measure: Measure::Errors,
        margin,
        history: counts(324_000, 324),
        share: 0.1,
        increase,
        false_alarms: 0.05,
        dispersion: 1.0,
    };
    let margin = Margin::new(0.0025, 1.25).unwrap();
    for (increase, margin, expected) in [
        (0.01, Margin::NONE, 315.0),
        (0.05, Margin::NONE, 38.0),
        (0.01, margin, 1_188.0),
        (0.05, margin, 57.0),
    ] {
        let needed = requests_to_detect(&plan(increase, margin)).unwrap();
        assert!(
            (needed / expected - 1.0).abs() < 0.1,
            "{increase} {margin:?}: {needed}, not {expected}"
        );
    }
    assert_eq!(
        requests_to_detect(&plan(0.001, margin)),
        None,
        "within the margin"
    );
}

/// The rules of most tests: no margin.
const fn rules(measure: Measure) -> Rules {
    Rules {
        measure,
        margin: Margin::NONE,
        false_alarms: 0.05,
        detect: 0.01,
        least: None,
    }
}

/// The counters of a version's pods before and after a window in which they served these requests.
fn readings(pods: &[(&str, u32, u32)]) -> Readings {
    let all = |add: bool| {
        let pods = pods.iter().map(|(name, all, bad)| {
            let (more, worse) = if add { (*all, *bad) } else { (0, 0) };
            ((*name).to_owned(), counts(1_000 + more, 10 + worse))
        });
        pods.collect()
    };
    Readings {
        start: all(false),
        before: all(false),
        now: all(true),
    }
}

#[test]
fn a_metric_comes_to_a_finding_for_each_state() {
    let history = vec![counts(600, 1); 60];
    let good = [("p1", 3_000, 3), ("p2", 3_000, 3)];
    let state = |canary: &[(&str, u32, u32)], least| {
        let rules = Rules {
            least,
            ..rules(Measure::Errors)
        };
        let mut test = MetricTest::of_errors(&rules, &history);
        let arms = |_| Arms {
            canary: readings(canary),
            primary: readings(&good),
            counts_pods: true,
        };
        let finding = test.advance(&rules, arms);
        finding.state
    };
    assert_eq!(
        state(&[("c1", 500, 30), ("c2", 500, 25)], None),
        State::Worse
    );
    assert_eq!(
        state(&[("c1", 500, 55), ("c2", 500, 0)], None),
        State::OnePod("c1".to_owned())
    );
    assert_eq!(
        state(&[("c1", 500, 0), ("c2", 500, 0)], Some(100.0)),
        State::Undecided
    );
    assert!(
        matches!(state(&[("c1", 5, 0), ("c2", 5, 0)], None), State::LowTraffic(needed) if needed > 100.0)
    );
    assert_eq!(state(&[("c1", 5, 0)], Some(6.0)), State::LowTraffic(6.0));
    assert_eq!(state(&[], None), State::NoData);
    let margin = Margin::new(0.02, 2.0).unwrap();
    let rules = Rules {
        margin,
        ..rules(Measure::Errors)
    };
    let arms = |_| Arms {
        canary: readings(&[("c1", 5_000, 5)]),
        primary: readings(&good),
        counts_pods: true,
    };
    let finding = MetricTest::of_errors(&rules, &history).advance(&rules, arms);
    assert_eq!(finding.state, State::NotWorse);
    assert_eq!(
        (finding.seen.canary.all(), finding.last.primary.bad()),
        (5_000.0, 6.0)
    );
}

#[test]
fn at_most_four_bounds_are_compared_and_they_lie_apart() {
    let bounds: Vec<_> = (1..=20)
        .map(|place| (f64::from(place), vec![counts(1_000, 300 - place * 10)]))
        .collect();
    let test = MetricTest::of_durations(&rules(Measure::Latency), &bounds, None);
    assert_eq!(test.bounds().collect::<Vec<_>>(), [1.0, 7.0, 13.0, 20.0]);
    let with_own = MetricTest::of_durations(&rules(Measure::Latency), &bounds, Some(8.0));
    let compared: Vec<_> = with_own.bounds().collect();
    assert_eq!(
        compared,
        [1.0, 11.0, 20.0, 8.0],
        "the user's own one, always"
    );
}

/// Without a known rate of the primary, the alternatives cannot be chosen.
#[test]
fn the_first_requests_of_a_service_without_history_only_teach_the_primarys_rate() {
    let rules = rules(Measure::Errors);
    let mut test = MetricTest::of_errors(&rules, &[]);
    let arms = |bad| {
        move |_| Arms {
            canary: readings(&[("c1", 1_000, bad)]),
            primary: readings(&[("p1", 9_000, 9)]),
            counts_pods: true,
        }
    };
    let finding = test.advance(&rules, arms(1));
    assert_eq!((finding.seen.canary.all(), finding.worse), (0.0, 0.0));
    assert!(matches!(finding.state, State::LowTraffic(_)));
    // The pods are assumed to be unequal, as pods usually are. Even so, 60 bad requests suffice.
    assert_eq!(test.advance(&rules, arms(60)).state, State::Worse);
}

/// Prometheus has lost its data, or scraped nothing for minutes.
#[test]
fn a_version_all_of_whose_counters_are_lost_adds_nothing() {
    let rules = rules(Measure::Errors);
    let mut test = MetricTest::of_errors(&rules, &vec![counts(600, 1); 60]);
    let lost = |all, bad| Readings {
        now: readings(&[("p1", all, bad)]).now,
        ..Readings::default()
    };
    let arms = |_| Arms {
        canary: readings(&[("c1", 1_000, 20)]),
        primary: lost(1_000_000, 1_000),
        counts_pods: true,
    };
    let finding = test.advance(&rules, arms);
    assert_eq!(finding.last.primary.all(), 0.0);
    assert_eq!(finding.restarted, ["p1"]);
    assert!(finding.worse.abs() < 1e-9, "{}", finding.worse);
}
