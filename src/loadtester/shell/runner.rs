//! Runs tasks, within a limit of concurrent tasks and a time limit for each. A task that puts load on a version runs only once at the same
//! time.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};
use tracing::{error, info, warn};

use super::{
    command::{Groups, Output},
    metrics::{Metrics, TaskOutcome},
    remote,
};
use crate::{
    api::duration,
    loadtester::{
        concord, ngrinder,
        task::{Command, Task},
    },
    shell::outside::http::Http,
};

/// The maximum number of bytes of a command's output in the log.
const MAX_LOGGED: usize = 8 * 1024;
/// The time that tasks have to end when the load tester stops: a task may have to call another server first.
const END: Duration = Duration::from_secs(5);

/// The status and the body of an answer.
pub type Answer = (u16, String);

/// Runs tasks.
pub struct Runner {
    limit: Duration,
    most: u16,
    slots: Arc<Semaphore>,
    /// The tasks in the background: the canary and the command of each.
    loads: Mutex<HashSet<(String, String)>>,
    groups: Groups,
    http: Http,
    metrics: Arc<Metrics>,
    ending: watch::Sender<Ending>,
}

/// The tasks that must end.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Ending {
    None,
    /// The tasks that no caller waits for.
    Loads,
    All,
}

impl Runner {
    /// A runner of at most `most` tasks at the same time. Each task has the time limit `limit`.
    pub fn new(limit: Duration, most: u16, metrics: Arc<Metrics>) -> Self {
        Self {
            limit,
            most,
            slots: Arc::new(Semaphore::new(most.into())),
            loads: Mutex::default(),
            groups: Groups::default(),
            http: Http::default(),
            metrics,
            ending: watch::Sender::new(Ending::None),
        }
    }

    /// Runs a task for a canary and returns the answer to the caller: at once for a task that puts load on a version, and after the end of
    /// any other task. As in Flagger, the task continues if the caller disconnects: an interrupted command could leave a test half done.
    pub async fn take(self: &Arc<Self>, canary: String, task: Task) -> Answer {
        match task {
            Task::Load(command) => {
                let (runner, key) = (self.clone(), (canary.clone(), command.text.clone()));
                self.start(key, async move {
                    info!(canary, "task starting {}", command.name);
                    runner.load(&canary, &command).await
                })
            }
            Task::NGrinder(job) => {
                let key = (canary.clone(), format!("ngrinder clone {}", job.clone));
                let runner = self.clone();
                self.start(key, async move { runner.ngrinder(&canary, &job).await })
            }
            Task::Check(command) => {
                let runner = self.clone();
                self.finish(async move { runner.check(&canary, &command).await })
                    .await
            }
            Task::Concord(job) => {
                let runner = self.clone();
                self.finish(async move { runner.concord(&canary, &job).await })
                    .await
            }
        }
    }

    /// Ends the tasks that no caller waits for.
    pub fn end_loads(&self) {
        self.ending.send_replace(Ending::Loads);
    }

    /// Ends all tasks. Afterwards no process of a task's group is left.
    pub async fn end(&self) {
        self.ending.send_replace(Ending::All);
        // A task that ends in time gives its slot back. Any other task is dropped with the runtime.
        let _ = timeout(END, self.slots.acquire_many(self.most.into())).await;
        self.groups.kill_all();
    }

    /// Starts a task in the background, unless it runs already.
    fn start(
        self: &Arc<Self>,
        key: (String, String),
        task: impl Future<Output = TaskOutcome> + Send + 'static,
    ) -> Answer {
        let accepted = (202, String::new());
        if !self.loads().insert(key.clone()) {
            let (canary, what) = key;
            info!(canary, "command skipped {what} is already running");
            self.metrics.count(TaskOutcome::Skipped);
            return accepted;
        }
        let slot = match self.slot() {
            Ok(slot) => slot,
            Err(answer) => {
                self.loads().remove(&key);
                return answer;
            }
        };
        let load = Load {
            runner: self.clone(),
            key,
            _slot: slot,
        };
        tokio::spawn(async move {
            load.runner.metrics.count(task.await);
            drop(load);
        });
        accepted
    }

    /// Runs a task to its end, even if the caller disconnects.
    async fn finish(
        self: &Arc<Self>,
        task: impl Future<Output = (TaskOutcome, Answer)> + Send + 'static,
    ) -> Answer {
        let slot = match self.slot() {
            Ok(slot) => slot,
            Err(answer) => return answer,
        };
        let runner = self.clone();
        let task = tokio::spawn(async move {
            let (outcome, answer) = task.await;
            runner.metrics.count(outcome);
            drop(slot);
            answer
        });
        task.await.unwrap_or_else(|error| (500, error.to_string()))
    }

    fn slot(&self) -> Result<Slot, Answer> {
        let Ok(permit) = self.slots.clone().try_acquire_owned() else {
            let why = format!(
                "{} tasks run already, as many as -concurrency allows: try again when one of them has ended",
                self.most
            );
            warn!("task refused: {why}");
            self.metrics.count(TaskOutcome::Refused);
            // After this status, webhooks with `retries` try again.
            return Err((429, why));
        };
        self.metrics.running.inc();
        Ok(Slot {
            metrics: self.metrics.clone(),
            _permit: permit,
        })
    }

    async fn load(&self, canary: &str, command: &Command) -> TaskOutcome {
        match self.run(canary, command, Ending::Loads).await {
            Ok(_) => TaskOutcome::Finished,
            Err(_) => TaskOutcome::Failed,
        }
    }

    async fn check(&self, canary: &str, command: &Command) -> (TaskOutcome, Answer) {
        info!(canary, "running command {}", command.name);
        match self.run(canary, command, Ending::All).await {
            Ok(output) if command.return_output => (TaskOutcome::Finished, (200, output)),
            Ok(_) => (TaskOutcome::Finished, (200, String::new())),
            Err(why) => (TaskOutcome::Failed, (500, why)),
        }
    }

    /// Runs a command and returns its output. The error is Flagger's text.
    async fn run(&self, canary: &str, command: &Command, ending: Ending) -> Result<String, String> {
        let mut output = Output::default();
        let ended = tokio::select! {
            ended = self.groups.run(&command.argv, &mut output) => ended,
            // Go's text for a killed command, and the reason.
            why = self.deadline(ending) => Err(format!("signal: killed ({why})")),
        };
        let (Command { text, name, .. }, output) = (command, output.text());
        if let Err(why) = ended {
            error!(canary, "command failed {name} {why} {}", head(&output));
            return Err(format!("command {text} failed: {output}: {why}"));
        }
        // As in Flagger, the output is always logged if a caller waits for the command.
        if command.log_output || ending == Ending::All {
            info!(canary, "{}", head(&output));
        }
        info!(canary, "command finished {name}");
        Ok(output)
    }

    async fn concord(&self, canary: &str, job: &concord::Job) -> (TaskOutcome, Answer) {
        let ended = tokio::select! {
            ended = remote::concord(&self.http, job, canary) => ended,
            why = self.deadline(Ending::All) => Err(format!("context timedout ({why})")),
        };
        match ended {
            Ok(()) => (TaskOutcome::Finished, (200, String::new())),
            Err(why) => {
                error!(canary, "concord task error: {why}");
                (TaskOutcome::Failed, (500, why))
            }
        }
    }

    async fn ngrinder(&self, canary: &str, job: &ngrinder::Job) -> TaskOutcome {
        info!(canary, "task starting ngrinder clone {}", job.clone);
        let deadline = self.deadline(Ending::Loads);
        match remote::ngrinder(&self.http, job, canary, deadline).await {
            Ok(()) => {
                info!(canary, "command finished ngrinder clone {}", job.clone);
                TaskOutcome::Finished
            }
            Err(why) => {
                error!(canary, "command failed ngrinder clone {} {why}", job.clone);
                TaskOutcome::Failed
            }
        }
    }

    /// Waits until a task must end, and returns the reason: its time limit, or the stop of the load tester.
    async fn deadline(&self, ending: Ending) -> String {
        let mut current = self.ending.subscribe();
        tokio::select! {
            () = sleep(self.limit) => {
                format!("it ran longer than -timeout={} allows", duration::display(self.limit))
            }
            // This cannot fail: the runner owns the sender.
            _ = current.wait_for(|now| *now >= ending) => "the load tester stops".to_owned(),
        }
    }

    fn loads(&self) -> MutexGuard<'_, HashSet<(String, String)>> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the running tasks.
struct Slot {
    metrics: Arc<Metrics>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.metrics.running.dec();
    }
}

/// A task in the background. The same task can start again after this is dropped.
struct Load {
    runner: Arc<Runner>,
    key: (String, String),
    _slot: Slot,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.runner.loads().remove(&self.key);
    }
}

/// The beginning of a text, for the log.
fn head(text: &str) -> String {
    let longest = MAX_LOGGED.min(text.len());
    let end = (0..=longest).rev().find(|end| text.is_char_boundary(*end));
    match text.split_at_checked(end.unwrap_or(0)) {
        Some((head, rest)) if !rest.is_empty() => {
            format!("{head}\n[{} bytes more are not logged]", rest.len())
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Canaries behind one gateway may have the same command.
    #[tokio::test]
    async fn a_load_runs_once_for_each_canary_and_command() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let runner = Arc::new(Runner::new(Duration::from_secs(60), 9, metrics.clone()));
        let sleep = |seconds: &str| {
            let argv = vec!["sleep".to_owned(), seconds.to_owned()];
            Task::Load(Command {
                text: argv.join(" "),
                name: "sleep".to_owned(),
                argv,
                log_output: false,
                return_output: false,
            })
        };
        for (canary, seconds, running) in [
            ("podinfo.test", "30", 1),
            ("podinfo.prod", "30", 2),
            ("other.test", "30", 3),
            ("podinfo.test", "31", 4),
            // The same task runs already.
            ("podinfo.test", "30", 4),
            ("podinfo.prod", "30", 4),
        ] {
            let answer = runner.take(canary.to_owned(), sleep(seconds)).await;
            assert_eq!(answer, (202, String::new()));
            assert_eq!(metrics.running.get(), running, "{canary} {seconds}");
        }
        let skipped = r#"flagger_rs_loadtester_tasks_total{outcome="skipped"} 2"#;
        assert!(metrics.render().contains(skipped), "{}", metrics.render());
        runner.end().await;
        assert_eq!(metrics.running.get(), 0);
    }
}
