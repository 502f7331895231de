//! The verbs, with their flags. The comments are the help.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum, builder::PossibleValuesParser};

use super::terms::{CODES, Format, time};
use crate::{
    api::canary::CanaryPhase,
    view::{State, goal::Until},
};

/// The verbs.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Lists canaries; those that need attention come first
    ///
    /// Lists canaries. If one page of the API server has all, those that need attention come first; longer lists are printed page by page.
    #[command(visible_alias = "ls", after_help = CODES)]
    List(List),
    /// Shows one canary: why it is where it is, its steps, checks, pods and events
    #[command(after_help = CODES)]
    Get(Get),
    /// Shows one canary until its run ends
    ///
    /// Shows one canary, and each change of it, until its run ends. If no run is in progress, the command waits for the next one.
    #[command(after_help = CODES)]
    Watch(Canary),
    /// Prints the state of a version, and waits until it reaches a goal
    ///
    /// Prints the state of a version in a word and a sentence. With --timeout, --until, --image or --revision, the command waits until the
    /// version reaches the goal of --until, even if its run has not begun. The version is the one that the target has now, or the named
    /// one. The command does not notice a change of a ConfigMap or Secret alone before its run has begun.
    #[command(after_help = CODES)]
    Status(Status),
    /// Explains why the last release, or another one of the history, was promoted or rolled back
    ///
    /// Explains a release from its record: the cause, the steps, the metrics with their queries and values, and the webhooks.
    #[command(after_help = CODES)]
    Explain(Explain),
    /// Lists the recorded releases of a canary, newest first
    #[command(after_help = CODES)]
    History(Canary),
    /// Promotes the version now, without further steps and checks
    ///
    /// Promotes the version now, without further steps and checks. Traffic still moves to ready pods only.
    #[command(after_help = CODES)]
    Promote(Act),
    /// Ends this step, or opens the gate at which the release waits, and goes on with the next step
    #[command(after_help = CODES)]
    Skip(Act),
    /// Holds the weight; checks go on, and may roll the version back
    #[command(after_help = CODES)]
    Pause(Act),
    /// Ends a pause, or opens the gate at which the release waits
    #[command(after_help = CODES)]
    Resume(Act),
    /// Returns the traffic to the primary now, and marks the version as failed
    #[command(after_help = CODES)]
    Abort(Act),
    /// Releases the failed version again
    #[command(after_help = CODES)]
    Retry(Act),
    /// Checks manifests without a cluster: unknown fields, wrong values, fields without effect
    ///
    /// Checks the Canaries, MetricTemplates and AlertProviders in files, without a cluster: unknown fields, wrong values, Canaries that the
    /// operator would refuse, and fields that probably do not do what you want. Exits with 1 if there is an error.
    #[command(after_help = CODES)]
    Lint(Lint),
    /// Shows what the operator would write for a canary, and what is in its way; writes nothing
    ///
    /// Shows what the operator would write for the Canaries in files, or for one in the cluster: each object as a diff, what would be refused,
    /// conflicts with other canaries, missing rights, and each metric with its value now. The API server tries each write with your rights, as a
    /// dry run, which stores nothing. Objects beside the Canaries in the files count as applied. Webhooks are not called.
    ///
    /// Exits with 0 if there is nothing to object, with 1 if something is in the way, and with 6 if your rights, or the API server, do not let
    /// you see enough.
    #[command(after_help = CODES)]
    Plan(Plan),
    /// Shows how thresholds and comparisons would have judged good versions of the past
    ///
    /// Replays the requests of the primary that Prometheus still has. In each run, half of the primary's pods stand for the canary, so nothing
    /// is wrong, and each rollback is a false alarm. Then a part of the canary's requests is made bad, to see how soon that is found. Shows both for
    /// the thresholds of the Canary and for comparisons, with several margins. Nothing is written, and at most one query runs at a time.
    ///
    /// Exits with 0 if runs were played, and with 1 if there is no history.
    #[command(after_help = CODES)]
    Backtest(Backtest),
    /// Shows all releases in a browser, live, and steers them
    ///
    /// Serves pages for a browser: all canaries, each release with its steps, checks, pods and events, and the history. The pages follow
    /// changes. Buttons write the same actions as the verbs do. Without -n, the canaries of all namespaces are shown.
    ///
    /// On a loopback address, visitors have your rights, and no login is needed. On any other address, --auth is needed: each visitor then
    /// sees and does what their own account may.
    #[command(after_help = CODES)]
    Dashboard(Dashboard),
    /// Prints the version of this program
    Version {
        /// The form of the output.
        #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
        output: Format,
    },
    /// Prints a script that completes commands and names of canaries in a shell
    Completion {
        /// The shell.
        shell: Shell,
    },
}

/// The shells that completion scripts are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// Bash.
    Bash,
    /// Zsh.
    Zsh,
    /// Fish.
    Fish,
    /// The script `kubectl_complete-flagger`, which kubectl finds on PATH.
    Kubectl,
}

/// The states, and the phases of Flagger that no state has the name of.
const PHASES: [&str; 17] = [
    State::New.as_str(),
    State::Initializing.as_str(),
    State::Promoted.as_str(),
    State::Progressing.as_str(),
    State::Paused.as_str(),
    State::Waiting.as_str(),
    State::Promoting.as_str(),
    State::RollingBack.as_str(),
    State::Failed.as_str(),
    State::Blocked.as_str(),
    State::Suspended.as_str(),
    State::Terminating.as_str(),
    CanaryPhase::Initialized.as_str(),
    CanaryPhase::WaitingPromotion.as_str(),
    CanaryPhase::Finalising.as_str(),
    CanaryPhase::Succeeded.as_str(),
    CanaryPhase::Terminated.as_str(),
];

/// Which canaries are listed, and how.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
#[derive(Clone, Debug, Default, Args)]
pub struct List {
    /// The canaries of all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Only canaries with these labels, as in kubectl.
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub selector: Option<String>,
    /// Only canaries in this phase or state.
    #[arg(long, value_name = "PHASE", ignore_case = true, value_parser = PossibleValuesParser::new(PHASES))]
    pub phase: Option<String>,
    /// Only canaries whose last version was rolled back.
    #[arg(long)]
    pub failed: bool,
    /// Print each change, until the command is interrupted.
    #[arg(short, long)]
    pub watch: bool,
    /// Print no header line.
    #[arg(long)]
    pub no_headers: bool,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Format,
}

/// One canary, and how it is shown.
#[derive(Clone, Debug, Args)]
pub struct Canary {
    /// The name of the canary.
    #[arg(value_parser = canary)]
    pub name: String,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Format,
}

/// One canary, and how it is shown.
#[derive(Clone, Debug, Args)]
pub struct Get {
    /// The name of the canary.
    #[arg(value_parser = canary)]
    pub name: String,
    /// Show each change, until the run ends.
    #[arg(short, long)]
    pub watch: bool,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Format,
}

/// The release that is explained.
#[derive(Clone, Debug, Args)]
pub struct Explain {
    /// The name of the canary.
    #[arg(value_parser = canary)]
    pub name: String,
    /// The name of the record, which `kubectl get releases` lists. Default: the newest one.
    #[arg(long, value_name = "RELEASE")]
    pub release: Option<String>,
    /// The form of the output: json and yaml have the record with its measurements.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Format,
}

/// The goal of a wait.
#[derive(Clone, Debug, Args)]
pub struct Status {
    /// The name of the canary.
    #[arg(value_parser = canary)]
    pub name: String,
    /// The goal of the wait.
    #[arg(
        long,
        value_enum,
        value_name = "STATE",
        help = "Wait until the version is promoted, ended (promoted or failed), paused (it waits for a person), or failed. Default: ended"
    )]
    pub until: Option<UntilArg>,
    /// The version with this image, such as podinfo:3.1.1. Registry and folders may be left out.
    #[arg(long, value_name = "IMAGE", conflicts_with = "revision")]
    pub image: Option<String>,
    /// The version with this name in `status.lastAppliedSpec`.
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<String>,
    /// How long to wait. Default: 30m with --until, --image or --revision; without these the state is printed at once.
    #[arg(long, value_parser = time, value_name = "TIME")]
    pub timeout: Option<Duration>,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Format,
}

/// The states that can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UntilArg {
    /// The version was promoted.
    Promoted,
    /// The run has ended.
    Ended,
    /// The run waits for a person.
    Paused,
    /// The version was rolled back.
    Failed,
}

impl From<UntilArg> for Until {
    fn from(arg: UntilArg) -> Self {
        match arg {
            UntilArg::Promoted => Self::Promoted,
            UntilArg::Ended => Self::Ended,
            UntilArg::Paused => Self::Paused,
            UntilArg::Failed => Self::Failed,
        }
    }
}

/// The manifests that are checked.
#[derive(Clone, Debug, Args)]
pub struct Lint {
    /// A file, a folder with its subfolders, or - for stdin; may be repeated.
    #[arg(short, long, required = true, value_name = "FILE")]
    pub filename: Vec<String>,
    /// The operator's flag -mesh-provider, for Canaries without a provider of their own.
    #[arg(long, default_value = "istio", value_name = "NAME")]
    pub mesh_provider: String,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Format,
}

/// The canaries that are planned, and the operator that would run them.
#[derive(Clone, Debug, Args)]
pub struct Plan {
    /// The name of a canary in the cluster.
    #[arg(required_unless_present = "filename", conflicts_with = "filename")]
    pub name: Option<String>,
    /// A file, a folder with all in it, or - for stdin; may be repeated.
    #[arg(short, long, value_name = "FILE")]
    pub filename: Vec<String>,
    /// The operator's account, such as istio-system/flagger: its rights are checked, and its namespace completes the addresses of metric
    /// servers.
    #[arg(long, value_parser = account, value_name = "NAMESPACE/NAME")]
    pub account: Option<Account>,
    /// Whether to query the metric servers: Services of the cluster through the API server, others from this machine.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_name = "BOOL")]
    pub ask: bool,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Format,
    /// The operator's own flags, such as -mesh-provider=nginx.
    #[arg(last = true, value_name = "FLAG")]
    pub flags: Vec<String>,
}

/// The canary whose past is replayed.
#[derive(Clone, Debug, Args)]
pub struct Backtest {
    /// The name of the canary.
    #[arg(value_parser = canary)]
    pub name: String,
    /// The number of days that are replayed.
    #[arg(long, default_value_t = 14, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=90))]
    pub days: u32,
    /// The operator's account, such as istio-system/flagger: its namespace completes the address of the metric server.
    #[arg(long, value_parser = account, value_name = "NAMESPACE/NAME")]
    pub account: Option<Account>,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Report,
    /// The operator's own flags, such as -metrics-server=URL.
    #[arg(last = true, value_name = "FLAG")]
    pub flags: Vec<String>,
}

/// The address of the pages, and who may see them.
#[derive(Clone, Debug, Args)]
pub struct Dashboard {
    /// The address and the port to listen on.
    #[arg(long, default_value = "127.0.0.1:8765", value_name = "ADDRESS:PORT")]
    pub listen: String,
    /// How visitors log in. Default: none on a loopback address.
    #[arg(long, value_enum, value_name = "HOW")]
    pub auth: Option<Auth>,
    /// With --auth=headers: the network of the proxy, such as 10.0.0.0/8; may be repeated. The headers of others are refused.
    #[arg(long, value_name = "CIDR")]
    pub trusted_proxy: Vec<String>,
    /// The address of the pages in browsers, such as https://flagger.example.com, if a proxy changes the header Host.
    #[arg(long, value_name = "URL")]
    pub origin: Option<String>,
    /// A site that may show the pages in a frame, such as https://argocd.example.com; may be repeated.
    #[arg(long, value_name = "URL")]
    pub frame_ancestor: Vec<String>,
}

/// How visitors of the dashboard log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Auth {
    /// Not at all: each visitor has your rights. Only on a loopback address.
    None,
    /// With a token of their account, which the pages ask for, or in the header Authorization.
    Token,
    /// With the token that a proxy such as oauth2-proxy adds as the header Authorization.
    Forwarded,
    /// With the headers X-Forwarded-User and X-Forwarded-Groups of a trusted proxy, by impersonation.
    Headers,
}

/// The form of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Report {
    /// For people.
    #[default]
    Table,
    /// For a document.
    Markdown,
    /// For scripts.
    Json,
    /// The same as YAML.
    Yaml,
}

/// A name of a canary, also in the form that `-o name` prints.
fn canary(text: &str) -> Result<String, String> {
    let (kind, name) = text.rsplit_once('/').unwrap_or(("canary", text));
    let kind = kind.strip_suffix(".flagger.app").unwrap_or(kind);
    if ["canary", "canaries"].contains(&kind) && !name.is_empty() {
        return Ok(name.to_owned());
    }
    Err("the name of a canary is needed, such as podinfo or canary/podinfo".to_owned())
}

/// The account of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

fn account(text: &str) -> Result<Account, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => Ok(Account {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }),
        _ => Err("NAMESPACE/NAME is needed".to_owned()),
    }
}

/// An action of a person.
#[derive(Clone, Debug, Args)]
pub struct Act {
    /// The name of the canary.
    #[arg(value_parser = canary)]
    pub name: String,
    /// The reason. Everybody who can read the release sees it. Needed to promote, skip and abort.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Act only if the release is still at this revision, which `get -o json` shows. Default: the current one.
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<String>,
    /// Whether to wait up to ten seconds for the operator's answer.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_name = "BOOL")]
    pub wait: bool,
}
