#![allow(clippy::disallowed_methods, reason = "the tests compare with files")]

use std::{collections::BTreeMap, time::Duration};

use rand::{SeedableRng, rngs::SmallRng};
use rand_distr::{Binomial, Distribution};
use serde_json::json;

use super::{
    halves::Halves,
    history::History,
    judges::{Judge, Outcome, Trial, play},
    metric::Limit,
    *,
};
use crate::{
    api::{
        canary::Canary,
        compare::{Compare, Policy},
    },
    comparison::{Margin, Measure, Rules},
    metrics::{
        TimeSeries,
        counting::{
            Counted,
            minutes::{Minutes, Tally},
        },
    },
    rollout::Comparable,
    view::render::Line,
};

/// Some Monday, in minutes since 1970.
const MONDAY: i64 = 29_000_160;

fn comparable(measure: Measure, limits: (Option<f64>, Option<f64>)) -> Comparable {
    let queries = || ("all".to_owned(), "bad".to_owned());
    Comparable {
        metric: "errors".to_owned(),
        counted: Counted::of_queries(queries(), queries()),
        rules: Rules {
            measure,
            margin: Margin::new(0.0025, 1.25).unwrap(),
            false_alarms: 0.05,
            detect: 0.01,
            least: None,
        },
        compare: Compare::default(),
        no_data: Policy::Hold,
        low_traffic: Policy::Hold,
        limits: Some(limits),
        window: Duration::from_secs(60),
        unit_millis: 1.0,
        is_asked: false,
    }
}

fn steps(shares: &[f64], threshold: i64) -> Schedule {
    Schedule {
        shares: shares.to_vec(),
        interval: 1,
        threshold,
        deadline: 10,
    }
}

/// Five steps up to half of the requests, of which two may fail.
fn usual() -> Schedule {
    steps(&[0.1, 0.2, 0.3, 0.4, 0.5], 2)
}

/// So many hours of these pods, each with a number of requests in a minute and a share of failures.
fn service(hours: i64, pods: &[(u32, f64)]) -> ReplayedMetric {
    let limits = (Some(99.0), None);
    let mut metric = ReplayedMetric::of(comparable(Measure::Errors, limits), &[]).unwrap();
    metric.history.add(counters(hours, pods));
    metric
}

fn counters(hours: i64, pods: &[(u32, f64)]) -> Minutes {
    let mut random = SmallRng::seed_from_u64(7);
    let mut draw = |all: u32, rate| {
        let law = Binomial::new(all.into(), rate).unwrap();
        f64::from(u32::try_from(law.sample(&mut random)).unwrap())
    };
    let mut counters = vec![(0.0, 0.0); pods.len()];
    let mut minutes = Minutes::new();
    for minute in 0..=hours * 60 {
        let mut now = BTreeMap::new();
        for (place, (requests, rate)) in pods.iter().enumerate() {
            let (all, bad) = &mut counters[place];
            *all += f64::from(*requests);
            *bad += draw(*requests, *rate);
            let tally = Tally {
                all: *all,
                bad: vec![*bad],
            };
            now.insert(format!("pod-{place}"), tally);
        }
        minutes.insert((MONDAY + minute) * 60, now);
    }
    minutes
}

fn replayed(metric: ReplayedMetric, schedule: &Schedule) -> Backtest {
    let mut shares = Vec::new();
    let report = replay(&[metric], schedule, &mut |share| shares.push(share));
    assert!(shares.is_sorted(), "{shares:?}");
    assert_eq!(shares.last(), Some(&1.0));
    report
}

#[test]
fn a_threshold_near_the_usual_rate_raises_false_alarms_and_a_comparison_does_not() {
    let report = replayed(service(110, &[(600, 0.008); 8]), &usual());
    let judged = &report.metrics[0].judged;
    let threshold = judged.threshold.as_ref().unwrap();
    assert_eq!(threshold.runs, 108, "each hour but the first, and the last");
    assert!(threshold.false_alarms > 0.3, "{threshold:?}");
    let comparison = &judged.comparison;
    assert!(comparison.false_alarms <= 0.02, "{comparison:?}");
    let [one, five] = comparison.found[..] else {
        panic!("{comparison:?}");
    };
    assert!(five.share > 0.99 && five.median_step <= Some(2), "{five:?}");
    assert!(one.share < five.share, "{one:?}");
    let metric = &report.metrics[0];
    assert_eq!(metric.pods, 8);
    assert!((metric.bad_share - 0.008).abs() < 0.0005, "{metric:?}");
    assert_eq!(metric.suggested_max_increase, Some(0.0), "{metric:?}");
    assert!(report.release.is_none(), "there is one metric");
}

#[test]
fn the_requests_of_one_pod_are_drawn() {
    let report = replayed(service(30, &[(6_000, 0.002)]), &usual());
    let judged = &report.metrics[0].judged;
    let threshold = judged.threshold.as_ref().unwrap();
    assert!(threshold.false_alarms < 0.01, "{threshold:?}");
    assert!(threshold.found[1].share > 0.99, "{threshold:?}");
    assert!(judged.comparison.found[1].share > 0.99, "{judged:?}");
}

#[test]
fn a_canary_with_few_requests_waits() {
    let report = replayed(service(110, &[(3, 0.0); 2]), &usual());
    let judged = &report.metrics[0].judged;
    assert!(judged.comparison.waits > 0.99, "{judged:?}");
    assert!(judged.comparison.false_alarms < 0.01, "{judged:?}");
    let suggested = report.metrics[0].suggested_max_increase;
    assert_eq!(suggested, None, "a margin with which each run waits");
    let shown = markdown(&report);
    assert!(
        shown.contains("wait for requests: a longer interval"),
        "{shown}"
    );
}

/// In each run, the primary gets a new version: all its pods are replaced by pods of other names.
#[test]
fn pods_that_are_replaced_leave_no_half_without_requests() {
    let mut metric = service(0, &[]);
    let mut minutes = counters(40, &[(600, 0.001); 2]);
    let mut begun = BTreeMap::new();
    for (seconds, pods) in &mut minutes {
        let version = (seconds / 60 - MONDAY + 25) / 60;
        let renamed = std::mem::take(pods).into_iter().map(|(pod, tally)| {
            let pod = format!("{pod}-{version}");
            // The counters of a new process begin with 0.
            let begin: &Tally = begun.entry(pod.clone()).or_insert_with(|| tally.clone());
            let bad = tally.bad[0] - begin.bad[0];
            let all = tally.all - begin.all;
            (
                pod,
                Tally {
                    all,
                    bad: vec![bad],
                },
            )
        });
        *pods = renamed.collect();
    }
    metric.history.add(minutes);
    let report = replayed(metric, &usual());
    let judged = &report.metrics[0].judged;
    let threshold = judged.threshold.as_ref().unwrap();
    assert!(threshold.runs >= 30, "{threshold:?}");
    assert!(threshold.false_alarms < 0.01, "{threshold:?}");
    assert!(judged.comparison.false_alarms < 0.01, "{judged:?}");
    assert_eq!(report.metrics[0].pods, 2, "at a time");
}

/// A step takes five minutes, and the metric's interval is one.
#[test]
fn a_threshold_is_about_the_last_interval_of_the_metric() {
    let schedule = Schedule {
        interval: 5,
        ..steps(&[0.5], 1)
    };
    let judge = |bad_minute: i64, window: usize| {
        let mut metric = service(0, &[]);
        metric.window = window;
        let mut minutes = counters(3, &[(600, 0.0); 2]);
        for (seconds, pods) in &mut minutes {
            if seconds / 60 >= MONDAY + 60 + bad_minute {
                for tally in pods.values_mut() {
                    tally.bad[0] += 300.0;
                }
            }
        }
        metric.history.add(minutes);
        let trial = Trial {
            start: MONDAY + 60,
            seed: 1,
            increase: 0.0,
        };
        play(&[&metric], &schedule, Judge::Threshold, trial).unwrap()
    };
    assert_eq!(judge(4, 1), Outcome::RolledBack(1));
    assert_eq!(
        judge(1, 1),
        Outcome::Promoted,
        "three minutes before the check"
    );
    assert_eq!(judge(1, 5), Outcome::RolledBack(1));
}

#[test]
fn slow_requests_are_found_by_their_bounds() {
    let buckets = buckets(&[
        ("100", 900.0),
        ("250", 995.0),
        ("500", 1_000.0),
        ("+Inf", 1_000.0),
    ]);
    let of = comparable(Measure::Latency, (None, Some(500.0)));
    let mut metric = ReplayedMetric::of(of, &buckets).unwrap();
    let bounds = metric.bounds.clone();
    let share = |bound: &f64| match *bound {
        ..200.0 => 0.1,
        ..300.0 => 0.005,
        _ => 0.0,
    };
    let minutes = (0..=30 * 60).map(|minute: i32| {
        let all = f64::from(minute) * 1_000.0;
        let tally = Tally {
            all,
            bad: bounds
                .iter()
                .map(|bound| (all * share(bound)).floor())
                .collect(),
        };
        let pods = (0..6)
            .map(|pod| (format!("pod-{pod}"), tally.clone()))
            .collect();
        ((MONDAY + i64::from(minute)) * 60, pods)
    });
    metric.history.add(minutes.collect());
    let report = replayed(metric, &usual());
    let judged = &report.metrics[0].judged;
    let threshold = judged.threshold.as_ref().unwrap();
    assert!(threshold.false_alarms < 0.01, "{threshold:?}");
    assert!(
        threshold.found[1].share > 0.99,
        "5 % are slower than 500 ms"
    );
    assert!(judged.comparison.false_alarms < 0.01, "{judged:?}");
    assert!(judged.comparison.found[1].share > 0.99, "{judged:?}");
}

#[test]
fn a_metric_without_a_threshold_is_judged_by_the_comparison_only() {
    let mut metric = service(5, &[(600, 0.001); 2]);
    metric.limit = None;
    // The helper asserts that the progress reaches its end without the runs of a threshold.
    let report = replayed(metric, &usual());
    assert!(report.metrics[0].judged.threshold.is_none());
    assert_eq!(report.metrics[0].judged.comparison.runs, 3);
}

#[test]
fn a_release_is_judged_by_all_metrics_together() {
    let metrics = [
        service(20, &[(600, 0.001); 4]),
        service(20, &[(600, 0.05); 4]),
    ];
    let report = replay(&metrics, &usual(), &mut |_| {});
    let of = |judged: &Judged| judged.threshold.as_ref().unwrap().false_alarms;
    let alone: Vec<_> = report.metrics.iter().map(|it| of(&it.judged)).collect();
    let together = of(report.release.as_ref().unwrap());
    assert!(alone[0] < 0.01 && alone[1] > 0.99, "{alone:?}");
    assert!(together > 0.99, "{together}");
}

#[test]
fn a_failed_check_stays_at_its_step_until_the_threshold_and_a_step_counts_from_one() {
    let metric = service(5, &[(600, 0.05); 4]);
    let trial = Trial {
        start: MONDAY + 120,
        seed: 1,
        increase: 0.0,
    };
    let judge = Judge::Threshold;
    let outcome = play(&[&metric], &usual(), judge, trial);
    assert_eq!(outcome, Some(Outcome::RolledBack(1)));
    let late = Trial {
        start: MONDAY + 300,
        ..trial
    };
    assert_eq!(play(&[&metric], &usual(), judge, late), None, "the end");
    let early = Trial {
        start: MONDAY,
        ..trial
    };
    assert_eq!(
        play(&[&metric], &usual(), judge, early),
        None,
        "no hour before"
    );
}

#[test]
fn only_growth_from_one_minute_to_the_next_is_requests() {
    let mut history = History::default();
    let at = |minute: i64, pods: &[(&str, f64, f64)]| {
        let pods = pods.iter().map(|(pod, all, bad)| {
            let tally = Tally {
                all: *all,
                bad: vec![*bad],
            };
            ((*pod).to_owned(), tally)
        });
        Minutes::from([(minute * 60, pods.collect())])
    };
    history.add(at(10, &[("a", 1_000.0, 10.0)]));
    history.add(at(11, &[("a", 1_100.0, 12.0), ("late", 9_000.0, 0.0)]));
    history.add(at(11, &[("a", 1_100.0, 12.0)]));
    for minute in 12..16 {
        history.add(at(minute, &[("a", 1_100.0, 12.0)]));
    }
    history.add(at(16, &[("a", 1_100.0, 12.0), ("b", 50.0, 0.0)]));
    history.add(at(17, &[("a", 20.0, 0.0), ("b", 60.0, 0.0)]));
    history.add(at(
        19,
        &[("a", 90.0, 1.0), ("b", 80.0, 90.0), ("c", 7_000.0, 0.0)],
    ));
    history.add(at(20, &[("a", 95.0, 1.0), ("b", 81.0, 90.5)]));
    let counts = |minute: i64| {
        let pods = history.minute(minute).iter();
        pods.map(|(pod, tally)| (history.pod(*pod).to_owned(), tally.all, tally.bad[0]))
            .collect::<Vec<_>>()
    };
    let pod = |name: &str, all, bad| (name.to_owned(), all, bad);
    assert_eq!(counts(10), [], "the first value");
    assert_eq!(counts(11), [pod("a", 100.0, 2.0)], "one was seen late");
    let new = [pod("a", 0.0, 0.0), pod("b", 50.0, 0.0)];
    assert_eq!(counts(16), new, "b began with 0");
    assert_eq!(counts(17), [pod("b", 10.0, 0.0)], "a restarted");
    assert_eq!(counts(19), [], "a minute is missing, so c may be old");
    let both = [pod("a", 5.0, 0.0), pod("b", 1.0, 0.5)];
    assert_eq!(counts(20), both);
    assert_eq!(history.ends(), Some((11, 20)));
    assert_eq!(history.most_pods(0..100), 2);
}

/// Buckets with these bounds, which grow each minute by these numbers of requests.
fn buckets(bounds: &[(&str, f64)]) -> Vec<TimeSeries> {
    let series = |(le, each): &(&str, f64)| TimeSeries {
        labels: [("le".to_owned(), (*le).to_owned())].into(),
        points: (0..10)
            .map(|nth| (f64::from(nth) * 60.0, f64::from(nth) * each))
            .collect(),
    };
    bounds.iter().map(series).collect()
}

#[test]
fn the_99th_percentile_is_that_of_prometheus() {
    let all = buckets(&[
        ("100", 900.0),
        ("250", 980.0),
        ("500", 990.0),
        ("1000", 1_000.0),
        ("+Inf", 1_000.0),
    ]);
    let limit = |max: f64| {
        let of = comparable(Measure::Latency, (None, Some(max)));
        ReplayedMetric::of(of, &all).unwrap()
    };
    // The requests of a minute, by the bounds of the metric.
    let window = |metric: &ReplayedMetric| {
        let slower = |bound: &f64| match *bound {
            ..200.0 => 100.0,
            ..300.0 => 20.0,
            ..600.0 => 10.0,
            _ => 0.0,
        };
        Tally {
            all: 1_000.0,
            bad: metric.bounds.iter().map(slower).collect(),
        }
    };
    // histogram_quantile(0.99) of these buckets is 500.
    for (max, passes) in [
        (90.0, false),
        (400.0, false),
        (499.0, false),
        (500.0, true),
        (501.0, true),
        (2_000.0, true),
    ] {
        let metric = limit(max);
        let passed = metric.limit.unwrap().passes(&window(&metric));
        assert_eq!(passed, passes, "{max} of {:?}", metric.bounds);
    }
    assert_eq!(limit(2_000.0).limit, Some(Limit::Never));
    assert_eq!(limit(250.0).own, Some(250.0));
    assert_eq!(limit(300.0).own, None);
    let none = Tally {
        all: 0.0,
        bad: vec![0.0; 4],
    };
    assert!(!limit(500.0).limit.unwrap().passes(&none), "no value");
    let of = comparable(Measure::Latency, (None, Some(500.0)));
    assert!(
        ReplayedMetric::of(of, &[])
            .unwrap_err()
            .contains("no buckets")
    );
}

fn canary(analysis: &serde_json::Value) -> Canary {
    let spec = json!({"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}, "service": {"port": 80}, "analysis": analysis});
    serde_json::from_value(json!({"metadata": {"name": "podinfo"}, "spec": spec})).unwrap()
}

#[test]
fn a_run_has_the_steps_of_the_canary() {
    for (analysis, shares, interval) in [
        (
            json!({"interval": "1m", "stepWeight": 20, "maxWeight": 50}),
            vec![0.2, 0.4, 0.5],
            1,
        ),
        (
            json!({"interval": "10s", "stepWeights": [1, 10, 80]}),
            vec![0.01, 0.1, 0.8],
            1,
        ),
        (json!({"interval": "90s", "stepWeight": 50}), vec![0.5], 2),
        (json!({"interval": "5m", "iterations": 3}), vec![0.5; 3], 5),
        (json!({"interval": "1m", "stepWeight": 100}), vec![0.5], 1),
    ] {
        let schedule = schedule(&canary(&analysis));
        assert_eq!(
            (schedule.shares, schedule.interval),
            (shares, interval),
            "{analysis}"
        );
    }
}

#[test]
fn people_and_scripts_read_the_same_numbers() {
    let mut report = replayed(service(4, &[(6_000, 0.001); 4]), &usual());
    report.namespace = "test".to_owned();
    report.name = "podinfo".to_owned();
    report.not_replayed = vec![NotReplayed {
        metric: "latency".to_owned(),
        why: "only request-success-rate can".to_owned(),
    }];
    let shown: Vec<_> = lines(&report, 200).iter().map(Line::text).collect();
    compare("backtest.txt", &(shown.join("\n") + "\n"));
    compare("backtest.md", &markdown(&report));
    let json = report.json();
    assert_eq!(json["kind"], "Backtest");
    assert_eq!(json["metrics"][0]["judged"]["threshold"]["runs"], 2);
    assert_eq!(json["metrics"][0]["margins"][2]["maxIncrease"], 0.25);
    let empty = lines(&Backtest::default(), 80);
    let empty: Vec<_> = empty.iter().map(Line::text).collect();
    assert!(
        empty[1].contains("has no requests of the primary"),
        "{empty:?}"
    );
}

/// Metrics whose pods were seen in another order would have other halves.
#[test]
fn all_metrics_have_the_same_halves() {
    let canary_pods = |history: &History| {
        let mut halves = Halves::of(history, MONDAY + 120, 3, 0.0).unwrap();
        halves.pass(MONDAY + 120, 0.5);
        let [canary, _] = halves.readings(0);
        canary.into_keys().collect::<Vec<_>>()
    };
    let minutes = counters(5, &[(600, 0.01); 5]);
    let last = minutes.values().next().unwrap()["pod-4"].clone();
    let earlier = BTreeMap::from([("pod-4".to_owned(), last)]);
    let [mut one, mut other] = [History::default(), History::default()];
    other.add(Minutes::from([((MONDAY - 1) * 60, earlier)]));
    one.add(minutes.clone());
    other.add(minutes);
    assert_ne!(one.pod(0), other.pod(0));
    assert_eq!(canary_pods(&one), canary_pods(&other));
    assert_eq!(canary_pods(&one).len(), 2);
}

/// Compares with a file in `tests`; `UPDATE_TEXTS=1` writes it.
fn compare(file: &str, text: &str) {
    let path = format!("{}/src/backtest/tests/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_TEXTS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{file}");
}
