//! Builds the programs of this workspace, and makes images for a cell out of them.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Error, cell::images::Image};

/// The root of the workspace.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Builds binaries of the workspace in the profile of the running program. Returns the folder that has them.
pub fn build(names: &[&str]) -> Result<PathBuf, Error> {
    let profile = own_profile()?;
    cargo_build(&profile, names)?;
    Ok(profile)
}

/// Builds binaries of the workspace in the release profile. Returns the folder that has them.
pub fn build_release(names: &[&str]) -> Result<PathBuf, Error> {
    let profile = own_profile()?.with_file_name("release");
    cargo_build(&profile, names)?;
    Ok(profile)
}

/// The folder of the running program's profile, for example `target/debug`.
fn own_profile() -> Result<PathBuf, Error> {
    let own = std::env::current_exe().map_err(|e| Error::io(Path::new("this program"), e))?;
    // Cargo puts tests into the folder `deps` of the profile, and examples into `examples`.
    let mut folders = own.ancestors().skip(1);
    let profile = folders.find(|folder| {
        !["deps", "examples"]
            .iter()
            .any(|name| folder.ends_with(name))
    });
    let profile = profile.ok_or_else(|| Error::Failed("no target folder".to_owned()))?;
    Ok(profile.to_owned())
}

/// Runs `cargo build`, whose output is the terminal's. Without `-p` the features are those of all default members, so that nothing is
/// compiled twice for programs that were started with `cargo run`.
fn cargo_build(profile: &Path, names: &[&str]) -> Result<(), Error> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(&cargo);
    build.arg("build").current_dir(ROOT);
    if let Some(target) = profile.parent() {
        build.env("CARGO_TARGET_DIR", target);
    }
    // The folder has the name of the profile, except for `dev`.
    let name = profile.file_name().and_then(|name| name.to_str());
    let name = name.map_or("dev", |name| if name == "debug" { "dev" } else { name });
    build.args(["--profile", name]);
    build.args(names.iter().flat_map(|name| ["--bin", name]));
    let status = build
        .status()
        .map_err(|e| Error::io(Path::new(&cargo), e))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Failed(format!("cannot build {}", names.join(", "))))
}

/// The images that the walkthrough uses: the sample application and the load tester. `folder` has their programs.
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

/// The operator's image, with the files that `kustomize/base/flagger` and the Dockerfile expect in it.
pub fn operator(program: &Path) -> Image {
    Image::new("flagger", program)
        .with("flagger", program)
        .with("wget", program)
}

/// A faulty version of the sample application.
pub fn podinfo(folder: &Path, tag: &str, flags: &[&str]) -> Image {
    let podinfo = folder.join("podinfo");
    let name = format!("podinfo:{tag}");
    // The probe client takes no flags: faults affect only requests of users, not probes.
    Image::new(&name, &podinfo)
        .with("podinfo", &podinfo)
        .flags(flags)
        .with("podcli", &podinfo)
}
