//! A folder that goes when we do: not only at our end, but also after a SIGKILL.

use std::{
    fs,
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::Error;

/// Waits on a pipe that only we hold open. A line: the folder stays. Its end: the folder goes.
const GUARD: &str = r#"
read -r keep && exit
# Whoever makes a folder of this name again meets none of ours.
mv "$1" "$1.gone"
# What ends with us may be writing still.
for try in $(seq 100); do
    rm -rf "$1.gone" 2>/dev/null && exit
    sleep 0.1
done
"#;

/// A folder of ours. Dropping it removes it, unless it is to be kept or a test fails.
pub struct Folder {
    path: PathBuf,
    guard: Child,
    keep: bool,
}

impl Folder {
    /// A new one, for temporary files.
    pub fn new() -> Result<Self, Error> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("testbed-{}-{count}", std::process::id());
        Self::at(std::env::temp_dir().join(name))
    }

    /// Makes this folder ours, with all that is in it.
    pub fn at(path: PathBuf) -> Result<Self, Error> {
        fs::create_dir_all(&path).map_err(|e| Error::io(&path, e))?;
        let guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C is for us.
            .process_group(0)
            .spawn()
            .map_err(|e| Error::io(Path::new("sh"), e))?;
        Ok(Self {
            path,
            guard,
            keep: false,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// It stays when we end.
    pub const fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let stdin = self.guard.stdin.take();
        if self.keep || std::thread::panicking() {
            eprintln!("testbed: logs are in {}", self.path.display());
            // A guard that is gone removes nothing.
            let _ = stdin.map(|mut stdin| stdin.write_all(b"keep\n"));
        } else {
            drop(stdin);
        }
        // It was ours to wait for, and there is nothing more to do if it cannot be.
        let _ = self.guard.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_with_all_that_is_in_it_unless_it_is_kept() {
        let folder = Folder::new().unwrap();
        let path = folder.path().to_owned();
        fs::create_dir(path.join("etcd")).unwrap();
        fs::write(path.join("etcd/log"), "text").unwrap();
        drop(folder);
        assert!(!path.exists());

        let mut folder = Folder::at(path.clone()).unwrap();
        folder.keep();
        drop(folder);
        assert!(path.exists());
        drop(Folder::at(path.clone()).unwrap());
        assert!(!path.exists());
    }
}
