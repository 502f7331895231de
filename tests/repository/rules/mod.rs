//! Checks that the code in `src` follows its own rules.
//!
//! The tests parse the code, so that groups, renames, globs and full paths in `use` are all seen. Each rule has tests with a small
//! snippet that breaks it. `.clippy.toml` forbids the same calls once more, by their types.
//!
//! | rule | file |
//! | --- | --- |
//! | only the shells and the binaries do I/O, read the clock, or are async | `purity.rs` |
//! | modules depend downward only | `layers.rs` |
//! | files do not import each other in a circle | `circles.rs` |
//! | functions and files are short | `lengths.rs` |
//! | comments, names and documents use the standard terms | `vocabulary.rs` |
//! | only `shell/api_server` has the client of the API server | `client.rs` |
//!
//! Code for unit tests (`#[cfg(test)]`) is exempt, except from the vocabulary.

mod circles;
mod client;
mod layers;
mod lengths;
mod paths;
mod purity;
mod source;
mod vocabulary;

use std::collections::BTreeSet;

/// Fails with each offence, except those of the known offenders. Fails with each known offender that has no offence any more.
///
/// An offence is the name of its offender and a description.
fn assert_none(offences: Vec<(String, String)>, known: &[&str]) {
    let offenders: BTreeSet<&str> = offences.iter().map(|(name, _)| name.as_str()).collect();
    let new: Vec<&str> = offences
        .iter()
        .filter(|(name, _)| !known.contains(&name.as_str()))
        .map(|(_, description)| description.as_str())
        .collect();
    let fixed: Vec<_> = known
        .iter()
        .filter(|name| !offenders.contains(*name))
        .collect();
    assert!(
        new.is_empty() && fixed.is_empty(),
        "offences:\n  {}\nknown offenders that offend no more, remove them from the list: {fixed:?}",
        new.join("\n  ")
    );
}
