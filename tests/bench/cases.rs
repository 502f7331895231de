//! The pure work of the operator, piece by piece: `decide` measures the time of each piece, and `instructions` counts its instructions.

#[path = "../decisions/simulation/mod.rs"]
mod simulation;

use std::{hint::black_box, sync::Arc};

use flagger_rs::{
    api::{
        canary::{Canary, CanaryMetric, CanaryPhase},
        limits,
    },
    metrics::{
        Asks,
        template::{Model, render},
    },
    notifications::Notification,
    rollout::{Decision, Evidence, Question, decide},
    shell::api_server::RawObject,
    snapshot::{HttpResponse, TargetKind, revision::revision},
};
use serde_json::{Map, Value, json};
use simulation::{Simulation, Traffic, release, release_of};

/// A piece of work that can be repeated.
pub type Work = Box<dyn Fn()>;

/// A piece of work: its name, how often a measurement of time repeats it, and how it is prepared.
pub struct Case {
    pub name: &'static str,
    pub times: u32,
    pub prepare: fn() -> Work,
}

const OFTEN: u32 = 20_000;
const RARELY: u32 = 20;

/// All pieces.
pub const CASES: [Case; 11] = [
    case("decide: idle", OFTEN, || decision(idle(), Evidence::new())),
    case("decide: a step under way", OFTEN, || {
        decision(midway(), Evidence::new())
    }),
    case("decide: a step that writes", OFTEN, || {
        let (sim, evidence) = stepping();
        decision(sim, evidence)
    }),
    case("decide: promoting", OFTEN, || {
        decision(promoting(), Evidence::new())
    }),
    case("decide: 100 metrics", RARELY, || {
        let (sim, evidence) =
            metrics("sum(rate(requests{ns=\"{{ namespace }}\"}[{{ interval }}]))");
        decision(sim, evidence)
    }),
    case(
        "decide: 100 metrics whose templates ask for the most work",
        RARELY,
        || {
            let (sim, evidence) = metrics(&hostile_template());
            decision(sim, evidence)
        },
    ),
    case("decide: 1,000 combined conditions", RARELY, || {
        decision(conditions(), Evidence::new())
    }),
    case(
        "decide: a step that compares errors and durations",
        RARELY,
        || {
            let (sim, evidence) = compared();
            decision(sim, evidence)
        },
    ),
    case("read the Deployment of a watch event", OFTEN, || {
        let text = watched().to_string();
        Box::new(move || {
            let object: RawObject = serde_json::from_str(black_box(&text)).unwrap();
            black_box(object.text());
        })
    }),
    case("read a Canary", OFTEN, || {
        let canary = serde_json::to_value(&midway().snapshot.canary).unwrap();
        Box::new(move || {
            black_box(serde_json::from_value::<Canary>(black_box(&canary).clone()).unwrap());
        })
    }),
    case("render the template of a query", OFTEN, rendered),
];

const fn case(name: &'static str, times: u32, prepare: fn() -> Work) -> Case {
    Case {
        name,
        times,
        prepare,
    }
}

fn decision(sim: Simulation, evidence: Evidence) -> Work {
    Box::new(move || {
        black_box(decide(black_box(&sim.snapshot), black_box(&evidence)));
    })
}

fn begun() -> Simulation {
    release(json!({"stepWeight": 20, "maxWeight": 50}))
}

/// A release whose canary has traffic, between two steps.
fn midway() -> Simulation {
    let mut sim = begun();
    while sim.snapshot.status().canary_weight == 0 {
        sim.reconcile();
    }
    grow(&mut sim);
    sim
}

fn idle() -> Simulation {
    let mut sim = begun();
    sim.run_until(CanaryPhase::Succeeded);
    grow(&mut sim);
    sim
}

fn promoting() -> Simulation {
    let mut sim = begun();
    sim.run_until_phase(CanaryPhase::Promoting);
    grow(&mut sim);
    sim
}

/// A release at a step whose answers are known, so that the decision writes the route and the status.
fn stepping() -> (Simulation, Evidence) {
    let mut sim = midway();
    loop {
        if let Decision::Do(plan) = decide(&sim.snapshot, &sim.evidence)
            && !plan.writes.is_empty()
            && plan.status.is_some()
        {
            let evidence = sim.evidence.clone();
            return (sim, evidence);
        }
        sim.reconcile();
        assert_eq!(sim.snapshot.phase(), CanaryPhase::Progressing);
    }
}

/// The target, as a watch sends it: with the fields of the managers, which the operator drops.
fn watched() -> Value {
    let mut target = midway().snapshot.target().unwrap().clone();
    let entry = json!({"manager": "kubectl-client-side-apply", "operation": "Update", "apiVersion": "apps/v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {"f:template": {"f:spec": {"f:containers": target["spec"]["template"]["spec"]["containers"]}}}}});
    target["metadata"]["managedFields"] = json!([entry, entry]);
    target["metadata"]["resourceVersion"] = json!("123456");
    target
}

fn rendered() -> Work {
    let canary = midway().snapshot.canary.clone();
    let metric = json!({"name": "errors", "interval": "1m", "templateVariables": {"team": "shop"}});
    let metric: CanaryMetric = serde_json::from_value(metric).unwrap();
    let model = Model::of(&canary, &metric, "1m");
    let query = "sum(rate(istio_requests_total{destination_workload_namespace=\"{{ namespace }}\",destination_workload=~\"{{ target }}\",team=\"{{ variables.team }}\"}[{{ interval }}]))";
    Box::new(move || {
        black_box(render(black_box(query), black_box(&model)).unwrap());
    })
}

/// Returns a release that checks as many metrics as a Canary may have, each with this query, and the answers of the hooks that are called
/// before.
fn metrics(query: &str) -> (Simulation, Evidence) {
    let variables: Map<String, Value> = (0..64)
        .map(|n| (format!("variable-{n:03}"), json!("x".repeat(230))))
        .collect();
    let metric = |n| json!({"name": format!("metric-{n}"), "query": query, "threshold": 1, "templateVariables": variables});
    let all: Vec<_> = (0..limits::METRICS).map(metric).collect();
    let mut sim = release(json!({"stepWeight": 20, "maxWeight": 50, "metrics": all}));
    loop {
        if let Some(evidence) = hooks(&sim) {
            return (sim, evidence);
        }
        sim.reconcile();
        assert_ne!(sim.snapshot.phase(), CanaryPhase::Succeeded);
    }
}

/// The answers of the hooks, if the next decision checks the metrics: it queries them, or reports that a query cannot be built. `None` if
/// it does not check them.
fn hooks(sim: &Simulation) -> Option<Evidence> {
    let mut evidence = Evidence::new();
    for _ in 0..10 {
        match decide(&sim.snapshot, &evidence) {
            Decision::Ask(questions, _) => {
                for question in questions {
                    if let Question::Metric { .. } = question {
                        return Some(evidence);
                    }
                    let (status, body) = (200, String::new());
                    let answer = question.read(Ok(HttpResponse { status, body }));
                    evidence.insert(Arc::new(question), answer);
                }
            }
            Decision::Do(plan) => {
                let is_halt =
                    |notified: &Notification| format!("{notified:?}").contains("query failed");
                return plan.notifications.iter().any(is_halt).then_some(evidence);
            }
            Decision::Wait(..) => return None,
        }
    }
    None
}

/// Returns a release at a step that compares both built-in metrics, and the answers that the step needs.
fn compared() -> (Simulation, Evidence) {
    let metric = |name: &str| json!({"name": name, "compare": {}});
    let metrics = ["request-success-rate", "request-duration"].map(metric);
    let mut sim = release(json!({"stepWeight": 10, "maxWeight": 50, "metrics": metrics}));
    sim.traffic = Some(Traffic::of(500.0));
    loop {
        let mut evidence = Evidence::new();
        while let Decision::Ask(questions, _) = decide(&sim.snapshot, &evidence) {
            for question in questions {
                let body = answer(&sim, &question);
                let answer = question.read(Ok(HttpResponse { status: 200, body }));
                evidence.insert(Arc::new(question), answer);
            }
        }
        let weight = sim.snapshot.canary.status.as_ref().unwrap().canary_weight;
        if weight == 20 && !evidence.is_empty() {
            return (sim, evidence);
        }
        sim.reconcile();
    }
}

/// The answer of a hook, or of Prometheus.
fn answer(sim: &Simulation, question: &Question) -> String {
    let Question::Metric { query, .. } = question else {
        return String::new();
    };
    let Asks::Series { query, at } = &query.asks else {
        return String::new();
    };
    let traffic = sim.traffic.as_ref().unwrap();
    traffic.answer(query, at.as_second()).unwrap().to_string()
}

/// A template that evaluates as much as the limits allow, and writes nothing.
fn hostile_template() -> String {
    let work = "{{$x := variables}}".repeat(100);
    format!("{{{{range variables}}}}{work}{{{{end}}}}")
}

/// An A/B test with the greatest allowed number of combinations of its conditions.
fn conditions() -> Simulation {
    let conditions = |header: &str, count: usize| -> Vec<Value> {
        let one = |n: usize| json!({"headers": {header: {"exact": n.to_string()}}});
        (0..count).map(one).collect()
    };
    let mut sim = release_of(json!({
        "service": {"port": 9898, "match": conditions("a", 40)},
        "analysis": {"iterations": 50, "threshold": 5, "match": conditions("b", 25)}}));
    sim.run_until_phase(CanaryPhase::Progressing);
    sim.run(30);
    sim
}

/// Replaces the short pod templates of the tests by the one of the walkthrough.
fn grow(sim: &mut Simulation) {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/kustomize/podinfo/deployment.yaml"
    );
    let manifest: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let container_spec = manifest
        .pointer("/spec/template/spec/containers/0")
        .unwrap();
    for object in sim.snapshot.objects.values_mut() {
        if let Some(container) = object.pointer_mut("/spec/template/spec/containers/0") {
            let image = container["image"].take();
            *container = container_spec.clone();
            container["image"] = image;
        }
    }
    // The run must be about the version with the longer template, so the status gets the revision of that version.
    let revision = revision(&TargetKind::Deployment.version(sim.snapshot.target().unwrap()));
    let status = sim.snapshot.canary.status.as_mut().unwrap();
    let promoted = status.last_promoted_spec == status.last_applied_spec;
    status.last_applied_spec = Some(revision);
    if promoted {
        status
            .last_promoted_spec
            .clone_from(&status.last_applied_spec);
    }
}
