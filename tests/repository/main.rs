//! Checks that the files of this repository are consistent: the CRDs, the examples, the documents, and the code with its own rules.
//!
//! `cargo test --test repository` needs no cluster and ends within seconds.
//!
//! | question | file |
//! | --- | --- |
//! | do the charts have what kustomize and the code have? | `charts.rs` |
//! | are the CRDs generated from the current code, and does each field agree with Flagger's? | `crds.rs`, `fields.txt` |
//! | can each example be used? | `examples.rs` |
//! | does each link, path, command, flag, test, event text and Canary in a document exist? | `documents.rs` |
//! | do the manifests have the protections that the documents describe, and the rights that the kinds need? | `manifests.rs` |
//! | do the dashboard and the alerts query metrics that exist? | `monitoring.rs` |
//! | is `deploy/REFERENCE.md` up to date? | `reference.rs` |
//! | do the values of the charts and the arguments of the overlays reach the program? | `values.rs` |
//! | do the workflows and the Dockerfile run pinned versions, with few rights? | `workflows.rs` |
//! | does the code keep its own rules: layers, no I/O outside the shells, no circles, short functions? | `rules/` |

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "the names of tests are their documentation, and a panic is how a test fails"
)]

mod charts;
mod comparisons;
mod crds;
mod documents;
mod examples;
#[path = "../files/mod.rs"]
mod files;
mod manifests;
mod monitoring;
#[path = "../files/monitoring.rs"]
mod queries;
mod reference;
#[path = "../files/routers.rs"]
mod routers;
mod rules;
mod values;
mod workflows;
