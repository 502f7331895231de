mod destinations;

use testbed::https::HttpsServer;
use wiremock::{Mock, MockServer, ResponseTemplate, matchers::path};

use super::{client::is_about_certificates, *};
use crate::snapshot::{Origin, Secret};

fn get(url: String) -> HttpRequest {
    HttpRequest {
        method: Method::Get,
        url: Secret(url),
        headers: vec![("Authorization".to_owned(), Secret("Bearer hush".to_owned()))],
        body: None,
        timeout: Duration::from_secs(30),
        retries: 0,
        budget: None,
        proxy: None,
        insecure_skip_verify: false,
        origin: Origin::User,
    }
}

async fn server(at: &str, answer: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(path(at))
        .respond_with(answer)
        .mount(&server)
        .await;
    server
}

#[tokio::test]
async fn a_long_error_keeps_its_status_and_any_other_long_answer_is_refused() {
    let long = "x".repeat(3 * LONGEST_BODY);
    let answer = async |status| {
        let template = ResponseTemplate::new(status).set_body_string(long.clone());
        let server = server("/", template).await;
        Http::default().send(&get(server.uri())).await
    };
    let cut = answer(503).await.unwrap();
    assert!(cut.status == 503 && cut.body.len() <= LONGEST_BODY);
    let refused = answer(200).await.unwrap_err();
    assert_eq!(refused.why, "the answer is larger than 1 MiB");
}

#[tokio::test]
async fn a_hanging_server_delays_calls_to_no_other() {
    // One namespace gets half of the places at a host. The other half stays free for other namespaces.
    const HALF: usize = OF_CANARIES.host / 2;
    let hanging = server(
        "/",
        ResponseTemplate::new(200).set_delay(Duration::from_secs(60)),
    )
    .await;
    let other = server("/", ResponseTemplate::new(200)).await;
    let (http, caller) = (Http::default(), Caller::Namespace("test"));
    let patient = HttpRequest {
        timeout: Duration::from_secs(60),
        ..get(hanging.uri())
    };
    let calls: Vec<_> = (0..2 * HALF)
        .map(|_| {
            let (http, request) = (http.clone(), patient.clone());
            tokio::spawn(async move { http.send_for(caller, &request).await })
        })
        .collect();
    let under_way = async || hanging.received_requests().await.unwrap().len();
    while under_way().await < HALF {
        tokio::task::yield_now().await;
    }
    let answer = http.send_for(caller, &get(other.uri())).await;
    assert_eq!(answer.unwrap().status, 200);
    assert_eq!(under_way().await, HALF, "the other calls wait");
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_large_answer_waits_for_its_place_and_a_small_one_does_not() {
    let body = |bytes| ResponseTemplate::new(200).set_body_string("x".repeat(bytes));
    let (large, small) = (
        server("/", body(LARGE + 1)).await,
        server("/", body(LARGE)).await,
    );
    let (http, a) = (Http::default(), Caller::Namespace("a"));
    let taken = [http.large.place("a").await, http.large.place("a").await];
    let request = HttpRequest {
        timeout: Duration::from_millis(300),
        ..get(large.uri())
    };
    let failure = http.send_for(a, &request).await.unwrap_err();
    assert!(
        failure.why.contains("no answer within 0.3 s"),
        "{}",
        failure.why
    );
    let answer = http.send_for(a, &get(small.uri())).await.unwrap();
    assert_eq!(answer.body.len(), LARGE);
    let answer = http
        .send_for(Caller::Namespace("b"), &get(large.uri()))
        .await;
    assert_eq!(answer.unwrap().body.len(), LARGE + 1);
    drop(taken);
    let read = |answer: Result<HttpResponse, Failure>| answer.map(|answer| answer.body.len());
    let length = http.ask(a, &get(large.uri()), read).await;
    assert_eq!(length, Ok(LARGE + 1));
}

#[tokio::test]
async fn a_connection_to_a_server_of_a_user_is_closed_after_its_answer() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (ended, mut ends) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let ended = ended.clone();
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).await.unwrap() > 0 {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                    stream.write_all(answer).await.unwrap();
                }
                ended.send(()).unwrap();
            });
        }
    });
    let http = Http::default();
    http.send(&get(address.clone())).await.unwrap();
    let end = timeout(Duration::from_secs(30), ends.recv());
    end.await
        .expect("an idle connection is closed after 90 s anyway");
    let request = HttpRequest {
        origin: Origin::Administrator,
        ..get(address)
    };
    http.send(&request).await.unwrap();
    assert!(ends.try_recv().is_err(), "the operator's own are kept");
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let server = server(
        "/",
        ResponseTemplate::new(200).set_delay(Duration::from_secs(60)),
    )
    .await;
    let request = HttpRequest {
        timeout: Duration::from_millis(500),
        ..get(server.uri())
    };
    let answer = Http::default().send(&request).await;
    assert_eq!(
        answer.unwrap_err().why,
        "context deadline exceeded: no answer within 0.5 s"
    );
}

#[tokio::test]
async fn a_redirect_to_another_host_is_an_error() {
    let other = server("/", ResponseTemplate::new(200)).await;
    let elsewhere = other.uri().replace("127.0.0.1", "localhost");
    let first = server(
        "/",
        ResponseTemplate::new(302).insert_header("Location", elsewhere),
    )
    .await;
    for origin in [Origin::User, Origin::Administrator] {
        for headers in [get(String::new()).headers, Vec::new()] {
            let request = HttpRequest {
                headers,
                origin,
                retries: 5,
                ..get(first.uri())
            };
            let failure = Http::default().send(&request).await.unwrap_err();
            assert_eq!(
                (failure.why.as_str(), failure.attempts),
                (
                    "the server redirects to the host localhost: a redirect to another host is not followed",
                    1
                )
            );
        }
    }
    assert!(other.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_redirect_sends_no_referer_to_the_next_server() {
    let other = server("/", ResponseTemplate::new(200)).await;
    let first = server(
        "/hush",
        ResponseTemplate::new(302).insert_header("Location", other.uri()),
    )
    .await;
    let request = HttpRequest {
        headers: Vec::new(),
        ..get(format!("{}/hush?token=hush", first.uri()))
    };
    let answer = Http::default().send(&request).await.unwrap();
    assert_eq!(answer.status, 200);
    let arrived = &other.received_requests().await.unwrap()[0];
    assert!(!format!("{:?}", arrived.headers).contains("hush"));
}

#[test]
fn retry_after_is_read_as_seconds_and_as_a_date() {
    let now = "2026-01-02T03:04:05Z".parse().unwrap();
    for (value, seconds) in [
        ("7", Some(7)),
        ("Fri, 02 Jan 2026 03:04:25 GMT", Some(20)),
        ("Fri, 02 Jan 2026 03:00:00 GMT", Some(0)),
        ("-7", None),
        ("soon", None),
    ] {
        assert_eq!(
            retry_after(value, now),
            seconds.map(Duration::from_secs),
            "{value}"
        );
    }
}

#[tokio::test]
async fn temporary_failures_are_retried_and_lasting_ones_are_not() {
    for (status, calls) in [(500, 2), (429, 2), (501, 1), (403, 1)] {
        let server = server(
            "/",
            ResponseTemplate::new(status).insert_header("Retry-After", "0"),
        )
        .await;
        let request = HttpRequest {
            retries: 1,
            ..get(server.uri())
        };
        let answer = Http::default().send(&request).await.unwrap();
        assert_eq!(answer.status, status);
        assert_eq!(
            server.received_requests().await.unwrap().len(),
            calls,
            "{status}"
        );
    }
}

#[tokio::test]
async fn an_error_shows_the_reason_as_flagger_does_and_not_the_address() {
    let answer = Http::default()
        .send(&get("http://127.0.0.1:1/hush".to_owned()))
        .await;
    let why = answer.unwrap_err().why;
    assert_eq!(why, "cannot connect: connection refused");
}

#[tokio::test]
async fn a_call_with_a_budget_is_sent_three_times_to_a_failing_or_busy_server_and_once_to_one_that_refuses()
 {
    for (status, calls) in [(500, 3), (503, 3), (429, 3), (400, 1), (403, 1), (200, 1)] {
        let server = server("/", ResponseTemplate::new(status)).await;
        let request = HttpRequest {
            retries: 2,
            budget: Some(Duration::from_secs(9)),
            ..get(server.uri())
        };
        let answer = Http::default().send(&request).await.unwrap();
        assert_eq!(answer.status, status);
        let arrived = server.received_requests().await.unwrap();
        assert_eq!(arrived.len(), calls, "{status}");
    }
}

#[tokio::test]
async fn a_busy_server_is_called_again_at_its_time_unless_the_budget_ends_before() {
    for (name, value, calls) in [
        ("Retry-After", "0", 3),
        ("X-RateLimit-Reset", "0", 3),
        ("X-RateLimit-Reset", "1", 3),
        ("Retry-After", "40", 1),
        ("X-RateLimit-Reset", "40", 1),
        ("X-RateLimit-Reset", "1577232000", 1),
        ("X-RateLimit-Reset", "18446744073709551615", 1),
    ] {
        let busy = ResponseTemplate::new(429).insert_header(name, value);
        let server = server("/", busy).await;
        let request = HttpRequest {
            retries: 2,
            budget: Some(Duration::from_secs(9)),
            ..get(server.uri())
        };
        let answer = Http::default().send(&request).await.unwrap();
        assert_eq!(answer.status, 429);
        let arrived = server.received_requests().await.unwrap();
        assert_eq!(arrived.len(), calls, "{name}: {value}");
    }
}

#[tokio::test]
async fn attempts_end_with_the_budget() {
    let server = server(
        "/",
        ResponseTemplate::new(200).set_delay(Duration::from_secs(60)),
    )
    .await;
    let request = HttpRequest {
        timeout: Duration::from_millis(1_500),
        retries: 2,
        budget: Some(Duration::from_secs(4)),
        ..get(server.uri())
    };
    let failure = Http::default().send(&request).await.unwrap_err();
    // 1.5 s, a pause of 1 s, and the remaining 1.5 s: there is no time for another pause.
    assert_eq!(failure.attempts, 2);
    assert_eq!(
        failure.why,
        "context deadline exceeded: no answer within 1.5 s"
    );
}

#[tokio::test]
async fn a_failure_says_how_many_attempts_were_made() {
    let nowhere = |retries| HttpRequest {
        retries,
        ..get("http://127.0.0.1:1/".to_owned())
    };
    let failure = Http::default().send(&nowhere(1)).await.unwrap_err();
    assert_eq!(failure.attempts, 2);
    let unknown = HttpRequest {
        url: Secret("ftp://127.0.0.1/".to_owned()),
        ..nowhere(5)
    };
    let failure = Http::default().send(&unknown).await.unwrap_err();
    assert_eq!(failure.attempts, 1, "another attempt would not help");
}

#[test]
fn a_bad_certificate_is_recognized() {
    let error = |text: &str| std::io::Error::other(text.to_owned());
    assert!(is_about_certificates(&error(
        "invalid peer certificate: UnknownIssuer"
    )));
    assert!(!is_about_certificates(&error("connection reset")));
}

/// An HTTPS server whose certificate nobody trusts.
async fn untrusted() -> HttpsServer {
    let answer = http::Response::new("hello".to_owned());
    HttpsServer::start(answer).await.unwrap()
}

#[tokio::test]
async fn a_server_whose_certificate_is_not_trusted_is_refused_at_once() {
    let server = untrusted().await;
    let request = HttpRequest {
        retries: 5,
        ..get(server.url.clone())
    };
    let failure = Http::default().send(&request).await.unwrap_err();
    assert!(
        failure.why.contains("invalid peer certificate"),
        "{}",
        failure.why
    );
    assert_eq!(failure.attempts, 1, "another attempt would not help");
}

#[tokio::test]
async fn any_certificate_is_accepted_for_the_requests_that_say_so_and_for_no_other() {
    let (server, http) = (untrusted().await, Http::default());
    let careless = HttpRequest {
        insecure_skip_verify: true,
        ..get(server.url.clone())
    };
    let answer = http.send(&careless).await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "hello"));
    assert!(http.send(&get(server.url.clone())).await.is_err());
}

#[tokio::test]
async fn a_call_goes_through_its_proxy() {
    let proxy = server("/path", ResponseTemplate::new(204)).await;
    let http = Http::default();
    let direct = get("http://chat.invalid/path".to_owned());
    let proxied = HttpRequest {
        proxy: Some(Secret(proxy.uri())),
        ..direct.clone()
    };
    assert_eq!(http.send(&proxied).await.unwrap().status, 204);
    let arrived = &proxy.received_requests().await.unwrap()[0];
    assert_eq!(arrived.headers["host"], "chat.invalid");
    assert!(http.send(&direct).await.is_err(), "no other call does");
}

#[tokio::test]
async fn method_headers_and_body_arrive_as_they_are() {
    let server = server("/", ResponseTemplate::new(201).set_body_string("created")).await;
    for (method, name, body) in [
        (Method::Get, "GET", None),
        (Method::Post, "POST", Some("{}")),
        (Method::Put, "PUT", Some("a=b")),
    ] {
        let request = HttpRequest {
            method,
            body: body.map(str::to_owned),
            ..get(server.uri())
        };
        let answer = Http::default().send(&request).await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (201, "created"));
        let arrived = server.received_requests().await.unwrap().pop().unwrap();
        assert_eq!(arrived.method.as_str(), name);
        assert_eq!(arrived.headers["authorization"], "Bearer hush");
        assert_eq!(arrived.body, body.unwrap_or_default().as_bytes());
    }
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect_from_https_to_http() {
    let plain = server("/", ResponseTemplate::new(200)).await;
    let answer = http::Response::builder().status(302);
    let answer = answer
        .header("location", plain.uri())
        .body(String::new())
        .unwrap();
    let first = HttpsServer::start(answer).await.unwrap();
    let request = HttpRequest {
        insecure_skip_verify: true,
        ..get(first.url.clone())
    };
    let answer = Http::default().send(&request).await.unwrap();
    assert_eq!(answer.status, 302);
    let public = HttpRequest {
        headers: Vec::new(),
        ..request
    };
    let answer = Http::default().send(&public).await.unwrap();
    assert_eq!(answer.status, 200, "without credentials it is followed");
    assert_eq!(plain.received_requests().await.unwrap().len(), 1);
}

#[tokio::test]
async fn endless_redirects_are_given_up() {
    let server = MockServer::start().await;
    let again = ResponseTemplate::new(302).insert_header("Location", server.uri());
    Mock::given(path("/"))
        .respond_with(again)
        .mount(&server)
        .await;
    let request = HttpRequest {
        retries: 5,
        ..get(server.uri())
    };
    let failure = Http::default().send(&request).await.unwrap_err();
    assert!(
        failure.why.starts_with("too many redirects"),
        "{}",
        failure.why
    );
    assert_eq!(failure.attempts, 1);
    assert_eq!(server.received_requests().await.unwrap().len(), 11);
}

#[tokio::test]
async fn the_calls_under_way_are_counted() {
    let metrics = crate::shell::telemetry::canary_metrics::CanaryMetrics::new().unwrap();
    let http = Http::new(metrics.operator_metrics().unwrap(), Destinations::default());
    let in_flight = |count: u8| {
        let line = format!("flagger_rs_answers_in_flight {count}\n");
        metrics.render().contains(&line)
    };
    let hanging = server(
        "/",
        ResponseTemplate::new(200).set_delay(Duration::from_secs(60)),
    )
    .await;
    let call = tokio::spawn({
        let request = get(hanging.uri());
        async move { http.send(&request).await }
    });
    while hanging.received_requests().await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(in_flight(1));
    call.abort();
    assert!(call.await.is_err());
    assert!(in_flight(0));
}

/// A server must not delay a step for long, because it would delay a rollback, too.
#[test]
fn a_pause_between_two_attempts_is_bounded_whatever_the_server_asks_for() {
    let asks = |status, seconds: Option<u64>| {
        let body = String::new();
        Ok(Answer {
            response: HttpResponse { status, body },
            place: None,
            retry_after: seconds.map(Duration::from_secs),
        })
    };
    let unreachable = || Err(AttemptError::temporary("cannot connect".to_owned()));
    let refused = || Err(AttemptError::lasting("not allowed".to_owned()));
    for (answer, attempts, without_budget, with_budget) in [
        (asks(429, Some(3600)), 1, Some(30_000), Some(3_600_000)),
        (asks(503, Some(31)), 1, Some(30_000), Some(31_000)),
        (asks(429, Some(7)), 1, Some(7000), Some(7000)),
        (asks(429, Some(0)), 1, Some(100), Some(100)),
        (asks(503, None), 1, Some(1000), Some(1000)),
        (asks(500, None), 3, Some(4000), Some(4000)),
        (unreachable(), 2, Some(2000), Some(2000)),
        (unreachable(), 8, Some(30_000), Some(32_000)),
        (unreachable(), 9, None, None),
        (refused(), 1, None, None),
        (asks(200, Some(5)), 1, None, None),
        (asks(403, Some(5)), 1, None, None),
    ] {
        for (budget, expected) in [
            (None, without_budget),
            (Some(Duration::from_secs(9)), with_budget),
        ] {
            let request = HttpRequest {
                retries: 8,
                budget,
                ..get("http://hooks/".to_owned())
            };
            let found = pause(&answer, &request, attempts);
            let expected = expected.map(Duration::from_millis);
            assert_eq!(found, expected, "{attempts} {budget:?}");
        }
    }
}
