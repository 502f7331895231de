//! Counts the instructions of the pure work with valgrind, whose counts hardly differ from run to run. `instructions.txt` has the expected
//! counts, with Rust 1.95. The test fails if a piece needs 5 % more than that; after an improvement, an intended change, or an update of the
//! compiler, `UPDATE_INSTRUCTIONS=1` writes the file again.
//!
//! The program runs itself under valgrind for each piece: `instructions case NAME`.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    dead_code,
    unused_imports,
    reason = "a measurement that shares the simulated cluster with `tests/decisions`"
)]

mod cases;
// The simulated cluster uses it.
#[path = "../files/routers.rs"]
mod routers;

use std::{collections::BTreeMap, fmt::Write, process::Command, thread};

use cases::CASES;

/// The expected counts, a line for each piece.
const EXPECTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/instructions.txt");
/// A piece may need this much more than expected.
const TOLERANCE: f64 = 1.05;
/// How often a piece is repeated in one count, so that caches are warm as in a long run.
const TIMES: u64 = 5;

fn main() {
    let args: Vec<_> = std::env::args().skip(1).collect();
    if let [mode, name] = &args[..]
        && mode == "case"
    {
        let case = CASES.iter().find(|case| case.name == name).unwrap();
        let work = (case.prepare)();
        work();
        return counted(&|| (0..TIMES).for_each(|_| work()));
    }
    // Not for the arguments of test runners that filter or list tests.
    if args.iter().any(|arg| arg == "--list") {
        return;
    }
    let found = thread::scope(|scope| {
        let each = CASES.map(|case| scope.spawn(move || (case.name, count(case.name))));
        each.map(|one| one.join().unwrap())
    });
    if std::env::var_os("UPDATE_INSTRUCTIONS").is_some() {
        let mut text = String::new();
        for (name, count) in found {
            writeln!(text, "{name} = {count}").unwrap();
        }
        std::fs::write(EXPECTED, text).unwrap();
        return;
    }
    compare(&found);
}

/// The valgrind option `--toggle-collect` counts only what this function does.
#[inline(never)]
fn counted(work: &dyn Fn()) {
    work();
}

/// The instructions of one repetition.
fn count(name: &str) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg("--toggle-collect=*instructions::counted*")
        .arg(std::env::current_exe().unwrap())
        .args(["case", name])
        .output()
        .expect("valgrind is missing. Type: sudo apt-get install valgrind");
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let (_, count) = collected.unwrap_or_else(|| panic!("{name}: {text}"));
    let count = count.trim().parse::<u64>().unwrap() / TIMES;
    assert!(count > 0, "{name}: valgrind counted nothing:\n{text}");
    count
}

fn compare(found: &[(&str, u64)]) {
    let file = std::fs::read_to_string(EXPECTED).unwrap();
    let expected: BTreeMap<&str, f64> = { file.lines() }
        .map(|line| line.split_once(" = ").unwrap())
        .map(|(name, count)| (name, count.parse().unwrap()))
        .collect();
    let mut is_too_many = expected.len() != found.len();
    for (name, count) in found {
        let ratio = expected
            .get(name)
            .map_or(f64::INFINITY, |expected| *count as f64 / expected);
        println!(
            "{name}: {count} instructions, {:+.1} %",
            100.0 * (ratio - 1.0)
        );
        is_too_many |= ratio > TOLERANCE;
    }
    assert!(
        !is_too_many,
        "a piece needs over 5 % more instructions than tests/bench/instructions.txt has. Make it cheaper; or, if the cost is accepted or \
         the compiler is new: \
         UPDATE_INSTRUCTIONS=1 cargo test --features instructions --test instructions"
    );
}
