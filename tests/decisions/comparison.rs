//! A release whose canary is compared with the primary.

use flagger_rs::{
    api::{canary::CanaryPhase, status::ConditionType},
    snapshot::Kind,
};
use serde_json::{Value, json};

use super::{
    actions::ask,
    simulation::{Simulation, Traffic, release_of},
};

pub const BOTH: [&str; 2] = ["request-success-rate", "request-duration"];

/// A release with these metrics, of which each has these fields more.
pub fn release(metrics: &[&str], more: &Value, traffic: Traffic) -> Simulation {
    let metric = |name: &&str| {
        let bound = if name.contains("rate") {
            json!({"min": 99})
        } else {
            json!({"max": 500})
        };
        let mut metric = json!({"name": name, "thresholdRange": bound, "interval": "1m"});
        let more = more.as_object().unwrap().clone();
        metric.as_object_mut().unwrap().extend(more);
        metric
    };
    let metrics: Vec<_> = metrics.iter().map(metric).collect();
    let analysis = json!({"interval": "1m", "threshold": 5, "stepWeight": 10, "maxWeight": 50, "metrics": metrics});
    let mut sim =
        release_of(json!({"provider": "istio", "service": {"port": 9898}, "analysis": analysis}));
    sim.traffic = Some(traffic);
    sim
}

/// Reconciles until this is true.
pub fn until(sim: &mut Simulation, is_it: impl Fn(&Simulation) -> bool) {
    for _ in 0..5000 {
        if is_it(sim) {
            return;
        }
        sim.reconcile();
    }
    panic!("it is never true:\n{}", sim.transcript());
}

fn compared() -> Value {
    json!({"compare": {}})
}

pub fn verdict(sim: &Simulation) -> String {
    let verdict = sim.snapshot.status().condition(ConditionType::Verdict);
    verdict.map_or_else(String::new, |it| {
        format!("{} {}", it.reason, it.message.as_deref().unwrap())
    })
}

pub fn comparison(sim: &Simulation) -> Option<String> {
    sim.snapshot
        .status()
        .condition(ConditionType::Comparison)?
        .message
        .clone()
}

#[test]
fn a_version_that_is_no_worse_is_promoted_in_its_five_steps_whatever_the_threshold_says() {
    // At such a rate of failures, Flagger rolls every version back.
    let traffic = Traffic {
        primary_fails: 0.02,
        canary_fails: 0.02,
        ..Traffic::of(200.0)
    };
    let mut sim = release(&BOTH, &compared(), traffic);
    sim.metric = "98".to_owned();
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(sim.routed, [10, 20, 30, 40, 50, 0], "{}", sim.transcript());
    assert_eq!(comparison(&sim), None);
    assert_eq!(verdict(&sim), "");
}

#[test]
fn a_version_that_fails_more_is_rolled_back_at_the_first_step_that_proves_it() {
    let traffic = Traffic {
        canary_fails: 0.05,
        ..Traffic::of(200.0)
    };
    let mut sim = release(&BOTH, &compared(), traffic);
    sim.run_until(CanaryPhase::Failed);
    assert_eq!(sim.routed, [10, 0], "{}", sim.transcript());
    let sentence = "Regression The canary is worse than the primary: request-success-rate: 15 of 18 failed requests hit the canary, which served 10 % of the requests; chance alone would do that in at most 1 of ";
    assert!(verdict(&sim).starts_with(sentence), "{}", verdict(&sim));
    assert_eq!(
        sim.count_notified("Rolling back podinfo.test regression found"),
        1
    );
    assert_eq!(sim.snapshot.status().failed_checks, 0);
}

#[test]
fn a_version_that_is_slower_is_rolled_back() {
    let traffic = Traffic {
        canary_is_slower: 0.05,
        ..Traffic::of(200.0)
    };
    let mut sim = release(&BOTH, &compared(), traffic);
    sim.run_until(CanaryPhase::Failed);
    let words =
        "of the canary's 1500 requests took longer than 250 ms, 5 % of the primary's 13500; chance";
    assert!(verdict(&sim).contains(words), "{}", verdict(&sim));
}

#[test]
fn the_annotation_compares_all_built_in_metrics_and_only_observes_if_it_says_so() {
    for (word, phase) in [
        ("compare", CanaryPhase::Failed),
        ("observe", CanaryPhase::Succeeded),
        ("", CanaryPhase::Succeeded),
    ] {
        let traffic = Traffic {
            canary_fails: 0.05,
            ..Traffic::of(200.0)
        };
        let mut sim = release(&BOTH, &json!({}), traffic);
        let annotations = &mut sim.snapshot.canary.metadata.annotations;
        let name = "flagger-rs.github.io/analysis".to_owned();
        annotations
            .get_or_insert_default()
            .insert(name, word.to_owned());
        sim.run_until(phase);
    }
}

#[test]
fn a_step_waits_for_enough_requests_and_then_for_a_person() {
    let mut sim = release(&BOTH[..1], &compared(), Traffic::of(1.0));
    sim.run_until_phase(CanaryPhase::Progressing);
    until(&mut sim, |sim| sim.canary_weight() >= 10);
    let start = sim.snapshot.now.as_second();
    let run = |sim: &mut Simulation, until: i64| {
        while sim.snapshot.now.as_second() < start + until {
            sim.reconcile();
        }
    };
    run(&mut sim, 300);
    assert!(
        verdict(&sim).starts_with(
            "LowTraffic Waits for more requests: request-success-rate: the canary had "
        ),
        "{}",
        verdict(&sim)
    );
    assert_eq!(
        sim.count_notified("Canary analysis is waiting for a person."),
        0
    );
    run(&mut sim, 1000);
    assert!(
        verdict(&sim).starts_with("Undecided Waits for a person"),
        "{}",
        verdict(&sim)
    );
    assert_eq!(
        sim.count_notified("Canary analysis is waiting for a person."),
        1
    );
    assert_eq!(
        (sim.canary_weight(), sim.snapshot.phase()),
        (10, CanaryPhase::Progressing)
    );
    // A person skips the step. With more requests, the next step needs no help.
    ask(&mut sim, "skip", "x1");
    until(&mut sim, |sim| sim.canary_weight() == 20);
    sim.traffic.as_mut().unwrap().per_second = 500.0;
    sim.run_until(CanaryPhase::Succeeded);
}

#[test]
fn a_person_or_a_policy_ends_the_wait_for_requests() {
    for (fields, phase) in [
        (
            json!({"compare": {"onUndecided": "promote", "maxExtend": 2}}),
            CanaryPhase::Succeeded,
        ),
        (
            json!({"compare": {"onUndecided": "fail", "maxExtend": 2}}),
            CanaryPhase::Failed,
        ),
        (
            json!({"compare": {}, "onLowTraffic": "ignore"}),
            CanaryPhase::Succeeded,
        ),
        (
            json!({"compare": {}, "onLowTraffic": "fail"}),
            CanaryPhase::Failed,
        ),
        (
            json!({"compare": {"minSamples": 5}}),
            CanaryPhase::Succeeded,
        ),
        (
            json!({"compare": {}, "mode": "observe"}),
            CanaryPhase::Succeeded,
        ),
    ] {
        let mut sim = release(&BOTH[..1], &fields, Traffic::of(1.0));
        sim.run_until(phase);
    }
}

#[test]
fn without_an_answer_or_a_series_a_step_waits_until_the_deadline_and_counts_no_failed_check() {
    type Break = fn(&mut Traffic);
    let breaks: [(Break, &str, &str); 5] = [
        (|it| it.is_down = true, "ProviderError", "onError"),
        (|it| it.lacks_canary = true, "NoData", "onNoData"),
        (|it| it.lags = 600, "Stale", "onError"),
        (|it| it.ignores_weights = true, "TrafficNotShifted", ""),
        (
            |it| (it.one_pod_fails, it.canary_fails) = (true, 0.05),
            "OnePod",
            "",
        ),
    ];
    for (breaks, code, policy) in breaks {
        let broken = || {
            let mut traffic = Traffic::of(200.0);
            breaks(&mut traffic);
            traffic
        };
        let mut sim = release(&BOTH[..1], &compared(), broken());
        sim.run_until_phase(CanaryPhase::Progressing);
        let start = sim.snapshot.now.as_second();
        sim.run_until(CanaryPhase::Failed);
        let took = sim.snapshot.now.as_second() - start;
        let text = format!("{code} {took}: {}\n{}", verdict(&sim), sim.transcript());
        assert!((600..900).contains(&took), "{text}");
        let sentence = format!(
            "{code} The versions could not be compared until the progress deadline: request-success-rate: "
        );
        assert!(verdict(&sim).starts_with(&sentence), "{text}");
        assert_eq!(sim.snapshot.status().failed_checks, 0, "{text}");

        if policy.is_empty() {
            continue;
        }
        let mut fields = compared();
        fields[policy] = json!("ignore");
        release(&BOTH[..1], &fields, broken()).run_until(CanaryPhase::Succeeded);
        fields[policy] = json!("fail");
        let mut sim = release(&BOTH[..1], &fields, broken());
        sim.run_until(CanaryPhase::Failed);
        assert_eq!(
            sim.count_notified("Rolling back podinfo.test failed checks threshold reached 5"),
            1
        );
    }
}

#[test]
fn a_short_outage_of_the_metric_server_holds_a_good_version_and_no_request_is_lost_to_the_comparison()
 {
    let mut sim = release(&BOTH, &compared(), Traffic::of(200.0));
    until(&mut sim, |sim| sim.canary_weight() >= 20);
    sim.traffic.as_mut().unwrap().is_down = true;
    let start = sim.snapshot.now.as_second();
    until(&mut sim, |sim| sim.snapshot.now.as_second() >= start + 200);
    assert_eq!(sim.canary_weight(), 20);
    sim.traffic.as_mut().unwrap().is_down = false;
    until(&mut sim, |sim| sim.canary_weight() >= 30);
    let kept: Value = serde_json::from_str(&comparison(&sim).unwrap()).unwrap();
    let seen = &kept["request-success-rate"]["test"][0]["test"]["seen"]["canary"]["all"];
    // Two minutes at 10 %, and four at 20 %, less the 15 s for which the counters are too new.
    assert_eq!(seen, &json!(120.0 * 20.0 + 240.0 * 40.0 - 15.0 * 40.0));
    sim.run_until(CanaryPhase::Succeeded);
}

#[test]
fn another_process_goes_on_with_the_same_evidence() {
    let run = |hands_over: bool| {
        let mut sim = release(&BOTH, &compared(), Traffic::of(200.0));
        for weight in [10, 20, 30, 40] {
            until(&mut sim, |sim| sim.canary_weight() == weight);
            if hands_over {
                sim.hand_over(jiff::SignedDuration::ZERO);
            }
        }
        comparison(&sim).unwrap()
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn each_metric_asks_two_queries_in_a_step_for_both_versions_and_one_more_in_the_first() {
    let mut sim = release(&BOTH, &compared(), Traffic::of(500.0));
    sim.run_until(CanaryPhase::Succeeded);
    let asked = |transcript: &str, what: &str| transcript.matches(what).count();
    let text = sim.transcript();
    assert_eq!(
        (
            asked(&text, "ask    history"),
            asked(&text, "ask    compare")
        ),
        (2, 20),
        "{text}"
    );
    assert_eq!(asked(&text, "ask    metric"), 0, "{text}");
}

#[test]
fn a_newer_version_begins_its_own_comparison() {
    let mut sim = release(&BOTH, &compared(), Traffic::of(200.0));
    until(&mut sim, |sim| sim.canary_weight() >= 30);
    assert!(comparison(&sim).is_some());
    sim.image("podinfo:3");
    until(&mut sim, |sim| sim.canary_weight() != 30);
    assert_eq!(comparison(&sim), None);
    let target = sim.snapshot.reference(Kind::Deployment, "podinfo");
    assert!(sim.snapshot.objects.contains_key(&target));
    sim.run_until(CanaryPhase::Succeeded);
}

#[test]
fn a_crash_after_any_write_changes_no_verdict() {
    for (fails, phase) in [(0.001, CanaryPhase::Succeeded), (0.05, CanaryPhase::Failed)] {
        for crash in 1.. {
            let traffic = Traffic {
                canary_fails: fails,
                ..Traffic::of(500.0)
            };
            let mut sim = release(&BOTH[..1], &compared(), traffic);
            sim.crash_after = Some(crash);
            sim.run_until(phase);
            assert_eq!(
                sim.snapshot.status().failed_checks,
                0,
                "{}",
                sim.transcript()
            );
            if sim.writes < crash {
                assert!(crash > 5, "{crash}");
                break;
            }
        }
    }
}

#[test]
fn a_metric_of_a_user_is_compared_by_the_counters_that_its_queries_return() {
    let counts = json!({"all": "all{w=\"{{ target }}\"}", "bad": "bad{w=\"{{ target }}\"}"});
    let metric = json!({"name": "checkouts", "compare": {}, "counts": counts});
    for (fails, phase) in [(0.001, CanaryPhase::Succeeded), (0.05, CanaryPhase::Failed)] {
        let mut sim = release(&[], &json!({}), Traffic::of(500.0));
        sim.traffic.as_mut().unwrap().canary_fails = fails;
        let analysis = sim.snapshot.canary.spec.analysis.as_mut().unwrap();
        analysis.metrics = serde_json::from_value(json!([metric])).unwrap();
        sim.run_until(phase);
        let text = sim.transcript();
        assert!(
            text.contains("ask    compare 0") && !text.contains("ask    metric 0"),
            "{text}"
        );
    }
}

#[test]
fn a_comparison_that_cannot_be_made_is_refused_with_the_reason() {
    let counts = json!({"all": "a", "bad": "b"});
    for (provider, metric, why) in [
        (
            "istio",
            json!({"name": "x", "query": "up", "compare": {}}),
            "[0].compare: only request-success-rate, request-duration and metrics with counts can be compared",
        ),
        (
            "istio",
            json!({"name": "x", "counts": counts}),
            "[0].compare: is needed by counts",
        ),
        (
            "istio",
            json!({"name": "x", "counts": {"all": "{{ none }}", "bad": "b"}, "compare": {}}),
            "[0].compare: the query of counts: ",
        ),
        (
            "istio",
            json!({"name": "request-success-rate", "compare": {"maxFactor": 0.5}}),
            "[0].compare: maxFactor must be at least 1",
        ),
        (
            "istio",
            json!({"name": "request-success-rate", "compare": {"falseAlarms": 0}}),
            "[0].compare: falseAlarms must be above 0 and below 100 percent",
        ),
        (
            "istio",
            json!({"name": "x", "templateRef": {"name": "t"}, "counts": counts, "compare": {}}),
            "[0].compare: a metric with counts has neither query nor templateRef",
        ),
        (
            "nginx",
            json!({"name": "request-duration", "compare": {}}),
            "[0].compare: the provider nginx has no counters by which request-duration of a Deployment can be compared",
        ),
        (
            "skipper",
            json!({"name": "request-success-rate", "compare": {}}),
            "[0].compare: the provider skipper has no counters by which request-success-rate of a Deployment can be compared",
        ),
    ] {
        let mut sim = release(&[], &json!({}), Traffic::of(500.0));
        sim.snapshot.canary.spec.provider = Some(provider.to_owned());
        let analysis = sim.snapshot.canary.spec.analysis.as_mut().unwrap();
        analysis.metrics = serde_json::from_value(json!([metric])).unwrap();
        let problem = flagger_rs::rollout::spec_problem(&sim.snapshot).unwrap();
        assert!(
            problem.starts_with(&format!("invalid canary spec: spec.analysis.metrics{why}")),
            "{problem}"
        );
    }
}

#[test]
fn a_wait_has_the_whole_deadline_whatever_came_before_it() {
    let mut sim = release(&BOTH[..1], &compared(), Traffic::of(1.0));
    until(&mut sim, |sim| sim.canary_weight() == 10);
    // The step has waited for requests for longer than the progress deadline when Prometheus fails.
    let start = sim.snapshot.now.as_second();
    until(&mut sim, |sim| sim.snapshot.now.as_second() >= start + 650);
    sim.traffic.as_mut().unwrap().is_down = true;
    let start = sim.snapshot.now.as_second();
    sim.run_until(CanaryPhase::Failed);
    let took = sim.snapshot.now.as_second() - start;
    assert!((600..900).contains(&took), "{took}");
}

/// No request of the primary exceeds a bound. The lowest bound is compared nevertheless.
#[test]
fn durations_of_a_fast_service_are_compared_at_the_lowest_bound() {
    for (slower, phase) in [(0.0, CanaryPhase::Succeeded), (0.3, CanaryPhase::Failed)] {
        let mut sim = release(&BOTH[1..], &compared(), Traffic::of(500.0));
        let traffic = sim.traffic.as_mut().unwrap();
        (traffic.are_all_fast, traffic.canary_is_slower) = (true, slower);
        sim.run_until(phase);
        let shown = sim.transcript();
        let is_kept = shown.contains("\"bound\":100.0");
        assert_eq!(is_kept, phase == CanaryPhase::Succeeded, "{shown}");
    }
}

/// Each failure of Prometheus begins a new wait, also while a version waits for its approval.
#[test]
fn failures_of_prometheus_long_after_each_other_do_not_add_up_to_a_deadline() {
    let mut sim = release(&BOTH[..1], &compared(), Traffic::of(500.0));
    let gate = json!([{"name": "gate", "type": "confirm-promotion", "url": "http://hooks/gate"}]);
    let analysis = sim.snapshot.canary.spec.analysis.as_mut().unwrap();
    analysis.webhooks = serde_json::from_value(gate).unwrap();
    sim.closed.insert("gate");
    sim.run_until_phase(CanaryPhase::WaitingPromotion);
    for _ in 0..3 {
        for (is_down, seconds) in [(true, 130), (false, 700)] {
            sim.traffic.as_mut().unwrap().is_down = is_down;
            let start = sim.snapshot.now.as_second();
            until(&mut sim, |sim| {
                sim.snapshot.now.as_second() >= start + seconds
            });
            assert_eq!(
                sim.snapshot.phase(),
                CanaryPhase::WaitingPromotion,
                "{}",
                sim.transcript()
            );
        }
    }
    sim.closed.clear();
    sim.run_until(CanaryPhase::Succeeded);
}

/// The server alternates between errors and answers without series. Both are one wait.
#[test]
fn a_wait_whose_reason_changes_has_one_deadline() {
    let mut sim = release(&BOTH[..1], &compared(), Traffic::of(500.0));
    until(&mut sim, |sim| sim.canary_weight() == 20);
    let start = sim.snapshot.now.as_second();
    for turn in 0..20 {
        let traffic = sim.traffic.as_mut().unwrap();
        (traffic.is_down, traffic.lacks_canary) = (turn % 2 == 0, turn % 2 == 1);
        until(&mut sim, |sim| {
            sim.snapshot.now.as_second() >= start + 100 * turn
        });
        if sim.snapshot.phase() == CanaryPhase::Failed {
            break;
        }
    }
    assert_eq!(
        sim.snapshot.phase(),
        CanaryPhase::Failed,
        "{}",
        sim.transcript()
    );
    let took = sim.snapshot.now.as_second() - start;
    assert!((600..1_000).contains(&took), "{took}");
}

#[test]
fn targets_whose_versions_have_no_series_of_their_own_are_refused() {
    for (provider, kind, is_compared) in [
        ("istio", "DaemonSet", true),
        ("kubernetes", "DaemonSet", false),
        ("linkerd", "DaemonSet", false),
        ("contour", "DaemonSet", true),
    ] {
        let mut sim = release(&BOTH[..1], &compared(), Traffic::of(500.0));
        sim.snapshot.canary.spec.provider = Some(provider.to_owned());
        sim.snapshot.canary.spec.target_ref.kind = kind.to_owned();
        let problem = flagger_rs::rollout::spec_problem(&sim.snapshot);
        assert_eq!(
            problem.is_none(),
            is_compared,
            "{provider} {kind}: {problem:?}"
        );
    }
}

/// Proxies and scrapes follow a new weight some seconds later. This delays no step.
#[test]
fn traffic_that_moves_late_delays_no_step() {
    let mut sim = release(&BOTH[..1], &compared(), Traffic::of(2000.0));
    sim.traffic.as_mut().unwrap().moves_late = 30;
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(
        sim.count_notified("Halt podinfo.test advancement"),
        0,
        "{}",
        sim.transcript()
    );
}

/// A failed check of another metric has the same code as the wait, but is no part of the wait.
#[test]
fn a_failed_check_before_a_wait_takes_nothing_from_its_deadline() {
    let mut sim = release(&BOTH[..1], &compared(), Traffic::of(500.0));
    until(&mut sim, |sim| sim.canary_weight() == 20);
    let status = sim.snapshot.canary.status.as_mut().unwrap();
    let long_ago = "1970-01-01T00:00:00Z";
    let failed = json!({"type": "Verdict", "status": "True", "reason": "ProviderError", "message": "Failed check 1 of 5: x could not be measured.",
        "lastTransitionTime": long_ago, "lastUpdateTime": long_ago});
    let conditions = status.conditions.get_or_insert_default();
    conditions.push(serde_json::from_value(failed).unwrap());
    sim.traffic.as_mut().unwrap().is_down = true;
    sim.snapshot.canary.spec.progress_deadline_seconds = Some(200);
    let start = sim.snapshot.now.as_second();
    sim.run_until(CanaryPhase::Failed);
    let took = sim.snapshot.now.as_second() - start;
    assert!((200..400).contains(&took), "{took}");
}
