//! The dashboard and the alerts in `deploy/monitoring`, with a real Prometheus. Prometheus accepts each query, and returns data for it in a
//! cell with traffic. Each alert occurs when it should, and not otherwise.

use std::{
    collections::BTreeSet,
    fmt::Write,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde_json::{Value, json};
use testbed::{binaries, process::Process, wait::until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{queries, rig::read};

/// The longest wait for samples.
const PATIENCE: Duration = Duration::from_secs(90);

/// Each query returns data for the canary `podinfo` in `test`.
pub async fn each_query_returns_data(prometheus: SocketAddr) {
    for query in queries::dashboard_queries() {
        let query = for_canary(&query);
        until(PATIENCE, &query, async || {
            let result = ask(&prometheus.to_string(), &query).await?;
            let is_empty = result["data"]["result"]
                .as_array()
                .is_none_or(Vec::is_empty);
            if is_empty {
                Err(result.to_string())
            } else {
                Ok(())
            }
        })
        .await
        .unwrap();
    }
    for query in queries::alert_queries() {
        ask(&prometheus.to_string(), &query).await.unwrap();
    }
}

/// A query of the dashboard as Grafana sends it.
fn for_canary(query: &str) -> String {
    let query = query.replace("$__rate_interval", "1m");
    query
        .replace("$namespace", "test")
        .replace("$canary", "podinfo")
}

/// Sends a query, or fails with Prometheus' error.
async fn ask(prometheus: &str, query: &str) -> Result<Value, String> {
    let url = format!("http://{prometheus}/api/v1/query");
    let query = [("query", query)];
    let url = reqwest::Url::parse_with_params(&url, &query).map_err(|error| error.to_string())?;
    get(url.as_str()).await
}

pub async fn get(url: &str) -> Result<Value, String> {
    let client = reqwest::Client::builder().no_proxy().build();
    let answer = client.unwrap().get(url).send().await;
    let text = answer.map_err(|error| error.to_string())?.text().await;
    let text = text.map_err(|error| error.to_string())?;
    let answer: Value = serde_json::from_str(&text).map_err(|_| text)?;
    if answer["status"] == "success" {
        return Ok(answer);
    }
    Err(answer.to_string())
}

/// The state of an operator, as Prometheus scrapes it.
#[derive(Clone, Copy, PartialEq)]
enum Operator {
    Away,
    Healthy,
    Sick,
}

#[tokio::test(flavor = "multi_thread")]
async fn each_alert_occurs_when_it_should_and_each_query_is_accepted() {
    let all = [
        "Lagging",
        "Errors",
        "PlanRefused",
        "CanaryFailed",
        "CanaryStuck",
    ];
    for (operator, expected) in [
        (Operator::Away, &["Away"][..]),
        (Operator::Healthy, &[]),
        (Operator::Sick, &all),
    ] {
        let (_process, address, _folder) = start(operator).await;
        let expected: BTreeSet<_> = expected
            .iter()
            .map(|name| format!("Flagger{name}"))
            .collect();
        let evaluated = async || {
            // The rules need samples of some seconds.
            let samples = ask(&address, "count_over_time(up[1m])").await?;
            let enough = samples["data"]["result"][0]["value"][1].as_str();
            let enough = enough.and_then(|count| count.parse::<u64>().ok()) >= Some(5);
            let alerts = get(&format!("http://{address}/api/v1/alerts")).await?;
            let alerts = alerts["data"]["alerts"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let names = alerts
                .iter()
                .map(|alert| alert["labels"]["alertname"].as_str());
            let names: BTreeSet<_> = names.flatten().map(str::to_owned).collect();
            let done = (enough || operator == Operator::Away) && names == expected;
            done.then_some(())
                .ok_or_else(|| format!("{names:?}, not {expected:?}"))
        };
        until(PATIENCE, "the alerts", evaluated).await.unwrap();
        for query in queries::dashboard_queries() {
            ask(&address, &for_canary(&query)).await.unwrap();
        }
    }
}

/// Starts a Prometheus with the rules, which take effect at once, and with this operator.
async fn start(operator: Operator) -> (Process, String, testbed::folder::Folder) {
    let set = tokio::task::spawn_blocking(|| binaries::find_or_build(&[binaries::MESH]));
    let set = set.await.unwrap().unwrap();
    let folder = testbed::folder::Folder::new().unwrap();
    let rules = read("deploy/monitoring/alerts.yaml");
    let rules = rules
        .lines()
        .filter(|line| !line.trim().starts_with("for: "));
    let rules: Vec<_> = rules.collect();
    std::fs::write(folder.path().join("alerts.yaml"), rules.join("\n")).unwrap();
    let targets = match operator {
        Operator::Away => Vec::new(),
        operator => vec![serve(operator == Operator::Sick).await],
    };
    let config = json!({"global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["alerts.yaml"], "scrape_configs": [{"job_name": "flagger", "static_configs": [{"targets": targets}]}]});
    let path = folder.path().join("prometheus.yml");
    std::fs::write(&path, config.to_string()).unwrap();
    let [port] = testbed::control_plane::free_ports().unwrap();
    let address = format!("127.0.0.1:{port}");
    let args = [
        format!("--config.file={}", path.display()),
        format!(
            "--storage.tsdb.path={}",
            folder.path().join("data").display()
        ),
        format!("--web.listen-address={address}"),
    ];
    let program = set.path("prometheus").unwrap();
    let process = Process::start("prometheus", program, &args, &[], folder.path());
    (process.unwrap(), address, folder)
}

/// Serves the metrics of an operator whose counters grow with each scrape. Returns the address.
async fn serve(is_sick: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let scrapes = AtomicU64::new(0);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let text = metrics(scrapes.fetch_add(1, Ordering::Relaxed), is_sick);
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

/// A sick operator is late, fails, and has refused a plan. One of its canaries has failed, and one takes no step.
fn metrics(scrape: u64, is_sick: bool) -> String {
    let mut text = String::from("flagger_info{version=\"0\",mesh_provider=\"istio\"} 1\n");
    let (steps, bad) = (scrape * 10, if is_sick { scrape * 10 } else { 0 });
    for (le, count) in [("0.5", steps - bad), ("10", steps), ("+Inf", steps)] {
        let _ = writeln!(
            text,
            "flagger_rs_tick_lateness_seconds_bucket{{le=\"{le}\"}} {count}"
        );
    }
    let _ = writeln!(
        text,
        "flagger_rs_reconcile_errors_total{{category=\"api\"}} {bad}"
    );
    let refused = "flagger_rs_refused_plans_total{name=\"web\",namespace=\"test\"}";
    let _ = writeln!(text, "{refused} {bad}");
    let failed = if is_sick { 2 } else { 1 };
    let _ = writeln!(
        text,
        "flagger_canary_status{{name=\"web\",namespace=\"test\"}} {failed}"
    );
    let _ = writeln!(
        text,
        "flagger_canary_status{{name=\"cart\",namespace=\"test\"}} 0"
    );
    // A release that makes progress has another weight at each scrape.
    let weight = if is_sick { 10 } else { scrape % 100 };
    let _ = writeln!(
        text,
        "flagger_canary_weight{{workload=\"cart\",namespace=\"test\"}} {weight}"
    );
    text
}
