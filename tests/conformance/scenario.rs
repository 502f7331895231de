//! The format of the scenarios in `scenarios/*.yaml`.

use std::{fs, path::PathBuf};

use serde::Deserialize;
use serde_json::Value;

/// Returns the path of a file or folder in `tests/conformance`.
pub fn folder(name: &str) -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.join("tests/conformance").join(name)
}

/// A script of a user's actions, with waits in between.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The name of the file, without `.yaml`.
    #[serde(skip)]
    pub name: String,
    /// A description in one line. The recording contains the same.
    pub does: String,
    /// The namespace. The default is the name without hyphens.
    #[serde(default)]
    pub namespace: String,
    pub script: Vec<Verb>,
}

/// One action or wait. `$NS` stands for the namespace, `$FAKES` for the address of the fake servers, `$HOOKS` for the address of the
/// scenario's webhooks.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Verb {
    /// Begins a step: all later lines are recorded in it.
    Step(String),
    /// Waits this many seconds, to check that nothing happens.
    Idle(f64),
    /// Records all objects and the tables of `kubectl get`.
    Snapshot(String),
    /// Creates an object, or patches it if it exists.
    Apply(Value),
    /// Creates an object, or patches it, with the annotation of `kubectl apply`.
    KubectlApply(Value),
    /// Applies a file of `examples/walkthrough` as `kubectl apply` does.
    Manifest(String),
    /// Applies a JSON merge patch to an object.
    Patch {
        object: String,
        with: Value,
    },
    /// Applies a merge patch to the spec of the Canary `podinfo`.
    PatchCanary(Value),
    Delete(String),
    /// Waits until an object does not exist any more.
    Gone(String),
    /// Sets the image of the target, as `kubectl set image` does: a new version.
    Image(Image),
    /// Waits until a workload is rolled out.
    Ready(Ready),
    /// Waits until the Canary has been in this phase since the step began.
    Phase(String),
    /// Waits until the Canary has had this weight since the step began.
    Weight(u64),
    /// Waits until a webhook has received a matching event or call since the step began.
    Event(Event),
    /// Sets the answers to matching queries, in order. The last one is repeated.
    Metric {
        query: String,
        answers: Vec<Value>,
    },
    /// Sets the answers of a webhook, in order. The last one is repeated.
    Hook {
        name: String,
        answers: Vec<Value>,
    },
    /// Creates the workload and then, in step `bootstrap`, the Canary. Waits until the Canary is initialized.
    Start(Start),
    /// Begins a step, sets a new version, and waits until its release has succeeded (or is in the phase `until`).
    Release(Release),
    /// Begins a step, sets a new version with a bad success rate, and waits until it is rolled back.
    Fail(Release),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Image {
    Tag(String),
    Of {
        tag: String,
        #[serde(default = "deployment")]
        kind: String,
        #[serde(default = "podinfo")]
        name: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    #[serde(default = "deployment")]
    pub kind: String,
    #[serde(default = "podinfo")]
    pub name: String,
    /// The expected number of pods. The default is the number in the workload's spec.
    pub pods: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Event {
    Once(String),
    Times { pattern: String, count: usize },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// The differences from the default Canary.
    pub canary: Value,
    /// The differences from the default workload.
    #[serde(default)]
    pub podinfo: Value,
    /// Whether to wait until the workload is ready.
    #[serde(default = "yes")]
    pub ready: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Release {
    Tag(String),
    Of {
        tag: String,
        #[serde(default = "deployment")]
        kind: String,
        until: Option<String>,
    },
}

fn yes() -> bool {
    true
}

fn deployment() -> String {
    "Deployment".to_owned()
}

fn podinfo() -> String {
    "podinfo".to_owned()
}

impl Scenario {
    /// Reads all scenarios. The walkthroughs come first, because they take longest.
    pub fn all() -> Vec<Self> {
        let files = fs::read_dir(folder("scenarios")).unwrap();
        let mut all: Vec<_> = files.map(|file| Self::read(file.unwrap().path())).collect();
        all.sort_by_key(|scenario| {
            (
                !scenario.name.starts_with("walkthrough"),
                scenario.name.clone(),
            )
        });
        all
    }

    fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap();
        let mut scenario: Self = serde_saphyr::from_str::<Value>(&text)
            .map_err(|e| e.to_string())
            .and_then(|value| serde_json::from_value(value).map_err(|e| e.to_string()))
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        scenario.name = path.file_stem().unwrap().display().to_string();
        if scenario.namespace.is_empty() {
            scenario.namespace = scenario.name.replace('-', "");
        }
        scenario
    }
}
