use std::time::Duration;

use super::{
    complete::{Candidates, candidates},
    *,
};

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

fn line(text: &str) -> Result<Line, Exit> {
    parse(Program::Plugin, &words(text), false)
}

#[test]
fn kubectls_flags_may_be_before_and_after_the_verb() {
    for text in [
        "get podinfo -n shop --context prod --as jane -o json",
        "-n shop --context prod --as jane get podinfo -ojson",
        "--namespace=shop --context=prod --as=jane get --output=json podinfo",
    ] {
        let Line { verb, reach } = line(text).unwrap();
        let Verb::Get(get) = verb else {
            panic!("{text} is not get");
        };
        assert_eq!((get.name.as_str(), get.output), ("podinfo", Format::Json));
        assert_eq!(reach.namespace.as_deref(), Some("shop"));
        assert_eq!(reach.context.as_deref(), Some("prod"));
        assert_eq!(reach.as_user.as_deref(), Some("jane"));
    }
}

#[test]
fn a_time_is_written_as_in_go_and_wait_can_be_turned_off() {
    let Ok(Line {
        verb: Verb::Status(status),
        ..
    }) = line("status a --timeout 1h30m")
    else {
        panic!("no status");
    };
    assert_eq!(status.timeout, Some(Duration::from_secs(5_400)));
    for (text, waits) in [
        ("pause a", true),
        ("pause a --wait", true),
        ("pause a --wait=false", false),
    ] {
        let Ok(Line {
            verb: Verb::Pause(act),
            ..
        }) = line(text)
        else {
            panic!("no pause");
        };
        assert_eq!(act.wait, waits, "{text}");
    }
}

#[test]
fn a_wrong_command_line_ends_with_2_and_help_with_0() {
    for text in [
        "",
        "promot a",
        "get",
        "status a --timeout soon",
        "status a --image b --revision c",
        "list --nonsense",
    ] {
        let exit = line(text).unwrap_err();
        assert_eq!(exit.code, 2, "{text}: {}", exit.text);
        assert!(!exit.text.contains('\u{1b}'), "{}", exit.text);
    }
    let exit = line("status a --timeout soon").unwrap_err();
    assert!(
        exit.text.contains("time: invalid duration \"soon\""),
        "{}",
        exit.text
    );
    for verb in VERBS
        .into_iter()
        .filter(|verb| !["help", "version", "completion"].contains(verb))
    {
        let Exit { code, text } = line(&format!("{verb} --help")).unwrap_err();
        assert_eq!(code, 0, "{verb}");
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(CODES), "{verb}: {text}");
        assert!(text.contains("kubectl flagger"), "{verb}: {text}");
    }
}

#[test]
fn every_verb_is_known_as_one() {
    let command = command(Program::Flagger);
    let known = command
        .get_subcommands()
        .flat_map(|verb| std::iter::once(verb.get_name()).chain(verb.get_all_aliases()));
    let known: std::collections::BTreeSet<_> = known.chain(["help"]).collect();
    assert_eq!(known, VERBS.into_iter().collect());
}

#[test]
fn the_plugin_is_for_people_and_flagger_with_a_verb_too() {
    assert_eq!(Program::called("/usr/bin/kubectl-flagger"), Program::Plugin);
    assert_eq!(Program::called("./flagger"), Program::Flagger);
    for (program, text, expected) in [
        (Program::Flagger, "list -A", true),
        (Program::Flagger, "-mesh-provider=istio", false),
        (Program::Flagger, "", false),
        (Program::Flagger, "-n shop status podinfo", true),
        (Program::Flagger, "--context=prod -n shop list", true),
        (Program::Flagger, "-n list", false),
        (Program::Flagger, "--kubeconfig a --namespace shop", false),
        (Program::Flagger, "-n shop check", false),
        (Program::Flagger, "-namespace status", false),
        (Program::Flagger, "-log-level list -n a get b", false),
        // A mistyped verb starts no operator.
        (Program::Flagger, "abbort podinfo", true),
        (Program::Flagger, "check -o json", false),
        (Program::Plugin, "crds", false),
        (Program::Plugin, "-n shop list", true),
        (Program::Plugin, "nonsense", true),
    ] {
        assert_eq!(is_meant(program, &words(text)), expected, "{text}");
    }
    assert!(is_meant(Program::Plugin, &[]) && !is_meant(Program::Flagger, &[]));
}

#[test]
fn verbs_flags_and_their_values_are_completed() {
    let names = |text: &str| match candidates(&words(text)) {
        Candidates::Words(words) => words.into_iter().map(|(word, _)| word).collect::<Vec<_>>(),
        other => panic!("{text}: {other:?}"),
    };
    assert!(names("").contains(&"promote".to_owned()));
    assert_eq!(
        names("-n shop get podinfo -o "),
        ["table", "wide", "json", "yaml", "name"]
    );
    assert_eq!(
        names("status a --until "),
        ["promoted", "ended", "paused", "failed"]
    );
    assert!(names("abort a --").contains(&"--reason".to_owned()));
    assert!(names("abort a --").contains(&"--namespace".to_owned()));
    assert!(names("list --phase ").contains(&"WaitingPromotion".to_owned()));
    assert!(line("list --phase waitingpromotion").is_ok() && line("list --phase running").is_err());
    assert_eq!(names("completion "), ["bash", "zsh", "fish", "kubectl"]);
    for (text, expected) in [
        ("abort ", Candidates::Canaries),
        ("-n shop get ", Candidates::Canaries),
        ("list -n ", Candidates::Namespaces),
        ("list --context ", Candidates::Contexts),
        ("list --kubeconfig ", Candidates::Files),
        (
            "explain -o json a --release ",
            Candidates::Releases("a".to_owned()),
        ),
    ] {
        assert_eq!(candidates(&words(text)), expected, "{text}");
    }
    assert_eq!(
        complete::namespace(&words("get -n shop a")).as_deref(),
        Some("shop")
    );
    assert_eq!(
        complete::namespace(&words("get --namespace=shop a")).as_deref(),
        Some("shop")
    );
}

#[test]
fn commands_to_type_next_have_the_flags_that_choose_the_cluster() {
    let args = words(
        "get podinfo --context prod --kubeconfig /my/config;id --as jane --as-group a --as-group=b -n test",
    );
    let line = parse(Program::Flagger, &args, false).unwrap();
    let expected =
        "--context prod --kubeconfig '/my/config;id' --as jane --as-group a --as-group b";
    assert_eq!(line.reach.flags().join(" "), expected);
    assert!(Reach::default().flags().is_empty());
}

#[test]
fn a_canary_is_named_as_kubectl_and_the_form_name_do() {
    for text in [
        "podinfo",
        "canary/podinfo",
        "canaries/podinfo",
        "canary.flagger.app/podinfo",
        "canaries.flagger.app/podinfo",
    ] {
        let line = parse(Program::Flagger, &words(&format!("get {text}")), false).unwrap();
        let Verb::Get(get) = line.verb else {
            panic!("{text}");
        };
        assert_eq!(get.name, "podinfo", "{text}");
    }
    for text in ["deployment/podinfo", "canary/", "test/podinfo"] {
        assert!(
            parse(Program::Flagger, &words(&format!("get {text}")), false).is_err(),
            "{text}"
        );
    }
}
