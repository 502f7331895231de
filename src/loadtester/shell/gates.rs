//! Stores the open gates in memory and, with `-gates`, in a file.

use std::{
    ffi::OsStr,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use tokio::{fs, io::AsyncWriteExt, sync::Mutex};

use crate::loadtester::{call::Action, gate::Gates};

/// The current gates and their file.
pub struct StoredGates {
    file: Option<PathBuf>,
    gates: Mutex<Gates>,
}

impl StoredGates {
    /// Reads the open gates from the file. Starts with all gates closed if `file` is `None` or the file does not exist. An error names
    /// the file and a way to fix it.
    pub async fn load(file: Option<String>) -> Result<Self, String> {
        let file = file.map(PathBuf::from);
        let gates = match &file {
            None => Gates::default(),
            Some(path) => {
                let gates = match fs::read_to_string(path).await {
                    Ok(text) => Gates::read(&text).map_err(|error| error.to_string()),
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(Gates::default()),
                    Err(error) => Err(error.to_string()),
                };
                gates.map_err(|why| {
                    format!(
                        "-gates={}: {why}; repair the file, or remove it to start with all gates closed",
                        path.display()
                    )
                })?
            }
        };
        let stored = Self {
            file,
            gates: Mutex::new(gates.clone()),
        };
        // If the file cannot be written, fail now and not when a gate is opened.
        stored.write(&gates).await?;
        Ok(stored)
    }

    /// Does an action on a gate and returns whether the gate is open then. If the file cannot be written, the gate does not change.
    pub async fn act(&self, action: Action, key: &str) -> Result<bool, String> {
        let mut gates = self.gates.lock().await;
        let wanted = match action {
            Action::Check => return Ok(gates.is_open(key)),
            Action::Open => gates.clone().open(key.to_owned()),
            Action::Close => gates.clone().close(key),
        };
        if wanted != *gates {
            self.write(&wanted).await?;
            *gates = wanted;
        }
        Ok(gates.is_open(key))
    }

    /// Replaces the complete file: a reader finds either the old or the new content.
    async fn write(&self, gates: &Gates) -> Result<(), String> {
        let Some(path) = &self.file else {
            return Ok(());
        };
        let mut new = path.clone().into_os_string();
        new.push(".new");
        let written = replace(path, &new, gates.text().as_bytes()).await;
        written.map_err(|error| format!("-gates={}: cannot be written: {error}", path.display()))
    }
}

/// Replaces a file atomically. The content is complete even after a power failure.
async fn replace(path: &Path, new: &OsStr, text: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(new).await?;
    file.write_all(text).await?;
    file.sync_all().await?;
    fs::rename(new, path).await
}
