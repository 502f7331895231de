//! Checks the meaning of a Canary: fields that have no effect together, checks that pass always or never, addresses that cannot be called.

use std::collections::BTreeSet;

use serde_json::Value;
use url::Url;

use super::finding::{Found, Level, kind};
use crate::{
    api::{
        canary::{Canary, CanaryAnalysis, CanaryMetric, CanaryWebhook, WebhookType},
        compare::{Advance, COMPARED_TWICE, CompareMode},
        duration,
    },
    metrics::observer::Builtin,
    routers::own_routes,
};

/// The MetricTemplates of the files: by namespace, which may be empty, and name.
#[derive(Clone, Debug, Default)]
pub struct Templates(BTreeSet<(String, String)>);

impl Templates {
    /// The MetricTemplates among these objects.
    pub fn of<'a>(objects: impl Iterator<Item = &'a Value>) -> Self {
        let text = |object: &Value, field: &str| {
            let text = object["metadata"][field].as_str();
            text.unwrap_or_default().to_owned()
        };
        let templates = objects.filter(|object| kind(object) == "MetricTemplate");
        Self(
            templates
                .map(|object| (text(object, "namespace"), text(object, "name")))
                .collect(),
        )
    }

    /// Whether a template of this name may exist. If the files contain no template, any may exist in the cluster.
    fn may_have(&self, namespace: &str, name: &str) -> bool {
        let is_it = |(other, of_name): &(String, String)| {
            of_name == name && (other == namespace || other.is_empty() || namespace.is_empty())
        };
        self.0.is_empty() || self.0.iter().any(is_it)
    }
}

/// The fields of `spec.service` that describe a route, as far as the Services do not need them.
const ROUTE_FIELDS: [&str; 15] = [
    "backendTimeout",
    "backends",
    "corsPolicy",
    "delegation",
    "gatewayRefs",
    "gateways",
    "grpc",
    "headers",
    "hosts",
    "match",
    "mirror",
    "retries",
    "rewrite",
    "timeout",
    "trafficPolicy",
];

/// The findings about a Canary whose fields can be read.
pub fn findings(canary: &Canary, templates: &Templates) -> Vec<Found> {
    let deletion = left_behind(canary).into_iter().chain(own_routes(canary));
    let deletion = deletion.chain(without_grpc_route(canary));
    let Some(analysis) = &canary.spec.analysis else {
        return deletion.collect();
    };
    let namespace = canary.metadata.namespace.as_deref().unwrap_or_default();
    let metrics = analysis.metrics.iter().enumerate();
    let metrics = metrics.flat_map(|(i, it)| {
        let at = format!("spec.analysis.metrics[{i}]");
        let of_http = http_statuses(&at, it).filter(|_| speaks_grpc_only(canary));
        metric(&at, it, namespace, templates)
            .into_iter()
            .chain(of_http)
    });
    let hooks = analysis.webhooks.iter().enumerate();
    let hooks = hooks.filter_map(|(i, it)| webhook(&format!("spec.analysis.webhooks[{i}]"), it));
    deletion
        .chain(steps(canary, analysis))
        .chain(metrics)
        .chain(hooks)
        .collect()
}

/// A finding about a field.
fn found(level: Level, field: impl Into<String>, message: impl Into<String>) -> Found {
    (level, field.into(), message.into())
}

/// The finding about a route that stays when the Canary is deleted, and leads to a primary that is gone.
fn left_behind(canary: &Canary) -> Option<Found> {
    let is_kuma = canary.spec.provider.as_deref() == Some("kuma");
    let message = "is false: with kuma, the TrafficRoute stays when the Canary is deleted, and leads to a primary that is gone";
    (is_kuma && !canary.spec.revert_on_deletion)
        .then(|| found(Level::Warning, "spec.revertOnDeletion", message))
}

/// The finding about `service.grpc` with a provider that makes no GRPCRoute. Without a provider in the Canary, a flag decides.
fn without_grpc_route(canary: &Canary) -> Option<Found> {
    canary.spec.service.grpc.as_ref()?;
    let provider = canary.spec.provider.as_deref()?;
    let level = match provider {
        "" => return None,
        // The operator refuses it.
        other if other.starts_with("gatewayapi:v1beta1") => Level::Error,
        other if other.starts_with("gatewayapi:v1") => return None,
        _ => Level::Warning,
    };
    let message = format!("needs the provider gatewayapi:v1: with {provider} no GRPCRoute is made");
    (!canary.has_route_refs()).then(|| found(level, "spec.service.grpc", message))
}

/// Whether the routes of a Canary lead calls of gRPC only.
fn speaks_grpc_only(canary: &Canary) -> bool {
    if !canary.has_route_refs() {
        return canary.spec.service.grpc.is_some();
    }
    let refs = canary.route_refs().unwrap_or_default();
    !refs.is_empty() && refs.iter().all(|route| route.kind == "GRPCRoute")
}

/// The finding about a metric that counts no failed call of gRPC.
fn http_statuses(at: &str, metric: &CanaryMetric) -> Option<Found> {
    let is_own = metric.template_ref.is_some() || metric.query.is_some();
    let message = "counts statuses of HTTP, and a call of gRPC that fails usually has the status 200: use a MetricTemplate, as in examples/metrics/success-rate-of-grpc.yaml (Linkerd's proxies count such calls as failed)";
    let is_rate = Builtin::named(&metric.name) == Some(Builtin::SuccessRate);
    (is_rate && !is_own).then(|| found(Level::Warning, format!("{at}.name"), message))
}

/// The findings about `routeRefs`, and about fields that describe a route of the operator, which it does not make then.
fn own_routes(canary: &Canary) -> Vec<Found> {
    if !canary.has_route_refs() {
        return Vec::new();
    }
    let place = "spec.service.routeRefs";
    let problem = own_routes::named(canary)
        .err()
        .map(|error| error.to_string());
    let problem = problem.or_else(|| own_routes::unsupported(canary));
    let error = problem.map(|problem| found(Level::Error, place, problem));
    let service = serde_json::to_value(&canary.spec.service).unwrap_or_default();
    let unused = ROUTE_FIELDS
        .iter()
        .filter(|field| service.get(**field).is_some());
    let warning = |field: &&str| {
        let message = "has no effect with routeRefs: the route is the user's";
        found(Level::Warning, format!("spec.service.{field}"), message)
    };
    error.into_iter().chain(unused.map(warning)).collect()
}

fn steps(canary: &Canary, analysis: &CanaryAnalysis) -> Vec<Found> {
    let error = |field: &str, message: String| {
        found(Level::Error, format!("spec.analysis{field}"), message)
    };
    let warning = |field: &str, message: &str| {
        found(Level::Warning, format!("spec.analysis{field}"), message)
    };
    let mut all = Vec::new();
    match duration::read(&analysis.interval) {
        Err(why) => all.push(error(".interval", format!("{why}: one minute is used"))),
        Ok(interval) if interval < canary.interval() => {
            all.push(warning(".interval", "is shorter than 10s, which is used"));
        }
        Ok(interval) if interval < COMPARED_TWICE && is_early(analysis) => {
            let why = "is shorter than 1m, so compare.advance: early has no effect";
            all.push(warning(".interval", why));
        }
        Ok(_) => {}
    }
    if analysis.threshold < 1 {
        all.push(warning(
            ".threshold",
            "is less than 1: the first failed check is a rollback",
        ));
    }
    if !analysis.match_.is_empty() && analysis.iterations.unwrap_or(0) <= 0 {
        let message = "needs iterations: without them no A/B test is run";
        all.push(error(".match", message.to_owned()));
    }
    let hooks = &analysis.webhooks;
    let checks = hooks
        .iter()
        .any(|hook| matches!(hook.type_, WebhookType::Rollout | WebhookType::PreRollout));
    if analysis.metrics.is_empty() && !checks && !canary.spec.skip_analysis {
        let message =
            "has neither metrics nor webhooks that check the version: each one is promoted";
        all.push(warning("", message));
    }
    all.extend(weights(canary, analysis));
    all
}

/// Whether a metric lets a step end early.
fn is_early(analysis: &CanaryAnalysis) -> bool {
    let mut compared = { analysis.metrics.iter() }.filter_map(|it| it.compare.as_ref());
    compared.any(|it| it.advance == Some(Advance::Early))
}

fn weights(canary: &Canary, analysis: &CanaryAnalysis) -> Vec<Found> {
    let warning = |field: &str, message: String| {
        found(Level::Warning, format!("spec.analysis.{field}"), message)
    };
    let mut all = Vec::new();
    let is_iterated = analysis.iterations.unwrap_or(0) > 0;
    let (step, most) = (analysis.step_weight.unwrap_or(0), canary.max_weight());
    if is_iterated && (step > 0 || analysis.step_weights.is_some() || analysis.has_decimals()) {
        all.push(warning(
            "stepWeight",
            "has no effect together with iterations".to_owned(),
        ));
    }
    if let Some(max) = analysis.max_weight.filter(|max| !(0..=100).contains(max)) {
        all.push(warning(
            "maxWeight",
            format!("{max} is no percentage from 0 to 100"),
        ));
    }
    if !is_iterated && !analysis.has_decimals() && step > most.rounded_up() {
        all.push(warning(
            "stepWeight",
            format!("{step} is more than maxWeight: there is one step of {most} %"),
        ));
    }
    all
}

fn metric(at: &str, metric: &CanaryMetric, namespace: &str, templates: &Templates) -> Vec<Found> {
    let mut all = Vec::new();
    let builtin = Builtin::named(&metric.name);
    let has_query = metric.query.as_ref().is_some_and(|query| !query.is_empty());
    match &metric.template_ref {
        None if builtin.is_none() && !has_query => {
            let message = format!(
                "{:?} is no built-in metric (request-success-rate, request-duration), and there is no templateRef",
                metric.name
            );
            all.push(found(Level::Error, format!("{at}.name"), message));
        }
        Some(reference) => {
            let namespace = reference.namespace.as_deref().unwrap_or(namespace);
            if !templates.may_have(namespace, &reference.name) {
                let message = format!("no MetricTemplate {} is in these files", reference.name);
                all.push(found(Level::Warning, format!("{at}.templateRef"), message));
            }
        }
        None => {}
    }
    if let Some(Err(error)) = metric.interval.as_deref().map(duration::read) {
        all.push(found(
            Level::Error,
            format!("{at}.interval"),
            error.to_string(),
        ));
    }
    all.extend(range(
        &format!("{at}.thresholdRange"),
        metric,
        builtin == Some(Builtin::SuccessRate),
    ));
    all
}

/// Findings about ranges that always or never pass.
fn range(at: &str, metric: &CanaryMetric, is_rate: bool) -> Option<Found> {
    let warning = |message: &str| Some(found(Level::Warning, at, message));
    let Some(range) = &metric.threshold_range else {
        let is_compared = metric.compare.is_some() && metric.mode != Some(CompareMode::Observe);
        return match metric.threshold {
            None if is_compared => None,
            Some(_) => None,
            None if is_rate => warning("is missing: any value passes"),
            None => warning("is missing: only values up to 0 pass"),
        };
    };
    match (range.min, range.max) {
        (None, None) => warning("has neither min nor max: any value passes"),
        (Some(min), Some(max)) if min > max => {
            let message = format!("no value is at least {min} and at most {max}");
            Some(found(Level::Error, at, message))
        }
        (Some(min), _) if is_rate && min > 0.0 && min <= 1.0 => {
            let message = format!(
                "{min} is a percentage: write {} for that share",
                min * 100.0
            );
            Some(found(Level::Warning, format!("{at}.min"), message))
        }
        _ => None,
    }
}

/// The finding about an address that cannot be called.
fn webhook(at: &str, hook: &CanaryWebhook) -> Option<Found> {
    let problem = match Url::parse(&hook.url) {
        Ok(url) if ["http", "https"].contains(&url.scheme()) && url.has_host() => None,
        Ok(_) => Some("must begin with http:// or https://".to_owned()),
        Err(error) => Some(error.to_string()),
    };
    if let Some(problem) = problem {
        return Some((
            Level::Error,
            format!("{at}.url"),
            format!("{:?} cannot be called: {problem}", hook.url),
        ));
    }
    let timeout = hook.timeout.as_deref().map(duration::read);
    let Some(Err(error)) = timeout else {
        return None;
    };
    Some((Level::Error, format!("{at}.timeout"), error.to_string()))
}
