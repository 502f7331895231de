//! The load tester: a server that webhooks call to put load on a version, to try whether it is acceptable, and to ask whether a gate is
//! open. It speaks Flagger's load tester's API, so that hooks written for that one work.
//!
//! | question | place |
//! | --- | --- |
//! | which flags are there? | [`args`] |
//! | what was called, and by whom? | [`call`] |
//! | what is to be done, with which words? | [`task`], [`words`] |
//! | what is asked of other servers that put load on a version? | [`concord`], [`ngrinder`] |
//! | which gates are open? | [`gate`] |
//! | who listens, runs commands, and keeps the gates? | [`shell`], and nobody else |
//!
//! # Where it departs from Flagger's
//!
//! What a hook is answered on a healthy release is the same. What is bounded here and is not there:
//!
//! * A command runs in a process group of its own, which ends with the command's time and with the load tester; only what leaves the
//!   group by itself (`setsid`, `timeout`) goes on. There the shell is killed, and all that it started goes on.
//! * So much of a command's output is kept, and the rest is left out ([`shell::command::OUTPUT`]); so many commands run at once
//!   (`-concurrency`), and the next call is answered with 429, which webhooks with `retries` try again.
//! * A body is at most 1 MiB, and has to arrive in time. One that is no JSON is answered with the reason; there it is answered with
//!   nothing. An unknown type of task is answered with 400; there the server panics.
//! * With `-allow`, only these commands run, without a shell. With `LOADTESTER_TOKEN`, only who knows it is served. With `-gates`, what
//!   was opened is open after a restart.
//! * nGrinder is asked at the interval that was given; there `1s` is 31 years and `10s` ends the process. A process of Concord that was
//!   cancelled or ran out of time there has failed, instead of being asked for until the end of time here.

use std::collections::BTreeMap;

pub mod args;
pub mod call;
pub mod concord;
pub mod gate;
pub mod ngrinder;
pub mod shell;
pub mod task;
pub mod token;
pub mod words;

/// What a webhook says of its task, beside whom it is for.
pub type Metadata = BTreeMap<String, String>;

/// How far another server is with what it was asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// To be asked for again.
    Running,
    /// Done, well.
    Finished,
    /// Done, not well, for that reason.
    Failed(String),
}
