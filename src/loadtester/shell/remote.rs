//! Asks other servers to put load on a version, and waits until they have.

use tokio::{fs, time::sleep};
use tracing::{debug, info, warn};

use crate::{
    loadtester::{Progress, concord, ngrinder},
    shell::outside::http::Http,
    snapshot::HttpRequest,
};

/// Runs a process of Concord to its end.
pub async fn concord(http: &Http, job: &concord::Job, canary: &str) -> Result<(), String> {
    let key = fs::read_to_string(&job.key_path)
        .await
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                format!("`apiKeyPath` file doesn't exist {}", job.key_path)
            }
            _ => format!("`apiKeyPath` file cannot be read {}: {error}", job.key_path),
        })?;
    let instance = concord::instance(&body(http, job.start(&key)).await?)?;
    info!(canary, "created process id [{instance}]");
    if job.interval > job.patience {
        sleep(job.patience).await;
        let seconds = job.patience.as_secs();
        return Err(format!(
            "concord process timed out, after {seconds} seconds"
        ));
    }
    loop {
        sleep(job.interval).await;
        let status = body(http, job.ask(&instance, &key)).await;
        let status = status.map_err(|why| format!("failed checking status: {why}"))?;
        match concord::progress(&instance, &status)? {
            Progress::Running => debug!(canary, "process id [{instance}] is running"),
            Progress::Finished => return Ok(()),
            Progress::Failed(why) => return Err(why),
        }
    }
}

/// Runs a test of nGrinder to its end, or stops it there when time is up here.
pub async fn ngrinder(
    http: &Http,
    job: &ngrinder::Job,
    canary: &str,
    up: impl Future<Output = String>,
) -> Result<(), String> {
    let start = async {
        let id = body(http, job.start())
            .await
            .and_then(|body| ngrinder::started(&body));
        id.map_err(|why| {
            format!(
                "failed to clone and start ngrinder test {}: {why}",
                job.clone
            )
        })
    };
    tokio::pin!(up);
    let id = tokio::select! {
        id = start => id?,
        why = &mut up => return Err(why),
    };
    tokio::select! {
        ended = ended(http, job, canary, id) => ended,
        why = up => {
            warn!(canary, "{why}: stopping ngrinder task {id}");
            match body(http, job.stop(id)).await {
                Ok(_) => Err(why),
                Err(stop) => Err(format!("{why}; ngrinder task {id} could not be stopped: {stop}")),
            }
        }
    }
}

async fn ended(http: &Http, job: &ngrinder::Job, canary: &str, id: i64) -> Result<(), String> {
    loop {
        sleep(job.interval).await;
        let status = body(http, job.ask(id)).await;
        match status.and_then(|body| ngrinder::progress(&body)) {
            Ok(Progress::Running) => debug!(canary, "ngrinder task {id} is running"),
            Ok(Progress::Finished) => return Ok(()),
            Ok(Progress::Failed(why)) => return Err(why),
            // As in Flagger, one question without an answer is no end.
            Err(why) => warn!(canary, "status of ngrinder task {id}: {why}"),
        }
    }
}

/// The body of an answer, whatever its status: both servers say in it what is wrong.
async fn body(http: &Http, request: Result<HttpRequest, String>) -> Result<String, String> {
    let answer = http.send(&request?).await;
    answer
        .map(|answer| answer.body)
        .map_err(|failure| failure.why)
}
