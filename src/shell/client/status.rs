//! `status`: prints the state of a version, and waits until it reaches a goal.

use std::{pin::pin, time::Duration};

use futures::StreamExt;
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::{
    get::show,
    output::{print, remark, unless_closed},
    read::{Context, Depth},
    trouble::Stop,
};
use crate::{
    api::duration,
    cli::client::{Code, Format, Status},
    shell::api_server::ClusterError,
    snapshot::Kind,
    view::{
        View,
        goal::{Follower, Judged, Judgement, Until, Wanted},
        text::short_image,
    },
};

/// The default of `--timeout`.
const DEFAULT: Duration = Duration::from_secs(30 * 60);
/// The pause between two reads of the target before its run has begun. Until then the watch of the Canary reports no change.
const READ_AGAIN: Duration = Duration::from_secs(2);

/// Prints the state of a version. With a goal or a timeout, first waits until the version reaches the goal.
pub async fn status(context: &Context, status: &Status) -> Result<Code, Stop> {
    if let Some(image) = &status.image
        && !short_image(image).contains([':', '@'])
    {
        let why = format!("--image {image} needs a tag or a digest, such as {image}:1.2.0");
        return Err(Stop::because(Code::Usage, why));
    }
    let wanted = match (&status.image, &status.revision) {
        (Some(image), _) => Wanted::Image(image.clone()),
        (None, Some(revision)) => Wanted::Revision(revision.clone()),
        (None, None) => Wanted::Current,
    };
    let waits = status.until.is_some() || wanted != Wanted::Current;
    let timeout = status
        .timeout
        .unwrap_or(if waits { DEFAULT } else { Duration::ZERO });
    let until = status.until.map(Until::from).unwrap_or_default();
    let canary = context.canary(&status.name).await?;
    // If the person names a version, another version may have replaced it before the wait begins. Only records show this. If the person may
    // not list records, the command goes on without them.
    let records = if wanted == Wanted::Current {
        Vec::new()
    } else {
        match context.releases(&status.name, &canary).await {
            Err(Stop::Trouble(trouble)) if trouble.code == Code::Forbidden => Vec::new(),
            records => records?,
        }
    };
    let records = records.into_iter().map(|release| release.spec);
    let waiting = Waiting {
        context,
        status,
        follower: Follower::new(until, wanted).with_records(records),
        timeout,
        remark: String::new(),
    };
    waiting.run(canary).await
}

struct Waiting<'a> {
    context: &'a Context,
    status: &'a Status,
    follower: Follower,
    timeout: Duration,
    /// The remark that was printed last.
    remark: String,
}

impl Waiting<'_> {
    async fn run(mut self, canary: Value) -> Result<Code, Stop> {
        let name = &self.status.name;
        let end = Instant::now() + self.timeout;
        let mut latest = canary;
        let person = &self.context.person;
        let mut changes = pin!(person.watch(Kind::Canary, person.namespace(), name));
        let mut again = interval(READ_AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        again.tick().await;
        loop {
            let view = self.context.view(latest.clone(), Depth::Workloads).await;
            let judged = self.follower.judge(&view);
            if let Some(code) = final_code(judged.judgement) {
                return self.end(&view, &judged, code);
            }
            if Instant::now() >= end {
                return self.time_is_over(&view, &judged);
            }
            self.say(format!("{}: {}", judged.word, judged.sentence));
            loop {
                tokio::select! {
                    change = changes.next() => if let Some(canary) = self.changed(change)? {
                        latest = canary;
                        break;
                    },
                    // While a run takes its steps, each change of the target changes the Canary, too.
                    _ = again.tick() => break,
                    () = sleep_until(end) => break,
                }
            }
        }
    }

    /// The canary after a change; `None` if the watch failed and is about to be repeated.
    fn changed(
        &mut self,
        change: Option<Result<Option<Value>, ClusterError>>,
    ) -> Result<Option<Value>, Stop> {
        let wants = self.context.wants("watch", &self.status.name);
        match change {
            Some(Ok(Some(canary))) => Ok(Some(canary)),
            Some(Ok(None)) => Err(wants.missing()),
            Some(Err(error)) if error.code().is_some() => Err(wants.failed(&error)),
            Some(Err(error)) => {
                self.say(error.to_string());
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// Prints a remark with the reason of the wait, unless it is the one that was printed last.
    fn say(&mut self, text: String) {
        if self.remark != text {
            remark(&text);
            self.remark = text;
        }
    }

    /// Prints the state when the timeout is over.
    fn time_is_over(&self, view: &View, judged: &Judged) -> Result<Code, Stop> {
        let code = if judged.judgement == Judgement::WaitsForPerson {
            Code::WaitsForPerson
        } else {
            Code::Undecided
        };
        let code = self.end(view, judged, code)?;
        let program = &self.context.typed.flagger;
        if self.timeout > Duration::ZERO {
            let time = duration::display(self.timeout);
            remark(&format!(
                "waited for {time}; wait longer with --timeout, or look at it: {program} -n {} get {}",
                view.namespace, view.name
            ));
        }
        for command in view
            .next_commands(&self.context.typed)
            .into_iter()
            .filter(|_| code == Code::WaitsForPerson)
        {
            remark(&format!("next: {command}"));
        }
        Ok(code)
    }

    fn end(&self, view: &View, judged: &Judged, code: Code) -> Result<Code, Stop> {
        match self.status.output {
            Format::Table | Format::Wide => {
                let (word, sentence) = (judged.word, &judged.sentence);
                let line = format!("{}: {word}: {sentence}\n", view.full_name());
                unless_closed(print(&line))?;
            }
            other => unless_closed(show(self.context, view, other))?,
        }
        Ok(code)
    }
}

/// The exit code of a judgement that later changes of the canary cannot alter.
const fn final_code(judgement: Judgement) -> Option<Code> {
    match judgement {
        Judgement::Yes => Some(Code::Yes),
        Judgement::No => Some(Code::No),
        Judgement::Superseded => Some(Code::NotFound),
        Judgement::Unknown => Some(Code::Forbidden),
        Judgement::NotBegun | Judgement::NotYet | Judgement::WaitsForPerson => None,
    }
}
