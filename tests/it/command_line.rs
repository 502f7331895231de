//! The exit codes and the outputs of the operator's process, without a cluster.

use std::process::{Command, Output};

use serde_json::Value;
use testbed::folder::Folder;

fn flagger(args: &[&str]) -> Output {
    let mut flagger = Command::new(env!("CARGO_BIN_EXE_flagger"));
    flagger.args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_usage_is_printed_on_request_and_after_an_error() {
    for (args, code) in [
        (&["-h"][..], 0),
        (&["-nonsense"], 2),
        (&["-port", "crds"], 2),
    ] {
        let Output {
            status,
            stdout,
            stderr,
        } = flagger(args);
        assert_eq!(status.code(), Some(code), "{args:?}");
        let (printed, other) = if code == 0 {
            (stdout, stderr)
        } else {
            (stderr, stdout)
        };
        assert!(text(&printed).contains("-mesh-provider"), "{args:?}");
        assert!(other.is_empty(), "{args:?}");
    }
    let version = flagger(&["-version"]);
    assert_eq!(version.status.code(), Some(0));
    let expected = format!("Flagger version {} ", env!("CARGO_PKG_VERSION"));
    assert!(text(&version.stdout).starts_with(&expected));
}

#[test]
fn an_operator_that_finds_no_api_server_logs_the_reason_and_ends_with_1() {
    let folder = Folder::new().unwrap();
    let kubeconfig = folder.path().join("config");
    let nobody = r#"{"apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [],
        "contexts": [{"name": "c", "context": {"cluster": "c"}}], "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}]}"#;
    std::fs::write(&kubeconfig, nobody).unwrap();
    let unreachable = format!("-kubeconfig={}", kubeconfig.display());
    for (flag, why) in [
        ("-kubeconfig=/no/such/file", "Error building kubeconfig: "),
        (unreachable.as_str(), "Error calling Kubernetes API: "),
    ] {
        let ended = flagger(&[flag]);
        assert_eq!(ended.status.code(), Some(1), "{flag}");
        let last = text(&ended.stderr).lines().last().unwrap_or_default();
        let last: Value = serde_json::from_str(last).unwrap();
        assert_eq!(last["level"], "error", "{last}");
        assert!(last["msg"].as_str().unwrap().starts_with(why), "{last}");
        // A command prints the reason without a log line.
        let checked = flagger(&["check", flag]);
        assert_eq!(checked.status.code(), Some(1), "{flag}");
        assert!(text(&checked.stderr).starts_with(why), "{flag}");
    }
}

#[test]
fn logs_are_plain_lines_if_the_encoding_is_console() {
    let ended = flagger(&["-zap-encoding=console", "-kubeconfig=/no/such/file"]);
    let log = text(&ended.stderr);
    assert!(log.contains("Starting flagger-rs version"), "{log}");
    assert!(log.lines().all(|line| !line.starts_with('{')), "{log}");
    // The level selects lines.
    let quiet = flagger(&["-log-level=error", "-kubeconfig=/no/such/file"]);
    assert_eq!(text(&quiet.stderr).lines().count(), 1);
}
