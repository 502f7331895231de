//! Records a scenario while it is played: lines in streams, step by step, and objects.

mod calls;
mod objects;
mod result;

pub use calls::usual;
pub use objects::Change;

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use regex::Regex;
use serde_json::Value;

use crate::mask::{Masks, Numbers};

/// All streams, in the order of the recordings.
pub const STREAMS: [&str; 11] = [
    "status",
    "events",
    "notices",
    "routes",
    "workloads",
    "timeline",
    "hooks",
    "alerts",
    "queries",
    "table",
    "notes",
];

/// Answers, in order. The last one is repeated.
pub struct Answers {
    answers: Vec<Value>,
    next: usize,
}

impl Answers {
    pub fn new(answers: &[Value]) -> Self {
        Self {
            answers: answers.to_vec(),
            next: 0,
        }
    }

    fn next(&mut self) -> Value {
        let last = self.answers.len() - 1;
        let answer = self.answers[self.next.min(last)].clone();
        self.next += 1;
        answer
    }
}

/// One line of a stream.
struct Line {
    step: usize,
    stream: &'static str,
    /// The resourceVersion of the object that the line describes. Lines are sorted by it, because the order across watches is not fixed.
    version: u64,
    text: String,
}

/// All objects at one point of the script.
struct Snapshot {
    at: String,
    objects: BTreeMap<String, Value>,
}

/// The recording of one scenario so far.
pub struct Seen {
    pub namespace: String,
    masks: Masks,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    steps: Vec<String>,
    lines: Vec<Line>,
    phase_before: String,
    numbers: Numbers,
    cookies: Vec<String>,
    shapes: BTreeMap<String, Vec<Value>>,
    last: BTreeMap<String, String>,
    objects: BTreeMap<String, Value>,
    snapshots: Vec<Snapshot>,
    metrics: Vec<(Regex, Answers)>,
    hooks: BTreeMap<String, Answers>,
    is_closed: bool,
}

impl Seen {
    pub fn new(namespace: &str, port: u16) -> Self {
        Self {
            namespace: namespace.to_owned(),
            masks: Masks::new(port),
            state: Mutex::new(State {
                steps: vec!["setup".to_owned()],
                ..State::default()
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a step: later lines belong to it.
    pub fn step(&self, name: &str) {
        let mut state = self.state();
        let last = state.lines.iter().rfind(|line| line.stream == "status");
        state.phase_before = last.map(|line| phase(&line.text)).unwrap_or_default();
        state.steps.push(name.to_owned());
    }

    /// Records a failure of the scenario itself.
    pub fn note(&self, text: &str) {
        self.state().add(&self.masks, "notes", text, 0);
    }

    /// Records a line of `kubectl get`.
    pub fn table(&self, text: &str) {
        self.state().add(&self.masks, "table", text, 0);
    }

    /// Stops recording.
    pub fn close(&self) {
        self.state().is_closed = true;
    }

    /// Sets the answers to queries that match.
    pub fn metric(&self, query: &str, answers: &[Value]) {
        let rule = (Regex::new(query).unwrap(), Answers::new(answers));
        self.state().metrics.insert(0, rule);
    }

    /// Sets the answers of a webhook.
    pub fn hook(&self, name: &str, answers: &[Value]) {
        self.state()
            .hooks
            .insert(name.to_owned(), Answers::new(answers));
    }

    /// Returns the lines of a stream in the current step.
    pub fn lines(&self, stream: &str) -> Vec<String> {
        let state = self.state();
        let step = state.steps.len() - 1;
        let lines = state
            .lines
            .iter()
            .filter(|line| line.step == step && line.stream == stream);
        lines.map(|line| line.text.clone()).collect()
    }

    /// Returns the phases that the Canary has had in the current step. Reports of the phase that it had before the step are skipped until
    /// the phase changes: for example `Failed`, before a new run begins.
    pub fn phases(&self) -> Vec<String> {
        let phases = self
            .lines("status")
            .iter()
            .map(|line| phase(line))
            .collect::<Vec<_>>();
        let before = self.state().phase_before.clone();
        phases
            .into_iter()
            .skip_while(|phase| *phase == before)
            .collect()
    }

    /// Returns the recorded failures of the scenario itself.
    pub fn notes(&self) -> Vec<String> {
        let state = self.state();
        let notes = state.lines.iter().filter(|line| line.stream == "notes");
        notes.map(|line| line.text.clone()).collect()
    }
}

/// Returns the phase in a line of the stream `status`: its second word.
fn phase(line: &str) -> String {
    line.split(' ').nth(1).unwrap_or_default().to_owned()
}

impl State {
    fn add(&mut self, masks: &Masks, stream: &'static str, text: &str, version: u64) {
        if !self.is_closed {
            self.lines.push(Line {
                step: self.steps.len() - 1,
                stream,
                version,
                text: masks.line(text),
            });
        }
    }

    /// Whether this line differs from the last one about the same subject. Remembers it.
    fn is_new(&mut self, about: &str, line: &str) -> bool {
        self.last
            .insert(about.to_owned(), line.to_owned())
            .as_deref()
            != Some(line)
    }
}
