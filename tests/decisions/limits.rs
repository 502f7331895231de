//! The limits that keep one canary from taking the memory or the time of others.

use std::collections::BTreeMap;

use flagger_rs::{
    api::{self, canary::CanarySpec, limits},
    metrics::{Asks, Query, Server},
    notifications::{EventKind, webhook},
    rollout::{Answer, Question},
    snapshot::{HttpRequest, HttpResponse, Kind, Origin},
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::simulation::{Simulation, release};

/// The `maxItems` of each list in this schema, but for the lists in fields that the operator only copies.
fn max_items(place: &str, schema: &Value, found: &mut BTreeMap<String, Option<u64>>) {
    const COPIED: [&str; 3] = [
        "service.corsPolicy",
        "service.headers",
        "service.trafficPolicy",
    ];
    if COPIED.contains(&place) {
        return;
    }
    if schema["type"] == "array" {
        found.insert(place.to_owned(), schema["maxItems"].as_u64());
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let place = format!("{place}.{name}");
        max_items(place.trim_start_matches('.'), inner, found);
    }
}

#[test]
fn the_schema_and_the_operator_have_the_same_limits() {
    let crds = api::crds();
    let canary = crds
        .iter()
        .find(|crd| crd["spec"]["names"]["kind"] == "Canary");
    let place = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    let mut in_schema = BTreeMap::new();
    max_items("", canary.unwrap().pointer(place).unwrap(), &mut in_schema);
    let ours = limits::LISTS
        .iter()
        .map(|list| (list.field.to_owned(), Some(list.most as u64)));
    assert_eq!(in_schema, ours.collect());
}

/// A list for this field.
fn entries(field: &str, count: usize) -> Value {
    let entry = |n: usize| match field {
        "analysis.metrics" => json!({"name": "m", "query": "q", "threshold": 1}),
        "analysis.webhooks" => json!({"name": "h", "url": "http://hooks/h"}),
        "analysis.alerts" => json!({"name": "a", "providerRef": {"name": "chat"}}),
        "analysis.match" | "service.match" => json!({"headers": {"x": {"exact": n.to_string()}}}),
        "analysis.stepWeights" | "analysis.decimalStepWeights" => json!(n + 1),
        "service.gatewayRefs" => json!({"name": "gw"}),
        "service.routeRefs" => json!({"kind": "HTTPRoute", "name": format!("route-{n}")}),
        "service.grpc.methods" => json!({"method": format!("M{n}")}),
        "service.mirror" => json!({"backendRef": {"name": "b"}}),
        _ => json!(format!("name-{n}")),
    };
    (0..count).map(entry).collect()
}

/// A release whose Canary has these lists, and the reason why it is not run.
fn with(lists: &[(&str, usize)]) -> (Simulation, Option<String>) {
    let mut sim = release(json!({"stepWeight": 20}));
    let mut spec = serde_json::to_value(&sim.snapshot.canary.spec).unwrap();
    for (field, count) in lists {
        let mut at = &mut spec;
        for key in field.split('.') {
            at = &mut at[key];
        }
        *at = entries(field, *count);
    }
    sim.snapshot.canary.spec = serde_json::from_value::<CanarySpec>(spec).unwrap();
    sim.run(2);
    let mut notified = sim.notified.iter();
    let start = "Warning [Initialized] invalid canary spec: ";
    let why = notified
        .find_map(|line| line.strip_prefix(start))
        .map(str::to_owned);
    (sim, why.filter(|why| why.contains("at most")))
}

#[test]
fn a_list_at_its_limit_is_accepted_and_a_longer_one_is_refused() {
    for list in limits::LISTS {
        let limits::ListLimit { field, most, .. } = *list;
        assert_eq!(with(&[(field, most)]).1, None, "{field}");
        let expected = format!(
            "spec.{field}: {} entries, but at most {most} are supported",
            most + 1
        );
        assert_eq!(with(&[(field, most + 1)]).1, Some(expected));
    }
}

#[test]
fn conditions_whose_combinations_are_too_many_are_refused_without_combining_them() {
    let both = |test, own| with(&[("analysis.match", test), ("service.match", own)]).1;
    assert_eq!(both(25, 40), None);
    let why = |count| {
        format!(
            "spec.analysis.match and spec.service.match: {count} combined conditions, but at most 1000 are supported"
        )
    };
    assert_eq!(both(26, 39), Some(why(1014)));
    assert_eq!(both(1000, 1000), Some(why(1_000_000)));
}

#[test]
fn conditions_whose_combinations_are_too_large_are_refused() {
    let mut sim = release(json!({"stepWeight": 20}));
    let long = |n: usize| json!({"uri": {"exact": format!("/{n}{}", "x".repeat(20_000))}});
    let spec = &mut sim.snapshot.canary.spec;
    spec.service.match_ = Some((0..30).map(long).collect());
    spec.analysis.as_mut().unwrap().match_ = (0..30).map(long).collect();
    sim.run(2);
    let too_large = |line: &String| {
        line.contains("bytes of combined conditions, but at most 1048576 are supported")
    };
    assert!(sim.notified.iter().any(too_large), "{:?}", sim.notified);
}

/// The event about a Canary that is too large goes to as many hooks as a Canary may have.
#[test]
fn an_event_calls_no_more_hooks_than_a_canary_may_have() {
    let (mut sim, _) = with(&[("analysis.webhooks", 1500)]);
    let canary = &mut sim.snapshot.canary;
    for hook in &mut canary.spec.analysis.as_mut().unwrap().webhooks {
        hook.type_ = flagger_rs::api::canary::WebhookType::Event;
    }
    let event = webhook::Event {
        kind: EventKind::Warning,
        message: "m",
        phase: sim.snapshot.phase(),
        checksum: "c",
        unix_millis: 0,
    };
    assert_eq!(
        event.requests(&sim.snapshot.canary, None).len(),
        limits::WEBHOOKS
    );
}

/// The questions whose answers are kept: a value, whether a server is online, and a hook.
fn questions() -> [Question; 3] {
    let metric = |asks| Question::Metric {
        label: "m".to_owned(),
        query: Box::new(Query {
            server: Server::prometheus("http://p", Origin::User).unwrap(),
            asks,
            budget: std::time::Duration::from_secs(9),
        }),
    };
    let value = metric(Asks::Value("q".to_owned()));
    let Question::Metric { query, .. } = &value else {
        unreachable!()
    };
    let request: HttpRequest = query.request(Timestamp::UNIX_EPOCH);
    let hook = Question::Call {
        label: "h".to_owned(),
        request,
    };
    [value, metric(Asks::Online), hook]
}

#[test]
fn of_an_answer_of_a_mebibyte_only_the_value_or_an_excerpt_is_kept() {
    let long = "x".repeat(1 << 20);
    let bodies = [
        long.clone(),
        format!("<html>{long}"),
        // Errors of the parser quote the text.
        format!(r#"{{"data":"{long}"}}"#),
        format!(r#"{{"data":{{"result":[{{"value":[0,"{long}"]}}]}}}}"#),
        format!(
            r#"{{"data":{{"result":[{}{{"value":[0,"1"]}}]}}}}"#,
            "{},".repeat(300_000)
        ),
    ];
    for question in questions() {
        for body in &bodies {
            for status in [200, 403, 500] {
                let body = body.clone();
                let answer = question.read(Ok(HttpResponse { status, body }));
                // An excerpt has 256 bytes; the error about a body that is not JSON has two.
                assert!(format!("{answer:?}").len() < 1024, "{status}");
            }
        }
    }
    let [value, ..] = questions();
    let body = bodies[4].clone();
    let answer = value.read(Ok(HttpResponse { status: 200, body }));
    assert_eq!(answer, Answer::Value(Ok(1.0)));
}

/// The operator would compare ten thousand ports in the pods' template with each other.
#[test]
fn a_target_with_too_many_ports_to_discover_is_refused() {
    for (count, discovers, is_refused) in
        [(100, true, false), (101, true, true), (101, false, false)]
    {
        let mut sim = release(json!({"stepWeight": 20}));
        sim.snapshot.canary.spec.service.port_discovery = discovers;
        let target = sim.snapshot.reference(Kind::Deployment, "podinfo");
        let ports: Vec<_> = (1..=count)
            .map(|port| json!({"containerPort": port}))
            .collect();
        let target = sim.snapshot.objects.get_mut(&target).unwrap();
        target["spec"]["template"]["spec"]["containers"][0]["ports"] = json!(ports);
        sim.run(2);
        let why = format!(
            "spec.service.portDiscovery: the target has {count} container ports, but at most 100 are supported"
        );
        assert_eq!(
            sim.count_notified(&why),
            usize::from(is_refused),
            "{:?}",
            sim.notified
        );
    }
}
