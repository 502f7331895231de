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

use super::{http::Http, report::Reporter, schedule::CONCURRENT_RECONCILES};
use crate::{
    api::canary::Canary,
    rollout::{Answer, Evidence, Question},
    snapshot::{Failure, HttpRequest, ObjectRef, Step},
};

/// How long a look waits for what it asks: most answers are here by then, and what it has unpacked is still at hand.
const PROMPT: Duration = Duration::from_millis(100);
/// So many looks wait at once: where servers are slower, the others go on without waiting.
const WAITING: usize = CONCURRENT_RECONCILES / 2;

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
            Question::Metric { query, .. } => self.call(&query.request(Timestamp::now())).await,
            Question::Notify(notifications) => {
                self.reporter.deliver(canary, notifications.clone()).await;
                Answer::Delivered
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
            // What was asked together is looked at together: by the look that waits for it, or by another. The channel's receiver lives as
            // long as the controller: nobody is left to be told once it is gone.
            if asked.running.is_empty() {
                let waiting = asked.waiting.take();
                if waiting.is_none_or(|waiting| waiting.send(()).is_err()) {
                    let _ = self.answered.send(canary.clone());
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Arc};

    use futures::{FutureExt, future::BoxFuture};
    use kube::Client;

    use super::*;
    use crate::{
        args,
        shell::{
            cluster::Cluster, leadership::Leadership, observe, report::Global, telemetry::Recorder,
        },
        snapshot::{HttpResponse, Kind},
    };

    type Played = BoxFuture<'static, Result<HttpResponse, String>>;

    /// Who answers like this, and where it is announced.
    fn answers(
        play: impl Fn() -> Played + Send + Sync + 'static,
    ) -> (Arc<Answers>, mpsc::UnboundedReceiver<ObjectRef>) {
        let nobody = tower::service_fn(|_: http::Request<kube::client::Body>| {
            pending::<Result<http::Response<kube::client::Body>, std::io::Error>>()
        });
        let client = Client::new(nobody, "default");
        let meters = Recorder::new().unwrap().meters().unwrap();
        let cluster = Cluster::new(client.clone(), Leadership::always(), meters);
        let http = Http::played(Arc::new(move |_| play()));
        let reporter = Reporter::new(client, cluster, http.clone(), Global::default());
        let (answered, announced) = mpsc::unbounded_channel();
        (Arc::new(Answers::new(http, reporter, answered)), announced)
    }

    fn canary(n: usize) -> ObjectRef {
        ObjectRef {
            kind: Kind::Canary,
            namespace: "test".to_owned(),
            name: format!("podinfo-{n}"),
        }
    }

    fn step() -> Step {
        let Ok(args::Command::Run(config)) = args::parse([], |_| None) else {
            panic!("the operator runs without arguments")
        };
        observe::snapshot(Canary::default(), &canary(0), &Arc::new(config.settings)).step()
    }

    async fn ask(answers: &Arc<Answers>, n: usize) -> bool {
        let request = HttpRequest {
            method: crate::snapshot::Method::Get,
            url: crate::snapshot::Secret("http://gate/".to_owned()),
            headers: Vec::new(),
            body: None,
            timeout: Duration::from_secs(30),
            retries: 0,
            budget: None,
            proxy: None,
            insecure_skip_verify: false,
        };
        let label = "0".to_owned();
        let question = Question::Call { label, request };
        let (canary, object) = (canary(n), Canary::default());
        answers.ask(&canary, &object, step(), vec![question]).await
    }

    fn after(pause: Duration) -> Played {
        let answer = || Err("the gate is shut".to_owned());
        time::sleep(pause).map(move |()| answer()).boxed()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_for_the_look_that_waits_or_calls_for_another_and_never_both() {
        for (pause, is_prompt) in [(0, true), (99, true), (101, false), (5_000, false)] {
            let (answers, mut announced) = answers(move || after(Duration::from_millis(pause)));
            assert_eq!(ask(&answers, 0).await, is_prompt, "{pause} ms");
            time::sleep(Duration::from_secs(10)).await;
            assert_eq!(announced.try_recv().is_ok(), !is_prompt, "{pause} ms");
            assert_eq!(answers.evidence(&canary(0), &step()).len(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn slow_servers_hold_up_no_more_than_half_of_the_looks() {
        let (answers, _announced) = answers(|| pending().boxed());
        let begin = time::Instant::now();
        let looks = (0..WAITING).map(|n| {
            let answers = answers.clone();
            tokio::spawn(async move { ask(&answers, n).await })
        });
        let looks: Vec<_> = looks.collect();
        tokio::task::yield_now().await;
        assert!(!ask(&answers, WAITING).await);
        assert_eq!(begin.elapsed(), Duration::ZERO);
        futures::future::join_all(looks).await;
        assert_eq!(begin.elapsed(), PROMPT);
    }

    #[tokio::test(start_paused = true)]
    async fn who_lost_the_lease_is_told_no_answer_any_more() {
        let (answers, mut announced) = answers(|| after(Duration::from_secs(5)));
        assert!(!ask(&answers, 0).await);
        answers.forget_all();
        time::sleep(Duration::from_secs(10)).await;
        assert!(announced.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_panic_in_an_answer_is_an_answer() {
        let (answers, _announced) = answers(|| panic!("a defect"));
        assert!(ask(&answers, 0).await);
        let evidence = answers.evidence(&canary(0), &step());
        let failed = evidence.values().next();
        assert!(matches!(failed, Some(Answer::Failed(_))), "{failed:?}");
    }
}
