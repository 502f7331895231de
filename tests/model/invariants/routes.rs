//! The Services that the routes of each kind lead to.

use serde_json::Value;

use super::Key;

/// Where a route has its rules, a rule those it leads to, and each of these its name.
type Path = (&'static str, &'static str, &'static str);

const ROUTES: [(&str, Path); 4] = [
    (
        "virtualservices",
        ("/spec/http", "route", "/destination/host"),
    ),
    ("httproutes", ("/spec/rules", "backendRefs", "/name")),
    ("httpproxies", ("/spec/routes", "services", "/name")),
    ("trafficsplits", ("/spec", "backends", "/service")),
];

/// The shares of the primary and of the target by each rule, if there is a route.
pub fn rules<'a>(
    canary: &Value,
    apex: &str,
    get: impl Fn(&'static str, &str) -> Option<&'a Value>,
) -> Option<Vec<(i64, i64)>> {
    if let Some(ingress) = canary["spec"]["ingressRef"]["name"].as_str() {
        let second = get("ingresses", &format!("{ingress}-canary"));
        // Without it clients are led by the first to the primary; before there is one, to the target.
        let alone = match canary["status"]["phase"].as_str() {
            None | Some("" | "Initializing") => None,
            Some(_) => Some((100, 0)),
        };
        return Some(vec![second.map(of_ingress).or(alone)?]);
    }
    ROUTES.into_iter().find_map(|(plural, path)| {
        let route = get(plural, apex)?;
        let shares = |rule: &&Value| {
            let of = |host: &str| share(rule, path, host).unwrap_or(0);
            // A restored route leads to the apex Service, which selects the target.
            let target = of(&format!("{apex}-canary")) + of(apex);
            (of(&format!("{apex}-primary")), target)
        };
        Some(each(route, path).iter().map(shares).collect())
    })
}

/// The kinds that lead to no Service, as far as these tests follow them. (The second Ingress of NGINX leads to the canary's Service, which
/// goes with it.)
const NOT_ROUTES: [&str; 13] = [
    "alertproviders",
    "canaries",
    "configmaps",
    "daemonsets",
    "deployments",
    "destinationrules",
    "events",
    "horizontalpodautoscalers",
    "ingresses",
    "leases",
    "metrictemplates",
    "scaledobjects",
    "secrets",
];

/// The Services that an object leads to. Panics if it is of a kind that neither table has.
pub fn hosts<'a>(key: &Key, route: &'a Value) -> Vec<&'a str> {
    let known = ROUTES.into_iter().find(|(plural, _)| *plural == key.plural);
    let Some((_, path)) = known else {
        let is_route = key.plural != "services" && !NOT_ROUTES.contains(&key.plural);
        assert!(!is_route, "add {} to ROUTES or to NOT_ROUTES", key.plural);
        return Vec::new();
    };
    let rules = each(route, path).into_iter();
    let to = rules.filter_map(|rule| rule[path.1].as_array()).flatten();
    to.filter_map(|to| to.pointer(path.2)?.as_str()).collect()
}

fn each(route: &Value, (rules, ..): Path) -> Vec<&Value> {
    match route.pointer(rules) {
        Some(Value::Array(rules)) => rules.iter().collect(),
        Some(only) => vec![only],
        None => Vec::new(),
    }
}

fn share(rule: &Value, (_, to, name): Path, host: &str) -> Option<i64> {
    let all = rule[to].as_array()?;
    let to = all
        .iter()
        .find(|to| to.pointer(name).is_some_and(|name| name == host))?;
    // Alone and without a weight, all of it.
    let whole = if all.len() == 1 { 100 } else { 0 };
    let weight = &to["weight"];
    // A quantity may be a text.
    let quantity = || weight.as_str()?.parse().ok();
    Some(weight.as_i64().or_else(quantity).unwrap_or(whole))
}

/// The shares that a second Ingress makes.
fn of_ingress(second: &Value) -> (i64, i64) {
    let annotation = |name: &str| {
        let name = format!("nginx.ingress.kubernetes.io/{name}");
        second["metadata"]["annotations"][name].as_str()
    };
    let weight = annotation("canary-weight").and_then(|weight| weight.parse().ok());
    let is_canary = annotation("canary") == Some("true");
    let canary = weight.filter(|_| is_canary).unwrap_or(0);
    (100 - canary, canary)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The destinations of a Canary's route of this kind, if it has one.
    fn read(spec: Value, plural: &str, route: &Value) -> Option<Vec<(i64, i64)>> {
        let get = |kind, _: &str| (kind == plural).then_some(route);
        let status = json!({"phase": "Progressing"});
        rules(&json!({"spec": spec, "status": status}), "app", get)
    }

    /// A new kind of the operator is a row of one of the two tables, or the invariants would hold of it unseen.
    #[test]
    fn every_kind_of_the_operator_is_in_one_of_the_tables() {
        for kind in flagger_rs::snapshot::Kind::ALL {
            let key = Key::new(kind.plural(), "test", "app");
            hosts(&key, &Value::Null);
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
        assert_eq!(read(nginx, "none", &Value::Null), Some(vec![(100, 0)]));
    }
}
