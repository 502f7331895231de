//! A request in the proxy's log.

use std::{fmt, time::Duration};

use http::Method;

/// A request that the proxy received.
#[derive(Clone, Debug)]
pub struct LoggedRequest {
    /// The time between the proxy's start and the arrival of the request. A request that arrives at a frozen proxy is logged at the thaw.
    pub at: Duration,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`.
    pub verb: &'static str,
    /// The resource, with its subresource if there is one (`canaries/status`).
    pub resource: String,
    /// The object's name; empty for lists, watches and creates.
    pub name: String,
    /// The path, with its query.
    pub path: String,
    /// The HTTP status of the answer; `None` without an answer.
    pub code: Option<u16>,
    /// The time until the answer; of a watch, until its head.
    pub took: Duration,
}

impl LoggedRequest {
    /// Whether it is a write.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb, "get" | "list" | "watch")
    }

    /// Whether it is a watch of this resource.
    pub fn watches(&self, resource: &str) -> bool {
        self.verb == "watch" && self.resource == resource
    }

    pub(super) fn new(at: Duration, method: &Method, path: &str) -> Self {
        let (plain, query) = path.split_once('?').unwrap_or((path, ""));
        let (resource, name) = resource_and_name(plain);
        let verb = match method.as_str() {
            "POST" => "create",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" => "delete",
            _ if query.contains("watch=true") || query.contains("watch=1") => "watch",
            _ if name.is_empty() => "list",
            _ => "get",
        };
        Self {
            at,
            verb,
            resource,
            name: name.to_owned(),
            path: path.to_owned(),
            code: None,
            took: Duration::ZERO,
        }
    }
}

/// The resource of a path without query, with its subresource, and the object's name.
fn resource_and_name(path: &str) -> (String, &str) {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    // `/api/v1/…` and `/apis/GROUP/VERSION/…`.
    let skipped = if parts.next() == Some("api") { 1 } else { 2 };
    let mut parts = parts.skip(skipped);
    let mut resource = parts.next().unwrap_or_default().to_owned();
    if resource == "namespaces" {
        // `namespaces/NAMESPACE/RESOURCE/…`, or `namespaces/NAMESPACE` for the Namespace itself.
        let namespace = parts.next().unwrap_or_default();
        match parts.next() {
            Some(inside) => inside.clone_into(&mut resource),
            None => return (resource, namespace),
        }
    }
    let name = parts.next().unwrap_or_default();
    if let Some(sub) = parts.next() {
        resource = format!("{resource}/{sub}");
    }
    (resource, name)
}

impl fmt::Display for LoggedRequest {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            at,
            verb,
            resource,
            name,
            ..
        } = self;
        write!(to, "{:8.3} s {verb} {resource} {name}", at.as_secs_f64())?;
        match self.code {
            Some(code) => write!(to, " → {code} ({} ms)", self.took.as_millis()),
            None => to.write_str(" → no answer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, path: &str) -> String {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let LoggedRequest {
            verb,
            resource,
            name,
            ..
        } = LoggedRequest::new(Duration::ZERO, &method, path);
        format!("{verb} {resource} {name}")
    }

    #[test]
    fn the_path_gives_verb_resource_and_name() {
        for (method, path, words) in [
            ("GET", "/api/v1/pods?limit=100", "list pods "),
            (
                "GET",
                "/apis/apps/v1/deployments?watch=true",
                "watch deployments ",
            ),
            (
                "GET",
                "/apis/apps/v1/namespaces/test/deployments/app",
                "get deployments app",
            ),
            (
                "POST",
                "/api/v1/namespaces/test/events?x=y",
                "create events ",
            ),
            (
                "PATCH",
                "/apis/flagger.app/v1beta1/namespaces/test/canaries/app/status",
                "patch canaries/status app",
            ),
            ("GET", "/api/v1/namespaces/test", "get namespaces test"),
            ("GET", "/api/v1/namespaces", "list namespaces "),
        ] {
            assert_eq!(request(method, path), words);
        }
    }
}
