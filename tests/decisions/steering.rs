//! Each verb of a person at each place of a release: it is accepted or refused with the reason, and the release ends accordingly.

use flagger_rs::{
    api::{
        action::Verb,
        canary::CanaryPhase,
        status::{CanaryCondition, ConditionType},
    },
    snapshot::Kind,
};
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{
    actions::{annotate, ask, has, is_annotated, seen},
    configs::{color, with_config},
    simulation::{Simulation, release_of},
};

/// A place in a release.
#[derive(Clone, Copy)]
struct Place {
    name: &'static str,
    is_there: fn(&Simulation) -> bool,
    /// The gate that is closed.
    closed: Option<&'static str>,
    /// The value of the metric.
    metric: &'static str,
    /// The verbs that are accepted there, by their words.
    accepts: &'static str,
    /// The end of the reason why each other verb is refused; `None` if it depends on the verb.
    advice: Option<&'static str>,
}

const ANY: Place = Place {
    name: "",
    is_there: |_| true,
    closed: None,
    metric: "100",
    accepts: "",
    advice: None,
};

/// The places of a run at which it can be paused.
const OF_A_RUN: [Place; 5] = [
    Place {
        name: "at the gate before the run",
        is_there: |sim| sim.snapshot.phase() == CanaryPhase::Waiting,
        closed: Some("confirm-rollout"),
        accepts: "promote skip pause resume abort",
        ..ANY
    },
    Place {
        name: "before the first weight",
        is_there: |sim| sim.snapshot.phase() == CanaryPhase::Progressing,
        accepts: "promote skip pause abort",
        ..ANY
    },
    Place {
        name: "at the gate before the first weight",
        is_there: |sim| sim.count("call   confirm-traffic-increase") > 0,
        closed: Some("confirm-traffic-increase"),
        accepts: "promote skip pause abort",
        ..ANY
    },
    Place {
        name: "at a weight",
        is_there: |sim| sim.canary_weight() == 20,
        accepts: "promote skip pause abort",
        ..ANY
    },
    Place {
        name: "at the gate before the promotion",
        is_there: |sim| sim.snapshot.phase() == CanaryPhase::WaitingPromotion,
        closed: Some("confirm-promotion"),
        accepts: "promote skip pause resume abort",
        ..ANY
    },
];

/// The other places.
const OTHERS: [Place; 7] = [
    Place {
        name: "before any run",
        ..ANY
    },
    Place {
        name: "before the primary gets the version",
        is_there: |sim| sim.snapshot.phase() == CanaryPhase::Promoting && image(sim) == "podinfo:1",
        accepts: "abort",
        advice: Some(": the version is being promoted already"),
        ..ANY
    },
    Place {
        name: "when the primary has the version",
        is_there: |sim| sim.snapshot.phase() == CanaryPhase::Promoting && image(sim) == "podinfo:2",
        ..ANY
    },
    Place {
        name: "when the canary drains",
        is_there: |sim| sim.snapshot.phase() == CanaryPhase::Finalising,
        ..ANY
    },
    Place {
        name: "after the promotion",
        is_there: |sim| sim.snapshot.phase() == CanaryPhase::Succeeded,
        ..ANY
    },
    Place {
        name: "during a rollback",
        is_there: |sim| has(sim, ConditionType::RollingBack),
        metric: "10",
        advice: Some(": the version is being rolled back already"),
        ..ANY
    },
    Place {
        name: "after a rollback",
        is_there: |sim| sim.snapshot.phase() == CanaryPhase::Failed,
        metric: "10",
        accepts: "retry",
        advice: Some(": the version has failed. Use retry to release it again"),
        ..ANY
    },
];

fn image(sim: &Simulation) -> &str {
    let primary = sim.snapshot.primary().unwrap();
    let image = &primary["spec"]["template"]["spec"]["containers"][0]["image"];
    image.as_str().unwrap()
}

fn gate(name: &str) -> Value {
    json!({"name": name, "type": name, "url": format!("http://hooks/{name}")})
}

impl Place {
    /// A release that has just come to this place.
    fn reached(&self) -> Simulation {
        let hooks = [
            gate("confirm-rollout"),
            gate("confirm-traffic-increase"),
            gate("confirm-promotion"),
            json!({"name": "acceptance", "type": "pre-rollout", "url": "http://hooks/acceptance"}),
            json!({"name": "load", "url": "http://hooks/load"}),
        ];
        let mut sim = release_of(
            json!({"analysis": {"stepWeight": 20, "maxWeight": 40, "threshold": 1, "webhooks": hooks}}),
        );
        self.metric.clone_into(&mut sim.metric);
        sim.closed.extend(self.closed);
        for _ in 0..500 {
            if (self.is_there)(&sim) {
                return sim;
            }
            sim.reconcile();
        }
        panic!("not {}: {}", self.name, sim.transcript());
    }

    /// The end of the release without an action, with all gates open.
    fn end(&self) -> CanaryPhase {
        if self.metric == "10" {
            CanaryPhase::Failed
        } else {
            CanaryPhase::Succeeded
        }
    }

    fn accepts(&self, verb: Verb) -> bool {
        self.accepts.split(' ').any(|word| word == verb.as_str())
    }
}

/// Asks for an action, and returns the condition with its result.
fn answer(sim: &mut Simulation, verb: Verb) -> CanaryCondition {
    ask(sim, verb.as_str(), "x1");
    for _ in 0..5 {
        sim.reconcile();
        let status = sim.snapshot.status();
        let action = status.condition(ConditionType::Action);
        if let Some(action) = action.filter(|it| it.message.as_deref().unwrap().starts_with("x1 "))
        {
            return action.clone();
        }
    }
    panic!("{verb} has no answer: {}", sim.transcript());
}

/// Opens all gates, and runs the release to its end.
fn go_on(sim: &mut Simulation, end: CanaryPhase) -> String {
    sim.closed.clear();
    sim.run_until(end);
    assert!(!is_annotated(sim));
    for type_ in ConditionType::STEERING {
        assert!(!has(sim, type_), "{type_:?}: {}", sim.transcript());
    }
    sim.outcome()
}

#[test]
fn each_verb_has_its_effect_where_it_is_accepted_and_none_elsewhere() {
    for place in OF_A_RUN.iter().chain(&OTHERS) {
        let undisturbed = go_on(&mut place.reached(), place.end());
        for verb in Verb::ALL {
            let case = format!("{verb} {}", place.name);
            let mut sim = place.reached();
            let answer = answer(&mut sim, verb);
            let (reason, message) = (answer.reason.as_str(), answer.message.unwrap());
            if !place.accepts(verb) {
                assert_eq!(reason, "Refused", "{case}");
                let is_advised = message.ends_with(place.advice.unwrap_or_default());
                assert!(is_advised, "{case}: {message}");
                assert_eq!(go_on(&mut sim, place.end()), undisturbed, "{case}");
                continue;
            }
            assert_eq!(reason, "Accepted", "{case}: {message}");
            let (end, primary) = match verb {
                Verb::Abort => (CanaryPhase::Failed, "podinfo:1"),
                _ => (CanaryPhase::Succeeded, "podinfo:2"),
            };
            match verb {
                // A person's promotion passes gates and checks.
                Verb::Promote => sim.run_until(end),
                Verb::Pause => ask(&mut sim, "resume", "x2"),
                Verb::Retry => sim.metric = "100".to_owned(),
                Verb::Skip | Verb::Resume | Verb::Abort => {}
            }
            go_on(&mut sim, end);
            assert_eq!(image(&sim), primary, "{case}: {}", sim.transcript());
        }
    }
}

#[test]
fn a_pause_holds_the_release_wherever_it_is_and_calls_no_hook_that_belongs_to_the_next_step() {
    for place in OF_A_RUN {
        let mut sim = place.reached();
        annotate(&mut sim, "pause");
        sim.run(2);
        assert!(has(&sim, ConditionType::Paused), "{}", place.name);
        sim.closed.clear();
        let state = |sim: &Simulation| {
            let calls = ["call   acceptance", "call   confirm-traffic-increase"];
            let calls = calls.map(|call| sim.count(call));
            (sim.snapshot.phase(), sim.canary_weight(), calls)
        };
        let paused = state(&sim);
        sim.run(100);
        assert_eq!(state(&sim), paused, "{}: {}", place.name, sim.transcript());
        ask(&mut sim, "resume", "r1");
        go_on(&mut sim, CanaryPhase::Succeeded);
    }
}

/// The person asked for the earlier version, which a newer one has replaced.
#[test]
fn a_newer_version_is_steered_by_nobody() {
    for place in &OF_A_RUN[1..] {
        for verb in [Verb::Pause, Verb::Skip, Verb::Promote] {
            let mut sim = place.reached();
            assert_eq!(answer(&mut sim, verb).reason, "Accepted");
            sim.image("podinfo:3");
            let is_known = |sim: &Simulation| sim.count_notified("Restarting analysis") > 0;
            for _ in 0..5 {
                if !is_known(&sim) {
                    sim.reconcile();
                }
            }
            assert!(is_known(&sim), "{verb} {}", place.name);
            for type_ in ConditionType::STEERING {
                assert!(!has(&sim, type_), "{verb} {}: {type_:?}", place.name);
            }
            go_on(&mut sim, CanaryPhase::Succeeded);
            assert_eq!(image(&sim), "podinfo:3");
            let checked = sim.count_notified("Advance podinfo.test canary weight 40");
            assert!(checked > 0, "{verb} {}: {}", place.name, sim.transcript());
            assert_eq!(sim.count_notified("Promotion finished, requested by"), 0);
        }
    }
}

/// Otherwise, a manifest with an old action would cause the action again at a later time.
#[test]
fn the_time_of_an_action_is_at_most_a_quarter_of_an_hour_away() {
    let year = 365 * 24 * 60;
    for (minutes, accepted) in [
        (-year, false),
        (-16, false),
        (-14, true),
        (14, true),
        (16, false),
        (year, false),
    ] {
        let mut sim = OF_A_RUN[3].reached();
        let at = sim.snapshot.now + SignedDuration::from_mins(minutes);
        let revision = sim.snapshot.status().last_applied_spec.clone().unwrap();
        annotate(&mut sim, &format!("abort {revision} x1 {at} jane bad"));
        sim.run(6);
        assert_eq!(sim.canary_weight() == 0, accepted, "{minutes}");
        let refused = sim.count_notified("is more than 15 minutes from now");
        assert_eq!(refused, usize::from(!accepted), "{minutes}");
    }
}

#[test]
fn a_version_that_is_aborted_at_its_gate_is_not_released_whatever_is_new_in_it() {
    for (image, config) in [(true, false), (false, true), (true, true)] {
        let mut sim = with_config(false);
        let gates = json!([gate("confirm-rollout")]);
        sim.edit(
            "analysis",
            &json!({"stepWeight": 50, "threshold": 5, "webhooks": gates}),
        );
        sim.closed.insert("confirm-rollout");
        if image {
            sim.image("podinfo:3");
        }
        if config {
            color(&mut sim, "blue");
        }
        sim.run_until_phase(CanaryPhase::Waiting);
        ask(&mut sim, "abort", "a1");
        sim.run_until(CanaryPhase::Failed);
        sim.closed.clear();
        sim.run(100);
        assert_eq!(
            sim.snapshot.phase(),
            CanaryPhase::Failed,
            "{image} {config}: {}",
            sim.transcript()
        );
        let primary = sim.snapshot.reference(Kind::ConfigMap, "color-primary");
        assert_eq!(sim.snapshot.objects[&primary]["data"]["color"], "red");
        color(&mut sim, "green");
        sim.run_until(CanaryPhase::Succeeded);
        assert_eq!(sim.snapshot.objects[&primary]["data"]["color"], "green");
    }
}

/// A person stops the release at the last moment: a promotion that was asked for must not come after the pause.
#[test]
fn a_pause_takes_back_a_promotion_and_a_skip_that_were_not_carried_out() {
    for verb in ["promote", "skip"] {
        let mut sim = release_of(json!({"analysis": {"stepWeight": 10, "maxWeight": 50}}));
        while sim.canary_weight() == 0 {
            sim.reconcile();
        }
        sim.dead = true;
        ask(&mut sim, verb, "p1");
        sim.run(5);
        ask(&mut sim, "pause", "p2");
        sim.run(5);
        sim.dead = false;
        sim.run(300);
        let text = sim.transcript();
        assert_eq!(
            sim.snapshot.phase(),
            CanaryPhase::Progressing,
            "{verb} {text}"
        );
        assert!(sim.canary_weight() <= 10, "{verb} {text}");
    }
}

/// The operator does nothing for such a Canary, so it must not leave a person waiting for an answer.
#[test]
fn an_action_on_a_suspended_or_invalid_canary_is_refused_with_the_reason() {
    type Stop = fn(&mut Simulation);
    let stops: [(Stop, &str); 2] = [
        (
            |sim| sim.snapshot.canary.spec.suspend = true,
            "spec.suspend is true",
        ),
        (
            |sim| sim.snapshot.canary.spec.service.port = 0,
            "the operator does not run this Canary",
        ),
    ];
    for (stop, why) in stops {
        let mut sim = release_of(json!({"analysis": {"stepWeight": 10, "maxWeight": 50}}));
        sim.run_until(CanaryPhase::Succeeded);
        stop(&mut sim);
        sim.run(30);
        ask(&mut sim, "pause", "s1");
        sim.run(5);
        let action = sim.snapshot.status().condition(ConditionType::Action);
        let action = action.unwrap_or_else(|| panic!("{why}: {}", sim.transcript()));
        assert_eq!(action.reason, "Refused");
        assert!(action.message.as_ref().unwrap().contains(why), "{action:?}");
    }
}

/// An action that a tool repeats in the next run of the same version is not carried out again.
#[test]
fn an_id_counts_once_in_the_next_run_too() {
    let mut sim = release_of(json!({"analysis": {"stepWeight": 10, "maxWeight": 50}}));
    while sim.canary_weight() == 0 {
        sim.reconcile();
    }
    let (revision, now) = (seen(&sim), sim.snapshot.now);
    let line = format!("abort {revision} a1 {now} jane@example.com errors");
    annotate(&mut sim, &line);
    sim.run_until(CanaryPhase::Failed);
    sim.image("podinfo:1");
    sim.run(30);
    sim.image("podinfo:2");
    while sim.canary_weight() == 0 {
        sim.reconcile();
    }
    assert_eq!(seen(&sim), revision);
    annotate(&mut sim, &line);
    sim.run(60);
    assert!(sim.canary_weight() > 0, "{}", sim.transcript());
    assert!(!is_annotated(&sim));
}

/// The refusal is the last action that the status has, and the record and the alert still name the author of the promotion.
#[test]
fn a_refused_action_does_not_hide_the_person_who_promoted() {
    for phase in [CanaryPhase::Promoting, CanaryPhase::Finalising] {
        let mut sim = release_of(json!({"analysis": {"stepWeight": 10, "maxWeight": 50}}));
        sim.run_until_phase(CanaryPhase::Progressing);
        ask(&mut sim, "promote", "p1");
        sim.run_until_phase(phase);
        ask(&mut sim, "skip", "s1");
        sim.run_until(CanaryPhase::Succeeded);
        let author = "Promotion finished, requested by jane@example.com: errors at the checkout";
        assert_eq!(sim.count_notified(author), 1, "{:#?}", sim.notified);
        assert_eq!(sim.count_notified("refused"), 1, "{:#?}", sim.notified);
        assert!(!has(&sim, ConditionType::PromoteRequested));
    }
}
