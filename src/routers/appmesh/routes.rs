//! The routes of one Service: their conditions, and the shares of the VirtualNodes.

use serde_json::{Map, Value, json};

use super::{AppMesh, Side, listener, millis, write};
use crate::{
    api::{canary::Canary, percent::Percent},
    routers::{
        RouteError,
        conditions::{self, Field, path_prefix},
        route::{by_name, items, new_object, percent, put_fields, text, withdraw_from},
    },
    snapshot::{Action, Snapshot, Weights, Write},
};

/// The router's name in messages.
const ROUTER: &str = "App Mesh";
/// The conditions of a route.
const KEYS: &[&str] = &["uri", "headers"];
/// The ways to compare a header.
const WAYS: [&str; 4] = ["exact", "prefix", "regex", "suffix"];
/// The priority of the first route of an A/B test. App Mesh tries the routes with lower numbers first.
const TESTED: usize = 10;
/// The least priority of the routes for all other requests.
const OTHERS: usize = 20;

/// The differences between the versions.
impl AppMesh {
    /// The fields of the object with the routes that are ours.
    pub(super) const fn ours(self) -> &'static [&'static str] {
        match self {
            Self::V1Beta1 => &["meshName", "virtualRouter", "routes"],
            Self::V1Beta2 => &["listeners", "routes"],
        }
    }

    /// The field of a route for HTTP. Flagger uses it for gRPC, too.
    const fn http(self) -> &'static str {
        match self {
            Self::V1Beta1 => "http",
            Self::V1Beta2 => "httpRoute",
        }
    }

    /// The JSON pointer to the name of the VirtualNode in a target.
    const fn node(self) -> &'static str {
        match self {
            Self::V1Beta1 => "/virtualNodeName",
            Self::V1Beta2 => "/virtualNodeRef/name",
        }
    }

    fn target(self, node: &str, weight: Percent) -> Value {
        match self {
            Self::V1Beta1 => json!({"virtualNodeName": node, "weight": weight}),
            Self::V1Beta2 => json!({"virtualNodeRef": {"name": node}, "weight": weight}),
        }
    }

    /// The time limits of a route; `None` if it has none.
    fn timeout(self, canary: &Canary) -> Option<Value> {
        match self {
            Self::V1Beta1 => None,
            Self::V1Beta2 => request_timeout(canary),
        }
    }

    fn retry_policy(self, retries: &Value) -> Value {
        let timeout = text(retries, "perTryTimeout").and_then(millis);
        let timeout = timeout.unwrap_or(250);
        let attempts = attempts(retries).unwrap_or(1);
        let events = text(retries, "retryOn").unwrap_or("gateway-error");
        let events: Vec<_> = events.split(',').collect();
        match self {
            Self::V1Beta1 => {
                json!({"maxRetries": attempts, "perRetryTimeoutMillis": timeout, "httpRetryEvents": events})
            }
            Self::V1Beta2 => {
                json!({"maxRetries": attempts, "perRetryTimeout": {"unit": "ms", "value": timeout}, "httpRetryEvents": events})
            }
        }
    }

    /// The part of the spec that is ours, with routes for these weights.
    pub(super) fn routes_spec(
        self,
        canary: &Canary,
        side: Side,
        weights: &Weights,
    ) -> Result<Map<String, Value>, RouteError> {
        let listeners = json!([listener(self, canary)]);
        let spec = match self {
            Self::V1Beta1 => {
                let router = json!({"name": side.service(canary), "listeners": listeners});
                let mesh = mesh_name(canary)?;
                let routes = self.routes(canary, side, weights)?;
                json!({"meshName": mesh, "virtualRouter": router, "routes": routes})
            }
            Self::V1Beta2 => {
                json!({"listeners": listeners, "routes": self.routes(canary, side, weights)?})
            }
        };
        Ok(spec.as_object().cloned().unwrap_or_default())
    }
}

/// The writes of the routes, and the weights that they have.
impl AppMesh {
    /// The write of the routes for one Service; `None` if they are correct for any weights. The weights are those to write.
    pub(super) fn routes_write(
        self,
        snapshot: &Snapshot,
        side: Side,
        weights: &Weights,
    ) -> Result<Option<Write>, RouteError> {
        let canary = &snapshot.canary;
        let (kind, name) = (self.route_kind(), self.name(canary, side));
        let spec = self.routes_spec(canary, side, weights)?;
        let within = self.within(side);
        let Some(live) = snapshot.object(kind, &name) else {
            let metadata = [Map::new(), self.route_annotations(canary, side)];
            let object = new_object(snapshot, kind, &name, metadata, Value::Object(spec));
            return Ok(Some(write(
                snapshot,
                kind,
                &name,
                Action::Create(object),
                within,
            )));
        };
        let now = match side {
            Side::Apex => self.routed(canary, live).ok(),
            Side::Canary => Some(Weights::CANARY),
        };
        let mut wanted = live.clone();
        self.annotate_routes(canary, side, &mut wanted);
        if let Some(now) = &now {
            put_fields(
                &mut wanted,
                self.routes_spec(canary, side, now)?,
                self.ours(),
            );
            if wanted == *live {
                return Ok(None);
            }
        }
        put_fields(&mut wanted, spec, self.ours());
        Ok(Some(write(
            snapshot,
            kind,
            &name,
            Action::Replace(wanted),
            within,
        )))
    }

    /// The weights of the first route of an object.
    pub(super) fn routed(self, canary: &Canary, live: &Value) -> Result<Weights, RouteError> {
        let targets = format!("/spec/routes/0/{}/action/weightedTargets", self.http());
        let targets: Vec<_> = items(live, &targets).collect();
        if targets.len() != 2 {
            let (kind, name) = (self.route_kind().name(), self.name(canary, Side::Apex));
            let none = format!("{kind} routes {name} not found");
            return Err(RouteError::NoWeights(none));
        }
        let weight_of = |node: &str| {
            let mut targets = targets.iter();
            let target = targets.find(|to| to.pointer(self.node()).is_some_and(|to| to == node));
            target.map_or(0, |target| percent(target.get("weight")))
        };
        let primary = weight_of(&canary.primary_name());
        let now = Weights::of_percents(primary, weight_of(&canary.canary_name()));
        now.ok_or_else(|| RouteError::NoRoutes {
            route: self.full_name(canary),
            primary: canary.primary_name(),
            canary: canary.canary_name(),
        })
    }

    /// Leads the routes that exist to the primary.
    pub(super) fn withdraw(self, canary: &Canary, live: &mut Value) {
        let targets = format!("/{}/action/weightedTargets", self.http());
        let routes = live
            .pointer_mut("/spec/routes")
            .and_then(Value::as_array_mut);
        for route in routes.into_iter().flatten() {
            withdraw_from(route.pointer_mut(&targets), canary, self.node());
        }
    }

    /// The routes for these weights: one for each set of conditions. In an A/B test the routes with these weights have the conditions of
    /// the test, too, and the last routes keep all other requests on the primary. (Flagger puts the headers of all conditions into one
    /// route.)
    fn routes(
        self,
        canary: &Canary,
        side: Side,
        weights: &Weights,
    ) -> Result<Vec<Value>, RouteError> {
        conditions::check(canary, Field::Service, ROUTER, KEYS)?;
        conditions::check(canary, Field::Test, ROUTER, KEYS)?;
        let everything = [json!({})];
        let own = match conditions::of_service(canary) {
            [] => &everything,
            own => own,
        };
        let all = expressed(Field::Service, own)?;
        let split = vec![
            self.target(&canary.canary_name(), weights.canary),
            self.target(&canary.primary_name(), weights.primary),
        ];
        let test = conditions::of_test(canary);
        if test.is_empty() || side == Side::Canary {
            let name = side.service(canary);
            return Ok(self.named(canary, (&name, None), all, &split));
        }
        let apex = canary.apex_name();
        let tested = expressed(Field::Test, &conditions::product(test, own)?)?;
        let others = OTHERS.max(TESTED + tested.len());
        let primary = [self.target(&canary.primary_name(), Percent::ALL)];
        Ok([
            self.named(canary, (&format!("{apex}-a"), Some(TESTED)), tested, &split),
            self.named(canary, (&format!("{apex}-b"), Some(others)), all, &primary),
        ]
        .concat())
    }

    /// A route for each set of conditions. The names of all but the first end with a number; the priorities count up.
    fn named(
        self,
        canary: &Canary,
        (name, priority): (&str, Option<usize>),
        matches: Vec<Value>,
        targets: &[Value],
    ) -> Vec<Value> {
        let route = |(index, conditions): (usize, Value)| {
            let mut http = json!({"match": conditions, "action": {"weightedTargets": targets}});
            if let Some(timeout) = self.timeout(canary) {
                http["timeout"] = timeout;
            }
            if let Some(retries) = &canary.spec.service.retries {
                http["retryPolicy"] = self.retry_policy(retries);
            }
            let name = match index {
                0 => name.to_owned(),
                _ => format!("{name}-{}", index + 1),
            };
            let mut route = json!({"name": name, self.http(): http});
            if let Some(first) = priority {
                route["priority"] = json!(first + index);
            }
            route
        };
        matches.into_iter().enumerate().map(route).collect()
    }
}

/// The mesh of `v1beta1`.
pub(super) fn mesh_name(canary: &Canary) -> Result<&str, RouteError> {
    let name = canary.spec.service.mesh_name.as_deref();
    let missing = || RouteError::InvalidCanary("mesh name cannot be empty".to_owned());
    name.filter(|name| !name.is_empty()).ok_or_else(missing)
}

/// How often a request is tried again; `None` if the Canary does not set it.
pub(super) fn attempts(retries: &Value) -> Option<i64> {
    let attempts = retries.get("attempts").and_then(Value::as_i64);
    attempts.filter(|attempts| *attempts > 0)
}

/// The time limit of a request; `None` if there is none, or if it is no duration.
pub(super) fn request_timeout(canary: &Canary) -> Option<Value> {
    let timeout = canary.spec.service.timeout.as_deref().and_then(millis)?;
    Some(json!({"perRequest": {"unit": "ms", "value": timeout}}))
}

/// Each set of conditions in App Mesh's form. A condition that App Mesh cannot express is an error. (Flagger would send more requests to
/// the canary.)
fn expressed(field: Field, sets: &[Value]) -> Result<Vec<Value>, RouteError> {
    sets.iter().map(|set| conditions_of(field, set)).collect()
}

fn conditions_of(field: Field, set: &Value) -> Result<Value, RouteError> {
    let mut conditions = json!({"prefix": path_prefix(field, ROUTER, set)?});
    let mut headers = Vec::new();
    for (name, value) in by_name(set.get("headers")) {
        let ways = WAYS.iter().filter_map(|way| Some((way, text(value, way)?)));
        let ways: Map<_, _> = ways
            .map(|(way, text)| ((*way).to_owned(), json!(text)))
            .collect();
        if ways.is_empty() {
            return Err(RouteError::InvalidCanary(format!(
                "{field}: {ROUTER} matches a header by exact, prefix, regex or suffix, and {name} has none of them"
            )));
        }
        headers.push(json!({"name": name, "match": ways}));
    }
    if !headers.is_empty() {
        conditions["headers"] = json!(headers);
    }
    Ok(conditions)
}
