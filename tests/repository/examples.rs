//! Checks that each example of a MetricTemplate or an AlertProvider can be used as it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use flagger_rs::{
    api::{alert_provider::AlertProvider, metric_template::MetricTemplate},
    metrics::{
        Asks, Query, Server, providers,
        template::{Model, render},
    },
    notifications::{
        Severity,
        chats::{self, chat_of},
        message::AlertMessage,
    },
};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::files;

/// The object of this kind in a file, and the Secret that it names, if there is one.
fn with_secret<T: DeserializeOwned>(file: &[Value], kind: &str) -> (T, BTreeMap<String, String>) {
    let find = |kind: &str| file.iter().find(|object| object["kind"] == kind).unwrap();
    let object = find(kind);
    let Some(secret) = file.iter().find(|object| object["kind"] == "Secret") else {
        let object = serde_json::from_value(object.clone());
        return (object.unwrap(), BTreeMap::new());
    };
    let named = object.pointer("/spec/provider/secretRef/name");
    let named = named.or_else(|| object.pointer("/spec/secretRef/name"));
    assert_eq!(named, secret.pointer("/metadata/name"), "{object}");
    let data = serde_json::from_value(secret["stringData"].clone()).unwrap();
    (serde_json::from_value(object.clone()).unwrap(), data)
}

#[test]
fn each_metric_provider_has_an_example_that_makes_a_request() {
    let mut shown = BTreeSet::new();
    for file in files::folder("examples/metrics") {
        let (template, secret): (MetricTemplate, _) = with_secret(&file, "MetricTemplate");
        let provider = &template.spec.provider;
        shown.insert(provider.type_.clone());
        let secret = provider.secret_ref.as_ref().map(|_| &secret);
        let model = Model {
            namespace: "test".to_owned(),
            target: "podinfo".to_owned(),
            interval: "1m".to_owned(),
            variables: [("service".to_owned(), "SERVICE-0".to_owned())].into(),
            ..Model::default()
        };
        let query = Query {
            server: Server::of(provider, secret, Some("1m")).unwrap(),
            asks: Asks::Value(render(&template.spec.query, &model).unwrap()),
            budget: Duration::from_secs(9),
        };
        let request = query.request(Timestamp::UNIX_EPOCH);
        let sent = request.url.0 + &request.body.unwrap_or_default();
        let names_the_target = sent.contains("podinfo") || sent.contains("SERVICE-0");
        let is_rendered = !sent.contains("%7B%7B") && !sent.contains("{{");
        assert!(names_the_target && is_rendered, "{sent}");
    }
    assert_eq!(shown, providers::names().map(str::to_owned).collect());
}

#[test]
fn each_chat_service_has_an_example_that_makes_a_request() {
    let mut shown = BTreeSet::new();
    for file in files::folder("examples/alerts") {
        let (provider, secret): (AlertProvider, _) = with_secret(&file, "AlertProvider");
        shown.insert(provider.spec.type_.clone());
        let data: BTreeMap<_, _> = secret
            .iter()
            .map(|(key, value)| (key, ByteString(value.clone().into_bytes())))
            .collect();
        let chat = chat_of(&provider, Some(&json!({"data": data}))).unwrap();
        let message = AlertMessage {
            canary: "podinfo.test".to_owned(),
            text: "hello".to_owned(),
            severity: Severity::Info,
            fields: Vec::new(),
        };
        let request = chat.request(&message).unwrap();
        assert!(request.body.unwrap().contains("hello"));
        assert!(request.url.0.starts_with("https://"));
    }
    assert_eq!(shown, chats::names().map(str::to_owned).collect());
}
