//! The questions of a step: asked in the background, so that no reconciliation waits long for an answer.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{AbortHandle, Abortable},
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time,
};

use super::{querying::Querying, schedule::CONCURRENT_RECONCILES};
use crate::{
    api::canary::Canary,
    metrics::{Asks, identity::Identity},
    rollout::{Answer, Evidence, Question},
    shell::{
        api_server::Cluster,
        clock,
        lock::lock,
        notify::Notifier,
        outside::{http::Http, tokens::Tokens},
    },
    snapshot::{Failure, HttpRequest, ObjectRef, Step},
};

/// How long a reconciliation waits for its answers. Most answers arrive within this time, while the reconciliation still has the objects in
/// memory.
const PROMPT: Duration = Duration::from_millis(100);
/// The maximum number of reconciliations that wait at the same time. If servers are slow, the others end without waiting.
const MAX_WAITING: usize = CONCURRENT_RECONCILES / 2;

/// The questions about each canary and the answers so far.
pub struct Answers {
    cluster: Cluster,
    tokens: Arc<Tokens>,
    notifier: Notifier,
    canaries: Mutex<HashMap<ObjectRef, StepQuestions>>,
    triggers: mpsc::UnboundedSender<ObjectRef>,
    waiting: Semaphore,
}

/// The questions of one step.
struct StepQuestions {
    step: Step,
    /// Reconciliations share it, so that the answers are not copied.
    evidence: Arc<Evidence>,
    running: BTreeMap<Arc<Question>, AbortHandle>,
    /// Notifies the reconciliation that waits for the last of the answers.
    waiting: Option<oneshot::Sender<()>>,
}

impl Drop for StepQuestions {
    fn drop(&mut self) {
        self.running.values().for_each(AbortHandle::abort);
    }
}

impl Answers {
    /// Returns a value without questions. If no reconciliation waits for the last answer, the canary is sent to `triggers`.
    pub fn new(
        cluster: Cluster,
        http: Http,
        notifier: Notifier,
        triggers: mpsc::UnboundedSender<ObjectRef>,
    ) -> Self {
        Self {
            cluster,
            tokens: Arc::new(Tokens::of_the_pod(http)),
            notifier,
            canaries: Mutex::default(),
            triggers,
            waiting: Semaphore::new(MAX_WAITING),
        }
    }

    /// Returns the answers of this step so far. Drops the answers of another step and cancels its questions.
    pub fn evidence(&self, canary: &ObjectRef, step: &Step) -> Arc<Evidence> {
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

    /// Asks questions. Those that are already being asked continue; those that are not asked any more are cancelled. Returns whether all
    /// answers have arrived within a moment.
    pub async fn ask(
        self: &Arc<Self>,
        canary: &ObjectRef,
        object: &Canary,
        step: Step,
        questions: Vec<Question>,
    ) -> bool {
        let mut answered = self.start(canary, object, step, questions);
        if let Ok(_permit) = self.waiting.try_acquire()
            && time::timeout(PROMPT, &mut answered).await.is_ok()
        {
            return true;
        }
        // From here on, the last answer triggers the canary.
        answered.close();
        answered.try_recv().is_ok()
    }

    fn start(
        self: &Arc<Self>,
        canary: &ObjectRef,
        object: &Canary,
        step: Step,
        questions: Vec<Question>,
    ) -> oneshot::Receiver<()> {
        let mut canaries = lock(&self.canaries);
        let asked = canaries
            .entry(canary.clone())
            .or_insert_with(|| StepQuestions {
                step,
                evidence: Arc::default(),
                running: BTreeMap::new(),
                waiting: None,
            });
        let (waiting, answered) = oneshot::channel();
        asked.waiting = Some(waiting);
        let wanted: BTreeSet<&Question> = questions.iter().collect();
        asked.running.retain(|question, running| {
            let is_wanted = wanted.contains(&**question);
            if !is_wanted {
                running.abort();
            }
            is_wanted
        });
        // Copy the Canary only if a question is a notification, because no other question needs it.
        let mut notified = None;
        for question in questions {
            if asked.running.contains_key(&question) || asked.evidence.contains_key(&question) {
                continue;
            }
            let question = Arc::new(question);
            let (running, registration) = AbortHandle::new_pair();
            asked.running.insert(question.clone(), running);
            let about = match *question {
                Question::Notify(_) => notified
                    .get_or_insert_with(|| Arc::new(object.clone()))
                    .clone(),
                Question::Call { .. } | Question::Metric { .. } | Question::List { .. } => {
                    Arc::default()
                }
            };
            let (this, canary, step) = (self.clone(), canary.clone(), asked.step.clone());
            let answering = async move {
                let answer = this.answer_or_panic(&canary, &about, &question).await;
                this.record(&canary, &step, question, answer);
            };
            tokio::spawn(Abortable::new(answering, registration));
        }
        answered
    }

    /// Forgets a canary and cancels its questions.
    pub fn forget(&self, canary: &ObjectRef) {
        lock(&self.canaries).remove(canary);
    }

    /// Forgets all canaries.
    pub fn forget_all(&self) {
        lock(&self.canaries).clear();
    }

    /// Gets an answer. A panic is an answer too, so that the question does not run for ever.
    async fn answer_or_panic(
        &self,
        canary: &ObjectRef,
        about: &Canary,
        question: &Arc<Question>,
    ) -> Answer {
        let answer = AssertUnwindSafe(self.answer(canary, about, question)).catch_unwind();
        answer.await.unwrap_or_else(|_| {
            question.read(Err(Failure {
                why: "a defect of the operator: it panicked".to_owned(),
                attempts: 1,
            }))
        })
    }

    /// Gets an answer. `about` is the Canary that a notification is about.
    async fn answer(&self, canary: &ObjectRef, about: &Canary, question: &Arc<Question>) -> Answer {
        match &**question {
            Question::Call { request, .. } => {
                self.call(canary, None, request.clone(), question).await
            }
            // These queries need one request each. A query of a value may need several.
            Question::Metric { query, .. } if !matches!(query.asks, Asks::Value(_)) => {
                let request = query.request(clock::now());
                let identity = query.server.identity();
                self.call(canary, identity, request, question).await
            }
            Question::Metric { query, .. } => {
                let querying = Querying {
                    tokens: self.tokens.clone(),
                    namespace: canary.namespace.clone(),
                    query: (**query).clone(),
                    begun: clock::now(),
                };
                querying.value().await
            }
            Question::List {
                kind,
                namespace,
                selector,
            } => match self
                .cluster
                .list(*kind, Some(namespace), Some(selector))
                .await
            {
                Ok(objects) => Answer::Objects(objects),
                Err(error) => Answer::Failed(Failure {
                    why: error.to_string(),
                    attempts: 1,
                }),
            },
            Question::Notify(notifications) => {
                self.notifier.deliver(about, notifications.clone()).await;
                Answer::Delivered
            }
        }
    }

    async fn call(
        &self,
        canary: &ObjectRef,
        identity: Option<&Identity>,
        request: HttpRequest,
        question: &Arc<Question>,
    ) -> Answer {
        let question = question.clone();
        let read = move |answer| question.read(answer);
        let namespace = &canary.namespace;
        self.tokens.ask(namespace, identity, request, read).await
    }

    fn record(&self, canary: &ObjectRef, step: &Step, question: Arc<Question>, answer: Answer) {
        let mut canaries = lock(&self.canaries);
        let asked = canaries.get_mut(canary).filter(|asked| asked.step == *step);
        let Some(asked) = asked else { return };
        asked.running.remove(&question);
        Arc::make_mut(&mut asked.evidence).insert(question, answer);
        // The canary is decided again only when all questions that were asked together have answers.
        if asked.running.is_empty() {
            let waiting = asked.waiting.take();
            if waiting.is_none_or(|waiting| waiting.send(()).is_err()) {
                // The receiver lives as long as canaries are reconciled.
                let _ = self.triggers.send(canary.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Arc};

    use futures::{FutureExt, future::BoxFuture};
    use kube::Client;

    use super::*;
    use crate::{
        cli, metrics,
        shell::{
            api_server::{Cluster, Leadership},
            controller::observe,
            notify::GlobalReceivers,
            telemetry::canary_metrics::CanaryMetrics,
        },
        snapshot::{HttpResponse, Kind},
    };

    type FakeAnswer = BoxFuture<'static, Result<HttpResponse, String>>;

    /// Questions that are answered like this, and the channel for triggers.
    fn answers(
        fake: impl Fn() -> FakeAnswer + Send + Sync + 'static,
    ) -> (Arc<Answers>, mpsc::UnboundedReceiver<ObjectRef>) {
        answered(move |_| fake())
    }

    fn answered(
        fake: impl Fn(&HttpRequest) -> FakeAnswer + Send + Sync + 'static,
    ) -> (Arc<Answers>, mpsc::UnboundedReceiver<ObjectRef>) {
        let silent = tower::service_fn(|_: http::Request<kube::client::Body>| {
            pending::<Result<http::Response<kube::client::Body>, std::io::Error>>()
        });
        let client = Client::new(silent, "default");
        let metrics = CanaryMetrics::new().unwrap().operator_metrics().unwrap();
        let cluster = Cluster::new(client, Leadership::always(), metrics);
        let http = Http::faked(Arc::new(fake));
        let notifier = Notifier::new(cluster.clone(), http.clone(), GlobalReceivers::default());
        let (trigger, triggers) = mpsc::unbounded_channel();
        (
            Arc::new(Answers::new(cluster, http, notifier, trigger)),
            triggers,
        )
    }

    fn canary(n: usize) -> ObjectRef {
        ObjectRef {
            kind: Kind::Canary,
            namespace: "test".to_owned(),
            name: format!("podinfo-{n}"),
        }
    }

    fn step() -> Step {
        let Ok(cli::Command::Run(config)) = cli::parse([], |_| None) else {
            panic!("the operator runs without arguments")
        };
        observe::empty_snapshot(Canary::default(), &canary(0), &Arc::new(config.settings)).step()
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
            origin: crate::snapshot::Origin::User,
        };
        let label = "0".to_owned();
        let question = Question::Call { label, request };
        let (canary, object) = (canary(n), Canary::default());
        answers.ask(&canary, &object, step(), vec![question]).await
    }

    fn after(pause: Duration) -> FakeAnswer {
        let answer = || Err("the gate is shut".to_owned());
        time::sleep(pause).map(move |()| answer()).boxed()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_serves_the_waiting_reconciliation_or_triggers_another_and_never_both() {
        for (pause, is_prompt) in [(0, true), (99, true), (101, false), (5_000, false)] {
            let (answers, mut triggers) = answers(move || after(Duration::from_millis(pause)));
            assert_eq!(ask(&answers, 0).await, is_prompt, "{pause} ms");
            time::sleep(Duration::from_secs(10)).await;
            assert_eq!(triggers.try_recv().is_ok(), !is_prompt, "{pause} ms");
            assert_eq!(answers.evidence(&canary(0), &step()).len(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn slow_servers_delay_at_most_half_of_the_reconciliations() {
        let (answers, _triggers) = answers(|| pending().boxed());
        let start = time::Instant::now();
        let reconciliations = (0..MAX_WAITING).map(|n| {
            let answers = answers.clone();
            tokio::spawn(async move { ask(&answers, n).await })
        });
        let reconciliations: Vec<_> = reconciliations.collect();
        tokio::task::yield_now().await;
        assert!(!ask(&answers, MAX_WAITING).await);
        assert_eq!(start.elapsed(), Duration::ZERO);
        futures::future::join_all(reconciliations).await;
        assert_eq!(start.elapsed(), PROMPT);
    }

    #[tokio::test(start_paused = true)]
    async fn no_answer_arrives_after_the_lease_was_lost() {
        let (answers, mut triggers) = answers(|| after(Duration::from_secs(5)));
        assert!(!ask(&answers, 0).await);
        answers.forget_all();
        time::sleep(Duration::from_secs(10)).await;
        assert!(triggers.try_recv().is_err());
    }

    #[tokio::test]
    async fn reconciliations_share_the_answers_and_nobody_keeps_a_long_body() {
        let (answers, _triggers) = answers(|| {
            let body = "x".repeat(1 << 20);
            futures::future::ready(Ok(HttpResponse { status: 403, body })).boxed()
        });
        assert!(ask(&answers, 0).await);
        let evidence = || answers.evidence(&canary(0), &step());
        assert!(Arc::ptr_eq(&evidence(), &evidence()));
        let kept: Vec<_> = evidence().values().cloned().collect();
        let [Answer::Response(HttpResponse { body, .. })] = kept.as_slice() else {
            panic!("{kept:?}")
        };
        assert_eq!(body.len(), 256);
    }

    /// The token belongs to the operator. It is sent only to the cloud's host, and it replaces the credentials in the address of the
    /// template.
    #[tokio::test(start_paused = true)]
    async fn a_metric_of_a_cloud_is_asked_with_a_token() {
        let sent: Arc<Mutex<Vec<_>>> = Arc::default();
        let log = sent.clone();
        let (answers, _triggers) = answered(move |request| {
            let url = url::Url::parse(&request.url.0).unwrap();
            let headers = request.headers.iter().map(|(_, value)| value.0.clone());
            lock(&log).push((
                url.host_str().unwrap().to_owned(),
                headers.collect::<Vec<_>>(),
            ));
            let body = r#"{"access_token":"hush","expires_in":3600,"data":{"result":[{"value":[1,"5"]}]}}"#;
            let body = body.to_owned();
            futures::future::ready(Ok(HttpResponse { status: 200, body })).boxed()
        });
        let spec = serde_json::json!({"type": "azuremonitor", "address": "https://u:p@w.prometheus.monitor.azure.com"});
        let spec = serde_json::from_value(spec).unwrap();
        let query = metrics::Query {
            server: metrics::Server::of(&spec, None, None).unwrap(),
            asks: metrics::Asks::Value("q".to_owned()),
            budget: Duration::from_secs(9),
        };
        let question = Question::Metric {
            label: "0".to_owned(),
            query: Box::new(query),
        };
        let object = Canary::default();
        assert!(
            answers
                .ask(&canary(0), &object, step(), vec![question])
                .await
        );
        let evidence = answers.evidence(&canary(0), &step());
        assert_eq!(evidence.values().next(), Some(&Answer::Value(Ok(5.0))));
        let [metadata, workspace] = lock(&sent).clone().try_into().unwrap();
        assert_eq!(
            metadata,
            ("169.254.169.254".to_owned(), vec!["true".to_owned()])
        );
        let host = "w.prometheus.monitor.azure.com".to_owned();
        assert_eq!(workspace, (host, vec!["Bearer hush".to_owned()]));
    }

    #[tokio::test]
    async fn a_panic_in_an_answer_is_an_answer() {
        let (answers, _triggers) = answers(|| panic!("a defect"));
        assert!(ask(&answers, 0).await);
        let evidence = answers.evidence(&canary(0), &step());
        let failed = evidence.values().next();
        assert!(matches!(failed, Some(Answer::Failed(_))), "{failed:?}");
    }
}
