//! A client that sends the requests of a step, in the operator's rhythm, and reads the operator's watches, but decides nothing and throws
//! the answers away. Its processor time is the least that a step can cost. It runs in a process of its own: `load bare …`.

use std::{path::PathBuf, time::Duration};

use futures::AsyncReadExt;
use http::Request;
use k8s_openapi::jiff::Timestamp;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use testbed::process::Process;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{
    lab::Lab,
    workloads::{self, INTERVAL},
};

/// The first argument of the process.
pub const MODE: &str = "bare";
/// The kinds that the operator watches.
const WATCHED: [&str; 5] = [
    "/apis/flagger.app/v1beta1/canaries",
    "/apis/apps/v1/deployments",
    "/api/v1/services",
    "/apis/networking.istio.io/v1beta1/virtualservices",
    "/apis/networking.istio.io/v1beta1/destinationrules",
];
/// The operator's metric queries: one for each metric of a canary.
const QUERIES: [&str; 2] = [
    "sum(rate(istio_requests_total{reporter=\"destination\",destination_workload_namespace=\"load\",destination_workload=~\"app\",response_code!~\"5.*\"}[1m]))/sum(rate(istio_requests_total{reporter=\"destination\",destination_workload_namespace=\"load\",destination_workload=~\"app\"}[1m]))*100",
    "histogram_quantile(0.99,sum(rate(istio_request_duration_milliseconds_bucket{reporter=\"destination\",destination_workload_namespace=\"load\",destination_workload=~\"app\"}[30s])) by (le))",
];

impl Lab {
    /// Starts the client for the progressing canaries.
    pub fn bare(&self) -> Process {
        let which = self.progressing();
        let args = [
            MODE.to_owned(),
            self.kubeconfig.display().to_string(),
            self.proxy.clone(),
            which.start.to_string(),
            which.end.to_string(),
        ];
        let program = std::env::current_exe().unwrap();
        Process::start(MODE, &program, &args, &[], self.bed.folder()).unwrap()
    }
}

/// Runs the client until it is killed.
pub async fn run(args: &[String]) {
    let [_, kubeconfig, proxy, first, end] = <&[String; 5]>::try_from(args).unwrap();
    let kubeconfig = Kubeconfig::read_from(PathBuf::from(kubeconfig)).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let config = config.unwrap();
    // Like the operator, one connection for requests and one for watches.
    let [requests, watches] = [config.clone(), config].map(|it| Client::try_from(it).unwrap());
    for path in WATCHED {
        tokio::spawn(watch(watches.clone(), path));
    }
    let proxy = reqwest::Proxy::http(proxy).unwrap();
    let servers = reqwest::Client::builder().proxy(proxy).build().unwrap();
    let which = first.parse::<usize>().unwrap()..end.parse().unwrap();
    let begin = Instant::now();
    for (place, n) in which.enumerate() {
        // The steps of the canaries are spread over the interval.
        let offset = Duration::from_millis(37 * place as u64 % (1000 * INTERVAL));
        let client = Bare {
            api: requests.clone(),
            servers: servers.clone(),
            n,
        };
        tokio::spawn(client.steps(begin + offset));
    }
    std::future::pending::<()>().await;
}

/// Reads all events of a kind.
async fn watch(client: Client, path: &str) {
    loop {
        let address = format!("{path}?watch=true&timeoutSeconds=30&allowWatchBookmarks=true");
        let request = Request::get(address).body(Vec::new()).unwrap();
        let mut events = std::pin::pin!(client.request_stream(request).await.unwrap());
        let mut buffer = vec![0; 1 << 14];
        while events.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    }
}

struct Bare {
    api: Client,
    servers: reqwest::Client,
    n: usize,
}

impl Bare {
    /// Takes a step in each interval.
    async fn steps(self, begin: Instant) {
        let (name, namespace) = (workloads::name(self.n), workloads::namespace(self.n));
        let mesh = "/apis/networking.istio.io/v1beta1";
        let route = format!("{mesh}/namespaces/{namespace}/virtualservices/{name}");
        let canary = format!("/apis/flagger.app/v1beta1/namespaces/{namespace}/canaries/{name}");
        let events = format!("/api/v1/namespaces/{namespace}/events");
        let (mut route_now, mut canary_now) = (self.get(&route).await, self.get(&canary).await);
        let mut ticks = interval_at(begin, Duration::from_secs(INTERVAL));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for step in 0_u64.. {
            ticks.tick().await;
            for query in QUERIES {
                self.query(query).await;
            }
            let weight = step % 100;
            let backends = &mut route_now["spec"]["http"][0]["route"];
            (backends[0]["weight"], backends[1]["weight"]) = ((100 - weight).into(), weight.into());
            let replace = Request::put(&route).header("content-type", "application/json");
            let answer = self.send(replace, &route_now).await;
            route_now["metadata"]["resourceVersion"] = version(&answer);
            canary_now["status"]["canaryWeight"] = weight.into();
            let status = json!({"metadata": {"resourceVersion": canary_now["metadata"]["resourceVersion"]}, "status": canary_now["status"]});
            let patch = Request::patch(format!("{canary}/status"))
                .header("content-type", "application/merge-patch+json");
            let answer = self.send(patch, &status).await;
            canary_now["metadata"]["resourceVersion"] = version(&answer);
            let create = Request::post(&events).header("content-type", "application/json");
            self.send(create, &event(&canary_now, step)).await;
            let notified = self.servers.post("http://events/all");
            notified
                .body(event(&canary_now, step).to_string())
                .send()
                .await
                .unwrap();
        }
    }

    async fn get(&self, path: &str) -> Value {
        let request = Request::get(path).body(Vec::new()).unwrap();
        self.api.request(request).await.unwrap()
    }

    async fn send(&self, request: http::request::Builder, body: &Value) -> String {
        let request = request.body(body.to_string().into_bytes()).unwrap();
        self.api.request_text(request).await.unwrap()
    }

    async fn query(&self, query: &str) {
        let mut address = reqwest::Url::parse("http://prometheus:9090/api/v1/query").unwrap();
        address.query_pairs_mut().append_pair("query", query);
        let answer = self.servers.get(address).send().await.unwrap();
        answer.bytes().await.unwrap();
    }
}

/// The event of a step.
fn event(canary: &Value, step: u64) -> Value {
    let meta = &canary["metadata"];
    let (name, namespace) = (&meta["name"], &meta["namespace"]);
    let now = Timestamp::now().to_string();
    json!({"apiVersion": "v1", "kind": "Event", "metadata": {"generateName": "bare-", "namespace": namespace},
        "involvedObject": {"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "name": name, "namespace": namespace,
            "uid": meta["uid"], "resourceVersion": meta["resourceVersion"]},
        "reason": "Synced", "message": format!("Advance {name}.{namespace} canary weight {step}"), "type": "Normal", "count": 1,
        "firstTimestamp": now, "lastTimestamp": now, "source": {"component": "flagger"}, "reportingComponent": "flagger"})
}

/// The resourceVersion in an answer, which is not parsed.
fn version(answer: &str) -> Value {
    let (_, rest) = answer.split_once("\"resourceVersion\":\"").unwrap();
    rest.split_once('"').unwrap().0.into()
}
