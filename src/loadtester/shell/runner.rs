//! Does tasks: so many at once, each for so long, those that put load on a version once at a time.

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
    metrics::{Metrics, Outcome},
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

/// So many bytes of what a command said go to the log.
const LOGGED: usize = 8 * 1024;
/// The longest that the end waits for tasks that were told to end: a server may have to be called.
const END: Duration = Duration::from_secs(5);

/// Status and body of an answer.
pub type Answer = (u16, String);

/// Does tasks.
pub struct Runner {
    limit: Duration,
    most: u16,
    slots: Arc<Semaphore>,
    /// What runs in the background: for whom, and what.
    loads: Mutex<HashSet<(String, String)>>,
    groups: Groups,
    http: Http,
    metrics: Arc<Metrics>,
    ending: watch::Sender<Ending>,
}

/// Which tasks are to end.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Ending {
    None,
    /// Those that nobody waits for.
    Loads,
    All,
}

impl Runner {
    /// A runner of at most so many tasks at once, each for so long at most.
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

    /// Does a task for a canary, and says what its caller is answered: at once for what puts load on a version, else when it has ended.
    /// A caller who hangs up ends nothing, as in Flagger: a command that was cut off could leave a mess.
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

    /// Ends what nobody waits for.
    pub fn end_loads(&self) {
        self.ending.send_replace(Ending::Loads);
    }

    /// Ends everything. Afterwards no process is left of the group that a task started.
    pub async fn end(&self) {
        self.ending.send_replace(Ending::All);
        // Who ends in time gives its slot back; who does not is dropped with the runtime.
        let _ = timeout(END, self.slots.acquire_many(self.most.into())).await;
        self.groups.kill_all();
    }

    /// Starts a task that is not waited for, unless it runs already.
    fn start(
        self: &Arc<Self>,
        key: (String, String),
        task: impl Future<Output = Outcome> + Send + 'static,
    ) -> Answer {
        let accepted = (202, String::new());
        if !self.loads().insert(key.clone()) {
            let (canary, what) = key;
            info!(canary, "command skipped {what} is already running");
            self.metrics.count(Outcome::Skipped);
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

    /// Does a task to its end, even if nobody waits for it any more.
    async fn finish(
        self: &Arc<Self>,
        task: impl Future<Output = (Outcome, Answer)> + Send + 'static,
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
            self.metrics.count(Outcome::Refused);
            // Webhooks with retries try again after this status.
            return Err((429, why));
        };
        self.metrics.running.inc();
        Ok(Slot {
            metrics: self.metrics.clone(),
            _permit: permit,
        })
    }

    async fn load(&self, canary: &str, command: &Command) -> Outcome {
        match self.run(canary, command, Ending::Loads).await {
            Ok(_) => Outcome::Finished,
            Err(_) => Outcome::Failed,
        }
    }

    async fn check(&self, canary: &str, command: &Command) -> (Outcome, Answer) {
        info!(canary, "running command {}", command.name);
        match self.run(canary, command, Ending::All).await {
            Ok(output) if command.return_output => (Outcome::Finished, (200, output)),
            Ok(_) => (Outcome::Finished, (200, String::new())),
            Err(why) => (Outcome::Failed, (500, why)),
        }
    }

    /// Runs a command: what it said, or how it failed, in Flagger's words.
    async fn run(&self, canary: &str, command: &Command, ending: Ending) -> Result<String, String> {
        let mut output = Output::default();
        let ended = tokio::select! {
            ended = self.groups.run(&command.argv, &mut output) => ended,
            // Go's word for what then happens to it, and ours for why.
            why = self.up(ending) => Err(format!("signal: killed ({why})")),
        };
        let (Command { text, name, .. }, output) = (command, output.text());
        if let Err(why) = ended {
            error!(canary, "command failed {name} {why} {}", head(&output));
            return Err(format!("command {text} failed: {output}: {why}"));
        }
        // What somebody waited for is always logged, as in Flagger.
        if command.log_output || ending == Ending::All {
            info!(canary, "{}", head(&output));
        }
        info!(canary, "command finished {name}");
        Ok(output)
    }

    async fn concord(&self, canary: &str, job: &concord::Job) -> (Outcome, Answer) {
        let ended = tokio::select! {
            ended = remote::concord(&self.http, job, canary) => ended,
            why = self.up(Ending::All) => Err(format!("context timedout ({why})")),
        };
        match ended {
            Ok(()) => (Outcome::Finished, (200, String::new())),
            Err(why) => {
                error!(canary, "concord task error: {why}");
                (Outcome::Failed, (500, why))
            }
        }
    }

    async fn ngrinder(&self, canary: &str, job: &ngrinder::Job) -> Outcome {
        info!(canary, "task starting ngrinder clone {}", job.clone);
        let up = self.up(Ending::Loads);
        match remote::ngrinder(&self.http, job, canary, up).await {
            Ok(()) => {
                info!(canary, "command finished ngrinder clone {}", job.clone);
                Outcome::Finished
            }
            Err(why) => {
                error!(canary, "command failed ngrinder clone {} {why}", job.clone);
                Outcome::Failed
            }
        }
    }

    /// Waits until a task's time is up, and says why it is.
    async fn up(&self, ending: Ending) -> String {
        let mut told = self.ending.subscribe();
        tokio::select! {
            () = sleep(self.limit) => {
                format!("it ran longer than -timeout={} allows", duration::display(self.limit))
            }
            // The sender is ours: it is there as long as we are.
            _ = told.wait_for(|now| *now >= ending) => "the load tester stops".to_owned(),
        }
    }

    fn loads(&self) -> MutexGuard<'_, HashSet<(String, String)>> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task that counts among those that run.
struct Slot {
    metrics: Arc<Metrics>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.metrics.running.dec();
    }
}

/// A task in the background; it can be started again once this is dropped.
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

/// As much of a text as goes to the log.
fn head(text: &str) -> String {
    let longest = LOGGED.min(text.len());
    let end = (0..=longest).rev().find(|end| text.is_char_boundary(*end));
    match text.split_at_checked(end.unwrap_or(0)) {
        Some((head, rest)) if !rest.is_empty() => {
            format!("{head}\n[{} bytes more are not logged]", rest.len())
        }
        _ => text.to_owned(),
    }
}
