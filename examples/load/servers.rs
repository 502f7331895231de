//! What the operator calls: metrics that are good, or bad for one canary; chats and event webhooks that never answer.

use std::sync::{Arc, Mutex};

use axum::{Router, extract::Request, response::IntoResponse};
use serde_json::json;
use tokio::{net::TcpListener, time::Instant};

/// The servers, all behind one proxy.
#[derive(Clone, Default)]
pub struct Servers(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    /// The canary whose metrics are bad, and when that was first told.
    bad: Option<(String, Option<Instant>)>,
    hangs: bool,
}

impl Servers {
    /// Starts them; the proxy's address.
    pub async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let this = self.clone();
        let router = Router::new().fallback(move |request: Request| this.clone().answer(request));
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }

    /// From now on the metrics of this canary are bad, and chats hang.
    pub fn turn_bad(&self, canary: &str) {
        let mut seen = self.0.lock().unwrap();
        seen.bad = Some((canary.to_owned(), None));
        seen.hangs = true;
    }

    /// All is well again.
    pub fn mark_written(&self) {
        let mut seen = self.0.lock().unwrap();
        (seen.bad, seen.hangs) = (None, false);
    }

    /// When a bad metric was first told.
    pub fn told_bad(&self) -> Option<Instant> {
        self.0.lock().unwrap().bad.as_ref()?.1
    }

    async fn answer(self, request: Request) -> axum::response::Response {
        let host = request.uri().host().unwrap_or_default().to_owned();
        if host != "prometheus" {
            if self.0.lock().unwrap().hangs {
                return std::future::pending().await;
            }
            return "ok".into_response();
        }
        let query = request.uri().query().unwrap_or_default();
        let mut seen = self.0.lock().unwrap();
        let value = match &mut seen.bad {
            Some((canary, told)) if query.contains(canary.as_str()) => {
                told.get_or_insert_with(Instant::now);
                "1"
            }
            _ => "100",
        };
        json!({"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [0, value]}]}})
            .to_string()
            .into_response()
    }
}
