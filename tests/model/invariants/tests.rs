//! Violates each invariant once, and checks that it is reported.

use serde_json::{Value, json};

use super::super::store::{Part, Store, Writer};
use super::*;

/// A canary without violations, and writes to it, each a second after the one before.
struct Cluster {
    store: Store,
    now: Timestamp,
}

impl Cluster {
    fn new() -> Self {
        let mut this = Self {
            store: Store::new(),
            now: Timestamp::UNIX_EPOCH,
        };
        let spec = json!({"targetRef": {"kind": "Deployment", "name": "app"}, "service": {"port": 80}, "analysis": {"interval": "10s", "stepWeight": 100}});
        for (name, version) in [("app", "2"), ("app-primary", "1")] {
            this.create("deployments", json!({"metadata": {"name": name}, "spec": {"replicas": 1, "selector": {}, "template": Self::template(version)}}));
            this.status("deployments", name, json!({"readyReplicas": 1}));
        }
        this.create(
            "canaries",
            json!({"metadata": {"name": "app", "finalizers": ["flagger.app/f"]}, "spec": spec}),
        );
        this.status("canaries", "app", json!({"phase": "Initialized"}));
        this.create(
            "virtualservices",
            json!({"metadata": {"name": "app"}, "spec": Self::route(100, 0)}),
        );
        assert_eq!(this.wrong(), Vec::<String>::new());
        this
    }

    fn template(version: &str) -> Value {
        json!({"spec": {"containers": [{"name": "app", "image": format!("app:{version}")}]}})
    }

    fn route(primary: i64, canary: i64) -> Value {
        let to = |role: &str, weight| json!({"destination": {"host": format!("app-{role}")}, "weight": weight});
        json!({"http": [{"route": [to("primary", primary), to("canary", canary)]}]})
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn by(&mut self) -> Writer {
        self.pass(1);
        Writer {
            name: "operator".into(),
            now: self.now,
        }
    }

    fn create(&mut self, plural: &str, object: Value) {
        let key = Key::new(plural, "test", object["metadata"]["name"].as_str().unwrap());
        let by = self.by();
        self.store.create(&key, object, &by).unwrap();
    }

    fn write(&mut self, plural: &str, name: &str, part: Part, change: Value) {
        let key = Key::new(plural, "test", name);
        let mut object = (*self.store.get(&key).unwrap()).clone();
        json_patch::merge(&mut object, &change);
        let by = self.by();
        self.store.update(&key, part, object, &by).unwrap();
    }

    fn status(&mut self, plural: &str, name: &str, status: Value) {
        self.write(plural, name, Part::Status, json!({"status": status}));
    }

    fn weights(&mut self, primary: i64, canary: i64) {
        self.write(
            "virtualservices",
            "app",
            Part::Main,
            json!({"spec": Self::route(primary, canary)}),
        );
    }

    fn promote(&mut self, version: &str) {
        self.write(
            "deployments",
            "app-primary",
            Part::Main,
            json!({"spec": {"template": Self::template(version)}}),
        );
    }

    fn wrong(&self) -> Vec<String> {
        self.wrong_with(&Tolerance::default())
    }

    fn wrong_with(&self, tolerance: &Tolerance) -> Vec<String> {
        violations(self.store.since(0), self.now, tolerance)
    }

    /// Gives the Canary another analysis.
    fn analysis(&mut self, analysis: Value) {
        let spec = json!({"spec": {"analysis": analysis}});
        self.write("canaries", "app", Part::Main, spec);
    }

    /// Checks that a violation with this text is reported.
    fn reports(&self, what: &str) {
        let wrong = self.wrong();
        assert!(
            wrong.iter().any(|line| line.contains(what)),
            "{what}: {wrong:?}"
        );
    }
}

#[test]
fn a_good_release_has_no_violations() {
    let mut cluster = Cluster::new();
    for canary in [50, 100] {
        cluster.pass(10);
        cluster.weights(100 - canary, canary);
    }
    cluster.promote("2");
    cluster.weights(100, 0);
    assert_eq!(cluster.wrong(), Vec::<String>::new());
}

#[test]
fn weights_that_do_not_add_up_are_reported() {
    let mut cluster = Cluster::new();
    cluster.weights(90, 20);
    cluster.reports("the weights of app are 90 and 20");
}

#[test]
fn requests_that_reach_no_ready_pod_are_reported() {
    let mut cluster = Cluster::new();
    cluster.status("deployments", "app", json!({"readyReplicas": 0}));
    cluster.weights(90, 10);
    cluster.reports("10 % of the requests reach no ready pod of the canary");
}

#[test]
fn a_primary_without_replicas_is_reported() {
    let mut cluster = Cluster::new();
    cluster.write(
        "deployments",
        "app-primary",
        Part::Main,
        json!({"spec": {"replicas": 0}}),
    );
    cluster.reports("the primary has 0 replicas");
}

#[test]
fn two_steps_in_one_interval_are_reported() {
    let mut cluster = Cluster::new();
    cluster.weights(90, 10);
    cluster.pass(5);
    cluster.weights(80, 20);
    cluster.reports("two steps within 6s");
}

#[test]
fn pods_that_are_scaled_down_too_early_are_reported() {
    let mut cluster = Cluster::new();
    cluster.weights(50, 50);
    cluster.weights(100, 0);
    cluster.write(
        "deployments",
        "app",
        Part::Main,
        json!({"spec": {"replicas": 0}}),
    );
    cluster.reports("the canary is scaled down 1s after it lost its weight");
}

#[test]
fn a_version_that_continues_with_the_weight_of_another_is_reported() {
    let mut cluster = Cluster::new();
    cluster.weights(50, 50);
    cluster.pass(20);
    let spec = json!({"spec": {"template": Cluster::template("3")}});
    cluster.write("deployments", "app", Part::Main, spec);
    cluster.weights(40, 60);
    cluster.reports("the weight grows for a version that came 1s ago, after the run began");
    cluster.promote("3");
    cluster.reports("after 2s");
}

#[test]
fn a_promotion_without_analysis_and_a_second_promotion_are_reported() {
    let mut cluster = Cluster::new();
    cluster.promote("2");
    cluster.reports("whose pods received no request");
    let mut cluster = Cluster::new();
    cluster.weights(50, 50);
    for version in ["2", "1", "2"] {
        cluster.promote(version);
    }
    cluster.reports("for the 2th time");
}

#[test]
fn a_promotion_of_an_earlier_version_is_reported() {
    let mut cluster = Cluster::new();
    cluster.weights(50, 50);
    let spec = json!({"spec": {"template": Cluster::template("3")}});
    cluster.write("deployments", "app", Part::Main, spec);
    cluster.pass(20);
    cluster.promote("2");
    cluster.reports("but the target has");
}

#[test]
fn a_failure_that_leaves_requests_with_the_canary_is_reported() {
    let mut cluster = Cluster::new();
    cluster.weights(50, 50);
    cluster.status("canaries", "app", json!({"phase": "Failed"}));
    cluster.reports("failed with the weights Some((50, 50))");
}

#[test]
fn a_run_without_an_end_and_a_finalizer_that_stays_are_reported() {
    let mut cluster = Cluster::new();
    cluster.status("canaries", "app", json!({"phase": "Progressing"}));
    cluster.pass(4000);
    cluster.reports("the run of app that began");
    let mut cluster = Cluster::new();
    let by = cluster.by();
    assert!(
        cluster
            .store
            .delete(&Key::new("canaries", "test", "app"), &json!({}), &by)
            .is_ok()
    );
    cluster.pass(200);
    cluster.reports("app was held from");
}

#[test]
fn writes_while_idle_and_published_secrets_are_reported() {
    let mut cluster = Cluster::new();
    let idle = cluster.now;
    cluster.create("events", json!({"metadata": {"name": "e"}, "involvedObject": {}, "message": "calling http://chat/secret"}));
    assert_eq!(writes_since(cluster.store.since(0), idle).len(), 1);
    assert_eq!(
        leaks(cluster.store.since(0), &["http://chat/secret", "other"]).len(),
        1
    );
}

#[test]
fn a_version_that_gets_a_second_cookie_is_reported() {
    let mut cluster = Cluster::new();
    let status = |version: &str, cookie: &str| json!({"phase": "Progressing", "lastAppliedSpec": version, "sessionAffinityCookie": cookie});
    cluster.status("canaries", "app", status("v1-a", "side=1"));
    cluster.status("canaries", "app", status("v1-a", ""));
    cluster.status("canaries", "app", status("v1-b", "side=2"));
    let history = cluster.store.since(0).to_vec();
    assert_eq!(cookies(&history), Vec::<String>::new());
    cluster.status("canaries", "app", status("v1-b", "side=3"));
    let history = cluster.store.since(0).to_vec();
    assert_eq!(cookies(&history).len(), 1);
}

#[test]
fn a_raise_by_more_than_a_step_is_reported() {
    let mut cluster = Cluster::new();
    cluster.analysis(json!({"stepWeight": 20}));
    cluster.weights(80, 20);
    assert_eq!(cluster.wrong(), Vec::<String>::new());
    cluster.pass(10);
    cluster.weights(50, 50);
    cluster.reports("the weight grows from 20 to 50 at once");
    let mut cluster = Cluster::new();
    cluster.analysis(json!({"stepWeight": 20}));
    cluster.weights(50, 50);
    cluster.reports("the weight grows from 0 to 50 at once");
}

#[test]
fn only_a_promotion_that_takes_all_pods_may_raise_the_weight_by_more() {
    for (phase, strategy, is_reported) in [
        ("Promoting", "Recreate", false),
        ("Promoting", "RollingUpdate", true),
        ("Progressing", "Recreate", true),
    ] {
        let mut cluster = Cluster::new();
        cluster.analysis(json!({"stepWeight": 20}));
        let spec = json!({"spec": {"strategy": {"type": strategy, "rollingUpdate": null}}});
        cluster.write("deployments", "app-primary", Part::Main, spec);
        cluster.weights(80, 20);
        cluster.pass(10);
        cluster.status("canaries", "app", json!({"phase": phase}));
        cluster.weights(0, 100);
        let wrong = cluster.wrong();
        assert_eq!(!wrong.is_empty(), is_reported, "{phase}: {wrong:?}");
    }
}

#[test]
fn copies_for_less_than_an_interval_are_reported() {
    for (seconds, is_reported) in [(5, true), (10, false)] {
        let mut cluster = Cluster::new();
        let mut spec = Cluster::route(100, 0);
        spec["http"][0]["mirror"] = json!({"host": "app-canary"});
        cluster.write("virtualservices", "app", Part::Main, json!({"spec": spec}));
        cluster.pass(seconds);
        cluster.weights(50, 50);
        let wrong = cluster.wrong();
        assert_eq!(!wrong.is_empty(), is_reported, "{wrong:?}");
    }
}

#[test]
fn iterations_that_are_skipped_or_too_early_are_reported() {
    let iterations = |n: i64| json!({"phase": "Progressing", "iterations": n});
    let mut cluster = Cluster::new();
    cluster.status("canaries", "app", iterations(1));
    cluster.pass(10);
    cluster.status("canaries", "app", iterations(2));
    assert_eq!(cluster.wrong(), Vec::<String>::new());
    cluster.pass(5);
    cluster.status("canaries", "app", iterations(3));
    cluster.reports("two iterations within 6s");
    cluster.pass(10);
    cluster.status("canaries", "app", iterations(5));
    cluster.reports("iteration 5 follows iteration 3");
}

#[test]
fn lost_pods_are_tolerated_for_a_while() {
    let tolerance = Tolerance {
        lost_pods: Duration::from_secs(20),
        ..Tolerance::default()
    };
    let lost = |seconds| {
        let mut cluster = Cluster::new();
        cluster.weights(50, 50);
        cluster.status("deployments", "app", json!({"readyReplicas": 0}));
        cluster.pass(seconds);
        cluster.weights(100, 0);
        cluster
    };
    let what = "50 % of the requests reach no ready pod of the canary, since";
    let cluster = lost(10);
    assert_eq!(cluster.wrong_with(&tolerance), Vec::<String>::new());
    cluster.reports(what);
    let wrong = lost(30).wrong_with(&tolerance);
    assert!(wrong.iter().any(|line| line.contains(what)), "{wrong:?}");
    // A raise for a canary without pods is never tolerated.
    let mut cluster = lost(10);
    cluster.weights(50, 50);
    let wrong = cluster.wrong_with(&tolerance);
    assert!(wrong.iter().any(|line| line.contains(what)), "{wrong:?}");
}

#[test]
fn a_stale_target_is_tolerated_for_a_while() {
    let tolerance = Tolerance {
        stale_target: Duration::from_secs(20),
        ..Tolerance::default()
    };
    let mut cluster = Cluster::new();
    cluster.weights(60, 40);
    let spec = json!({"spec": {"template": Cluster::template("3")}});
    cluster.write("deployments", "app", Part::Main, spec);
    cluster.pass(10);
    cluster.weights(50, 50);
    assert_eq!(cluster.wrong_with(&tolerance), Vec::<String>::new());
    cluster.pass(10);
    cluster.weights(40, 60);
    assert_eq!(cluster.wrong_with(&tolerance).len(), 1);
}

/// A canary without routes: clients call its Service.
fn without_routes(app: &str) -> Cluster {
    let mut cluster = Cluster::new();
    let route = Key::new("virtualservices", "test", "app");
    let by = cluster.by();
    assert!(cluster.store.delete(&route, &json!({}), &by).is_ok());
    for name in ["app", "app-primary"] {
        let labels = json!({"spec": {"template": {"metadata": {"labels": {"app": name}}}}});
        cluster.write("deployments", name, Part::Main, labels);
    }
    let spec = json!({"selector": {"app": app}, "ports": [{"port": 80}]});
    cluster.create(
        "services",
        json!({"metadata": {"name": "app"}, "spec": spec}),
    );
    cluster
}

#[test]
fn without_routes_the_service_is_judged() {
    let mut cluster = without_routes("app-primary");
    assert_eq!(cluster.wrong(), Vec::<String>::new());
    cluster.status("deployments", "app-primary", json!({"readyReplicas": 0}));
    cluster.reports("100 % of the requests reach no ready pod of the primary");
    let cluster = without_routes("another");
    cluster.reports("the weights of app are 0 and 0");
    let mut cluster = without_routes("app");
    let selector = json!({"spec": {"selector": {"app": "app-primary"}}});
    cluster.write("services", "app", Part::Main, selector);
    let down = json!({"spec": {"replicas": 0}});
    cluster.write("deployments", "app", Part::Main, down);
    cluster.reports("the canary is scaled down 1s after it lost its weight");
}

#[test]
fn a_target_that_is_a_service_has_the_pods_that_it_selects() {
    let mut cluster = Cluster::new();
    let target = json!({"spec": {"targetRef": {"kind": "Service"}}});
    cluster.write("canaries", "app", Part::Main, target);
    for (name, app) in [("app", "new"), ("app-primary", "old")] {
        let spec = json!({"selector": {"app": app}, "ports": [{"port": 80}]});
        cluster.create(
            "services",
            json!({"metadata": {"name": name}, "spec": spec}),
        );
    }
    cluster.reports("100 % of the requests reach no ready pod of the primary");
    let before = cluster.wrong().len();
    let labels = json!({"spec": {"template": {"metadata": {"labels": {"app": "old"}}}}});
    cluster.write("deployments", "app", Part::Main, labels);
    cluster.weights(100, 0);
    assert_eq!(cluster.wrong().len(), before);
    cluster.weights(50, 50);
    cluster.reports("50 % of the requests reach no ready pod of the canary");
}

#[test]
fn a_changed_config_is_another_version() {
    let mut cluster = Cluster::new();
    let config =
        |name: &str, colour: &str| json!({"metadata": {"name": name}, "data": {"colour": colour}});
    let uses = |name: &str| {
        let mut template = Cluster::template("1");
        let from = json!([{"configMapRef": {"name": name}}]);
        template["spec"]["containers"][0]["envFrom"] = from;
        json!({"spec": {"template": template}})
    };
    for (name, workload) in [("config", "app"), ("config-primary", "app-primary")] {
        cluster.create("configmaps", config(name, "red"));
        cluster.write("deployments", workload, Part::Main, uses(name));
    }
    let before = cluster.wrong().len();
    cluster.write(
        "configmaps",
        "config-primary",
        Part::Main,
        config("config-primary", "blue"),
    );
    assert_eq!(cluster.wrong().len(), before, "the pods have not restarted");
    let restart = json!({"spec": {"template": {"metadata": {"annotations": {"id": "2"}}}}});
    cluster.write("deployments", "app-primary", Part::Main, restart);
    cluster.reports("blue");
}

#[test]
fn a_cookie_of_two_versions_is_reported() {
    let mut cluster = Cluster::new();
    for version in ["a", "b"] {
        let status = json!({"phase": "Progressing", "lastAppliedSpec": version, "sessionAffinityCookie": "side=1"});
        cluster.status("canaries", "app", status);
    }
    assert_eq!(cookies(cluster.store.since(0)).len(), 1);
}
