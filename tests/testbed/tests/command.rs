//! What the command line says when something is wrong. What it does when all is well needs a cell: `tests/mesh`.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

use std::process::{Command, Output, Stdio};

use testbed::folder::Folder;

const TESTBED: &str = env!("CARGO_BIN_EXE_testbed");

/// Runs it, where it finds no cell; what it complained of.
fn complaint(command: &mut Command) -> String {
    let folder = Folder::new().unwrap();
    let output: Output = command.env("TMPDIR", folder.path()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{said}");
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 0, "it leaves nothing behind");
    said
}

#[test]
fn without_a_cell_it_says_how_to_get_one() {
    for args in [
        &["down"][..],
        &["status"],
        &["logs", "test/podinfo"],
        &["exec", "node", "--", "true"],
    ] {
        let said = complaint(Command::new(TESTBED).args(args));
        assert!(said.contains("testbed -- up"), "{args:?}: {said}");
    }
}

#[test]
fn an_image_that_is_none_is_told_before_anything_is_built() {
    for (image, why) in [
        ("podinfo", "NAME=PROGRAM"),
        ("podinfo=/does/not/exist", "/does/not/exist"),
    ] {
        let said = complaint(Command::new(TESTBED).args(["up", "--image", image]));
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn where_namespaces_are_forbidden_it_says_how_to_go_on() {
    let unshare = ["unshare", "--user", "--map-root-user"];
    // In a namespace that allows none below it; elsewhere the machine itself is such a place.
    let forbid = "{ echo 0 >/proc/sys/user/max_user_namespaces; } 2>/dev/null; exec \"$@\"";
    let mut words = Vec::new();
    if runs(&[&unshare[..], &["true"]].concat()) {
        words.extend(unshare);
        words.extend(["sh", "-c", forbid, "sh"]);
    }
    words.extend(["setpriv", "--bounding-set=-all", "--inh-caps=-all"]);
    if !runs(&[&words[..], &["true"]].concat()) {
        // Who may not give up rights has none.
        words.clear();
    }
    words.extend([TESTBED, "up"]);
    let said = complaint(Command::new(words[0]).args(&words[1..]));
    assert!(said.contains("sysctl -w"), "{said}");
    assert!(said.contains("run this as root"), "{said}");
}

fn runs(words: &[&str]) -> bool {
    let mut command = Command::new(words[0]);
    let tried = command.args(&words[1..]).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}
