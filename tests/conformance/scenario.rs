//! Scenarios, as `scenarios/*.yaml` have them.

use std::{fs, path::PathBuf};

use serde::Deserialize;
use serde_json::Value;

/// This folder.
pub fn folder(name: &str) -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.join("tests/conformance").join(name)
}

/// The actions of a user, and the conditions to wait for in between.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The name of its file.
    #[serde(skip)]
    pub name: String,
    /// In a line, as its recording has it.
    pub does: String,
    /// The namespace; the name without its hyphens, unless it is given.
    #[serde(default)]
    pub namespace: String,
    pub script: Vec<Verb>,
}

/// One thing that is done or waited for. `$NS` stands for the namespace, `$FAKES` for the address of the servers around the operator,
/// `$HOOKS` for that of the scenario's webhooks.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Verb {
    /// From here on, what is seen belongs to this step.
    Step(String),
    /// Nothing is done for so many seconds: also that nothing happens is recorded.
    Settle(f64),
    /// All objects, and what `kubectl get` prints, go to the recording.
    Snapshot(String),
    /// Creates an object, or patches it.
    Apply(Value),
    /// The same with the annotation of `kubectl apply`.
    KubectlApply(Value),
    /// `kubectl apply` of a file of `examples/walkthrough`.
    Manifest(String),
    /// A JSON merge patch.
    Patch {
        object: String,
        with: Value,
    },
    /// A merge patch of the Canary's spec.
    PatchCanary(Value),
    Delete(String),
    /// Until an object is gone.
    Gone(String),
    /// `kubectl set image`: the new version.
    Image(Image),
    /// Until a workload is rolled out.
    Ready(Ready),
    /// Until the Canary was seen in a phase since the step began.
    Phase(String),
    /// Until the Canary had this weight since the step began.
    Weight(u64),
    /// Until an event was told since the step began.
    Event(Event),
    /// From now on, queries that match get these answers; the last one is repeated.
    Metric {
        query: String,
        answers: Vec<Value>,
    },
    /// From now on, a webhook gives these answers; the last one is repeated.
    Hook {
        name: String,
        answers: Vec<Value>,
    },
    /// The workload and then, in step `bootstrap`, the Canary, until it is initialized.
    Start(Start),
    /// A new version, in a step of its own, until it has succeeded.
    Release(Release),
    /// A new version with a bad success rate, in a step of its own, until it is rolled back.
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
    /// As many as its spec says, unless it is given.
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
    /// Whether the workload is waited for.
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
    /// All there are, the longest first.
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
