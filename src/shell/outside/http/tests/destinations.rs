//! Tests with real sockets of the servers that calls of users may reach.

use wiremock::{Mock, MockServer, ResponseTemplate, matchers::any};

use super::{
    super::{client::Clients, *},
    get,
};
use crate::{
    shell::telemetry::canary_metrics::CanaryMetrics,
    snapshot::{Destinations, HostList, Origin, Secret},
};

fn limited(destinations: Destinations) -> Http {
    let metrics = CanaryMetrics::new().unwrap().operator_metrics().unwrap();
    Http::new(metrics, destinations)
}

fn without_loopback() -> Destinations {
    Destinations {
        loopback: false,
        ..Destinations::default()
    }
}

async fn server() -> MockServer {
    let server = MockServer::start().await;
    let answer = ResponseTemplate::new(200);
    Mock::given(any()).respond_with(answer).mount(&server).await;
    server
}

async fn arrived(server: &MockServer) -> usize {
    server.received_requests().await.unwrap().len()
}

#[tokio::test]
async fn a_name_is_refused_by_its_address_and_not_tried_again() {
    let server = server().await;
    let named = server.uri().replace("127.0.0.1", "localhost");
    let request = HttpRequest {
        retries: 5,
        ..get(named)
    };
    let failure = limited(without_loopback())
        .send(&request)
        .await
        .unwrap_err();
    assert!(
        failure.why.ends_with(
            " of localhost is in the operator's own pod: the flag -refuse-loopback is set"
        ),
        "{}",
        failure.why
    );
    assert_eq!((failure.attempts, arrived(&server).await), (1, 0));
    let answer = limited(Destinations::default()).send(&request).await;
    assert_eq!(answer.unwrap().status, 200);
}

#[tokio::test]
async fn an_address_is_refused_for_a_user_and_called_for_the_administrator() {
    let (server, http) = (server().await, limited(without_loopback()));
    let failure = http.send(&get(server.uri())).await.unwrap_err();
    let why =
        "the address 127.0.0.1 is in the operator's own pod: the flag -refuse-loopback is set";
    assert_eq!((failure.why.as_str(), arrived(&server).await), (why, 0));
    let request = HttpRequest {
        origin: Origin::Administrator,
        ..get(server.uri())
    };
    assert_eq!(http.send(&request).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_host_that_is_not_listed_is_not_called_and_neither_is_a_proxy() {
    let server = server().await;
    let http = limited(Destinations {
        hosts: HostList::read("chat.invalid, localhost"),
        ..Destinations::default()
    });
    let through = |proxy: String| HttpRequest {
        proxy: Some(Secret(proxy)),
        ..get("http://chat.invalid/".to_owned())
    };
    let bare = server.uri().replace("http://", "");
    for refused in [get(server.uri()), through(server.uri()), through(bare)] {
        let failure = http.send(&refused).await.unwrap_err();
        assert_eq!(
            failure.why,
            "the host 127.0.0.1 is not in the list of the flag -allowed-hosts"
        );
    }
    assert_eq!(arrived(&server).await, 0);
    let listed = server.uri().replace("127.0.0.1", "localhost");
    for allowed in [get(listed.clone()), through(listed)] {
        assert_eq!(http.send(&allowed).await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_proxy_is_refused_by_the_address_of_its_name() {
    let server = server().await;
    let proxy = server.uri().replace("127.0.0.1", "localhost");
    let request = HttpRequest {
        proxy: Some(Secret(proxy)),
        ..get("http://chat.invalid/".to_owned())
    };
    let failure = limited(without_loopback())
        .send(&request)
        .await
        .unwrap_err();
    assert!(
        failure
            .why
            .contains("of localhost is in the operator's own pod"),
        "{}",
        failure.why
    );
    assert_eq!(arrived(&server).await, 0);
}

#[test]
fn the_clients_that_were_used_last_are_kept() {
    let clients = Clients::default();
    let through = |n: usize| HttpRequest {
        proxy: Some(Secret(format!("http://proxy-{n}"))),
        ..get("http://chat.invalid/".to_owned())
    };
    clients.get(&through(0)).unwrap();
    for n in 1..1000 {
        clients.get(&through(n)).unwrap();
        clients.get(&through(0)).unwrap();
    }
    let kept = clients.proxies();
    assert_eq!(kept.len(), 32);
    assert_eq!(kept.last().unwrap(), "http://proxy-0");
    assert!(kept.contains(&"http://proxy-999".to_owned()));
}
