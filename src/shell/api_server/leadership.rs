//! The right to write, and connections that end with it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use hyper::rt::Executor;
use kube::{Client, Config, client::ClientBuilder};
use tokio::{sync::watch, time::Instant};

use super::time::keep_time;

/// The right to write. It is checked right before each write.
#[derive(Clone, Debug)]
pub struct Leadership {
    until: Option<watch::Receiver<Instant>>,
}

impl Leadership {
    /// Without a leader election, this process may always write.
    pub const fn always() -> Self {
        Self { until: None }
    }

    /// A process that only reads may never write.
    pub fn never() -> Self {
        let (_, until) = watch::channel(Instant::now());
        Self::until(until)
    }

    /// The right lasts until the instant in this channel. A candidate moves that instant forward.
    pub const fn until(until: watch::Receiver<Instant>) -> Self {
        Self { until: Some(until) }
    }

    /// Whether a write may be sent now.
    pub fn may_write(&self) -> bool {
        self.until
            .as_ref()
            .is_none_or(|until| Instant::now() < *until.borrow())
    }

    /// Returns a client whose connections end with this right. The system may suspend a process at any instant. A request that the process
    /// has handed to a connection before must not be sent when the process continues and another process leads.
    ///
    /// # Errors
    /// The configuration has no usable TLS or authentication.
    pub(super) fn client(&self, config: Config) -> kube::Result<Client> {
        let builder = ClientBuilder::try_from((config, Connections(self.clone())))?;
        Ok(builder.with_layer(&keep_time()).build())
    }
}

/// Runs connections while the right lasts.
#[derive(Clone)]
struct Connections(Leadership);

impl<F: Future<Output = ()> + Send + Unpin + 'static> Executor<F> for Connections {
    fn execute(&self, connection: F) {
        let right = self.0.clone();
        tokio::spawn(WhileLeading { right, connection });
    }
}

struct WhileLeading<F> {
    right: Leadership,
    connection: F,
}

impl<F: Future<Output = ()> + Unpin> Future for WhileLeading<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.right.may_write() {
            Pin::new(&mut self.connection).poll(context)
        } else {
            Poll::Ready(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, time::Duration};

    use axum::Router;
    use futures::poll;
    use tokio::{net::TcpListener, sync::mpsc, task::yield_now};

    use super::*;

    /// A process that was suspended continues where it stopped.
    #[tokio::test]
    async fn a_request_that_a_connection_holds_is_not_sent_once_the_lease_is_lost() {
        let (arrived, mut requests) = mpsc::unbounded_channel();
        let server =
            Router::new().fallback(async move || arrived.send(()).map_err(|e| e.to_string()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, server).into_future());

        let (lease, right) = watch::channel(Instant::now() + Duration::from_secs(3600));
        let client = Leadership::until(right)
            .client(Config::new(url.parse().unwrap()))
            .unwrap();
        let send = || client.request_text(http::Request::post("/").body(Vec::new()).unwrap());
        send().await.unwrap();
        requests.recv().await.unwrap();
        let mut pending = pin!(send());
        // The first poll puts the request into the client's queue; from there it passes to a connection.
        assert!(poll!(&mut pending).is_pending());
        yield_now().await;
        assert!(poll!(&mut pending).is_pending());
        lease.send_replace(Instant::now());
        pending.await.unwrap_err();
        assert!(requests.try_recv().is_err());

        lease.send_replace(Instant::now() + Duration::from_secs(3600));
        send().await.unwrap();
    }
}
