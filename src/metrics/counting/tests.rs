use serde_json::json;

use super::{minutes::Tally, *};
use crate::{
    comparison::{Margin, MetricTest, Rules, State},
    metrics::{
        observer::{
            istio::{Gateway, Istio},
            traefik::Traefik,
        },
        providers::prometheus,
    },
    snapshot::HttpResponse,
};

fn model() -> Model {
    Model {
        namespace: "test".to_owned(),
        target: "podinfo".to_owned(),
        service: "web".to_owned(),
        ingress: "in".to_owned(),
        route: "rev-2".to_owned(),
        ..Model::default()
    }
}

fn counted(observer: &dyn Observer) -> Counted {
    Counted::of(observer, &model(), "podinfo-primary")
}

/// A minute in a run that is two minutes old.
fn minute() -> Window {
    Window {
        before: SignedDuration::from_secs(60),
        start: SignedDuration::from_secs(120),
    }
}

/// Series of Prometheus in this JSON.
fn series(result: &serde_json::Value) -> Vec<TimeSeries> {
    let body = json!({"status": "success", "data": {"result": result}}).to_string();
    prometheus::series(&HttpResponse { status: 200, body }).unwrap()
}

#[test]
fn the_query_of_istio_asks_for_the_counters_of_both_versions_at_both_ends_of_the_window() {
    let counted = counted(&Istio);
    let window = minute();
    let errors = counted.errors(window);
    assert_eq!(errors.matches("label_replace(").count(), 14, "{errors}");
    let part = r#"label_replace(sum by (pod, kubernetes_pod_name, instance, reporter) (last_over_time(istio_requests_total{reporter=~"destination|waypoint", destination_workload_namespace="test", destination_workload=~"podinfo-primary", response_code!~"5.*"}[5m] offset 75s)), "flagger", "primary good before", "", "")"#;
    assert!(errors.contains(part), "{errors}");
    let start = r#"[5m] offset 3735s)), "flagger", "primary all start", "", "")"#;
    assert!(errors.contains(start), "an hour before the run: {errors}");
    let durations = counted.durations([250.0, 0.5], window);
    let bounds = r#", le=~"250([.]0)?|2[.]5e[+]02|0[.]5|5e-01|[+]Inf"}"#;
    assert!(durations.contains(bounds), "{durations}");
    for (bound, text) in [
        (1e6, "1e[+]06"),
        (5e-5, "5e-05"),
        (0.005_062_5, "0[.]0050625"),
    ] {
        assert!(
            pattern(bound).split('|').any(|it| it == text),
            "{}",
            pattern(bound)
        );
    }
    let durations = super::tests::counted(&Traefik).durations([0.5], window);
    assert!(!durations.contains(r#"le="+Inf""#), "{durations}");
}

#[test]
fn counters_are_read_by_pod_and_a_pod_without_a_good_request_has_none() {
    let sample = |part: &str, pod: &serde_json::Value, value: &str| {
        let mut labels = pod.clone();
        labels["flagger"] = json!(part);
        json!({"metric": labels, "value": [1, value]})
    };
    let (a, b) = (
        json!({"pod": "a", "instance": "1.2.3.4:15090"}),
        json!({"instance": "b"}),
    );
    let answer = series(&json!([
        sample("canary all before", &a, "10"),
        sample("canary good before", &a, "10"),
        sample("canary all now", &a, "30"),
        sample("canary good now", &a, "25"),
        sample("canary all now", &b, "7"),
        sample("primary all now", &a, "NaN"),
        sample("canary newest", &json!({}), "100"),
        sample("primary newest", &json!({}), "90"),
        {"metric": {}, "value": [1, "5"]},
    ]));
    let read = counted(&Istio).read_errors(&answer);
    let counts = |all, bad| Counts::new(all, bad).unwrap();
    assert_eq!(
        read.canary.before,
        Reading::from([("a".to_owned(), counts(10.0, 0.0))])
    );
    let now = [
        ("a".to_owned(), counts(30.0, 5.0)),
        ("b".to_owned(), counts(7.0, 7.0)),
    ];
    assert_eq!(read.canary.now, Reading::from(now));
    assert_eq!(read.primary, Readings::default());
    assert_eq!(newest(&answer), Some(Timestamp::from_second(90).unwrap()));
    assert_eq!(newest(&[]), None);
}

#[test]
fn buckets_are_read_by_their_bound_however_it_is_written() {
    let bucket = |le: &str, value: &str| json!({"metric": {"flagger": "canary bucket now", "pod": "a", "le": le}, "value": [1, value]});
    for written in ["250", "250.0"] {
        let answer = series(&json!([
            bucket(written, "90"),
            bucket("+Inf", "100"),
            bucket("500", "99")
        ]));
        let read = counted(&Istio).slower(&answer, 250.0);
        let counts = Counts::new(100.0, 10.0).unwrap();
        assert_eq!(read.canary.now, Reading::from([("a".to_owned(), counts)]));
    }
}

#[test]
fn the_hour_before_a_run_has_a_block_for_each_minute_without_restarts() {
    let range = |labels: serde_json::Value, values: &[(i64, &str)]| json!({"metric": labels, "values": values});
    let answer = series(&json!([
        range(
            json!({"flagger": "all"}),
            &[(0, "0"), (60, "100"), (120, "40"), (180, "90")]
        ),
        range(
            json!({"flagger": "good"}),
            &[(0, "0"), (60, "99"), (120, "40"), (180, "90")]
        ),
    ]));
    let istio = counted(&Istio);
    let counts = |all, bad| Counts::new(all, bad).unwrap();
    assert_eq!(
        istio.read_error_history(&answer),
        [counts(100.0, 1.0), counts(50.0, 0.0)]
    );
    assert_eq!(istio.read_error_history(&[]), []);
    let le = |le: &str, last: &str| range(json!({"le": le}), &[(0, "0"), (60, last)]);
    let answer = series(&json!([
        le("+Inf", "100"),
        le("500", "99"),
        le("250", "90")
    ]));
    let expected = [
        (250.0, vec![counts(100.0, 10.0)]),
        (500.0, vec![counts(100.0, 1.0)]),
    ];
    assert_eq!(duration_blocks(&answer), expected);
    assert_eq!(duration_blocks(&answer[1..]), []);
}

#[test]
fn an_answer_that_is_no_list_of_series_is_an_error_and_too_many_series_are_not_read() {
    let read = |status: u16, body: &str| {
        let body = body.to_owned();
        prometheus::series(&HttpResponse { status, body })
    };
    for (status, body) in [
        (200, "<html>"),
        (200, r#"{"data":"#),
        (200, r#"{"data":{"result":[{"metric":7}]}}"#),
        (500, ""),
        (429, "{}"),
    ] {
        assert!(read(status, body).is_err(), "{status} {body}");
    }
    for body in [
        "null",
        "{}",
        r#"{"data":null}"#,
        r#"{"data":{"result":null}}"#,
        r#"{"data":{"result":[null]}}"#,
    ] {
        assert_eq!(read(200, body), Ok(Vec::new()), "{body}");
    }
    let many = vec![json!({"metric": {}, "value": [1, "1"]}); 10_001];
    let error = read(200, &json!({"data": {"result": many}}).to_string()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("10001 series; at most 10000 are read"),
        "{error}"
    );
}

#[test]
fn the_counters_of_a_users_queries_are_asked_for_at_both_ends_of_the_window() {
    let arm = |name: &str| {
        (
            format!("all{{w=\"{name}\"}}"),
            format!("sum(bad{{w=\"{name}\"}})"),
        )
    };
    let counted = Counted::of_queries(arm("web"), arm("web-primary"));
    let query = counted.errors(minute());
    let part = r#"label_replace(sum by (pod, kubernetes_pod_name, instance) (last_over_time((sum(bad{w="web-primary"}))[5m:15s] offset 75s)), "flagger", "primary bad before", "", "")"#;
    assert!(query.contains(part), "{query}");
    let sample =
        |part: &str, value: &str| json!({"metric": {"flagger": part}, "value": [1, value]});
    let answer = series(&json!([
        sample("canary all now", "30"),
        sample("canary bad now", "5"),
        sample("primary all now", "9")
    ]));
    let read = counted.read_errors(&answer);
    let counts = |all, bad| Reading::from([(String::new(), Counts::new(all, bad).unwrap())]);
    assert_eq!(read.canary.now, counts(30.0, 5.0));
    assert_eq!(
        read.primary.now,
        counts(9.0, 0.0),
        "no bad request has a series"
    );
    let range = |part: &str, last: &str| json!({"metric": {"flagger": part}, "values": [[0, "0"], [60, last]]});
    let blocks =
        counted.read_error_history(&series(&json!([range("all", "100"), range("bad", "7")])));
    assert_eq!(blocks, [Counts::new(100.0, 7.0).unwrap()]);
}

#[test]
fn the_history_of_pods_has_each_pod_and_that_of_a_gateway_their_sum() {
    let istio = counted(&Istio);
    let query = istio.pod_errors();
    assert!(
        query.ends_with(")[1h:1m]") && query.contains("sum by (pod, "),
        "{query}"
    );
    let durations = istio.pod_durations(&[250.0]);
    assert!(
        durations.contains("sum by (pod, kubernetes_pod_name, instance, le, reporter)"),
        "{durations}"
    );
    let samples = series(&json!([
        {"metric": {"pod": "a", "flagger": "all"}, "values": [[60, "100"], [120, "150"]]},
        {"metric": {"pod": "a", "flagger": "good"}, "values": [[60, "98"], [120, "146"]]},
        {"metric": {"pod": "b", "flagger": "all"}, "values": [[120, "7"]]},
        {"metric": {"flagger": "all"}, "values": [[180, "NaN"]]}]));
    let tally = |all: f64, bad: f64| Tally {
        all,
        bad: vec![bad],
    };
    let minutes = istio.read_pod_errors(&samples);
    let pod = |name: &str, tally: Tally| (name.to_owned(), tally);
    assert_eq!(minutes[&60], [pod("a", tally(100.0, 2.0))].into());
    // No request to the pod b was good.
    let both = [pod("a", tally(150.0, 4.0)), pod("b", tally(7.0, 7.0))];
    assert_eq!(minutes[&120], both.into());
    let gateway = counted(&Traefik).read_pod_errors(&samples);
    assert_eq!(gateway[&120], [pod("", tally(157.0, 11.0))].into());
    let buckets = series(&json!([
        {"metric": {"pod": "a", "le": "250.0"}, "values": [[60, "90"]]},
        {"metric": {"pod": "a", "le": "+Inf"}, "values": [[60, "100"]]}]));
    let slow = istio.read_pod_durations(&buckets, &[250.0]);
    assert_eq!(slow[&60], [pod("a", tally(100.0, 10.0))].into());
}

/// A sample of a part: `REPORTER PART`, the pod, and the value.
fn sample((reporter, part): (&str, &str), pod: &str, value: u32) -> serde_json::Value {
    json!({"metric": {"reporter": reporter, "flagger": part, "pod": pod, "le": "+Inf"}, "value": [1, value.to_string()]})
}

/// The counters of both versions by one reporter, of which each has these pods.
fn by(reporter: &str, canary: &[(&str, u32)], primary: &[(&str, u32)]) -> Vec<serde_json::Value> {
    let of = |arm: &str, pods: &[(&str, u32)]| {
        let pods = pods.iter();
        let parts = pods.flat_map(|(pod, value)| {
            let of = |what: &str| sample((reporter, &format!("{arm} {what} now")), pod, *value);
            [of("all"), of("good"), of("bucket")]
        });
        parts.collect::<Vec<_>>()
    };
    [of("canary", canary), of("primary", primary)].concat()
}

/// The requests of both versions that an answer counts, by errors and by durations, and whether by pods.
fn read(counted: &Counted, samples: &[Vec<serde_json::Value>]) -> [(f64, f64, bool); 2] {
    let answer = series(&json!(samples.concat()));
    let all = |reading: &Reading| reading.values().map(|counts| counts.all()).sum::<f64>();
    let errors = counted.read_errors(&answer);
    [errors, counted.slower(&answer, 250.0)].map(|arms| {
        let (canary, primary) = (all(&arms.canary.now), all(&arms.primary.now));
        (canary, primary, arms.counts_pods)
    })
}

#[test]
fn a_request_that_passes_a_waypoint_and_a_sidecar_is_counted_once() {
    let istio = counted(&Istio);
    let sidecars = by("destination", &[("c1", 60), ("c2", 50)], &[("p1", 900)]);
    let waypoints = by("waypoint", &[("w1", 70), ("w2", 30)], &[("w1", 800)]);
    let primary_only = by("destination", &[], &[("p1", 900)]);
    // Each row has the samples, and the requests of both versions that are counted.
    for (samples, expected) in [
        // Sidecars also see requests that pass no waypoint, and know the pods.
        (
            vec![sidecars.clone(), waypoints.clone()],
            (110.0, 900.0, true),
        ),
        (vec![sidecars], (110.0, 900.0, true)),
        (vec![waypoints.clone()], (100.0, 800.0, false)),
        // The canary has no sidecars any more. Both versions must be counted by the same reporter.
        (vec![primary_only.clone(), waypoints], (100.0, 800.0, false)),
        // The canary has no requests yet.
        (
            vec![primary_only, by("waypoint", &[], &[("w1", 800)])],
            (0.0, 900.0, true),
        ),
        (
            vec![by("waypoint", &[], &[("w1", 800)])],
            (0.0, 800.0, false),
        ),
    ] {
        assert_eq!(read(&istio, &samples), [expected; 2], "{samples:?}");
    }
}

/// The pods in the answer are those of the gateway.
#[test]
fn a_gateway_counts_the_requests_of_both_versions_and_knows_no_pods() {
    let gateway = by("source", &[("g1", 70), ("g2", 30)], &[("g1", 800)]);
    assert_eq!(
        read(&counted(&Gateway), &[gateway]),
        [(100.0, 800.0, false); 2]
    );
}

/// A test of errors after an answer.
fn state(samples: &[Vec<serde_json::Value>]) -> State {
    let rules = Rules {
        measure: Measure::Errors,
        margin: Margin::NONE,
        false_alarms: 0.05,
        detect: 0.01,
        least: None,
    };
    let hour = vec![Counts::new(600.0, 1.0).unwrap(); 60];
    let answer = series(&json!(samples.concat()));
    let arms = counted(&Istio).read_errors(&answer);
    MetricTest::of_errors(&rules, &hour)
        .advance(&rules, |_| arms.clone())
        .state
}

#[test]
fn a_pod_of_a_waypoint_is_no_bad_pod_of_the_canary() {
    // All failures are counted by one of two pods.
    let answer = |reporter: &str| {
        let parts = [
            ("canary all before", 1_000, 1_000),
            ("canary good before", 1_000, 1_000),
            ("primary all before", 5_000, 5_000),
            ("primary good before", 5_000, 5_000),
            ("canary all now", 1_500, 1_500),
            ("canary good now", 1_440, 1_500),
            ("primary all now", 9_000, 9_000),
            ("primary good now", 9_000, 9_000),
        ];
        let of = |(part, one, other): (&str, u32, u32)| {
            [("a", one), ("b", other)].map(|(pod, value)| sample((reporter, part), pod, value))
        };
        vec![parts.into_iter().flat_map(of).collect()]
    };
    assert_eq!(state(&answer("destination")), State::OnePod("a".to_owned()));
    assert_eq!(state(&answer("waypoint")), State::Worse);
}

#[test]
fn the_hour_before_a_run_is_counted_by_one_reporter() {
    let istio = counted(&Istio);
    let query = istio.error_history();
    assert!(
        query.contains("sum by (reporter) (last_over_time"),
        "{query}"
    );
    let durations = istio.duration_history();
    assert!(durations.contains("sum by (le, reporter)"), "{durations}");
    let range = |reporter: &str, part: &str, last: u32| {
        let labels = json!({"reporter": reporter, "flagger": part, "pod": "w1"});
        json!({"metric": labels, "values": [[0, "0"], [60, last.to_string()]]})
    };
    let of = |reporter: &str, all: u32| {
        [("all", all), ("good", all - 1)].map(|(part, last)| range(reporter, part, last))
    };
    let (sidecar, waypoint) = (of("destination", 100), of("waypoint", 90));
    let both = series(&json!([waypoint.clone(), sidecar].concat()));
    let waypoint = series(&json!(waypoint));
    let tally = |all: f64| Tally {
        all,
        bad: vec![1.0],
    };
    for (samples, all, pod) in [(&both, 100.0, "w1"), (&waypoint, 90.0, "")] {
        let expected = Counts::new(all, 1.0).unwrap();
        assert_eq!(istio.read_error_history(samples), [expected]);
        let minutes = istio.read_pod_errors(samples);
        assert_eq!(minutes[&60], [(pod.to_owned(), tally(all))].into());
    }
    let bucket = |reporter: &str, le: &str, last: u32| json!({"metric": {"reporter": reporter, "le": le}, "values": [[0, "0"], [60, last.to_string()]]});
    let buckets = |reporter: &str, all: u32| {
        [
            bucket(reporter, "250", all / 2),
            bucket(reporter, "+Inf", all),
        ]
    };
    let both = [buckets("waypoint", 90), buckets("destination", 100)].concat();
    let half = vec![Counts::new(100.0, 50.0).unwrap()];
    assert_eq!(duration_blocks(&series(&json!(both))), [(250.0, half)]);
}

/// A user's query decides whose reports it counts: the operator leaves nothing out of its answer.
#[test]
fn the_queries_of_a_user_are_not_summed_by_reporters() {
    let arm = |name: &str| {
        (
            format!("all{{w=\"{name}\"}}"),
            format!("bad{{w=\"{name}\"}}"),
        )
    };
    let counted = Counted::of_queries(arm("web"), arm("web-primary"));
    for query in [counted.errors(minute()), counted.pod_errors()] {
        assert!(!query.contains("reporter"), "{query}");
    }
}
