use serde_json::{Value, json};

use super::*;
use crate::{
    shell::{
        api_server::{
            fake::{FakeApiServer, Request},
            person::Person,
        },
        client::output::Output,
    },
    view::Typed,
};

const PROXY: &str =
    "/api/v1/namespaces/istio-system/services/http:prometheus:9090/proxy/api/v1/query";

fn canary(metrics: &Value) -> Value {
    json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": "podinfo", "namespace": "test"}, "spec": {
        "provider": "istio", "metricsServer": "http://prometheus.istio-system:9090",
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}, "service": {"port": 80},
        "analysis": {"interval": "1m", "threshold": 5, "stepWeight": 10, "maxWeight": 50, "metrics": metrics}}})
}

/// The counters of two pods in each minute of the hour before this second: 600 requests a minute, of which one fails.
fn hour(time: i64) -> Value {
    let series = |pod: &str, part: &str, each: i64| {
        let minutes = (time - 3_600).div_euclid(60) + 1..=time.div_euclid(60);
        let values: Vec<_> = minutes
            .map(|minute| json!([minute * 60, (minute % 1_000_000 * each).to_string()]))
            .collect();
        json!({"metric": {"pod": pod, "flagger": part}, "values": values})
    };
    let pods = ["podinfo-primary-1", "podinfo-primary-2"];
    let all = pods.map(|pod| series(pod, "all", 600));
    let good = pods.map(|pod| series(pod, "good", 599));
    let result = [all, good].concat();
    json!({"status": "success", "data": {"resultType": "matrix", "result": result}})
}

/// The result of a backtest of one day, and the lines of the requests. `answer` is the metric server's, by the second that is asked about.
async fn backtested(
    metrics: Value,
    answer: fn(i64) -> (u16, Value),
) -> (Result<Code, Stop>, Vec<String>) {
    let server = FakeApiServer::answering(move |request: &Request| {
        let (_, path) = request.line.split_once(' ').unwrap();
        if path.ends_with("/canaries/podinfo") {
            return Some((200, canary(&metrics)));
        }
        assert!(path.starts_with(PROXY), "{path}");
        let (_, time) = path.rsplit_once("time=").unwrap();
        Some(answer(
            time.split(['&', ' ']).next().unwrap().parse().unwrap(),
        ))
    });
    let context = Context {
        person: Person::of(server.client(), "test"),
        output: Output::new(false, false),
        typed: Typed::new("kubectl flagger", &[]),
    };
    let args = client::Backtest {
        name: "podinfo".to_owned(),
        days: 1,
        account: None,
        output: Report::Json,
        flags: Vec::new(),
    };
    let code = backtest(&context, &args).await;
    let lines = server.take_lines();
    (code, lines)
}

fn errors() -> Value {
    json!([{"name": "request-success-rate", "thresholdRange": {"min": 99}, "interval": "1m"}])
}

#[tokio::test(start_paused = true)]
async fn each_hour_is_asked_about_once_through_the_api_server() {
    let (code, lines) = backtested(errors(), |time| (200, hour(time))).await;
    assert_eq!(code.unwrap(), Code::Yes);
    assert_eq!(lines.len(), 1 + 24);
    let times: Vec<i64> = lines[1..]
        .iter()
        .map(|line| {
            line.rsplit_once("time=")
                .unwrap()
                .1
                .split('&')
                .next()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    assert!(
        times.windows(2).all(|pair| pair[1] - pair[0] == 3_600),
        "{times:?}"
    );
    assert!(times.iter().all(|time| time % 60 == 0), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn a_metric_server_without_history_is_no_error() {
    let nothing = |_| {
        (
            200,
            json!({"status": "success", "data": {"resultType": "matrix", "result": []}}),
        )
    };
    let (code, _) = backtested(errors(), nothing).await;
    assert_eq!(code.unwrap(), Code::No);
}

#[tokio::test(start_paused = true)]
async fn a_metric_that_cannot_be_compared_is_not_asked_about() {
    let metrics = json!([{"name": "queue", "query": "queue_length", "thresholdRange": {"max": 5}}]);
    let (code, lines) = backtested(metrics, |time| (200, hour(time))).await;
    assert_eq!(code.unwrap(), Code::No);
    assert_eq!(lines.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_gives_no_answer_is_named_with_a_way_out() {
    let missing = |_| {
        (
            503,
            json!({"kind": "Status", "status": "Failure", "code": 503, "message": "no endpoints available"}),
        )
    };
    let (code, lines) = backtested(errors(), missing).await;
    let Err(Stop::Trouble(trouble)) = code else {
        panic!("{} requests", lines.len());
    };
    assert_eq!(trouble.code, Code::Undecided);
    let message = &trouble.message;
    assert!(
        message.starts_with("request-success-rate at 20"),
        "{message}"
    );
    assert!(
        message.contains("status 503: ") && message.contains("no endpoints"),
        "{message}"
    );
    assert!(message.contains("-metrics-server=URL"), "{message}");
    assert_eq!(lines.len(), 1 + 3, "the first query, three times");
}
