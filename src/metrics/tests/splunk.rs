//! The hosts of Splunk Observability Cloud.

use serde_json::json;

use super::*;

/// Each row has an address, and the hosts that execute programs and that describe metrics.
#[test]
fn splunks_address_is_that_of_either_host() {
    let token = [("sf_token_key".to_owned(), "t".to_owned())].into();
    let (stream, api) = (
        "https://stream.us1.signalfx.com",
        "https://api.us1.signalfx.com",
    );
    for (address, executes, describes) in [
        (api, stream, api),
        (stream, stream, api),
        ("wss://stream.us1.signalfx.com", stream, api),
        ("wss://api.us1.signalfx.com/", stream, api),
        ("ws://streams:80/x", "http://streams/x", "http://streams/x"),
        ("http://apis.api", "http://apis.api", "http://apis.api"),
    ] {
        let spec = serde_json::from_value(json!({"type": "splunk", "address": address}));
        let server = Server::of(&spec.unwrap(), Some(&token), None).unwrap();
        let url = request(&server, "q").url.0;
        let path = format!("{executes}/v2/signalflow/execute?start=");
        assert!(url.starts_with(&path), "{url}");
        let probe = Query {
            server: server.clone(),
            asks: Asks::Online,
            budget: Duration::from_secs(9),
        };
        let probe = probe.request(Timestamp::UNIX_EPOCH).url.0;
        assert_eq!(probe, format!("{describes}/v2/metric?limit=1"));
        let hosts = server.hosts();
        assert!(
            hosts
                .iter()
                .all(|host| url.contains(host) || probe.contains(host))
        );
        assert_eq!(hosts.len(), if executes == describes { 1 } else { 2 });
    }
    for (spec, text) in [
        (json!({"type": "splunk"}), "splunk endpoint is not set"),
        (
            json!({"type": "splunk", "address": "ftp://u:hush@s"}),
            "splunk address ftp://s is not a valid URL",
        ),
    ] {
        let spec = serde_json::from_value(spec).unwrap();
        let error = Server::of(&spec, Some(&token), None).unwrap_err();
        assert_eq!(error.to_string(), text);
    }
}
