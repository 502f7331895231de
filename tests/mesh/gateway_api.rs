//! Releases with routes of the user (`routeRefs`) on two implementations of Gateway API. A client sends 200 requests a second through an
//! HTTPRoute, and ghz makes 100 calls a second through a GRPCRoute, from before the Canary exists until after its deletion. None is lost. The
//! operator changes two weights in each route and nothing else, and at the end the routes are as their user wrote them. On Istio, a third route
//! belongs to a Service, and a pod with a sidecar calls it. At the end, `grpc_switch.rs` changes the kind of a route.

use std::time::Duration;

use flagger_rs::{metrics::counting, records};
use jiff::SignedDuration;
use serde_json::{Value, json};
use testbed::{Cell, binaries, cell::forward::PortForward, wait::until};

use crate::{
    grpc, grpc_switch, overlay,
    rig::{Observation, Rig, THREE_ONE_ZERO, cell, read},
};

/// An implementation of Gateway API. Its Gateway has the name `public`.
#[derive(Clone, Copy, Debug)]
enum Implementation {
    Istio,
    EnvoyGateway,
}

/// The routes of the user. Only Istio serves the last one, which belongs to a Service.
const ROUTES: [[&str; 2]; 3] = [
    ["httproute", "shop"],
    ["grpcroute", "shop-grpc"],
    ["httproute", "podinfo-mesh"],
];
/// The steps of a release, in percent, and the weights of both versions in the HTTPRoute.
const STEPS: [(i64, [i64; 2]); 2] = [(30, [140, 60]), (50, [100, 100])];
/// The percentage points by which a share may differ from its weight: those of the upstream conformance tests of Gateway API,
/// `HTTPRouteWeight` and `GRPCRouteWeight`.
const TOLERANCE: f64 = 5.0;
/// The requests, and the calls, of which a share is taken. The upstream tests take 500, up to ten times. Of as many as these, chance exceeds the
/// tolerance once in ten thousand times.
const SAMPLE: u16 = 1_600;
/// The age of the operator's counts at the end of a step: it reads them late, as Prometheus had them at its last scrape, one in 5 s.
const COUNTED: SignedDuration =
    SignedDuration::from_millis(counting::LAG.as_secs() * 1_000 + 2_500);

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_on_routes_of_a_user_with_istio() {
    story(Implementation::Istio).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_on_routes_of_a_user_with_envoy_gateway() {
    story(Implementation::EnvoyGateway).await;
}

async fn story(on: Implementation) {
    let rig = start(on).await;
    let address = on.address(&rig).await;
    let mut story = Story {
        on,
        rig,
        before: Vec::new(),
    };
    story.before = story.routes().await;
    let calls = grpc::no_call_fails(&story.rig, &address, "grpc.example.com");
    let canary = async {
        story.adoption().await;
        story.bad_version().await;
        story.release().await;
        story.deletion().await;
        grpc::interrupt(&story.rig).await;
    };
    tokio::join!(calls, canary);
    grpc_switch::no_call_is_lost(&story.rig, &address, on.namespace()).await;
    story.rig.end();
}

/// Starts a cell with the implementation, the operator's overlay and the application. The client is running already.
async fn start(on: Implementation) -> Rig {
    let cell = cell().await;
    let find = || binaries::find_or_build(&[binaries::CRDS]);
    let crds = tokio::task::spawn_blocking(find).await.unwrap().unwrap();
    let crds = crds.path("gateway-api-crds.yaml").unwrap();
    let crds = std::fs::read_to_string(crds).unwrap();
    cell.kubectl().apply(&crds).await.unwrap();
    let port = on.install(&cell).await;
    overlay::operator(&cell, "tests/mesh/gatewayapi", "flagger-system").await;
    let before = BEFORE.replace("GATEWAY", on.namespace());
    cell.kubectl().apply(&before).await.unwrap();
    overlay::application(&cell).await;
    if matches!(on, Implementation::Istio) {
        cell.kubectl().apply(CLIENT).await.unwrap();
        let route = read("examples/ambient/route.yaml");
        cell.kubectl().apply(&route).await.unwrap();
        let ready = ["-n", "mesh", "wait", "--for=condition=Ready", "pod/client"];
        cell.kubectl().run(&ready).await.unwrap();
    }
    Rig::with_client(cell, port).await
}

impl Implementation {
    /// The routes that it serves.
    fn routes(self) -> &'static [[&'static str; 2]] {
        match self {
            Self::Istio => &ROUTES,
            Self::EnvoyGateway => &ROUTES[..2],
        }
    }

    /// The namespace of its Gateway.
    const fn namespace(self) -> &'static str {
        match self {
            Self::Istio => "istio-system",
            Self::EnvoyGateway => "envoy-gateway-system",
        }
    }

    /// The Service that leads to the proxy of its Gateway.
    const fn service(self) -> &'static str {
        match self {
            Self::Istio => "istio-ingressgateway",
            Self::EnvoyGateway => "public",
        }
    }

    /// The address of this Service, in the cell.
    async fn address(self, rig: &Rig) -> String {
        let (namespace, service) = (self.namespace(), self.service());
        let ip = "jsonpath={.spec.clusterIP}";
        let get = ["-n", namespace, "get", "service", service, "-o", ip];
        format!("{}:80", rig.kubectl(&get).await.trim())
    }

    /// Installs it. Returns a port that leads to its Gateway, unless the Gateway has that of Istio.
    async fn install(self, cell: &Cell) -> Option<PortForward> {
        match self {
            Self::Istio => {
                cell.kubectl().apply(ISTIO_GATEWAY).await.unwrap();
                None
            }
            Self::EnvoyGateway => {
                let istio = [
                    "-n",
                    "istio-system",
                    "scale",
                    "deployment",
                    "--all",
                    "--replicas=0",
                ];
                cell.kubectl().run(&istio).await.unwrap();
                Some(cell.envoy_gateway().await.unwrap())
            }
        }
    }
}

struct Story {
    on: Implementation,
    rig: Rig,
    /// The routes before the Canary exists.
    before: Vec<Value>,
}

impl Story {
    /// Creates a Canary that names the routes.
    async fn adoption(&self) {
        let (rig, observed) = (&self.rig, self.observe("adoption"));
        self.canary("10s").await;
        rig.reach("Initialized").await;
        rig.until_idle().await;
        assert_eq!(
            rig.replicas("podinfo").await,
            0,
            "the target is scaled to zero"
        );
        let tally = observed.no_request_lost().await;
        assert_eq!(tally.share(THREE_ONE_ZERO), 100.0);
        assert_eq!(self.routes().await, self.before);
        self.service_has_accepted_its_route().await;
    }

    /// Checks that the mesh reports about the route of the Service, so that steps wait for this report.
    async fn service_has_accepted_its_route(&self) {
        if self.on.routes().len() < ROUTES.len() {
            return;
        }
        let status = "jsonpath={.status.parents}";
        let get = [
            "-n",
            "test",
            "get",
            "httproute",
            "podinfo-mesh",
            "-o",
            status,
        ];
        let parents: Value = serde_json::from_str(&self.rig.kubectl(&get).await).unwrap();
        assert_eq!(parents[0]["parentRef"]["kind"], "Service", "{parents}");
        let conditions = parents[0]["conditions"].as_array().unwrap();
        for type_ in ["Accepted", "ResolvedRefs"] {
            let condition = conditions.iter().find(|it| it["type"] == type_).unwrap();
            assert_eq!(condition["status"], "True", "{parents}");
        }
    }

    /// Releases a version that fails three of ten requests. It is rolled back, and no other version fails a request.
    async fn bad_version(&self) {
        let (rig, observed) = (&self.rig, self.observe("rollback"));
        rig.image("3.1.2").await;
        self.step(STEPS[0]).await;
        rig.reach("Failed").await;
        assert_eq!(self.routes().await, self.before);
        rig.until_idle().await;
        let tally = observed.no_request_lost().await;
        assert!(tally.failed["3.1.2"] > 0);
        assert_eq!(tally.failed.len(), 1, "{tally}");
        observed.event("advancement success rate").await;
    }

    /// Releases a good version. At each step, the clients see the share of the canary in the routes, and so does the operator.
    async fn release(&self) {
        // A step is long enough for the sample, and for counters, which show requests late.
        self.canary("30s").await;
        let (rig, observed) = (&self.rig, self.observe("release"));
        rig.image("3.1.1").await;
        for step in STEPS {
            self.step(step).await;
            self.shares(step.0).await;
        }
        rig.reach("Succeeded").await;
        assert_eq!(self.routes().await, self.before);
        observed.no_request_lost().await;
        self.measured().await;
        let after = self.observe("after the release").one_second().await;
        assert_eq!(after.share("3.1.1"), 100.0, "{after}");
    }

    /// Deletes the Canary right after the release, while the target's pods still exist.
    async fn deletion(&self) {
        let (rig, observed) = (&self.rig, self.observe("deletion"));
        rig.delete_canary().await;
        assert_eq!(self.routes().await, self.before);
        observed.no_request_lost().await;
        let after = self.observe("after the deletion").one_second().await;
        assert_eq!(after.share("3.1.1"), 100.0, "{after}");
    }

    /// Checks the weights of a step.
    async fn step(&self, (percent, split): (i64, [i64; 2])) {
        self.rig.weight(percent).await;
        let mut now = self.routes().await;
        assert_eq!(without_weights(&now), without_weights(&self.before));
        assert_eq!(
            weights(&mut now[0]).map(|weight| weight.as_i64()),
            split.map(Some)
        );
    }

    /// The scenario of `HTTPRouteWeight` and `GRPCRouteWeight`, for routes as the operator wrote them: the shares of requests and calls that
    /// reach the canary are those of the weights.
    async fn shares(&self, percent: i64) {
        let step = self.observe(&format!("{percent}%"));
        let (mesh, calls) = tokio::join!(self.share_of_mesh(), share_of_calls(&self.rig));
        let tally = step.no_request_lost().await;
        assert!(tally.calls >= SAMPLE.into(), "{tally}");
        let requests = 100.0 - tally.share(THREE_ONE_ZERO);
        eprintln!(
            "  {percent}%: {requests:.1}% of requests, {calls:.1}% of calls, in the mesh {mesh:.1?}"
        );
        for share in [requests, calls].into_iter().chain(mesh) {
            let difference = (share - percent as f64).abs();
            assert!(difference < TOLERANCE, "{percent}%: {share}%");
        }
    }

    /// The percentage of the requests of a pod with a sidecar that reach the canary, if the mesh serves the route of the Service.
    async fn share_of_mesh(&self) -> Option<f64> {
        if self.on.routes().len() < ROUTES.len() {
            return None;
        }
        let url = "http://podinfo.test.svc.cluster.local:9898/";
        let cell = &self.rig.cell;
        let answers = cell.call_from("mesh", "client", url, SAMPLE.into()).await;
        let canary = answers.unwrap().get("3.1.1").copied().unwrap_or(0);
        Some(100.0 * canary as f64 / f64::from(SAMPLE))
    }

    /// Checks that the operator measured the share of the canary that the client saw in the same time: between the ends of both steps, which the
    /// record has.
    async fn measured(&self) {
        let record = self.rig.last_record().await;
        let evidence = records::unpack(record["evidence"].as_str().unwrap()).unwrap();
        let mut compared = evidence.measurements.iter().filter_map(|measurement| {
            let mut values = measurement.values.iter();
            let comparison = values.find_map(|value| value.comparison.as_ref())?;
            Some((measurement.at.as_ref()?.0 - COUNTED, comparison))
        });
        let (from, first) = compared.next().unwrap();
        let (to, last) = compared.next_back().unwrap();
        let canary = last.requests - first.requests;
        let all = canary + last.primary_requests - first.primary_requests;
        let (measured, seen) = (100.0 * canary / all, self.rig.between(from, to));
        eprintln!("  measured by the operator: {measured:.1}% of {all} requests; seen: {seen}");
        assert!(all >= SAMPLE.into(), "{first:?}, {last:?}");
        let difference = (measured - seen.share("3.1.1")).abs();
        assert!(difference < TOLERANCE, "{measured}%: {seen}");
    }

    fn observe(&self, name: &str) -> Observation<'_> {
        self.rig.observe(&format!("{:?}: {name}", self.on))
    }

    /// Applies the example's Canary with short steps, for the existing Service and the routes of the user.
    async fn canary(&self, interval: &str) {
        let example = read("examples/canaries/gateway-api.yaml");
        let mut canary: Value = serde_saphyr::from_str(&example).unwrap();
        let spec = &mut canary["spec"];
        spec["revertOnDeletion"] = json!(true);
        spec["autoscalerRef"] = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "podinfo"});
        let mut refs = vec![
            json!({"kind": "HTTPRoute", "name": "shop", "rules": ["web"]}),
            json!({"kind": "GRPCRoute", "name": "shop-grpc"}),
        ];
        if self.on.routes().len() > refs.len() {
            refs.push(json!({"kind": "HTTPRoute", "name": "podinfo-mesh"}));
        }
        spec["service"] =
            json!({"port": 9898, "portName": "http", "portDiscovery": true, "routeRefs": refs});
        let mut metrics = spec["analysis"]["metrics"].clone();
        // Neither the speed of this machine nor the metrics of an earlier version may fail a check.
        metrics[1]["thresholdRange"]["max"] = json!(30_000);
        for metric in metrics.as_array_mut().unwrap() {
            metric["interval"] = json!("20s");
        }
        // Thresholds decide, and the counts of both versions are recorded.
        metrics[0]["compare"] = json!({});
        metrics[0]["mode"] = json!("observe");
        let steps = STEPS.map(|(percent, _)| percent);
        spec["analysis"] =
            json!({"interval": interval, "threshold": 2, "stepWeights": steps, "metrics": metrics});
        self.rig
            .cell
            .kubectl()
            .apply(&canary.to_string())
            .await
            .unwrap();
    }

    /// The routes, without their status and without the metadata that the API server counts.
    async fn routes(&self) -> Vec<Value> {
        let mut routes = Vec::new();
        for [kind, name] in self.on.routes() {
            let text = self
                .rig
                .kubectl(&["-n", "test", "get", kind, name, "-o", "json"])
                .await;
            let mut route: Value = serde_json::from_str(&text).unwrap();
            route["status"].take();
            for field in ["managedFields", "resourceVersion", "generation"] {
                route["metadata"][field].take();
            }
            routes.push(route);
        }
        routes
    }
}

/// The weights of both versions, which are in one rule of each route.
fn weights(route: &mut Value) -> [&mut Value; 2] {
    let rules = route["spec"]["rules"].as_array_mut().unwrap();
    let rule = rules.iter_mut().find(|rule| rule["name"] == "web");
    let backends = rule.unwrap()["backendRefs"].as_array_mut().unwrap();
    let [stable, canary] = backends.first_chunk_mut().unwrap();
    [&mut stable["weight"], &mut canary["weight"]]
}

fn without_weights(routes: &[Value]) -> Vec<Value> {
    let mut routes = routes.to_vec();
    for route in &mut routes {
        for weight in weights(route) {
            weight.take();
        }
    }
    routes
}

/// The percentage of gRPC calls that reach the canary.
async fn share_of_calls(rig: &Rig) -> f64 {
    let answered = async || {
        [
            grpc::answered(rig, "app=podinfo").await,
            grpc::answered(rig, "app=podinfo-primary").await,
        ]
    };
    let before = answered().await;
    until(Duration::from_secs(60), "calls", async || {
        let now = answered().await;
        let [canary, primary] = [0, 1].map(|version| now[version] - before[version]);
        if canary + primary < SAMPLE.into() {
            return Err(format!("{before:?}, {now:?}"));
        }
        Ok(100.0 * canary as f64 / (canary + primary) as f64)
    })
    .await
    .unwrap()
}

const ISTIO_GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: public, namespace: istio-system}
spec:
  gatewayClassName: istio
  addresses: [{type: Hostname, value: istio-ingressgateway.istio-system.svc.cluster.local}]
  listeners: [{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]
";

/// The application's namespace and Service, and the routes to it before it has a Canary.
const BEFORE: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: test}
---
apiVersion: v1
kind: Service
metadata: {name: podinfo, namespace: test}
spec:
  selector: {app: podinfo}
  ports: [{name: http, port: 9898, targetPort: 9898}, {name: grpc, port: 9999, targetPort: 9999}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: test, labels: {team: shop}, annotations: {example.com/owner: someone}}
spec:
  parentRefs: [{name: public, namespace: GATEWAY}]
  hostnames: [app.example.com]
  rules:
  - name: old
    matches: [{path: {type: PathPrefix, value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {hostname: new.example.com, statusCode: 301}}]
  - name: web
    matches: [{path: {type: PathPrefix, value: /}}]
    filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: x-shop, value: open}]}}]
    timeouts: {request: 60s}
    backendRefs:
    - {name: podinfo, port: 9898, weight: 200}
    - {name: podinfo-canary, port: 9898, weight: 0}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: shop-grpc, namespace: test}
spec:
  parentRefs: [{name: public, namespace: GATEWAY}]
  hostnames: [grpc.example.com]
  rules:
  - name: web
    matches: [{method: {service: grpc.health.v1.Health}}]
    backendRefs:
    - {name: podinfo, port: 9999, weight: 100}
    - {name: podinfo-canary, port: 9999, weight: 0}
";

/// A client with a sidecar. Its requests to the Service pass the route of the Service in this sidecar.
const CLIENT: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: mesh, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: mesh}
spec:
  containers: [{name: podinfo, image: stefanprodan/podinfo, command: [./podinfo]}]
";
