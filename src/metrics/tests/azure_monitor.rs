//! Azure Monitor: the hosts that get a token.

use serde_json::json;

use super::request;
use crate::{metrics::Server, snapshot::Secret};

#[test]
fn azure_monitor_gives_a_token_to_no_other_host() {
    let server = |address: &str, skip: bool| {
        let spec = json!({"type": "azuremonitor", "address": address, "insecureSkipVerify": skip});
        Server::of(&serde_json::from_value(spec).unwrap(), None, None)
    };
    for address in [
        "https://evil.com",
        "https://prometheus.monitor.azure.com.evil.com",
        "https://evilprometheus.monitor.azure.com",
        "https://.prometheus.monitor.azure.com",
        "https://prometheus.monitor.azure.com",
        "https://w.prometheus.monitor.azure.de",
        "https://w.prometheus.monitor.azure.com@evil.com",
        "https://evil.com/?x=w.prometheus.monitor.azure.com",
        "https://evil.com#.prometheus.monitor.azure.com",
        "https://evil.com\\.prometheus.monitor.azure.com",
        "https://169.254.169.254",
    ] {
        let error = server(address, false).unwrap_err().to_string();
        assert!(
            error.contains(
                " is not an Azure Monitor Workspace query endpoint, expected a host ending in "
            ),
            "{address}: {error}"
        );
    }
    for end in ["com", "us", "cn"] {
        let address = format!("https://W.eastus.Prometheus.Monitor.Azure.{end}:443/x");
        let server = server(&address, false).unwrap();
        assert!(server.identity().is_some());
        let host = format!("w.eastus.prometheus.monitor.azure.{end}");
        assert_eq!(server.hosts(), [host]);
    }
    for (address, skip, text) in [
        (
            "https://w.prometheus.monitor.azure.com",
            true,
            "azuremonitor provider does not support insecureSkipVerify",
        ),
        (
            "http://u:hush@w.prometheus.monitor.azure.com",
            false,
            "azuremonitor address http://w.prometheus.monitor.azure.com must use https",
        ),
        (
            "https://prometheus.example.com",
            false,
            "azuremonitor address https://prometheus.example.com is not an Azure Monitor Workspace query endpoint, \
             expected a host ending in .prometheus.monitor.azure.us, .prometheus.monitor.azure.cn, .prometheus.monitor.azure.com",
        ),
    ] {
        assert_eq!(server(address, skip).unwrap_err().to_string(), text);
    }
}

#[test]
fn a_record_names_the_workspace_and_not_the_login() {
    let secret = ["clientId", "tenantId", "clientSecret"];
    let secret = secret.map(|key| (key.to_owned(), "x".to_owned())).into();
    let spec = json!({"type": "azuremonitor", "address": "https://w.prometheus.monitor.azure.com"});
    let server = Server::of(&serde_json::from_value(spec).unwrap(), Some(&secret), None);
    let hosts = [
        "w.prometheus.monitor.azure.com",
        "login.microsoftonline.com",
    ];
    assert_eq!(server.unwrap().hosts(), hosts);
}

#[test]
fn headers_of_the_template_are_sent() {
    let spec = json!({"type": "azuremonitor", "address": "https://w.prometheus.monitor.azure.com", "headers": {"Foo": ["bar"]}});
    let server = Server::of(&serde_json::from_value(spec).unwrap(), None, None).unwrap();
    let headers = request(&server, "q").headers;
    assert_eq!(headers, [("Foo".to_owned(), Secret("bar".to_owned()))]);
}
