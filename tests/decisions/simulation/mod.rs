//! A cluster in memory, as far as a release needs one: writes are conditional, pods become ready at once, time is a number.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
};

use flagger_rs::{
    api::canary::{Canary, CanaryPhase, CanaryStatus},
    notifications::Notification,
    rollout::{self, Answer, Decision, Evidence, Plan, Question},
    shell::memory::Memory,
    snapshot::{
        Action, Changed, HttpResponse, Kind, ObjectRef, Settings, Snapshot, TargetKind, Tick,
        Write, last_tick,
    },
};
use jiff::Timestamp;
use serde_json::{Value, json};

pub struct Model {
    pub snapshot: Snapshot,
    evidence: Evidence,
    /// The shell's own memory of what was told in a step.
    memory: Memory,
    open: Option<Option<Tick>>,
    served: Option<Timestamp>,
    /// What metric servers answer.
    pub metric: String,
    /// What they answer when they are asked whether they are there.
    pub online: &'static str,
    /// The hooks, by name, that say no.
    pub closed: BTreeSet<&'static str>,
    /// Whether the canary's pods are all gone.
    pub dead: bool,
    /// Pods of the primary with this image never become ready.
    pub broken: Option<&'static str>,
    /// Ends a plan after so many writes in all, as a crash would, once.
    pub crash_after: Option<usize>,
    pub writes: usize,
    pub told: Vec<String>,
    /// The cookies that clients were given or had taken back, by any route that was written.
    pub sent: BTreeSet<String>,
    /// The canary's weight after each write of a route while the version is judged.
    pub judged: Vec<u8>,
    /// The canary's weight after each write of a route.
    pub routed: Vec<u8>,
    lines: Vec<String>,
}

/// A canary that is initialized, and a new version of its target.
pub fn release(analysis: Value) -> Model {
    release_of(json!({"analysis": analysis}))
}

/// The same of a Canary with this spec, in place of what is usual.
pub fn release_of(spec: Value) -> Model {
    begin(Model::new(spec))
}

/// The same, whose target has a ScaledObject with this for a spec, besides what it must have.
pub fn scaled(analysis: Value, spec: &Value) -> Model {
    let reference =
        json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "podinfo-so"});
    let mut model = Model::new(json!({"analysis": analysis, "autoscalerRef": reference}));
    let mut all = json!({"scaleTargetRef": {"name": "podinfo"}, "triggers": []});
    for (key, value) in spec.as_object().unwrap() {
        all[key] = value.clone();
    }
    let name = model.snapshot.reference(Kind::ScaledObject, "podinfo-so");
    let object = json!({"metadata": {"name": "podinfo-so", "namespace": "test"}, "spec": all});
    model.store(name, object);
    begin(model)
}

fn begin(mut model: Model) -> Model {
    while model.snapshot.now.as_second() < 15 {
        model.reconcile();
    }
    model.image("podinfo:2");
    model.lines.clear();
    model.routed.clear();
    model.told.clear();
    model.writes = 0;
    model
}

impl Model {
    fn new(own: Value) -> Self {
        let mut spec = json!({"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}, "service": {"port": 9898}});
        let mut analysis = json!({"interval": "10s", "threshold": 5, "metrics": [{"name": "request-success-rate", "thresholdRange": {"min": 99}}],
            "webhooks": [{"name": "acceptance", "type": "pre-rollout", "url": "http://hooks/acceptance"}, {"name": "load", "url": "http://hooks/load"},
                {"name": "after", "type": "post-rollout", "url": "http://hooks/after"}]});
        for (key, value) in own["analysis"].as_object().into_iter().flatten() {
            analysis[key] = value.clone();
        }
        for (key, value) in own.as_object().unwrap() {
            spec[key] = value.clone();
        }
        spec["analysis"] = analysis;
        let canary: Canary = serde_json::from_value(
            json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary",
            "metadata": {"name": "podinfo", "namespace": "test", "uid": "c"}, "spec": spec}),
        )
        .unwrap();
        let settings = Settings {
            mesh_provider: "istio".into(),
            ingress_annotations_prefix: "nginx.ingress.kubernetes.io".into(),
            ingress_class: String::new(),
            metrics_server: "http://prometheus:9090".into(),
            selector_labels: vec!["app".into()],
            include_label_prefix: vec![],
            config_tracking: true,
            no_cross_namespace_refs: false,
            cluster_name: String::new(),
        };
        let snapshot = Snapshot {
            canary,
            objects: BTreeMap::new(),
            seen: BTreeSet::new(),
            now: Timestamp::from_second(0).unwrap(),
            tick: None,
            changed: None,
            recently_written: BTreeSet::new(),
            conflicting_canary: None,
            jitter: jiff::SignedDuration::ZERO,
            nonce: 7,
            settings: Arc::new(settings),
        };
        let mut model = Self {
            snapshot,
            evidence: Evidence::new(),
            memory: Memory::default(),
            open: None,
            served: None,
            metric: "100".into(),
            online: "1",
            closed: BTreeSet::new(),
            dead: false,
            broken: None,
            crash_after: None,
            writes: 0,
            told: vec![],
            sent: BTreeSet::new(),
            judged: vec![],
            routed: vec![],
            lines: vec![],
        };
        let kind = TargetKind::of(&model.snapshot.canary).unwrap().kind();
        let mut spec = json!({"replicas": 2, "selector": {"matchLabels": {"app": "podinfo"}},
            "template": {"metadata": {"labels": {"app": "podinfo"}}, "spec": {"containers": [{"name": "podinfod", "image": "podinfo:1"}]}}});
        match kind {
            Kind::DaemonSet => drop(spec.as_object_mut().unwrap().remove("replicas")),
            Kind::Service => {
                spec = json!({"selector": {"app": "podinfo:1"}, "clusterIP": "10.0.0.1", "ports": [{"port": 80}]})
            }
            _ => {}
        }
        if let Some(ingress) = &model.snapshot.canary.spec.ingress_ref {
            let ingress = model.snapshot.reference(Kind::Ingress, &ingress.name);
            let backend = json!({"service": {"name": "podinfo", "port": {"number": 80}}});
            let spec = json!({"rules": [{"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]});
            model.store(
                ingress,
                json!({"metadata": {"name": "podinfo", "namespace": "test"}, "spec": spec}),
            );
        }
        if let Some(scaler) = model.snapshot.canary.spec.autoscaler_ref.clone()
            && scaler.kind == "HorizontalPodAutoscaler"
        {
            let name = model
                .snapshot
                .reference(Kind::HorizontalPodAutoscaler, &scaler.name);
            let spec =
                json!({"scaleTargetRef": {"name": "podinfo"}, "minReplicas": 2, "maxReplicas": 4});
            let metadata = json!({"name": scaler.name, "namespace": "test"});
            model.store(name, json!({"metadata": metadata, "spec": spec}));
        }
        let target = model.snapshot.reference(kind, "podinfo");
        model.store(
            target,
            json!({"metadata": {"name": "podinfo", "namespace": "test"}, "spec": spec}),
        );
        model
    }

    /// Until the canary is in this phase and owes nothing.
    pub fn run_until(&mut self, end: CanaryPhase) {
        for _ in 0..2000 {
            self.reconcile();
            let status = self.snapshot.canary.status.clone().unwrap_or_default();
            let mut conditions = status.conditions.iter().flatten();
            // That the primary is broken is true for as long as it is.
            let is_settled =
                conditions.all(|c| matches!(c.type_.as_str(), "Promoted" | "PromotionFailed"));
            if status.phase == end && is_settled {
                return;
            }
        }
        panic!("{end} never came:\n{}", self.transcript());
    }

    /// Until the canary is in this phase.
    pub fn run_until_phase(&mut self, phase: CanaryPhase) {
        for _ in 0..2000 {
            if self.snapshot.phase() == phase {
                return;
            }
            self.reconcile();
        }
        panic!("{phase} never came:\n{}", self.transcript());
    }

    /// One look, as the shell takes it; a second passes where it waits.
    pub fn reconcile(&mut self) {
        self.keda();
        self.pods();
        let transition = self
            .snapshot
            .canary
            .status
            .as_ref()
            .and_then(|status| Some(status.last_transition_time.as_ref()?.0));
        let latest = transition.and_then(|transition| {
            last_tick(
                transition,
                self.snapshot.canary.interval(),
                self.snapshot.now,
            )
        });
        let tick = latest
            .filter(|at| self.served.is_none_or(|served| served < *at))
            .map(|at| Tick { at, late: false });
        self.snapshot.tick = self.open.unwrap_or(tick);
        let (interval, now) = (self.snapshot.canary.interval(), self.snapshot.now);
        self.memory.tick(transition, interval, now);
        self.snapshot.recently_written = self.memory.recently_written(transition, interval, now);
        self.snapshot.changed = rollout::new_version(&self.snapshot).map(|_| Changed {
            first: Timestamp::UNIX_EPOCH,
            last: Timestamp::UNIX_EPOCH,
        });
        match rollout::decide(&self.snapshot, &self.evidence) {
            Decision::Ask(questions, notifications) => {
                let is_known = |question| self.evidence.contains_key(question);
                assert!(
                    !questions.iter().all(is_known),
                    "asking ends: {questions:?}"
                );
                self.tell_once(notifications);
                self.open = Some(self.snapshot.tick);
                for question in questions {
                    let answer = self.answer(&question);
                    self.evidence.insert(question, answer);
                }
            }
            Decision::Wait(next, notifications) => {
                let news = self
                    .memory
                    .untold_wait(&self.snapshot.step(), next, notifications);
                self.notify(news);
                self.served = self.snapshot.tick.map_or(self.served, |tick| Some(tick.at));
                self.forget();
                self.snapshot.now =
                    Timestamp::from_second(self.snapshot.now.as_second() + 1).unwrap();
            }
            Decision::Do(plan) => self.carry_out(plan),
        }
    }

    fn forget(&mut self) {
        self.open = None;
        self.evidence.clear();
    }

    fn carry_out(&mut self, plan: Plan) {
        let news = self
            .memory
            .untold(&self.snapshot.step(), plan.notifications.clone());
        assert_eq!(rollout::audit(&self.snapshot, &plan), Ok(()), "{plan:?}");
        for cut in 0..plan.writes.len() {
            let writes = plan.writes[..cut].to_vec();
            let prefix = Plan {
                writes,
                ..Plan::default()
            };
            assert_eq!(
                rollout::audit(&self.snapshot, &prefix),
                Ok(()),
                "{prefix:?}"
            );
        }
        for write in plan.writes {
            self.write(write);
            if self.crashes() {
                return;
            }
        }
        if let Some(status) = plan.status {
            self.line(line_of(&status));
            let before = self.snapshot.canary.status.as_ref();
            let step = before.and_then(|before| before.last_transition_time.clone());
            // A write within a step leaves its time as it was, and the step goes on.
            let goes_on = step == status.last_transition_time;
            self.snapshot.canary.status = Some(status);
            if !goes_on {
                self.forget();
            }
            if self.crashes() {
                return;
            }
        }
        self.notify(news);
    }

    fn crashes(&mut self) -> bool {
        self.writes += 1;
        let crash = self.crash_after == Some(self.writes);
        if crash {
            self.line("CRASH".to_owned());
            self.forget();
            self.memory = Memory::default();
            self.served = None;
        }
        crash
    }

    fn write(&mut self, write: Write) {
        let Write { object, action, .. } = write;
        self.memory.mark_written(&object);
        let what = format!("{} {}", object.kind.name(), object.name);
        if let (Kind::Canary, Action::Patch(patch)) = (object.kind, &action) {
            let finalizers = patch.pointer("/2/value").unwrap();
            self.line(format!("patch  {what}: finalizers {finalizers}"));
            self.snapshot.canary.metadata.finalizers =
                serde_json::from_value(finalizers.clone()).unwrap();
            return;
        }
        match action {
            Action::Create(value) => {
                assert!(
                    !self.snapshot.objects.contains_key(&object),
                    "{what} exists"
                );
                self.line(format!("create {what}"));
                self.store(object.clone(), value);
            }
            Action::Replace(value) => {
                let paused = is_paused(&value);
                let news = match self.snapshot.objects.get(&object).map(is_paused) {
                    Some(before) if before != paused && paused => ": paused",
                    Some(before) if before != paused => ": resumed",
                    _ => "",
                };
                self.line(format!("write  {what}{news}"));
                self.store(object.clone(), value);
            }
            Action::Patch(patch) => {
                let target = self.snapshot.objects.get_mut(&object).unwrap();
                let mut said = Vec::new();
                for operation in patch.as_array().unwrap() {
                    let path = operation["path"].as_str().unwrap();
                    let (parent, key) = path.rsplit_once('/').unwrap();
                    match operation["op"].as_str().unwrap() {
                        "test" => assert_eq!(
                            target.pointer(path).unwrap_or(&Value::Null),
                            &operation["value"],
                            "{what} {path}"
                        ),
                        "add" => {
                            target.pointer_mut(parent).unwrap()[key] = operation["value"].clone();
                            said.push(match key {
                                "replicas" | "nodeSelector" => {
                                    format!("{key} {}", operation["value"])
                                }
                                _ => key.to_owned(),
                            });
                        }
                        _ => {
                            let parent = target.pointer_mut(parent).unwrap();
                            parent.as_object_mut().unwrap().remove(key);
                            said.push(format!("no {key}"));
                        }
                    }
                }
                target["metadata"]["generation"] =
                    json!(target["metadata"]["generation"].as_i64().unwrap() + 1);
                self.line(format!("patch  {what}: {}", said.join(", ")));
            }
        }
        if matches!(
            object.kind,
            Kind::VirtualService
                | Kind::HttpRoute
                | Kind::HttpRouteV1Beta1
                | Kind::HttpProxy
                | Kind::Ingress
                | Kind::TrafficSplitV1Alpha1
        ) {
            let route = self.snapshot.objects[&object].to_string();
            let cookies = route.split('"').filter(|text| text.contains("; Max-Age="));
            self.sent.extend(cookies.map(str::to_owned));
            let Some(weights) = rollout::weights(&self.snapshot) else {
                return;
            };
            self.routed.push(weights.canary);
            let judged = [CanaryPhase::Progressing, CanaryPhase::WaitingPromotion];
            // A way back is no step.
            let status = self.snapshot.canary.status.as_ref();
            let conditions = status.and_then(|status| status.conditions.as_ref());
            if judged.contains(&self.snapshot.phase())
                && conditions.is_some_and(|all| all.len() == 1)
            {
                self.judged.push(weights.canary);
            }
            self.line(format!(
                "       primary {} canary {}{}",
                weights.primary,
                weights.canary,
                if weights.mirrored { " mirrored" } else { "" }
            ));
        }
    }

    /// What is in the cluster from now on.
    pub fn store(&mut self, name: ObjectRef, mut value: Value) {
        if value.pointer("/metadata/uid").is_none() {
            value["metadata"]["uid"] = json!(format!("{}-{}", name.kind.name(), name.name));
            value["metadata"]["generation"] = json!(1);
        }
        self.snapshot.objects.insert(name, value);
    }

    /// What KEDA does where there is no load: it keeps what is paused at zero, and everything else at its least.
    fn keda(&mut self) {
        let scalers: Vec<_> = self
            .snapshot
            .objects
            .iter()
            .filter(|(name, _)| name.kind == Kind::ScaledObject)
            .map(|(_, scaler)| scaler.clone())
            .collect();
        for scaler in scalers {
            let workload = scaler["spec"]["scaleTargetRef"]["name"].as_str().unwrap();
            let workload = self.snapshot.reference(Kind::Deployment, workload);
            let least = scaler["spec"]["minReplicaCount"].as_i64().unwrap_or(0);
            let replicas = if is_paused(&scaler) { 0 } else { least };
            let Some(workload) = self.snapshot.objects.get_mut(&workload) else {
                continue;
            };
            if workload["spec"]["replicas"] != replicas {
                workload["spec"]["replicas"] = json!(replicas);
                workload["metadata"]["generation"] =
                    json!(workload["metadata"]["generation"].as_i64().unwrap() + 1);
                let name = workload["metadata"]["name"].as_str().unwrap();
                let line = format!("KEDA   Deployment {name}: replicas {replicas}");
                self.line(line);
            }
        }
    }

    /// Every pod is ready at once, but for those that are broken.
    fn pods(&mut self) {
        for (name, object) in &mut self.snapshot.objects {
            if name.kind == Kind::DaemonSet {
                let pods = if TargetKind::DaemonSet.is_at_zero(object) {
                    0
                } else {
                    3
                };
                object["status"] = json!({"observedGeneration": object["metadata"]["generation"], "desiredNumberScheduled": pods,
                    "updatedNumberScheduled": pods, "numberReady": pods, "numberAvailable": pods});
            }
            if name.kind != Kind::Deployment {
                continue;
            }
            let replicas = object["spec"]["replicas"].as_i64().unwrap_or(1);
            let image = object
                .pointer("/spec/template/spec/containers/0/image")
                .and_then(Value::as_str);
            let is_broken =
                name.name == "podinfo-primary" && self.broken.is_some() && image == self.broken;
            let is_dead = name.name == "podinfo" && self.dead;
            let ready = if is_broken || is_dead { 0 } else { replicas };
            object["status"] = json!({"observedGeneration": object["metadata"]["generation"], "replicas": replicas,
                "updatedReplicas": replicas, "readyReplicas": ready, "availableReplicas": ready});
            if is_dead {
                object["status"]["conditions"] = json!([{"type": "Progressing", "status": "True"},
                    {"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable", "lastUpdateTime": "1970-01-01T00:00:00Z"}]);
            }
            if is_broken {
                object["status"]["conditions"] = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
            }
        }
    }

    /// `kubectl delete canary`.
    pub fn delete(&mut self) {
        let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.snapshot.now);
        self.snapshot.canary.metadata.deletion_timestamp = Some(now);
        self.lines.clear();
    }

    /// Whether nothing holds the deleted Canary any more.
    pub fn is_gone(&self) -> bool {
        let meta = &self.snapshot.canary.metadata;
        meta.deletion_timestamp.is_some() && meta.finalizers.iter().flatten().count() == 0
    }

    /// When a line of the transcript was last written.
    pub fn seconds(&self, what: &str) -> i64 {
        let line = self.lines.iter().rfind(|line| line.ends_with(what));
        let time = line.and_then(|line| line.split_whitespace().next());
        time.and_then(|time| time.parse().ok()).expect(what)
    }

    /// Somebody edits the weights.
    pub fn route(&mut self, canary: u8) {
        let name = self.snapshot.reference(Kind::VirtualService, "podinfo");
        let Some(route) = self.snapshot.objects.get_mut(&name) else {
            return;
        };
        let rule = route["spec"]["http"][0]["route"].as_array_mut().unwrap();
        rule[0]["weight"] = json!(100 - canary);
        rule[1]["weight"] = json!(canary);
    }

    /// Somebody edits the Canary's spec.
    pub fn edit(&mut self, field: &str, value: &Value) {
        let mut canary = serde_json::to_value(&self.snapshot.canary).unwrap();
        let old = canary["spec"][field].take();
        canary["spec"][field] = value.clone();
        if field == "analysis" {
            for kept in ["interval", "metrics"] {
                canary["spec"][field][kept] = old[kept].clone();
            }
        }
        self.snapshot.canary = serde_json::from_value(canary).unwrap();
    }

    /// A new version of the target.
    pub fn image(&mut self, image: &str) {
        let kind = TargetKind::of(&self.snapshot.canary).unwrap().kind();
        let target = self.snapshot.reference(kind, "podinfo");
        let object = self.snapshot.objects.get_mut(&target).unwrap();
        match kind {
            Kind::Service => object["spec"]["selector"]["app"] = json!(image),
            _ => object["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image),
        }
        object["metadata"]["generation"] =
            json!(object["metadata"]["generation"].as_i64().unwrap() + 1);
    }

    fn answer(&mut self, question: &Question) -> Answer {
        match question {
            Question::Call { request, .. } => {
                let body: Value = serde_json::from_str(request.body.as_deref().unwrap()).unwrap();
                let hook = request.url.0.trim_start_matches("http://hooks/");
                let status = if self.closed.contains(hook) { 403 } else { 200 };
                let phase = body["phase"].as_str().unwrap();
                self.line(format!("call   {hook} ({phase}): {status}"));
                Answer::Response(HttpResponse {
                    status,
                    body: String::new(),
                })
            }
            Question::Metric { query, .. } => {
                let url = &query.request(self.snapshot.now).url.0;
                let value = if url.contains("vector%281%29") {
                    self.online
                } else if url.contains("duration_seconds_bucket") {
                    // An application reports seconds.
                    "0.1"
                } else {
                    &self.metric
                };
                Answer::Response(HttpResponse {
                    status: 200,
                    body: json!({"data": {"result": [{"value": [0, value]}]}}).to_string(),
                })
            }
            Question::Notify(notifications) => {
                self.notify(notifications.clone());
                Answer::Delivered
            }
        }
    }

    fn tell_once(&mut self, notifications: Vec<Notification>) {
        let news = self.memory.untold(&self.snapshot.step(), notifications);
        self.notify(news);
    }

    fn notify(&mut self, notifications: Vec<Notification>) {
        for notification in notifications {
            let line = match notification {
                Notification::Event {
                    kind,
                    message,
                    phase,
                    ..
                } => format!("{} [{phase}] {message}", kind.as_str()),
                Notification::Alert { severity, text, .. } => format!("alert {severity:?}: {text}"),
            };
            self.line(format!("tell   {line}"));
            self.told.push(line);
        }
    }

    fn line(&mut self, text: String) {
        self.lines
            .push(format!("{:>4} s  {text}", self.snapshot.now.as_second()));
    }

    pub fn transcript(&self) -> String {
        self.lines.iter().fold(String::new(), |mut all, line| {
            let _ = writeln!(all, "{line}");
            all
        })
    }

    /// What a user is left with.
    pub fn outcome(&self) -> String {
        let status = self.snapshot.canary.status.clone().unwrap_or_default();
        let image = |object: Option<&Value>| {
            object
                .and_then(|o| o.pointer("/spec/template/spec/containers/0/image"))
                .cloned()
        };
        format!(
            "{} {:?} {:?} primary {:?} replicas {:?} weights {:?}",
            status.phase,
            status.last_applied_spec,
            status.last_promoted_spec,
            image(self.snapshot.primary()),
            self.snapshot
                .target()
                .map(|target| target["spec"]["replicas"].clone()),
            rollout::weights(&self.snapshot),
        )
    }

    /// Puts the world into a state that no history led to.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is one thing that can be odd"
    )]
    pub fn arrange(
        &mut self,
        phase: &str,
        weight: i64,
        iterations: i64,
        failed: i64,
        canary_ready: i64,
        primary_ready: i64,
        routed: u8,
        applied: Option<String>,
        gone: &[usize],
        condition: Option<&str>,
        reason: &str,
    ) {
        let mut conditions =
            vec![json!({"type": "Promoted", "status": "Unknown", "reason": phase})];
        conditions.extend(condition.map(
            |condition| json!({"type": condition, "status": "True", "reason": reason, "message": "2"}),
        ));
        let mut status = json!({"phase": phase, "canaryWeight": weight, "iterations": iterations, "failedChecks": failed, "conditions": conditions,
            "lastTransitionTime": "1970-01-01T00:00:00Z", "trackedConfigs": {}});
        if let Some(applied) = applied {
            status["lastAppliedSpec"] = json!(applied);
        }
        self.snapshot.canary.status = Some(serde_json::from_value(status).unwrap());
        self.snapshot.now = Timestamp::from_second(1000).unwrap();
        self.snapshot.tick = Some(Tick {
            at: self.snapshot.now,
            late: false,
        });
        self.snapshot.changed = Some(Changed {
            first: Timestamp::UNIX_EPOCH,
            last: Timestamp::UNIX_EPOCH,
        });
        self.forget();
        for (name, ready) in [
            ("podinfo", canary_ready),
            ("podinfo-primary", primary_ready),
        ] {
            if let Some(object) = self
                .snapshot
                .objects
                .get_mut(&self.snapshot.reference(Kind::Deployment, name))
            {
                object["status"]["readyReplicas"] = json!(ready);
            }
        }
        self.route(routed);
        let names: Vec<_> = self.snapshot.objects.keys().cloned().collect();
        for i in gone {
            if let Some(name) = names.get(*i) {
                self.snapshot.objects.remove(name);
            }
        }
    }
}

/// A status as a transcript shows it.
fn line_of(status: &CanaryStatus) -> String {
    let cookies = [
        ("cookie", &status.session_affinity_cookie),
        ("previous", &status.previous_session_affinity_cookie),
    ];
    let cookies = cookies
        .iter()
        .filter_map(|(name, cookie)| Some(format!(" {name} {}", cookie.as_ref()?)));
    let conditions = status.conditions.iter().flatten().skip(1);
    let conditions = conditions.map(|c| {
        format!(
            " [{} {} {}]",
            c.type_,
            c.reason,
            c.message.clone().unwrap_or_default()
        )
    });
    format!(
        "status {} weight {} iterations {} failed {}{}{}",
        status.phase,
        status.canary_weight,
        status.iterations,
        status.failed_checks,
        cookies.collect::<String>(),
        conditions.collect::<String>()
    )
}

fn is_paused(object: &Value) -> bool {
    object
        .pointer("/metadata/annotations/autoscaling.keda.sh~1paused-replicas")
        .is_some_and(|replicas| replicas == "0")
}
