//! The rules of a user's route in which the operator sets weights: which they are, and the weights of a percentage. `kinds.rs` has what
//! differs between the kinds of routes.

use serde_json::Value;

use super::{
    kinds::{Form, Place},
    used::Used,
};
use crate::{
    api::{canary::Canary, percent::Percent},
    routers::route::text,
};

/// A rule that leads to both versions, or one that gets the canary's backend when it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule<'a> {
    /// The place in the route.
    pub place: Place,
    /// The name, if it has one.
    pub name: Option<&'a str>,
    /// The backend of the promoted version: the Service that clients call, or the primary's. Both select the primary's pods.
    pub stable: Backend<'a>,
    /// The backend of the version under analysis, if the rule has one now.
    pub canary: Option<Backend<'a>>,
    /// The name of the canary's Service, in the form of the rule.
    pub canary_service: String,
    /// Whether the rule has the canary's backend only while the version gets requests.
    pub has_canary_in_runs: bool,
    /// Whether the rule leads to further backends.
    pub has_others: bool,
    /// The steps of the Canary that are no whole percentages.
    tenths: Vec<Percent>,
    /// The sum of both weights. The operator never changes it, so the shares of other backends stay.
    sum: u64,
    /// Whether the rule keeps clients on the version that answered them.
    pub keeps_sessions: bool,
}

/// A backend of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend<'a> {
    /// The place in the rule.
    pub index: usize,
    /// The name of the Service, as the rule has it.
    pub service: &'a str,
    /// Whether the data plane finds the Service by this name.
    pub is_found: bool,
    /// The weight.
    pub weight: u64,
}

/// A reason why the operator cannot set the weights of a rule. The route's name comes before this text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("has no rule named {0}")]
    Missing(String),
    #[error("has {0} rules that lead to both versions, but at most {MOST} are supported")]
    Many(usize),
    #[error("has a spec that cannot be copied")]
    NoSpec,
    #[error("has more than one rule named {0}")]
    Doubled(String),
    #[error(
        "has no rule that leads to both {stable} and {canary}: add the backend {canary} with the weight 0"
    )]
    NoRule { stable: String, canary: String },
    #[error("does not lead to {service} in {rule}: add this backend")]
    NoBackend { rule: String, service: String },
    #[error("names {service} more than once in {rule}")]
    DoubledBackend { rule: String, service: String },
    #[error("leads to both {} and {} in {rule}: both are the promoted version, so remove one of them", services[0], services[1])]
    TwoStable { rule: String, services: [String; 2] },
    #[error("has the weights 0 for both versions in {0}: give the promoted version the weight 100")]
    Zero(String),
    #[error(
        "has weights in {rule} that add up to {sum} for both versions: they must add up to 100 or more, so that each percent can be set"
    )]
    Small { rule: String, sum: u64 },
    #[error(
        "has weights in {rule} that add up to {sum} for both versions, of which {percent} % is no whole number: let them add up to 1000"
    )]
    Coarse {
        rule: String,
        sum: u64,
        percent: Percent,
    },
    #[error(
        "has weights in {rule} that add up to {sum} for both versions: they must not add up to more than 1000000"
    )]
    Large { rule: String, sum: u64 },
    #[error("leads to further backends in {0}: with affinity: accept, that needs mode Template")]
    Others(String),
    #[error(
        "has sessionPersistence in {0}, which keeps clients on the canary whatever the weights are, also after a rollback: remove it, or set affinity: accept in routeRefs"
    )]
    Sessions(String),
    #[error(
        "names the host {host} in {rule}, which Istio does not take for a Service: write it without the namespace, or to the end with .svc.cluster.local"
    )]
    HalfHost { rule: String, host: String },
}

/// The most rules in which weights are set.
const MOST: usize = 256;
/// The least sum of both weights. It stays as it is, so each percent needs a weight of its own.
const LEAST_SUM: u64 = 100;
/// A sum in which each tenth of a percent is a whole number.
const TENTHS: u64 = 1000;
/// The sum of both weights is less. Gateway API allows a million for one of them.
const LIMIT: u64 = 1_000_001;

impl Rule<'_> {
    fn canary_weight(&self) -> u64 {
        self.canary.map_or(0, |canary| canary.weight)
    }

    /// Both weights for this percentage of the canary.
    pub fn split(&self, percent: Percent) -> [u64; 2] {
        let canary = (self.sum * u64::from(percent.tenths()) + TENTHS / 2) / TENTHS;
        [self.sum - canary, canary]
    }

    /// Whether the rule has the canary's backend at this percentage.
    pub fn needs_canary(&self, percent: Percent) -> bool {
        percent > Percent::ZERO || !self.has_canary_in_runs
    }

    /// Whether the rule has the weights of this percentage.
    pub fn has(&self, percent: Percent) -> bool {
        match self.canary {
            Some(canary) => {
                self.needs_canary(percent)
                    && [self.stable.weight, canary.weight] == self.split(percent)
            }
            // The weight of an only backend means nothing, unless it is 0.
            None => !self.needs_canary(percent) && self.stable.weight > 0,
        }
    }

    /// The percentage whose weights the rule has: a whole one, if there is one. Otherwise the share of the canary, rounded up to a whole
    /// percentage: 0 only if no request is led there.
    pub fn percent(&self) -> Percent {
        let (canary, sum) = (self.canary_weight(), self.sum);
        let nearest = |parts: u64| (canary * parts + sum / 2).checked_div(sum).unwrap_or(0);
        let (whole, tenths) = (10 * nearest(TENTHS / 10), nearest(TENTHS));
        // Also after a user has removed `decimalStepWeights`, during a run.
        let has_tenths = self.sum == TENTHS || !self.tenths.is_empty();
        let tenths = has_tenths.then_some(tenths);
        let known = [Some(whole), tenths].into_iter().flatten();
        let mut known = known.map(Percent::of_tenths);
        if let Some(percent) = known.find(|percent| self.has(*percent)) {
            return percent;
        }
        let above = if sum == 0 {
            0
        } else {
            (canary * 100).div_ceil(sum)
        };
        Percent::of_tenths(10 * above)
    }

    /// Checks that every whole percentage can be set, and each step of the Canary.
    pub fn check(&self) -> Result<(), Problem> {
        let shown = || shown(self.name, self.place);
        let mut backends = [Some(self.stable), self.canary].into_iter().flatten();
        if let Some(lost) = backends.find(|backend| !backend.is_found) {
            let (rule, host) = (shown(), lost.service.to_owned());
            return Err(Problem::HalfHost { rule, host });
        }
        match self.sum {
            _ if self.keeps_sessions && !self.has_canary_in_runs => Err(Problem::Sessions(shown())),
            sum @ LIMIT.. => Err(Problem::Large { rule: shown(), sum }),
            0 => Err(Problem::Zero(shown())),
            sum @ ..LEAST_SUM => Err(Problem::Small { rule: shown(), sum }),
            sum => {
                let is_whole =
                    |step: &&Percent| (sum * u64::from(step.tenths())).is_multiple_of(TENTHS);
                let coarse = self.tenths.iter().find(|step| !is_whole(step));
                coarse.map_or(Ok(()), |percent| {
                    let (rule, percent) = (shown(), *percent);
                    Err(Problem::Coarse { rule, sum, percent })
                })
            }
        }
    }
}

/// The rules with these names, or without names all rules that lead to both versions: each one, or what is wrong with it.
pub fn chosen<'a>(
    route: &'a Value,
    canary: &Canary,
    used: &Used,
) -> Vec<Result<Rule<'a>, Problem>> {
    Versions::of(used, canary).chosen(route, &used.rules)
}

/// Checks that the weights of both versions can be set in a route of the user. Only a copy can be restored after another actor has removed
/// the canary's backend from a rule with further ones: nothing else has the sum of the weights.
pub fn check(rule: &Rule<'_>) -> Result<(), Problem> {
    if rule.has_canary_in_runs && rule.has_others {
        return Err(Problem::Others(shown(rule.name, rule.place)));
    }
    rule.check()
}

/// The same of a route of which the operator makes a copy. A rule may lead to the promoted version only: the copy gets the canary's backend.
pub fn of_template<'a>(
    route: &'a Value,
    canary: &Canary,
    used: &Used,
) -> Vec<Result<Rule<'a>, Problem>> {
    let versions = Versions {
        may_lack_canary: true,
        ..Versions::of(used, canary)
    };
    versions.chosen(route, &used.rules)
}

/// The places of the rules that lead to both versions, and have one of these names if there are names.
pub fn places(route: &Value, canary: &Canary, used: &Used) -> Vec<Place> {
    let (versions, names) = (Versions::of(used, canary), &used.rules);
    let is_named = |rule: &Value| names.iter().any(|one| text(rule, "name") == Some(one));
    let is_chosen = |rule: &Value| versions.has_both(rule) && (names.is_empty() || is_named(rule));
    let rules = versions.form.rules(route);
    rules
        .filter_map(|(i, rule)| is_chosen(rule).then_some(i))
        .collect()
}

/// Whether a rule beside these places leads to both versions, and gives the canary a weight: somebody has renamed a rule, or doubled a
/// backend.
pub fn leads_beside(used: &Used, route: &Value, canary: &Canary, known: &[Place]) -> bool {
    let versions = Versions::of(used, canary);
    let mut all = versions.form.rules(route);
    all.any(|(i, rule)| {
        let is_known = known.contains(&i);
        let backends = versions.backends(rule, &versions.canary);
        !is_known && versions.has_both(rule) && backends.iter().any(|it| it.weight > 0)
    })
}

/// The Services of both versions, for a route.
struct Versions {
    form: &'static Form,
    namespace: String,
    /// The namespace of the route, in which a backend is that names none.
    of_route: String,
    stable: [String; 2],
    canary: String,
    /// Whether the rules have the canary's backend only while the version gets requests.
    have_canary_in_runs: bool,
    /// Whether a rule may have no backend of the canary.
    may_lack_canary: bool,
    /// The steps of the Canary that are no whole percentages.
    tenths: Vec<Percent>,
}

impl Versions {
    fn of(used: &Used, canary: &Canary) -> Self {
        Self {
            form: Form::of(&used.route),
            namespace: canary.metadata.namespace.clone().unwrap_or_default(),
            of_route: used.route.namespace.clone(),
            stable: [canary.apex_name().to_owned(), canary.primary_name()],
            canary: canary.canary_name(),
            have_canary_in_runs: used.accepts_affinity,
            may_lack_canary: used.accepts_affinity,
            tenths: {
                let mut steps = canary.step_weights();
                steps.retain(|step| !step.is_whole());
                steps
            },
        }
    }

    fn chosen<'a>(&self, route: &'a Value, names: &[String]) -> Vec<Result<Rule<'a>, Problem>> {
        let all = || self.form.rules(route);
        if names.is_empty() {
            let both = all().filter(|(_, rule)| self.has_both(rule));
            let mut found: Vec<_> = both.map(|(i, rule)| self.read(i, rule)).collect();
            if found.len() > MOST {
                return vec![Err(Problem::Many(found.len()))];
            }
            if found.is_empty() {
                found.push(Err(Problem::NoRule {
                    stable: self.stable[0].clone(),
                    canary: self.canary.clone(),
                }));
            }
            return found;
        }
        let named = |name: &String| {
            let mut same = all().filter(|(_, rule)| text(rule, "name") == Some(name));
            match (same.next(), same.next()) {
                (None, _) => Err(Problem::Missing(name.clone())),
                (Some(_), Some(_)) => Err(Problem::Doubled(name.clone())),
                (Some((i, rule)), None) => self.read(i, rule),
            }
        };
        names.iter().map(named).collect()
    }

    /// The backends of a rule that are this Service.
    fn backends<'a>(&self, rule: &'a Value, service: &str) -> Vec<Backend<'a>> {
        let namespaces = [self.namespace.as_str(), &self.of_route];
        let found = self.form.backends(rule).enumerate();
        found
            .filter_map(|(index, backend)| {
                let name = self.form.named(backend, service, namespaces)?;
                Some(Backend {
                    index,
                    service: name,
                    is_found: self.form.is_found(name),
                    weight: self.form.weight(backend),
                })
            })
            .collect()
    }

    fn has_both(&self, rule: &Value) -> bool {
        let has = |service: &String| !self.backends(rule, service).is_empty();
        self.stable.iter().any(has) && (self.may_lack_canary || has(&self.canary))
    }

    fn read<'a>(&self, place: Place, rule: &'a Value) -> Result<Rule<'a>, Problem> {
        let name = text(rule, "name");
        let shown = || shown(name, place);
        let one = |service: &String| match self.backends(rule, service)[..] {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            _ => Err(Problem::DoubledBackend {
                rule: shown(),
                service: service.clone(),
            }),
        };
        let missing = |service: &String| Problem::NoBackend {
            rule: shown(),
            service: service.clone(),
        };
        let (stable, of_stable) = match (one(&self.stable[0])?, one(&self.stable[1])?) {
            (Some(_), Some(_)) => {
                return Err(Problem::TwoStable {
                    rule: shown(),
                    services: self.stable.clone(),
                });
            }
            (None, None) => return Err(missing(&self.stable[0])),
            (Some(apex), None) => (apex, &self.stable[0]),
            (None, Some(primary)) => (primary, &self.stable[1]),
        };
        let canary = one(&self.canary)?;
        if canary.is_none() && !self.may_lack_canary {
            return Err(missing(&self.canary));
        }
        let sum = stable.weight + canary.map_or(0, |canary| canary.weight);
        let has_others = self.form.backends(rule).count() > 1 + usize::from(canary.is_some());
        Ok(Rule {
            place,
            name,
            stable,
            canary,
            // The name begins with that of the Service.
            canary_service: stable.service.replacen(of_stable, &self.canary, 1),
            has_canary_in_runs: self.have_canary_in_runs,
            tenths: self.tenths.clone(),
            has_others,
            sum: if self.may_lack_canary && !has_others {
                // Only the shares of both matter.
                sum.max(if self.tenths.is_empty() {
                    LEAST_SUM
                } else {
                    TENTHS
                })
            } else {
                sum
            },
            keeps_sessions: rule
                .get("sessionPersistence")
                .is_some_and(|it| !it.is_null()),
        })
    }
}

/// A rule in messages.
fn shown(name: Option<&str>, place: Place) -> String {
    name.map_or(place.to_string(), |name| format!("rule {name}"))
}
