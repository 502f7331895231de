//! The load tester: a server that webhooks call to put load on a version, to test it, and to check gates. It has the API of Flagger's
//! load tester, so that existing webhooks work.
//!
//! | question | place |
//! | --- | --- |
//! | which flags are there? | [`args`] |
//! | which endpoint was called, and for which canary? | [`call`] |
//! | which task does a webhook request, and which command does it run? | [`task`], [`command_line`] |
//! | which requests do other load test servers get? | [`concord`], [`ngrinder`] |
//! | which gates are open? | [`gate`] |
//! | which code listens, runs commands and stores the gates? | [`shell`], and no other module |
//!
//! # Differences from Flagger's load tester
//!
//! On a healthy release, a webhook gets the same answers. These points differ:
//!
//! * A command runs in a process group of its own. The load tester kills the group at the command's time limit and when the load tester
//!   stops. Only processes that leave the group (`setsid`, `timeout`) continue. Flagger kills the shell only, and all processes that the
//!   shell started continue.
//! * The load tester keeps a limited part of a command's output ([`shell::command::MAX_OUTPUT`]) and runs a limited number of tasks at the
//!   same time (`-concurrency`). It answers further calls with 429. Webhooks with `retries` then try again.
//! * A body has at most 1 MiB and must arrive in time. If it is not JSON, the answer contains the reason; Flagger's answer is empty. An
//!   unknown type of task is answered with 400; Flagger's server panics.
//! * With `-allow`, only the named programs run, and without a shell. With `LOADTESTER_TOKEN`, callers must know the token. With `-gates`,
//!   open gates stay open after a restart.
//! * nGrinder is polled at the interval of the metadata. In Flagger, an interval of `1s` is 31 years and `10s` ends the process.
//! * A Concord process that was cancelled or timed out has failed. Flagger polls it forever.

use std::collections::BTreeMap;

pub mod args;
pub mod call;
pub mod command_line;
pub mod concord;
pub mod gate;
pub mod ngrinder;
pub mod shell;
pub mod task;
pub mod token;

/// The metadata of a webhook, which describe its task.
pub type Metadata = BTreeMap<String, String>;

/// The progress of a task on another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The task still runs. The load tester polls it again.
    Running,
    /// The task ended successfully.
    Finished,
    /// The task failed for this reason.
    Failed(String),
}
