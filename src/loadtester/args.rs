//! The command line and the environment of the load tester: Flagger's flags in Go's syntax, and additional ones. Only this module reads
//! them.

use std::{collections::BTreeMap, time::Duration};

use regex::Regex;

use super::task::Allowed;
use crate::{
    api::duration,
    cli::syntax::{self as flags, Exit, Flag},
    snapshot::Secret,
};

/// The flags. The first six are Flagger's.
pub const FLAGS: [Flag; 9] = [
    (
        "log-level",
        "debug",
        "Log level can be: debug, info, warn, error.",
    ),
    (
        "namespace-regexp",
        "",
        "Restrict access to canaries in matching namespaces.",
    ),
    ("port", "9090", "Port to listen on."),
    ("timeout", "1h", "Load test exec timeout."),
    ("zap-encoding", "json", "Log encoding: json or console."),
    (
        "zap-replace-globals",
        "false",
        "Accepted for compatibility with Flagger, without effect.",
    ),
    (
        "allow",
        "",
        "Comma-separated list of the programs that tasks may run, for example hey,ghz,helm. They then run without a shell. Default: any command.",
    ),
    (
        "concurrency",
        "100",
        "Maximum number of tasks that run at the same time.",
    ),
    (
        "gates",
        "",
        "File that stores the open gates, so that they stay open after a restart.",
    ),
];

/// The environment variable with the token that callers must know. Without it, everybody may call. Commands do not get the variable, but
/// a command that can read the load tester's memory or environment can find the token.
pub const TOKEN: &str = "LOADTESTER_TOKEN";

/// The resolved configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The port that the load tester listens on.
    pub port: u16,
    /// The log level: debug, info, warn or error.
    pub log_level: String,
    /// Whether logs are JSON.
    pub log_json: bool,
    /// The time limit of a task.
    pub timeout: Duration,
    /// The namespaces whose canaries may call; `None` for all. The expression may match any part of the name, as in Flagger.
    pub namespaces: Option<Regex>,
    /// The programs that tasks may run; `None` for any command.
    pub allowed: Option<Allowed>,
    /// The maximum number of tasks that run at the same time.
    pub concurrency: u16,
    /// The file that stores the open gates.
    pub gates: Option<String>,
    /// The token that callers must know.
    pub token: Option<Secret>,
}

/// Reads a command line (without the program's name) and the environment. Returns the text to print and the exit code if the program
/// should not start.
pub fn parse(
    args: impl IntoIterator<Item = String>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Config, Exit> {
    let usage = flags::usage("loadtester", FLAGS);
    let known = FLAGS.map(|(name, default, _)| (name, default));
    let mut values: BTreeMap<_, _> = known
        .iter()
        .map(|(name, default)| ((*name).to_owned(), (*default).to_owned()))
        .collect();
    values.extend(flags::read(args, &known, &usage)?);
    let text = |name: &str| values.get(name).cloned().unwrap_or_default();
    let some = |name: &str| Some(text(name)).filter(|value| !value.is_empty());
    let invalid = |name: &str, why: &str| {
        let problem = format!("invalid value {:?} for flag -{name}: {why}", text(name));
        Exit::invalid(&problem, &usage)
    };
    let encoding = text("zap-encoding");
    if !matches!(encoding.as_str(), "json" | "console") {
        return Err(invalid("zap-encoding", "json and console are known"));
    }
    let timeout = duration::parse(&text("timeout")).filter(|timeout| !timeout.is_zero());
    let concurrency = text("concurrency").parse().ok().filter(|most| *most > 0);
    let namespaces = some("namespace-regexp")
        .map(|regexp| Regex::new(&regexp))
        .transpose()
        .map_err(|error| invalid("namespace-regexp", &error.to_string()))?;
    Ok(Config {
        port: text("port")
            .parse()
            .map_err(|_| invalid("port", "a number up to 65535 is expected"))?,
        log_level: text("log-level"),
        log_json: encoding == "json",
        timeout: timeout
            .ok_or_else(|| invalid("timeout", "a duration as 30s, 10m or 1h is expected"))?,
        namespaces,
        allowed: some("allow").map(|list| Allowed::named(&list)),
        concurrency: concurrency
            .ok_or_else(|| invalid("concurrency", "a number from 1 to 65535 is expected"))?,
        gates: some("gates"),
        token: env(TOKEN).filter(|token| !token.is_empty()).map(Secret),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Result<Config, Exit> {
        parse(args.iter().map(|arg| (*arg).to_owned()), |_| None)
    }

    #[test]
    fn the_defaults_are_flaggers_and_allow_any_command() {
        let config = run(&[]).unwrap();
        assert_eq!(
            (config.port, config.timeout, config.concurrency),
            (9090, Duration::from_secs(3600), 100)
        );
        assert_eq!(
            (config.log_level.as_str(), config.log_json),
            ("debug", true)
        );
        assert!(config.namespaces.is_none() && config.allowed.is_none());
        assert!(config.gates.is_none() && config.token.is_none());
    }

    #[test]
    fn the_flags_of_flaggers_manifests_are_accepted() {
        let config = run(&[
            "-port=8080",
            "-log-level=info",
            "-timeout=1h",
            "-namespace-regexp=",
        ])
        .unwrap();
        assert_eq!((config.port, config.namespaces.is_none()), (8080, true));
        let config = run(&["--namespace-regexp", "^test"]).unwrap();
        assert!(config.namespaces.unwrap().is_match("test-2"));
    }

    #[test]
    fn a_wrong_flag_is_reported_with_the_usage() {
        for (flag, problem) in [
            (
                "-port=x",
                "invalid value \"x\" for flag -port: a number up to 65535 is expected",
            ),
            (
                "-timeout=soon",
                "invalid value \"soon\" for flag -timeout: a duration as 30s, 10m or 1h is expected",
            ),
            (
                "-timeout=0",
                "invalid value \"0\" for flag -timeout: a duration as 30s, 10m or 1h is expected",
            ),
            (
                "-concurrency=0",
                "invalid value \"0\" for flag -concurrency: a number from 1 to 65535 is expected",
            ),
            (
                "-namespace-regexp=(",
                "invalid value \"(\" for flag -namespace-regexp: regex parse error:",
            ),
            (
                "-zap-encoding=xml",
                "invalid value \"xml\" for flag -zap-encoding: json and console are known",
            ),
            ("-version", "flag provided but not defined: -version"),
        ] {
            let exit = run(&[flag]).unwrap_err();
            assert_eq!((exit.code, exit.text.lines().next().unwrap()), (2, problem));
            assert!(exit.text.contains("Usage of loadtester:"));
        }
        assert_eq!(run(&["-h"]).unwrap_err().code, 0);
    }

    #[test]
    fn the_token_comes_from_the_environment_and_is_not_printed() {
        let config = parse([], |name| (name == TOKEN).then(|| "hush".to_owned())).unwrap();
        assert!(!format!("{config:?}").contains("hush"));
        assert_eq!(config.token, Some(Secret("hush".to_owned())));
    }
}
