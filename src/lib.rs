//! flagger-rs releases workloads progressively on Kubernetes. It is wire-compatible with Flagger: the same CRDs, flags, metrics,
//! events, alerts, webhooks and labels.
//!
//! # The shape
//!
//! `observe → decide ⇄ answer → execute → commit → report`: **`decide` is a pure, total function of values; all I/O lives in `shell/`.**
//!
//! ```text
//!  watch caches ─┐                                      ┌─► kube-apiserver  (execute: ordered, preconditioned writes)
//!  one queue ────┼─► look(canary) ─► Snapshot ─► decide ───┤
//!  answers ──────┘         ▲                            ├─► status          (commit: compare-and-swap, last)
//!                          │                            └─► events, alerts, hooks, metrics (report: after the commit)
//!       webhooks, metric   │
//!       servers ◄── ask ───┘   (asked only in the phase that needs them; never block a look)
//! ```
//!
//! # Where to look
//!
//! | question | place |
//! | --- | --- |
//! | what may a user write, and what does a missing field mean? | [`api`] |
//! | what does a decision see? | [`world`]: one snapshot, `Snapshot`; a write as a value, `Write` |
//! | **what happens next?** | [`rollout`]: `decide` reads as the table of contents |
//! | what must never happen? | `rollout::audit` |
//! | what would happen first, and with which rights? | [`check`] and [`rollout::outlook`]; `flagger check` prints it |
//! | what does the primary look like, the Services, the copies of configs? | [`workload`] |
//! | how is traffic split, per mesh? | [`route`] |
//! | what is a metric asked with, and what does its answer say? | [`metrics`] |
//! | what are people told, to the letter? | [`notice`] |
//! | who calls the API server, the hooks, the chats? | [`shell`], and nobody else |
//! | what is known of the cluster without asking, and who is told of a change? | [`shell::cache`] |
//! | who is looked at when? | [`shell::schedule`], by what [`shell::memory`] says is tick |
//! | which flags are there? | [`args`], in the syntax of [`flags`] |
//! | what puts load on a version, and keeps gates? | [`loadtester`]: a program of its own |
//!
//! A new router, metric provider or chat is its own file, a row in one table, and a row in a test table. For routers and built-in metrics
//! the table is [`providers::PROVIDERS`].
//!
//! # Invariants, and what holds them
//!
//! 1. Only `shell/` touches the world, and for the load tester `loadtester/shell/`; modules depend downward only: the tests in
//!    `tests/it/tidy.rs`.
//! 2. `decide` is total, and every plan it makes passes the audit: the property tests of `rollout`.
//! 3. No state in memory that a restart would miss: `a_kill_in_the_middle_neither_adds_nor_skips_a_step`.
//! 4. Every write is conditional on what was observed (`shell::cluster`); a lost one is decided anew.
//! 5. What is under way, where the cluster alone could not tell, and what is still owed to people stands in `status.conditions`
//!    until it is done (`rollout::phase::Intent`). A settled canary whose primary works has exactly Flagger's one condition.
//! 6. Traffic moves before anyone is told: a hanging chat delays nobody. Each canary has a lane of its own for news. A chat is told at
//!    least once: what a run came to is owed in the status; that it began, or waits for approval, is told once more by a process that was
//!    not there when it did.
//! 7. One canary's panic, poison object, slow hook or huge answer touches no other: `tests/it/cluster/inputs.rs`.
//! 8. A settled canary costs no request at all; a step writes the route and the status once, and one event, and reads nothing:
//!    `a_settled_canary_costs_nothing_and_a_step_three_writes`. One that waits reads what it looks at, at the second, fourth, eighth tick.
//! 9. The operator's rights are those it uses: the end of `the_operator_on_a_real_control_plane`.
//! 10. A cache that lags can delay, never mislead: what was written is known from the answer, what turned out to be different is asked
//!     for, so is what stands in the way of a canary for long, every write is conditional, and what is promoted or given up on is read
//!     at that moment (the tests of `shell::cache`, `rollout::hearsay`,
//!     `a_release_does_not_wait_an_hour_for_pods_whose_readiness_no_news_told`).
//! 11. A release ends the same whatever becomes of one request, answer or piece of news, wherever the operator is killed: `tests/model`
//!     plays the whole operator on a model of the API server, some thousand times, from what an undisturbed run asked for.
//! 12. What a former leader handed to a connection and is not in its socket yet is not sent (`shell::leadership`).
//! 13. No process that the load tester started outlives it: `told_twice_it_ends_at_once_and_leaves_nothing`.
//!
//! # Where it departs from Flagger
//!
//! On a healthy release nothing differs. What lost traffic, stuck or lied is mended; `tests/departures.toml` has each difference that
//! can be seen, with its reason. Among them:
//!
//! * A run and a promotion are on record before anything is done for them, a rollback before traffic moves.
//! * All metrics of a step are asked at once and all failures are told.
//! * A new revision is acted on within seconds, even while a hook hangs; going back to the promoted one ends the run.
//! * The primary is never scaled to zero, drift is repaired with the weights as they are, 204 passes a hook, an alert without a
//!   severity fires, gauges of deleted canaries go, shutdown ends with 0.
//! * Each canary has its instants up to a quarter of its interval, five seconds at most, after multiples of it: steps of canaries that
//!   began together do not wait for one another.
//! * A version whose failed checks reach the threshold goes back at once; Flagger shows it to clients for another interval.
//! * A rollback for want of ready pods has its alert.
//! * A metric that cannot be had for a moment is asked again within its step; three times, if there is time. So is one of a server that
//!   is called too often, as soon as the server says it may be.
//! * What is not a number, and null in an answer of Datadog or Dynatrace, is no value; Flagger takes them for one that passes, or for 0.
//!   Providers that need a metric's interval take a minute where it has none, as its other metrics do; Flagger fails the check.
//! * A workflow of Microsoft Teams gets an adaptive card, the only thing it takes. A chat's webhook that is gone is told on the Canary.
//! * The primary's autoscaler keeps every field of the target's and what it has of its own; what pauses KEDA is not copied. What a
//!   ScaledObject scales to zero by itself is left alone.
//! * A gate that stays closed is told once, and again after an hour, two, four …; while it is closed the status says what is routed,
//!   and no iteration is repeated. A version that is taken back while it waits is not run.
//! * A session's cookie is in the status before a route uses it. A core Service with an address of its own can be a target.
//! * When no pod of the canary is left, traffic returns to the primary at once, and the analysis begins anew; Flagger waits for the
//!   progress deadline, while what is routed there meets nobody. A step begins from what is routed, if that is less than the status says:
//!   whoever took traffic back, a person or a look that died of it, the version takes its steps anew.
//! * After a promotion with which the primary did not become ready, the condition `PromotionFailed` stays until one succeeds: a fix does
//!   not wait for the primary that it mends.
//! * A version that failed and was taken back is a new version when it comes again, and so is one that comes back while its run ends.
//! * A rollback keeps the weights as they are while the primary cannot answer, instead of sending everything to one side.
//! * On Gateway API the defaults of the API server and the order of headers are no drift, a test of requests that it cannot express is
//!   refused instead of met by everyone, `mirror` works with a growing share too, and a gateway that lags behind holds up the next
//!   step but no rollback.
//! * The same holds for tests of requests that Contour, NGINX or a TrafficSplit cannot be told. Each set of conditions has a route of its
//!   own in an HTTPProxy; Contour copies requests for `mirror`, and where nobody can, `mirror` is passed over instead of waited for. An
//!   HTTPProxy that Contour finds invalid, has not seen yet, or that nobody includes, holds up the next step, and keeps its virtual host.
//! * At its adoption, and when it is given back, an HTTPProxy names the Services that clients are led to before it leads there, and
//!   those that they leave for some time after, in a route for nobody: Contour tells Envoy of routes and of Services in either order,
//!   and with a single write, which is Flagger's way, some requests in between were answered with 503.
//! * With `revertOnDeletion` every route leads to the Service before the primary goes, or where kubectl had it lead.
//!
//! Three orders of actions lose requests in Flagger, and not here; `tests/mesh` sends 200 a second through each:
//!
//! | when | Flagger | here |
//! | --- | --- | --- |
//! | bootstrap | scales the target to zero, then routes to the primary | routes, waits some seconds for proxies, then scales |
//! | rollback | scales to zero what it has just stopped routing to | waits an interval, in which connections drain |
//! | deletion, with `revertOnDeletion` | lets the primary go as it changes the routes | waits some seconds for proxies in between |
//!
//! # Not there yet
//!
//! Knative targets, the routers App Mesh, APISIX, Gloo, Kuma, Skipper and Traefik, and the metric providers InfluxDB, CloudWatch,
//! Stackdriver, Keptn, Splunk and external metrics. A Canary that asks for one of the first two is refused with an event and the
//! condition `Invalid` that name the field; nothing is done for it, and it starts by itself once a version of the operator knows it. A
//! metric of one of these providers is a failed check that says so. After a promotion that failed, the primary keeps the template that
//! failed until a fix comes; traffic stays on the canary meanwhile.

pub mod api;
pub mod args;
pub mod check;
pub mod flags;
pub mod loadtester;
pub mod metrics;
pub mod notifications;
pub mod providers;
pub mod rollout;
pub mod routers;
pub mod shell;
pub mod snapshot;
pub mod workload;
