use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};

use super::*;
use crate::{
    api::canary::{Canary, CanaryPhase},
    cli,
    shell::{
        api_server::{
            Leadership,
            cache::Needed,
            fake::{FakeApiServer, Request},
        },
        notify::GlobalReceivers,
        outside::http::Http,
    },
    snapshot::{Kind, Watched},
};

fn canary(name: &str) -> ObjectRef {
    ObjectRef {
        kind: Kind::Canary,
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    }
}

/// A Canary with this target, whose gauge has a value.
fn with_gauge(context: &Context, target: &str) {
    let canary: Canary = serde_json::from_value(json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary",
        "metadata": {"name": "any", "namespace": "shop"},
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}, "service": {"port": 80}}}))
    .unwrap();
    let metrics = &context.operator.canary_metrics;
    metrics.status(&canary, CanaryPhase::Succeeded);
}

fn has_gauge(context: &Context, target: &str) -> bool {
    let line = format!("flagger_canary_status{{name=\"{target}\",namespace=\"shop\"}} 1\n");
    context.operator.canary_metrics.render().contains(&line)
}

/// An API server without streamed lists, on which only the Canary `kept` exists. Watches are silent.
fn with_one_canary(request: &Request) -> Option<(u16, Value)> {
    let item = json!({"metadata": {"name": "kept", "namespace": "shop", "resourceVersion": "7"}});
    if request.line.contains("/version") {
        let version = json!({"major": "1", "minor": "30", "gitVersion": "", "gitCommit": "", "gitTreeState": "", "buildDate": "",
            "goVersion": "", "compiler": "", "platform": ""});
        return Some((200, version));
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "9"}, "items": [item]});
    let is_list = request.line.contains("/canaries?") && !request.line.contains("watch=true");
    is_list.then_some((200, list))
}

/// A context whose cache has listed all Canaries.
async fn context() -> Context {
    let server = FakeApiServer::answering(with_one_canary);
    let canary_metrics = CanaryMetrics::new().unwrap();
    let operator_metrics = canary_metrics.operator_metrics().unwrap();
    let clients = server.client();
    let cluster = Cluster::new(clients, Leadership::always(), operator_metrics.clone());
    let http = Http::default();
    let notifier = Notifier::new(cluster.clone(), http.clone(), GlobalReceivers::default());
    let Ok(cli::Command::Run(config)) = cli::parse([], |_| None) else {
        panic!("the operator runs without arguments")
    };
    let (trigger, _triggers) = mpsc::unbounded_channel();
    let needs = |_: &ObjectRef, _: &dyn Fn(&ObjectRef) -> Option<Value>| Needed::default();
    let (cache, kinds) = Cache::new(
        cluster.clone(),
        Watched::default(),
        Box::new(needs),
        trigger.clone(),
    );
    let listing = timeout(Duration::from_secs(5), cache.run(kinds));
    assert!(listing.await.is_err());
    let operator = Operator {
        cluster: cluster.clone(),
        settings: Arc::new(config.settings),
        notifier: notifier.clone(),
        canary_metrics,
        operator_metrics,
        answers: Arc::new(Answers::new(cluster, http, notifier, trigger)),
        records: Records::default(),
    };
    Context::new(Arc::new(operator), Arc::new(cache), Health::default())
}

#[tokio::test(start_paused = true)]
async fn deleted_canaries_are_forgotten_and_the_others_are_counted() {
    let context = context().await;
    for name in ["kept", "gone"] {
        context.set_target(&canary(name), name);
        with_gauge(&context, name);
    }
    context.sweep();
    assert!(has_gauge(&context, "kept") && !has_gauge(&context, "gone"));
    let names: Vec<_> = context.canaries().keys().map(full_name).collect();
    assert_eq!(names, ["kept.shop"]);
    let text = context.operator.canary_metrics.render();
    for line in [
        r#"flagger_canary_total{namespace="shop"} 1"#,
        r#"flagger_rs_cache_objects{kind="Canary"} 1"#,
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_gauges_of_a_former_target_are_removed_unless_another_canary_has_it() {
    let context = context().await;
    let (own, other) = (canary("own"), canary("other"));
    for target in ["shared", "single", "next"] {
        with_gauge(&context, target);
    }
    context.set_target(&own, "shared");
    context.set_target(&other, "shared");
    context.set_target(&own, "single");
    assert!(has_gauge(&context, "shared"), "the other canary has it");
    context.set_target(&own, "single");
    assert!(has_gauge(&context, "single"), "it is the same");
    context.set_target(&own, "next");
    assert!(!has_gauge(&context, "single") && has_gauge(&context, "next"));
}

#[tokio::test(start_paused = true)]
async fn the_pauses_after_failures_grow_to_a_quarter_of_a_minute() {
    let context = context().await;
    let pauses: Vec<_> = (0..10)
        .map(|_| context.failed(&canary("own"), "lost").as_millis())
        .collect();
    assert_eq!(pauses[..6], [400, 800, 1_600, 3_200, 6_400, 12_800]);
    assert!(pauses[6..].iter().all(|pause| *pause == 15_000));
    assert_eq!(context.failed(&canary("other"), "lost").as_millis(), 400);
    let text = context.operator.canary_metrics.render();
    assert!(
        text.contains("flagger_rs_reconcile_errors_total{category=\"lost\"} 11\n"),
        "{text}"
    );
}
