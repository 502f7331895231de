//! What a container's first process must do: it inherits the processes whose parents ended, and nobody else waits for them.

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

/// Runs this program once more, as a child, and passes on what it is told to end by; returns when the child ends, as that does.
///
/// # Errors
/// It cannot be run once more.
pub fn run() -> Result<ExitCode, String> {
    let failed = |what: &str, why: &dyn std::fmt::Display| format!("{what}: {why}");
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD]
        .into_iter()
        .collect();
    let program = env::current_exe().map_err(|e| failed("the program", &e))?;
    // In a group of its own: a terminal tells us, and we tell it.
    let child = Command::new(&program)
        .args(env::args_os().skip(1))
        .process_group(0)
        .spawn()
        .map_err(|e| failed("starting the load tester", &e))?;
    // After the child has begun: it would not hear them either.
    signals.thread_block().map_err(|e| failed("signals", &e))?;
    loop {
        if let Some(code) = reap(&child) {
            return Ok(ExitCode::from(code));
        }
        let told = signals.wait().map_err(|e| failed("signals", &e))?;
        if told != Signal::SIGCHLD {
            // It may have ended: the next signal says so.
            let _ = kill(pid(&child), told);
        }
    }
}

/// Waits for all that ended; the child's code if it is among them.
fn reap(child: &Child) -> Option<u8> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(ended, with)) if ended == pid(child) => {
                code = u8::try_from(with).ok().or(Some(1));
            }
            Ok(WaitStatus::Signaled(ended, by, _)) if ended == pid(child) => {
                // As shells say it.
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
