//! The differences from the undisturbed run that a disturbance justifies. The numbers are the greatest that the sweep has seen.

use std::{ops::Add, time::Duration};

use super::{
    super::{
        faults::{Fault, Which},
        invariants::KNATIVE_SERVICES,
        scenario::Scenario,
    },
    disturbance::Disturbance,
};

/// The differences that are allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// How much longer the run may take.
    pub delay: Duration,
    /// The time for which the operator may have only an earlier version of the target in its cache.
    pub staleness: Duration,
    /// How often each alert and each hook may be repeated.
    pub repeats: usize,
    /// How often each event may be repeated.
    pub repeated_events: usize,
    /// How many Events, and how many payloads of event webhooks, may be missing in all: each is sent once at most.
    pub lost_events: usize,
    pub lost_payloads: usize,
    /// How often a Warning may be sent that the undisturbed run does not have.
    pub warnings: usize,
    /// How many steps an earlier version may take, with their hooks and events.
    pub steps: usize,
}

impl Add for Allowance {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            delay: self.delay + other.delay,
            staleness: self.staleness + other.staleness,
            repeats: self.repeats + other.repeats,
            repeated_events: self.repeated_events + other.repeated_events,
            lost_events: self.lost_events + other.lost_events,
            lost_payloads: self.lost_payloads + other.lost_payloads,
            warnings: self.warnings + other.warnings,
            steps: self.steps + other.steps,
        }
    }
}

/// The longest time until a list has repaired a cache that has missed a change: an hour, spread by a quarter, and a step after it.
const LIST: u64 = 4600;

/// The differences that these disturbances justify together in a run of this scenario.
pub fn of(scenario: Scenario, disturbances: &[Disturbance]) -> Allowance {
    let each = { disturbances.iter() }.map(|disturbance| of_one(scenario, *disturbance));
    let all = each.fold(Allowance::default(), Allowance::add);
    let count = |of: fn(&Disturbance) -> bool| disturbances.iter().filter(|it| of(it)).count();
    let writes = count(|it| matches!(it, Disturbance::Fault(Which::Writes, ..)));
    let removals = count(|it| matches!(it, Disturbance::Recreated(KNATIVE_SERVICES, ..)));
    // The operator tries a refused write once more at once. If the second attempt fails too, it takes the step again at the next tick, with the
    // hooks and the first event of the step. So it does after a refused write of a Knative Service that it has just written in this tick,
    // because an actor had removed its annotation.
    let is_tried_twice = usize::from(writes > 1 || (writes == 1 && removals == 1));
    // An actor that removes the operator's write twice meets a pause, and each tick reports it.
    let is_removed_twice = usize::from(removals > 1);
    Allowance {
        warnings: all.warnings + is_removed_twice,
        steps: all.steps + is_tried_twice,
        // A step reports one reason to wait. It may be the refused write, and the pods may be ready at the next tick.
        lost_events: all.lost_events + is_tried_twice,
        lost_payloads: all.lost_payloads + is_tried_twice,
        ..all
    }
}

fn of_one(scenario: Scenario, disturbance: Disturbance) -> Allowance {
    match disturbance {
        Disturbance::DieAtAnswer(_) => death(),
        Disturbance::Fault(Which::Writes, _, fault) => of_write(scenario, fault),
        Disturbance::Fault(Which::Reads, _, fault) => of_read(fault),
        Disturbance::Late(plural, seconds) => Allowance {
            // The run waits for the event up to three times: for pods, for a version, and for the end. A person acts up to five times.
            delay: match scenario {
                Scenario::Steered | Scenario::PromotedByHand => {
                    Duration::from_secs(5 * seconds + 10)
                }
                _ => Duration::from_secs(3 * seconds + 10),
            },
            ..of_late_event(plural, seconds)
        },
        // The person acts three times while the operator waits, and the operator sees each action in the next list.
        Disturbance::Lost("canaries", _) if scenario == Scenario::PromotedByHand => Allowance {
            repeats: 3,
            repeated_events: 3,
            steps: 3,
            ..late(3 * LIST)
        },
        // An idle operator has no reason to read objects that no event reports as changed.
        Disturbance::Lost("canaries" | "configmaps" | "secrets", _) => late(LIST),
        Disturbance::Lost("services", _) if scenario == Scenario::Service => late(LIST),
        Disturbance::Lost(KNATIVE_SERVICES, _) => Allowance {
            delay: Duration::from_secs(LIST),
            ..of_late_event(KNATIVE_SERVICES, 30)
        },
        // The operator re-reads the objects that it waits for at the second tick.
        Disturbance::Lost(plural, _) => Allowance {
            delay: Duration::from_secs(30),
            ..of_late_event(plural, 30)
        },
        Disturbance::Twice(_) => late(2),
        // An annotation that is removed right after the operator's write is written again at the next tick.
        Disturbance::Recreated(KNATIVE_SERVICES, ..) => Allowance {
            warnings: 1,
            ..late(15)
        },
        Disturbance::Recreated(..) => Allowance {
            warnings: 1,
            ..late(2)
        },
    }
}

fn late(seconds: u64) -> Allowance {
    Allowance {
        delay: Duration::from_secs(seconds),
        ..Allowance::default()
    }
}

/// An event of this kind comes this many seconds late, or the operator reads the object after this time without the event.
fn of_late_event(plural: &str, seconds: u64) -> Allowance {
    let workloads = ["deployments", "daemonsets", "revisions", KNATIVE_SERVICES];
    if !workloads.contains(&plural) {
        return Allowance {
            warnings: 1,
            ..Allowance::default()
        };
    }
    let steps = usize::try_from(seconds).unwrap() / 10;
    Allowance {
        staleness: Duration::from_secs(seconds),
        repeated_events: 2,
        warnings: 2,
        steps: steps + 1,
        // A version that is overtaken may have ended before its successor is known: then there are two runs instead of one that restarts.
        repeats: usize::from(seconds == 60),
        lost_events: usize::from(seconds == 60),
        lost_payloads: usize::from(seconds == 60),
        ..Allowance::default()
    }
}

/// The next operator starts after five seconds, and waits for a tick. It does not know which hooks were called and which messages were
/// sent. The status has the alerts that are still to be sent, but not the events.
fn death() -> Allowance {
    Allowance {
        repeats: 1,
        repeated_events: 1,
        lost_events: 4,
        lost_payloads: 4,
        warnings: 1,
        ..late(20)
    }
}

/// A write that fails is tried again at once or at the next tick; an Event is not. A refused write is reported.
fn of_write(scenario: Scenario, fault: Fault) -> Allowance {
    let failed = Allowance {
        lost_events: 1,
        warnings: 1,
        ..late(15)
    };
    let failed = match scenario {
        // The first weight ends the copies. If the status is not written after the route, the requests are copied for an interval again.
        Scenario::Mirror | Scenario::GatewayMirror => Allowance {
            repeats: 1,
            repeated_events: 1,
            ..failed
        },
        // The routes are a step ahead of the status then, and the events of this step are not sent.
        Scenario::PromotionSteps => Allowance {
            lost_events: 2,
            lost_payloads: 2,
            ..failed
        },
        // If the loss of the pods, or the return of the traffic, is routed but not in the status, the analysis begins again.
        Scenario::WithoutPods => Allowance {
            lost_events: 2,
            lost_payloads: 2,
            repeats: 1,
            repeated_events: 1,
            ..failed
        },
        _ => failed,
    };
    match fault {
        Fault::DieBefore | Fault::DieAfter => death(),
        // A step that is committed without an answer looks like one that was taken before: its events are not sent. An Event that was
        // created without an answer is counted once more.
        Fault::DoneBut(_) | Fault::ResetAfter | Fault::Truncated => Allowance {
            repeated_events: 1,
            lost_events: 4,
            lost_payloads: 4,
            ..failed
        },
        _ => failed,
    }
}

fn of_read(fault: Fault) -> Allowance {
    match fault {
        // While a read hangs, ticks pass, and a reason that is reported at a tick may be over.
        Fault::Hang => Allowance {
            repeated_events: 1,
            lost_events: 1,
            lost_payloads: 1,
            warnings: 1,
            ..late(15)
        },
        Fault::Truncated => late(15),
        // After a 404, the operator treats the object as deleted until the object is changed or listed, and reports that.
        Fault::Status(404) => Allowance {
            repeats: 1,
            warnings: 3,
            ..late(LIST)
        },
        // Some failed reads are reported.
        _ => Allowance {
            warnings: 1,
            ..late(2)
        },
    }
}
