//! The health probe of manifests, for images without `wget`. A binary that is started under the name `wget` only sends this probe.

use std::{process::ExitCode, time::Duration};

use super::http::Http;
use crate::snapshot::{HttpRequest, Method, Origin, Secret};

/// Flagger's manifests probe with `wget … --spider URL`. If this process was started under that name, sends the probe and returns its
/// exit code; otherwise returns `None`.
pub fn called_as_wget() -> Option<ExitCode> {
    let program = std::env::args().next()?;
    program.ends_with("wget").then(probe)
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
        origin: Origin::User,
    };
    match Http::default().send(&request).await {
        Ok(response) if response.status < 400 => ExitCode::SUCCESS,
        Ok(_) | Err(_) => ExitCode::FAILURE,
    }
}
