//! The gate runs every suite of tests.

use std::collections::BTreeSet;

use super::files;

fn read(file: &str) -> String {
    std::fs::read_to_string(files::path(file)).unwrap()
}

/// The suites of a manifest: the name after each `[[test]]`.
fn declared(manifest: &str) -> impl Iterator<Item = String> {
    let tests = manifest.split("[[test]]").skip(1);
    tests.map(|test| test.split('"').nth(1).unwrap().to_owned())
}

#[test]
fn the_gate_runs_every_suite() {
    let gate = read(".ci/run");
    let words: Vec<_> = gate.split_whitespace().collect();
    let run: BTreeSet<_> = words
        .windows(2)
        .filter(|pair| pair[0] == "--test")
        .map(|pair| pair[1].to_owned())
        .collect();
    let mut suites: BTreeSet<_> = declared(&read("Cargo.toml")).collect();
    assert!(suites.len() >= 6, "{suites:?}");
    // Cargo finds the suites of the test bed by their files.
    let of_testbed = std::fs::read_dir(files::path("tests/testbed/tests")).unwrap();
    let stem = |file: std::io::Result<std::fs::DirEntry>| {
        file.unwrap()
            .path()
            .file_stem()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    suites.extend(of_testbed.map(stem));
    assert_eq!(run, suites);
    for kind in ["--lib", "--bins", "--doc"] {
        assert!(words.contains(&kind), "the gate does not test {kind}");
    }
}
