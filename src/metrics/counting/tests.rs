use serde_json::json;

use super::{minutes::Tally, *};
use crate::{
    metrics::{
        observer::{istio::Istio, traefik::Traefik},
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
    let part = r#"label_replace(sum by (pod, kubernetes_pod_name, instance) (last_over_time(istio_requests_total{reporter="destination", destination_workload_namespace="test", destination_workload=~"podinfo-primary", response_code!~"5.*"}[5m] offset 75s)), "flagger", "primary good before", "", "")"#;
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
        let read = slower(&answer, 250.0);
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
        durations.contains("sum by (pod, kubernetes_pod_name, instance, le)"),
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
