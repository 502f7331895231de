//! A folder that is deleted when this process ends, even by SIGKILL.

use std::{
    fs,
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::Error;

/// A shell that waits on a pipe held open by this process. If it reads a line, the folder stays. If the pipe closes, the shell deletes the
/// folder.
const GUARD: &str = r#"
read -r keep && exit
# Another process may create a folder of this name again.
mv "$1" "$1.gone"
# Processes that are ending may still write files.
for try in $(seq 100); do
    rm -rf "$1.gone" 2>/dev/null && exit
    sleep 0.1
done
"#;

/// A folder that this process owns. Dropping it deletes it, unless `keep` was called or a test is failing.
pub struct Folder {
    path: PathBuf,
    guard: Child,
    keep: bool,
}

impl Folder {
    /// Creates a folder for temporary files.
    pub fn new() -> Result<Self, Error> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("testbed-{}-{count}", std::process::id());
        Self::at(std::env::temp_dir().join(name))
    }

    /// Takes ownership of this folder and its content.
    pub fn at(path: PathBuf) -> Result<Self, Error> {
        fs::create_dir_all(&path).map_err(|e| Error::io(&path, e))?;
        let guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C must not reach the guard.
            .process_group(0)
            .spawn()
            .map_err(|e| Error::io(Path::new("sh"), e))?;
        Ok(Self {
            path,
            guard,
            keep: false,
        })
    }

    /// The path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps the folder when it is dropped.
    pub const fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let stdin = self.guard.stdin.take();
        if self.keep || std::thread::panicking() {
            eprintln!("testbed: logs are in {}", self.path.display());
            // If the write fails, the guard is gone and deletes nothing.
            let _ = stdin.map(|mut stdin| stdin.write_all(b"keep\n"));
        } else {
            drop(stdin);
        }
        // Nothing more can be done if waiting fails.
        let _ = self.guard.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_deleted_with_its_content_unless_it_is_kept() {
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
