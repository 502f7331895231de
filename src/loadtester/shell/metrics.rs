//! What the load tester measures of itself, under `flagger_rs_`: Flagger's measures its process only.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

/// How tasks go.
pub struct Metrics {
    registry: Registry,
    /// Those that run now.
    pub running: IntGauge,
    ended: IntCounterVec,
}

/// How a task went.
#[derive(Clone, Copy)]
pub enum Outcome {
    /// It ended well.
    Finished,
    /// It did not.
    Failed,
    /// It runs already.
    Skipped,
    /// Too many run.
    Refused,
}

impl Metrics {
    /// Registers them. An error is one of this program.
    pub fn new() -> Result<Self, prometheus::Error> {
        let running = IntGauge::new(
            "flagger_rs_loadtester_tasks_running",
            "Tasks that run at this moment.",
        )?;
        let ended = IntCounterVec::new(
            Opts::new(
                "flagger_rs_loadtester_tasks_total",
                "Tasks by how they went: finished, failed, skipped (it runs already) or refused (too many run).",
            ),
            &["outcome"],
        )?;
        let registry = Registry::new();
        registry.register(Box::new(running.clone()))?;
        registry.register(Box::new(ended.clone()))?;
        Ok(Self {
            registry,
            running,
            ended,
        })
    }

    /// Counts a task.
    pub fn count(&self, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Finished => "finished",
            Outcome::Failed => "failed",
            Outcome::Skipped => "skipped",
            Outcome::Refused => "refused",
        };
        self.ended.with_label_values(&[outcome]).inc();
    }

    /// The text that Prometheus reads.
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_default()
    }
}
