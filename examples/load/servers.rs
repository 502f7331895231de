//! The servers that the operator calls. Metrics are good, or bad for one canary. Chats and event webhooks answer, or never answer.

use std::sync::{Arc, LazyLock, Mutex};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    response::IntoResponse,
};
use futures::{StreamExt, stream};
use serde_json::json;
use tokio::{
    net::TcpListener,
    time::{Duration, Instant, sleep},
};

/// The servers, all behind one HTTP proxy.
#[derive(Clone, Default)]
pub struct Servers(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The canary whose metrics are bad, and the instant at which a query first returned a bad value.
    bad: Option<(String, Option<Instant>)>,
    chats_hang: bool,
}

impl Servers {
    /// Starts the servers. Returns the URL of their proxy.
    pub async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let this = self.clone();
        let router = Router::new().fallback(move |request: Request| this.clone().answer(request));
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }

    /// Makes the metrics of this canary bad, and makes chats never answer.
    pub fn turn_bad(&self, canary: &str) {
        let mut state = self.0.lock().unwrap();
        state.bad = Some((canary.to_owned(), None));
        state.chats_hang = true;
    }

    /// Makes chats never answer.
    pub fn hang_chats(&self) {
        self.0.lock().unwrap().chats_hang = true;
    }

    /// Makes metrics good, and makes chats answer.
    pub fn turn_good(&self) {
        let mut state = self.0.lock().unwrap();
        (state.bad, state.chats_hang) = (None, false);
    }

    /// The instant at which a query first returned a bad value; `None` if none has.
    pub fn first_bad_answer(&self) -> Option<Instant> {
        self.0.lock().unwrap().bad.as_ref()?.1
    }

    async fn answer(self, request: Request) -> axum::response::Response {
        let host = request.uri().host().unwrap_or_default().to_owned();
        if let Some(number) = host.strip_prefix("app-hostile-") {
            return hostile(number.parse().unwrap_or(0)).await;
        }
        if host != "prometheus" {
            if self.0.lock().unwrap().chats_hang {
                return std::future::pending().await;
            }
            return "ok".into_response();
        }
        let query = request.uri().query().unwrap_or_default();
        let mut state = self.0.lock().unwrap();
        let value = match &mut state.bad {
            Some((canary, first)) if query.contains(canary.as_str()) => {
                first.get_or_insert_with(Instant::now);
                "1"
            }
            _ => "100",
        };
        json!({"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [0, value]}]}})
            .to_string()
            .into_response()
    }
}

/// The answer of the n-th hostile server: 1 MiB, none, or a byte a second.
async fn hostile(n: usize) -> axum::response::Response {
    /// As many samples as fit into 1 MiB, the parser's worst case.
    static LARGE: LazyLock<Bytes> = LazyLock::new(|| {
        let samples = vec!["{}"; 349_000].join(",");
        format!(r#"{{"data":{{"result":[{samples}]}}}}"#).into()
    });
    match n % 3 {
        0 => LARGE.clone().into_response(),
        1 => std::future::pending().await,
        _ => {
            let drops = stream::repeat(()).then(async |()| {
                sleep(Duration::from_secs(1)).await;
                Ok::<_, std::io::Error>(Bytes::from_static(b" "))
            });
            // Enough to be a large answer at once.
            let begin = stream::once(async { Ok(LARGE.slice(..20 << 10)) });
            Body::from_stream(begin.chain(drops)).into_response()
        }
    }
}
