//! Judges the change that a plan made to the simulated cluster, by the objects alone. It shares no code with the operator's own audit: if a
//! rule is missing or weaker there, it is still checked here.

#[allow(dead_code, reason = "the model of the API server uses all of it")]
#[path = "../../model/invariants/routes.rs"]
mod routes;

use std::collections::BTreeMap;

use flagger_rs::{
    api::percent::Percent,
    snapshot::{Kind, ObjectRef, Snapshot, TargetKind},
};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::routers::{ROUTERS, Row};

/// The key of an object, for `routes`.
struct Key {
    plural: &'static str,
}

/// The canary's objects at one moment.
pub struct Moment {
    canary: Value,
    /// `None` if the operator refuses the target.
    target: Option<TargetKind>,
    objects: BTreeMap<ObjectRef, Value>,
    now: Timestamp,
    is_tick: bool,
}

impl Moment {
    pub fn of(snapshot: &Snapshot) -> Self {
        Self {
            canary: serde_json::to_value(&snapshot.canary).unwrap(),
            target: TargetKind::of(&snapshot.canary),
            objects: snapshot.objects.clone(),
            now: snapshot.now,
            is_tick: snapshot.tick.is_some(),
        }
    }

    fn get(&self, plural: &str, name: &str) -> Option<&Value> {
        let plural_of = |kind: Kind| match kind {
            Kind::KnativeService => routes::KNATIVE_SERVICES,
            kind => kind.plural(),
        };
        let found = |(key, _): &(&ObjectRef, _)| plural_of(key.kind) == plural && key.name == name;
        self.objects.iter().find(found).map(|(_, object)| object)
    }

    fn phase(&self) -> &str {
        self.canary["status"]["phase"].as_str().unwrap_or_default()
    }

    fn condition(&self, type_: &str) -> Option<&Value> {
        let all = self.canary["status"]["conditions"].as_array()?;
        all.iter().find(|condition| condition["type"] == type_)
    }

    /// Whether a metric lets a proven version advance early, and half of the interval is over.
    fn is_half_over(&self) -> bool {
        let analysis = &self.canary["spec"]["analysis"];
        let mut metrics = analysis["metrics"].as_array().into_iter().flatten();
        let may_be_early = metrics.any(|it| it["compare"]["advance"] == "early");
        let seconds = |time: &Value| time.as_str()?.parse::<Timestamp>().ok();
        let changed = seconds(&self.canary["status"]["lastTransitionTime"]);
        let interval = analysis["interval"]
            .as_str()
            .and_then(|it| it.strip_suffix('m'));
        let minutes = interval.and_then(|minutes| minutes.parse::<i64>().ok());
        let half = minutes.zip(changed).is_some_and(|(minutes, changed)| {
            self.now.duration_since(changed).as_secs() >= minutes * 30
        });
        may_be_early && half
    }

    fn target_name(&self) -> &str {
        self.canary["spec"]["targetRef"]["name"].as_str().unwrap()
    }

    fn workload(&self, name: &str) -> Option<&Value> {
        let plural = match self.target? {
            TargetKind::Deployment => "deployments",
            TargetKind::DaemonSet => "daemonsets",
            TargetKind::Service | TargetKind::Knative => return None,
        };
        self.get(plural, name)
    }

    fn target(&self) -> Option<&Value> {
        self.workload(self.target_name())
    }

    fn primary(&self) -> Option<&Value> {
        self.workload(&format!("{}-primary", self.target_name()))
    }

    fn has_pods(&self) -> bool {
        self.target.is_some_and(TargetKind::has_pods)
    }

    /// The shares of the primary and the canary in each rule of the route, in whole percents: the canary's is rounded up.
    fn rules(&self) -> Option<Vec<(i64, i64)>> {
        let service = &self.canary["spec"]["service"]["name"];
        let apex = service.as_str().unwrap_or(self.target_name());
        // If the operator's route beside the user's does not exist, the user's route sends all requests to the primary, and during the
        // initialization to the target.
        let alone = || {
            let is_primary = !matches!(self.phase(), "" | "Initializing");
            let provider = &self.canary["spec"]["provider"];
            // A Canary without a provider has the provider of the flag.
            let is_own = |row: &&Row| provider.is_null() || provider == row.provider;
            let mut rows = ROUTERS.iter().filter(is_own);
            let is_beside = rows.any(|row| routes::source(row, &self.canary).is_some());
            (is_beside && is_primary).then(|| vec![(100, 0)])
        };
        let rules = routes::rules(&self.canary, apex, |plural, name| self.get(plural, name));
        let whole = |rule: (i64, i64)| match rule {
            (primary, canary) if primary + canary == 1000 => {
                let canary = (canary + 9) / 10;
                (100 - canary, canary)
            }
            rule => rule,
        };
        rules
            .map(|rules| rules.into_iter().map(whole).collect())
            .or_else(alone)
    }

    /// The greatest shares of the primary and the canary in any rule.
    fn reach(&self) -> Option<(i64, i64)> {
        let greatest = |all: (i64, i64), rule: &(i64, i64)| (all.0.max(rule.0), all.1.max(rule.1));
        Some(self.rules()?.iter().fold((0, 0), greatest))
    }

    /// The shares of the primary and the canary: in A/B testing, of the requests that match; else of those without a cookie.
    fn share(&self) -> Option<(i64, i64)> {
        let rules = self.rules()?;
        let is_test = self.canary["spec"]["analysis"]["match"].is_array();
        let split = if is_test { rules.first() } else { rules.last() };
        split.copied()
    }

    /// The share that the canary had before it lost its pods; `None` if the canary has its share again.
    fn withdrawn(&self) -> Option<i64> {
        let lost = self.condition("PodsLost")?;
        let text = lost["message"].as_str()?;
        let weight = text.split("weight: ").nth(1)?.split(',').next()?;
        let weight: Percent = weight.parse().ok()?;
        (lost["reason"] == "TrafficWithdrawn").then(|| weight.rounded_up())
    }

    fn interval(&self) -> i64 {
        let text = self.canary["spec"]["analysis"]["interval"].as_str();
        let seconds = text.and_then(|text| text.strip_suffix('s')?.parse().ok());
        // Any other text is Flagger's default.
        seconds.unwrap_or(60)
    }

    fn since(&self, time: &Value) -> i64 {
        let time: Option<Timestamp> = time.as_str().and_then(|time| time.parse().ok());
        time.map_or(i64::MAX, |time| self.now.duration_since(time).as_secs())
    }
}

/// The pods of a workload that are ready.
fn ready(workload: Option<&Value>) -> i64 {
    let status = workload.map(|workload| &workload["status"]);
    let number = |field| status.and_then(|status| status[field].as_i64());
    number("readyReplicas")
        .or(number("numberReady"))
        .unwrap_or(0)
}

/// Whether all pods of a workload run its current template and are available.
fn is_rolled_out(workload: Option<&Value>) -> bool {
    let Some(workload) = workload else {
        return false;
    };
    let status = &workload["status"];
    let number = |field: &str| status[field].as_i64().unwrap_or(0);
    let wanted = match &status["desiredNumberScheduled"] {
        Value::Null => workload["spec"]["replicas"].as_i64().unwrap_or(1),
        scheduled => scheduled.as_i64().unwrap(),
    };
    let available = number("availableReplicas").max(number("numberAvailable"));
    let updated = number("updatedReplicas").max(number("updatedNumberScheduled"));
    available >= wanted
        && updated >= wanted
        && number("observedGeneration") >= workload["metadata"]["generation"].as_i64().unwrap()
}

fn is_at_zero(workload: Option<&Value>) -> bool {
    workload.is_some_and(|workload| {
        workload["spec"]["replicas"] == 0
            || workload
                .pointer("/spec/template/spec/nodeSelector/flagger.app~1scale-to-zero")
                .is_some()
    })
}

/// Everything that is wrong with the change from one moment to the next, which the operator made by one plan.
pub fn wrong(before: &Moment, after: &Moment) -> Vec<String> {
    let found = [
        shares(after),
        traffic_without_pods(before, after),
        raise_without_reason(before, after),
        scale_down(before, after),
        primary_at_zero(before, after),
        promoted_condition(before, after),
    ];
    found.into_iter().flatten().collect()
}

fn shares(after: &Moment) -> Option<String> {
    let fits = |(primary, canary): &(i64, i64)| {
        (0..=100).contains(primary) && (0..=100).contains(canary) && primary + canary == 100
    };
    let mut rules = after.rules()?;
    if after.canary["spec"]["analysis"]["match"].is_array() {
        // The rule for all other requests has one destination. It gets all of them, whatever its weight is.
        rules.truncate(1);
    }
    (!rules.iter().all(fits)).then(|| format!("the weights are {rules:?}"))
}

/// No side gets more traffic than before while it has no ready pod. (If neither has one, traffic may return to the primary.)
fn traffic_without_pods(before: &Moment, after: &Moment) -> Option<String> {
    // A restored route leads to the apex Service, which selects the primary until the target has pods.
    if !before.has_pods() || before.phase() == "Terminating" {
        return None;
    }
    // At the initialization, an HTTPProxy announces the primary by a rule that no request matches.
    let is_announced = after.objects.keys().any(|key| key.kind == Kind::HttpProxy);
    if before.phase() == "Initializing" && is_announced {
        return None;
    }
    let (from, to) = (before.reach()?, after.reach()?);
    let (primary, canary) = (ready(before.primary()), ready(before.target()));
    if to.1 > from.1 && canary == 0 {
        return Some(format!(
            "{} % of the requests for a canary without pods",
            to.1
        ));
    }
    (to.0 > from.0 && primary == 0 && canary > 0)
        .then(|| format!("{} % of the requests for a primary without pods", to.0))
}

/// During an analysis the canary gets more traffic at a tick only, by one step at most, and when both rollouts are complete.
fn raise_without_reason(before: &Moment, after: &Moment) -> Option<String> {
    let (from, to) = (before.share()?.1, after.share()?.1);
    let is_analysis = matches!(before.phase(), "Progressing" | "WaitingPromotion")
        && before.condition("RollingBack").is_none()
        && before.condition("Reverting").is_none();
    if to <= from || !is_analysis {
        return None;
    }
    let may_grow =
        before.is_tick || before.condition("SkipRequested").is_some() || before.is_half_over();
    if !may_grow {
        return Some(format!(
            "the weight grew from {from} to {to} between two ticks"
        ));
    }
    let step = greatest_step(&before.canary["spec"]["analysis"]);
    if to - from > step && Some(to) != before.withdrawn() {
        return Some(format!(
            "the weight grew from {from} to {to}, by more than {step}"
        ));
    }
    let analysis = &before.canary["spec"]["analysis"];
    let has_threshold =
        !analysis["canaryReadyThreshold"].is_null() || !analysis["primaryReadyThreshold"].is_null();
    if !before.has_pods() || has_threshold || before.condition("PromotionFailed").is_some() {
        return None;
    }
    let is_complete =
        is_rolled_out(before.target()) && (from == 100 || is_rolled_out(before.primary()));
    (!is_complete)
        .then(|| format!("the weight grew from {from} to {to} in the middle of a rollout"))
}

/// The greatest step of an analysis. Blue/green and A/B testing move all traffic at once.
fn greatest_step(analysis: &Value) -> i64 {
    if analysis["iterations"].as_i64().unwrap_or(0) > 0 {
        return 100;
    }
    let lists = ["decimalStepWeights", "stepWeights"].map(|field| analysis[field].as_array());
    match lists.into_iter().flatten().find(|all| !all.is_empty()) {
        Some(weights) => {
            let weights = weights.iter().filter_map(Value::as_f64);
            let whole = |weight: f64| Some(Percent::exact(weight)?.rounded_up());
            let weights: Vec<_> = weights.filter_map(whole).collect();
            let first = weights.first().copied();
            let steps = weights.windows(2).map(|pair| pair[1] - pair[0]);
            steps.chain(first).max().unwrap_or(100)
        }
        None => analysis["stepWeight"].as_i64().unwrap_or(100),
    }
}

/// The target is scaled to zero only without traffic, and only when the last requests have had time to end.
fn scale_down(before: &Moment, after: &Moment) -> Option<String> {
    let is_scaled_down = !is_at_zero(before.target()) && is_at_zero(after.target());
    if !is_scaled_down || ready(before.target()) == 0 {
        return None;
    }
    if let Some((_, canary)) = before.reach()
        && canary > 0
    {
        return Some(format!(
            "the target is scaled down with {canary} % of the requests"
        ));
    }
    let status = &before.canary["status"];
    let (since, wait) = match before.phase() {
        "Finalising" | "Progressing" => (
            before.since(&status["lastTransitionTime"]),
            before.interval(),
        ),
        phase => {
            let draining = before
                .condition("Draining")
                .map(|draining| &draining["lastTransitionTime"]);
            let wait = match phase {
                "Initializing" | "Terminating" => 5,
                _ => before.interval(),
            };
            (draining.map_or(-1, |since| before.since(since)), wait)
        }
    };
    (since < wait).then(|| {
        format!(
            "the target is scaled down {since} s after its traffic was moved, instead of {wait} s"
        )
    })
}

fn primary_at_zero(before: &Moment, after: &Moment) -> Option<String> {
    (!is_at_zero(before.primary()) && is_at_zero(after.primary()))
        .then(|| "the primary is scaled to zero".to_owned())
}

/// Scripts wait for the condition `Promoted`, so it must agree with the phase (`kubectl wait canary/podinfo --for=condition=promoted`).
fn promoted_condition(before: &Moment, after: &Moment) -> Option<String> {
    let phase = after.phase();
    if phase == before.phase() {
        return None;
    }
    let expected = match phase {
        "" => return None,
        "Failed" => "False",
        "Initialized" | "Succeeded" => "True",
        _ => "Unknown",
    };
    let promoted = after.condition("Promoted").unwrap_or(&Value::Null);
    let is_right = promoted["status"] == expected && promoted["reason"] == phase;
    (!is_right).then(|| format!("in phase {phase} the condition Promoted is {promoted}"))
}

/// A canary under analysis with a VirtualService: `canary` % of the requests go to its target.
#[cfg(test)]
fn moment(canary: i64) -> Moment {
    let reference = |kind, name: &str| ObjectRef {
        kind,
        namespace: "test".to_owned(),
        name: name.to_owned(),
    };
    let workload = json!({"metadata": {"generation": 1}, "spec": {"replicas": 2}, "status": {"observedGeneration": 1,
        "readyReplicas": 2, "updatedReplicas": 2, "availableReplicas": 2}});
    let to = |host: &str, weight: i64| json!({"destination": {"host": host}, "weight": weight});
    let route = json!([to("app-primary", 100 - canary), to("app-canary", canary)]);
    let spec = json!({"targetRef": {"kind": "Deployment", "name": "app"}, "service": {"port": 80},
        "analysis": {"interval": "10s", "stepWeight": 20, "maxWeight": 60}});
    let promoted = json!({"type": "Promoted", "status": "Unknown", "reason": "Progressing"});
    let status = json!({"phase": "Progressing", "lastTransitionTime": "1970-01-01T00:00:00Z", "conditions": [promoted]});
    Moment {
        canary: json!({"spec": spec, "status": status}),
        target: Some(TargetKind::Deployment),
        objects: BTreeMap::from([
            (reference(Kind::Deployment, "app"), workload.clone()),
            (reference(Kind::Deployment, "app-primary"), workload),
            (
                reference(Kind::VirtualService, "app"),
                json!({"spec": {"http": [{"route": route}]}}),
            ),
        ]),
        now: Timestamp::from_second(10).unwrap(),
        is_tick: true,
    }
}

#[test]
fn the_judge_accepts_a_step_and_refuses_each_bad_plan() {
    type Edit = fn(&mut Moment);
    /// The canary's share, and other changes.
    type Change = (i64, Edit);
    fn workload<'a>(moment: &'a mut Moment, name: &str) -> &'a mut Value {
        let of_name =
            |(key, _): &(&ObjectRef, &mut Value)| key.kind == Kind::Deployment && key.name == name;
        moment.objects.iter_mut().find(of_name).unwrap().1
    }
    fn phase(moment: &mut Moment, phase: &str, promoted: &str) {
        moment.canary["status"]["phase"] = json!(phase);
        moment.canary["status"]["conditions"][0]["reason"] = json!(phase);
        moment.canary["status"]["conditions"][0]["status"] = json!(promoted);
    }
    let judged = |from: Change, to: Change| {
        let (mut before, mut after) = (moment(from.0), moment(to.0));
        from.1(&mut before);
        // A plan keeps all fields that it does not change.
        from.1(&mut after);
        to.1(&mut after);
        wrong(&before, &after).join("; ")
    };
    let same: Edit = |_| {};
    let to_zero: Edit = |m| workload(m, "app")["spec"]["replicas"] = json!(0);
    assert_eq!(judged((20, same), (40, same)), "");
    assert_eq!(judged((40, same), (0, same)), "");
    assert_eq!(
        judged((0, same), (0, to_zero)),
        "",
        "an interval has passed"
    );
    let cases: [(&str, Change, Change); 11] = [
        ("by more than 20", (20, same), (60, same)),
        ("between two ticks", (20, |m| m.is_tick = false), (40, same)),
        (
            "canary without pods",
            (20, |m| {
                workload(m, "app")["status"]["readyReplicas"] = json!(0)
            }),
            (40, same),
        ),
        (
            "primary without pods",
            (20, |m| {
                workload(m, "app-primary")["status"]["readyReplicas"] = json!(0)
            }),
            (0, same),
        ),
        (
            "in the middle of a rollout",
            (20, |m| {
                workload(m, "app")["status"]["availableReplicas"] = json!(1)
            }),
            (40, same),
        ),
        (
            "in the middle of a rollout",
            (20, |m| {
                workload(m, "app-primary")["status"]["updatedReplicas"] = json!(1)
            }),
            (40, same),
        ),
        ("with 20 % of the requests", (20, same), (20, to_zero)),
        (
            "scaled down 9 s after",
            (0, |m| m.now = Timestamp::from_second(9).unwrap()),
            (0, to_zero),
        ),
        (
            "scaled down -1 s after",
            (0, |m| phase(m, "Failed", "False")),
            (0, to_zero),
        ),
        (
            "the primary is scaled to zero",
            (0, same),
            (0, |m| {
                workload(m, "app-primary")["spec"]["replicas"] = json!(0)
            }),
        ),
        (
            "in phase Failed the condition Promoted",
            (0, same),
            (0, |m| phase(m, "Failed", "True")),
        ),
    ];
    for (expected, from, to) in cases {
        let found = judged(from, to);
        assert!(
            found.contains(expected),
            "expected {expected:?}, found {found:?}"
        );
    }
    let mut half = moment(20);
    let name = half.objects.keys().last().unwrap().clone();
    half.objects.get_mut(&name).unwrap()["spec"]["http"][0]["route"][0]["weight"] = json!(90);
    assert_eq!(wrong(&half, &half), ["the weights are [(90, 20)]"]);
    let mut ingress = moment(0);
    ingress.canary["spec"]["ingressRef"] = json!({"name": "web"});
    assert_eq!(ingress.rules(), Some(vec![(100, 0)]));
    phase(&mut ingress, "Initializing", "Unknown");
    assert_eq!(ingress.rules(), None);
}
