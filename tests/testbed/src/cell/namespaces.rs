//! The Linux namespaces of a cell: creates them, and enters them from outside.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::Error;

/// The file with the id of the `unshare` process.
const PID: &str = "pid";
const COMMON: [&str; 6] = [
    "--net",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
];
const USER: [&str; 2] = ["--user", "--map-root-user"];
/// The error where namespaces are forbidden.
const FORBIDDEN: &str = "this machine does not let you create namespaces, which a cell needs. Allow it as root, with the one of these \
    commands that works on this machine:\n  \
      sysctl -w kernel.apparmor_restrict_unprivileged_userns=0    # Ubuntu\n  \
      sysctl -w kernel.unprivileged_userns_clone=1                # Debian\n  \
      sysctl -w user.max_user_namespaces=10000                    # others\n\
    or run this as root. In a container, it must be privileged";

/// The arguments of `unshare` for the namespaces of a cell. If this process may not create them, the error says how to allow it.
pub fn allowed() -> Result<Vec<&'static str>, Error> {
    for user in [&USER[..], &[]] {
        let args = [user, &COMMON].concat();
        let tried = Command::new("unshare")
            .args(&args)
            .arg("true")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map_err(unshare_failed)?;
        if tried.success() {
            return Ok(args);
        }
    }
    Err(Error::Failed(FORBIDDEN.to_owned()))
}

/// Starts a cell's first process in new namespaces. All processes in them end when its standard input is closed.
pub fn make(folder: &Path, program: &Path) -> Result<Child, Error> {
    let log = folder.join("cell.log");
    let out = File::create(&log).map_err(|e| Error::io(&log, e))?;
    let err = out.try_clone().map_err(|e| Error::io(&log, e))?;
    let child = Command::new("unshare")
        .args(allowed()?)
        .arg(program)
        .arg("init")
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(out)
        .stderr(err)
        // Ctrl-C must not reach the cell.
        .process_group(0)
        .spawn()
        .map_err(unshare_failed)?;
    fs::write(folder.join(PID), child.id().to_string()).map_err(|e| Error::io(folder, e))?;
    Ok(child)
}

/// The `nsenter` command line to which a command for the cell's node is appended.
pub fn inside(folder: &Path) -> Result<Vec<String>, Error> {
    let read = |file: &Path| fs::read_to_string(file).map_err(|e| Error::io(file, e));
    let unshare = read(&folder.join(PID))?;
    // `unshare` itself stays outside; its child is the cell's first process.
    let children = read(Path::new(&format!(
        "/proc/{unshare}/task/{unshare}/children"
    )))?;
    let first = children.split_whitespace().next().unwrap_or_default();
    let user_namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/user"));
    let is_same_user = matches!((user_namespace("self"), user_namespace(first)), (Ok(ours), Ok(theirs)) if ours == theirs);
    let mut words = vec!["nsenter", "--target", first, "--net", "--mount", "--pid"];
    if !is_same_user {
        words.extend(["--user", "--preserve-credentials"]);
    }
    words.push("--");
    Ok(words.into_iter().map(str::to_owned).collect())
}

fn unshare_failed(error: std::io::Error) -> Error {
    Error::io(Path::new("unshare (of util-linux)"), error)
}
