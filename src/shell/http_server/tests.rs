//! Tests with sockets on loopback. The clock is paused, and tokio moves it on when no task can run. Tokio would also move it on while the
//! kernel still carries bytes from one socket to the other, so exchanges that take no time are made with [`at_once`].

use std::sync::{Arc, mpsc};

use axum::{Extension, body::Bytes, routing::get};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Semaphore, oneshot},
    task::{JoinHandle, spawn_blocking},
    time::sleep,
};

use super::*;

const LIMITS: Limits = Limits {
    connections: 8,
    client: Duration::from_secs(60),
    grace: Duration::from_secs(3),
};
const HUGE: usize = 64 << 20;

/// A server with a probe, an answer that is too long for any buffer, and a task that takes long.
struct Server {
    port: u16,
    /// Tasks end as permits are added.
    ends: Arc<Semaphore>,
    begun: Arc<Semaphore>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let listener = listen(0).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (ends, begun) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (task_ends, task_begun) = (ends.clone(), begun.clone());
        let task = move |Extension(clock): Extension<ClientClock>| async move {
            let _paused = clock.pause();
            task_begun.add_permits(1);
            task_ends.acquire().await.unwrap().forget();
            "done"
        };
        let router = Router::new()
            .route("/healthz", get(async || "OK"))
            .route("/huge", get(async || Bytes::from(vec![b'x'; HUGE])))
            .route("/task", get(task));
        let (stop, stopped) = oneshot::channel();
        let stopped = async { drop(stopped.await) };
        Self {
            port,
            ends,
            begun,
            stop: Some(stop),
            serving: tokio::spawn(serve(listener, router, LIMITS, stopped)),
        }
    }

    /// Begins as many tasks. Returns their connections.
    async fn tasks(&self, count: usize) -> Vec<TcpStream> {
        at_once(async {
            let mut tasks = Vec::new();
            for _ in 0..count {
                tasks.push(self.request("/task").await);
            }
            let all = u32::try_from(count).unwrap();
            self.begun.acquire_many(all).await.unwrap().forget();
            tasks
        })
        .await
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))
            .await
            .unwrap()
    }

    /// Sends a request, and leaves the answer unread.
    async fn request(&self, path: &str) -> TcpStream {
        let mut stream = self.connect().await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    async fn probe(&self) -> String {
        at_once(async { text(self.request("/healthz").await).await }).await
    }

    /// Starts a client that sends a byte of a header each second until the server closes its connection.
    fn dribble(&self) -> JoinHandle<Duration> {
        let port = self.port;
        tokio::spawn(async move {
            let start = Instant::now();
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
                .await
                .unwrap();
            // The server may close the connection before it has read all.
            let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nA: ").await;
            let (mut answer, mut request) = stream.into_split();
            let closed = async { while answer.read(&mut [0; 512]).await.is_ok_and(|n| n > 0) {} };
            let sending = async {
                loop {
                    sleep(Duration::from_secs(1)).await;
                    let _ = request.write_all(b"a").await;
                }
            };
            tokio::select! {
                () = closed => start.elapsed(),
                () = sending => Duration::MAX,
            }
        })
    }
}

/// Waits for an exchange of bytes while the clock stands still: tokio does not move it on while a blocking task runs. After 20 seconds the
/// clock moves on again, so that an exchange that hangs ends, and an assertion on its result or on the clock fails.
async fn at_once<T>(exchange: impl Future<Output = T>) -> T {
    let (end, ended) = mpsc::channel::<()>();
    let standing = spawn_blocking(move || {
        let _ = ended.recv_timeout(Duration::from_secs(20));
    });
    let result = exchange.await;
    drop(end);
    standing.await.unwrap();
    result
}

async fn text(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    // A connection that is closed before its request was read is reset.
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8(text).unwrap()
}

fn is_answer(text: &str, body: &str) -> bool {
    text.starts_with("HTTP/1.1 200") && text.ends_with(&format!("\r\n\r\n{body}"))
}

#[tokio::test(start_paused = true)]
async fn a_client_that_dribbles_its_header_is_cut_off_after_ten_seconds() {
    let server = Server::start().await;
    let lasted = server.dribble().await.unwrap();
    assert!(
        lasted >= HEAD && lasted < HEAD + Duration::from_secs(2),
        "{lasted:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_nothing_is_cut_off_after_ten_seconds() {
    let server = Server::start().await;
    let start = Instant::now();
    text(server.connect().await).await;
    assert!(start.elapsed() >= HEAD && start.elapsed() < 2 * HEAD);
}

#[tokio::test(start_paused = true)]
async fn a_probe_is_answered_and_the_cap_holds_while_a_hundred_clients_dribble() {
    let server = Server::start().await;
    let start = Instant::now();
    let mut dribbling = JoinSet::new();
    for n in 1..=100 {
        let client = server.dribble();
        dribbling.spawn(client);
        if n % LIMITS.connections == 0 {
            assert!(is_answer(&server.probe().await, "OK"));
        }
    }
    // The server closed the connections beyond the limit at once. The other clients continue to send.
    for _ in LIMITS.connections..100 {
        at_once(dribbling.join_next()).await;
    }
    assert!(start.elapsed() < HEAD / 2, "they were closed to make room");
    let left = timeout(HEAD / 2, dribbling.join_next()).await;
    assert!(left.is_err(), "the cap is lower than it should be");
    assert!(is_answer(&server.probe().await, "OK"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_its_answer_is_cut_off() {
    let server = Server::start().await;
    let begun = at_once(async {
        let mut stream = server.request("/huge").await;
        stream.read_u8().await.unwrap();
        stream
    });
    let stream = begun.await;
    sleep(2 * LIMITS.client).await;
    let read = at_once(text(stream)).await.len();
    assert!(read < HUGE, "the connection is still open");
    // A client that reads gets the complete answer.
    let read = at_once(async { text(server.request("/huge").await).await });
    assert!(read.await.len() > HUGE);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_takes_long_keeps_its_place_and_a_connection_without_room_is_closed_at_once()
{
    let server = Server::start().await;
    let tasks = server.tasks(LIMITS.connections).await;
    sleep(10 * LIMITS.client).await;
    let start = Instant::now();
    assert_eq!(server.probe().await, "");
    assert_eq!(start.elapsed(), Duration::ZERO, "it is closed at once");

    server.ends.add_permits(1);
    // Any of the tasks may have ended.
    while !is_answer(&server.probe().await, "OK") {
        assert!(start.elapsed() < LIMITS.client);
        tokio::task::yield_now().await;
    }
    server.ends.add_permits(LIMITS.connections);
    for task in tasks {
        assert!(is_answer(&text(task).await, "done"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_closed_after_its_answer() {
    let server = Server::start().await;
    let start = Instant::now();
    assert!(server.probe().await.contains("connection: close"));
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_header_that_is_too_long_is_refused() {
    let server = Server::start().await;
    let mut stream = server.connect().await;
    let request = format!("GET /healthz HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(BUFFER));
    let _ = stream.write_all(request.as_bytes()).await;
    let answer = at_once(text(stream)).await;
    assert!(!answer.contains("200"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn requests_under_way_are_answered_after_the_stop_and_do_not_delay_it_for_ever() {
    let mut server = Server::start().await;
    let incomplete = server.dribble();
    let tasks = server.tasks(2).await;
    let start = Instant::now();
    server.stop.take().unwrap().send(()).unwrap();
    tokio::task::yield_now().await;
    server.ends.add_permits(1);
    timeout(2 * LIMITS.grace, &mut server.serving)
        .await
        .expect("it ends after the grace")
        .unwrap();
    assert_eq!(start.elapsed(), LIMITS.grace);
    incomplete.await.unwrap();
    let mut texts = Vec::new();
    for task in tasks {
        texts.push(text(task).await);
    }
    assert!(texts.iter().any(|text| is_answer(text, "done")));
    assert!(texts.iter().any(String::is_empty));
}
