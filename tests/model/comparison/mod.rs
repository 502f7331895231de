//! Compares the model with a real API server. Both get the same random requests. If their answers differ, the model is wrong.

mod api_server;
mod objects;
mod step;

use std::{cell::RefCell, collections::BTreeSet, time::Instant};

use jiff::Timestamp;
use proptest::{
    collection::vec,
    test_runner::{Config, RngSeed, TestCaseError, TestRunner},
};
use serde_json::{Value, json};
use testbed::Bed;

use self::{api_server::ApiServer, objects::Kind, step::Step};
use super::server::Model;

/// The number of sequences, and their greatest length.
const CASES: u32 = 24;
const STEPS: usize = 40;

#[test]
fn the_model_answers_as_the_api_server_does() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (bed, mut requests) = (runtime.block_on(bed()), 0);
    let begin = Instant::now();
    let counter = RefCell::new((0, &mut requests));
    // The requests are the same in every run; `PROPTEST_RNG_SEED` selects others.
    let rng_seed = match Config::default().rng_seed {
        RngSeed::Random => RngSeed::Fixed(0),
        given => given,
    };
    let config = Config {
        rng_seed,
        cases: CASES,
        max_shrink_iters: 60,
        failure_persistence: None,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&vec(step::any(), 1..STEPS), |steps| {
        let mut counter = counter.borrow_mut();
        counter.0 += 1;
        *counter.1 += steps.len();
        runtime
            .block_on(compare(&bed, &format!("case-{}", counter.0), &steps))
            .map_err(TestCaseError::fail)
    });
    eprintln!("  {requests} requests in {} s", begin.elapsed().as_secs());
    runtime.block_on(bed.stop());
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// A bed without controllers, which would change objects.
async fn bed() -> Bed {
    let bed = Bed::start().await.unwrap();
    let crds = std::fs::read_to_string("crds/ALL-IN-ONE.yaml").unwrap();
    bed.apply(&crds).await.unwrap();
    bed.plane.stop_controllers().await;
    bed
}

async fn compare(bed: &Bed, namespace: &str, steps: &[Step]) -> Result<(), String> {
    let namespaces = "/api/v1/namespaces";
    let mut real = ApiServer::new(bed.client(), namespace);
    for kind in [Kind::Event, Kind::ConfigMap] {
        let body = json!({"metadata": {"name": real.namespace(kind)}});
        real.send("POST", namespaces, ["application/json", ""], &body)
            .await;
    }
    let mut model = ApiServer::new(Model::new(Timestamp::now()).client("test"), namespace);
    let kinds: BTreeSet<_> = steps.iter().map(|step| step.object.kind).collect();
    for server in [&mut real, &mut model] {
        server.begin(&kinds).await;
    }
    for (number, step) in steps.iter().enumerate() {
        let (theirs, ours) = (step.send(&mut real).await, step.send(&mut model).await);
        equal(&format!("step {number}, {step:?}"), &theirs, &ours)?;
    }
    for kind in kinds {
        let (theirs, ours) = (real.pages(kind).await, model.pages(kind).await);
        equal(&format!("pages of {kind:?}"), &json!(theirs), &json!(ours))?;
        let ours = model.streamed(kind, None).await;
        let theirs = real.streamed(kind, Some(ours.len())).await;
        equal(&format!("stream of {kind:?}"), &json!(theirs), &json!(ours))?;
        for metadata_only in [false, true] {
            let ours = model.events(kind, metadata_only, None).await;
            let theirs = real.events(kind, metadata_only, Some(ours.len())).await;
            equal(&format!("events of {kind:?}"), &json!(theirs), &json!(ours))?;
        }
    }
    Ok(())
}

fn equal(what: &str, theirs: &Value, ours: &Value) -> Result<(), String> {
    let mut differences = Vec::new();
    differ("", theirs, ours, &mut differences);
    if differences.is_empty() {
        return Ok(());
    }
    Err(format!("{what}\n  {}", differences.join("\n  ")))
}

fn differ(path: &str, theirs: &Value, ours: &Value, out: &mut Vec<String>) {
    match (theirs, ours) {
        _ if theirs == ours => {}
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let null = Value::Null;
                differ(
                    &format!("{path}/{key}"),
                    a.get(key).unwrap_or(&null),
                    b.get(key).unwrap_or(&null),
                    out,
                );
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                differ(&format!("{path}/{index}"), a, b, out);
            }
        }
        _ => out.push(format!("{path}: real {theirs} model {ours}")),
    }
}
