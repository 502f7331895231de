//! A person controls a release with the command line alone, within the rights of a role.

use std::process::Output;

use serde_json::{Value, json};
use tokio::process::Command;

use testbed::wait::until;

use super::{FLAGGER, Outcome, PATIENCE, Scenario, ensure, text};

pub async fn a_person_on_call_needs_the_command_line_only(s: Scenario<'_>) -> Outcome {
    s.initialized(json!({"stepWeight": 20, "maxWeight": 60}))
        .await?;
    for (user, role) in [
        ("ann", "flagger-on-call"),
        ("ben", "flagger-release-manager"),
        ("eve", "view"),
    ] {
        let (role, name) = (format!("--clusterrole={role}"), format!("{user}-{role}"));
        let user = format!("--user={user}");
        let args = ["-n", &s.ns, "create", "rolebinding", &name, &role, &user];
        s.rig.bed.kubectl(&args).await.map_err(text)?;
    }
    let idle = s.by("ben", &["status", "podinfo"]).await?;
    ensure(
        idle.code == 0 && idle.stdout.contains(": Promoted: "),
        &idle,
    )?;

    // The pipeline waits for a version whose run has not begun.
    let pipeline = s.spawn(
        "ben",
        &[
            "status",
            "podinfo",
            "--image",
            "podinfo:3.1.1",
            "--until",
            "failed",
            "--timeout",
            "4m",
        ],
    )?;
    s.image("3.1.1").await?;
    s.line("Progressing 20").await?;
    let view = s.by("ben", &["get", "podinfo", "-o", "json"]).await?;
    let view: Value = serde_json::from_str(&view.stdout).map_err(text)?;
    ensure(
        view["images"][0]["canary"] == "podinfo:3.1.1"
            && view["images"][0]["primary"] == "podinfo:3.1.0",
        &view,
    )?;
    let pods = view["pods"].as_array().map_or(0, Vec::len);
    ensure(
        pods >= 2 && view["revision"]["applied"] == view["revision"]["target"],
        &view,
    )?;
    let shown = s.by("ben", &["get", "podinfo"]).await?;
    for part in [
        "podinfo:3.1.0 → podinfo:3.1.1",
        "step 1 of 3",
        "request-success-rate",
        "Advance podinfo",
        "pause podinfo",
    ] {
        ensure(
            shown.stdout.contains(part),
            format!("no {part:?} in {shown:?}"),
        )?;
    }

    // The role grants a pause.
    let paused = s.by("ann", &["pause", "podinfo"]).await?;
    ensure(
        paused.code == 0 && paused.stdout.contains("as ann\naccepted: pause by ann\n"),
        &paused,
    )?;
    let waits = s.by("ann", &["status", "podinfo"]).await?;
    ensure(
        waits.code == 4 && waits.stdout.ends_with(": Paused: Paused by ann.\n"),
        &waits,
    )?;
    let refused = s
        .by("ann", &["promote", "podinfo", "--reason", "late"])
        .await?;
    ensure(
        refused.code == 6
            && refused
                .stderr
                .contains("ann may not promote canary podinfo"),
        &refused,
    )?;
    let reader = s
        .by("eve", &["abort", "podinfo", "--reason", "I can"])
        .await?;
    ensure(
        reader.code == 6 && reader.stderr.contains("cannot abort canary"),
        &reader,
    )?;
    let nobody = s.by("mallory", &["list"]).await?;
    ensure(
        nobody.code == 6
            && nobody
                .stderr
                .contains(" --as mallory auth can-i --list -n "),
        &nobody,
    )?;
    let early = s.by("ben", &["retry", "podinfo"]).await?;
    ensure(
        early.code == 1 && early.stderr.contains("no version has failed"),
        &early,
    )?;
    let resumed = s.by("ann", &["resume", "podinfo"]).await?;
    ensure(resumed.code == 0, &resumed)?;
    let aborted = s
        .by(
            "ann",
            &["abort", "podinfo", "--reason", "errors at the checkout"],
        )
        .await?;
    ensure(
        aborted.code == 0
            && aborted
                .stdout
                .contains("accepted: abort by ann: errors at the checkout"),
        &aborted,
    )?;
    s.phase("Failed").await?;
    let pipeline = finished(pipeline.wait_with_output().await.map_err(text)?);
    ensure(
        pipeline.code == 0 && pipeline.stdout.contains(": Failed: "),
        &pipeline,
    )?;

    // The command names a version that is not the current one any more.
    let stale = s
        .by("ben", &["retry", "podinfo", "--revision", "v1-other"])
        .await?;
    ensure(
        stale.code == 5 && stale.stderr.contains("not at v1-other any more"),
        &stale,
    )?;
    let watch = s.spawn("ben", &["watch", "podinfo"])?;
    let retried = s.by("ben", &["retry", "podinfo"]).await?;
    ensure(retried.code == 0, &retried)?;
    s.line("Progressing 20").await?;
    let promoted = s
        .by(
            "ben",
            &["promote", "podinfo", "--reason", "the fix is urgent"],
        )
        .await?;
    ensure(promoted.code == 0, &promoted)?;
    let done = s
        .by(
            "ben",
            &[
                "status",
                "podinfo",
                "--image",
                "podinfo:3.1.1",
                "--until",
                "promoted",
                "--timeout",
                "4m",
            ],
        )
        .await?;
    ensure(
        done.code == 0 && done.stdout.contains(": Promoted: "),
        &done,
    )?;
    let watch = finished(watch.wait_with_output().await.map_err(text)?);
    ensure(watch.code == 0 && watch.stdout.lines().count() > 3, &watch)?;
    let listed = s.by("ben", &["list", "--no-headers"]).await?;
    ensure(
        listed.code == 0 && listed.stdout.starts_with("podinfo   Promoted"),
        &listed,
    )?;
    a_version_that_was_replaced_is_not_waited_for(&s).await
}

/// The pipeline of a version may ask for its result after a newer version has replaced it.
async fn a_version_that_was_replaced_is_not_waited_for(s: &Scenario<'_>) -> Outcome {
    for tag in ["3.1.2", "3.1.3"] {
        s.image(tag).await?;
        runs(s, &format!("podinfo:{tag}")).await?;
    }
    let until = ["--until", "paused", "--timeout", "2m"];
    let paused = s.by("ann", &["pause", "podinfo"]).await?;
    ensure(paused.code == 0, &paused)?;
    let newest = ["status", "podinfo", "--image", "podinfo:3.1.3"];
    let newest = s.by("ann", &[&newest[..], &until].concat()).await?;
    ensure(
        newest.code == 0 && newest.stdout.contains(": Paused: "),
        &newest,
    )?;
    let replaced = ["status", "podinfo", "--image", "podinfo:3.1.2"];
    let replaced = s.by("ann", &[&replaced[..], &until].concat()).await?;
    ensure(
        replaced.code == 5 && replaced.stdout.contains(": Superseded: "),
        &replaced,
    )?;
    let history = s.by("ann", &["history", "podinfo", "-o", "json"]).await?;
    let history: Value = serde_json::from_str(&history.stdout).map_err(text)?;
    ensure(
        history["kind"] == "ReleaseRecordList" && history["items"][1]["result"] == "Superseded",
        &history,
    )?;
    let explained = s.by("ann", &["explain", "podinfo"]).await?;
    ensure(
        explained.code == 0 && explained.stdout.contains("is being released"),
        &explained,
    )
}

/// Waits until a run of this image is in progress.
async fn runs(s: &Scenario<'_>, image: &str) -> Outcome {
    until(PATIENCE, image, async || {
        let view = s.by("ann", &["get", "podinfo", "-o", "json"]).await?;
        let view: Value = serde_json::from_str(&view.stdout).map_err(text)?;
        let revision = &view["revision"];
        let runs = view["images"][0]["canary"] == image
            && view["state"] == "Progressing"
            && revision["applied"] == revision["target"];
        runs.then_some(()).ok_or_else(|| view.to_string())
    })
    .await
    .map_err(text)
}

/// The output of a command.
#[derive(Debug)]
pub struct Finished {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

fn finished(
    Output {
        status,
        stdout,
        stderr,
    }: Output,
) -> Finished {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Finished {
        code: status.code().unwrap_or(-1),
        stdout: text(stdout),
        stderr: text(stderr),
    }
}

impl Scenario<'_> {
    fn flagger(&self, user: &str, args: &[&str]) -> Command {
        let mut command = Command::new(FLAGGER);
        let kubeconfig = self.rig.bed.plane.kubeconfig();
        command
            .args(args)
            .args(["-n", &self.ns, "--as", user, "--kubeconfig"])
            .arg(kubeconfig);
        command.kill_on_drop(true);
        command
    }

    /// Runs a command as this user.
    pub async fn by(&self, user: &str, args: &[&str]) -> Result<Finished, String> {
        self.flagger(user, args)
            .output()
            .await
            .map(finished)
            .map_err(text)
    }

    fn spawn(&self, user: &str, args: &[&str]) -> Result<tokio::process::Child, String> {
        let mut command = self.flagger(user, args);
        command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        command.spawn().map_err(text)
    }
}
