//! Open pages: what they receive, and what they cost.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::{net::TcpSocket, time::timeout_at};

use super::*;

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
fn served(fleet: &Fleet) -> (SocketAddr, Arc<Dashboard>) {
    let server = FakeApiServer::answering(api_server);
    served_by(fleet, &server, Auth::None)
}

/// A dashboard behind this API server. With `Auth::Headers`, this machine is the proxy.
fn served_by(fleet: &Fleet, server: &FakeApiServer, auth: Auth) -> (SocketAddr, Arc<Dashboard>) {
    let publishes = fleet.clone();
    tokio::spawn(async move { publishes.publish().await });
    let typed = Typed::new("flagger", &[]);
    let contents = Contents::new(fleet.clone(), typed);
    let policy = Policy::new(true, None, &[]).unwrap();
    let dashboard = Arc::new(Dashboard::new(
        gate(server, auth, &["127.0.0.1"]),
        contents,
        policy,
    ));
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
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

async fn open(address: SocketAddr, path: &str, more: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// The text that arrives until it contains `end`. Heartbeats arrive for as long as the page is open, so this has an end, too.
async fn until(stream: &mut TcpStream, end: &str) -> String {
    let (mut text, mut buffer) = (String::new(), vec![0; 1 << 16]);
    let deadline = Instant::now() + Duration::from_mins(20);
    while !text.contains(end) {
        let read = timeout_at(deadline, stream.read(&mut buffer)).await;
        let read = read
            .unwrap_or_else(|_| panic!("no {end} in {}", &text[text.len().saturating_sub(2000)..]));
        let read = read.unwrap();
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
    let (address, _dashboard) = served(&fleet);
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
    let (address, dashboard) = served(&fleet);
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
    let (address, _dashboard) = served(&fleet);
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

/// The headers of the n-th of these users, whom a proxy names.
fn user(number: usize) -> String {
    format!("X-Forwarded-User: user-{number}\r\n")
}

/// Rendering a list takes thousands of times as long as sending it to one more page.
#[tokio::test]
async fn two_hundred_pages_share_each_list_that_is_rendered() {
    let fleet = Fleet::default();
    for number in 0..50 {
        set(&fleet, &format!("c{number}"), 10);
    }
    let server = FakeApiServer::answering(api_server);
    let (address, dashboard) = served_by(&fleet, &server, Auth::Headers);
    let mut pages = Vec::new();
    for number in 0..200 {
        let mut page = open(address, "/events?of=/", &user(number / 20)).await;
        until(&mut page, "10 %").await;
        pages.push(page);
    }
    let (versions, rendered) = (
        *fleet.changes().borrow(),
        dashboard.contents.rendered.load(Relaxed),
    );
    for weight in 11..=30 {
        for number in 0..50 {
            set(&fleet, &format!("c{number}"), weight);
        }
    }
    for page in &mut pages {
        until(page, "30 %").await;
    }
    let versions = *fleet.changes().borrow() - versions;
    let rendered = dashboard.contents.rendered.load(Relaxed) - rendered;
    assert!(
        (1..=2).contains(&versions),
        "{versions} versions of 1,000 changes"
    );
    assert!(
        rendered as u64 <= versions + 1,
        "{rendered} lists of {versions} versions"
    );
}

/// No change of a canary would report it, and no page asks the API server for it.
#[tokio::test(start_paused = true)]
async fn open_pages_report_an_operator_that_gives_no_sign() {
    let fleet = Fleet::default();
    let mut running = canary("podinfo", 10);
    running["status"]["lastTransitionTime"] = json!(clock::now().to_string());
    let row = Arc::new(Row::of(running, clock::now()));
    fleet.change(|rows| drop(rows.insert(("shop".to_owned(), "podinfo".to_owned()), row)));
    let server = FakeApiServer::answering(api_server);
    let (address, _dashboard) = served_by(&fleet, &server, Auth::None);
    let mut list = open(address, "/events?of=/", "").await;
    let first = until(&mut list, "10 %").await;
    assert!(!first.contains("There is no sign"), "{first}");
    let mut setup = open(address, "/events?of=/setup", "").await;
    let first = until(&mut setup, "no run is overdue").await;
    assert!(!first.contains("there is no sign"), "{first}");
    let begun = Instant::now();
    until(&mut list, "There is no sign of the operator since").await;
    until(&mut setup, "there is no sign of the operator: shop/podinfo").await;
    let minutes = usize::try_from(begun.elapsed().as_secs() / 60).unwrap();
    let requests = server.take().len();
    assert!(
        minutes >= 10 && requests <= 12 * (minutes + 1),
        "{requests} in {minutes} minutes"
    );
    // The operator is back.
    set(&fleet, "podinfo", 20);
    let back = until(&mut list, "20 %").await;
    assert!(!back.contains("There is no sign"), "{back}");
}

/// A client of the test below that reads, and counts itself when it has seen the last change.
async fn reads(mut page: TcpStream, seen: Arc<AtomicUsize>) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = page.read(&mut buffer).await.unwrap_or(0);
        assert!(read > 0, "one that reads was dropped");
        if String::from_utf8_lossy(&buffer[..read]).contains("77 %") {
            seen.fetch_add(1, Relaxed);
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_five_hundred_pages_those_that_do_not_read_are_dropped_and_the_others_go_on() {
    const PAGES: usize = 500;
    const SLOW: usize = 20;
    let fleet = Fleet::default();
    for number in 0..20 {
        set(&fleet, &format!("c{number}"), 10);
    }
    let server = FakeApiServer::answering(api_server);
    let (address, dashboard) = served_by(&fleet, &server, Auth::Headers);
    let seen = Arc::new(AtomicUsize::new(0));
    let mut slow = Vec::new();
    for number in 0..PAGES {
        if number >= SLOW {
            let page = open(address, "/events?of=/", &user(number / 20)).await;
            tokio::spawn(reads(page, seen.clone()));
            continue;
        }
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut page = socket.connect(address).await.unwrap();
        let request = format!(
            "GET /events?of=/ HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
            user(100)
        );
        page.write_all(request.as_bytes()).await.unwrap();
        slow.push(page);
    }
    let mut rounds = 0;
    while dashboard.free_streams() != STREAMS - (PAGES - SLOW) {
        rounds += 1;
        assert!(rounds < 200, "{} free", dashboard.free_streams());
        set(&fleet, "c0", 10 + rounds % 2);
        sleep(Duration::from_secs(1)).await;
    }
    assert!(rounds > 1, "the slow ones were served at first");
    set(&fleet, "c0", 77);
    while seen.load(Relaxed) < PAGES - SLOW {
        sleep(Duration::from_secs(1)).await;
    }
    // The system kept little for the slow ones.
    for mut page in slow {
        let mut kept = 0;
        let mut buffer = vec![0; 1 << 16];
        while let Ok(read @ 1..) = page.read(&mut buffer).await {
            kept += read;
        }
        assert!(
            (1..1_000_000).contains(&kept),
            "{kept} bytes for one client"
        );
    }
}
