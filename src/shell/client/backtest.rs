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
    output::{print, remark, text_width, unless_closed},
    read::{Context, now},
    trouble::Stop,
};
use crate::{
    api::canary::Canary,
    backtest::{Backtest, NotReplayed, Subject, backtest as play, lines, markdown, schedule},
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
    let (mut subjects, mut not_replayed) = (Vec::new(), Vec::new());
    for (metric, comparable) in comparable(&replaying.snapshot) {
        match replaying.subject(comparable).await {
            Ok(subject) => subjects.push(subject),
            Err(why) => not_replayed.push(NotReplayed { metric, why }),
        }
    }
    let mut progress = Progress::new();
    replaying
        .ask(&mut subjects, args.days, &mut progress)
        .await?;
    let steps = schedule(&replaying.snapshot.canary);
    let mut show = |share| progress.show("playing the runs", share);
    let report = Backtest {
        namespace: namespace.to_owned(),
        name: args.name.clone(),
        not_replayed,
        ..play(&subjects, &steps, &mut show)
    };
    progress.end();
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
    /// The subject of a metric. That of durations needs the buckets that the primary has.
    async fn subject(&self, comparable: Result<Comparable, String>) -> Result<Subject, String> {
        let comparable = comparable?;
        let buckets = if comparable.rules.measure == Measure::Latency {
            let query = comparable.counted.history(Measure::Latency);
            self.series(&query, self.end).await?
        } else {
            Vec::new()
        };
        Subject::of(comparable, &buckets)
    }

    /// Asks for the requests of each hour, from the first one on.
    async fn ask(
        &self,
        subjects: &mut [Subject],
        days: u32,
        progress: &mut Progress,
    ) -> Result<(), Stop> {
        let hours = days * 24;
        let total = hours * u32::try_from(subjects.len()).unwrap_or(u32::MAX);
        let mut done = 0;
        for subject in subjects {
            for ago in (0..hours).rev() {
                self.hour(subject, ago).await?;
                done += 1;
                let share = f64::from(done) / f64::from(total);
                progress.show("asking the metric server", share);
            }
        }
        Ok(())
    }

    /// Adds the requests of an hour, which ended that many hours ago.
    async fn hour(&self, subject: &mut Subject, ago: u32) -> Result<(), Stop> {
        let at = self
            .end
            .checked_sub(HOUR * i32::try_from(ago).unwrap_or(i32::MAX));
        let at = at.map_err(|error| Stop::because(Code::Usage, format!("--days: {error}")))?;
        let begun = Instant::now();
        let answer = self.series(&subject.query(), at).await;
        let series = answer.map_err(|why| {
            let metric = &subject.metric;
            let hint = "Ask for fewer days with --days, or name the server: -- -metrics-server=URL";
            Stop::because(Code::Undecided, format!("{metric} at {at}: {why}\n{hint}"))
        })?;
        subject.add(&series);
        // The server has other users: it works for this command half of the time at most.
        sleep(begun.elapsed().min(Duration::from_secs(5))).await;
        Ok(())
    }

    async fn series(&self, query: &str, at: Timestamp) -> Result<Vec<TimeSeries>, String> {
        let question = series_question(&self.snapshot, "backtest".to_owned(), query, at);
        let question = question.map_err(|error| error.to_string())?;
        match self.asking.ask(&question).await? {
            Answer::Series(series) => series.map_err(|error| error.to_string()),
            _ => Err("the server gave another answer than series".to_owned()),
        }
    }
}

/// The progress of a long command, on stderr: on a terminal one line that changes, else a line for each tenth.
struct Progress {
    is_terminal: bool,
    shown: Option<(&'static str, u64)>,
}

impl Progress {
    fn new() -> Self {
        Self {
            is_terminal: io::stderr().is_terminal(),
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

    fn end(self) {
        if self.is_terminal && self.shown.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests;
