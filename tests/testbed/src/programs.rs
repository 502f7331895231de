//! The programs of this workspace that run in a cell, and the images they stand for.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Error, cell::images::Image};

/// Where the workspace is.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Builds binaries of the workspace in the profile that this process was built in; the folder where they are.
pub fn build(names: &[&str]) -> Result<PathBuf, Error> {
    let own = std::env::current_exe().map_err(|e| Error::io(Path::new("this program"), e))?;
    // Tests are in `deps`, examples in `examples`, both below the profile's folder.
    let profile = own.ancestors().skip(1).find(|folder| {
        !["deps", "examples"]
            .iter()
            .any(|name| folder.ends_with(name))
    });
    let profile = profile.ok_or_else(|| Error::Failed("no target folder".to_owned()))?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(&cargo);
    build.arg("build").current_dir(ROOT);
    if let Some(target) = profile.parent() {
        build.env("CARGO_TARGET_DIR", target);
    }
    if profile.ends_with("release") {
        build.arg("--release");
    }
    build.args(names.iter().flat_map(|name| ["--bin", name]));
    let built = build
        .status()
        .map_err(|e| Error::io(Path::new(&cargo), e))?;
    if built.success() {
        return Ok(profile.to_owned());
    }
    Err(Error::Failed(format!(
        "{} cannot be built",
        names.join(", ")
    )))
}

/// The images that the walkthrough names, from a folder with their programs: the sample application and the load tester.
pub fn images(folder: &Path) -> Vec<Image> {
    let (podinfo, loadtester) = (folder.join("podinfo"), folder.join("loadtester"));
    vec![
        Image::new("podinfo", &podinfo)
            .with("podinfo", &podinfo)
            .with("podcli", &podinfo),
        Image::new("flagger-loadtester", &loadtester)
            .with("loadtester", &loadtester)
            .with("wget", &loadtester),
    ]
}

/// The operator's image, as `kustomize/base/flagger` and its Dockerfile have it.
pub fn operator(program: &Path) -> Image {
    Image::new("flagger", program)
        .with("flagger", program)
        .with("wget", program)
}

/// A version of the sample application with faults.
pub fn podinfo(folder: &Path, tag: &str, flags: &[&str]) -> Image {
    let podinfo = folder.join("podinfo");
    let name = format!("podinfo:{tag}");
    // The probes are sound: the application errs on the traffic's path only.
    Image::new(&name, &podinfo)
        .with("podinfo", &podinfo)
        .flags(flags)
        .with("podcli", &podinfo)
}
