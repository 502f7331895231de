//! The table of meshes and gateways in the document about comparisons.

use std::collections::BTreeSet;

use flagger_rs::{
    metrics::observer::{Named, Observer, istio::Istio},
    providers::{PROVIDERS, Provider, Support},
};

/// A provider's name without its version.
fn family(provider: &Provider) -> &'static str {
    provider.name().split(':').next().unwrap()
}

/// The cells about errors and durations that an observer asks for.
fn cells(observer: &dyn Observer) -> [&'static str; 2] {
    let errors = match observer.named() {
        Named::Deployments | Named::Workloads => "yes",
        Named::Services => "yes, without `onePod` and without the correction for unequal pods",
        Named::Neither => "no",
    };
    let durations = if errors != "no" && observer.has_histogram() {
        "yes"
    } else {
        "no"
    };
    [errors, durations]
}

#[test]
fn the_table_of_meshes_and_gateways_is_that_of_the_observers() {
    let text = std::fs::read_to_string(crate::files::path("deploy/COMPARISON.md")).unwrap();
    let section = text.split("## Which meshes and gateways").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let mut listed = BTreeSet::new();
    for row in rows {
        let row: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        for name in row[0].split(", ") {
            assert!(listed.insert(name.to_owned()), "{name} is listed twice");
            let of_name = PROVIDERS.iter().filter(|it| family(it) == name);
            let observers = of_name.map(|provider| match &provider.queries {
                Support::Own(observer) => *observer,
                Support::Istio => &Istio as &dyn Observer,
            });
            let wanted: BTreeSet<_> = observers.map(cells).collect();
            // The reasons follow a colon.
            let shown = [row[1], row[2].split(':').next().unwrap()];
            assert_eq!(wanted, [shown].into(), "{name}");
        }
    }
    let known: BTreeSet<_> = PROVIDERS.iter().map(|it| family(it).to_owned()).collect();
    assert_eq!(listed, known);
}
