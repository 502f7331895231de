//! The operator's command line and environment, in Flagger's terms: Flagger's flags, in Go's syntax, and Flagger's variables. Nothing past
//! this module reads either.

use std::{
    collections::BTreeMap,
    num::{IntErrorKind, ParseIntError},
    time::Duration,
};

use crate::{
    api::duration,
    flags::{self, Exit, Flag, is_true},
    providers,
    snapshot::{Secret, Settings},
};

/// Flags that exist: name, default, what for. A flag whose default is `true` or `false` needs no value.
const FLAGS: [Flag; 31] = [
    (
        "cluster-name",
        "",
        "Cluster name to be included in alert msgs.",
    ),
    (
        "control-loop-interval",
        "10s",
        "Accepted for Flagger's sake: changes are watched, not polled.",
    ),
    (
        "enable-config-tracking",
        "true",
        "Enable secrets and configmaps tracking.",
    ),
    ("enable-leader-election", "false", "Enable leader election."),
    ("event-webhook", "", "Webhook for publishing flagger events"),
    (
        "include-label-prefix",
        "",
        "List of prefixes of labels that are copied when creating primary deployments or daemonsets. Use * to include all.",
    ),
    (
        "ingress-annotations-prefix",
        "nginx.ingress.kubernetes.io",
        "Annotations prefix for NGINX ingresses.",
    ),
    (
        "ingress-class",
        "",
        "Ingress class used for annotating HTTPProxy objects.",
    ),
    (
        "kubeconfig",
        "",
        "Path to a kubeconfig. Only required if out-of-cluster.",
    ),
    ("kubeconfig-burst", "250", "Set Burst for kubeconfig."),
    ("kubeconfig-qps", "100", "Set QPS for kubeconfig."),
    (
        "kubeconfig-service-mesh",
        "",
        "Path to a kubeconfig for the service mesh control plane cluster.",
    ),
    (
        "leader-election-namespace",
        "kube-system",
        "Namespace used to create the leader election config map.",
    ),
    (
        "log-level",
        "debug",
        "Log level can be: debug, info, warn, error.",
    ),
    (
        "master",
        "",
        "The address of the Kubernetes API server. Overrides any value in kubeconfig.",
    ),
    // The help text lists the supported providers.
    ("mesh-provider", "istio", ""),
    (
        "metrics-server",
        "http://prometheus:9090",
        "Prometheus URL.",
    ),
    ("msteams-proxy-url", "", "MS Teams proxy URL."),
    ("msteams-url", "", "MS Teams incoming webhook URL."),
    (
        "namespace",
        "",
        "Namespace that flagger would watch canary object.",
    ),
    (
        "no-cross-namespace-refs",
        "false",
        "When set to true, Flagger can only refer to resources in the same namespace.",
    ),
    ("port", "8080", "Port to listen on."),
    (
        "selector-labels",
        "app,name,app.kubernetes.io/name",
        "List of pod labels that Flagger uses to create pod selectors.",
    ),
    ("slack-channel", "", "Slack channel."),
    ("slack-proxy-url", "", "Slack proxy URL."),
    ("slack-token", "", "Slack bot token."),
    ("slack-url", "", "Slack hook URL."),
    ("slack-user", "flagger", "Slack user name."),
    (
        "threadiness",
        "2",
        "Accepted for Flagger's sake: canaries never wait for each other.",
    ),
    ("version", "false", "Print the version and exit."),
    ("zap-encoding", "json", "Log encoding: json or console."),
];

/// Flags that Flagger's libraries have: accepted, without effect.
const TOLERATED: [(&str, &str); 16] = [
    ("add_dir_header", "false"),
    ("alsologtostderr", "false"),
    ("alsologtostderrthreshold", ""),
    ("legacy_stderr_threshold_behavior", "false"),
    ("log_backtrace_at", ""),
    ("log_dir", ""),
    ("log_file", ""),
    ("log_file_max_size", ""),
    ("logtostderr", "false"),
    ("one_output", "false"),
    ("skip_headers", "false"),
    ("skip_log_headers", "false"),
    ("stderrthreshold", ""),
    ("v", ""),
    ("vmodule", ""),
    ("zap-replace-globals", "false"),
];

/// Flags that do nothing in this version; one that is given is named in the log.
const WITHOUT_EFFECT: [&str; 4] = [
    "control-loop-interval",
    "kubeconfig-burst",
    "kubeconfig-qps",
    "threadiness",
];

/// What the process is to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Run the operator.
    Run(Box<Config>),
    /// Print the CRDs.
    Crds,
    /// Print what would come first if the operator were run like this, in a form; nothing is written.
    Check(Box<Config>, Form),
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Table,
    /// For scripts.
    Json,
}

/// The configuration as resolved.
#[derive(Clone, Debug)]
pub struct Config {
    /// Path of a kubeconfig, if out of the cluster.
    pub kubeconfig: Option<String>,
    /// Address of the API server, in place of the kubeconfig's.
    pub master: Option<String>,
    /// The only namespace that is looked at, if there is one.
    pub namespace: Option<String>,
    /// What decisions depend on.
    pub settings: Settings,
    /// Where `/metrics` and `/healthz` are.
    pub port: u16,
    /// debug, info, warn or error.
    pub log_level: String,
    /// Whether logs are JSON.
    pub log_json: bool,
    /// Whether one of several processes leads.
    pub leader_election: bool,
    /// Where the Lease is.
    pub lease_namespace: String,
    /// The chat for canaries without alerts of their own.
    pub slack: Slack,
    /// Microsoft Teams in its place, if it has an address.
    pub teams: Teams,
    /// The webhook for events of canaries without one of their own.
    pub event_webhook: Option<Secret>,
    /// Sentences about flags that were given and do nothing.
    pub remarks: Vec<String>,
}

/// The operator's own chat.
#[derive(Clone, Debug)]
pub struct Slack {
    /// Where it is, if there is one.
    pub url: Option<Secret>,
    /// The token of a bot.
    pub token: Option<Secret>,
    /// The proxy to reach it through.
    pub proxy: Option<Secret>,
    /// Who writes.
    pub user: String,
    /// Where to.
    pub channel: String,
}

/// The operator's own chat, if it is one of Microsoft Teams.
#[derive(Clone, Debug)]
pub struct Teams {
    /// Where it is, if there is one.
    pub url: Option<Secret>,
    /// The proxy to reach it through.
    pub proxy: Option<Secret>,
}

/// Reads a command line (without the program's name) and the environment.
pub fn parse(
    args: impl IntoIterator<Item = String>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Command, Exit> {
    let args: Vec<_> = args.into_iter().collect();
    let is_value = |i: usize| {
        let flag = i.checked_sub(1).and_then(|before| args.get(before));
        flag.is_some_and(|flag| flag.starts_with('-') && !flag.contains('='))
    };
    let is_late = |i: usize, word: &str| i > 0 && !is_value(i) && ["check", "crds"].contains(&word);
    // Whoever asks for something that writes nothing must not get an operator.
    let mut words = args.iter().enumerate();
    if let Some((_, word)) = words.find(|(i, word)| is_late(*i, word)) {
        return Err(wrong(&format!("{word} must be the first argument")));
    }
    let mut args = args.into_iter().peekable();
    if args.peek().map(String::as_str) == Some("crds") {
        return Ok(Command::Crds);
    }
    let checks = args.next_if(|first| first == "check").is_some();
    let known: Vec<_> = FLAGS
        .iter()
        .map(|(name, default, _)| (*name, *default))
        .chain(TOLERATED)
        .chain(checks.then_some(("o", "table")))
        .collect();
    let given = flags::read(args, &known, &usage())?;
    if given.get("version").is_some_and(|value| is_true(value)) {
        let text = format!(
            "Flagger version {} revision  {}\n",
            env!("CARGO_PKG_VERSION"),
            "unknown"
        );
        return Err(Exit { code: 0, text });
    }
    let config = Box::new(resolve(&given, env)?);
    if !checks {
        return Ok(Command::Run(config));
    }
    match given.get("o").map_or("table", String::as_str) {
        "table" => Ok(Command::Check(config, Form::Table)),
        "json" => Ok(Command::Check(config, Form::Json)),
        other => Err(wrong(&format!(
            "invalid value {other:?} for flag -o: must be table or json"
        ))),
    }
}

fn resolve(
    given: &BTreeMap<String, String>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Config, Exit> {
    let default = |name: &str| {
        FLAGS
            .iter()
            .find(|(flag, ..)| *flag == name)
            .map(|(_, default, _)| (*default).to_owned())
    };
    let text = |name: &str| {
        given
            .get(name)
            .cloned()
            .or_else(|| default(name))
            .unwrap_or_default()
    };
    let some = |name: &str| Some(text(name)).filter(|value| !value.is_empty());
    let secret = |name: &str, variable: &str| {
        env(variable)
            .filter(|value| !value.is_empty())
            .or_else(|| some(name))
            .map(Secret)
    };
    let list = |name: &str| {
        text(name)
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let number = |name: &str| {
        let value = text(name);
        integer(&value).ok_or_else(|| {
            wrong(&format!(
                "invalid value {value:?} for flag -{name}: parse error"
            ))
        })
    };
    for name in ["kubeconfig-qps", "kubeconfig-burst", "threadiness"] {
        number(name)?;
    }
    let interval = text("control-loop-interval");
    if duration::parse(&interval).is_none_or(|interval| interval == Duration::ZERO) {
        return Err(wrong(&format!(
            "invalid value {interval:?} for flag -control-loop-interval: parse error"
        )));
    }
    let encoding = text("zap-encoding");
    if !matches!(encoding.as_str(), "json" | "console") {
        return Err(Exit {
            code: 1,
            text: format!("Error creating logger: no encoder registered for name {encoding:?}\n"),
        });
    }
    if text("kubeconfig-service-mesh") != text("kubeconfig")
        && some("kubeconfig-service-mesh").is_some()
    {
        return Err(wrong(
            "flag -kubeconfig-service-mesh: a separate cluster for routes is not supported yet",
        ));
    }
    let namespace = some("namespace");
    Ok(Config {
        kubeconfig: some("kubeconfig"),
        master: some("master"),
        lease_namespace: namespace
            .clone()
            .unwrap_or_else(|| text("leader-election-namespace")),
        namespace,
        settings: Settings {
            mesh_provider: text("mesh-provider"),
            ingress_annotations_prefix: text("ingress-annotations-prefix"),
            ingress_class: text("ingress-class"),
            metrics_server: text("metrics-server"),
            selector_labels: list("selector-labels"),
            include_label_prefix: list("include-label-prefix"),
            config_tracking: is_true(&text("enable-config-tracking")),
            no_cross_namespace_refs: is_true(&text("no-cross-namespace-refs")),
            cluster_name: text("cluster-name"),
        },
        port: port(&text("port"))?,
        log_level: text("log-level"),
        log_json: encoding == "json",
        leader_election: is_true(&text("enable-leader-election")),
        slack: Slack {
            url: secret("slack-url", "SLACK_URL"),
            token: secret("slack-token", "SLACK_TOKEN"),
            proxy: secret("slack-proxy-url", "SLACK_PROXY_URL"),
            user: text("slack-user"),
            channel: text("slack-channel"),
        },
        teams: Teams {
            url: secret("msteams-url", "MSTEAMS_URL"),
            proxy: secret("msteams-proxy-url", "MSTEAMS_PROXY_URL"),
        },
        event_webhook: secret("event-webhook", "EVENT_WEBHOOK_URL"),
        remarks: remarks(given),
    })
}

/// A port: a string in Flagger, hence decimal.
fn port(value: &str) -> Result<u16, Exit> {
    value.parse().map_err(|error: ParseIntError| {
        let why = match error.kind() {
            IntErrorKind::PosOverflow => "value out of range",
            _ => "parse error",
        };
        wrong(&format!("invalid value {value:?} for flag -port: {why}"))
    })
}

fn remarks(given: &BTreeMap<String, String>) -> Vec<String> {
    let flags = WITHOUT_EFFECT
        .iter()
        .filter(|name| given.contains_key(**name))
        .map(|name| format!("flag -{name} has no effect"));
    let mesh = given
        .get("mesh-provider")
        .and_then(|mesh| mesh_remark(mesh));
    flags.chain(mesh).collect()
}

/// The warning about a `-mesh-provider` that is not supported yet or unknown; `None` if it is supported.
fn mesh_remark(mesh: &str) -> Option<String> {
    match providers::router_named(mesh) {
        Err(why) => Some(format!("flag -mesh-provider: {why}")),
        Ok(_) if providers::is_known(mesh) => None,
        Ok(_) => Some(format!(
            "unknown mesh router provider '{mesh}', using istio"
        )),
    }
}

/// An integer as Go's flags read it: signed, `0x`, `0o`, `0b` and octal `0` before it, `_` between digits.
fn integer(value: &str) -> Option<i64> {
    let (sign, digits) = match value.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", value.strip_prefix('+').unwrap_or(value)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, rest) = match lower.split_at_checked(2) {
        Some(("0x", rest)) => (16, rest),
        Some(("0o", rest)) => (8, rest),
        Some(("0b", rest)) => (2, rest),
        _ if lower.len() > 1 && lower.starts_with('0') => (8, lower.get(1..)?),
        _ => (10, lower.as_str()),
    };
    // A sign belongs before the base, an underscore between digits: after the base it is between them.
    let after_base = radix != 10 && rest.starts_with('_');
    let rest = if after_base { rest.get(1..)? } else { rest };
    if rest.split('_').any(str::is_empty) || rest.starts_with(['+', '-']) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{}", rest.replace('_', "")), radix).ok()
}

fn wrong(problem: &str) -> Exit {
    Exit::wrong(problem, &usage())
}

fn usage() -> String {
    let meshes = format!("Service mesh provider: {}.", providers::routed().join(", "));
    let flags = FLAGS.map(|(name, default, purpose)| match name {
        "mesh-provider" => (name, default, meshes.as_str()),
        _ => (name, default, purpose),
    });
    flags::usage("flagger", &flags)
        + "  crds\n    \tAs the first argument: print the CRDs.\n"
        + "  check\n    \tAs the first argument: print what would come first for each canary if flagger were started with these flags, and\n    \twhich rights are missing. Writes nothing. Ends with 0 if all would stay as it is, else with 1. With -o json for scripts.\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str], env: &[(&str, &str)]) -> Result<Config, Exit> {
        let env: BTreeMap<_, _> = env
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        match parse(args.iter().map(|arg| (*arg).to_owned()), |name| {
            env.get(name).cloned()
        })? {
            Command::Run(config) => Ok(*config),
            Command::Crds | Command::Check(..) => panic!("another command"),
        }
    }

    #[test]
    fn a_check_takes_the_flags_of_what_it_is_about_and_a_form() {
        let check = |args: &[&str]| parse(args.iter().map(|arg| (*arg).to_owned()), |_| None);
        let Ok(Command::Check(config, Form::Json)) = check(&[
            "check",
            "-o",
            "json",
            "-mesh-provider=nginx",
            "-namespace=n",
        ]) else {
            panic!("no check");
        };
        assert_eq!(config.settings.mesh_provider, "nginx");
        assert_eq!(config.namespace.as_deref(), Some("n"));
        assert!(matches!(
            check(&["check"]),
            Ok(Command::Check(_, Form::Table))
        ));
        for (args, problem) in [
            (
                &["check", "-o=yaml"][..],
                "invalid value \"yaml\" for flag -o: must be table or json",
            ),
            (&["-o=json"], "flag provided but not defined: -o"),
            (
                &["-namespace=n", "check"],
                "check must be the first argument",
            ),
        ] {
            let exit = check(args).unwrap_err();
            assert_eq!((exit.code, exit.text.lines().next().unwrap()), (2, problem));
        }
    }

    #[test]
    fn flaggers_own_command_lines_are_understood() {
        let config = run(
            &[
                "-log-level=info",
                "--port",
                "8081",
                "-enable-leader-election",
                "-enable-config-tracking=false",
                "-include-label-prefix=a,b",
                "-v=4",
            ],
            &[],
        )
        .unwrap();
        assert_eq!(
            (
                config.log_level.as_str(),
                config.port,
                config.leader_election,
                config.settings.config_tracking
            ),
            ("info", 8081, true, false)
        );
        assert_eq!(config.settings.include_label_prefix, ["a", "b"]);
        assert_eq!(
            config.settings.selector_labels,
            ["app", "name", "app.kubernetes.io/name"]
        );
        assert_eq!(config.lease_namespace, "kube-system");
        assert_eq!(run(&["-namespace=n"], &[]).unwrap().lease_namespace, "n");
    }

    #[test]
    fn the_environment_wins() {
        let config = run(
            &[
                "-slack-url=http://flag",
                "-event-webhook=http://flag",
                "-msteams-proxy-url=http://flag",
            ],
            &[
                ("SLACK_URL", "http://env"),
                ("EVENT_WEBHOOK_URL", ""),
                ("MSTEAMS_URL", "http://env"),
            ],
        )
        .unwrap();
        assert_eq!(config.slack.url.unwrap().0, "http://env");
        assert_eq!(config.teams.url.unwrap().0, "http://env");
        assert_eq!(config.teams.proxy.unwrap().0, "http://flag");
        assert_eq!(config.event_webhook.unwrap().0, "http://flag");
    }

    #[test]
    fn what_cannot_be_understood_ends_with_2_and_the_usage() {
        for (args, problem) in [
            (
                &["-nonsense"][..],
                "flag provided but not defined: -nonsense",
            ),
            (&["-port"], "flag needs an argument: -port"),
            (
                &["-port=x"],
                "invalid value \"x\" for flag -port: parse error",
            ),
            (&["---port=1"], "bad flag syntax: ---port=1"),
            (&["-=1"], "bad flag syntax: -=1"),
            (
                &["-threadiness=two"],
                "invalid value \"two\" for flag -threadiness: parse error",
            ),
            (
                &["-port=70000"],
                "invalid value \"70000\" for flag -port: value out of range",
            ),
            (
                &["-version=x"],
                "invalid boolean value \"x\" for -version: parse error",
            ),
        ] {
            let exit = run(args, &[]).unwrap_err();
            assert_eq!((exit.code, exit.text.lines().next().unwrap()), (2, problem));
            assert!(exit.text.contains("Usage of flagger"));
        }
        assert_eq!(run(&["-h"], &[]).unwrap_err().code, 0);
        assert!(
            run(&["-version"], &[])
                .unwrap_err()
                .text
                .starts_with("Flagger version ")
        );
    }

    #[test]
    fn numbers_are_gos() {
        assert_eq!(run(&["-port=08080"], &[]).unwrap().port, 8080);
        for value in ["-1", "+5", "0x10", "1_000", "017"] {
            assert!(
                run(&[&format!("-kubeconfig-qps={value}")], &[]).is_ok(),
                "{value}"
            );
        }
        for (text, value) in [
            ("-0x1F", Some(-31)),
            ("0b101", Some(5)),
            ("0o17", Some(15)),
            ("017", Some(15)),
            ("0x_1f", Some(31)),
            ("0", Some(0)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("08", None),
            ("_1", None),
            ("1__0", None),
            ("1_", None),
            ("+-1", None),
            ("--1", None),
            ("0x-1", None),
            ("", None),
            ("1.5", None),
            ("0x", None),
        ] {
            assert_eq!(integer(text), value, "{text:?}");
        }
    }

    #[test]
    fn the_flags_end_where_go_ends_them() {
        for args in [
            &["--", "-nonsense"][..],
            &["-", "-nonsense"],
            &["x", "-nonsense"],
        ] {
            assert!(run(args, &[]).is_ok(), "{args:?}");
        }
        assert_eq!(
            run(&["-cluster-name", "-port"], &[])
                .unwrap()
                .settings
                .cluster_name,
            "-port"
        );
    }

    #[test]
    fn a_mesh_that_is_not_supported_yet_is_named_at_the_start() {
        assert!(
            run(&["-mesh-provider=istio"], &[])
                .unwrap()
                .remarks
                .is_empty()
        );
        assert_eq!(
            run(&["-mesh-provider=skipper"], &[]).unwrap().remarks,
            [
                "flag -mesh-provider: skipper is not supported yet, only contour, gatewayapi:v1, gatewayapi:v1beta1, istio, kubernetes, linkerd, nginx, osm, smi:v1alpha1, smi:v1alpha2 and smi:v1alpha3 are"
            ]
        );
        assert_eq!(
            run(&["-mesh-provider=gatewayapi"], &[]).unwrap().remarks,
            ["unknown mesh router provider 'gatewayapi', using istio"]
        );
        let help = run(&["-h"], &[]).unwrap_err().text;
        assert!(
            help.contains("osm, smi:v1alpha1, smi:v1alpha2, smi:v1alpha3. (default istio)"),
            "{help}"
        );
    }

    #[test]
    fn a_flag_without_effect_says_so() {
        assert_eq!(
            run(&["-threadiness=4"], &[]).unwrap().remarks,
            ["flag -threadiness has no effect"]
        );
    }

    #[test]
    fn secrets_are_not_printed() {
        assert!(!format!("{:?}", run(&["-slack-token=hush"], &[]).unwrap()).contains("hush"));
    }
}
