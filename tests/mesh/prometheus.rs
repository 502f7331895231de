//! Checks that no pod can report requests of another namespace to the Prometheus of the overlays: a real Prometheus with its file scrapes
//! forged samples, as those of a pod and as those of a gateway.

use std::time::Duration;

use serde_json::{Value, json};
use testbed::{binaries, process::Process, wait::until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::rig::read;

/// Samples about the namespace `victim`, and some about the pod's own namespace `other`.
const SAMPLES: &str = r#"
nginx_ingress_controller_requests{namespace="victim",ingress="web",canary="c",status="200"} 1
envoy_cluster_upstream_rq{envoy_cluster_name="victim_web-canary_80",envoy_response_code="200"} 1
envoy_cluster_upstream_rq{envoy_cluster_name="other_web-canary_80",envoy_response_code="200"} 1
envoy_cluster_upstream_rq{envoy_cluster_name="cds_ingress_global_web-canary_other_http_80",envoy_response_code="200"} 1
istio_requests_total{reporter="destination",destination_workload_namespace="victim",destination_workload="web"} 1
istio_requests_total{reporter="waypoint",destination_workload_namespace="victim",destination_workload="web"} 1
istio_requests_total{reporter="source",destination_workload_namespace="victim",destination_workload="web"} 1
osm_request_total{destination_namespace="victim",destination_kind="Deployment",destination_name="web"} 1
http_request_duration_seconds_count{kubernetes_namespace="victim",kubernetes_pod_name="web-1-2",__tmp_about="other",status="200"} 1
response_total{namespace="victim",deployment="web",direction="inbound"} 1
envoy_cluster_upstream_rq{envoy_cluster_name="victim-web-canaryupstream-80_gloo-system",envoy_response_code="200"} 1
skipper_serve_route_duration_seconds_count{route="kube_victim__web_canary__app__web_canary"} 1
envoy_cluster_upstream_rq{envoy_cluster_name="victim/web-00002",envoy_response_code="200"} 1
traefik_service_request_duration_seconds_bucket{service="victim-web-canary-80@kubernetescrd",code="200",le="+Inf"} 1
apisix_http_status{route="victim_r-web-canary_all",code="200"} 1
"#;

/// The selectors of the built-in queries for the canary `web` in the namespace `victim`.
const VICTIM: [&str; 13] = [
    r#"nginx_ingress_controller_requests{namespace="victim"}"#,
    r#"envoy_cluster_upstream_rq{envoy_cluster_name=~"victim_web-canary_[0-9a-zA-Z-]+"}"#,
    r#"envoy_cluster_upstream_rq{envoy_cluster_name=~"victim-web-canaryupstream-[0-9a-zA-Z-]+_[0-9a-zA-Z-]+"}"#,
    r#"istio_requests_total{reporter="destination",destination_workload_namespace="victim"}"#,
    r#"istio_requests_total{reporter="waypoint",destination_workload_namespace="victim"}"#,
    r#"istio_requests_total{reporter="source",destination_workload_namespace="victim"}"#,
    r#"osm_request_total{destination_namespace="victim"}"#,
    r#"http_request_duration_seconds_count{kubernetes_namespace="victim"}"#,
    r#"response_total{namespace="victim"}"#,
    r#"envoy_cluster_upstream_rq{envoy_cluster_name=~"victim/web-00002"}"#,
    r#"traefik_service_request_duration_seconds_bucket{service=~"victim-web-canary-[0-9a-zA-Z-]+@kubernetescrd"}"#,
    r#"apisix_http_status{route=~"victim_r-web-canary_.+"}"#,
    r#"skipper_serve_route_duration_seconds_count{route=~"kube(ew)?_victim__web_canary__.*__web_canary(_[0-9]+)?"}"#,
];

#[tokio::test(flavor = "multi_thread")]
async fn no_pod_can_report_requests_of_another_namespace() {
    let pods = serve(SAMPLES).await;
    let namespaces = ["other", "projectcontour", "istio-system", "istio-ingress"];
    let (prometheus, address, _folder) =
        start(&namespaces.map(|namespace| target(&pods, namespace))).await;
    let ask = prometheus_http_query::Client::try_from(address).unwrap();
    let of = async |selector: &str, namespace: &str| {
        let query = format!(
            "count({selector} and on(instance, kubernetes_namespace) {{kubernetes_namespace=\"{namespace}\"}})"
        );
        let answer = ask
            .query(query)
            .get()
            .await
            .map_err(|error| error.to_string())?;
        Ok::<_, String>(
            answer
                .data()
                .as_vector()
                .is_some_and(|vector| !vector.is_empty()),
        )
    };
    let own = [
        ("other_web-canary_80", "other"),
        ("other_web-canary_80", "projectcontour"),
        ("other_web-canary_80", "istio-system"),
        ("other_web-canary_80", "istio-ingress"),
        // The name of a cluster of App Mesh.
        ("cds_ingress_global_web-canary_other_http_80", "other"),
    ];
    for (cluster, namespace) in own {
        let own = &format!("envoy_cluster_upstream_rq{{envoy_cluster_name={cluster:?}}}");
        until(Duration::from_secs(30), "samples", async || {
            let is_there = of(own, namespace).await?;
            is_there.then_some(()).ok_or_else(|| prometheus.log_tail())
        })
        .await
        .unwrap();
    }
    for selector in VICTIM {
        assert!(!of(selector, "other").await.unwrap(), "{selector}");
        let is_of_application = selector.starts_with("http_");
        assert!(
            is_of_application || of(selector, "projectcontour").await.unwrap(),
            "{selector}"
        );
        for gateway in ["istio-system", "istio-ingress"] {
            let is_of_istio = selector.starts_with("istio_");
            assert!(
                !is_of_istio || of(selector, gateway).await.unwrap(),
                "{selector} of {gateway}"
            );
        }
    }
    let marked = of(r#"{__tmp_about!=""}"#, "other").await.unwrap();
    assert!(!marked, "the mark of a rule is stored");
}

/// A pod of a namespace, as the discovery of pods describes it. Its labels name a namespace that is not its own.
fn target(address: &str, namespace: &str) -> Value {
    let labels = json!({"__meta_kubernetes_namespace": namespace, "__meta_kubernetes_pod_name": "web-3-4",
        "__meta_kubernetes_pod_annotation_prometheus_io_scrape": "true", "__meta_kubernetes_pod_label_namespace": "victim",
        "__meta_kubernetes_pod_label_kubernetes_namespace": "victim", "__meta_kubernetes_pod_label_envoy_cluster_name": "victim_web-canary_80"});
    json!({"targets": [address], "labels": labels})
}

/// Starts a Prometheus with the file of the overlays, but with these targets.
async fn start(targets: &[Value]) -> (Process, String, testbed::folder::Folder) {
    let set = tokio::task::spawn_blocking(|| binaries::find_or_build(&[binaries::MESH]));
    let set = set.await.unwrap().unwrap();
    let file = read("kustomize/base/prometheus/prometheus.yml");
    let mut config: Value = serde_saphyr::from_str(&file).unwrap();
    let job = config["scrape_configs"][0].as_object_mut().unwrap();
    job.remove("kubernetes_sd_configs");
    job.insert("static_configs".to_owned(), json!(targets));
    config["global"]["scrape_interval"] = json!("1s");
    config["global"]["scrape_timeout"] = json!("1s");
    let folder = testbed::folder::Folder::new().unwrap();
    let path = folder.path().join("prometheus.yml");
    std::fs::write(&path, config.to_string()).unwrap();
    let [port] = testbed::control_plane::free_ports().unwrap();
    let args = [
        format!("--config.file={}", path.display()),
        format!(
            "--storage.tsdb.path={}",
            folder.path().join("data").display()
        ),
        format!("--web.listen-address=127.0.0.1:{port}"),
    ];
    let process = Process::start(
        "prometheus",
        set.path("prometheus").unwrap(),
        &args,
        &[],
        folder.path(),
    );
    (process.unwrap(), format!("http://127.0.0.1:{port}"), folder)
}

/// Serves a text. Returns the address.
async fn serve(text: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let answer = format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}
