//! The configuration: the meaning of flags, environment variables and defaults.

use std::{
    collections::BTreeMap,
    num::{IntErrorKind, ParseIntError},
    time::Duration,
};

use super::{
    flags::{FLAGS, FlagSpec, invalid},
    syntax::{Exit, integer, is_true},
};
use crate::{
    api::duration,
    providers,
    snapshot::{Destinations, HostList, Secret, Settings, Shard, Watched},
};

/// The configuration: flags and environment variables with their defaults applied.
#[derive(Clone, Debug)]
pub struct Config {
    /// The path of a kubeconfig, outside of a cluster.
    pub kubeconfig: Option<String>,
    /// The address of the API server, in place of the one in the kubeconfig.
    pub master: Option<String>,
    /// The canaries that this operator reconciles.
    pub watched: Watched,
    /// The settings that decisions depend on.
    pub settings: Settings,
    /// The addresses that the operator may call on behalf of users.
    pub destinations: Destinations,
    /// The port of `/metrics` and `/healthz`.
    pub port: u16,
    /// The level of the logs: debug, info, warn or error.
    pub log_level: String,
    /// Whether logs are JSON.
    pub log_json: bool,
    /// Whether several processes elect a leader.
    pub leader_election: bool,
    /// The namespace of the Lease.
    pub lease_namespace: String,
    /// The chat for canaries without alerts of their own.
    pub slack: Slack,
    /// Microsoft Teams; replaces Slack if it has an address.
    pub teams: Teams,
    /// The event webhook for canaries without one of their own.
    pub event_webhook: Option<Secret>,
    /// The number of records that are kept of each canary; 0 for none.
    pub release_history: usize,
    /// Sentences about flags that have no effect or a doubtful value.
    pub warnings: Vec<String>,
}

/// The operator's own chat.
#[derive(Clone, Debug)]
pub struct Slack {
    /// Its address.
    pub url: Option<Secret>,
    /// The token of a bot.
    pub token: Option<Secret>,
    /// The proxy to it.
    pub proxy: Option<Secret>,
    /// The name of the sender.
    pub user: String,
    /// The channel.
    pub channel: String,
}

/// The operator's own chat at Microsoft Teams.
#[derive(Clone, Debug)]
pub struct Teams {
    /// Its address.
    pub url: Option<Secret>,
    /// The proxy to it.
    pub proxy: Option<Secret>,
}

/// The values of the flags.
struct Values<'a, E> {
    given: &'a BTreeMap<String, String>,
    env: E,
}

impl<E: Fn(&str) -> Option<String>> Values<'_, E> {
    /// Returns the value of a flag or its default.
    fn text(&self, name: &str) -> String {
        let default = || flag(name).map(|flag| flag.default.to_owned());
        let given = self.given.get(name).cloned();
        given.or_else(default).unwrap_or_default()
    }

    /// Returns `None` for an empty value.
    fn non_empty(&self, name: &str) -> Option<String> {
        Some(self.text(name)).filter(|value| !value.is_empty())
    }

    /// Returns the value of the environment variable, or else that of the flag.
    fn secret(&self, name: &str) -> Option<Secret> {
        let variable = flag(name).and_then(|flag| flag.env);
        let from_env = variable.and_then(|variable| (self.env)(variable));
        from_env
            .filter(|value| !value.is_empty())
            .or_else(|| self.non_empty(name))
            .map(Secret)
    }

    fn list(&self, name: &str) -> Vec<String> {
        self.text(name)
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(str::to_owned)
            .collect()
    }

    fn is_set(&self, name: &str) -> bool {
        is_true(&self.text(name))
    }
}

fn flag(name: &str) -> Option<&'static FlagSpec> {
    FLAGS.iter().find(|flag| flag.name == name)
}

/// Combines the given flags, the environment and the defaults.
///
/// # Errors
/// A value is invalid.
pub fn resolve(
    given: &BTreeMap<String, String>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Config, Exit> {
    let values = Values { given, env };
    validate(&values)?;
    let namespace = values.non_empty("namespace");
    let lease_namespace = namespace.clone();
    Ok(Config {
        kubeconfig: values.non_empty("kubeconfig"),
        master: values.non_empty("master"),
        lease_namespace: lease_namespace
            .unwrap_or_else(|| values.text("leader-election-namespace")),
        watched: Watched {
            namespace,
            shard: shard(&values)?,
        },
        settings: Settings {
            mesh_provider: values.text("mesh-provider"),
            ingress_annotations_prefix: values.text("ingress-annotations-prefix"),
            ingress_class: values.text("ingress-class"),
            metrics_server: values.text("metrics-server"),
            selector_labels: values.list("selector-labels"),
            include_label_prefix: values.list("include-label-prefix"),
            config_tracking: values.is_set("enable-config-tracking"),
            no_cross_namespace_refs: values.is_set("no-cross-namespace-refs"),
            cluster_name: values.text("cluster-name"),
        },
        destinations: Destinations {
            hosts: HostList::read(&values.text("allowed-hosts")),
            link_local: values.is_set("allow-link-local"),
            loopback: !values.is_set("refuse-loopback"),
        },
        port: port(&values.text("port"))?,
        log_level: values.text("log-level"),
        log_json: values.text("zap-encoding") == "json",
        leader_election: values.is_set("enable-leader-election"),
        slack: Slack {
            url: values.secret("slack-url"),
            token: values.secret("slack-token"),
            proxy: values.secret("slack-proxy-url"),
            user: values.text("slack-user"),
            channel: values.text("slack-channel"),
        },
        teams: Teams {
            url: values.secret("msteams-url"),
            proxy: values.secret("msteams-proxy-url"),
        },
        event_webhook: values.secret("event-webhook"),
        release_history: release_history(&values.text("release-history"))?,
        warnings: warnings(given),
    })
}

/// Checks the values that Flagger checks, also those of flags without effect.
fn validate<E: Fn(&str) -> Option<String>>(values: &Values<'_, E>) -> Result<(), Exit> {
    let parse_error = |name: &str, value: &str| {
        invalid(&format!(
            "invalid value {value:?} for flag -{name}: parse error"
        ))
    };
    for name in ["kubeconfig-qps", "kubeconfig-burst", "threadiness"] {
        let value = values.text(name);
        if integer(&value).is_none() {
            return Err(parse_error(name, &value));
        }
    }
    let interval = values.text("control-loop-interval");
    if duration::parse(&interval).is_none_or(|interval| interval == Duration::ZERO) {
        return Err(parse_error("control-loop-interval", &interval));
    }
    let encoding = values.text("zap-encoding");
    if !matches!(encoding.as_str(), "json" | "console") {
        return Err(Exit {
            code: 1,
            text: format!("Error creating logger: no encoder registered for name {encoding:?}\n"),
        });
    }
    let mesh_cluster = values.non_empty("kubeconfig-service-mesh");
    if mesh_cluster.is_some_and(|mesh_cluster| mesh_cluster != values.text("kubeconfig")) {
        return Err(invalid(
            "flag -kubeconfig-service-mesh: a separate cluster for routes is not possible",
        ));
    }
    Ok(())
}

/// Parses the label selector of the canaries.
fn shard<E: Fn(&str) -> Option<String>>(values: &Values<'_, E>) -> Result<Option<Shard>, Exit> {
    let selector = values.non_empty("watch-label-selector");
    let shard = selector.map(|selector| Shard::parse(&selector)).transpose();
    shard.map_err(|error| invalid(&format!("flag -watch-label-selector: {error}")))
}

/// Parses a port. It is a string in Flagger, hence always decimal.
fn port(value: &str) -> Result<u16, Exit> {
    value.parse().map_err(|error: ParseIntError| {
        let why = match error.kind() {
            IntErrorKind::PosOverflow => "value out of range",
            _ => "parse error",
        };
        invalid(&format!("invalid value {value:?} for flag -port: {why}"))
    })
}

fn release_history(value: &str) -> Result<usize, Exit> {
    let count = value.parse();
    count.map_err(|_| {
        invalid(&format!(
            "invalid value {value:?} for flag -release-history: it is not a number from 0 on"
        ))
    })
}

fn warnings(given: &BTreeMap<String, String>) -> Vec<String> {
    let without_effect = FLAGS
        .iter()
        .filter(|flag| !flag.has_effect && given.contains_key(flag.name))
        .map(|flag| format!("flag -{} has no effect", flag.name));
    let mesh = given.get("mesh-provider");
    let mesh = mesh.and_then(|mesh| mesh_warning(mesh));
    without_effect.chain(mesh).collect()
}

/// Returns the warning about a mesh provider that is unknown.
fn mesh_warning(mesh: &str) -> Option<String> {
    let unknown = || format!("unknown mesh router provider '{mesh}', using istio");
    (!providers::is_known(mesh)).then(unknown)
}
