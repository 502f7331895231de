//! The operator keeps all but the two weights in each kind of route. [`ROWS`] has the differences of the kinds; a new kind is a row there.

use super::*;

/// A list of rules of a kind of route.
struct Row {
    kind: Kind,
    /// The list in `spec`, and the list of backends in a rule.
    lists: [&'static str; 2],
    /// The field of a backend that has the name of its Service, as a part of a path.
    name: &'static str,
    /// A rule without backends, of this name.
    rule: fn(&str) -> Value,
    /// A backend of this name.
    backend: fn(&str) -> Value,
    /// The weight of a backend that has none; 1 in Gateway API.
    absent: u64,
}

fn reference(name: &str) -> Value {
    json!({"group": "", "kind": "Service", "name": name, "port": 80})
}

fn destination(host: &str) -> Value {
    json!({"destination": {"host": host, "port": {"number": 80}}, "headers": {"request": {"set": {"a": "b"}}}})
}

fn http(name: &str) -> Value {
    let filter = json!({"type": "URLRewrite", "urlRewrite": {"hostname": "new.example.com"}});
    json!({"name": name, "matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "filters": [filter]})
}

fn grpc(name: &str) -> Value {
    json!({"name": name, "matches": [{"method": {"service": "shop.Cart", "method": "Add"}}]})
}

fn istio(name: &str) -> Value {
    json!({"name": name, "match": [{"uri": {"prefix": "/api"}}], "timeout": "5s", "retries": {"attempts": 3}})
}

const fn gateway_api(kind: Kind, rule: fn(&str) -> Value) -> Row {
    Row {
        kind,
        lists: ["rules", "backendRefs"],
        name: "name",
        rule,
        backend: reference,
        absent: 1,
    }
}

const fn virtual_service(list: &'static str, rule: fn(&str) -> Value) -> Row {
    Row {
        kind: Kind::VirtualService,
        lists: [list, "route"],
        name: "destination/host",
        rule,
        backend: destination,
        absent: 0,
    }
}

const ROWS: [Row; 7] = [
    gateway_api(Kind::HttpRoute, http),
    gateway_api(Kind::GrpcRoute, grpc),
    gateway_api(Kind::TlsRoute, |name| json!({"name": name})),
    gateway_api(Kind::TcpRoute, |name| json!({"name": name})),
    virtual_service("http", istio),
    // Rules of these lists have no names.
    virtual_service(
        "tls",
        |_| json!({"match": [{"port": 443, "sniHosts": ["a.example.com"]}]}),
    ),
    virtual_service("tcp", |_| json!({"match": [{"port": 5432}]})),
];

impl Row {
    fn rule(&self, name: &str, backends: &[(&str, Option<u64>)]) -> Value {
        let mut rule = (self.rule)(name);
        let backends = backends.iter().map(|(name, weight)| {
            let mut backend = (self.backend)(name);
            if let Some(weight) = weight {
                backend["weight"] = json!(weight);
            }
            backend
        });
        rule[self.lists[1]] = backends.collect();
        rule
    }

    /// A rule with a third backend between both versions.
    fn usual(&self, name: &str, [stable, canary]: [u64; 2]) -> Value {
        let backends = [
            ("podinfo", Some(stable)),
            ("legacy", Some(50)),
            ("podinfo-canary", Some(canary)),
        ];
        self.rule(name, &backends)
    }

    /// A snapshot of a Canary that names a route with these rules in this list.
    fn with(&self, names: &[&str], rules: Value) -> Snapshot {
        let kind = self.kind;
        let (object, mut value) = route(kind, "web", json!([]));
        value["spec"] = json!({"hosts": ["a.example.com"], self.lists[0]: rules});
        let refs = json!([{"kind": kind.name(), "name": "web", "rules": names}]);
        with(refs, [(object, value)])
    }

    fn object(&self) -> ObjectRef {
        self.kind.reference("test", "web")
    }

    fn weights(&self, snapshot: &Snapshot, rule: usize) -> Vec<Value> {
        let rule = &snapshot.objects[&self.object()]["spec"][self.lists[0]][rule];
        let backends = rule[self.lists[1]].as_array().unwrap().iter();
        backends.map(|backend| backend["weight"].clone()).collect()
    }

    fn shown(&self) -> String {
        format!("{} {}", self.kind.name(), self.lists[0])
    }
}

#[test]
fn the_rows_are_all_kinds_that_a_canary_may_name() {
    let mut kinds: Vec<_> = ROWS.iter().map(|row| row.kind.name()).collect();
    kinds.dedup();
    assert_eq!(kinds, crate::api::route_refs::KINDS);
}

#[test]
fn only_the_two_weights_of_a_route_of_any_kind_change_and_they_come_back() {
    for row in &ROWS {
        let rules = json!([row.usual("api", [100, 0]), row.usual("site", [1000, 0])]);
        let mut snapshot = row.with(&[], rules);
        let before = snapshot.objects[&row.object()].clone();
        assert_eq!(OwnRoutes.current_weights(&snapshot), Ok(Weights::PRIMARY));
        assert_eq!(repairs(&snapshot, &Weights::PRIMARY), Ok(vec![]));
        for (percent, api, site) in [
            (1, [99, 50, 1], [990, 50, 10]),
            (33, [67, 50, 33], [670, 50, 330]),
            (100, [0, 50, 100], [0, 50, 1000]),
        ] {
            let weights = Weights::canary(percent);
            let writes = OwnRoutes.set_weights(&snapshot, &weights).unwrap();
            apply(&mut snapshot, writes);
            assert_eq!(row.weights(&snapshot, 0), api, "{}", row.shown());
            assert_eq!(row.weights(&snapshot, 1), site, "{}", row.shown());
            assert_eq!(OwnRoutes.current_weights(&snapshot), Ok(weights));
            assert_eq!(repairs(&snapshot, &weights), Ok(vec![]));
            let mut masked = snapshot.objects[&row.object()].clone();
            for (i, sum) in [(0, 100), (1, 1000)] {
                let backends = &mut masked["spec"][row.lists[0]][i][row.lists[1]];
                (backends[0]["weight"], backends[2]["weight"]) = (json!(sum), json!(0));
            }
            assert_eq!(masked, before, "{}", row.shown());
        }
        let writes = withdrawals(&snapshot).unwrap();
        apply(&mut snapshot, writes);
        assert_eq!(snapshot.objects[&row.object()], before, "{}", row.shown());
    }
}

#[test]
fn a_write_to_a_route_of_any_kind_tests_the_names_at_its_places() {
    for row in &ROWS {
        let snapshot = row.with(&[], json!([row.usual("api", [100, 0])]));
        let writes = repairs(&snapshot, &Weights::canary(10)).unwrap();
        let Action::Patch(patch) = &writes[0].action else {
            panic!("{writes:?}")
        };
        let place = format!("/spec/{}/0", row.lists[0]);
        let of =
            |backend: usize, field: &str| format!("{place}/{}/{backend}/{field}", row.lists[1]);
        let test = |path: String, value: &str| json!({"op": "test", "path": path, "value": value});
        let add = |path: String, value: u64| json!({"op": "add", "path": path, "value": value});
        let has_name = (row.rule)("api").get("name").is_some();
        let mut expected: Vec<_> = has_name
            .then(|| test(format!("{place}/name"), "api"))
            .into_iter()
            .collect();
        expected.extend([
            test(of(0, row.name), "podinfo"),
            test(of(2, row.name), "podinfo-canary"),
            add(of(0, "weight"), 90),
            add(of(2, "weight"), 10),
        ]);
        assert_eq!(patch.as_array().unwrap()[2..], expected, "{}", row.shown());
    }
}

#[test]
fn rules_with_names_are_chosen_by_them_and_messages_name_the_place_of_others() {
    for row in &ROWS {
        let rules = json!([row.usual("api", [100, 0]), row.usual("site", [100, 0])]);
        let mut snapshot = row.with(&["site"], rules);
        let writes = repairs(&snapshot, &Weights::canary(10));
        if (row.rule)("api").get("name").is_none() {
            let why = format!("{} web.test has no rule named site", row.kind.name());
            assert_eq!(writes, Err(why));
            let twice = [
                ("podinfo", Some(100)),
                ("podinfo-canary", Some(0)),
                ("podinfo-canary", Some(0)),
            ];
            let snapshot = row.with(&[], json!([row.rule("", &twice)]));
            let why = repairs(&snapshot, &Weights::PRIMARY).unwrap_err();
            let place = format!("podinfo-canary more than once in spec.{}[0]", row.lists[0]);
            assert!(why.ends_with(&place), "{why}");
            continue;
        }
        apply(&mut snapshot, writes.unwrap());
        assert_eq!(row.weights(&snapshot, 0), [100, 50, 0]);
        assert_eq!(row.weights(&snapshot, 1), [90, 50, 10]);
    }
}

/// A gateway sends the promoted version all requests if it is the only backend. With two it takes the default, and so does the operator.
#[test]
fn a_backend_without_a_weight_has_the_default_of_its_kind_and_gets_a_weight_when_it_changes() {
    for row in &ROWS {
        let rule = row.rule("api", &[("podinfo", Some(100)), ("podinfo-canary", None)]);
        let mut snapshot = row.with(&[], json!([rule]));
        let sum = 100 + row.absent;
        let percent = u8::try_from(row.absent).unwrap();
        let weights = OwnRoutes.current_weights(&snapshot);
        assert_eq!(weights, Ok(Weights::canary(percent)), "{}", row.shown());
        // No weight is written where nothing changes.
        let same = repairs(&snapshot, &Weights::canary(percent));
        assert_eq!(same, Ok(vec![]), "{}", row.shown());
        let writes = repairs(&snapshot, &Weights::canary(50)).unwrap();
        apply(&mut snapshot, writes);
        assert_eq!(row.weights(&snapshot, 0), [sum / 2, sum.div_ceil(2)]);
        let writes = withdrawals(&snapshot).unwrap();
        apply(&mut snapshot, writes);
        assert_eq!(row.weights(&snapshot, 0), [sum, 0]);

        let neither = row.rule("api", &[("podinfo", None), ("podinfo-canary", None)]);
        let snapshot = row.with(&[], json!([neither]));
        let refused = repairs(&snapshot, &Weights::PRIMARY).unwrap_err();
        let why = if row.absent == 0 {
            "weights 0 for both versions"
        } else {
            "add up to 2 for both versions"
        };
        assert!(refused.contains(why), "{refused}");
        // A rule for one version has no weight, and needs none.
        let one = row.rule("one", &[("podinfo", None)]);
        let snapshot = row.with(&[], json!([one, row.usual("api", [90, 10])]));
        assert_eq!(repairs(&snapshot, &Weights::canary(10)), Ok(vec![]));
    }
}

/// The rules of all three lists of a VirtualService count, and two Canaries may have rules of the same index in two lists.
#[test]
fn a_virtual_service_has_rules_in_three_lists() {
    let [.., http, tls, tcp] = &ROWS;
    let mut snapshot = http.with(&[], json!([http.usual("api", [100, 0])]));
    let spec = &mut snapshot.objects.get_mut(&http.object()).unwrap()["spec"];
    spec["tls"] = json!([tls.usual("", [100, 0])]);
    spec["tcp"] = json!([tcp.usual("", [100, 0])]);
    let writes = repairs(&snapshot, &Weights::canary(20)).unwrap();
    assert_eq!(writes.len(), 1);
    apply(&mut snapshot, writes);
    for row in [http, tls, tcp] {
        assert_eq!(row.weights(&snapshot, 0), [80, 50, 20]);
    }
    let mut other = snapshot.canary.clone();
    other.spec.service.name = Some("shop".to_owned());
    assert_eq!(shared_with(&snapshot, &other), None);
    let spec = &mut snapshot.objects.get_mut(&http.object()).unwrap()["spec"];
    let backends = [("shop", Some(100)), ("shop-canary", Some(0))];
    spec["tls"] = json!([tls.rule("", &backends)]);
    assert_eq!(shared_with(&snapshot, &other), None);
}

/// Istio completes a host without a dot by the namespace of the VirtualService, and takes any other host as it is.
#[test]
fn the_host_of_a_destination_is_read_as_istio_reads_it() {
    let row = &ROWS[4];
    let lost = |host: &str| {
        format!(
            "names the host {host} in rule api, which Istio does not take for a Service: write it without the namespace, or to the end with .svc.cluster.local"
        )
    };
    let missing = "does not lead to podinfo-canary in rule api: add this backend".to_owned();
    for (of_route, host, expected) in [
        ("test", "podinfo-canary", None),
        ("test", "podinfo-canary.test.svc.cluster.local", None),
        ("infra", "podinfo-canary.test.svc.cluster.local", None),
        (
            "test",
            "podinfo-canary.test",
            Some(lost("podinfo-canary.test")),
        ),
        (
            "infra",
            "podinfo-canary.test.svc",
            Some(lost("podinfo-canary.test.svc")),
        ),
        // This is the Service of the other namespace.
        ("infra", "podinfo-canary", Some(missing.clone())),
        (
            "test",
            "podinfo-canary.infra.svc.cluster.local",
            Some(missing.clone()),
        ),
        ("test", "podinfo-canary.example.com", Some(missing.clone())),
        (
            "test",
            "podinfo-canary.test.svc.clusterset.local",
            Some(missing),
        ),
    ] {
        let stable = "podinfo.test.svc.cluster.local";
        let rule = row.rule("api", &[(stable, Some(70)), (host, Some(30))]);
        let (_, mut object) = route(Kind::VirtualService, "web", json!([]));
        object["metadata"]["namespace"] = json!(of_route);
        object["spec"] = json!({"http": [rule]});
        let name = Kind::VirtualService.reference(of_route, "web");
        let refs = json!([{"kind": "VirtualService", "name": "web", "namespace": of_route, "rules": ["api"]}]);
        let mut snapshot = with(refs, [(name.clone(), object)]);
        let found = repairs(&snapshot, &Weights::canary(10));
        let is_ours = expected.as_ref().is_none_or(|why| why.contains("Istio"));
        match expected {
            None => assert!(found.is_ok(), "{of_route} {host}: {found:?}"),
            Some(why) => {
                let full = format!("VirtualService web.{of_route} {why}");
                assert_eq!(found, Err(full), "{host}");
            }
        }
        // A rollback needs no host that Istio finds.
        let writes = withdrawals(&snapshot).unwrap();
        apply(&mut snapshot, writes);
        let weight = &snapshot.objects[&name]["spec"]["http"][0]["route"][1]["weight"];
        assert_eq!(*weight, if is_ours { 0 } else { 30 }, "{host}");
    }
}

/// Istio may write messages and conditions about a VirtualService. It does so by a flag only, so no step waits for them.
#[test]
fn no_step_waits_for_the_status_of_a_virtual_service() {
    let row = &ROWS[4];
    let mut snapshot = row.with(&[], json!([row.usual("api", [100, 0])]));
    let object = snapshot.objects.get_mut(&row.object()).unwrap();
    object["status"] = json!({"observedGeneration": 1, "validationMessages": [{"level": "ERROR", "type": {"code": "IST0101"}}],
        "conditions": [{"type": "Reconciled", "status": "False"}]});
    assert_eq!(OwnRoutes.accepted(&snapshot), Ok(()));
    assert_eq!(OwnRoutes.lag(&snapshot), None);
}

/// A VirtualService, the Service that gets a Canary, and the lists and indices of the rules that lead to it.
type Sample = (&'static str, &'static str, &'static [(&'static str, usize)]);

/// The VirtualServices of Istio's samples.
const SAMPLES: [Sample; 8] = [
    ("bookinfo", "productpage", &[("http", 0)]),
    ("details", "details", &[("http", 0), ("http", 1)]),
    ("helloworld", "helloworld", &[("http", 0)]),
    ("httpbin", "httpbin", &[("http", 0)]),
    ("ratings", "ratings", &[("http", 0), ("http", 1)]),
    ("reviews", "reviews", &[("http", 0), ("http", 1)]),
    ("tcp-echo", "tcp-echo", &[("tcp", 0)]),
    ("tornado", "tornado", &[("http", 0)]),
];

fn samples() -> Vec<Value> {
    serde_saphyr::from_multiple(include_str!("istio-samples.yaml")).unwrap()
}

#[test]
fn istios_own_samples_work_once_they_have_the_backend_of_the_canary() {
    assert_eq!(samples().len(), SAMPLES.len() + 1);
    for (name, service, rules) in SAMPLES {
        let all = samples();
        let mut found = all.into_iter().filter(|it| it["metadata"]["name"] == name);
        let mut sample = found.next().unwrap();
        sample["metadata"]["uid"] = json!("r");
        sample["metadata"]["generation"] = json!(1);
        let object = Kind::VirtualService.reference("test", name);
        let refs = json!([{"kind": "VirtualService", "name": name}]);
        let mut snapshot = with(refs, [(object.clone(), sample.clone())]);
        snapshot.canary.spec.service.name = Some(service.to_owned());
        let why = repairs(&snapshot, &Weights::PRIMARY).unwrap_err();
        let expected = format!(
            "VirtualService {name}.test has no rule that leads to both {service} and {service}-canary: add the backend {service}-canary with the weight 0"
        );
        assert_eq!(why, expected);

        // The user does so.
        for (list, i) in rules {
            let route = sample["spec"][list][i]["route"].as_array_mut().unwrap();
            let [only] = &mut route[..] else {
                panic!("{name}: {route:?}")
            };
            only["weight"] = json!(100);
            let mut canary =
                json!({"destination": {"host": format!("{service}-canary")}, "weight": 0});
            if let Some(port) = only["destination"].get("port") {
                canary["destination"]["port"] = port.clone();
            }
            route.push(canary);
        }
        snapshot.objects.insert(object.clone(), sample.clone());
        assert_eq!(repairs(&snapshot, &Weights::PRIMARY), Ok(vec![]), "{name}");
        let writes = repairs(&snapshot, &Weights::canary(30)).unwrap();
        apply(&mut snapshot, writes);
        let mut expected = sample.clone();
        for (list, i) in rules {
            let route = &mut expected["spec"][list][i]["route"];
            (route[0]["weight"], route[1]["weight"]) = (json!(70), json!(30));
        }
        assert_eq!(snapshot.objects[&object], expected, "{name}");
        let writes = withdrawals(&snapshot).unwrap();
        apply(&mut snapshot, writes);
        assert_eq!(snapshot.objects[&object], sample, "{name}");
    }
}

/// With subsets both versions have the same host. The operator tells versions apart by their Services.
#[test]
fn a_rule_that_splits_requests_by_subsets_of_one_host_is_refused() {
    let all = samples();
    let mut sample = all
        .into_iter()
        .rfind(|it| it["metadata"]["name"] == "reviews-80-20")
        .unwrap();
    let route = sample["spec"]["http"][0]["route"].as_array_mut().unwrap();
    route.push(json!({"destination": {"host": "reviews-canary"}, "weight": 0}));
    let object = Kind::VirtualService.reference("test", "reviews-80-20");
    let refs = json!([{"kind": "VirtualService", "name": "reviews-80-20"}]);
    let mut snapshot = with(refs, [(object, sample)]);
    snapshot.canary.spec.service.name = Some("reviews".to_owned());
    let why = repairs(&snapshot, &Weights::PRIMARY).unwrap_err();
    let expected = "VirtualService reviews-80-20.test names reviews more than once in spec.http[0]";
    assert_eq!(why, expected);
}
