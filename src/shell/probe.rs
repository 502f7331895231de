//! The probe of manifests, for images without another: called by the name `wget`, this is all that a binary of ours does.

use std::{process::ExitCode, time::Duration};

use super::http::Http;
use crate::snapshot::{HttpRequest, Method, Secret};

/// Flagger's own manifests probe with `wget … --spider URL`: if this process was called by that name, how that ended.
pub fn called_as_wget() -> Option<ExitCode> {
    let called = std::env::args().next()?;
    called.ends_with("wget").then(probe)
}

#[tokio::main(flavor = "current_thread")]
async fn probe() -> ExitCode {
    let Some(url) = std::env::args()
        .next_back()
        .filter(|url| url.starts_with("http"))
    else {
        return ExitCode::FAILURE;
    };
    let request = HttpRequest {
        method: Method::Get,
        url: Secret(url),
        headers: Vec::new(),
        body: None,
        timeout: Duration::from_secs(2),
        retries: 0,
        budget: None,
        proxy: None,
        insecure_skip_verify: false,
    };
    match Http::default().send(&request).await {
        Ok(response) if response.status < 400 => ExitCode::SUCCESS,
        Ok(_) | Err(_) => ExitCode::FAILURE,
    }
}
