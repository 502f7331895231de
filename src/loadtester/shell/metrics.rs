//! The load tester's own metrics, with the prefix `flagger_rs_`. Flagger's load tester only has the metrics of its process.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

/// The metrics of tasks.
pub struct Metrics {
    registry: Registry,
    /// The number of running tasks.
    pub running: IntGauge,
    ended: IntCounterVec,
}

/// The outcome of a task.
#[derive(Clone, Copy)]
pub enum TaskOutcome {
    /// The task ended successfully.
    Finished,
    /// The task failed.
    Failed,
    /// The same task runs already.
    Skipped,
    /// Too many tasks run already.
    Refused,
}

impl Metrics {
    /// Registers the metrics. An error is a defect of this program.
    pub fn new() -> Result<Self, prometheus::Error> {
        let running = IntGauge::new(
            "flagger_rs_loadtester_tasks_running",
            "Number of running tasks.",
        )?;
        let ended = IntCounterVec::new(
            Opts::new(
                "flagger_rs_loadtester_tasks_total",
                "Number of tasks by outcome: finished, failed, skipped (the same task runs already) or refused (too many tasks run).",
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

    /// Counts a task by its outcome.
    pub fn count(&self, outcome: TaskOutcome) {
        let outcome = match outcome {
            TaskOutcome::Finished => "finished",
            TaskOutcome::Failed => "failed",
            TaskOutcome::Skipped => "skipped",
            TaskOutcome::Refused => "refused",
        };
        self.ended.with_label_values(&[outcome]).inc();
    }

    /// Returns the metrics in the text format of Prometheus.
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_counted_by_their_outcome() {
        let metrics = Metrics::new().unwrap();
        let all = [
            TaskOutcome::Finished,
            TaskOutcome::Failed,
            TaskOutcome::Skipped,
            TaskOutcome::Refused,
        ];
        for (n, outcome) in all.into_iter().enumerate() {
            (0..=n).for_each(|_| metrics.count(outcome));
        }
        metrics.running.set(5);
        let text = metrics.render();
        for line in [
            "flagger_rs_loadtester_tasks_running 5",
            r#"flagger_rs_loadtester_tasks_total{outcome="finished"} 1"#,
            r#"flagger_rs_loadtester_tasks_total{outcome="failed"} 2"#,
            r#"flagger_rs_loadtester_tasks_total{outcome="skipped"} 3"#,
            r#"flagger_rs_loadtester_tasks_total{outcome="refused"} 4"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}
