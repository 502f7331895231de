//! The first process of a cell's PID namespace. When it ends, the kernel ends all processes of the cell.

use std::{
    io::{Read, stdin},
    path::Path,
    process::{Command, Stdio},
};

use nix::{
    errno::Errno,
    sys::wait::{WaitStatus, wait},
};

use super::{enter, network};
use crate::Error;

/// Sets up the cell's network and mounts, and runs the node. Reaps orphans until the node ends or the standard input is closed.
pub fn run(folder: &Path) -> Result<(), Error> {
    enter::prepare()?;
    network::set_up()?;
    // The process that started the cell holds the other end of the pipe and writes nothing. The pipe closes when that process ends.
    std::thread::spawn(|| {
        let _ = stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let own = std::env::current_exe().map_err(|e| Error::io(folder, e))?;
    let node = Command::new(&own)
        .arg("node")
        .arg(folder)
        .stdin(Stdio::null())
        .spawn()
        .map_err(|e| Error::io(&own, e))?;
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, code)) if pid.as_raw().unsigned_abs() == node.id() => {
                return Err(Error::Failed(format!("the node ended ({code})")));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(Error::io(folder, error.into())),
        }
    }
}
