//! Measures good canaries beside hostile ones.

use std::time::Duration;

use flagger_rs::api::limits;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, api::PostParams};
use testbed::operator::Operator;
use tokio::time::{Instant, sleep};

use super::{
    Size,
    lab::Lab,
    measure::{STEPS, lateness, quantile},
    report::Figure,
    workloads::{self, INTERVAL},
};

/// How long the hostile canaries run before the others begin.
const HEAD_START: Duration = Duration::from_secs(3 * INTERVAL);

/// Measures with hostile canaries.
pub async fn all(size: Size) -> Vec<Figure> {
    let hostile = 0..size.hostile;
    let mut lab = Lab::start(size).await;
    if lab.size.hostile_metrics > limits::METRICS {
        lab.remove_the_limit().await;
    }
    workloads::create_hostile(&lab.client, hostile.clone(), lab.size.hostile_metrics).await;
    let all = lab.size.canaries + hostile.len();
    workloads::create(&lab.client, 0..lab.size.canaries, 0..0).await;
    let (operator, _) = lab.operator().await;
    if lab.size.hostile_metrics > limits::METRICS && lab.size.program.is_none() {
        // The operator refuses the hostile canaries then, so they do not become idle.
        lab.until_idle(lab.size.canaries).await;
    } else {
        lab.until_idle(all).await;
    }
    let before = operator.usage().unwrap();
    workloads::release_hostile(&lab.client, hostile).await;
    sleep(HEAD_START).await;
    workloads::release(&lab.client, lab.progressing(), "2").await;
    sleep(Duration::from_secs(INTERVAL + 5)).await;
    let before_steps = on_time(&operator).await;
    let begun = Instant::now();
    sleep(STEPS).await;
    let (mut steps, mut late) = (0, Vec::new());
    for n in lab.progressing() {
        let taken = lab.weights_since(n, begun);
        steps += taken.len();
        late.extend(taken.windows(2).map(|two| lateness(two[0], two[1])));
    }
    late.sort_by(f64::total_cmp);
    let usage = operator.usage().unwrap();
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let figure = |what: String, goal, value, unit| Figure {
        what,
        flagger: "-",
        goal,
        value,
        unit,
    };
    let Size {
        progressing,
        hostile,
        hostile_metrics,
        ..
    } = lab.size;
    let beside = format!("beside {hostile} hostile with {hostile_metrics} metrics each");
    // Each canary takes a step in each interval, except for canaries at the end of their release.
    let expected = progressing as f64 * STEPS.as_secs_f64() / INTERVAL as f64;
    eprintln!(
        "load: {steps} of about {expected} steps; before: {:.1} MB; processor: {:?}",
        megabytes(before.resident_bytes),
        usage.processor.saturating_sub(before.processor),
    );
    let [p50, p90] = [50, 90].map(|percent| quantile(&late, percent) * 1000.0);
    let after = on_time(&operator).await;
    let [all, on_time] = [0, 1].map(|n| after[n] - before_steps[n]);
    eprintln!(
        "load: lateness p50 {p50:.0} ms, p90 {p90:.0} ms; {on_time} of {all} reconciliations began within 100 ms"
    );
    lab.add(figure(
        format!("lateness of steps, p99, {progressing} progressing, {beside}"),
        100.0,
        quantile(&late, 99) * 1000.0,
        "ms",
    ));
    lab.add(figure(
        format!("steps that are missing, {beside}"),
        0.1,
        1.0 - steps as f64 / expected,
        "",
    ));
    lab.add(figure(
        format!("peak of memory, {beside}"),
        128.0,
        megabytes(usage.peak_bytes),
        "MB",
    ));
    operator.terminate().await.unwrap();
    lab.stop().await
}

/// The number of reconciliations so far, and of those that began within 100 ms after their tick, as the operator counts them.
async fn on_time(operator: &Operator) -> [u64; 2] {
    let metrics = operator.metrics().await.unwrap();
    ["count", "bucket{le=\"0.1\"}"].map(|suffix| {
        let start = format!("flagger_rs_tick_lateness_seconds_{suffix} ");
        let mut lines = metrics.lines();
        let value = lines.find_map(|line| line.strip_prefix(start.as_str()));
        value.unwrap().parse().unwrap()
    })
}

impl Lab {
    /// Removes the limit of metrics from the schema, as if the canaries were older than the limit.
    async fn remove_the_limit(&self) {
        let crds: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let name = "canaries.flagger.app";
        let crd = crds.get(name).await.unwrap();
        let mut crd = serde_json::to_value(crd).unwrap();
        let metrics = crd.pointer_mut(
            "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/analysis/properties/metrics",
        );
        metrics.unwrap().as_object_mut().unwrap().remove("maxItems");
        let crd = serde_json::from_value(crd).unwrap();
        crds.replace(name, &PostParams::default(), &crd)
            .await
            .unwrap();
        // The API server applies a new schema within a moment.
        sleep(Duration::from_secs(5)).await;
    }
}
