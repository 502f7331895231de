//! The connection through which the machine of a person queries a metric server. That machine cannot resolve the names of Services, so
//! requests to Services go through the API server, which passes no credentials on.

use url::{Host, Position, Url};

use crate::snapshot::{HttpRequest, Method, Origin, Secret};

/// The headers that are no credentials.
const OPEN: [&str; 2] = ["content-type", "accept"];

/// The reason why credentials of the cluster are not used for a template that is not in the cluster.
pub const UNTRUSTED: &str =
    "a MetricTemplate of the manifests is not in the cluster, so no credentials are sent";

/// The way of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// From this machine.
    Direct,
    /// Through the API server, with the rights of the person.
    ApiServer(HttpRequest),
    /// The request is not sent, for this reason.
    None(String),
}

/// The way of a request. `operator` is the namespace of the operator, if it is known: an address of one word means a Service there.
/// `are_trusted` is true if the MetricTemplates are those of the cluster: only these get values of Secrets.
pub fn way(request: &HttpRequest, operator: Option<&str>, are_trusted: bool) -> Way {
    let none = |why: &str| Way::None(why.to_owned());
    if request.origin == Origin::ApiServer {
        return match request.method {
            Method::Get => Way::ApiServer(request.clone()),
            Method::Post | Method::Put | Method::Delete => {
                none("the query creates an object in the cluster")
            }
        };
    }
    let Ok(url) = Url::parse(&request.url.0) else {
        return none("the address is invalid");
    };
    let is_secret = |(name, _): &(String, Secret)| !OPEN.contains(&name.to_lowercase().as_str());
    let has_credentials = request.headers.iter().any(is_secret);
    if has_credentials && !are_trusted {
        return none(UNTRUSTED);
    }
    match service(&url, operator) {
        Err(why) => Way::None(why),
        Ok(None) if has_credentials && url.scheme() != "https" => {
            none("its credentials would leave this machine without TLS")
        }
        Ok(None) => Way::Direct,
        // The manifests may come from someone who may not call this Service.
        Ok(Some(_)) if !are_trusted && request.origin == Origin::User => none(
            "a MetricTemplate of the manifests is not in the cluster, so no Service is asked for it",
        ),
        Ok(Some(_)) if has_credentials => {
            none("the server is in the cluster, and the API server passes no credentials on")
        }
        Ok(Some(_)) if request.method != Method::Get => {
            none("the server is in the cluster, and its query is no GET request")
        }
        Ok(Some((service, namespace))) => {
            Way::ApiServer(proxied(request, &url, service, namespace))
        }
    }
}

/// The Service that an address names, and its namespace; `None` if the address is outside the cluster.
fn service<'a>(
    url: &'a Url,
    operator: Option<&'a str>,
) -> Result<Option<(&'a str, &'a str)>, String> {
    let Some(Host::Domain(host)) = url.host() else {
        return Ok(None);
    };
    let labels: Vec<_> = host.trim_end_matches('.').split('.').collect();
    match labels[..] {
        ["localhost"] => Ok(None),
        [service] => match operator {
            Some(namespace) => Ok(Some((service, namespace))),
            None => Err(format!(
                "{service} is a Service in the namespace of the operator, which --account names"
            )),
        },
        [service, namespace]
        | [service, namespace, "svc"]
        | [service, namespace, "svc", "cluster", "local"] => Ok(Some((service, namespace))),
        _ => Ok(None),
    }
}

/// The request through the API server's proxy for Services.
fn proxied(request: &HttpRequest, url: &Url, service: &str, namespace: &str) -> HttpRequest {
    let scheme = url.scheme();
    let port = url.port_or_known_default().unwrap_or_default();
    let rest = &url[Position::BeforePath..Position::AfterQuery];
    let url = format!(
        "https://kubernetes.default.svc/api/v1/namespaces/{namespace}/services/{scheme}:{service}:{port}/proxy{rest}"
    );
    HttpRequest {
        url: Secret(url),
        origin: Origin::ApiServer,
        ..request.clone()
    }
}
