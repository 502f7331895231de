//! The switch of a Canary between an HTTPRoute and a GRPCRoute (`spec.service.grpc`), in every phase.

use flagger_rs::{
    api::{canary::CanaryPhase, status::ConditionType},
    snapshot::Kind,
};
use serde_json::{Value, json};

use super::simulation::Simulation;

const KINDS: [Kind; 2] = [Kind::HttpRoute, Kind::GrpcRoute];

/// A gateway that accepts one of the two routes, the older one, because they have the same host name.
#[derive(Default)]
struct Gateway {
    /// The kinds of the routes, in the order in which they were created.
    created: Vec<Kind>,
    /// The routes that it knows.
    known: Vec<Kind>,
    /// How many reconciles it needs to see a change, and the number of reconciles.
    pause: usize,
    count: usize,
}

impl Gateway {
    /// Reconciles, and lets the gateway report about the routes. Fails if clients have no route in between, or if both routes lead to the
    /// canary.
    fn reconcile(&mut self, sim: &mut Simulation) {
        sim.reconcile();
        let attached: Vec<_> = KINDS
            .into_iter()
            .filter(|kind| is_attached(sim, *kind))
            .collect();
        for kind in &attached {
            if !self.created.contains(kind) {
                self.created.push(*kind);
            }
        }
        let led = self.known.is_empty() || self.known.iter().any(|kind| attached.contains(kind));
        assert!(led, "clients have no route:\n{}", sim.transcript());
        let to_canary = attached.iter().filter(|kind| weight(sim, **kind) > 0);
        assert!(
            to_canary.count() < 2,
            "both lead to the canary:\n{}",
            sim.transcript()
        );
        self.count += 1;
        if self.count.is_multiple_of(self.pause + 1) {
            self.report(sim, attached);
        }
    }

    fn report(&mut self, sim: &mut Simulation, attached: Vec<Kind>) {
        let accepted = self.created.iter().find(|kind| attached.contains(kind));
        for kind in KINDS {
            let name = sim.snapshot.reference(kind, "podinfo");
            let Some(route) = sim.snapshot.objects.get_mut(&name) else {
                continue;
            };
            let status = if accepted == Some(&kind) {
                "True"
            } else {
                "False"
            };
            let condition = json!({"type": "Accepted", "status": status, "reason": "HostnameConflict",
                "observedGeneration": route["metadata"]["generation"]});
            let report = json!([{"parentRef": {"name": "gw"}, "conditions": [condition]}]);
            let parents = if attached.contains(&kind) {
                report
            } else {
                json!([])
            };
            route["status"] = json!({"parents": parents});
        }
        self.known = attached;
    }

    fn run_until(
        &mut self,
        sim: &mut Simulation,
        what: &str,
        is_reached: impl Fn(&Simulation) -> bool,
    ) {
        for _ in 0..1000 {
            if is_reached(sim) {
                return;
            }
            self.reconcile(sim);
        }
        panic!("never {what}:\n{}", sim.transcript());
    }

    /// Reconciles until the canary is in this phase and nothing is pending.
    fn run_until_idle(&mut self, sim: &mut Simulation, phase: CanaryPhase) {
        self.run_until(sim, phase.as_str(), |sim| {
            let mut conditions = sim.snapshot.status().conditions.iter().flatten();
            let lasts = ["Promoted", "Verdict", "GrpcRoute"];
            sim.snapshot.phase() == phase && conditions.all(|it| lasts.contains(&it.type_.as_str()))
        });
    }
}

fn route(sim: &Simulation, kind: Kind) -> Option<&Value> {
    sim.snapshot.object(kind, "podinfo")
}

fn is_attached(sim: &Simulation, kind: Kind) -> bool {
    let parents = route(sim, kind).and_then(|route| route["spec"]["parentRefs"].as_array());
    parents.is_some_and(|parents| !parents.is_empty())
}

/// The weight of the canary in a route; 0 if the route leads elsewhere.
fn weight(sim: &Simulation, kind: Kind) -> u64 {
    let rules = route(sim, kind).and_then(|route| route["spec"]["rules"].as_array());
    let backends = rules
        .into_iter()
        .flatten()
        .filter_map(|rule| rule["backendRefs"].as_array());
    let to_canary = backends
        .flatten()
        .filter(|backend| backend["name"] == "podinfo-canary");
    to_canary
        .filter_map(|backend| backend["weight"].as_u64())
        .max()
        .unwrap_or(0)
}

fn service(kind: Kind) -> Value {
    let mut service = json!({"port": 9898, "gatewayRefs": [{"name": "gw"}]});
    if kind == Kind::GrpcRoute {
        service["grpc"] = json!({});
    }
    service
}

/// A new Canary with a route of this kind, and with gates.
fn canary(kind: Kind) -> Simulation {
    let gate = |name: &str| json!({"name": name, "type": format!("confirm-{name}"), "url": format!("http://hooks/{name}")});
    let gates = ["rollout", "promotion"].map(gate);
    let analysis = json!({"stepWeight": 20, "maxWeight": 60, "webhooks": gates});
    Simulation::new(
        json!({"provider": "gatewayapi:v1", "service": service(kind), "analysis": analysis}),
    )
}

/// A moment at which the user switches the kind: its name, whether a new version comes before it, the gates that are closed meanwhile,
/// whether the version fails, and whether the moment has come.
type Moment = (
    &'static str,
    bool,
    &'static [&'static str],
    bool,
    fn(&Simulation) -> bool,
);

const MOMENTS: [Moment; 10] = [
    ("new", false, &[], false, |_| true),
    ("initializing", false, &[], false, |sim| {
        KINDS.iter().any(|kind| route(sim, *kind).is_some())
    }),
    ("initialized", false, &[], false, |sim| {
        is_in(sim, CanaryPhase::Initialized)
    }),
    ("waiting", true, &["rollout"], false, |sim| {
        is_in(sim, CanaryPhase::Waiting)
    }),
    ("progressing", true, &[], false, |sim| {
        is_in(sim, CanaryPhase::Progressing) && sim.snapshot.status().canary_weight == 40
    }),
    ("approval", true, &["promotion"], false, |sim| {
        is_in(sim, CanaryPhase::WaitingPromotion)
    }),
    ("promoting", true, &[], false, |sim| {
        is_in(sim, CanaryPhase::Promoting)
    }),
    ("finalising", true, &[], false, |sim| {
        is_in(sim, CanaryPhase::Finalising)
    }),
    ("rollback", true, &[], true, |sim| {
        sim.snapshot
            .status()
            .has_condition(ConditionType::RollingBack)
    }),
    ("failed", true, &[], true, |sim| {
        is_in(sim, CanaryPhase::Failed)
    }),
];

fn is_in(sim: &Simulation, phase: CanaryPhase) -> bool {
    sim.snapshot.phase() == phase
}

/// Plays until a moment has come.
fn at(
    (name, has_version, closed, fails, has_come): Moment,
    sim: &mut Simulation,
    gateway: &mut Gateway,
) {
    if has_version {
        gateway.run_until_idle(sim, CanaryPhase::Initialized);
        sim.image("podinfo:2");
    }
    sim.closed = closed.iter().copied().collect();
    if fails {
        gateway.run_until(sim, name, |sim| sim.snapshot.status().canary_weight == 40);
        sim.metric = "42".to_owned();
    }
    gateway.run_until(sim, name, has_come);
}

/// A switch while the other route leads to the canary would leave it leading there.
#[test]
fn a_switch_in_any_phase_leaves_one_route_and_clients_always_have_one() {
    for [from, to] in [KINDS, [Kind::GrpcRoute, Kind::HttpRoute]] {
        for (moment, pause) in MOMENTS.into_iter().flat_map(|it| [(it, 0), (it, 4)]) {
            let (mut sim, mut gateway) = (canary(from), Gateway::default());
            gateway.pause = pause;
            at(moment, &mut sim, &mut gateway);
            let moment = moment.0;
            sim.edit("service", &service(to));
            sim.closed.clear();
            sim.metric = "100".to_owned();
            let is_alone = |sim: &Simulation| {
                is_attached(sim, to) && !is_attached(sim, from) && weight(sim, from) == 0
            };
            gateway.run_until(&mut sim, moment, is_alone);
            gateway.run_until(&mut sim, moment, |sim| {
                !is_in(sim, CanaryPhase::New) && !is_in(sim, CanaryPhase::Initializing)
            });
            sim.image("podinfo:3");
            gateway.run_until_idle(&mut sim, CanaryPhase::Succeeded);
            assert!(is_alone(&sim), "{moment}:\n{}", sim.transcript());
            let status = sim.snapshot.status();
            let is_recorded = status.has_condition(ConditionType::GrpcRoute);
            assert_eq!(is_recorded, to == Kind::GrpcRoute, "{moment}");
            assert_eq!(sim.canary_weight(), 0, "{moment}");
        }
    }
}

/// The gateway accepts the user's route until the user deletes it.
#[test]
fn a_users_http_route_is_given_back_as_it_was_when_the_canary_gets_a_grpc_route() {
    let mut sim = canary(Kind::HttpRoute);
    sim.snapshot.canary.spec.revert_on_deletion = true;
    let rule = json!({"backendRefs": [{"name": "podinfo", "port": 9898}]});
    let metadata = json!({"name": "podinfo", "namespace": "test", "labels": {"team": "a"}, "annotations": {"b": "c"}});
    let spec =
        json!({"parentRefs": [{"name": "gw"}], "rules": [rule], "useDefaultGateways": "None"});
    let users = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": metadata, "spec": spec});
    let name = sim.snapshot.reference(Kind::HttpRoute, "podinfo");
    sim.store(name.clone(), users);
    let users = sim.snapshot.objects[&name].clone();
    let mut gateway = Gateway::default();
    at(MOMENTS[4], &mut sim, &mut gateway);
    assert_eq!(weight(&sim, Kind::HttpRoute), 40);
    assert_ne!(sim.snapshot.objects[&name]["metadata"], users["metadata"]);
    sim.edit("service", &service(Kind::GrpcRoute));
    let is_given_back = |sim: &Simulation| {
        let mut live = sim.snapshot.objects[&name].clone();
        live.as_object_mut().unwrap().remove("status");
        live == users
    };
    gateway.run_until(&mut sim, "given back", is_given_back);
    for _ in 0..20 {
        gateway.reconcile(&mut sim);
        assert!(is_given_back(&sim), "{}", sim.transcript());
        assert_eq!(weight(&sim, Kind::GrpcRoute), 0);
    }
    let why = "GRPCRoute podinfo.test parent gw is not ready (status: False";
    assert!(sim.transcript().contains(why), "{}", sim.transcript());
    sim.snapshot.objects.remove(&name);
    gateway.run_until_idle(&mut sim, CanaryPhase::Succeeded);
    assert!(route(&sim, Kind::HttpRoute).is_none());
}
