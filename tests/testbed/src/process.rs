//! Processes that end when this process ends: after a panic, Ctrl-C, and SIGKILL too.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::process::{Child, Command};

use crate::Error;

/// A shell that runs a program and watches a pipe held open by this process. When the pipe closes, the shell kills the program.
const GUARD: &str = r#"
exec 3<&0
# SIGTERM may arrive as soon as the program runs.
pid= term=
trap 'term=1; [ -n "$pid" ] && kill -TERM $pid 2>/dev/null' TERM
"$@" </dev/null 3<&- &
pid=$!
[ -n "$term" ] && kill -TERM $pid 2>/dev/null
# The watcher must not keep the output pipes open: their readers wait for the end.
{ cat <&3; kill -KILL $pid; } >/dev/null 2>&1 &
guard=$!
wait $pid; code=$?
# A signal interrupts `wait`; the next `wait` returns the program's own status.
while [ $code -gt 128 ]; do
    wait $pid; again=$?
    [ $again -eq 127 ] && break
    if [ $again -eq $code ] && ! kill -0 $pid 2>/dev/null; then break; fi
    code=$again
done
kill $guard 2>/dev/null
exit $code
"#;

/// A command that ends with this process. The program itself has no input. The command's standard input is a pipe, which the caller must
/// keep open as long as the program may run.
pub fn guarded(program: &Path) -> std::process::Command {
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", GUARD, "guard"])
        .arg(program)
        .stdin(Stdio::piped());
    command
}

/// Runs a guarded command to its end. Returns its output.
pub async fn output(command: std::process::Command) -> std::io::Result<Output> {
    let mut child = Command::from(command)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // `wait_with_output` would close it, which kills the program.
    let stdin = child.stdin.take();
    let output = child.wait_with_output().await;
    drop(stdin);
    output
}

/// Resources that a process uses.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Resident memory now.
    pub resident_bytes: u64,
    /// Peak resident memory.
    pub peak_bytes: u64,
    /// Processor time so far.
    pub processor: Duration,
}

/// A running program. Dropping it kills it.
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts a program. Its output goes to `LOGS/NAME.log`.
    pub fn start(
        name: &str,
        program: &Path,
        args: &[String],
        env: &[(String, String)],
        logs: &Path,
    ) -> Result<Self, Error> {
        let log = logs.join(format!("{name}.log"));
        let out = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(|e| Error::io(&log, e))?;
        let err = out.try_clone().map_err(|e| Error::io(&log, e))?;
        let child = Command::from(guarded(program))
            .args(args)
            .envs(env.iter().map(|(key, value)| (key, value)))
            .stdout(out)
            .stderr(err)
            // Ctrl-C must not reach it: this process ends the others in the right order.
            .process_group(0)
            .kill_on_drop(false)
            .spawn()
            .map_err(|e| Error::io(program, e))?;
        Ok(Self {
            name: name.to_owned(),
            log,
            child,
        })
    }

    /// The last lines of the log.
    pub fn log_tail(&self) -> String {
        log_tail(&self.log)
    }

    /// Fails if the process has exited.
    pub fn must_run(&mut self) -> Result<(), Error> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(Error::Ended {
                name: self.name.clone(),
                status: status.to_string(),
                log: self.log_tail(),
            }),
            _ => Ok(()),
        }
    }

    /// Sends a signal to the program itself.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        let sent = kill(Pid::from_raw(self.pid()?), signal);
        sent.map_err(|e| Error::Failed(format!("{signal} to {}: {e}", self.name)))
    }

    /// The program's process id: the program is the first child of its guard.
    fn pid(&self) -> Result<i32, Error> {
        let guard = self.child.id().unwrap_or(0);
        let children = read(&format!("/proc/{guard}/task/{guard}/children"))?;
        let pid = children.split_whitespace().next();
        pid.and_then(|pid| pid.parse().ok())
            .ok_or_else(|| self.has_ended())
    }

    fn has_ended(&self) -> Error {
        Error::Failed(format!("{} has ended", self.name))
    }

    /// The resources that the program uses, from `/proc`.
    pub fn usage(&self) -> Result<Usage, Error> {
        let ended = || self.has_ended();
        let pid = self.pid()?;
        let status = read(&format!("/proc/{pid}/status"))?;
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            kib.map(|kib| kib * 1024).ok_or_else(ended)
        };
        // The fields with the times follow the name, which may contain blanks. They are in hundredths of a second.
        let stat = read(&format!("/proc/{pid}/stat"))?;
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let hundredths = fields.split_whitespace().skip(11).take(2);
        let hundredths: u64 = hundredths
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        Ok(Usage {
            resident_bytes: bytes("VmRSS:")?,
            peak_bytes: bytes("VmHWM:")?,
            processor: Duration::from_millis(hundredths * 10),
        })
    }

    /// Kills the process and waits for its end.
    pub async fn kill(mut self) {
        drop(self.child.stdin.take());
        // Nothing more can be done if waiting fails.
        let _ = self.child.wait().await;
    }

    /// Sends SIGTERM and returns the exit status. If the process does not end in time, kills it and returns an error.
    pub async fn terminate(mut self, within: Duration) -> Result<ExitStatus, Error> {
        if let Some(pid) = self.child.id() {
            let sent = Command::new("kill")
                .args(["-TERM", &pid.to_string()])
                .status()
                .await;
            sent.map_err(|e| Error::io(Path::new("kill"), e))?;
        }
        let ended = tokio::time::timeout(within, async {
            // Waiting closes stdin, which kills the program: keep it open.
            let stdin = self.child.stdin.take();
            let status = self.child.wait().await;
            drop(stdin);
            status
        })
        .await;
        match ended {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(error)) => Err(Error::io(Path::new(&self.name), error)),
            Err(_) => Err(Error::Timeout {
                what: format!("{} to end after SIGTERM", self.name),
                last: self.log_tail(),
            }),
        }
    }
}

fn read(path: &str) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|e| Error::io(Path::new(path), e))
}

/// The last lines of a log, indented. Empty if there is no log.
pub fn log_tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let last = lines.iter().skip(lines.len().saturating_sub(12));
    last.flat_map(|line| ["  ", line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{folder::Folder, wait::until};

    /// A process that prints its id and then runs for ever.
    fn endless(logs: &Path) -> Process {
        let script = ["-c".to_owned(), "echo $$; exec sleep 1000".to_owned()];
        Process::start("endless", Path::new("/bin/sh"), &script, &[], logs).unwrap()
    }

    async fn id(logs: &Path) -> PathBuf {
        until(
            Duration::from_secs(10),
            "the process to print its id",
            async || {
                let text =
                    fs::read_to_string(logs.join("endless.log")).map_err(|e| e.to_string())?;
                let id: u32 = text.trim().parse().map_err(|_| text)?;
                Ok(PathBuf::from(format!("/proc/{id}")))
            },
        )
        .await
        .unwrap()
    }

    async fn gone(process: &Path) {
        until(Duration::from_secs(10), "the process to end", async || {
            if process.exists() {
                Err(format!("{} exists", process.display()))
            } else {
                Ok(())
            }
        })
        .await
        .unwrap();
    }

    /// The test drops the pipe, as the kernel does when this process ends.
    #[tokio::test]
    async fn a_process_does_not_outlive_its_parent() {
        let folder = Folder::new().unwrap();
        let logs = folder.path();
        let process = endless(logs);
        let id = id(logs).await;
        assert!(id.exists());
        drop(process);
        gone(&id).await;
    }

    #[tokio::test]
    async fn the_output_of_a_guarded_program_is_read_to_its_end() {
        let mut command = guarded(Path::new("sh"));
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let ended = tokio::time::timeout(Duration::from_secs(10), output(command));
        let output = ended.await.unwrap().unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(
            (&output.stdout[..], &output.stderr[..]),
            (&b"out\n"[..], &b"err\n"[..])
        );
    }

    #[tokio::test]
    async fn sigterm_ends_a_process() {
        let folder = Folder::new().unwrap();
        let logs = folder.path();
        let process = endless(logs);
        let id = id(logs).await;
        let status = process.terminate(Duration::from_secs(10)).await.unwrap();
        assert_eq!(status.code(), Some(128 + 15));
        gone(&id).await;
    }
}
