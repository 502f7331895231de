//! Questions on their way: asked in the background, so that no look at a canary waits for an answer.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
};

use futures::future::{AbortHandle, Abortable};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::{http::Http, report::Reporter};
use crate::{
    api::canary::Canary,
    rollout::{Answer, Evidence, Question},
    world::{HttpRequest, ObjectRef, Step},
};

/// What is asked about each canary, and what was answered so far.
pub struct Answers {
    http: Http,
    reporter: Reporter,
    canaries: Mutex<HashMap<ObjectRef, Asked>>,
    answered: mpsc::UnboundedSender<ObjectRef>,
}

/// The questions of one step.
struct Asked {
    step: Step,
    evidence: Evidence,
    running: BTreeMap<Question, AbortHandle>,
}

impl Drop for Asked {
    /// A question that is not asked any more is cancelled.
    fn drop(&mut self) {
        self.running.values().for_each(AbortHandle::abort);
    }
}

impl Answers {
    /// Nothing asked yet. Each answer is announced on the channel, so that its canary is looked at again.
    pub fn new(http: Http, reporter: Reporter, answered: mpsc::UnboundedSender<ObjectRef>) -> Self {
        Self {
            http,
            reporter,
            canaries: Mutex::default(),
            answered,
        }
    }

    /// What is known in this step; answers of another step are dropped, its questions cancelled.
    pub fn evidence(&self, canary: &ObjectRef, step: &Step) -> Evidence {
        let mut canaries = lock(&self.canaries);
        if canaries
            .get(canary)
            .is_some_and(|asked| asked.step != *step)
        {
            canaries.remove(canary);
        }
        canaries
            .get(canary)
            .map(|asked| asked.evidence.clone())
            .unwrap_or_default()
    }

    /// Asks; what is being asked already goes on, what is not asked any more is cancelled.
    pub fn ask(
        self: &std::sync::Arc<Self>,
        canary: &ObjectRef,
        object: &Canary,
        step: Step,
        questions: Vec<Question>,
    ) {
        let mut canaries = lock(&self.canaries);
        let asked = canaries.entry(canary.clone()).or_insert_with(|| Asked {
            step,
            evidence: Evidence::new(),
            running: BTreeMap::new(),
        });
        asked.running.retain(|question, running| {
            let wanted = questions.contains(question);
            if !wanted {
                running.abort();
            }
            wanted
        });
        for question in questions {
            if asked.running.contains_key(&question) || asked.evidence.contains_key(&question) {
                continue;
            }
            let (running, registration) = AbortHandle::new_pair();
            asked.running.insert(question.clone(), running);
            let (this, canary, object) = (self.clone(), canary.clone(), object.clone());
            let step = asked.step.clone();
            tokio::spawn(Abortable::new(
                async move {
                    let answer = this.answer(&object, &question).await;
                    this.record(&canary, &step, question, answer);
                },
                registration,
            ));
        }
    }

    /// Forgets a canary: its questions are cancelled.
    pub fn forget(&self, canary: &ObjectRef) {
        lock(&self.canaries).remove(canary);
    }

    async fn answer(&self, canary: &Canary, question: &Question) -> Answer {
        match question {
            Question::Call { request, .. } => self.call(request).await,
            Question::Measure { query, .. } => self.call(&query.request(Timestamp::now())).await,
            Question::Tell(notices) => {
                self.reporter.deliver(canary, notices.clone()).await;
                Answer::Told
            }
        }
    }

    async fn call(&self, request: &HttpRequest) -> Answer {
        match self.http.send(request).await {
            Ok(response) => Answer::Response(response),
            Err(why) => Answer::Failed(why),
        }
    }

    fn record(&self, canary: &ObjectRef, step: &Step, question: Question, answer: Answer) {
        let mut canaries = lock(&self.canaries);
        if let Some(asked) = canaries.get_mut(canary).filter(|asked| asked.step == *step) {
            asked.running.remove(&question);
            asked.evidence.insert(question, answer);
            // What was asked together is looked at together. The receiver lives as long as the controller: nobody is left to be told
            // once it is gone.
            if asked.running.is_empty() {
                let _ = self.answered.send(canary.clone());
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
