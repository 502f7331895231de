//! The built-in metrics: Flagger's exact queries, by what reports them (`pkg/metrics/observers`).

use super::{MetricError, template::Model};
use crate::api::canary::TargetRef;

/// Who reports the built-in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observer {
    /// Istio's telemetry, at the destination.
    Istio,
    /// The application itself, by Prometheus' common names.
    Http,
    /// Linkerd's proxies, at the destination; Deployments only.
    Linkerd,
    /// The sidecars of Open Service Mesh, at the destination; Deployments only.
    Osm,
    /// Contour's Envoy.
    Contour,
    /// ingress-nginx; its duration is a mean.
    Nginx,
}

/// The built-in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    /// `request-success-rate`: percent of the requests that did not fail.
    SuccessRate,
    /// `request-duration`: the 99th percentile, in milliseconds.
    Duration,
}

impl Builtin {
    /// The built-in metric of this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "request-success-rate" => Some(Self::SuccessRate),
            "request-duration" => Some(Self::Duration),
            _ => None,
        }
    }
}

/// The provider of a canary's built-in metrics, as messages name it (`pkg/controller/scheduler_metrics.go`): the canary's own or the
/// operator's; Linkerd measures whatever routes. A plain Service as target is marked.
pub fn provider(flag: &str, own: Option<&str>, target: &TargetRef) -> String {
    let flag = if flag.contains("crossover") {
        "crossover"
    } else {
        flag
    };
    let provider = match own.filter(|own| !own.is_empty()) {
        Some(_) if flag.contains("linkerd") => "linkerd",
        Some(own) => own,
        None => flag,
    };
    let is_knative = target.api_version.starts_with("serving.knative.dev/");
    if target.kind == "Service" && !is_knative {
        format!("{provider}:service")
    } else {
        provider.to_owned()
    }
}

impl Observer {
    /// Who reports the built-in metrics of a provider (`pkg/metrics/observers/factory.go`). A name that nobody knows means Istio, as in
    /// Flagger.
    pub fn of(provider: &str) -> Result<Self, String> {
        let not_yet = ["apisix", "knative", "kuma", "skipper", "traefik"];
        let starts = |start| provider.starts_with(start);
        match provider {
            "kubernetes" => Ok(Self::Http),
            "linkerd" => Ok(Self::Linkerd),
            "osm" => Ok(Self::Osm),
            "contour" => Ok(Self::Contour),
            "nginx" => Ok(Self::Nginx),
            _ if starts("gatewayapi") => Ok(Self::Http),
            _ if starts("appmesh") || starts("gloo") || not_yet.contains(&provider) => {
                Err(format!(
                    "built-in metrics of {provider} are not supported yet, only those of contour, gatewayapi, istio, kubernetes, linkerd, nginx and osm are"
                ))
            }
            _ => Ok(Self::Istio),
        }
    }

    /// Why there is no value, as a user reads it: of one query Flagger says less.
    pub fn failure(self, metric: Builtin, error: &MetricError) -> String {
        match (self, metric) {
            (Self::Http, Builtin::SuccessRate) => error.to_string(),
            _ => format!("running query failed: {error}"),
        }
    }

    /// A duration as it was measured, in whole milliseconds.
    pub fn millis(self, duration: f64) -> f64 {
        match self {
            Self::Istio | Self::Linkerd | Self::Osm | Self::Contour | Self::Nginx => {
                duration.trunc()
            }
            Self::Http => (duration * 1000.0).trunc(),
        }
    }

    /// The query of a built-in metric. (The leading space is Flagger's: servers that are mocked by their query see no difference.)
    pub fn query(self, metric: Builtin, model: &Model) -> String {
        let interval = &model.interval;
        let rate = |metric: &str, selector: &str| {
            format!("sum( rate( {metric}{{ {selector} }}[{interval}] ) )")
        };
        let Series {
            selector,
            succeeded,
            requests,
            durations,
        } = self.series(model);
        match (metric, self) {
            (Builtin::SuccessRate, _) => format!(
                " {} / {} * 100",
                rate(requests, &succeeded),
                rate(requests, &selector)
            ),
            (Builtin::Duration, Self::Nginx) => format!(
                " {} / {} * 1000",
                rate(&format!("{durations}_sum"), &selector),
                rate(&format!("{durations}_count"), &selector)
            ),
            (
                Builtin::Duration,
                Self::Istio | Self::Http | Self::Linkerd | Self::Osm | Self::Contour,
            ) => format!(
                " histogram_quantile( 0.99, {} by (le) )",
                rate(&format!("{durations}_bucket"), &selector)
            ),
        }
    }

    /// What an observer knows of the canary's requests.
    fn series(self, model: &Model) -> Series {
        let Model {
            namespace,
            target,
            service,
            ingress,
            ..
        } = model;
        let series = |selector: String, success: &str, requests, durations| Series {
            succeeded: format!("{selector}, {success}"),
            selector,
            requests,
            durations,
        };
        match self {
            Self::Istio => series(
                format!(
                    "reporter=\"destination\", destination_workload_namespace=\"{namespace}\", destination_workload=~\"{target}\""
                ),
                "response_code!~\"5.*\"",
                "istio_requests_total",
                "istio_request_duration_milliseconds",
            ),
            Self::Http => series(
                format!(
                    "kubernetes_namespace=\"{namespace}\", kubernetes_pod_name=~\"{target}-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)\""
                ),
                "status!~\"5.*\"",
                "http_request_duration_seconds_count",
                "http_request_duration_seconds",
            ),
            Self::Linkerd => {
                let workload = format!("namespace=\"{namespace}\", deployment=~\"{target}\"");
                Series {
                    selector: format!("{workload}, direction=\"inbound\""),
                    succeeded: format!(
                        "{workload}, classification!=\"failure\", direction=\"inbound\""
                    ),
                    requests: "response_total",
                    durations: "response_latency_ms",
                }
            }
            Self::Osm => series(
                format!(
                    "destination_namespace=\"{namespace}\", destination_kind=\"Deployment\", destination_name=\"{target}\""
                ),
                "response_code!~\"5.*\"",
                "osm_request_total",
                "osm_request_duration_ms",
            ),
            Self::Contour => {
                let cluster =
                    format!("envoy_cluster_name=~\"{namespace}_{service}-canary_[0-9a-zA-Z-]+\",");
                Series {
                    succeeded: format!("{cluster} envoy_response_code!~\"5.*\""),
                    selector: cluster,
                    requests: "envoy_cluster_upstream_rq",
                    durations: "envoy_cluster_upstream_rq_time",
                }
            }
            Self::Nginx => series(
                format!("namespace=\"{namespace}\", ingress=\"{ingress}\", canary!=\"\""),
                "status!~\"5.*\"",
                "nginx_ingress_controller_requests",
                "nginx_ingress_controller_response_duration_seconds",
            ),
        }
    }
}

/// The series of an observer.
struct Series {
    /// All requests.
    selector: String,
    /// Those that did not fail.
    succeeded: String,
    /// Counts requests.
    requests: &'static str,
    /// A histogram's name, without its endings.
    durations: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(kind: &str, api_version: &str) -> TargetRef {
        TargetRef {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            name: "podinfo".to_owned(),
        }
    }

    #[test]
    fn who_measures_follows_from_the_flag_the_canary_and_the_target() {
        let deployment = target("Deployment", "apps/v1");
        let service = target("Service", "v1");
        let knative = target("Service", "serving.knative.dev/v1");
        for (flag, own, target, name, observer) in [
            ("istio", None, &deployment, "istio", Some(Observer::Istio)),
            (
                "istio",
                Some(""),
                &deployment,
                "istio",
                Some(Observer::Istio),
            ),
            (
                "istio",
                Some("kubernetes"),
                &deployment,
                "kubernetes",
                Some(Observer::Http),
            ),
            (
                "istio",
                Some("kubernetes"),
                &service,
                "kubernetes:service",
                Some(Observer::Istio),
            ),
            (
                "gatewayapi:v1",
                None,
                &service,
                "gatewayapi:v1:service",
                Some(Observer::Http),
            ),
            (
                "gatewayapi",
                None,
                &deployment,
                "gatewayapi",
                Some(Observer::Http),
            ),
            (
                "linkerd",
                Some("gatewayapi:v1"),
                &deployment,
                "linkerd",
                Some(Observer::Linkerd),
            ),
            (
                "smi:v1alpha1:linkerd",
                None,
                &deployment,
                "smi:v1alpha1:linkerd",
                Some(Observer::Istio),
            ),
            (
                "smi:crossover",
                None,
                &deployment,
                "crossover",
                Some(Observer::Istio),
            ),
            (
                "smi:crossover",
                Some("istio"),
                &deployment,
                "istio",
                Some(Observer::Istio),
            ),
            (
                "nginx",
                None,
                &service,
                "nginx:service",
                Some(Observer::Istio),
            ),
            ("appmesh", None, &service, "appmesh:service", None),
            ("istio", None, &knative, "istio", Some(Observer::Istio)),
        ] {
            let provider = provider(flag, own, target);
            assert_eq!(provider, name, "{flag} {own:?}");
            assert_eq!(Observer::of(&provider).ok(), observer, "{flag} {own:?}");
        }
    }

    #[test]
    fn only_a_routers_whole_name_means_that_it_measures() {
        for (provider, observer) in [
            ("linkerd", Some(Observer::Linkerd)),
            ("linkerd:service", Some(Observer::Istio)),
            ("osm", Some(Observer::Osm)),
            ("contour", Some(Observer::Contour)),
            ("nginx", Some(Observer::Nginx)),
            ("smi:v1alpha2", Some(Observer::Istio)),
            ("skipper", None),
        ] {
            assert_eq!(Observer::of(provider).ok(), observer, "{provider}");
        }
    }

    #[test]
    fn an_application_reports_seconds() {
        let model = Model {
            namespace: "test".to_owned(),
            target: "podinfo".to_owned(),
            interval: "1m".to_owned(),
            ..Model::default()
        };
        let selector = "kubernetes_namespace=\"test\", kubernetes_pod_name=~\"podinfo-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)\"";
        assert_eq!(
            Observer::Http.query(Builtin::SuccessRate, &model),
            format!(
                " sum( rate( http_request_duration_seconds_count{{ {selector}, status!~\"5.*\" }}[1m] ) ) / sum( rate( http_request_duration_seconds_count{{ {selector} }}[1m] ) ) * 100"
            )
        );
        assert_eq!(
            Observer::Http.query(Builtin::Duration, &model),
            format!(
                " histogram_quantile( 0.99, sum( rate( http_request_duration_seconds_bucket{{ {selector} }}[1m] ) ) by (le) )"
            )
        );
        assert!((Observer::Http.millis(0.123_9) - 123.0).abs() < f64::EPSILON);
        assert!((Observer::Istio.millis(123.9) - 123.0).abs() < f64::EPSILON);
    }

    /// Flagger's queries, to the blank.
    #[test]
    fn what_routers_report_is_asked_in_flaggers_words() {
        let model = Model {
            namespace: "test".to_owned(),
            target: "podinfo".to_owned(),
            service: "web".to_owned(),
            ingress: "in".to_owned(),
            interval: "1m".to_owned(),
            ..Model::default()
        };
        for (observer, rate, duration) in [
            (
                Observer::Linkerd,
                r#" sum( rate( response_total{ namespace="test", deployment=~"podinfo", classification!="failure", direction="inbound" }[1m] ) ) / sum( rate( response_total{ namespace="test", deployment=~"podinfo", direction="inbound" }[1m] ) ) * 100"#,
                r#" histogram_quantile( 0.99, sum( rate( response_latency_ms_bucket{ namespace="test", deployment=~"podinfo", direction="inbound" }[1m] ) ) by (le) )"#,
            ),
            (
                Observer::Osm,
                r#" sum( rate( osm_request_total{ destination_namespace="test", destination_kind="Deployment", destination_name="podinfo", response_code!~"5.*" }[1m] ) ) / sum( rate( osm_request_total{ destination_namespace="test", destination_kind="Deployment", destination_name="podinfo" }[1m] ) ) * 100"#,
                r#" histogram_quantile( 0.99, sum( rate( osm_request_duration_ms_bucket{ destination_namespace="test", destination_kind="Deployment", destination_name="podinfo" }[1m] ) ) by (le) )"#,
            ),
            (
                Observer::Contour,
                r#" sum( rate( envoy_cluster_upstream_rq{ envoy_cluster_name=~"test_web-canary_[0-9a-zA-Z-]+", envoy_response_code!~"5.*" }[1m] ) ) / sum( rate( envoy_cluster_upstream_rq{ envoy_cluster_name=~"test_web-canary_[0-9a-zA-Z-]+", }[1m] ) ) * 100"#,
                r#" histogram_quantile( 0.99, sum( rate( envoy_cluster_upstream_rq_time_bucket{ envoy_cluster_name=~"test_web-canary_[0-9a-zA-Z-]+", }[1m] ) ) by (le) )"#,
            ),
            (
                Observer::Nginx,
                r#" sum( rate( nginx_ingress_controller_requests{ namespace="test", ingress="in", canary!="", status!~"5.*" }[1m] ) ) / sum( rate( nginx_ingress_controller_requests{ namespace="test", ingress="in", canary!="" }[1m] ) ) * 100"#,
                r#" sum( rate( nginx_ingress_controller_response_duration_seconds_sum{ namespace="test", ingress="in", canary!="" }[1m] ) ) / sum( rate( nginx_ingress_controller_response_duration_seconds_count{ namespace="test", ingress="in", canary!="" }[1m] ) ) * 1000"#,
            ),
        ] {
            assert_eq!(observer.query(Builtin::SuccessRate, &model), rate);
            assert_eq!(observer.query(Builtin::Duration, &model), duration);
        }
    }
}
