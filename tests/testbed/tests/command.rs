//! The error messages of the command line. `tests/mesh` tests its subcommands with a running cell.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

use std::process::{Command, Output, Stdio};

use testbed::folder::Folder;

const TESTBED: &str = env!("CARGO_BIN_EXE_testbed");

/// Runs a command that finds no cell and must fail. Returns its error output.
fn error_output(command: &mut Command) -> String {
    let folder = Folder::new().unwrap();
    let output: Output = command.env("TMPDIR", folder.path()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{text}");
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 0, "the command leaves files behind");
    text
}

#[test]
fn without_a_cell_the_error_says_how_to_start_one() {
    for args in [
        &["down"][..],
        &["status"],
        &["logs", "test/podinfo"],
        &["exec", "node", "--", "true"],
    ] {
        let text = error_output(Command::new(TESTBED).args(args));
        assert!(text.contains("testbed -- up"), "{args:?}: {text}");
    }
}

#[test]
fn a_wrong_image_is_an_error_before_anything_is_built() {
    for (image, why) in [
        ("podinfo", "NAME=PROGRAM"),
        ("podinfo=/does/not/exist", "/does/not/exist"),
    ] {
        let text = error_output(Command::new(TESTBED).args(["up", "--image", image]));
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn where_namespaces_are_forbidden_the_error_says_how_to_allow_them() {
    let unshare = ["unshare", "--user", "--map-root-user"];
    // Runs in a user namespace that allows no nested ones. If this machine allows no user namespaces, it needs none for this test.
    let forbid = "{ echo 0 >/proc/sys/user/max_user_namespaces; } 2>/dev/null; exec \"$@\"";
    let mut words = Vec::new();
    if runs(&[&unshare[..], &["true"]].concat()) {
        words.extend(unshare);
        words.extend(["sh", "-c", forbid, "sh"]);
    }
    words.extend(["setpriv", "--bounding-set=-all", "--inh-caps=-all"]);
    if !runs(&[&words[..], &["true"]].concat()) {
        // A process that may not drop capabilities has none to drop.
        words.clear();
    }
    words.extend([TESTBED, "up"]);
    let text = error_output(Command::new(words[0]).args(&words[1..]));
    assert!(text.contains("sysctl -w"), "{text}");
    assert!(text.contains("run this as root"), "{text}");
}

fn runs(words: &[&str]) -> bool {
    let mut command = Command::new(words[0]);
    let tried = command.args(&words[1..]).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}
