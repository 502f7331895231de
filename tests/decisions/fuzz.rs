//! Checks that no input from outside causes a panic, an endless text, a NaN, or an unsafe plan.
//!
//! Each test tries some hundred inputs, and continues for `FUZZ_SECONDS` seconds. An input that fails is kept in
//! `tests/proptest-regressions/fuzz.txt`; later runs try it first.

use std::time::{Duration, Instant};

use flagger_rs::{
    api::{
        alert_provider::AlertProvider,
        canary::Canary,
        duration,
        metric_template::{MetricTemplate, MetricTemplateProvider},
    },
    metrics::{Server, endpoint::SecretValues, template},
    notifications::chats,
    rollout::{self, Decision, Evidence},
    snapshot::{HttpResponse, Kind},
};
use proptest::{
    prelude::*,
    test_runner::{Config, FileFailurePersistence, TestRunner},
};
use serde_json::{Value, json};

use super::simulation::release;

const SEEDS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/proptest-regressions/fuzz.txt"
);
/// No text that quotes an answer is longer than this.
const READ: usize = 2048;

/// A good answer of each metric server.
const ANSWERS: [(&str, &str); 12] = [
    (
        "prometheus",
        r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[1,"100"]}]}}"#,
    ),
    (
        "azuremonitor",
        r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[1,"100"]}]}}"#,
    ),
    (
        "cloudwatch",
        r#"{"MetricDataResults":[{"Id":"e1","StatusCode":"Complete","Values":[0.5,9]}],"NextToken":"a"}"#,
    ),
    (
        "stackdriver",
        r#"{"timeSeriesData":[{"pointData":[{"values":[{"doubleValue":0.5},{"int64Value":"9"},{"doubleValue":"NaN"}]}]}]}"#,
    ),
    (
        "datadog",
        r#"{"status":"ok","series":[{"pointlist":[[1577232000000,29325.102158814265],[1577318400000,56294.46758591842]]}]}"#,
    ),
    ("newrelic", r#"{"results":[{"result":1.5}]}"#),
    (
        "graphite",
        r#"[{"target":"a.b","datapoints":[[null,1621348400],[75.0,1621348410]],"tags":{"name":"a.b"}}]"#,
    ),
    (
        "dynatrace",
        r#"{"totalCount":1,"result":[{"metricId":"a","data":[{"timestamps":[1621348400],"values":[null,9.5]}]}]}"#,
    ),
    (
        "externalmetrics",
        r#"{"items":[{"metricName":"a","metricLabels":null,"value":"1500m"},{"value":"2Ki"}]}"#,
    ),
    (
        "splunk",
        "event: data\ndata: {\"data\":[{\"tsId\":\"a\",\"value\":1.5}],\ndata: \"logicalTimestampMs\":1}\n\nevent: control-message\ndata: {\"event\":\"END_OF_CHANNEL\"}\n\n",
    ),
    (
        "keptn",
        r#"{"metadata":{"name":"a","namespace":"b"},"status":{"value":"3.0"}}"#,
    ),
    (
        "influxdb",
        "#datatype,string,long,double,string\r\n#group,false,false,false,true\r\n#default,_result,,,\r\n,result,table,_value,host\r\n,,0,1.5,\"a,b\"\r\n",
    ),
];

fn fuzz<S: Strategy>(name: &str, inputs: S, test: impl Fn(S::Value)) {
    let asked = std::env::var("FUZZ_SECONDS").map(|seconds| seconds.parse().unwrap());
    let (begin, seconds) = (Instant::now(), Duration::from_secs(asked.unwrap_or(0)));
    let mut tried = 0;
    loop {
        let config = Config {
            failure_persistence: Some(Box::new(FileFailurePersistence::Direct(SEEDS))),
            ..Config::default()
        };
        tried += config.cases;
        let result = TestRunner::new(config).run(&inputs, |input| {
            test(input);
            Ok(())
        });
        if let Err(failure) = result {
            panic!("{name}: {failure}");
        }
        if begin.elapsed() >= seconds {
            break println!("{name}: {tried} inputs in {:.1?}", begin.elapsed());
        }
    }
}

#[test]
fn a_duration_is_parsed_or_refused_and_parses_again_from_its_display() {
    let parts = [
        "0",
        "1",
        "9",
        "60",
        "999999999999",
        "9223372036854775807",
        ".",
        "-",
        "+",
        "h",
        "m",
        "s",
        "ms",
        "us",
        "µs",
        "μs",
        "ns",
        " ",
        "d",
        "e",
        "NaN",
        "\u{0}",
        "٣",
    ];
    let texts = prop::collection::vec(prop::sample::select(parts.to_vec()), 0..8);
    fuzz("durations", texts, |parts| {
        let text = parts.concat();
        match duration::read(&text) {
            Ok(read) => assert_eq!(
                duration::read(&duration::display(read)),
                Ok(read),
                "{text:?}"
            ),
            Err(error) => {
                let message = error.to_string();
                assert!(message.len() < READ, "{message}");
            }
        }
    });
}

#[test]
fn a_template_is_rendered_or_refused() {
    let parts = [
        "{{",
        "}}",
        "{{-",
        "-}}",
        " ",
        "(",
        ")",
        "|",
        "$x",
        ":=",
        "=",
        "if",
        "else",
        "end",
        "range",
        "with",
        "define",
        "block",
        "template",
        "\"a\"",
        "\"",
        "'",
        "`",
        "\\",
        "u",
        "x",
        "é",
        "1",
        "-1",
        "0x",
        ".",
        ".b",
        ",",
        "variables",
        "name",
        "printf",
        "index",
        "slice",
        "len",
        "\"%d\"",
        "\"%999999999d\"",
        "break",
        "nil",
        "true",
        "\n",
        "/*",
        "*/",
        "namespace",
        "interval",
    ];
    let texts = prop::collection::vec(prop::sample::select(parts.to_vec()), 0..40);
    fuzz("templates", texts, |parts| {
        let variables = template::Model::default();
        match template::render(&parts.concat(), &variables) {
            Ok(query) => assert!(query.len() < 1 << 20),
            Err(why) => assert!(why.to_string().len() < 8 * READ, "{why}"),
        }
    });
}

#[test]
fn an_answer_has_a_number_or_an_error() {
    let statuses = prop::sample::select(vec![200_u16, 204, 302, 400, 403, 410, 429, 500, 503]);
    let answers = prop::sample::select(ANSWERS.to_vec());
    let inputs = (answers, statuses, edits(), prop::option::of(0_usize..200));
    fuzz("answers", inputs, |((name, well), status, edits, cut)| {
        // An answer that is not JSON is only cut.
        let mut body = serde_json::from_str(well)
            .map_or_else(|_| well.to_owned(), |json| edited(json, &edits).to_string());
        if let Some(cut) = cut {
            body = body.chars().take(cut).collect();
        }
        let response = HttpResponse { status, body };
        let server = server(name);
        match server.value(&response) {
            Ok(value) => assert!(!value.is_nan(), "{response:?}"),
            Err(why) => assert!(why.to_string().len() < READ, "{why}"),
        }
        if let Err(why) = server.online(Ok(&response)) {
            assert!(why.to_string().len() < READ, "{why}");
        }
        assert!(chats::refused(&response).len() < READ);
    });
}

#[test]
fn a_decision_about_an_object_of_any_form_is_safe() {
    let inputs = (0_usize..200, 0_usize..5, edits());
    fuzz("objects", inputs, |(reconciles, which, edits)| {
        let mut sim = release(json!({"stepWeight": 50, "interval": "10s"}));
        sim.run(reconciles);
        let snapshot = &mut sim.snapshot;
        // The API server validates built-in kinds. Only custom resources of other projects can have any form.
        let routes = snapshot.objects.iter_mut();
        let routes = routes.filter(|(object, _)| {
            matches!(object.kind, Kind::VirtualService | Kind::DestinationRule)
        });
        match routes.map(|(_, object)| object).nth(which) {
            Some(object) => *object = edited(object.take(), &edits),
            None => {
                let canary = edited(serde_json::to_value(&snapshot.canary).unwrap(), &edits);
                // The operator reports a Canary that it cannot parse, and does nothing else.
                let Ok(canary) = serde_json::from_value::<Canary>(canary) else {
                    return;
                };
                snapshot.canary = canary;
            }
        }
        if let Decision::Do(plan) = rollout::decide(snapshot, &Evidence::new()) {
            assert_eq!(rollout::audit(snapshot, &plan), Ok(()), "{plan:?}");
        }
    });
}

#[test]
fn a_manifest_of_any_form_is_parsed_or_refused() {
    let template = json!({"metadata": {"name": "a"}, "spec": {"query": "q", "provider": {"type": "prometheus", "address": "http://a", "headers": {"a": ["b"]},
        "secretRef": {"name": "s"}, "insecureSkipVerify": true}}});
    let provider = json!({"metadata": {"name": "a"}, "spec": {"type": "slack", "channel": "c", "username": "u", "address": "http://a",
        "secretRef": {"name": "s"}}});
    fuzz("manifests", edits(), |edits| {
        if let Ok(read) = serde_json::from_value::<MetricTemplate>(edited(template.clone(), &edits))
        {
            let _ = Server::of(&read.spec.provider, Some(&credentials()), Some("1m"));
        }
        if let Ok(read) = serde_json::from_value::<AlertProvider>(edited(provider.clone(), &edits))
        {
            let secret = json!({"data": {"address": "aHR0cDovL2E="}});
            let _ = chats::chat_of(&read, Some(&secret));
        }
    });
}

fn credentials() -> SecretValues {
    let keys = [
        "datadog_api_key",
        "datadog_application_key",
        "newrelic_account_id",
        "newrelic_query_key",
        "dynatrace_token",
        "sf_token_key",
        "token",
        "org",
        "username",
        "password",
        "project",
    ];
    keys.map(|key| (key.to_owned(), "x".to_owned())).into()
}

fn server(name: &str) -> Server {
    let spec = json!({"type": name, "address": "https://w.prometheus.monitor.azure.com", "region": "eu-west-1"});
    let spec: MetricTemplateProvider = serde_json::from_value(spec).unwrap();
    Server::of(&spec, Some(&credentials()), Some("1m")).unwrap()
}

/// Edits of a JSON value: the position of a part, and its replacement.
fn edits() -> impl Strategy<Value = Vec<(usize, Value)>> {
    let deep = (0..100).fold(json!([]), |inner, _| json!([inner]));
    let odd = [
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(101),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1e308),
        json!(0.1),
        json!(""),
        json!("NaN"),
        json!("-Inf"),
        json!("1e999"),
        json!("100"),
        json!("podinfo"),
        json!("\u{0}\u{202e}é"),
        json!("x".repeat(4096)),
        json!([]),
        json!({}),
        json!([null]),
        json!([{}]),
        json!({"": null}),
        json!({"weight": 100}),
        deep,
    ];
    prop::collection::vec((any::<usize>(), prop::sample::select(odd.to_vec())), 0..4)
}

fn edited(mut value: Value, edits: &[(usize, Value)]) -> Value {
    for (nth, odd) in edits {
        let mut paths = Vec::new();
        parts(&value, String::new(), &mut paths);
        let path = &paths[nth % paths.len()];
        *value.pointer_mut(path).unwrap() = odd.clone();
    }
    value
}

/// The JSON pointers of all parts of a value.
fn parts(value: &Value, path: String, paths: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let key = key.replace('~', "~0").replace('/', "~1");
                parts(value, format!("{path}/{key}"), paths);
            }
        }
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                parts(item, format!("{path}/{n}"), paths);
            }
        }
        _ => {}
    }
    // The API server keeps these parts valid.
    if !matches!(path.as_str(), "" | "/spec" | "/status") && !path.starts_with("/metadata") {
        paths.push(path);
    }
}
