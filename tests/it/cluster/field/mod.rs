//! Problems of real users, played on a real API server. `tests/field` has the objects, `cases.rs` the steps, and `steps.rs` plays the
//! steps. `restarts.rs` and scenarios in other files use the objects of the cases that need more; `tests/field/README.md` lists all.

mod cases;
pub mod restarts;
mod steps;

use futures::{FutureExt, future::LocalBoxFuture};
use serde_json::{Value, json};

use super::{Outcome, Rig, Scenario, is_chosen, text};
use crate::files;
use steps::Step;

const FOLDER: &str = "tests/field";

/// A case: its file in `tests/field`, and the steps of its user with what must be true after them.
struct Case {
    input: &'static str,
    steps: &'static [Step],
}

/// The scenarios of the table.
pub fn scenarios(rig: &Rig) -> impl Iterator<Item = LocalBoxFuture<'_, Outcome>> {
    let cases = cases::ALL.iter().filter(|case| is_chosen(case.input));
    cases.map(|case| Scenario::run(rig, case.input, |s| play(s, case)).boxed_local())
}

async fn play(s: Scenario<'_>, case: &Case) -> Outcome {
    let objects = s.field(case.input);
    for step in case.steps {
        let played = s.step(&objects, step).await;
        played.map_err(|why| format!("{step:?}: {why}"))?;
    }
    Ok(())
}

impl Scenario<'_> {
    /// The objects of a case. `NAMESPACE` in them is the namespace of this scenario.
    pub fn field(&self, case: &str) -> Vec<Value> {
        let file = files::path(FOLDER).join(format!("{case}.yaml"));
        let all = std::fs::read_to_string(file).unwrap();
        files::documents(&all.replace("NAMESPACE", &self.ns))
    }

    /// `kubectl apply -f`, as most users run it: the client merges.
    pub async fn apply_as_user(&self, objects: &[Value]) -> Outcome {
        let file = self.rig.bed.folder().join(format!("{}.json", self.ns));
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        std::fs::write(&file, list.to_string()).map_err(text)?;
        self.kubectl(&format!("apply -f {}", file.display())).await
    }

    /// Runs kubectl with these words in the namespace of this scenario.
    pub async fn kubectl(&self, words: &str) -> Outcome {
        let mut all = vec!["-n", &self.ns];
        all.extend(words.split_whitespace());
        self.rig.bed.kubectl(&all).await.map(drop).map_err(text)
    }
}

/// The names of the cases, from the files in `tests/field`.
fn inputs() -> Vec<String> {
    let names = std::fs::read_dir(files::path(FOLDER)).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let cases = names.filter_map(|name| Some(name.strip_suffix(".yaml")?.to_owned()));
    cases.collect()
}

#[test]
fn each_case_is_played_and_is_in_the_list() {
    let folders = ["tests/it/cluster", "tests/it/cluster/field"].map(files::path);
    let code = folders
        .into_iter()
        .flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let code = code.map(|entry| entry.unwrap().path());
    let code = code.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let code: String = code
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let list = std::fs::read_to_string(files::path(FOLDER).join("README.md")).unwrap();
    let is_played = |case: &str| {
        cases::ALL.iter().any(|row| row.input == case)
            || code.contains(&format!(".field(\"{case}\")"))
    };
    let cases = inputs();
    assert!(cases.len() > 15, "{cases:?}");
    for case in cases {
        assert!(is_played(&case), "no scenario plays {case}");
        let row = format!("[{case}]({case}.yaml)");
        assert!(list.contains(&row), "{FOLDER}/README.md has no {row}");
    }
}
