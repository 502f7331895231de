//! Two disturbances in one run, drawn by seed.
//!
//! `SWEEP_PAIRS` is the number of pairs for each scenario, and `SWEEP_SEED` the seed of the first one; each further pair has the next seed.

use super::{
    super::{faults::Fault, scenario::Scenario},
    Trial,
    disturbance::{self, Counts, Disturbance},
    random::Random,
    selection::{number, seed},
    sweep,
};

/// The number of pairs of each scenario.
const PAIRS: u64 = 90;

#[test]
fn a_release_ends_the_same_with_two_faults_at_once() {
    let pairs = number("SWEEP_PAIRS").unwrap_or(PAIRS);
    sweep(|scenario, reference| {
        let pair = |nth| pair(scenario, &reference.counts, seed() + nth);
        (0..pairs).map(pair).collect()
    });
}

/// The pair of a seed. Each kind of disturbance is as frequent as any other.
fn pair(scenario: Scenario, counts: &Counts, seed: u64) -> Trial {
    let mut kinds = vec![
        disturbance::deaths(counts),
        disturbance::write_faults(counts),
        { disturbance::read_faults(counts).into_iter() }
            .filter(is_believable)
            .collect(),
        disturbance::event_faults(scenario, counts),
        disturbance::recreations(scenario, counts),
    ];
    kinds.retain(|kind| !kind.is_empty());
    let mut random = Random::new(seed, &format!("{scenario:?}"));
    let mut draw = || {
        let kind = random.choose(&kinds);
        *random.choose(kind)
    };
    let first = draw();
    let mut second = draw();
    while second == first {
        second = draw();
    }
    Trial {
        disturbances: vec![first, second],
        repeat: (
            format!("SWEEP_SEED={seed} SWEEP_PAIRS=1"),
            "a_release_ends_the_same_with_two_faults_at_once",
        ),
    }
}

/// Whether a pair may have this fault. It may not have a 404 for an object that exists. The operator survives that fault alone, but cannot
/// distinguish it from a deletion if the watch events are late as well, or if the target is deleted, too.
fn is_believable(read: &Disturbance) -> bool {
    !matches!(read, Disturbance::Fault(_, _, Fault::Status(404)))
}

#[test]
fn the_same_seed_draws_the_same_pair_and_another_seed_another_one() {
    let counts = Counts {
        writes: 40,
        reads: 40,
        answers: 40,
        changes: [("canaries", 20)].into(),
    };
    let draw = |seed| -> [Disturbance; 2] {
        pair(Scenario::Promotion, &counts, seed)
            .disturbances
            .try_into()
            .unwrap()
    };
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
}
