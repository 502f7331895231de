//! The right to write, and the connections of whoever has it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use hyper::rt::Executor;
use kube::{Client, Config, client::ClientBuilder};
use tokio::{sync::watch, time::Instant};

/// The right to write; cheap to ask for, right before each write.
#[derive(Clone, Debug)]
pub struct Leadership {
    until: Option<watch::Receiver<Instant>>,
}

impl Leadership {
    /// Without an election everyone may write.
    pub const fn always() -> Self {
        Self { until: None }
    }

    /// Who only looks may never write.
    pub fn never() -> Self {
        let (_, until) = watch::channel(Instant::now());
        Self::until(until)
    }

    /// As long as a candidate says.
    pub const fn until(until: watch::Receiver<Instant>) -> Self {
        Self { until: Some(until) }
    }

    /// Whether a write may be sent now.
    pub fn may_write(&self) -> bool {
        self.until
            .as_ref()
            .is_none_or(|until| Instant::now() < *until.borrow())
    }

    /// A client whose connections end with this right. A process may stand still at any instant: what it handed to a connection by then
    /// is not sent after it, when another leads.
    ///
    /// # Errors
    /// Nobody can be asked with this configuration.
    pub fn client(&self, config: Config) -> kube::Result<Client> {
        ClientBuilder::try_from((config, Connections(self.clone()))).map(ClientBuilder::build)
    }
}

/// Where connections run.
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

    /// A frozen process goes on where it was.
    #[tokio::test]
    async fn what_was_handed_to_a_connection_is_not_sent_once_the_lease_is_lost() {
        let (asked, mut requests) = mpsc::unbounded_channel();
        let server =
            Router::new().fallback(async move || asked.send(()).map_err(|e| e.to_string()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, server).into_future());

        let (lease, right) = watch::channel(Instant::now() + Duration::from_secs(3600));
        let client = Leadership::until(right)
            .client(Config::new(url.parse().unwrap()))
            .unwrap();
        let ask = || client.request_text(http::Request::post("/").body(Vec::new()).unwrap());
        ask().await.unwrap();
        requests.recv().await.unwrap();
        let mut handed = pin!(ask());
        // To the client's queue; when that has passed it on, to a connection.
        assert!(poll!(&mut handed).is_pending());
        yield_now().await;
        assert!(poll!(&mut handed).is_pending());
        lease.send_replace(Instant::now());
        handed.await.unwrap_err();
        assert!(requests.try_recv().is_err());

        lease.send_replace(Instant::now() + Duration::from_secs(3600));
        ask().await.unwrap();
    }
}
