//! The duty of a container's first process: it inherits every process whose parent ended, and must wait for it.

use std::{
    env,
    os::unix::process::CommandExt,
    process::{Child, Command, ExitCode},
};

use nix::{
    sys::{
        signal::{SigSet, Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

/// Whether this process is the first one.
pub fn is_first() -> bool {
    std::process::id() == 1
}

/// Runs this program once more as a child process and forwards SIGTERM and SIGINT to it. Returns the child's exit code when the child
/// ends.
///
/// # Errors
///
/// Returns an error if the child cannot be started or signals cannot be received.
pub fn run() -> Result<ExitCode, String> {
    let failed = |what: &str, why: &dyn std::fmt::Display| format!("{what}: {why}");
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD]
        .into_iter()
        .collect();
    let program = env::current_exe().map_err(|e| failed("the program", &e))?;
    // The child has a process group of its own: a terminal signals this process, and this process forwards the signal.
    let child = Command::new(&program)
        .args(env::args_os().skip(1))
        .process_group(0)
        .spawn()
        .map_err(|e| failed("starting the load tester", &e))?;
    // Block the signals after the start of the child, because a child inherits blocked signals.
    signals.thread_block().map_err(|e| failed("signals", &e))?;
    loop {
        if let Some(code) = reap(&child) {
            return Ok(ExitCode::from(code));
        }
        let received = signals.wait().map_err(|e| failed("signals", &e))?;
        if received != Signal::SIGCHLD {
            // This fails if the child has ended. Then the next signal is SIGCHLD.
            let _ = kill(pid(&child), received);
        }
    }
}

/// Waits for all processes that ended. Returns the child's exit code if the child is one of them.
fn reap(child: &Child) -> Option<u8> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(ended, with)) if ended == pid(child) => {
                code = u8::try_from(with).ok().or(Some(1));
            }
            Ok(WaitStatus::Signaled(ended, by, _)) if ended == pid(child) => {
                // Shells return the same exit code for a process that a signal killed.
                code = u8::try_from(128 + by as i32).ok();
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return code,
            Ok(_) => {}
        }
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}
