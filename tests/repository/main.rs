//! Are the files of this repository consistent? The CRDs, the examples, and the code with its own rules.
//!
//! `cargo test --test repository` needs no cluster and ends within seconds.
//!
//! | question | file |
//! | --- | --- |
//! | are the CRDs fresh, and does each field agree with Flagger's? | `crds.rs`, `fields.txt` |
//! | can each example be used, and does each path in a README exist? | `examples.rs` |

#![allow(
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "the names of tests are their documentation, and a panic is how a test fails"
)]

mod crds;
mod examples;
#[path = "../files/mod.rs"]
mod files;
