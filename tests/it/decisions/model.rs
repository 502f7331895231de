//! A cluster in memory, as far as a release needs one: writes are conditional, pods become ready at once, time is a number.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    sync::Arc,
};

use flagger_rs::{
    api::canary::{Canary, CanaryPhase, CanaryStatus},
    notice::Notice,
    rollout::{self, Answer, Decision, Evidence, Plan, Question},
    shell::memory::Memory,
    world::{
        Action, Changed, Due, Effect, HttpResponse, Kind, ObjectRef, Settings, TargetKind, World,
        last_due,
    },
};
use jiff::Timestamp;
use serde_json::{Value, json};

pub struct Model {
    pub world: World,
    evidence: Evidence,
    /// The shell's own memory of what was told in a step.
    memory: Memory,
    open: Option<Option<Due>>,
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
    let name = model.world.reference(Kind::ScaledObject, "podinfo-so");
    let object = json!({"metadata": {"name": "podinfo-so", "namespace": "test"}, "spec": all});
    model.store(name, object);
    begin(model)
}

fn begin(mut model: Model) -> Model {
    while model.world.now.as_second() < 15 {
        model.look();
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
        let world = World {
            canary,
            objects: BTreeMap::new(),
            seen: BTreeSet::new(),
            now: Timestamp::from_second(0).unwrap(),
            due: None,
            changed: None,
            mended: BTreeSet::new(),
            rival: None,
            spread: jiff::SignedDuration::ZERO,
            nonce: 7,
            settings: Arc::new(settings),
        };
        let mut model = Self {
            world,
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
        let kind = TargetKind::of(&model.world.canary).unwrap().kind();
        let mut spec = json!({"replicas": 2, "selector": {"matchLabels": {"app": "podinfo"}},
            "template": {"metadata": {"labels": {"app": "podinfo"}}, "spec": {"containers": [{"name": "podinfod", "image": "podinfo:1"}]}}});
        match kind {
            Kind::DaemonSet => drop(spec.as_object_mut().unwrap().remove("replicas")),
            Kind::Service => {
                spec = json!({"selector": {"app": "podinfo:1"}, "clusterIP": "10.0.0.1", "ports": [{"port": 80}]})
            }
            _ => {}
        }
        if let Some(ingress) = &model.world.canary.spec.ingress_ref {
            let ingress = model.world.reference(Kind::Ingress, &ingress.name);
            let backend = json!({"service": {"name": "podinfo", "port": {"number": 80}}});
            let spec = json!({"rules": [{"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]});
            model.store(
                ingress,
                json!({"metadata": {"name": "podinfo", "namespace": "test"}, "spec": spec}),
            );
        }
        if let Some(scaler) = model.world.canary.spec.autoscaler_ref.clone()
            && scaler.kind == "HorizontalPodAutoscaler"
        {
            let name = model
                .world
                .reference(Kind::HorizontalPodAutoscaler, &scaler.name);
            let spec =
                json!({"scaleTargetRef": {"name": "podinfo"}, "minReplicas": 2, "maxReplicas": 4});
            let metadata = json!({"name": scaler.name, "namespace": "test"});
            model.store(name, json!({"metadata": metadata, "spec": spec}));
        }
        let target = model.world.reference(kind, "podinfo");
        model.store(
            target,
            json!({"metadata": {"name": "podinfo", "namespace": "test"}, "spec": spec}),
        );
        model
    }

    /// Until the canary is in this phase and owes nothing.
    pub fn run_until(&mut self, end: CanaryPhase) {
        for _ in 0..2000 {
            self.look();
            let status = self.world.canary.status.clone().unwrap_or_default();
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
            if self.world.phase() == phase {
                return;
            }
            self.look();
        }
        panic!("{phase} never came:\n{}", self.transcript());
    }

    /// One look, as the shell takes it; a second passes where it waits.
    pub fn look(&mut self) {
        self.keda();
        self.pods();
        let transition = self
            .world
            .canary
            .status
            .as_ref()
            .and_then(|status| Some(status.last_transition_time.as_ref()?.0));
        let latest = transition.and_then(|transition| {
            last_due(transition, self.world.canary.interval(), self.world.now)
        });
        let due = latest
            .filter(|at| self.served.is_none_or(|served| served < *at))
            .map(|at| Due { at, late: false });
        self.world.due = self.open.unwrap_or(due);
        let (interval, now) = (self.world.canary.interval(), self.world.now);
        self.memory.due(transition, interval, now);
        self.world.mended = self.memory.mended(transition, interval, now);
        self.world.changed = rollout::new_version(&self.world).map(|_| Changed {
            first: Timestamp::UNIX_EPOCH,
            last: Timestamp::UNIX_EPOCH,
        });
        match rollout::decide(&self.world, &self.evidence) {
            Decision::Ask(questions, notices) => {
                let is_known = |question| self.evidence.contains_key(question);
                assert!(
                    !questions.iter().all(is_known),
                    "asking ends: {questions:?}"
                );
                self.tell_once(notices);
                self.open = Some(self.world.due);
                for question in questions {
                    let answer = self.answer(&question);
                    self.evidence.insert(question, answer);
                }
            }
            Decision::Wait(next, notices) => {
                let news = self.memory.untold_wait(&self.world.step(), next, notices);
                self.tell(news);
                self.served = self.world.due.map_or(self.served, |due| Some(due.at));
                self.forget();
                self.world.now = Timestamp::from_second(self.world.now.as_second() + 1).unwrap();
            }
            Decision::Do(plan) => self.carry_out(plan),
        }
    }

    fn forget(&mut self) {
        self.open = None;
        self.evidence.clear();
    }

    fn carry_out(&mut self, plan: Plan) {
        let news = self.memory.untold(&self.world.step(), plan.notices.clone());
        assert_eq!(rollout::audit(&self.world, &plan), Ok(()), "{plan:?}");
        for cut in 0..plan.effects.len() {
            let effects = plan.effects[..cut].to_vec();
            let prefix = Plan {
                effects,
                ..Plan::default()
            };
            assert_eq!(rollout::audit(&self.world, &prefix), Ok(()), "{prefix:?}");
        }
        for effect in plan.effects {
            self.write(effect);
            if self.crashes() {
                return;
            }
        }
        if let Some(status) = plan.status {
            self.line(line_of(&status));
            let before = self.world.canary.status.as_ref();
            let step = before.and_then(|before| before.last_transition_time.clone());
            // A write within a step leaves its time as it was, and the step goes on.
            let goes_on = step == status.last_transition_time;
            self.world.canary.status = Some(status);
            if !goes_on {
                self.forget();
            }
            if self.crashes() {
                return;
            }
        }
        self.tell(news);
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

    fn write(&mut self, effect: Effect) {
        let Effect { object, action, .. } = effect;
        self.memory.mend(&object);
        let what = format!("{} {}", object.kind.name(), object.name);
        if let (Kind::Canary, Action::Patch(patch)) = (object.kind, &action) {
            let finalizers = patch.pointer("/2/value").unwrap();
            self.line(format!("patch  {what}: finalizers {finalizers}"));
            self.world.canary.metadata.finalizers =
                serde_json::from_value(finalizers.clone()).unwrap();
            return;
        }
        match action {
            Action::Create(value) => {
                assert!(!self.world.objects.contains_key(&object), "{what} exists");
                self.line(format!("create {what}"));
                self.store(object.clone(), value);
            }
            Action::Replace(value) => {
                let paused = is_paused(&value);
                let news = match self.world.objects.get(&object).map(is_paused) {
                    Some(before) if before != paused && paused => ": paused",
                    Some(before) if before != paused => ": resumed",
                    _ => "",
                };
                self.line(format!("write  {what}{news}"));
                self.store(object.clone(), value);
            }
            Action::Patch(patch) => {
                let target = self.world.objects.get_mut(&object).unwrap();
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
            let route = self.world.objects[&object].to_string();
            let cookies = route.split('"').filter(|text| text.contains("; Max-Age="));
            self.sent.extend(cookies.map(str::to_owned));
            let Some(weights) = rollout::weights(&self.world) else {
                return;
            };
            self.routed.push(weights.canary);
            let judged = [CanaryPhase::Progressing, CanaryPhase::WaitingPromotion];
            // A way back is no step.
            let status = self.world.canary.status.as_ref();
            let intents = status.and_then(|status| status.conditions.as_ref());
            if judged.contains(&self.world.phase()) && intents.is_some_and(|all| all.len() == 1) {
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
        self.world.objects.insert(name, value);
    }

    /// What KEDA does where there is no load: it keeps what is paused at zero, and everything else at its least.
    fn keda(&mut self) {
        let scalers: Vec<_> = self
            .world
            .objects
            .iter()
            .filter(|(name, _)| name.kind == Kind::ScaledObject)
            .map(|(_, scaler)| scaler.clone())
            .collect();
        for scaler in scalers {
            let workload = scaler["spec"]["scaleTargetRef"]["name"].as_str().unwrap();
            let workload = self.world.reference(Kind::Deployment, workload);
            let least = scaler["spec"]["minReplicaCount"].as_i64().unwrap_or(0);
            let replicas = if is_paused(&scaler) { 0 } else { least };
            let Some(workload) = self.world.objects.get_mut(&workload) else {
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
        for (name, object) in &mut self.world.objects {
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
        let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.world.now);
        self.world.canary.metadata.deletion_timestamp = Some(now);
        self.lines.clear();
    }

    /// Whether nothing holds the deleted Canary any more.
    pub fn is_gone(&self) -> bool {
        let meta = &self.world.canary.metadata;
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
        let name = self.world.reference(Kind::VirtualService, "podinfo");
        let Some(route) = self.world.objects.get_mut(&name) else {
            return;
        };
        let rule = route["spec"]["http"][0]["route"].as_array_mut().unwrap();
        rule[0]["weight"] = json!(100 - canary);
        rule[1]["weight"] = json!(canary);
    }

    /// Somebody edits the Canary's spec.
    pub fn edit(&mut self, field: &str, value: &Value) {
        let mut canary = serde_json::to_value(&self.world.canary).unwrap();
        let old = canary["spec"][field].take();
        canary["spec"][field] = value.clone();
        if field == "analysis" {
            for kept in ["interval", "metrics"] {
                canary["spec"][field][kept] = old[kept].clone();
            }
        }
        self.world.canary = serde_json::from_value(canary).unwrap();
    }

    /// A new version of the target.
    pub fn image(&mut self, image: &str) {
        let kind = TargetKind::of(&self.world.canary).unwrap().kind();
        let target = self.world.reference(kind, "podinfo");
        let object = self.world.objects.get_mut(&target).unwrap();
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
            Question::Measure { query, .. } => {
                let url = &query.request(self.world.now).url.0;
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
            Question::Tell(notices) => {
                self.tell(notices.clone());
                Answer::Told
            }
        }
    }

    fn tell_once(&mut self, notices: Vec<Notice>) {
        let news = self.memory.untold(&self.world.step(), notices);
        self.tell(news);
    }

    fn tell(&mut self, notices: Vec<Notice>) {
        for notice in notices {
            let line = match notice {
                Notice::Event {
                    kind,
                    message,
                    phase,
                    ..
                } => format!("{} [{phase}] {message}", kind.as_str()),
                Notice::Alert { severity, text, .. } => format!("alert {severity:?}: {text}"),
            };
            self.line(format!("tell   {line}"));
            self.told.push(line);
        }
    }

    fn line(&mut self, text: String) {
        self.lines
            .push(format!("{:>4} s  {text}", self.world.now.as_second()));
    }

    pub fn transcript(&self) -> String {
        self.lines.iter().fold(String::new(), |mut all, line| {
            let _ = writeln!(all, "{line}");
            all
        })
    }

    /// What a user is left with.
    pub fn outcome(&self) -> String {
        let status = self.world.canary.status.clone().unwrap_or_default();
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
            image(self.world.primary()),
            self.world
                .target()
                .map(|target| target["spec"]["replicas"].clone()),
            rollout::weights(&self.world),
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
        intent: Option<&str>,
        reason: &str,
    ) {
        let mut conditions =
            vec![json!({"type": "Promoted", "status": "Unknown", "reason": phase})];
        conditions.extend(intent.map(
            |intent| json!({"type": intent, "status": "True", "reason": reason, "message": "2"}),
        ));
        let mut status = json!({"phase": phase, "canaryWeight": weight, "iterations": iterations, "failedChecks": failed, "conditions": conditions,
            "lastTransitionTime": "1970-01-01T00:00:00Z", "trackedConfigs": {}});
        if let Some(applied) = applied {
            status["lastAppliedSpec"] = json!(applied);
        }
        self.world.canary.status = Some(serde_json::from_value(status).unwrap());
        self.world.now = Timestamp::from_second(1000).unwrap();
        self.world.due = Some(Due {
            at: self.world.now,
            late: false,
        });
        self.world.changed = Some(Changed {
            first: Timestamp::UNIX_EPOCH,
            last: Timestamp::UNIX_EPOCH,
        });
        self.forget();
        for (name, ready) in [
            ("podinfo", canary_ready),
            ("podinfo-primary", primary_ready),
        ] {
            if let Some(object) = self
                .world
                .objects
                .get_mut(&self.world.reference(Kind::Deployment, name))
            {
                object["status"]["readyReplicas"] = json!(ready);
            }
        }
        self.route(routed);
        let names: Vec<_> = self.world.objects.keys().cloned().collect();
        for i in gone {
            if let Some(name) = names.get(*i) {
                self.world.objects.remove(name);
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
    let intents = status.conditions.iter().flatten().skip(1);
    let intents = intents.map(|c| {
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
        intents.collect::<String>()
    )
}

fn is_paused(object: &Value) -> bool {
    object
        .pointer("/metadata/annotations/autoscaling.keda.sh~1paused-replicas")
        .is_some_and(|replicas| replicas == "0")
}
