//! Runs commands: each in a process group of its own, so that what it starts ends with it, and with no more of its output than is sane.

use std::{
    collections::BTreeSet,
    io,
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    process::{Child, Command},
};

use crate::loadtester::args::TOKEN;

/// So many bytes of what a command says are kept. The rest is read and left out, so that the command does not wait for a reader.
pub const OUTPUT: usize = 1 << 20;

/// What a command said, to stdout and stderr, as it came.
#[derive(Default)]
pub struct Output {
    kept: Vec<u8>,
    left_out: u64,
}

impl Output {
    /// As text, with a word on what was left out.
    pub fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.kept);
        match self.left_out {
            0 => text.into_owned(),
            bytes => format!("{text}\n[{bytes} bytes more were left out]"),
        }
    }

    /// Reads to the end.
    async fn read(&mut self, mut from: pipe::Receiver) -> io::Result<()> {
        let mut chunk = vec![0; 16 * 1024];
        loop {
            let count = from.read(&mut chunk).await?;
            if count == 0 {
                return Ok(());
            }
            let kept = count.min(OUTPUT - self.kept.len());
            self.kept.extend(chunk.iter().take(kept));
            // A count of bytes fits.
            self.left_out += (count - kept) as u64;
        }
    }
}

/// The process groups that may have members, so that none is left when the load tester ends.
#[derive(Default)]
pub struct Groups(Mutex<BTreeSet<i32>>);

impl Groups {
    /// Runs a command until it has ended and nobody is left who could write to its output; or says what went wrong, in Go's words.
    /// If this is dropped before, all of its process group is killed.
    pub async fn run(&self, argv: &[String], output: &mut Output) -> Result<(), String> {
        let Some((program, args)) = argv.split_first() else {
            return Err("exec: no command".to_owned());
        };
        let ended = self.execute(program, args, output).await;
        let status = ended.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                format!("exec: {program:?}: executable file not found in $PATH")
            }
            _ => format!("exec: {program:?}: {error}"),
        })?;
        if status.success() {
            return Ok(());
        }
        Err(describe(status))
    }

    async fn execute(
        &self,
        program: &str,
        args: &[String],
        output: &mut Output,
    ) -> io::Result<ExitStatus> {
        let (reader, writer) = io::pipe()?;
        let reader = pipe::Receiver::from_owned_fd(reader.into())?;
        // This process's ends for writing close with the statement, so that reading ends with the command.
        let child = Command::new(program)
            .args(args)
            .env_remove(TOKEN)
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0)
            .spawn()?;
        let mut running = Running {
            group: child.id().and_then(|id| i32::try_from(id).ok()),
            child,
            groups: self,
        };
        self.groups().extend(running.group);
        output.read(reader).await?;
        running.child.wait().await
    }

    /// Kills every process that a command has left behind.
    pub fn kill_all(&self) {
        for group in std::mem::take(&mut *self.groups()) {
            kill(group);
        }
    }

    fn groups(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A command in its process group, until it was waited for.
struct Running<'a> {
    child: Child,
    group: Option<i32>,
    groups: &'a Groups,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let Some(group) = self.group else { return };
        // It has an id as long as it was not waited for.
        if self.child.id().is_some() {
            kill(group);
        }
        // A command may leave processes behind on purpose, silent ones. Their group is known by its number as long as it has members.
        self.groups.groups().retain(|group| has_members(*group));
    }
}

fn kill(group: i32) {
    // Fails only if nobody is left.
    let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
}

fn has_members(group: i32) -> bool {
    killpg(Pid::from_raw(group), None).is_ok()
}

/// What Go calls signals on Linux, by their numbers.
const SIGNALS: [&str; 16] = [
    "signal 0",
    "hangup",
    "interrupt",
    "quit",
    "illegal instruction",
    "trace/breakpoint trap",
    "aborted",
    "bus error",
    "floating point exception",
    "killed",
    "user defined signal 1",
    "segmentation fault",
    "user defined signal 2",
    "broken pipe",
    "alarm clock",
    "terminated",
];

/// How a command ended, as Go words it.
fn describe(status: ExitStatus) -> String {
    let Some(signal) = status.signal() else {
        return format!("exit status {}", status.code().unwrap_or(-1));
    };
    let name = usize::try_from(signal)
        .ok()
        .and_then(|signal| SIGNALS.get(signal));
    let name = name.map_or_else(|| format!("signal {signal}"), |name| (*name).to_owned());
    let core = if status.core_dumped() {
        " (core dumped)"
    } else {
        ""
    };
    format!("signal: {name}{core}")
}
