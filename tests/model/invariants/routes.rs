//! Reads the Services that the routes of each kind lead to, and their shares of the traffic.

use flagger_rs::snapshot::Kind;
use serde_json::Value;

use super::Key;
use crate::routers::{ROUTERS, Row, Rules, renamed};

/// The plural that distinguishes Knative Services from core Services in these tests.
pub const KNATIVE_SERVICES: &str = "knativeservices";

/// The kinds of routes that `of_ingress`, `of_route_table` and `of_knative` read: their destinations are in annotations, Upstreams and
/// Revisions.
const OTHERS: [Kind; 3] = [Kind::Ingress, Kind::GlooRouteTable, Kind::KnativeService];

/// The places of rules in all routes whose destinations are Services: each row of the table of routers, with each of its lists of rules.
fn places() -> impl Iterator<Item = (&'static Row, Rules, &'static str)> {
    let with_rules = ROUTERS.iter().filter_map(|row| Some((row, row.rules?)));
    let with_services = with_rules.filter(|(_, rules)| !OTHERS.contains(&rules.kind));
    with_services.flat_map(|(row, rules)| rules.lists.iter().map(move |list| (row, rules, *list)))
}

/// The name of the user's object beside which a Canary's router writes its own.
pub fn source<'a>(row: &Row, canary: &'a Value) -> Option<&'a str> {
    canary["spec"][row.source?.field]["name"].as_str()
}

/// The shares of the primary and of the target in each rule. `None` if no route splits the requests to the apex Service.
pub fn rules<'a>(
    canary: &Value,
    apex: &str,
    get: impl Fn(&'static str, &str) -> Option<&'a Value>,
) -> Option<Vec<(i64, i64)>> {
    if let Some(ingress) = canary["spec"]["ingressRef"]["name"].as_str() {
        // Without the second Ingress, the first one leads all clients to the apex Service.
        let second = get("ingresses", &format!("{ingress}-canary"))?;
        return Some(vec![of_ingress(second)]);
    }
    if canary["spec"]["provider"] == "knative" {
        let target = canary["spec"]["targetRef"]["name"].as_str()?;
        return of_knative(get(KNATIVE_SERVICES, target)?);
    }
    let service = get("services", apex);
    let selector = service.and_then(|service| service["spec"]["selector"].as_object());
    let mut values = selector.into_iter().flat_map(|selector| selector.values());
    let selects_primary = values.any(|value| {
        value
            .as_str()
            .is_some_and(|value| value.ends_with("-primary"))
    });
    if let Some(table) = get("routetables", apex) {
        return of_route_table(table, apex, selects_primary);
    }
    let shares = |rules: Rules| {
        move |rule: &&Value| {
            let of = |host: &str| share(rule, rules, host).unwrap_or(0);
            let (primary, target) = (format!("{apex}-primary"), format!("{apex}-canary"));
            // A restored route, and a route of the user's, may lead to the apex Service.
            if selects_primary {
                (of(&primary) + of(apex), of(&target))
            } else {
                (of(&primary), of(&target) + of(apex))
            }
        }
    };
    let namespace = canary["metadata"]["namespace"].as_str().unwrap_or_default();
    places().find_map(|(row, rules, list)| {
        let source = source(row, canary).unwrap_or_default();
        let name = renamed(rules.name, [apex, namespace, source, ""]);
        // A copy leads the requests of a user's route without parents.
        let copy = get(rules.kind.plural(), &format!("{name}-flagger"));
        let route = copy.or_else(|| get(rules.kind.plural(), &name))?;
        route.pointer(list)?;
        let all = each(route, rules, list);
        // While a user recreates the Service, a route that names it leads to nobody.
        let names_apex = |rule: &&Value| share(rule, rules, apex).is_some_and(|share| share > 0);
        if service.is_none() && all.iter().any(names_apex) {
            return None;
        }
        Some(all.iter().map(shares(rules)).collect())
    })
}

/// Whether requests are copied to the canary.
pub fn mirrors<'a>(apex: &str, get: impl Fn(&'static str, &str) -> Option<&'a Value>) -> bool {
    let mut specs =
        places().filter_map(|(_, rules, _)| Some(&get(rules.kind.plural(), apex)?["spec"]));
    specs.any(|spec| {
        let lists = ["http", "rules", "routes"].into_iter();
        let rules = lists.filter_map(|rules| spec[rules].as_array());
        rules.flatten().any(|rule| {
            let list = |field: &str| rule[field].as_array().into_iter().flatten();
            rule["mirror"].is_object()
                || list("filters").any(|filter| filter["type"] == "RequestMirror")
                || list("services").any(|service| service["mirror"] == true)
        })
    })
}

/// The kinds whose objects lead to no Service that these tests check, besides those of routers. (The second Ingress of NGINX leads to the
/// canary's Service, but both are deleted together. No scenario has a GRPCRoute, TLSRoute or TCPRoute.)
const NOT_ROUTES: [&str; 20] = [
    "alertproviders",
    "canaries",
    "configmaps",
    "controllerrevisions",
    "daemonsets",
    "deployments",
    "events",
    "grpcroutes",
    "horizontalpodautoscalers",
    KNATIVE_SERVICES,
    "leases",
    "metrictemplates",
    "pods",
    "releases",
    "replicasets",
    "revisions",
    "scaledobjects",
    "secrets",
    "tcproutes",
    "tlsroutes",
];

/// The Services that an object leads to. Panics if it is of a kind that neither table has.
pub fn hosts<'a>(key: &Key, route: &'a Value) -> Vec<&'a str> {
    assert!(
        is_known(key.plural),
        "add {} to the table of routers or to NOT_ROUTES",
        key.plural
    );
    let mut known = places().filter(|(_, rules, _)| rules.kind.plural() == key.plural);
    let Some((_, rules, list)) = known.find(|(.., list)| route.pointer(list).is_some()) else {
        return Vec::new();
    };
    let all = each(route, rules, list).into_iter();
    let to = { all.filter_map(|rule| rule.pointer(rules.destinations)?.as_array()) }.flatten();
    // A route of the user names the canary's Service for ever, and no request goes there.
    let is_led = |to: &&Value| to["weight"] != 0;
    to.filter(is_led)
        .filter_map(|to| named(to, rules))
        .collect()
}

/// The name of the Service that a destination leads to. The tags of Kuma have more after it.
fn named(to: &Value, rules: Rules) -> Option<&str> {
    to.pointer(rules.service)?.as_str()?.split('_').next()
}

fn is_known(plural: &str) -> bool {
    let mut objects = ROUTERS.iter().flat_map(|row| row.objects);
    let is_of_router = objects.any(|(kind, _)| kind.plural() == plural);
    is_of_router || NOT_ROUTES.contains(&plural)
}

/// The rules in a list. A list of destinations is one rule.
fn each<'a>(route: &'a Value, rules: Rules, list: &str) -> Vec<&'a Value> {
    match route.pointer(list) {
        Some(Value::Array(all)) if !rules.destinations.is_empty() => all.iter().collect(),
        Some(only) => vec![only],
        None => Vec::new(),
    }
}

fn share(rule: &Value, rules: Rules, host: &str) -> Option<i64> {
    let all = rule.pointer(rules.destinations)?.as_array()?;
    let to = all.iter().find(|to| named(to, rules) == Some(host))?;
    // A single destination without a weight gets all requests.
    let whole = if all.len() == 1 { 100 } else { 0 };
    let weight = &to["weight"];
    // SMI's first versions have weights as quantities, which may be strings.
    let quantity = || weight.as_str()?.parse().ok();
    Some(weight.as_i64().or_else(quantity).unwrap_or(whole))
}

/// The shares in each route of a RouteTable of Gloo; `None` if it has no routes.
fn of_route_table(table: &Value, apex: &str, selects_primary: bool) -> Option<Vec<(i64, i64)>> {
    let routes = table.pointer("/spec/routes")?.as_array()?;
    let shares = |route: &Value| {
        let destinations = route.pointer("/routeAction/multi/destinations");
        let all = destinations.and_then(Value::as_array).into_iter().flatten();
        all.fold((0, 0), |(primary, target), one| {
            let weight = one["weight"].as_i64().unwrap_or(0);
            let upstream = one["destination"]["upstream"]["name"].as_str();
            let is = |side: &str| upstream.is_some_and(|name| name.contains(side));
            let is_apex = one["destination"]["kube"]["ref"]["name"] == apex;
            if is("-primaryupstream-") || (is_apex && selects_primary) {
                (primary + weight, target)
            } else if is("-canaryupstream-") || is_apex {
                (primary, target + weight)
            } else {
                (primary, target)
            }
        })
    };
    Some(routes.iter().map(shares).collect())
}

/// The shares of the promoted Revision and of the latest one; `None` if the Service has no routes of its own.
fn of_knative(service: &Value) -> Option<Vec<(i64, i64)>> {
    let routes = service.pointer("/spec/traffic")?.as_array()?;
    let sum = |leads: &dyn Fn(&Value) -> bool| -> i64 {
        let led = routes.iter().filter(|route| leads(route));
        led.map(|route| route["percent"].as_i64().unwrap_or(0))
            .sum()
    };
    let primary = knative_primary(service);
    Some(vec![(
        sum(&|route| route["revisionName"] == primary),
        sum(&|route| route["latestRevision"] == true),
    )])
}

/// The Revision that was promoted. If its annotation is missing, the routes name it.
pub fn knative_primary(service: &Value) -> &str {
    let marked = service["metadata"]["annotations"]["flagger.app/primary-revision"].as_str();
    let routes = service["spec"]["traffic"].as_array();
    let mut named = routes.into_iter().flatten();
    let routed = || named.find_map(|route| route["revisionName"].as_str());
    marked.or_else(routed).unwrap_or_default()
}

/// The shares of the primary and of the target with this second Ingress.
fn of_ingress(second: &Value) -> (i64, i64) {
    let annotations = &second["metadata"]["annotations"];
    if let Some(weights) = annotations["zalando.org/backend-weights"].as_str() {
        return of_skipper(annotations, weights);
    }
    let annotation = |name: &str| {
        let name = format!("nginx.ingress.kubernetes.io/{name}");
        annotations[name].as_str()
    };
    let number = |name: &str| annotation(name).and_then(|number| number.parse::<i64>().ok());
    let is_canary = annotation("canary") == Some("true");
    let canary = number("canary-weight").filter(|_| is_canary).unwrap_or(0);
    let total = number("canary-weight-total").unwrap_or(100);
    (total - canary, canary)
}

/// The shares by these weights of Skipper. If it ignores the second Ingress, the user's leads all clients to the apex Service.
fn of_skipper(annotations: &Value, weights: &str) -> (i64, i64) {
    let predicates = annotations["zalando.org/skipper-predicate"].as_str();
    if predicates.is_some_and(|predicates| predicates.contains("False()")) {
        return (100, 0);
    }
    let weights: Value = serde_json::from_str(weights).unwrap_or_default();
    let share = |side: &str| {
        let mut all = weights.as_object().into_iter().flatten();
        let (_, share) = all.find(|(service, _)| service.ends_with(side))?;
        share.as_i64()
    };
    (
        share("-primary").unwrap_or(0),
        share("-canary").unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Reads the shares in a cluster that has only this route, of the kind `plural`.
    fn read(spec: Value, plural: &str, route: &Value) -> Option<Vec<(i64, i64)>> {
        let get = |kind, _: &str| (kind == plural).then_some(route);
        let status = json!({"phase": "Progressing"});
        rules(&json!({"spec": spec, "status": status}), "app", get)
    }

    /// Every kind of the operator is in one of the two tables. The invariants would not check a kind that is in none.
    #[test]
    fn every_kind_of_the_operator_is_in_one_of_the_tables() {
        for kind in flagger_rs::snapshot::Kind::ALL {
            assert!(is_known(kind.plural()), "{}", kind.plural());
        }
    }

    /// No copy would be seen of a router that marks copies in another form.
    #[test]
    fn the_copies_of_each_router_that_makes_them_are_seen() {
        for row in ROUTERS.iter().filter(|row| row.mirrors) {
            let spec = match row.provider {
                "istio" => json!({"http": [{"mirror": {"host": "app-canary"}}]}),
                "contour" => {
                    json!({"routes": [{"services": [{"name": "app-canary", "mirror": true}]}]})
                }
                provider if provider.starts_with("gatewayapi") => {
                    json!({"rules": [{"filters": [{"type": "RequestMirror"}]}]})
                }
                provider => panic!("{provider}: how does its route copy requests?"),
            };
            let plural = row.rules.unwrap().kind.plural();
            let route = json!({"spec": spec});
            assert!(
                mirrors("app", |kind, _| (kind == plural).then_some(&route)),
                "{}",
                row.provider
            );
            let none = json!({"spec": {}});
            assert!(
                !mirrors("app", |kind, _| (kind == plural).then_some(&none)),
                "{}",
                row.provider
            );
        }
    }

    #[test]
    fn each_kind_is_read() {
        let none = json!({});
        assert_eq!(read(none.clone(), "none", &none), None);
        let split = json!({"spec": {"backends": [{"service": "app-canary", "weight": "30"}, {"service": "app-primary", "weight": 70}]}});
        assert_eq!(
            read(none.clone(), "trafficsplits", &split),
            Some(vec![(70, 30)])
        );
        let sticky = json!({"spec": {"rules": [{"backendRefs": [{"name": "app-canary"}]},
            {"backendRefs": [{"name": "app-primary", "weight": 90}, {"name": "app-canary", "weight": 10}]}]}});
        assert_eq!(
            read(none, "httproutes", &sticky),
            Some(vec![(0, 100), (90, 10)])
        );
        let nginx = json!({"ingressRef": {"name": "web"}});
        let second = |is_canary: &str| {
            let annotations = json!({"nginx.ingress.kubernetes.io/canary": is_canary, "nginx.ingress.kubernetes.io/canary-weight": "20"});
            json!({"metadata": {"annotations": annotations}})
        };
        for (is_canary, shares) in [("true", (80, 20)), ("false", (100, 0))] {
            let second = second(is_canary);
            assert_eq!(
                read(nginx.clone(), "ingresses", &second),
                Some(vec![shares])
            );
        }
        for (predicate, shares) in [("Weight(100)", (80, 20)), ("False() && a", (100, 0))] {
            let annotations = json!({"zalando.org/skipper-predicate": predicate,
                "zalando.org/backend-weights": "{\"app-canary\":20,\"app-primary\":80}"});
            let second = json!({"metadata": {"annotations": annotations}});
            assert_eq!(
                read(nginx.clone(), "ingresses", &second),
                Some(vec![shares])
            );
        }
        assert_eq!(read(nginx, "none", &Value::Null), None);
    }
}
