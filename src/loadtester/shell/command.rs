//! Runs commands. Each command has a process group of its own, so that the processes that it started end with it. The output that is kept
//! is limited.

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

/// The maximum number of bytes of a command's output that are kept. The rest is read and dropped, so that the command does not block.
pub const MAX_OUTPUT: usize = 1 << 20;

/// The output of a command to stdout and stderr, in the order of arrival.
#[derive(Default)]
pub struct Output {
    kept: Vec<u8>,
    dropped: u64,
}

impl Output {
    /// The output as text, with a note if a part was dropped.
    pub fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.kept);
        match self.dropped {
            0 => text.into_owned(),
            bytes => format!("{text}\n[{bytes} bytes more were left out]"),
        }
    }

    /// Reads the output to its end.
    async fn read(&mut self, mut from: pipe::Receiver) -> io::Result<()> {
        let mut chunk = vec![0; 16 * 1024];
        loop {
            let count = from.read(&mut chunk).await?;
            if count == 0 {
                return Ok(());
            }
            let kept = count.min(MAX_OUTPUT - self.kept.len());
            self.kept.extend(chunk.iter().take(kept));
            self.dropped += (count - kept) as u64;
        }
    }
}

/// The process groups that may still have processes. The load tester kills them before it ends.
#[derive(Default)]
pub struct Groups(Mutex<BTreeSet<i32>>);

impl Groups {
    /// Runs a command until it ends and no process can write to its output any more. The error is Go's text. If the future is dropped
    /// before, all processes of the group are killed.
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
        // At the end of this statement, this process closes its own writers of the pipe: then reading ends with the command.
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

    /// Kills every process that commands have left behind in their process groups.
    pub fn kill_all(&self) {
        for group in std::mem::take(&mut *self.groups()) {
            kill(group);
        }
    }

    fn groups(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running command in its process group.
struct Running<'a> {
    child: Child,
    group: Option<i32>,
    groups: &'a Groups,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let Some(group) = self.group else { return };
        // The child has an id until its exit status is collected. Only until then is the id certain to be the child's.
        if self.child.id().is_some() {
            kill(group);
        }
        // A command may leave processes behind on purpose. The number of their group stays valid while the group has members.
        self.groups.groups().retain(|group| has_members(*group));
    }
}

fn kill(group: i32) {
    // This fails only if the group has no process left.
    let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
}

fn has_members(group: i32) -> bool {
    killpg(Pid::from_raw(group), None).is_ok()
}

/// Go's names of signals on Linux, by number.
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

/// Go's text for the status of a command that failed.
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
