//! Images of a cell: folders with programs.
//!
//! An image's folder is `IMAGES/NAME@TAG` if it exists, or else `IMAGES/NAME`, where NAME is the last part of the image's name. The folder
//! is the container's working directory and the head of its `PATH`. A container without a `command` runs `entrypoint` there.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use crate::Error;

/// The programs and files of an image, or of one tag of it.
#[derive(Clone, Debug)]
pub struct Image {
    name: String,
    programs: Vec<Program>,
    files: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
struct Program {
    name: String,
    path: PathBuf,
    flags: Vec<String>,
}

impl Image {
    /// An image whose entrypoint is a program. `name` may have a tag.
    pub fn new(name: &str, entrypoint: &Path) -> Self {
        let image = Self {
            name: name.to_owned(),
            programs: Vec::new(),
            files: Vec::new(),
        };
        image.with("entrypoint", entrypoint)
    }

    /// Adds a program under this name.
    #[must_use]
    pub fn with(mut self, name: &str, program: &Path) -> Self {
        self.programs.push(Program {
            name: name.to_owned(),
            path: program.to_owned(),
            flags: Vec::new(),
        });
        self
    }

    /// Adds a text file.
    #[must_use]
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// Appends flags to those of the manifest, for each program added so far.
    #[must_use]
    pub fn flags(mut self, flags: &[&str]) -> Self {
        for program in &mut self.programs {
            program
                .flags
                .extend(flags.iter().map(|flag| (*flag).to_owned()));
        }
        self
    }

    /// Writes the image's folder. Containers that start from now on use it.
    pub fn install(&self, images: &Path) -> Result<(), Error> {
        // The folder is an entry of `PATH`, which must not contain a colon.
        let folder = images.join(self.name.replace(':', "@"));
        let io = |e| Error::io(&folder, e);
        fs::create_dir_all(&folder).map_err(io)?;
        for (name, text) in &self.files {
            fs::write(folder.join(name), text).map_err(io)?;
        }
        for Program { name, path, flags } in &self.programs {
            let file = folder.join(name);
            // Replace an earlier file.
            let _ = fs::remove_file(&file);
            if flags.is_empty() {
                symlink(path, file).map_err(io)?;
                continue;
            }
            let flags: Vec<_> = flags.iter().map(|flag| format!("'{flag}'")).collect();
            // The program keeps its name: one binary may act differently by name.
            let script = format!(
                "#!/usr/bin/env bash\nexec -a {name} '{}' \"$@\" {}\n",
                path.display(),
                flags.join(" ")
            );
            fs::write(&file, script).map_err(io)?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).map_err(io)?;
        }
        Ok(())
    }
}

/// The folder of an image. `None` if there is none.
pub fn folder(images: &Path, image: &str) -> Option<PathBuf> {
    let (name, tag) = split(image);
    [format!("{name}@{tag}"), name.to_owned()]
        .map(|name| images.join(name))
        .into_iter()
        .find(|folder| folder.is_dir())
}

/// The last part of an image's name, and its tag.
pub fn split(image: &str) -> (&str, &str) {
    let last = image.rsplit('/').next().unwrap_or_default();
    let last = last.split('@').next().unwrap_or_default();
    last.split_once(':').unwrap_or((last, "latest"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_without_a_folder_uses_the_folder_of_its_image() {
        let images = crate::folder::Folder::new().unwrap();
        let images = images.path();
        for name in ["podinfo", "podinfo:3.1.2"] {
            Image::new(name, Path::new("/bin/true"))
                .install(images)
                .unwrap();
        }
        let found = |image| folder(images, image);
        assert_eq!(
            found("stefanprodan/podinfo:3.1.2"),
            Some(images.join("podinfo@3.1.2"))
        );
        assert_eq!(
            found("registry:5000/podinfo:3.1.0"),
            Some(images.join("podinfo"))
        );
        assert_eq!(found("podinfo"), Some(images.join("podinfo")));
        assert_eq!(found("nginx:1"), None);
        let newer = Image::new("podinfo", Path::new("/bin/false"));
        newer.install(images).unwrap();
        let entrypoint = fs::read_link(images.join("podinfo/entrypoint")).unwrap();
        assert_eq!(entrypoint, Path::new("/bin/false"));
        assert_eq!(split("registry:5000/a/podinfo"), ("podinfo", "latest"));
    }
}
