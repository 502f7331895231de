//! Executes an Envoy that istiod configures, as a gateway or as a sidecar: the counterpart of `pilot-agent proxy` in Istio's image.
//!
//! It is a plain Envoy without Istio's filters. Its own counters serve as metrics, with the labels of Istio's metrics.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use super::network;
use crate::Error;

/// The port of istiod's xDS server.
const ISTIOD_PORT: u16 = 15010;
const ADMIN_PORT: u16 = 15000;
/// The port that Prometheus scrapes.
const STATS_PORT: u16 = 15090;
/// The port of the readiness probe, `/healthz/ready`.
pub const READY_PORT: u16 = 15021;

/// Executes Envoy in the role `router` or `sidecar`. Its identity comes from the environment variables that Istio's image uses.
pub fn proxy(role: &str) -> Result<(), Error> {
    let env =
        |name: &str| std::env::var(name).map_err(|_| Error::Failed(format!("{name} must be set")));
    let labels = serde_json::from_str(&env("ISTIO_METAJSON_LABELS")?)
        .map_err(|e| Error::Failed(format!("ISTIO_METAJSON_LABELS: {e}")))?;
    let text = bootstrap(&Identity {
        role,
        ip: &env("INSTANCE_IP")?,
        pod: &env("POD_NAME")?,
        namespace: &env("POD_NAMESPACE")?,
        workload: &env("ISTIO_META_WORKLOAD_NAME")?,
        labels,
    });
    let file = PathBuf::from(env("TMPDIR")?).join("envoy.json");
    fs::write(&file, text.to_string()).map_err(|e| Error::io(&file, e))?;
    // Without --disable-hot-restart several Envoys of one user disturb each other.
    let error = Command::new("envoy")
        .arg("-c")
        .arg(&file)
        .args(["--concurrency", "1", "--disable-hot-restart"])
        .args(["--drain-time-s", "5", "-l", "warning"])
        .exec();
    Err(Error::io(Path::new("envoy"), error))
}

/// The identity of a proxy, as istiod sees it.
struct Identity<'a> {
    role: &'a str,
    ip: &'a str,
    pod: &'a str,
    namespace: &'a str,
    workload: &'a str,
    labels: Value,
}

fn bootstrap(identity: &Identity) -> Value {
    let Identity {
        role,
        ip,
        pod,
        namespace,
        workload,
        labels,
    } = identity;
    json!({
        "node": {
            "id": format!("{role}~{ip}~{pod}.{namespace}~{namespace}.svc.cluster.local"),
            "cluster": format!("{workload}.{namespace}"),
            "metadata": {
                "NAMESPACE": namespace, "NAME": pod, "LABELS": labels, "WORKLOAD_NAME": workload, "CLUSTER_ID": "Kubernetes",
                "ISTIO_VERSION": "1.31.1", "INTERCEPTION_MODE": "REDIRECT", "MESH_ID": "cluster.local", "INSTANCE_IPS": ip,
            },
        },
        "dynamic_resources": {
            "lds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
            "cds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
            "ads_config": {"api_type": "GRPC", "set_node_on_first_message_only": true, "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]},
        },
        "static_resources": {
            "clusters": [
                cluster("xds-grpc", network::NODE_IP, ISTIOD_PORT, true),
                cluster("prometheus_stats", &Ipv4Addr::LOCALHOST.to_string(), ADMIN_PORT, false),
            ],
            "listeners": [
                listener(STATS_PORT, json!([
                    {"match": {"prefix": "/stats/prometheus"}, "route": {"cluster": "prometheus_stats"}}])),
                listener(READY_PORT, json!([
                    {"match": {"prefix": "/healthz/ready"}, "route": {"cluster": "prometheus_stats", "prefix_rewrite": "/ready"}}])),
            ],
        },
        "admin": {"address": address("127.0.0.1", ADMIN_PORT)},
        "bootstrap_extensions": [{"name": "envoy.bootstrap.internal_listener",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener"}}],
        "layered_runtime": {"layers": [
            {"name": "static", "static_layer": {"re2.max_program_size.error_level": 32768}},
            {"name": "admin", "admin_layer": {}}]},
        // Histograms change only at a flush; counters change at once.
        "stats_flush_interval": "1s",
        "stats_config": {"use_all_default_tags": false, "stats_tags": tags(role, workload, namespace)},
    })
}

/// Turns parts of a counter's name into labels. For a sidecar, adds the labels of Istio's metrics.
fn tags(role: &str, workload: &str, namespace: &str) -> Vec<Value> {
    let mut tags = vec![
        json!({"tag_name": "cluster_name", "regex": r"^cluster(\.(.+);)"}),
        json!({"tag_name": "response_code", "regex": r"_rq(_(\d{3}))$"}),
        json!({"tag_name": "response_code_class", "regex": r"_rq(_(\dxx))$"}),
        json!({"tag_name": "http_conn_manager_prefix", "regex": r"^http\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)"}),
        json!({"tag_name": "listener_address", "regex": r"^listener\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)"}),
    ];
    if role == "sidecar" {
        let fixed = |name, value| json!({"tag_name": name, "fixed_value": value});
        tags.push(fixed("destination_workload", workload));
        tags.push(fixed("destination_workload_namespace", namespace));
        tags.push(fixed("reporter", "destination"));
    }
    tags
}

fn address(ip: &str, port: u16) -> Value {
    json!({"socket_address": {"address": ip, "port_value": port}})
}

fn cluster(name: &str, ip: &str, port: u16, http2: bool) -> Value {
    let endpoint = json!({"endpoint": {"address": address(ip, port)}});
    let mut cluster = json!({
        "name": name, "alt_stat_name": format!("{name};"), "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    });
    if http2 {
        cluster["typed_extension_protocol_options"] = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}}}});
    }
    cluster
}

fn listener(port: u16, routes: Value) -> Value {
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "codec_type": "AUTO", "stat_prefix": "own",
        "route_config": {"virtual_hosts": [{"name": "own", "domains": ["*"], "routes": routes}]},
        "http_filters": [{"name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
    });
    json!({"address": address("0.0.0.0", port), "filter_chains": [{"filters": [
        {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]})
}
