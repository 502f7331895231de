//! Which disturbances a test plays. There are too many faults of writes and reads, and recreated objects, to play all of them at each
//! change of the operator, so each change of its source plays another part of them.
//!
//! The parts are complete: as many successive seeds as there are parts play each disturbance once. `SWEEP_ALL=1` plays all parts.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use super::{disturbance::Disturbance, random::hash};

/// The number of parts. By default, one of them is played.
const PARTS_OF_WRITES: u64 = 9;
const PARTS_OF_READS: u64 = 10;
const PARTS_OF_RECREATIONS: u64 = 6;

/// The seed: `SWEEP_SEED`, or a number that only changes with the operator's source.
static SEED: LazyLock<u64> =
    LazyLock::new(|| number("SWEEP_SEED").unwrap_or_else(|| hash(0, &source()) % 1_000_000));

pub fn seed() -> u64 {
    *SEED
}

/// The value of a variable that is a number; `None` without the variable.
pub fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some({ value.parse() }.unwrap_or_else(|_| panic!("{variable}={value} is no number")))
}

/// Whether these disturbances are played: all are, or only those whose names contain `SWEEP_ONLY`.
pub fn is_wanted(disturbances: &[Disturbance]) -> bool {
    let only = std::env::var("SWEEP_ONLY").unwrap_or_default();
    format!("{disturbances:?}").contains(&only)
}

/// The faults of writes to play, from a list of `at_each` faults for each write.
pub fn of_writes(all: &[Disturbance], at_each: usize) -> Vec<Disturbance> {
    part_to_play(all, at_each, PARTS_OF_WRITES)
}

/// The faults of reads to play, from a list of `at_each` faults for each read.
pub fn of_reads(all: &[Disturbance], at_each: usize) -> Vec<Disturbance> {
    part_to_play(all, at_each, PARTS_OF_READS)
}

pub fn of_recreations(all: &[Disturbance]) -> Vec<Disturbance> {
    part_to_play(all, 1, PARTS_OF_RECREATIONS)
}

fn part_to_play(all: &[Disturbance], at_each: usize, parts: u64) -> Vec<Disturbance> {
    let is_complete = ["SWEEP_ALL", "SWEEP_ONLY"]
        .iter()
        .any(|variable| std::env::var_os(variable).is_some());
    part(all, at_each, if is_complete { 1 } else { parts }, seed())
}

/// The part of this seed. Successive requests have different faults.
fn part<T: Copy>(all: &[T], at_each: usize, parts: u64, seed: u64) -> Vec<T> {
    let is_in_part = |place: usize| {
        let (request, fault) = (place / at_each, place % at_each);
        (u64::try_from(request + fault).unwrap() + seed).is_multiple_of(parts)
    };
    let chosen = { all.iter().enumerate() }.filter(|(place, _)| is_in_part(*place));
    chosen.map(|(_, one)| *one).collect()
}

/// The files of the operator, in the order of their names.
fn source() -> Vec<u8> {
    let mut files = Vec::new();
    collect(
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")),
        &mut files,
    );
    files.sort();
    files
        .iter()
        .flat_map(|file| fs::read(file).unwrap())
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}

#[test]
fn successive_seeds_play_each_disturbance_once_and_each_request_has_some() {
    let all: Vec<usize> = (0..150).collect();
    for parts in 1..=10 {
        let mut played = Vec::new();
        let least = usize::try_from(15 / parts).unwrap();
        for seed in 7..7 + parts {
            let of_seed = part(&all, 15, parts, seed);
            for request in all.chunks(15) {
                let faults = request.iter().filter(|fault| of_seed.contains(fault));
                assert!(faults.count() >= least, "{parts} parts");
            }
            played.extend(of_seed);
        }
        played.sort_unstable();
        assert_eq!(played, all, "{parts} parts");
    }
}
