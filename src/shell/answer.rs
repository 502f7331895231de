//! Questions on their way: asked in the background, so that no look at a canary waits for an answer.

use std::{
    collections::{BTreeMap, HashMap},
    panic::AssertUnwindSafe,
    sync::Mutex,
    time::Duration,
};

use futures::{
    FutureExt,
    future::{AbortHandle, Abortable},
};
use jiff::Timestamp;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time,
};

use super::{http::Http, report::Reporter};
use crate::{
    api::canary::Canary,
    rollout::{Answer, Evidence, Question},
    world::{Failure, HttpRequest, ObjectRef, Step},
};

/// How long a look waits for what it asks: most answers are here by then, and what it has unpacked is still at hand.
const PROMPT: Duration = Duration::from_millis(100);
/// So many looks wait at once, half of those that there are at most: where servers are slower, the others go on without waiting.
const WAITING: usize = 16;

/// What is asked about each canary, and what was answered so far.
pub struct Answers {
    http: Http,
    reporter: Reporter,
    canaries: Mutex<HashMap<ObjectRef, Asked>>,
    answered: mpsc::UnboundedSender<ObjectRef>,
    waiting: Semaphore,
}

/// The questions of one step.
struct Asked {
    step: Step,
    evidence: Evidence,
    running: BTreeMap<Question, AbortHandle>,
    /// The look that waits for the last of the answers.
    waiting: Option<oneshot::Sender<()>>,
}

impl Asked {
    /// What was asked together is looked at together: by the look that waits for it, or by another.
    fn tell_all_answered(
        &mut self,
        canary: &ObjectRef,
        answered: &mpsc::UnboundedSender<ObjectRef>,
    ) {
        if !self.running.is_empty() {
            return;
        }
        let is_told = self
            .waiting
            .take()
            .is_some_and(|waiting| waiting.send(()).is_ok());
        if !is_told {
            // The receiver lives as long as the controller: nobody is left to be told once it is gone.
            let _ = answered.send(canary.clone());
        }
    }
}

impl Drop for Asked {
    /// A question that is not asked any more is cancelled.
    fn drop(&mut self) {
        self.running.values().for_each(AbortHandle::abort);
    }
}

impl Answers {
    /// Nothing asked yet. Answers that no look waits for are announced on the channel, so that their canary is looked at again.
    pub fn new(http: Http, reporter: Reporter, answered: mpsc::UnboundedSender<ObjectRef>) -> Self {
        Self {
            http,
            reporter,
            canaries: Mutex::default(),
            answered,
            waiting: Semaphore::new(WAITING),
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

    /// Asks; what is being asked already goes on, what is not asked any more is cancelled. Whether all is answered in a moment.
    pub async fn ask(
        self: &std::sync::Arc<Self>,
        canary: &ObjectRef,
        object: &Canary,
        step: Step,
        questions: Vec<Question>,
    ) -> bool {
        let mut answered = self.begin(canary, object, step, questions);
        if let Ok(_permit) = self.waiting.try_acquire()
            && time::timeout(PROMPT, &mut answered).await.is_ok()
        {
            return true;
        }
        // From here on the last answer is announced.
        answered.close();
        answered.try_recv().is_ok()
    }

    fn begin(
        self: &std::sync::Arc<Self>,
        canary: &ObjectRef,
        object: &Canary,
        step: Step,
        questions: Vec<Question>,
    ) -> oneshot::Receiver<()> {
        let mut canaries = lock(&self.canaries);
        let asked = canaries.entry(canary.clone()).or_insert_with(|| Asked {
            step,
            evidence: Evidence::new(),
            running: BTreeMap::new(),
            waiting: None,
        });
        let (waiting, answered) = oneshot::channel();
        asked.waiting = Some(waiting);
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
                    let answer = AssertUnwindSafe(this.answer(&object, &question)).catch_unwind();
                    let answer = answer.await.unwrap_or_else(|_| {
                        Answer::Failed(Failure {
                            why: "a defect of the operator: it panicked".to_owned(),
                            attempts: 1,
                        })
                    });
                    this.record(&canary, &step, question, answer);
                },
                registration,
            ));
        }
        answered
    }

    /// Forgets a canary: its questions are cancelled.
    pub fn forget(&self, canary: &ObjectRef) {
        lock(&self.canaries).remove(canary);
    }

    /// Forgets all canaries.
    pub fn forget_all(&self) {
        lock(&self.canaries).clear();
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
            asked.tell_all_answered(canary, &self.answered);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
