//! Starts tasks on other load test servers and polls them until they end.

use tokio::{fs, time::sleep};
use tracing::{debug, info, warn};

use crate::{
    loadtester::{
        Progress,
        concord::{self, ConcordError},
        ngrinder,
    },
    shell::outside::http::Http,
    snapshot::HttpRequest,
};

/// Runs a process on a Concord server to its end.
pub async fn concord(http: &Http, job: &concord::Job, canary: &str) -> Result<(), String> {
    let failed = |error: ConcordError| error.to_string();
    let key = fs::read_to_string(&job.key_path)
        .await
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                format!("`apiKeyPath` file doesn't exist {}", job.key_path)
            }
            _ => format!("`apiKeyPath` file cannot be read {}: {error}", job.key_path),
        })?;
    let started = body(http, job.start(&key)).await?;
    let instance = concord::instance(&started).map_err(failed)?;
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
        let status = body(http, job.poll(&instance, &key)).await;
        let status = status.map_err(|why| format!("failed checking status: {why}"))?;
        match concord::progress(&instance, &status).map_err(failed)? {
            Progress::Running => debug!(canary, "process id [{instance}] is running"),
            Progress::Finished => return Ok(()),
            Progress::Failed(why) => return Err(why),
        }
    }
}

/// Runs a test on an nGrinder server to its end. When `deadline` ends with a reason, stops the test there and returns the reason.
pub async fn ngrinder(
    http: &Http,
    job: &ngrinder::Job,
    canary: &str,
    deadline: impl Future<Output = String>,
) -> Result<(), String> {
    let start = async {
        let id = body(http, job.start())
            .await
            .and_then(|body| ngrinder::started(&body).map_err(|error| error.to_string()));
        id.map_err(|why| {
            format!(
                "failed to clone and start ngrinder test {}: {why}",
                job.clone
            )
        })
    };
    tokio::pin!(deadline);
    let id = tokio::select! {
        id = start => id?,
        why = &mut deadline => return Err(why),
    };
    tokio::select! {
        ended = ended(http, job, canary, id) => ended,
        why = deadline => {
            warn!(canary, "{why}: stopping ngrinder task {id}");
            match body(http, job.stop(id)).await {
                Ok(_) => Err(why),
                Err(stop) => Err(format!("{why}; ngrinder task {id} could not be stopped: {stop}")),
            }
        }
    }
}

/// Polls a test until it ends.
async fn ended(http: &Http, job: &ngrinder::Job, canary: &str, id: i64) -> Result<(), String> {
    loop {
        sleep(job.interval).await;
        let status = body(http, job.poll(id)).await;
        let read = |body: String| ngrinder::progress(&body).map_err(|error| error.to_string());
        match status.and_then(read) {
            Ok(Progress::Running) => debug!(canary, "ngrinder task {id} is running"),
            Ok(Progress::Finished) => return Ok(()),
            Ok(Progress::Failed(why)) => return Err(why),
            // As in Flagger, a failed poll does not end the task.
            Err(why) => warn!(canary, "status of ngrinder task {id}: {why}"),
        }
    }
}

/// Sends a request and returns the body of the answer with any status: both servers describe errors in the body.
async fn body(http: &Http, request: Result<HttpRequest, impl ToString>) -> Result<String, String> {
    let request = request.map_err(|error| error.to_string())?;
    let answer = http.send(&request).await;
    answer
        .map(|answer| answer.body)
        .map_err(|failure| failure.why)
}
