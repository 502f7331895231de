//! `backtest`: how thresholds and comparisons would have judged good versions of the past. Asks the metric server hour by hour.

use std::{
    io::{self, IsTerminal, Write},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep};

use super::{
    asking::Asking,
    lint::operator,
    list::yaml,
    output::{Output, print, remark, text_width, unless_closed},
    read::{Context, now},
    trouble::Stop,
};
use crate::{
    api::canary::Canary,
    backtest::{Backtest, NotReplayed, ReplayedMetric, lines, markdown, replay, schedule},
    cli::{
        Config,
        client::{self, Code, Report},
    },
    comparison::Measure,
    metrics::{TimeSeries, counting::LAG},
    rollout::{Answer, Comparable, comparable, series_question},
    shell::controller::observe::empty_snapshot,
    snapshot::{Kind, ObjectRef, Snapshot},
};

/// How often a query is sent until the command ends, and the pause before the second attempt.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(2);
/// The longest pause after an answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The time that one answer is about.
const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// Replays the past of one canary.
pub async fn backtest(context: &Context, args: &client::Backtest) -> Result<Code, Stop> {
    let config = operator(args.flags.clone())?;
    let namespace = context.person.namespace();
    let replaying = Replaying {
        asking: Asking {
            context,
            config: &config,
            account: args.account.as_ref(),
            namespace,
            are_trusted: true,
        },
        snapshot: snapshot(context, &args.name, &config).await?,
        end: end(now()),
    };
    let (mut metrics, mut not_replayed) = (Vec::new(), Vec::new());
    for (metric, comparable) in comparable(&replaying.snapshot) {
        match replaying.metric(comparable).await? {
            Ok(metric) => metrics.push(metric),
            Err(why) => not_replayed.push(NotReplayed { metric, why }),
        }
    }
    let mut progress = Progress::new(context.output);
    replaying
        .ask(&mut metrics, args.days, &mut progress)
        .await?;
    let steps = schedule(&replaying.snapshot.canary);
    let mut show = |share| progress.show("playing the runs", share);
    let report = Backtest {
        namespace: namespace.to_owned(),
        name: args.name.clone(),
        not_replayed,
        ..replay(&metrics, &steps, &mut show)
    };
    drop(progress);
    unless_closed(print_report(context, args.output, &report))?;
    Ok(if report.runs() > 0 {
        Code::Yes
    } else {
        Code::No
    })
}

/// The snapshot of a Canary alone.
async fn snapshot(context: &Context, name: &str, config: &Config) -> Result<Snapshot, Stop> {
    let canary = context.canary(name).await?;
    let canary = serde_json::from_value::<Canary>(canary).map_err(|error| {
        Stop::because(Code::No, format!("canary {name} cannot be read: {error}"))
    })?;
    let reference = ObjectRef {
        kind: Kind::Canary,
        namespace: context.person.namespace().to_owned(),
        name: name.to_owned(),
    };
    let settings = Arc::new(config.settings.clone());
    Ok(empty_snapshot(canary, &reference, &settings))
}

/// The end of the last minute that the metric server has completely.
fn end(now: Timestamp) -> Timestamp {
    let known = now.as_second() - LAG.as_secs();
    Timestamp::from_second(known - known.rem_euclid(60)).unwrap_or(now)
}

fn print_report(context: &Context, form: Report, report: &Backtest) -> Result<(), Stop> {
    match form {
        Report::Table => context.output.long_lines(&lines(report, text_width())),
        Report::Markdown => print(&markdown(report)),
        Report::Json => print(&format!("{:#}\n", report.json())),
        Report::Yaml => print(&yaml(&report.json())),
    }
}

/// The questions about one canary.
struct Replaying<'a> {
    asking: Asking<'a>,
    snapshot: Snapshot,
    end: Timestamp,
}

impl Replaying<'_> {
    /// The metric without its requests. One of durations needs the buckets that the primary has. The inner error is the reason why there is
    /// nothing to replay.
    async fn metric(
        &self,
        comparable: Result<Comparable, String>,
    ) -> Result<Result<ReplayedMetric, String>, Stop> {
        let comparable = match comparable {
            Ok(comparable) => comparable,
            Err(why) => return Ok(Err(why)),
        };
        let buckets = if comparable.rules.measure == Measure::Latency {
            let query = comparable.counted.history(Measure::Latency);
            self.series(&comparable.metric, &query, self.end).await?
        } else {
            Vec::new()
        };
        Ok(ReplayedMetric::of(comparable, &buckets))
    }

    /// Asks for the requests of each hour, from the first one on.
    async fn ask(
        &self,
        metrics: &mut [ReplayedMetric],
        days: u32,
        progress: &mut Progress,
    ) -> Result<(), Stop> {
        let hours = days * 24;
        let total = hours * u32::try_from(metrics.len()).unwrap_or(u32::MAX);
        let mut done = 0;
        for metric in metrics {
            for ago in (0..hours).rev() {
                self.hour(metric, ago).await?;
                done += 1;
                let share = f64::from(done) / f64::from(total);
                progress.show("asking the metric server", share);
            }
        }
        Ok(())
    }

    /// Adds the requests of an hour, which ended that many hours ago.
    async fn hour(&self, metric: &mut ReplayedMetric, ago: u32) -> Result<(), Stop> {
        let at = self
            .end
            .checked_sub(HOUR * i32::try_from(ago).unwrap_or(i32::MAX));
        let at = at.map_err(|error| Stop::because(Code::Usage, format!("--days: {error}")))?;
        let begun = Instant::now();
        let series = self.series(&metric.name, &metric.query(), at).await?;
        metric.add(&series);
        // The server has other users: it works for this command half of the time at most.
        sleep(begun.elapsed().min(LONGEST_PAUSE)).await;
        Ok(())
    }

    /// The series of a query. A failed one is repeated, because an hour that is missing would lose all others.
    async fn series(
        &self,
        metric: &str,
        query: &str,
        at: Timestamp,
    ) -> Result<Vec<TimeSeries>, Stop> {
        let question = series_question(&self.snapshot, "backtest".to_owned(), query, at);
        let mut asked = Err(String::new());
        for attempt in 0..ATTEMPTS {
            sleep(PAUSE * attempt).await;
            asked = match &question {
                Ok(question) => self.asking.ask(question).await,
                Err(error) => Err(error.to_string()),
            };
            if let Ok(Answer::Series(Ok(series))) = asked {
                return Ok(series);
            }
        }
        let why = match asked {
            Ok(Answer::Series(Err(error))) => error.to_string(),
            Ok(_) => "the server gave another answer than series".to_owned(),
            Err(why) => why,
        };
        let hint = "Name the metric server of the operator, and its account if the address is one word: --account NAMESPACE/NAME -- -metrics-server=URL";
        Err(Stop::because(
            Code::Undecided,
            format!("{metric} at {at}: {why}\n{hint}"),
        ))
    }
}

/// The progress of a long command, on stderr: on a terminal one line that changes, else a line for each tenth.
struct Progress {
    is_terminal: bool,
    shown: Option<(&'static str, u64)>,
}

impl Progress {
    fn new(output: Output) -> Self {
        Self {
            is_terminal: io::stderr().is_terminal() && output.can_redraw(),
            shown: None,
        }
    }

    fn show(&mut self, what: &'static str, share: f64) {
        let parts = if self.is_terminal { 100.0 } else { 10.0 };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share is from 0 to 1"
        )]
        let part = (share * parts) as u64;
        if self.shown == Some((what, part)) {
            return;
        }
        self.shown = Some((what, part));
        let percent = share * 100.0;
        if self.is_terminal {
            let _ = write!(io::stderr(), "\r\x1b[K{what}: {percent:.0} %");
        } else {
            remark(&format!("{what}: {percent:.0} %"));
        }
    }
}

/// The line of the progress makes room for the report, or for the reason why there is none.
impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_terminal && self.shown.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests;
