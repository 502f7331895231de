use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, HeaderValue, header};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, advance, sleep},
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
    let visible = visitor.visible(Kind::Canary, || namespaces).await.unwrap();
    assert_eq!(visible, Visible::Only(["shop".to_owned()].into()));
    assert!(!visitor.may_list("secret").await.unwrap());
    server.take();
    assert!(visitor.may_list("shop").await.unwrap());
    assert_eq!(server.take().len(), 0, "an answer is kept");
    advance(KEPT).await;
    assert!(visitor.may_list("shop").await.unwrap());
    assert_eq!(server.take().len(), 1, "for a minute");
}

mod open_pages;
