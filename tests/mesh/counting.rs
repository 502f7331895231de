//! The queries of comparisons on a real Prometheus. The counters of both versions are found for each observer, and each request is counted
//! once. This includes the requests of a new pod and of a deleted pod.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use flagger_rs::{
    comparison::{Arms, Counts, Margin, Measure, MetricTest, Rules, Window},
    metrics::{
        Asks, Query, Server,
        counting::{self, Counted, minutes::Tally},
        observer::{
            Observer,
            contour::Contour,
            http::Http,
            istio::{Gateway, Istio, Waypoint},
            linkerd::Linkerd,
            nginx::Nginx,
            osm::Osm,
        },
        template::Model,
    },
    snapshot::{HttpResponse, Origin},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use testbed::{binaries, process::Process, wait::until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::monitoring::get;

/// An observer, the counter of requests, and the labels of a version; `POD` and `CODE` stand for the pod and the answer's status.
const OBSERVERS: [(&dyn Observer, &str, [&str; 2]); 8] = [
    (
        &Istio,
        "istio_requests_total",
        [
            r#"reporter="destination",destination_workload_namespace="test",destination_workload="web",pod="POD",response_code="CODE""#,
            r#"reporter="destination",destination_workload_namespace="test",destination_workload="web-primary",pod="POD",response_code="CODE""#,
        ],
    ),
    // The same requests pass a waypoint, too.
    (
        &Waypoint,
        "istio_requests_total",
        [
            r#"reporter="waypoint",destination_workload_namespace="test",destination_workload="web",pod="POD",response_code="CODE""#,
            r#"reporter="waypoint",destination_workload_namespace="test",destination_workload="web-primary",pod="POD",response_code="CODE""#,
        ],
    ),
    // A gateway has sent them.
    (
        &Gateway,
        "istio_requests_total",
        [
            r#"reporter="source",destination_workload_namespace="test",destination_workload="web",pod="POD",response_code="CODE""#,
            r#"reporter="source",destination_workload_namespace="test",destination_workload="web-primary",pod="POD",response_code="CODE""#,
        ],
    ),
    (
        &Http,
        "http_request_duration_seconds_count",
        [
            r#"kubernetes_namespace="test",kubernetes_pod_name="web-1-POD",status="CODE""#,
            r#"kubernetes_namespace="test",kubernetes_pod_name="web-primary-1-POD",status="CODE""#,
        ],
    ),
    (
        &Linkerd,
        "response_total",
        [
            r#"namespace="test",deployment="web",direction="inbound",pod="POD",classification="WORD""#,
            r#"namespace="test",deployment="web-primary",direction="inbound",pod="POD",classification="WORD""#,
        ],
    ),
    (
        &Osm,
        "osm_request_total",
        [
            r#"destination_namespace="test",destination_kind="Deployment",destination_name="web",instance="POD",response_code="CODE""#,
            r#"destination_namespace="test",destination_kind="Deployment",destination_name="web-primary",instance="POD",response_code="CODE""#,
        ],
    ),
    (
        &Contour,
        "envoy_cluster_upstream_rq",
        [
            r#"envoy_cluster_name="test_web-canary_80",pod="POD",envoy_response_code="CODE""#,
            r#"envoy_cluster_name="test_web-primary_80",pod="POD",envoy_response_code="CODE""#,
        ],
    ),
    (
        &Nginx,
        "nginx_ingress_controller_requests",
        [
            r#"namespace="test",ingress="web",canary="test-web-80",controller_pod="POD",pod="POD",status="CODE""#,
            r#"namespace="test",ingress="web",canary="",controller_pod="POD",pod="POD",status="CODE""#,
        ],
    ),
];

/// Good and bad requests of each pod, by version.
type Requests = [&'static [(&'static str, u32, u32)]; 2];

const BEFORE: Requests = [&[("a", 0, 0)], &[("x", 900, 10), ("y", 500, 0)]];
/// One pod of the canary is new, and all its requests fail. One pod of the primary is gone.
const AFTER: Requests = [&[("a", 95, 5), ("b", 0, 50)], &[("x", 1_800, 19)]];

#[tokio::test(flavor = "multi_thread")]
async fn each_request_of_both_versions_is_counted_once() {
    let page = Arc::new(Mutex::new(text(BEFORE, 1)));
    let (prometheus, address, _folder) = start(serve(page.clone()).await).await;
    let from = scraped(&prometheus, &address, 1).await;
    // A user's query is evaluated at each multiple of 15 s. The second page is served after the next multiple, so that each page has an
    // evaluation of its own.
    let aligned = from.as_second().div_euclid(15) * 15 + 15;
    until(Duration::from_secs(20), "an evaluation", async || {
        let is_past = Timestamp::now().as_second() > aligned;
        is_past.then_some(()).ok_or_else(String::new)
    })
    .await
    .unwrap();
    *page.lock().unwrap() = text(AFTER, 2);
    let to = scraped(&prometheus, &address, 2).await;
    let window = counting::Window {
        before: to.duration_since(from),
        start: to.duration_since(from),
    };
    let counts = |all, bad| Counts::new(all, bad).unwrap();
    let expected = Window {
        canary: counts(150.0, 55.0),
        primary: counts(909.0, 9.0),
    };
    // The history is evaluated at whole minutes. A query a minute later includes the last page.
    let minute_later = to + SignedDuration::from_mins(1);
    for (observer, ..) in OBSERVERS {
        let counted = Counted::of(observer, &model(), "web-primary");
        let series = ask(&address, counted.errors(window), to).await;
        let seen = seen(Measure::Errors, |_| counted.read_errors(&series));
        assert_eq!(seen, expected, "{observer:?}");
        assert!(counting::newest(&series).is_some(), "{observer:?}");
        let history = ask(&address, counted.error_history(), minute_later).await;
        assert!(!history.is_empty(), "{observer:?}");
        let pods = ask(&address, counted.pod_errors(), minute_later).await;
        let minutes = counted.read_pod_errors(&pods);
        let (_, last) = minutes.last_key_value().unwrap();
        let sum = |of: fn(&Tally) -> f64| last.values().map(of).sum::<f64>();
        let requests = (sum(|pod| pod.all), sum(|pod| pod.bad[0]));
        assert_eq!(requests, (2_319.0, 19.0), "{observer:?}: {last:?}");
        let is_other = ["Waypoint", "Gateway"].contains(&format!("{observer:?}").as_str());
        let knows_pods = counted.counts_pods && !is_other;
        let pods = if knows_pods { 2 } else { 1 };
        assert_eq!(last.len(), pods, "{observer:?}: {last:?}");
    }
    let of = |workload: &str| {
        let series = format!(
            "istio_requests_total{{reporter=\"waypoint\", destination_workload=\"{workload}\"}}"
        );
        let bad = series.replace('}', ", response_code=~\"5..\"}");
        (series, format!("sum by (pod) ({bad})"))
    };
    let counted = Counted::of_queries(of("web"), of("web-primary"));
    let (from, to) = (
        Timestamp::from_second(aligned).unwrap(),
        to + SignedDuration::from_secs(15),
    );
    let series = ask(
        &address,
        counted.errors(counting::Window {
            before: to.duration_since(from),
            start: to.duration_since(from),
        }),
        to,
    )
    .await;
    assert_eq!(
        seen(Measure::Errors, |_| counted.read_errors(&series)),
        expected,
        "a user's queries"
    );

    let counted = Counted::of(&Istio, &model(), "web-primary");
    let history = ask(&address, counted.duration_history(), minute_later).await;
    let bounds: Vec<_> = counting::duration_blocks(&history)
        .iter()
        .map(|(bound, _)| *bound)
        .collect();
    assert_eq!(bounds, [0.5, 250.0]);
    let pods = ask(&address, counted.pod_durations(&bounds), minute_later).await;
    let minutes = counted.read_pod_durations(&pods, &bounds);
    let (_, last) = minutes.last_key_value().unwrap();
    assert_eq!(
        (last["a"].all, &last["a"].bad[..]),
        (200.0, &[200.0, 20.0][..])
    );
    let series = ask(&address, counted.durations(bounds, window), to).await;
    let slower = counted.slower(&series, 250.0);
    assert_eq!(slower.canary.now["a"].bad(), 20.0);
    assert_eq!(counted.slower(&series, 0.5).canary.now["a"].bad(), 200.0);
}

fn model() -> Model {
    Model {
        namespace: "test".to_owned(),
        target: "web".to_owned(),
        service: "web".to_owned(),
        ingress: "web".to_owned(),
        ..Model::default()
    }
}

/// The requests that a test has counted.
fn seen(measure: Measure, arms: impl Fn(Option<f64>) -> Arms) -> Window {
    let rules = Rules {
        measure,
        margin: Margin::NONE,
        false_alarms: 0.05,
        detect: 0.01,
        least: None,
    };
    MetricTest::of_errors(&rules, &[])
        .advance(&rules, arms)
        .last
}

/// The series of a query at an instant, as the operator asks for them.
async fn ask(address: &str, text: String, at: Timestamp) -> Vec<flagger_rs::metrics::TimeSeries> {
    let server = Server::prometheus(&format!("http://{address}"), Origin::Administrator).unwrap();
    // Values are asked for some seconds late, so that all pods have been scraped.
    let at = at.checked_add(counting::LAG).unwrap();
    let query = Query {
        server: server.clone(),
        asks: Asks::Series { query: text, at },
        budget: Duration::from_secs(5),
    };
    let answer = get(&query.request(at).url.0).await.unwrap();
    let body = answer.to_string();
    server.series(&HttpResponse { status: 200, body }).unwrap()
}

/// The page of metrics that all pods together have.
fn text(requests: Requests, page: u32) -> String {
    let mut text = format!("page {page}\n");
    for (_, counter, versions) in OBSERVERS {
        for (labels, pods) in versions.iter().zip(requests) {
            for (pod, good, bad) in pods {
                for (code, word, count) in [("200", "success", good), ("503", "failure", bad)] {
                    let labels = labels
                        .replace("POD", pod)
                        .replace("CODE", code)
                        .replace("WORD", word);
                    if *count > 0 || *pod == "a" {
                        text += &format!("{counter}{{{labels}}} {count}\n");
                    }
                }
            }
        }
    }
    let labels = |reporter: &str, workload: &str, le: &str| {
        format!(
            r#"istio_request_duration_milliseconds_bucket{{reporter="{reporter}",destination_workload_namespace="test",destination_workload="{workload}",pod="a",le="{le}"}}"#
        )
    };
    for reporter in ["destination", "waypoint", "source"] {
        for workload in ["web", "web-primary"] {
            for (le, count) in [("0.5", 0), ("250", 90 * page), ("+Inf", 100 * page)] {
                text += &format!("{} {count}\n", labels(reporter, workload, le));
            }
        }
    }
    text
}

/// Waits until a page is scraped. Returns the first whole second after that.
async fn scraped(prometheus: &Process, address: &str, page: u32) -> Timestamp {
    let query = format!("http://{address}/api/v1/query?query=page%3D%3D{page}");
    until(Duration::from_secs(60), "the page", async || {
        let answer = get(&query).await?;
        let at = answer["data"]["result"][0]["value"][0].as_f64();
        let at = at.ok_or_else(|| prometheus.log_tail())?;
        let at = SignedDuration::try_from_secs_f64(at.ceil()).unwrap();
        Ok::<_, String>(Timestamp::from_duration(at).unwrap())
    })
    .await
    .unwrap()
}

async fn start(target: String) -> (Process, String, testbed::folder::Folder) {
    let set = tokio::task::spawn_blocking(|| binaries::find_or_build(&[binaries::MESH]));
    let set = set.await.unwrap().unwrap();
    let config: Value = json!({"global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [{"job_name": "pods", "honor_labels": true, "static_configs": [{"targets": [target]}]}]});
    let folder = testbed::folder::Folder::new().unwrap();
    let path = folder.path().join("prometheus.yml");
    std::fs::write(&path, config.to_string()).unwrap();
    let [port] = testbed::control_plane::free_ports().unwrap();
    let address = format!("127.0.0.1:{port}");
    let data = folder.path().join("data");
    let args = [
        format!("--config.file={}", path.display()),
        format!("--storage.tsdb.path={}", data.display()),
        format!("--web.listen-address={address}"),
    ];
    let program = set.path("prometheus").unwrap();
    let process = Process::start("prometheus", program, &args, &[], folder.path());
    (process.unwrap(), address, folder)
}

/// Serves the page as it is at each request. Returns the address.
async fn serve(page: Arc<Mutex<String>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let text = page.lock().unwrap().clone();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}
