//! The text of `/metrics`, rendered at most once a second, however many clients ask for it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    body::Bytes,
    http::header,
    response::{IntoResponse, Response},
};
use tokio::time::sleep;

use crate::shell::lock::lock;

/// How long a rendered text is served.
const FRESH: Duration = Duration::from_secs(1);

/// A page of metrics in the text format of Prometheus. Clones share the text.
#[derive(Clone)]
pub struct MetricsPage {
    render: Arc<dyn Fn() -> String + Send + Sync>,
    fresh: Arc<Mutex<Option<Bytes>>>,
}

impl MetricsPage {
    /// A page with the text that `render` returns.
    pub fn new(render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self {
            render: Arc::new(render),
            fresh: Arc::default(),
        }
    }

    /// Answers a scrape.
    pub fn response(&self) -> Response {
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        ([(header::CONTENT_TYPE, kind)], self.text()).into_response()
    }

    fn text(&self) -> Bytes {
        let mut fresh = lock(&self.fresh);
        if let Some(text) = &*fresh {
            return text.clone();
        }
        let text = Bytes::from((self.render)());
        *fresh = Some(text.clone());
        // Drop the text when it is outdated, so that it takes no memory until the next scrape.
        let outdated = self.fresh.clone();
        tokio::spawn(async move {
            sleep(FRESH).await;
            *lock(&outdated) = None;
        });
        text
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn scrapes_within_a_second_are_rendered_once_and_the_text_is_dropped_afterwards() {
        let rendered = Arc::new(AtomicUsize::new(0));
        let counted = rendered.clone();
        let page = MetricsPage::new(move || counted.fetch_add(1, Ordering::Relaxed).to_string());
        for expected in ["0", "1"] {
            let texts: Vec<_> = (0..100).map(|_| page.clone().text()).collect();
            assert!(texts.iter().all(|text| text == expected));
            sleep(FRESH * 2).await;
            assert!(lock(&page.fresh).is_none(), "the text still takes memory");
        }
        assert_eq!(rendered.load(Ordering::Relaxed), 2);
    }
}
