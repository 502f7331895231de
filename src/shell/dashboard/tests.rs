use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, HeaderValue, header};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{advance, sleep, timeout},
};

use super::{
    content::Contents,
    fleet::Fleet,
    gate::{Caller, Gate},
    network::Network,
    policy::Policy,
    refusal::Refusal,
    state::{Dashboard, STREAMS},
    visitor::{KEPT, Visible},
    *,
};
use crate::{
    dashboard::Row,
    shell::{
        api_server::fake::{Answer, FakeApiServer, Request},
        clock,
        http_server::Limits,
    },
};

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        (
            header::HeaderName::from_static(name),
            HeaderValue::from_str(value).unwrap(),
        )
    };
    pairs.iter().map(pair).collect()
}

const fn caller(headers: &HeaderMap) -> Caller<'_> {
    Caller {
        headers,
        peer: PEER,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "this is one of several answers")]
/// Accepts each token that does not contain `bad`, and grants each right in the namespace `shop`.
fn api_server(request: &Request) -> Answer {
    let body = &request.body;
    let status = if request.line.contains("/tokenreviews") {
        let token = body["spec"]["token"].as_str().unwrap();
        json!({"authenticated": !token.contains("bad"), "user": {"username": format!("user-of-{token}")}})
    } else {
        json!({"allowed": body["spec"]["resourceAttributes"]["namespace"] == "shop"})
    };
    Some((201, json!({"spec": body["spec"], "status": status})))
}

fn gate(server: &FakeApiServer, auth: Auth, trusted: &[&str]) -> Gate {
    let trusted = trusted.iter().map(|it| Network::parse(it).unwrap());
    Gate::new(Visitors::of(server.client()), auth, trusted.collect())
}

/// The value of the cookie for the next request.
fn sent_back(set_cookie: &str) -> String {
    set_cookie.split(';').next().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_when_its_token_expires_and_when_the_visitor_logs_out() {
    let accepts = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let answers = accepts.clone();
    let server = FakeApiServer::answering(move |request| {
        if answers.load(std::sync::atomic::Ordering::Relaxed) {
            return api_server(request);
        }
        Some((
            201,
            json!({"spec": request.body["spec"], "status": {"authenticated": false}}),
        ))
    });
    let gate = gate(&server, Auth::Token, &[]);
    let none = HeaderMap::new();
    assert_eq!(
        gate.admit(caller(&none)).await.err(),
        Some(Refusal::NoLogin)
    );
    assert_eq!(
        gate.log_in("", caller(&none)).await,
        Err(Refusal::WrongToken)
    );
    let cookie = gate.log_in("good", caller(&none)).await.unwrap();
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(
        !cookie.contains("good") && !cookie.contains("Secure"),
        "{cookie}"
    );
    let session = headers(&[("cookie", &format!("a=b; {}", sent_back(&cookie)))]);
    let visitor = gate.admit(caller(&session)).await.unwrap();
    assert_eq!(visitor.name.as_deref(), Some("user-of-good"));

    // The API server is asked again after a minute.
    accepts.store(false, std::sync::atomic::Ordering::Relaxed);
    assert!(gate.admit(caller(&session)).await.is_ok());
    advance(KEPT).await;
    assert_eq!(
        gate.admit(caller(&session)).await.err(),
        Some(Refusal::WrongToken)
    );
    assert_eq!(
        gate.admit(caller(&session)).await.err(),
        Some(Refusal::NoLogin)
    );

    accepts.store(true, std::sync::atomic::Ordering::Relaxed);
    let behind_tls = headers(&[("x-forwarded-proto", "https")]);
    let cookie = gate.log_in("good", caller(&behind_tls)).await.unwrap();
    assert!(cookie.contains("Secure"), "{cookie}");
    let session = headers(&[("cookie", &sent_back(&cookie))]);
    assert!(gate.admit(caller(&session)).await.is_ok());
    assert!(gate.log_out(caller(&session)).contains("Max-Age=0"));
    assert_eq!(
        gate.admit(caller(&session)).await.err(),
        Some(Refusal::NoLogin)
    );
}

#[tokio::test(start_paused = true)]
async fn an_address_that_tries_many_tokens_is_slowed_down() {
    let server = FakeApiServer::answering(api_server);
    let gate = gate(&server, Auth::Token, &[]);
    let none = HeaderMap::new();
    for number in 0..100 {
        let refused = gate.log_in(&format!("bad-{number}"), caller(&none)).await;
        assert_eq!(refused, Err(Refusal::WrongToken));
    }
    let refused = gate.log_in("bad", caller(&none)).await;
    assert_eq!(refused, Err(Refusal::TooMany));
    let other = Caller {
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        ..caller(&none)
    };
    assert!(gate.log_in("good", other).await.is_ok());
    advance(Duration::from_secs(2)).await;
    assert!(gate.log_in("good-2", caller(&none)).await.is_ok());
}

#[tokio::test]
async fn a_forwarded_token_is_reviewed_and_a_session_does_not_count() {
    let server = FakeApiServer::answering(api_server);
    let gate = gate(&server, Auth::Forwarded, &[]);
    for (value, expected) in [
        (Some("Bearer good"), Ok("user-of-good")),
        (Some("Bearer bad"), Err(Refusal::WrongToken)),
        (Some("Basic good"), Err(Refusal::NoToken)),
        (None, Err(Refusal::NoToken)),
    ] {
        let value = value.map(|value| ("authorization", value));
        let headers = headers(value.as_slice());
        let admitted = gate.admit(caller(&headers)).await;
        let admitted = admitted.map(|visitor| visitor.name.clone().unwrap());
        assert_eq!(admitted, expected.map(str::to_owned));
    }
}

#[tokio::test]
async fn the_headers_of_a_user_count_from_a_trusted_proxy_only() {
    let server = FakeApiServer::answering(api_server);
    let (trusted, other) = (
        gate(&server, Auth::Headers, &["192.0.2.0/24"]),
        gate(&server, Auth::Headers, &["198.51.100.0/24"]),
    );
    let admitted = async |gate: &Gate, pairs: &[(&'static str, &str)]| {
        let headers = headers(pairs);
        let admitted = gate.admit(caller(&headers)).await;
        admitted.map(|visitor| visitor.name.clone().unwrap())
    };
    let (user, groups) = ("x-forwarded-user", "x-forwarded-groups");
    let jane = admitted(&trusted, &[(user, "jane"), (groups, "dev, on-call")]).await;
    assert_eq!(jane, Ok("jane".to_owned()));
    assert_eq!(
        admitted(&other, &[(user, "jane")]).await,
        Err(Refusal::NotTrusted)
    );
    assert_eq!(
        admitted(&trusted, &[(groups, "dev")]).await,
        Err(Refusal::NoUser)
    );
    for (name, group) in [("system:admin", "dev"), ("jane", "dev,system:masters")] {
        let refused = admitted(&trusted, &[(user, name), (groups, group)]).await;
        assert_eq!(refused, Err(Refusal::Reserved));
    }
    // Of two headers, the first may be the visitor's own.
    let mut twice = headers(&[(user, "jane")]);
    twice.append(user, HeaderValue::from_static("admin"));
    assert_eq!(
        trusted.admit(caller(&twice)).await.err(),
        Some(Refusal::NoUser)
    );
}

#[tokio::test(start_paused = true)]
async fn a_visitor_sees_the_namespaces_whose_canaries_the_visitor_may_list() {
    let server = FakeApiServer::answering(api_server);
    let gate = gate(&server, Auth::Forwarded, &[]);
    let headers = headers(&[("authorization", "Bearer good")]);
    let visitor = gate.admit(caller(&headers)).await.unwrap();
    let namespaces = ["shop", "secret"].map(str::to_owned).into();
    let visible = visitor.visible(namespaces).await.unwrap();
    assert_eq!(visible, Visible::Only(["shop".to_owned()].into()));
    assert!(!visitor.may_list("secret").await.unwrap());
    server.take();
    assert!(visitor.may_list("shop").await.unwrap());
    assert_eq!(server.take().len(), 0, "an answer is kept");
    advance(KEPT).await;
    assert!(visitor.may_list("shop").await.unwrap());
    assert_eq!(server.take().len(), 1, "for a minute");
}

fn canary(name: &str, weight: i64) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}, "service": {"port": 80}, "analysis": {"stepWeight": 10, "maxWeight": 50}},
        "status": {"phase": "Progressing", "canaryWeight": weight,
            "conditions": [{"type": "Verdict", "status": "True", "reason": "Threshold", "message": "x".repeat(500)}]}})
}

fn set(fleet: &Fleet, name: &str, weight: i64) {
    let row = Arc::new(Row::of(canary(name, weight), clock::now()));
    fleet.change(|rows| drop(rows.insert(("shop".to_owned(), name.to_owned()), row)));
}

/// A dashboard without a login.
async fn served(fleet: &Fleet) -> (std::net::SocketAddr, Arc<Dashboard>) {
    let server = FakeApiServer::answering(api_server);
    let typed = Typed::new("flagger", &[]);
    let contents = Contents::new(fleet.clone(), typed);
    let policy = Policy::new(true, None, &[]).unwrap();
    let dashboard = Arc::new(Dashboard::new(
        gate(&server, Auth::None, &[]),
        contents,
        policy,
    ));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Limits {
        client: Duration::from_secs(15),
        ..LIMITS
    };
    let router = server::router(dashboard.clone());
    tokio::spawn(http_server::serve(
        listener,
        router,
        limits,
        std::future::pending(),
    ));
    (address, dashboard)
}

async fn open(address: std::net::SocketAddr, path: &str, more: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// The text that arrives until it contains `end`.
async fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut buffer = vec![0; 1 << 16];
    while !text.contains(end) {
        let read = timeout(Duration::from_secs(60), stream.read(&mut buffer)).await;
        let read = read.unwrap_or_else(|_| panic!("{text:.2000}")).unwrap();
        assert!(read > 0, "the stream ended: {text:.2000}");
        assert!(text.len() < 1 << 20, "no {end} in {text:.2000}");
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    text
}

#[tokio::test(start_paused = true)]
async fn an_open_page_gets_each_new_content_and_resumes_after_a_break() {
    let fleet = Fleet::default();
    set(&fleet, "podinfo", 10);
    let (address, _dashboard) = served(&fleet).await;
    let mut stream = open(address, "/events?of=/", "").await;
    let first = until(&mut stream, "10 %").await;
    assert!(first.contains("content-type: text/event-stream") && first.contains("data: <h1"));
    let id = first
        .split("id: ")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap();
    set(&fleet, "podinfo", 20);
    let second = until(&mut stream, "20 %").await;
    assert_eq!(
        second.matches("id: ").count(),
        1,
        "one message has the whole content"
    );
    let newest = second
        .split("id: ")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap();
    drop(stream);

    // The client has the newest content: it gets a heartbeat only.
    let mut resumed = open(
        address,
        "/events?of=/",
        &format!("Last-Event-ID: {newest}\r\n"),
    )
    .await;
    let silent = until(&mut resumed, ": heartbeat").await;
    assert!(!silent.contains("data:"), "{silent}");
    let mut late = open(address, "/events?of=/", &format!("Last-Event-ID: {id}\r\n")).await;
    until(&mut late, "20 %").await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_dropped() {
    let fleet = Fleet::default();
    for number in 0..100 {
        set(&fleet, &format!("c{number}"), 10);
    }
    let (address, dashboard) = served(&fleet).await;
    let _slow = open(address, "/events?of=/", "").await;
    let mut reads = open(address, "/events?of=/", "").await;
    let is_dropped = || dashboard.free_streams() == STREAMS - 1;
    let reading = tokio::spawn(async move {
        let mut buffer = vec![0; 1 << 16];
        while reads.read(&mut buffer).await.unwrap_or(0) > 0 {}
    });
    // The system keeps some megabytes for the client. A message has more than 50 kB.
    for round in 0..2000 {
        set(&fleet, "c0", round % 50);
        sleep(Duration::from_secs(1)).await;
        if round > 0 && is_dropped() {
            reading.abort();
            return;
        }
        assert!(!reading.is_finished(), "the one that reads was dropped");
    }
    panic!("{} free", dashboard.free_streams());
}

#[tokio::test(start_paused = true)]
async fn one_visitor_cannot_take_the_places_of_all() {
    let fleet = Fleet::default();
    set(&fleet, "podinfo", 10);
    let (address, _dashboard) = served(&fleet).await;
    let mut open_pages = Vec::new();
    for _ in 0..20 {
        let mut stream = open(address, "/events?of=/", "").await;
        until(&mut stream, "10 %").await;
        open_pages.push(stream);
    }
    let mut refused = open(address, "/events?of=/", "").await;
    let text = until(&mut refused, "event: busy").await;
    assert!(text.contains("retry: 15000"), "{text}");
    open_pages.pop();
    sleep(Duration::from_secs(20)).await;
    until(&mut open(address, "/events?of=/", "").await, "10 %").await;
}
