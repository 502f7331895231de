//! The commands of people and pipelines: reads the cluster, prints views, and asks the operator for actions.
//!
//! Data goes to stdout, remarks go to stderr. Each command ends with a [`Code`].
//!
//! | command | file |
//! | --- | --- |
//! | `list` | `list.rs` |
//! | `get`, `watch` | `get.rs`; `screen.rs` draws on a terminal |
//! | `status` | `status.rs` |
//! | `explain`, `history` | `releases.rs` |
//! | `promote`, `skip`, `pause`, `resume`, `abort`, `retry` | `act.rs` |
//! | `lint` | `lint.rs` |
//! | `plan` | `plan`; `asking.rs` asks metric servers |
//! | `backtest` | `backtest.rs` |
//! | completion | `complete.rs` |
//! | `dashboard` | `../dashboard`, which reads and acts as these commands do |

mod act;
mod asking;
mod backtest;
mod complete;
mod get;
mod lint;
mod list;
mod output;
mod plan;
mod read;
mod releases;
mod screen;
mod status;
mod trouble;

use crate::{
    api::action,
    cli::client::{self, COMPLETE, Code, Color, Format, Line, Program, Verb, complete::script},
    shell::{api_server::person::Person, dashboard},
    view::{API_VERSION, Typed},
};
pub use act::ask;
use output::unless_closed;
pub use output::{Output, print, remark};
pub use read::{Context, Depth};
use serde_json::json;
pub use trouble::{Stop, Trouble, Wanted};

/// Whether to use colors. `is_terminal`: whether the output goes to a terminal.
fn is_colored(when: Color, is_terminal: bool, env: &impl Fn(&str) -> Option<String>) -> bool {
    let is_set = |name: &str| env(name).is_some_and(|value| !value.is_empty());
    match when {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => is_terminal && !is_set("NO_COLOR") && env("TERM").as_deref() != Some("dumb"),
    }
}

/// Carries out a command line. Returns the exit code.
pub async fn run(program: Program, args: &[String], env: impl Fn(&str) -> Option<String>) -> u8 {
    if let Some((first, words)) = args.split_first()
        && first == COMPLETE
    {
        let answered = complete::answer(words).await;
        return answered.map_or(Code::Undecided, |()| Code::Yes) as u8;
    }
    let when = complete::color_of(args);
    let colored = |is_terminal| is_colored(when, is_terminal, &env);
    let line = match client::parse(program, args, colored(output::is_terminal())) {
        Ok(line) => line,
        Err(exit) => {
            let printed = if exit.code == 0 {
                output::print(&exit.text)
            } else {
                output::remark(exit.text.trim_end());
                Ok(())
            };
            return printed.map_or(Code::Yes as u8, |()| exit.code);
        }
    };
    let can_redraw = env("TERM").is_some_and(|term| term != "dumb");
    let output = Output::new(colored(output::is_terminal()), can_redraw);
    // If the reader closes the pipe, `list` and `get` end with 0. Other commands end with 3, because their answer is not known yet.
    let closed = match &line.verb {
        Verb::List(_) | Verb::Get(_) => Code::Yes,
        _ => Code::Undecided,
    };
    match carry_out(line, program, output).await {
        Ok(code) => code as u8,
        Err(Stop::BrokenPipe) => closed as u8,
        Err(Stop::Trouble(trouble)) => {
            output::remark(&trouble.message);
            trouble.code as u8
        }
    }
}

async fn carry_out(line: Line, program: Program, output: Output) -> Result<Code, Stop> {
    let Line { verb, reach } = line;
    match &verb {
        Verb::Version { output } => {
            unless_closed(output::print(&version(*output)))?;
            return Ok(Code::Yes);
        }
        Verb::Completion { shell } => {
            unless_closed(output::print(script(*shell)))?;
            return Ok(Code::Yes);
        }
        Verb::Lint(args) => return lint::run(output, args),
        Verb::Dashboard(args) => {
            let typed = Typed::new(program.typed(), &reach.flags());
            return dashboard::run(&reach, typed, args).await;
        }
        _ => {}
    }
    let typed = Typed::new(program.typed(), &reach.flags());
    let person = Person::connect(&reach).await;
    let context = Context {
        person: person.map_err(|error| Stop::unconnected(&error, &typed))?,
        output,
        typed,
    };
    match verb {
        Verb::List(list) => list::list(&context, &list).await,
        Verb::Get(get) => get::get(&context, &get).await,
        Verb::Watch(canary) => get::watch(&context, &canary).await,
        Verb::Status(status) => status::status(&context, &status).await,
        Verb::Explain(explain) => releases::explain(&context, &explain).await,
        Verb::History(canary) => releases::history(&context, &canary).await,
        Verb::Plan(plan) => plan::plan(&context, &plan).await,
        Verb::Backtest(args) => backtest::backtest(&context, &args).await,
        Verb::Promote(act) => act::act(&context, action::Verb::Promote, &act).await,
        Verb::Skip(act) => act::act(&context, action::Verb::Skip, &act).await,
        Verb::Pause(act) => act::act(&context, action::Verb::Pause, &act).await,
        Verb::Resume(act) => act::act(&context, action::Verb::Resume, &act).await,
        Verb::Abort(act) => act::act(&context, action::Verb::Abort, &act).await,
        Verb::Retry(act) => act::act(&context, action::Verb::Retry, &act).await,
        Verb::Version { .. } | Verb::Completion { .. } | Verb::Lint(_) | Verb::Dashboard(_) => {
            Ok(Code::Yes)
        }
    }
}

/// The version of this program.
fn version(format: Format) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let value = json!({"apiVersion": API_VERSION, "kind": "Version", "version": version});
    match format {
        Format::Json => format!("{value:#}\n"),
        Format::Yaml => list::yaml(&value),
        Format::Table | Format::Wide | Format::Name => format!("flagger-rs {version}\n"),
    }
}
