//! The HTTP server of the operator and of the load tester. Slow, idle and numerous clients take little memory, and delay no probe.
//!
//! A client has a limited time for its request and for the answer, and a connection serves one request. If all places are taken, the client
//! that has kept its place the longest loses it to the next one. If the server needs a long time for an answer, the request keeps its place
//! with [`ClientClock::pause`].

use std::{
    collections::HashMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    time::Duration,
};

use axum::{Router, body::Body, serve::Listener};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, Id, JoinSet, yield_now},
    time::{Instant, timeout, timeout_at},
};
use tower::ServiceExt;

/// The longest time that a client may take to send the head of its request.
const HEAD: Duration = Duration::from_secs(10);
/// The maximum number of bytes of a head, and of one read of a body.
const BUFFER: usize = 16 << 10;

/// The limits of a server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The maximum number of connections at the same time.
    pub connections: usize,
    /// The longest time that a client may take to send its request, and then to read the answer.
    pub client: Duration,
    /// The longest time that requests under way may take to finish after the server was stopped.
    pub grace: Duration,
}

/// The time that a client has left. A request carries it as an extension. Clones share it.
#[derive(Clone, Debug)]
pub struct ClientClock {
    limit: Duration,
    /// When the client's time ends; `None` while the client waits for this server.
    end: watch::Sender<Option<Instant>>,
}

impl ClientClock {
    fn start(limit: Duration) -> Self {
        Self {
            limit,
            end: watch::Sender::new(Some(Instant::now() + limit)),
        }
    }

    /// Stops the clock until the returned value is dropped, because the client waits for this server. Meanwhile no other connection can
    /// take the place of this one.
    pub fn pause(self) -> PausedClock {
        self.end.send_replace(None);
        PausedClock(self)
    }

    /// Waits until the client's time is over.
    async fn expired(self) {
        let mut changes = self.end.subscribe();
        loop {
            let end = *changes.borrow_and_update();
            let changed = changes.changed();
            let changed = match end {
                Some(end) => timeout_at(end, changed).await,
                None => Ok(changed.await),
            };
            if changed.is_err() {
                return;
            }
        }
    }
}

/// The address of the client. A request carries it as an extension.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// While this value exists, a client's clock is stopped. When it is dropped, the client has its full time to read the answer.
#[must_use]
pub struct PausedClock(ClientClock);

impl Drop for PausedClock {
    fn drop(&mut self) {
        let end = Instant::now() + self.0.limit;
        self.0.end.send_replace(Some(end));
    }
}

/// Listens on a port, on IPv6 and IPv4 where the machine has both.
pub async fn listen(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await,
    }
}

/// Serves until `stop` completes.
pub async fn serve(
    mut listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    let (stopping, stopped) = watch::channel(false);
    let mut connections = Connections::default();
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            () = connections.one_ended() => {}
            // After an error, for example for lack of file descriptors, this waits for a second.
            (stream, _) = Listener::accept(&mut listener) => {
                if connections.make_room(limits.connections).await {
                    let clock = ClientClock::start(limits.client);
                    let exchange = exchange(stream, router.clone(), clock.clone(), stopped.clone());
                    connections.add(clock, exchange);
                    // Let the connection answer a request that has already arrived, before the next connections can take its place.
                    yield_now().await;
                }
            }
        }
    }
    drop(listener);
    stopping.send_replace(true);
    let _ = timeout(limits.grace, connections.all_ended()).await;
}

/// The open connections.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    open: HashMap<Id, Connection>,
    accepted: u64,
}

struct Connection {
    /// The number of the connection, in the order of acceptance.
    number: u64,
    clock: ClientClock,
    task: AbortHandle,
}

impl Connections {
    fn add(&mut self, clock: ClientClock, exchange: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(exchange);
        self.accepted += 1;
        let connection = Connection {
            number: self.accepted,
            clock,
            task,
        };
        self.open.insert(connection.task.id(), connection);
    }

    /// Returns whether there is room for another connection. If there is none, first closes the connection whose client has had the most
    /// time.
    async fn make_room(&mut self, most: usize) -> bool {
        if self.open.len() < most {
            return true;
        }
        let slow = self.open.values().filter_map(|connection| {
            let end = *connection.clock.end.borrow();
            Some((end?, connection))
        });
        let slowest = slow.min_by_key(|(end, connection)| (*end, connection.number));
        let Some((_, slowest)) = slowest else {
            return false;
        };
        slowest.task.abort();
        self.one_ended().await;
        true
    }

    /// Waits until a connection has ended; forever if there is none.
    async fn one_ended(&mut self) {
        let id = match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => id,
            Some(Err(error)) => error.id(),
            None => std::future::pending().await,
        };
        self.open.remove(&id);
    }

    async fn all_ended(&mut self) {
        while !self.open.is_empty() {
            self.one_ended().await;
        }
    }
}

/// Serves one connection. Errors are ignored, because the client causes them.
async fn exchange(
    stream: TcpStream,
    router: Router,
    clock: ClientClock,
    stopped: watch::Receiver<bool>,
) {
    let expired = clock.clone().expired();
    let peer = stream.peer_addr().ok().map(Peer);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(clock.clone());
        peer.map(|peer| request.extensions_mut().insert(peer));
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        // If the server closed an idle connection just when the client sends its next request, the client would count that as a failure.
        .keep_alive(false)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let (mut connection, mut expired) = (pin!(connection), pin!(expired));
    let mut stopping = pin!(stopping(stopped));
    let mut is_stopping = false;
    loop {
        tokio::select! {
            _ = connection.as_mut() => return,
            () = &mut expired => return,
            () = &mut stopping, if !is_stopping => {
                connection.as_mut().graceful_shutdown();
                is_stopping = true;
            }
        }
    }
}

/// Waits until the server is stopped. The wait also ends when the server was dropped, because its connections are dropped with it.
async fn stopping(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

#[cfg(test)]
mod tests;
