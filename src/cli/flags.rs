//! The flags of the operator as data: parsing, `-h` and the reference documentation read this table.

use std::borrow::Cow;

use super::syntax::{self, Exit};
use crate::providers;

/// A flag of the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlagSpec {
    /// Its name, without the dash.
    pub name: &'static str,
    /// The environment variable whose value takes precedence over the flag.
    pub env: Option<&'static str>,
    /// Its default. A flag whose default is `true` or `false` needs no value.
    pub default: &'static str,
    help: &'static str,
    /// Whether the flag does anything. A flag without effect is accepted for compatibility with Flagger.
    pub has_effect: bool,
}

/// All flags of the operator, in alphabetical order.
pub const FLAGS: [FlagSpec; 36] = [
    flag(
        "allow-link-local",
        "false",
        "Call webhooks, metric servers, chats and proxies of users also at link-local addresses and at the metadata services of clouds.",
    ),
    flag(
        "allowed-hosts",
        "",
        "List of the only hosts that may be called as webhooks, metric servers, chats and proxies of users. *.example.com stands for all names below example.com. Default: any host.",
    ),
    flag(
        "cluster-name",
        "",
        "Cluster name to be included in alert msgs.",
    ),
    flag(
        "control-loop-interval",
        "10s",
        "No effect; accepted for compatibility with Flagger. Changes are watched, not polled.",
    )
    .without_effect(),
    flag(
        "enable-config-tracking",
        "true",
        "Enable secrets and configmaps tracking.",
    ),
    flag("enable-leader-election", "false", "Enable leader election."),
    flag("event-webhook", "", "Webhook for publishing flagger events").env("EVENT_WEBHOOK_URL"),
    flag(
        "include-label-prefix",
        "",
        "List of prefixes of labels that are copied when creating primary deployments or daemonsets. Use * to include all.",
    ),
    flag(
        "ingress-annotations-prefix",
        "nginx.ingress.kubernetes.io",
        "Annotations prefix for NGINX ingresses.",
    ),
    flag(
        "ingress-class",
        "",
        "Ingress class used for annotating HTTPProxy objects.",
    ),
    flag(
        "kubeconfig",
        "",
        "Path to a kubeconfig. Only required if out-of-cluster.",
    ),
    flag(
        "kubeconfig-burst",
        "250",
        "No effect; accepted for compatibility with Flagger.",
    )
    .without_effect(),
    flag(
        "kubeconfig-qps",
        "100",
        "No effect; accepted for compatibility with Flagger.",
    )
    .without_effect(),
    flag(
        "kubeconfig-service-mesh",
        "",
        "Path to a kubeconfig for the service mesh control plane cluster.",
    ),
    flag(
        "leader-election-namespace",
        "kube-system",
        "Namespace of the Lease of the leader election, unless -namespace is set.",
    ),
    flag(
        "log-level",
        "debug",
        "Log level can be: debug, info, warn, error.",
    ),
    flag(
        "master",
        "",
        "The address of the Kubernetes API server. Overrides any value in kubeconfig.",
    ),
    flag("mesh-provider", "istio", "Service mesh provider."),
    flag(
        "metrics-server",
        "http://prometheus:9090",
        "Prometheus URL.",
    ),
    flag("msteams-proxy-url", "", "MS Teams proxy URL.").env("MSTEAMS_PROXY_URL"),
    flag("msteams-url", "", "MS Teams incoming webhook URL.").env("MSTEAMS_URL"),
    flag(
        "namespace",
        "",
        "Namespace that flagger would watch canary object.",
    ),
    flag(
        "no-cross-namespace-refs",
        "false",
        "When set to true, Flagger can only refer to resources in the same namespace. This includes gateways, hosts of Services and mirrors of the routes.",
    ),
    flag("port", "8080", "Port to listen on."),
    flag(
        "refuse-loopback",
        "false",
        "Refuse to call webhooks, metric servers, chats and proxies of users in the operator's own pod. Sidecar proxies may need such calls.",
    ),
    flag(
        "release-history",
        "3",
        "Number of records (objects of the kind Release) that are kept of each canary, besides the last promoted and the last failed one. 0: none are written.",
    ),
    flag(
        "selector-labels",
        "app,name,app.kubernetes.io/name",
        "List of pod labels that Flagger uses to create pod selectors.",
    ),
    flag("slack-channel", "", "Slack channel."),
    flag("slack-proxy-url", "", "Slack proxy URL.").env("SLACK_PROXY_URL"),
    flag("slack-token", "", "Slack bot token.").env("SLACK_TOKEN"),
    flag("slack-url", "", "Slack hook URL.").env("SLACK_URL"),
    flag("slack-user", "flagger", "Slack user name."),
    flag(
        "threadiness",
        "2",
        "No effect; accepted for compatibility with Flagger. Canaries never wait for each other.",
    )
    .without_effect(),
    flag("version", "false", "Print the version and exit."),
    flag(
        "watch-label-selector",
        "",
        "Reconcile only the canaries whose labels match, for example sharding.fluxcd.io/key=one. Several operators can share the canaries of a cluster in this way.",
    ),
    flag("zap-encoding", "json", "Log encoding: json or console."),
];

/// Flags of Flagger's libraries, with their defaults. They are accepted without effect and are in no documentation.
pub(super) const LIBRARY_FLAGS: [(&str, &str); 16] = [
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

const fn flag(name: &'static str, default: &'static str, help: &'static str) -> FlagSpec {
    FlagSpec {
        name,
        env: None,
        default,
        help,
        has_effect: true,
    }
}

impl FlagSpec {
    const fn env(self, name: &'static str) -> Self {
        Self {
            env: Some(name),
            ..self
        }
    }

    const fn without_effect(self) -> Self {
        Self {
            has_effect: false,
            ..self
        }
    }

    /// Returns its help text.
    pub fn help(&self) -> Cow<'static, str> {
        match self.name {
            "mesh-provider" => {
                let names = providers::routed().join(", ");
                Cow::Owned(format!("{} One of {names}.", self.help))
            }
            _ => Cow::Borrowed(self.help),
        }
    }
}

/// Returns the text of `-h`.
pub(super) fn usage() -> String {
    let help = FLAGS.map(|flag| flag.help());
    let flags = FLAGS.iter().zip(&help);
    let rows = flags.map(|(flag, help)| (flag.name, flag.default, help.as_ref()));
    syntax::usage("flagger", rows) + COMMANDS
}

/// The commands, which are not flags: the usage lists them after the flags.
const COMMANDS: &str = "  crds
    \tAs the first argument: print the CRDs.
  check
    \tAs the first argument: print what flagger would do first for each canary if it were started with these flags, and which rights
    \tare missing. Writes nothing. Exits with 0 if no canary would change and no right is missing, else with 1. -o json prints JSON.
  list, get, watch, status, explain, history, promote, skip, pause, resume, abort, retry, lint, plan, backtest, version, completion
    \tAs the first argument: watch and steer releases, in kubectl's syntax. flagger help prints the verbs, and their flags.
";

/// The command line is invalid for this reason.
pub(super) fn invalid(problem: &str) -> Exit {
    Exit::invalid(problem, &usage())
}
