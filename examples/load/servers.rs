//! The servers that the operator calls. Metrics are good, or bad for one canary. Chats and event webhooks answer, or never answer.

use std::sync::{Arc, Mutex};

use axum::{Router, extract::Request, response::IntoResponse};
use serde_json::json;
use tokio::{net::TcpListener, time::Instant};

/// The servers, all behind one HTTP proxy.
#[derive(Clone, Default)]
pub struct Servers(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The canary whose metrics are bad, and when a query first returned a bad value.
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

    /// From now on the metrics of this canary are bad, and chats never answer.
    pub fn turn_bad(&self, canary: &str) {
        let mut state = self.0.lock().unwrap();
        state.bad = Some((canary.to_owned(), None));
        state.chats_hang = true;
    }

    /// From now on metrics are good, and chats answer.
    pub fn turn_good(&self) {
        let mut state = self.0.lock().unwrap();
        (state.bad, state.chats_hang) = (None, false);
    }

    /// When a query first returned a bad value. `None` if none has.
    pub fn first_bad_answer(&self) -> Option<Instant> {
        self.0.lock().unwrap().bad.as_ref()?.1
    }

    async fn answer(self, request: Request) -> axum::response::Response {
        let host = request.uri().host().unwrap_or_default().to_owned();
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
