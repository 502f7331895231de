use serde_json::json;

use super::*;
use crate::snapshot::Kind;

/// A workload whose selector and pods have these labels.
fn workload(name: &str, selector: &Value, pods: &Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "test"},
        "spec": {"selector": selector, "template": {"metadata": {"labels": pods}}}})
}

/// A workload whose selector has all labels of its pods.
fn simple(name: &str, pods: &Value) -> Value {
    workload(name, &json!({"matchLabels": pods}), pods)
}

struct Case {
    target: Value,
    primary: Option<Value>,
    namespace: BTreeMap<ObjectRef, Pods>,
}

impl Case {
    fn of(target: Value, primary: Option<Value>) -> Self {
        Self {
            target,
            primary,
            namespace: BTreeMap::new(),
        }
    }

    fn beside(mut self, name: &str, pods: &Value) -> Self {
        let name = ObjectRef {
            kind: Kind::Deployment,
            namespace: "test".to_owned(),
            name: name.to_owned(),
        };
        let pods = Pods::parse(&simple("", pods).to_string());
        self.namespace.insert(name, pods);
        self
    }

    fn workloads(&self) -> Workloads<'_> {
        Workloads {
            kind: TargetKind::Deployment,
            target: &self.target,
            primary: self.primary.as_ref(),
            namespace: &self.namespace,
        }
    }

    /// The selection, with these `-selector-labels`.
    fn selection(&self, candidates: &[&str]) -> Selection {
        let candidates: Vec<_> = candidates.iter().map(|key| (*key).to_owned()).collect();
        Selection::of(&self.workloads(), &candidates).unwrap()
    }

    /// The selectors of the canary's and the primary's Service, and the labels of the primary's pods.
    fn shown(&self, candidates: &[&str]) -> [String; 3] {
        let selection = self.selection(candidates);
        let pods = selection.on_primary(&template_labels(&self.target));
        [&selection.canary, &selection.primary, &pods].map(shown)
    }

    fn wrong(&self) -> String {
        let selection = self.selection(&["app", "name"]);
        let workloads = self.workloads();
        let wrong = selection.wrong(&workloads);
        let wrong = wrong.or_else(|| selection.shared_with_others(&workloads));
        wrong.map(|wrong| wrong.to_string()).unwrap_or_default()
    }
}

#[test]
fn a_new_primary_is_selected_by_the_first_of_the_selector_labels_as_in_flagger() {
    let case = Case::of(simple("web", &json!({"app": "web", "deploy": "x"})), None);
    assert_eq!(
        case.shown(&["app", "deploy"]),
        [
            "app=web,deploy=x",
            "app=web-primary",
            "app=web-primary,deploy=x"
        ]
    );
    assert_eq!(
        case.shown(&["deploy", "app"]),
        [
            "app=web,deploy=x",
            "deploy=x-primary",
            "app=web,deploy=x-primary"
        ]
    );
}

/// fluxcd/flagger#809
#[test]
fn an_existing_primary_is_selected_by_its_own_selector() {
    let primary = |pods: Value| {
        let selector = json!({"matchLabels": {"app": "web-primary"}});
        Some(workload("web-primary", &selector, &pods))
    };
    let both = || primary(json!({"app": "web-primary", "deploy": "web"}));
    let another_order = Case::of(
        simple("web", &json!({"app": "web", "deploy": "web"})),
        both(),
    );
    assert_eq!(
        another_order.shown(&["deploy"]),
        [
            "app=web,deploy=web",
            "app=web-primary",
            "app=web-primary,deploy=web"
        ]
    );
    let another_value = Case::of(
        simple("web", &json!({"app": "new", "deploy": "new"})),
        both(),
    );
    assert_eq!(
        another_value.shown(&["app"]),
        [
            "app=new,deploy=new",
            "app=web-primary",
            "app=web-primary,deploy=new"
        ]
    );
    let another_key = Case::of(
        simple("web", &json!({"name": "web"})),
        primary(json!({"app": "web-primary"})),
    );
    assert_eq!(
        another_key.shown(&["app", "name"]),
        [
            "name=web",
            "app=web-primary",
            "app=web-primary,name=web-primary"
        ]
    );
    for case in [another_order, another_value, another_key] {
        assert_eq!(case.wrong(), "");
    }
}

#[test]
fn a_primary_with_several_labels_and_an_expression_is_selected_by_all_of_them() {
    let selector = json!({"matchLabels": {"app": "web-primary", "tier": "a"},
        "matchExpressions": [{"key": "zone", "operator": "In", "values": ["x"]}]});
    let pods = json!({"app": "web-primary", "tier": "a", "zone": "x"});
    let target = simple("web", &json!({"app": "web", "tier": "a"}));
    let case = Case::of(target, Some(workload("web-primary", &selector, &pods)));
    assert_eq!(
        case.shown(&["tier", "app"]),
        [
            "app=web,tier=a",
            "app=web-primary,tier=a,zone=x",
            "app=web-primary,tier=a,zone=x"
        ],
        "tier has the same value on both"
    );
    assert_eq!(case.wrong(), "");
}

#[test]
fn a_canary_is_selected_by_all_its_labels_because_others_may_have_one_of_them() {
    let target = || simple("web", &json!({"app": "shop", "part": "web"}));
    let case = Case::of(target(), None).beside("worker", &json!({"app": "shop", "part": "worker"}));
    assert_eq!(case.shown(&["app"])[0], "app=shop,part=web");
    assert_eq!(case.wrong(), "");
    // A StatefulSet or a Job is not known.
    let alone = Case::of(target(), None);
    assert_eq!(alone.shown(&["app"])[0], "app=shop,part=web");
    assert_eq!(alone.wrong(), "");
}

#[test]
fn a_selector_that_reaches_the_wrong_pods_is_refused_with_its_object_and_a_remedy() {
    let web = || simple("web", &json!({"app": "web"}));
    let primary = |selector: Value, pods: Value| Some(workload("web-primary", &selector, &pods));
    let usual = json!({"matchLabels": {"app": "web-primary"}});
    for (case, expected) in [
        (
            Case::of(workload("web", &json!({"matchLabels": {"app": "web"}}), &json!({"app": "x"})), None),
            "the selector of deployment web.test does not select its pods, which have the labels app=x; give its pods the labels of its selector",
        ),
        (
            Case::of(simple("web", &json!({"app": "web-primary"})), primary(usual.clone(), json!({"app": "web-primary"}))),
            "the selector app=web-primary for the pods of deployment web-primary.test also selects those of deployment web.test; give the pods of deployment web.test another value of the label app, for which it must be created anew",
        ),
        (
            Case::of(simple("web", &json!({"name": "web"})), primary(usual, json!({"app": "web-primary", "name": "web"}))),
            "the selector name=web for the pods of deployment web.test also selects those of deployment web-primary.test; give the pods of deployment web.test another value of the label name, for which it must be created anew",
        ),
        (
            Case::of(web(), primary(
                json!({"matchLabels": {"app": "web-primary"}, "matchExpressions": [{"key": "tier", "operator": "Exists"}]}),
                json!({"app": "web-primary", "tier": "a"}),
            )),
            "the selector of deployment web-primary.test cannot be changed and selects no pods with the labels app=web-primary; give the pods of deployment web.test labels that it selects, or delete deployment web-primary.test, which is then created anew",
        ),
        (
            Case::of(web(), None).beside("other-primary", &json!({"app": "web-primary"})),
            "the selector app=web-primary for the pods of deployment web-primary.test also selects those of deployment other-primary.test; give the pods of deployment web.test another value of the label app, for which it must be created anew",
        ),
        (
            Case::of(
                workload("web", &json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "part", "operator": "DoesNotExist"}]}), &json!({"app": "web"})),
                None,
            ).beside("worker", &json!({"app": "web", "part": "worker"})),
            "the selector app=web for the pods of deployment web.test also selects those of deployment worker.test; give the pods of deployment web.test another value of the label app, for which it must be created anew",
        ),
    ] {
        assert_eq!(case.wrong(), expected);
    }
}

#[test]
fn a_target_without_a_selector_label_is_refused() {
    let refused = |kind, target: &Value, candidates: &[&str]| {
        let workloads = Workloads {
            kind,
            target,
            primary: None,
            namespace: &BTreeMap::new(),
        };
        let candidates: Vec<_> = candidates.iter().map(|key| (*key).to_owned()).collect();
        Selection::of(&workloads, &candidates)
            .unwrap_err()
            .to_string()
    };
    let target = simple("podinfo", &json!({"app": "podinfo"}));
    assert_eq!(
        refused(TargetKind::Deployment, &target, &["name"]),
        "getSelectorLabel failed: deployment podinfo.test spec.selector.matchLabels must contain one of [name]"
    );
    assert_eq!(
        refused(TargetKind::DaemonSet, &json!({}), &["app", "name"]),
        "getSelectorLabel failed: daemonset . spec.selector.matchLabels must contain one of [app name]"
    );
}
