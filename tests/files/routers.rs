//! The table of routers, which the unit tests use too, and helpers that only the test targets need.

#![allow(dead_code, reason = "no test target uses all of it")]

use flagger_rs::{api::canary::Canary, routers, snapshot::Kind};
use serde_json::json;

#[path = "../../src/routers/tests/table.rs"]
mod table;
pub use table::*;

/// A Canary for which each router names its objects.
pub fn canary() -> Canary {
    let mut spec = references();
    spec["targetRef"] = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"});
    spec["service"] = json!({"port": 80});
    let metadata = json!({"name": "podinfo", "namespace": "test"});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

/// A name of the table, in a Canary with these names of the apex Service, of its namespace, and of its source, and with this port.
pub fn renamed(name: &str, [apex, namespace, source, port]: [&str; 4]) -> String {
    let own = |word| match word {
        "podinfo" => apex,
        "test" => namespace,
        SOURCE => source,
        "80" => port,
        other => other,
    };
    let parts = name.split('-').map(|part| {
        let words: Vec<_> = part.split('.').map(own).collect();
        words.join(".")
    });
    parts.collect::<Vec<_>>().join("-")
}

/// The rows of routers that differ, and that split the traffic of a Deployment. Several providers have the routers of SMI.
pub fn distinct() -> Vec<&'static Row> {
    let mut known = Vec::new();
    let mut rows: Vec<_> = ROUTERS.iter().collect();
    rows.retain(|row| {
        let Some(rules) = row.rules.filter(|rules| rules.kind != Kind::KnativeService) else {
            return false;
        };
        let key = (rules.kind, format!("{:?}", row.router));
        let is_new = !known.contains(&key);
        known.push(key);
        is_new
    });
    rows
}
