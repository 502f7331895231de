//! Reads the scenarios in `scenarios/*.yaml`.

use std::{fs, path::PathBuf};

use serde::Deserialize;
use serde_json::Value;

/// Returns the path of a file or folder in `tests/conformance`.
pub fn folder(name: &str) -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.join("tests/conformance").join(name)
}

/// The actions of a user, and the conditions that the player waits for between them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The file name without its extension.
    #[serde(skip)]
    pub name: String,
    /// A one-line description. It must equal the description in the recording.
    pub does: String,
    /// The namespace. The default is the name without its hyphens.
    #[serde(default)]
    pub namespace: String,
    pub script: Vec<Verb>,
}

/// One action or one wait. In objects and patches, `$NS` stands for the namespace, `$FAKES` for the address of the servers around the
/// operator, and `$HOOKS` for the address of the scenario's webhooks.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Verb {
    /// Begins a step. The recording assigns all later lines to it.
    Step(String),
    /// Waits this many seconds, so that the recording also shows when nothing happens.
    Settle(f64),
    /// Records all objects and the output of `kubectl get`.
    Snapshot(String),
    /// Creates an object, or patches it if it exists.
    Apply(Value),
    /// Like `Apply`, and also sets the last-applied annotation of `kubectl apply`.
    KubectlApply(Value),
    /// Applies a file of `examples/walkthrough` like `kubectl apply`.
    Manifest(String),
    /// Sends a JSON merge patch.
    Patch {
        object: String,
        with: Value,
    },
    /// Sends a merge patch of the Canary's spec.
    PatchCanary(Value),
    Delete(String),
    /// Waits until an object is deleted.
    Gone(String),
    /// Sets the image of a workload like `kubectl set image`.
    Image(Image),
    /// Waits until a workload is rolled out.
    Ready(Ready),
    /// Waits until the Canary has been in this phase since the step began, and no longer drains.
    Phase(String),
    /// Waits until the Canary has had this weight since the step began.
    Weight(u64),
    /// Waits until a webhook has received a matching event since the step began.
    Event(Event),
    /// Sets the answers to all later queries that match. The last answer repeats.
    Metric {
        query: String,
        answers: Vec<Value>,
    },
    /// Sets the next answers of a webhook. The last answer repeats.
    Hook {
        name: String,
        answers: Vec<Value>,
    },
    /// Creates the workload, then the Canary in step `bootstrap`, and waits until the Canary is initialized.
    Start(Start),
    /// Begins a step, sets a new version, and waits until its run has succeeded.
    Release(Release),
    /// Begins a step, sets a new version with a bad success rate, and waits until the operator has rolled it back.
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
    /// The number of available pods to wait for. The default is `spec.replicas`.
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
    /// The differences from the usual Canary.
    pub canary: Value,
    /// The differences from the usual workload.
    #[serde(default)]
    pub podinfo: Value,
    /// Whether the player waits until the workload is rolled out.
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
