use super::*;

fn labels(of: &[(&str, &str)]) -> Labels {
    of.iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// The rule with this term, after it was given to the primary of a Deployment `shop-api`, whose pods are those of `api`.
fn renamed(term: &Value) -> Value {
    let on_primary = labels(&[("name", "api-primary")]);
    let pods = labels(&[("name", "api"), ("instance", "shop")]);
    let mut preferred = json!({"podAffinityTerm": term, "weight": 1});
    preferred["podAffinityTerm"] = term.clone();
    let lists = json!({"requiredDuringSchedulingIgnoredDuringExecution": [term],
        "preferredDuringSchedulingIgnoredDuringExecution": [preferred]});
    let affinity = json!({"podAntiAffinity": lists, "podAffinity": lists});
    let mut template = json!({"spec": {"affinity": affinity, "topologySpreadConstraints": [term]}});
    let renamed = Renamed {
        target: "shop-api",
        namespace: "shop",
        pods: &pods,
        on_primary: &on_primary,
    };
    keep_apart(&mut template, &renamed);
    let spec = &template["spec"];
    assert_eq!(spec["affinity"]["podAffinity"], lists, "it stays");
    let anti = &spec["affinity"]["podAntiAffinity"];
    let required = &anti["requiredDuringSchedulingIgnoredDuringExecution"][0];
    let preferred = &anti["preferredDuringSchedulingIgnoredDuringExecution"][0]["podAffinityTerm"];
    assert_eq!(required, preferred);
    assert_eq!(*required, spec["topologySpreadConstraints"][0]);
    required.clone()
}

fn term(selector: Value) -> Value {
    json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": selector})
}

fn one_of(values: Value) -> Value {
    json!({"matchExpressions": [{"key": "name", "operator": "In", "values": values}]})
}

/// fluxcd/flagger#923: Helm charts label pods with the name of the chart.
#[test]
fn a_rule_about_the_targets_own_pods_is_one_about_the_primarys_whatever_the_deployment_is_called() {
    let both = |name: &str| json!({"matchLabels": {"name": name, "instance": "shop"}});
    for (before, after) in [
        (both("api"), both("api-primary")),
        (
            json!({"matchLabels": {"name": "api"}}),
            json!({"matchLabels": {"name": "api-primary"}}),
        ),
        (
            one_of(json!(["web", "api"])),
            one_of(json!(["web", "api-primary"])),
        ),
    ] {
        assert_eq!(renamed(&term(before)), term(after));
    }
}

#[test]
fn a_rule_about_other_pods_stays() {
    for selector in [
        json!({"matchLabels": {"name": "web"}}),
        json!({"matchLabels": {"name": "api", "instance": "of another release"}}),
        json!({"matchLabels": {"instance": "shop"}}),
        one_of(json!(["web"])),
        json!({"matchExpressions": [{"key": "name", "operator": "NotIn", "values": ["api"]}]}),
        Value::Null,
    ] {
        let term = term(selector);
        assert_eq!(renamed(&term), term);
    }
}

#[test]
fn a_rule_about_pods_of_another_namespace_stays() {
    let own = json!({"matchLabels": {"name": "api"}});
    for (field, value, is_renamed) in [
        ("namespaces", json!([]), true),
        ("namespaces", json!(["shop", "other"]), true),
        ("namespaces", json!(["other"]), false),
        ("namespaceSelector", json!({}), true),
        (
            "namespaceSelector",
            json!({"matchLabels": {"a": "b"}}),
            false,
        ),
    ] {
        let mut term = term(own.clone());
        term[field] = value.clone();
        assert_eq!(renamed(&term) != term, is_renamed, "{field} {value}");
    }
}
