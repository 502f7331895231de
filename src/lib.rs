//! flagger-rs releases workloads progressively on Kubernetes. It is wire-compatible with Flagger 1.44: the same CRDs, flags, metrics,
//! events, alerts, webhooks and labels.
//!
//! # How it works
//!
//! The operator reconciles one canary at a time: `observe → decide ⇄ answer → execute → commit → notify`. **`decide` is a pure, total
//! function of values; only the shell does I/O.**
//!
//! ```text
//!  watch caches ─┐                                           ┌─► writes          (execute: in order, each conditional)
//!  one queue ────┼─► reconcile(canary) ─► Snapshot ─► decide ┼─► status          (commit: compare-and-swap, last)
//!  answers ──────┘         ▲                                 └─► events, alerts  (notify: after the commit)
//!       webhooks, metric   │
//!       servers ◄── ask ───┘   (asked only in the phase that needs them; no reconcile waits for a slow answer)
//! ```
//!
//! # Where to look
//!
//! | question | place |
//! | --- | --- |
//! | Which fields may a user write, and what is the default of each? | [`api`] |
//! | What does a decision see, and what does it write? | [`snapshot`]: `Snapshot` and `Write` |
//! | **What happens next?** | [`rollout`]: `decide` reads as the table of contents; `rollout/phases` has a file per phase |
//! | When does a step begin? | `snapshot/cadence.rs`; `shell/controller/schedule.rs` has the queue, `shell/controller/requeue.rs` the jitter |
//! | Which hooks, gates and metrics does a step check? | `rollout/checks`; `gates.rs` has the texts of each closed gate |
//! | What may a person ask of a release, and what becomes of it? | [`api::action`] has the form, `rollout/actions.rs` the rules |
//! | Why did a version fail, in a sentence? | `rollout/status/verdict.rs` |
//! | What does the record of a run hold, and how is it explained? | [`api::release`], [`records`] |
//! | When does a record begin, and when is it written? | `records/committed.rs`; `shell/controller/records.rs` |
//! | Which records are deleted? | `records/history.rs` |
//! | When does a webhook pass? | `notifications/webhook.rs` |
//! | What if a canary loses all its pods? | `rollout/safety/withdrawal.rs` takes its traffic and counts the loss, `rollout/phases/analysis.rs` rolls it back |
//! | When does a run start? | `rollout/phases/idle.rs`; `Release::changed` in `rollout/release.rs` decides whether the version is new |
//! | How long does a canary keep its pods without traffic, and why? | `rollout/status/draining.rs` |
//! | Which phase may follow which? | `rollout/status/transitions.rs` |
//! | What must never happen? | `rollout/safety` |
//! | Which conditions and phases does the status record, and why? | `rollout/status`; [`api::status::ConditionType`] |
//! | Which texts do events and alerts of a release have? | [`rollout::messages`] lists the place of each |
//! | In which form do chats and webhooks get them? | [`notifications`] |
//! | What do the primary, the Services, the copies of configs and the autoscalers look like? | [`workload`] |
//! | How does each mesh, gateway or ingress split traffic? | [`routers`] |
//! | Which routers split traffic by tenths of a percent, and how is such a weight kept? | `Router::splits_tenths`; [`api::percent`], `CanaryStatus::weight` |
//! | What becomes of a route that the user had before? | `routers/adoption.rs` |
//! | What if the route becomes a GRPCRoute, or an HTTPRoute again? | `routers/gateway_api/switch.rs` |
//! | How does the operator set weights in routes of the user (`routeRefs`), and when does it give them back? | `routers/own_routes.rs`, `rollout/safety/own_routes.rs` |
//! | To whom does an object belong, and which are refused? | `rollout/safety/ownership.rs` decides, by the marks in `workload/ownership.rs` |
//! | Which canaries share the copy of a config? | `workload/config/copies.rs` |
//! | Where is the content of a config for a restored primary? | `workload/config/previous.rs` |
//! | Which providers exist, and which router and queries has each? | [`providers`] |
//! | Does the canary fail more often than the primary, or is it chance? | [`comparison`] has the test, `rollout/checks/comparisons.rs` its use at a step, `rollout/phases/comparison.rs` the effect, `rollout/status/compared.rs` its state |
//! | How is a metric server queried, and how is its answer read? | [`metrics`]; `metrics/observer` has the built-in queries of each mesh |
//! | What does `flagger lint` find in manifests? | [`lint`] |
//! | How does the operator prove to a cloud who it is? | [`metrics::identity`]; `shell/outside/tokens.rs` |
//! | What does `flagger plan` find? | [`plan`], by the operator's own decisions; `shell/client/plan` |
//! | How would the metrics of a Canary have judged good versions of the past? | [`backtest`]; `shell/client/backtest.rs` asks the metric server |
//! | What does `flagger check` print? | [`check`], [`rollout::preview`] |
//! | Which rights does the operator need? | `check/rights.rs`; `snapshot/object.rs` has the verbs of each kind |
//! | How does the operator talk to the API server? | `shell/api_server`: the only way for requests, and the caches |
//! | Which writes are conditional, and which are not? | `shell/api_server/mod.rs` |
//! | How does it talk to webhooks, metric servers and chats? | `shell/outside`, `shell/notify` |
//! | How large may a Canary be, and who gets how much of the operator? | `api/limits.rs`, `routers/conditions.rs`, `shell/outside/fair_queue.rs`, `shell/outside/large_answers.rs`; `shell/outside/http.rs` limits an answer to 1 MiB |
//! | What does one process remember of a canary? | `shell/controller/reconcile_state.rs` |
//! | How are Events written, counted and limited? | `shell/notify/events.rs`, `shell/notify/events/limit.rs`; `shell/notify/delivery.rs` sums up many of one step |
//! | Which objects may be in other namespaces? | `snapshot/references.rs`, `snapshot/route_references.rs` |
//! | What if clocks differ? | `snapshot/clock_skew.rs` |
//! | How are probes and scrapes answered under load? | `shell/http_server.rs` |
//! | Which metrics and logs does the operator write? | `shell/telemetry` |
//! | Which flags are there, and which have no effect? | [`cli`] |
//! | Which verbs does the command line have, and which exit codes? | [`cli::client`]; `shell/client` carries them out; `view/goal.rs` judges for `status` |
//! | What do the pages of `flagger dashboard` show, and to whom? | [`dashboard`] has the pages; `shell/dashboard` serves them, and has the threat model |
//! | Which information do commands print about a canary, and in which form? | [`view`] |
//! | How does the load tester work? | [`loadtester`]: a program of its own |
//!
//! `.github/CONTRIBUTING.md` has recipes: a router, a metric provider, a chat service, a condition, a subcommand, a test.
//!
//! # Layers
//!
//! A module uses modules of the rows above its own. Modules of the same row do not use each other, and only `shell` does I/O.
//!
//! | layer | modules |
//! | --- | --- |
//! | 1 | `api`, `comparison` |
//! | 2 | `snapshot` |
//! | 3 | `workload` |
//! | 4 | `routers`, `metrics`, `notifications` |
//! | 5 | `providers` |
//! | 6 | `rollout` |
//! | 7 | `records` |
//! | 8 | `check`, `lint`, `view` |
//! | 9 | `backtest`, `dashboard`, `plan` |
//! | 10 | `cli` |
//! | 11 | `shell` |
//! | 12 | `loadtester` |
//!
//! # Glossary
//!
//! | word | meaning |
//! | --- | --- |
//! | target | the workload that a Canary names; its new version is the canary |
//! | primary | the operator's copy of the target, which has the promoted version |
//! | apex | the Service, and the route, that clients call |
//! | release | the change of a workload to a new version. In a decision, `Release` has its facts; in the cluster, an object of the kind `Release` is the record of a run |
//! | run | a release from the new revision to its outcome |
//! | step | one check and one move of a run; it begins at a tick |
//! | tick | an instant at which a canary's step may begin: a multiple of its interval after the last transition |
//! | jitter | the canary's fixed delay after each tick, so that not all canaries step at the same time |
//! | evidence | the answers of webhooks and metric servers in the current step; in a record, the measurements of the whole run |
//! | plan | writes, then a status, then notifications; executing it needs no further choice |
//! | outcome | how a run ended; the status keeps it until its notifications are sent |
//! | draining | the time for which a workload keeps its pods after its traffic has moved away |
//! | stale read | a cached object that is older than the one on the API server |
//! | idle | between two runs, with every object as it should be |
//!
//! # Invariants, and the tests that hold them
//!
//! 1. Only `shell/`, and for the load tester `loadtester/shell/`, does I/O. Modules depend downward only, and files import each other in
//!    no circle (`tests/repository`).
//! 2. `decide` returns a decision for every snapshot, and every plan passes the audit (`tests/decisions/properties.rs`).
//! 3. A restart loses no state: `a_kill_in_the_middle_neither_adds_nor_skips_a_step`.
//! 4. Every write is conditional on the observed object; a write that fails because the object has changed is decided anew. The
//!    exceptions are documented in `shell/api_server`, through which all requests go.
//! 5. If the cluster alone could not show that an action is in progress, the status has a condition for the action until it is done. The
//!    status also has a condition for notifications that are still to be sent ([`api::status::ConditionType`]). An idle canary has exactly
//!    Flagger's one condition (and `RouteRefs`, if it names routes of the user, `GrpcRoute`, if it has one): `a_good_version_is_promoted_step_by_step_and_then_the_canary_is_idle`.
//! 6. Traffic moves before anyone is notified, so a hanging chat delays no release. Each canary has its own queue of notifications. A chat
//!    gets each notification at least once: outcomes are recorded in the status, and a process that has not sent the notification of the
//!    start of a run or of a closed gate itself sends it again.
//! 7. A panic, an invalid object or a bad answer of one canary stops no other canary: `a_panic_is_retried_and_affects_no_other_canary`,
//!    `an_invalid_spec_is_reported_and_harms_no_other_canary`, `a_hostile_metrics_server_fails_checks_and_nothing_else`. The lists
//!    of a Canary, the answers that are read and the calls under way are bounded, in total and for each namespace
//!    (`tests/decisions/limits.rs`, `shell/outside`); `load --hostile` measures it.
//! 8. An idle canary costs no request besides the watches, which all canaries share. A step writes the route, the status and one event, and
//!    reads nothing: `an_idle_canary_costs_no_request_and_a_step_three_writes`. A canary that waits re-reads its objects more and more
//!    rarely: `a_long_wait_is_re_read_more_and_more_rarely`.
//! 9. The operator has the rights that it uses, and no others but those that `tests/it/cluster/rights.rs` names with their reasons: the end
//!    of `the_operator_on_a_real_control_plane`.
//! 10. A cache that lags can delay a release, but cannot make it do something wrong. The operator knows written objects from the API
//!     server's answers, every write is conditional, and the objects of the two irreversible steps are read anew
//!     (`rollout/safety/stale_reads.rs`, the tests of the cache,
//!     `a_release_does_not_wait_for_the_next_list_when_readiness_events_are_lost`).
//! 11. A release ends the same whichever request, answer or watch event is lost, and wherever the operator is killed: `tests/model` plays
//!     the whole operator on a model of the API server. All faults together need some 40,000 runs; each test run plays a part of them.
//! 12. A process that has lost the lease sends the API server requests for the lease only, and no notification:
//!     `late_writes_of_a_former_leader_change_nothing`, `a_process_that_does_not_lead_notifies_nobody`.
//! 13. No process in the process group of a command outlives the load tester:
//!     `a_second_signal_ends_it_at_once_and_kills_the_groups_of_its_commands`,
//!     `at_shutdown_load_stops_and_waiting_callers_are_answered`.
//!
//! # Differences from Flagger
//!
//! A healthy release looks the same. Where Flagger lost traffic, got stuck or misled its user, this operator behaves differently;
//! `tests/conformance/departures.yaml` lists each visible difference with its reason. Three orders of actions lose requests in Flagger and
//! not here; `tests/mesh` sends 200 requests a second through each:
//!
//! | when | Flagger | here |
//! | --- | --- | --- |
//! | initialization | scales the target to zero, then routes to the primary | routes, waits some seconds for proxies, then scales |
//! | rollback | scales the canary to zero when its traffic moves | waits an interval, in which connections drain |
//! | deletion with `revertOnDeletion` | deletes the primary as it changes the routes | waits some seconds for proxies in between |
//!
//! Other differences that users see:
//!
//! * Runs, promotions and rollbacks are recorded in the status before the operator takes any action for them.
//! * All metrics of a step are queried at the same time, and all failures are reported. A metric server that does not answer is asked up
//!   to three times within the step; one that asks for a pause (`Retry-After`) gets it.
//! * A new revision starts a run within seconds, even while a hook hangs. A return to the promoted revision ends the run.
//! * A version whose failed checks reach the threshold is rolled back at once; Flagger routes clients to it for another interval. A
//!   rollback for lack of ready pods sends its alert.
//! * A canary without a ready pod gets no traffic, and gets it back when it has ready pods. Such a loss is no failed check, but more losses
//!   than `threshold` cause a rollback. Flagger waits for the progress deadline. If another actor takes traffic back from the canary, the
//!   version repeats those steps.
//! * The progress deadline counts while any pod is missing and none is added. Flagger's counts only while a Deployment is unavailable, and
//!   a DaemonSet's from the last step.
//! * A version under analysis is rolled back if its Canary becomes invalid, or if its routes can no longer be written as the Canary asks.
//!   Flagger reports that again and again, and the version keeps its traffic unjudged.
//! * Of two canaries with the same target, service or autoscaler only the older is run; an event on the younger names the object.
//! * Services select the primary's pods by the primary's own selector, also after another order of `-selector-labels` or with a target that
//!   was made anew with another label. A selector that selects the pods of two workloads is refused, and a run of it is rolled back
//!   ([`workload::selection`]). Rules that keep the target's pods apart keep the primary's apart, whatever the value of the label is, and
//!   for a DaemonSet, too ([`workload::keep_apart`]).
//! * An object that exists and has another owner is not overwritten. The canary is not run until the object is gone, or is annotated with
//!   `flagger-rs.github.io/adopt: "true"`. The apex Service and its route are adopted without the annotation, unless another Canary
//!   controls them. An HTTPRoute that exists is adopted if it loses nothing, and is given back as it was (`workload/ownership.rs`).
//! * A promotion does not change copies of configs that other Canaries use; the primary gets copies of its own
//!   (`workload/config/copies.rs`). An optional config that does not exist gets another name in the primary's template. If the config is
//!   created later, the change is a new version, and the primary does not use it before its promotion.
//! * A field that another actor adds to the primary does not count as a new version. A write that another actor undoes is repeated with
//!   growing pauses, and an event names that actor.
//! * A promotion takes away no capacity: the primary gets fewer replicas only at the end of the promotion, and not if an autoscaler or
//!   `kubectl scale` has set the replicas of the target or of the primary. If the strategy of the Deployment is `Recreate`, which stops all
//!   pods of the primary, all traffic first moves to the canary for an interval. If traffic cannot move (an A/B test, no mesh,
//!   `skipAnalysis`), the primary gets its new version by a rolling update that keeps pods, and the target's strategy afterwards.
//! * The operator never scales the primary to zero (`the_primary_keeps_its_pods`). Objects that others change are repaired with the current
//!   weights.
//! * If the primary does not become ready after a promotion, traffic moves to the canary, and the primary gets its previous version back,
//!   from its ReplicaSets or `ControllerRevision`s, with the content of its configs (`workload/config/previous.rs`). When the primary is
//!   ready, it gets its traffic back, and the next version is released step by step. (Flagger leaves the primary as it is.) If the primary
//!   cannot be restored, the condition `PromotionFailed` stays, and the run of a next version can start.
//! * If a user takes a failed version back and applies it again later, it is a new version.
//! * A closed gate is reported once, then after one hour, two, four …; no iteration is repeated meanwhile.
//! * `NaN`, and null in an answer of Datadog or Dynatrace, is no value. Flagger takes it for a value that passes, or for 0. A provider
//!   that needs the metric's interval uses one minute if there is none.
//! * HTTP status 204 passes a hook. An alert without a severity is sent. A chat's webhook that no longer exists is reported on the
//!   Canary. A workflow of Microsoft Teams gets an adaptive card, the only form that it accepts.
//! * The primary's autoscaler keeps every field of the target's, and its own fields; annotations that pause KEDA are not copied.
//! * The cookie of a session is in the status before a route uses it. A core Service with a cluster IP can be a target.
//! * On Gateway API, defaults of the API server and the order of headers are no drift. `mirror` works with weights. A gateway that lags
//!   behind holds up the next step, but no rollback.
//! * Each condition of `analysis.match` and of `service.match` is in the rules of an A/B test, or the Canary is refused; Flagger drops
//!   those that the router, or the combination with the other field, cannot express, and more requests reach the canary. Headers of both
//!   fields are combined by name. Where requests cannot be mirrored, `mirror` is ignored instead of waited for.
//! * With `portDiscovery`, ports keep their protocol, and equal numbers are one port. On Istio, requests of the mesh to a further port
//!   reach that port, also if the VirtualService is behind a gateway, too.
//! * An adopted Service keeps its other ports, its node ports and the names of its ports. A deletion with `revertOnDeletion` gives it back
//!   as its user last wrote it; an annotation keeps the fields that the adoption changed.
//! * A route that the user had before the Canary keeps the user's labels and annotations, and a deletion with `revertOnDeletion` gives its
//!   spec, labels and annotations back on every router, as the user last applied them (`routers/adoption.rs`). Flagger replaces labels and
//!   annotations, and gives back the spec of a VirtualService, or what it wrote there itself.
//! * `analysis.decimalStepWeights` has steps of tenths of a percent ([`api::percent`]). While a weight is not whole, a route has weights with
//!   the sum 1000 ([`snapshot::Weights::parts`]). A router whose data plane knows whole percentages only refuses such a weight.
//! * With `service.grpc` the route of Gateway API is a GRPCRoute (`routers/gateway_api/grpc.rs`).
//! * With `routeRefs` the operator makes no route. It sets two weights in routes of the user, and changes nothing else in them
//!   (`routers/own_routes.rs`).
//! * A version waits for routes that the data plane does not accept until the progress deadline; then it is rolled back, or fails before it
//!   starts. Flagger waits for ever.
//! * On App Mesh, on Kuma, and on Gateway API with a Service as parent, an event names the ports of `portDiscovery` to which no requests
//!   are split.
//! * In an HTTPProxy each set of conditions has a route of its own. A proxy that Contour has not processed, finds invalid, or that no
//!   other includes, holds up the next step. New Services are announced to Envoy in a temporary route before traffic goes there.
//! * On Skipper, an Ingress without annotations is released, predicates in quotes stay as they are, and an A/B test, which would send all
//!   requests to the canary, is refused.
//! * On Gloo, all settings of the Upstream in `spec.upstreamRef` are followed, each condition of a test has a matcher of its own, and
//!   requests outside the test reach the primary.
//! * On App Mesh, VirtualServices are repaired like all other objects, and a VirtualNode selects the pods by their own label. Each set of
//!   conditions has a route of its own. A step waits until the controller of App Mesh has processed the routes.
//! * On Traefik, a primary without traffic has the weight 0, which Flagger leaves out, and other fields of an adopted TraefikService stay.
//!   The built-in metrics are those of the Service, also if its name is not the target's.
//! * On APISIX, the second ApisixRoute has all fields of the user's rule, and no copy of rules for streams. An edit of the user's rule
//!   keeps the weights. Several canaries may be in one ApisixRoute.
//! * On Kuma, a TrafficRoute of the same name for a Service of another namespace is left alone, and a deletion with `revertOnDeletion`
//!   leads the canary's to the apex Service.
//! * On Knative, a Revision that does not become ready by the progress deadline is rolled back, a promotion moves the promoted Revision's
//!   share with its name, entries of `spec.traffic` with a tag stay, and a deletion with `revertOnDeletion` leads to the latest Revision.
//!   The first Revision gets the requests when it is ready, and not from an older one that a user's route names. If another actor removes
//!   the annotation of the primary, the status and the routes show which Revision it is; Flagger takes the latest one. The flag
//!   `-mesh-provider=knative` is enough.
//! * The token of a ServiceAccount is sent to no metric server and no chat; the annotation `flagger-rs.github.io/allowed-hosts` binds any
//!   other Secret to hosts ([`snapshot::secret`]).
//! * No redirect to another host is followed. Addresses of users that are link-local or of a cloud's metadata service are called only with
//!   `-allow-link-local`; `-refuse-loopback` and `-allowed-hosts` refuse more (`shell/outside/destinations.rs`).
//! * A Canary has at most 100 metrics, 100 webhooks and 100 alerts, and 1,000 conditions once those of `analysis.match` and `service.match`
//!   are combined ([`api::limits`]). A larger one is refused, and a run of it is rolled back.
//! * Calls are shared by namespace: 256 at the same time, at most 64 of a namespace and 64 to a host; no namespace gets more than are free.
//!   An answer of more than 16 KiB waits for one of eight places, and must then arrive within ten seconds. Connections to servers that
//!   users choose are closed after each answer.
//! * The servers of `/metrics` and of the load tester limit connections, their time and their memory, and serve one request on each
//!   (`shell/http_server.rs`). A scrape is up to a second old.
//! * The Event objects of failed checks and obstacles are limited for each canary: ten in a step, 25 at once, then one each five minutes
//!   (Flagger's client limits all events this way, those of the outcome too). Event webhooks and chats get all.
//! * A time in a status that is in the future, because the clocks of two replicas differ, counts as the time at which it was first seen.
//! * `-no-cross-namespace-refs` also holds for a Canary that is edited during a run or a rollback, and for alerts that wait in a queue. An
//!   alert goes to the receivers of the spec for which it was decided. The flag refuses gateways, hosts of Services and mirrors of other
//!   namespaces, too, which Flagger follows, in the fields that the router writes ([`snapshot::route_references`]).
//! * With our manifests, but not with the defaults of the flags, two operators elect a leader, by a Lease in their own namespace. An
//!   overlay grants the rights for its own router only, and NetworkPolicies limit who reaches the operator, its Prometheus and the load
//!   tester. In that Prometheus a sample has the labels `namespace` and `pod` of its pod, and one about the requests to another namespace
//!   counts only from a gateway.
//! * Gauges of deleted canaries are removed, and the process ends with exit code 0 when it is stopped.

pub mod api;
pub mod backtest;
pub mod check;
pub mod cli;
pub mod comparison;
pub mod dashboard;
pub mod lint;
pub mod loadtester;
pub mod metrics;
pub mod notifications;
pub mod plan;
pub mod providers;
pub mod records;
pub mod rollout;
pub mod routers;
pub mod shell;
pub mod snapshot;
pub mod view;
pub mod workload;
