//! The first process of a cell's PID namespace. When it ends, all in the cell ends.

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

/// Makes the cell's network and mounts, runs the node, and waits for orphans until the node ends or nobody holds our standard input.
pub fn run(folder: &Path) -> Result<(), Error> {
    enter::prepare()?;
    network::set_up()?;
    // Who started us holds the other end, and says nothing: it ends when they do, whatever they die of.
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
