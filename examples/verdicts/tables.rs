//! The tables that are printed, in Markdown.

use flagger_rs::comparison::Margin;

use super::{
    judges::{self, Test, seeds},
    traffic::{Law, WEIGHTS},
};

/// The requests in a second of the columns and rows.
const RATES: [f64; 3] = [1.0, 10.0, 100.0];
/// The test without margins and without corrections.
pub const BARE: Test = Test {
    margin: Margin::NONE,
    is_corrected: false,
};

/// The test with the default margins and with the corrections.
pub fn default() -> Test {
    Test {
        margin: Margin::new(0.0025, 1.25).unwrap_or(Margin::NONE),
        is_corrected: true,
    }
}

/// A table.
pub struct Table {
    /// The question that it answers.
    pub title: &'static str,
    head: &'static str,
    rows: fn(u32) -> Vec<Vec<String>>,
}

/// All tables.
pub const TABLES: [Table; 6] = [
    Table {
        title: "Nothing is wrong: how often is a version failed?",
        head: "requests/s | sequential test, no margin | with margins and corrections | Flagger, threshold 1 | Flagger, threshold 5 | Mann-Whitney",
        rows: false_alarms,
    },
    Table {
        title: "Nothing is wrong, but requests depend on each other: how often is a version failed?",
        head: "law | no correction | with margins and corrections",
        rows: dependent,
    },
    Table {
        title: "As in a release, with few and unequal pods: how often is a version failed? (100 requests/s, base rate 1 %)",
        head: "pods of the canary, of the primary | pods | nothing is wrong | +1 pp | +5 pp",
        rows: few_pods,
    },
    Table {
        title: "More errors: by which step is the version failed? (base rate 0.1 %)",
        head: "increase | requests/s | test | step 1 | step 2 | step 3 | step 4 | step 5",
        rows: power,
    },
    Table {
        title: "More errors: how often does Flagger's threshold fail the version? (99 %, base rate 0.1 %)",
        head: "increase | requests/s | threshold 1 | threshold 5",
        rows: thresholds,
    },
    Table {
        title: "Slower by 20 %: by which step is the version failed? (lognormal, Istio's buckets)",
        head: "σ | requests/s | step 1 | step 2 | step 3 | step 4 | step 5",
        rows: latency,
    },
];

impl Table {
    /// The table in Markdown.
    pub fn markdown(&self, runs: u32) -> String {
        let columns = self.head.split('|').count();
        let rows = (self.rows)(runs).into_iter();
        let rows: Vec<_> = rows
            .map(|cells| format!("| {} |\n", cells.join(" | ")))
            .collect();
        let rule = "| --- ".repeat(columns);
        format!(
            "### {}\n\n| {} |\n{rule}|\n{}",
            self.title,
            self.head,
            rows.concat()
        )
    }
}

/// The share of runs for which this holds.
pub fn share(runs: u32, table: u64, holds: impl Fn(u64) -> bool) -> f64 {
    let held = seeds(table, runs).filter(|seed| holds(*seed)).count();
    u32::try_from(held).map_or(1.0, f64::from) / f64::from(runs)
}

/// The shares of runs that ended by each step.
pub fn by_step(runs: u32, table: u64, ends: impl Fn(u64) -> Option<usize>) -> [f64; 5] {
    let ends: Vec<_> = seeds(table, runs).map(ends).collect();
    let mut step = 0;
    WEIGHTS.map(|_| {
        step += 1;
        let ended = ends
            .iter()
            .filter(|end| end.is_some_and(|end| end <= step))
            .count();
        u32::try_from(ended).map_or(1.0, f64::from) / f64::from(runs)
    })
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn steps(shares: [f64; 5]) -> impl Iterator<Item = String> {
    shares.into_iter().map(percent)
}

fn false_alarms(runs: u32) -> Vec<Vec<String>> {
    let row = |rate: f64| {
        let law = Law::plain(rate);
        let failed = |test: Test| {
            share(runs, 1, |seed| {
                judges::sequential(law, test, seed).is_some()
            })
        };
        let flagger = |threshold| {
            share(runs, 1, |seed| {
                judges::threshold(law, threshold, seed).is_some()
            })
        };
        let rank = share(runs, 1, |seed| judges::mann_whitney(law, seed));
        let shares = [
            failed(BARE),
            failed(default()),
            flagger(1),
            flagger(5),
            rank,
        ];
        std::iter::once(rate.to_string())
            .chain(shares.map(percent))
            .collect()
    };
    RATES.map(row).to_vec()
}

/// Laws under which requests depend on each other, with their names.
pub fn dependent_laws() -> Vec<(String, Law)> {
    let bursts = [3.0, 10.0, 30.0].into_iter().flat_map(|burst| {
        [10.0, 100.0].map(|per_second| {
            let base = 0.005;
            let law = Law {
                base,
                burst,
                ..Law::plain(per_second)
            };
            (
                format!("bursts of {burst} errors, {per_second} requests/s"),
                law,
            )
        })
    });
    let pods = [0.2, 0.4].map(|pods| {
        let law = Law {
            base: 0.05,
            pods,
            ..Law::plain(100.0)
        };
        (format!("pods differ (σ {pods}), 100 requests/s"), law)
    });
    bursts.chain(pods).collect()
}

fn dependent(runs: u32) -> Vec<Vec<String>> {
    let row = |(name, law): (String, Law)| {
        let failed = |test: Test| {
            share(runs, 2, |seed| {
                judges::sequential(law, test, seed).is_some()
            })
        };
        vec![name, percent(failed(BARE)), percent(failed(default()))]
    };
    dependent_laws().into_iter().map(row).collect()
}

/// The numbers of pods, of the canary and of the primary, and how much the pods differ.
pub const FEW: [(usize, usize, f64); 6] = [
    (1, 1, 0.0),
    (1, 2, 0.4),
    (1, 3, 0.4),
    (2, 2, 0.4),
    (2, 8, 0.2),
    (2, 8, 0.4),
];

/// Requests to pods that differ so much.
pub const fn of_pods(pods: f64) -> Law {
    Law {
        base: 0.01,
        pods,
        ..Law::plain(100.0)
    }
}

fn few_pods(runs: u32) -> Vec<Vec<String>> {
    let row = |(canary, primary, pods): (usize, usize, f64)| {
        let failed = |increase| {
            let law = of_pods(pods).worse(increase);
            share(runs, 6, |seed| {
                judges::operator(law, (canary, primary), seed).is_some()
            })
        };
        let shares = [0.0, 0.01, 0.05].map(failed).map(percent);
        let differ = if pods > 0.0 {
            format!("differ (σ {pods})")
        } else {
            "equal".to_owned()
        };
        let first = [format!("{canary}, {primary}"), differ];
        first.into_iter().chain(shares).collect()
    };
    FEW.map(row).to_vec()
}

fn power(runs: u32) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for increase in [0.005, 0.01, 0.05] {
        for rate in RATES {
            let law = Law::plain(rate).worse(increase);
            let found = |test: Test| by_step(runs, 3, |seed| judges::sequential(law, test, seed));
            let mut step = 0;
            let oracle = WEIGHTS.map(|_| {
                step += 1;
                judges::oracle(law, step)
            });
            for (name, shares) in [
                ("no margin", found(BARE)),
                ("margins and corrections", found(default())),
                ("oracle, one judgement", oracle),
            ] {
                let first = [
                    format!("+{} pp", increase * 100.0),
                    rate.to_string(),
                    name.to_owned(),
                ];
                rows.push(first.into_iter().chain(steps(shares)).collect());
            }
        }
    }
    rows
}

fn thresholds(runs: u32) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for increase in [0.01, 0.05] {
        for rate in RATES {
            let law = Law::plain(rate).worse(increase);
            let failed = |threshold| {
                share(runs, 4, |seed| {
                    judges::threshold(law, threshold, seed).is_some()
                })
            };
            rows.push(vec![
                format!("+{} pp", increase * 100.0),
                rate.to_string(),
                percent(failed(1)),
                percent(failed(5)),
            ]);
        }
    }
    rows
}

fn latency(runs: u32) -> Vec<Vec<String>> {
    // This simulation draws each request, which takes long, so it has fewer runs.
    let runs = (runs / 10).max(20);
    let mut rows = Vec::new();
    for sigma in [0.4, 0.8] {
        for rate in RATES {
            let found = by_step(runs, 5, |seed| {
                judges::sequential_latency(rate, (1.0, 1.2), sigma, seed)
            });
            let first = [sigma.to_string(), rate.to_string()];
            rows.push(first.into_iter().chain(steps(found)).collect());
        }
    }
    rows
}
