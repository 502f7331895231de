use std::collections::BTreeMap;

use super::*;
use crate::snapshot::Secret;

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
fn check_takes_the_flags_of_the_operator_and_an_output_format() {
    let check = |args: &[&str]| parse(args.iter().map(|arg| (*arg).to_owned()), |_| None);
    let Ok(Command::Check(config, Output::Json)) = check(&[
        "check",
        "-o",
        "json",
        "-mesh-provider=nginx",
        "-namespace=n",
    ]) else {
        panic!("no check");
    };
    assert_eq!(config.settings.mesh_provider, "nginx");
    assert_eq!(config.watched.namespace.as_deref(), Some("n"));
    assert!(matches!(
        check(&["check"]),
        Ok(Command::Check(_, Output::Table))
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
fn users_may_have_any_address_called_except_link_local_ones_and_flags_change_that() {
    let destinations = |args: &[&str]| run(args, &[]).unwrap().destinations;
    let default = destinations(&[]);
    assert!(default.loopback && !default.link_local && default.hosts.is_empty());
    assert!(destinations(&["-allow-link-local"]).link_local);
    assert!(!destinations(&["-refuse-loopback=true"]).loopback);
    let hosts = destinations(&["-allowed-hosts=a.example, *.test"]).hosts;
    assert_eq!(hosts.to_string(), "a.example, *.test");
}

#[test]
fn command_lines_of_flagger_are_understood() {
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
fn environment_variables_win_over_flags() {
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
fn an_invalid_command_line_exits_with_2_and_prints_the_usage() {
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
        (
            &["-watch-label-selector=a>1"],
            "flag -watch-label-selector: \"a>1\" is no label selector: write key=value, key!=value, key in (a,b), key notin (a,b), key or !key, separated by commas",
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
fn numbers_have_the_syntax_of_go() {
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
        assert_eq!(syntax::integer(text), value, "{text:?}");
    }
}

#[test]
fn flags_end_where_they_end_in_go() {
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
fn an_unknown_mesh_provider_causes_a_warning() {
    assert!(
        run(&["-mesh-provider=istio"], &[])
            .unwrap()
            .warnings
            .is_empty()
    );
    assert_eq!(
        run(&["-mesh-provider=gatewayapi"], &[]).unwrap().warnings,
        ["unknown mesh router provider 'gatewayapi', using istio"]
    );
}

#[test]
fn a_flag_without_effect_causes_a_warning() {
    assert_eq!(
        run(&["-threadiness=4"], &[]).unwrap().warnings,
        ["flag -threadiness has no effect"]
    );
}

#[test]
fn secrets_are_not_printed() {
    assert!(!format!("{:?}", run(&["-slack-token=hush"], &[]).unwrap()).contains("hush"));
}

#[test]
fn the_table_of_flags_is_sorted_and_is_the_usage() {
    assert!(FLAGS.is_sorted_by_key(|flag| flag.name));
    let usage = run(&["-h"], &[]).unwrap_err().text;
    for flag in FLAGS {
        let (name, help) = (flag.name, flag.help());
        assert!(
            usage.contains(&format!("  -{name}\n    \t{help}")),
            "{name}"
        );
    }
    let meshes = "osm, skipper, smi:v1alpha1, smi:v1alpha2, smi:v1alpha3, traefik. (default istio)";
    assert!(usage.contains(meshes), "{usage}");
}

/// Flags and variables, and what each of them sets.
#[test]
fn each_flag_has_its_effect() {
    type Effect = fn(&Config) -> bool;
    let secret = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.0.clone());
    let cases: [(&str, Effect); 22] = [
        ("-cluster-name=x", |c| c.settings.cluster_name == "x"),
        ("-enable-config-tracking=false", |c| {
            !c.settings.config_tracking
        }),
        ("-enable-leader-election", |c| c.leader_election),
        ("-include-label-prefix=x", |c| {
            c.settings.include_label_prefix == ["x"]
        }),
        ("-ingress-annotations-prefix=x", |c| {
            c.settings.ingress_annotations_prefix == "x"
        }),
        ("-ingress-class=x", |c| c.settings.ingress_class == "x"),
        ("-kubeconfig=x", |c| c.kubeconfig.as_deref() == Some("x")),
        ("-leader-election-namespace=x", |c| c.lease_namespace == "x"),
        ("-log-level=x", |c| c.log_level == "x"),
        ("-master=x", |c| c.master.as_deref() == Some("x")),
        ("-mesh-provider=x", |c| c.settings.mesh_provider == "x"),
        ("-metrics-server=x", |c| c.settings.metrics_server == "x"),
        ("-namespace=x", |c| {
            c.watched.namespace.as_deref() == Some("x")
        }),
        ("-no-cross-namespace-refs", |c| {
            c.settings.no_cross_namespace_refs
        }),
        ("-port=9", |c| c.port == 9),
        ("-selector-labels=x", |c| {
            c.settings.selector_labels == ["x"]
        }),
        ("-slack-channel=x", |c| c.slack.channel == "x"),
        ("-slack-user=x", |c| c.slack.user == "x"),
        ("-zap-encoding=console", |c| !c.log_json),
        ("-event-webhook=x", |c| c.event_webhook.is_some()),
        ("-slack-token=x", |c| c.slack.token.is_some()),
        ("-watch-label-selector=x", |c| {
            let shard = c.watched.shard.as_ref();
            shard.is_some_and(|shard| shard.as_str() == "x")
        }),
    ];
    let default = run(&[], &[]).unwrap();
    for (flag, has_effect) in cases {
        assert!(!has_effect(&default), "{flag}");
        assert!(has_effect(&run(&[flag], &[]).unwrap()), "{flag}");
    }
    for (flag, variable, of) in [
        (
            "event-webhook",
            "EVENT_WEBHOOK_URL",
            (|c| &c.event_webhook) as fn(&Config) -> &Option<Secret>,
        ),
        ("msteams-proxy-url", "MSTEAMS_PROXY_URL", |c| &c.teams.proxy),
        ("msteams-url", "MSTEAMS_URL", |c| &c.teams.url),
        ("slack-proxy-url", "SLACK_PROXY_URL", |c| &c.slack.proxy),
        ("slack-token", "SLACK_TOKEN", |c| &c.slack.token),
        ("slack-url", "SLACK_URL", |c| &c.slack.url),
    ] {
        assert_eq!(secret(of(&default)), None, "{flag}");
        let given = run(&[&format!("-{flag}=x")], &[]).unwrap();
        assert_eq!(secret(of(&given)).as_deref(), Some("x"), "{flag}");
        let given = run(&[], &[(variable, "y")]).unwrap();
        assert_eq!(secret(of(&given)).as_deref(), Some("y"), "{variable}");
    }
}

#[test]
fn the_defaults_are_flaggers() {
    let config = run(&[], &[]).unwrap();
    let settings = &config.settings;
    assert_eq!((config.port, config.log_level.as_str()), (8080, "debug"));
    assert!(config.log_json && !config.leader_election);
    assert_eq!(config.slack.user, "flagger");
    assert_eq!(settings.mesh_provider, "istio");
    assert_eq!(settings.metrics_server, "http://prometheus:9090");
    let prefix = settings.ingress_annotations_prefix.as_str();
    assert_eq!(prefix, "nginx.ingress.kubernetes.io");
    assert!(settings.config_tracking && !settings.no_cross_namespace_refs);
    assert!(settings.include_label_prefix.is_empty());
}

#[test]
fn values_that_flagger_refuses_are_refused() {
    let refused = |flag: &str| run(&[flag], &[]).unwrap_err();
    assert_eq!(refused("-zap-encoding=xml").code, 1);
    assert_eq!(refused("-control-loop-interval=0s").code, 2);
    assert_eq!(refused("-control-loop-interval=soon").code, 2);
    let mesh = refused("-kubeconfig-service-mesh=/other");
    assert!(mesh.text.contains("is not possible"), "{}", mesh.text);
    let same = ["-kubeconfig-service-mesh=/a", "-kubeconfig=/a"];
    assert!(run(&same, &[]).is_ok());
}
