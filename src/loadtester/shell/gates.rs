//! The gates as they are now, and in a file, if there is one.

use std::{
    ffi::OsStr,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use tokio::{fs, io::AsyncWriteExt, sync::Mutex};

use crate::loadtester::{call::Action, gate::Gates};

/// The gates that are open.
pub struct KeptGates {
    file: Option<PathBuf>,
    gates: Mutex<Gates>,
}

impl KeptGates {
    /// Those that the file names; none, if there is no file or it is not there yet. An error names the file, and says what to do.
    pub async fn load(file: Option<String>) -> Result<Self, String> {
        let file = file.map(PathBuf::from);
        let gates = match &file {
            None => Gates::default(),
            Some(path) => {
                let gates = match fs::read_to_string(path).await {
                    Ok(text) => Gates::read(&text),
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(Gates::default()),
                    Err(error) => Err(error.to_string()),
                };
                gates.map_err(|why| {
                    format!(
                        "-gates={}: {why}; mend it, or remove it to begin with all gates closed",
                        path.display()
                    )
                })?
            }
        };
        let kept = Self {
            file,
            gates: Mutex::new(gates.clone()),
        };
        // Better known now than when a gate is to be opened.
        kept.write(&gates).await?;
        Ok(kept)
    }

    /// Whether a gate is open, once an action is done. If it could not be kept, it is not done.
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

    /// Replaces the file as a whole: whoever reads it, and whenever, finds either what was or what is.
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

/// Also when the machine loses its power.
async fn replace(path: &Path, new: &OsStr, text: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(new).await?;
    file.write_all(text).await?;
    file.sync_all().await?;
    fs::rename(new, path).await
}
