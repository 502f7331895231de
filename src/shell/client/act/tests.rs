use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::*;
use crate::{
    shell::{
        api_server::{
            fake::{FakeApiServer, Request},
            person::Person,
        },
        client::output::Output,
        lock::lock,
    },
    view::Typed,
};

fn canary(version: u32, revision: &str, action: Option<&str>) -> Value {
    let annotations = action.map(|action| json!({ANNOTATION: action}));
    json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": "podinfo", "namespace": "test",
        "resourceVersion": version.to_string(), "annotations": annotations},
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}, "analysis": {}},
        "status": {"phase": "Progressing", "lastAppliedSpec": revision}})
}

/// Asks for an action. `reads` are the API server's answers to reads of the canary; it repeats the last one.
async fn ask(verb: Verb, reads: Vec<Value>, conflicts: usize) -> (Result<Code, Stop>, Vec<Value>) {
    let reads = Arc::new(Mutex::new(reads));
    let left = Arc::new(Mutex::new(conflicts));
    let server = FakeApiServer::answering(move |request: &Request| {
        let path = request.line.split(' ').nth(1).unwrap_or_default();
        if path.contains("selfsubjectreviews") {
            return Some((
                201,
                json!({"metadata": {}, "status": {"userInfo": {"username": "jane doe"}}}),
            ));
        }
        if request.line.starts_with("PATCH") {
            let mut left = lock(&left);
            if *left > 0 {
                *left -= 1;
                return Some((
                    409,
                    json!({"kind": "Status", "status": "Failure", "message": "changed", "reason": "Conflict", "code": 409}),
                ));
            }
            return Some((200, canary(9, "v1-a", None)));
        }
        let mut reads = lock(&reads);
        let first = if reads.len() > 1 {
            reads.remove(0)
        } else {
            reads[0].clone()
        };
        Some((200, first))
    });
    let context = Context {
        person: Person::of(server.client(), "test"),
        output: Output::new(false, false),
        typed: Typed::new("kubectl flagger", &[]),
    };
    let act = Act {
        name: "podinfo".to_owned(),
        reason: Some("errors\nat  the checkout".to_owned()),
        revision: None,
        wait: false,
    };
    let code = super::act(&context, verb, &act).await;
    let requests = server.take();
    let patches = requests
        .into_iter()
        .filter(|request| request.line.starts_with("PATCH"));
    (code, patches.map(|request| request.body).collect())
}

fn trouble(result: Result<Code, Stop>) -> (Code, String) {
    match result {
        Err(Stop::Trouble(trouble)) => (trouble.code, trouble.message),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_line_means_the_version_and_the_state_that_were_read_and_names_the_user() {
    let (code, patches) = ask(Verb::Abort, vec![canary(7, "v1-a", None)], 0).await;
    assert_eq!(code.unwrap(), Code::Yes);
    assert_eq!(patches[0]["metadata"]["resourceVersion"], "7");
    let line = patches[0]["metadata"]["annotations"][ANNOTATION]
        .as_str()
        .unwrap();
    let action: Action = line.parse().unwrap();
    let signature = action.signature.unwrap();
    assert_eq!(
        (action.verb, action.reason.as_str()),
        (Verb::Abort, "errors at the checkout")
    );
    assert_eq!(
        (signature.revision.as_str(), signature.author.as_str()),
        ("v1-a", "jane doe")
    );
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_changes_meanwhile_is_read_again_and_the_line_stays_the_same() {
    let reads = vec![canary(7, "v1-a", None), canary(8, "v1-a", None)];
    let (code, patches) = ask(Verb::Abort, reads, 1).await;
    assert_eq!(code.unwrap(), Code::Yes);
    let part = |i: usize, name: &str| patches[i]["metadata"][name].clone();
    assert_eq!(
        (part(0, "resourceVersion"), part(1, "resourceVersion")),
        (json!("7"), json!("8"))
    );
    assert_eq!(part(0, "annotations"), part(1, "annotations"));
}

#[tokio::test(start_paused = true)]
async fn a_newer_version_is_not_acted_upon() {
    let reads = vec![canary(7, "v1-a", None), canary(8, "v1-b", None)];
    let (result, patches) = ask(Verb::Promote, reads, 1).await;
    let (code, message) = trouble(result);
    assert_eq!((code, patches.len()), (Code::NotFound, 1));
    assert!(
        message.contains("is at revision v1-b, not at v1-a any more"),
        "{message}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_action_of_somebody_else_is_not_overwritten() {
    let (result, patches) = ask(Verb::Pause, vec![canary(7, "v1-a", Some("abort"))], 0).await;
    let (code, message) = trouble(result);
    assert_eq!((code, patches.len()), (Code::Undecided, 0));
    assert!(
        message.contains("has an action that no operator has handled"),
        "{message}"
    );
    // The command waits, and the operator handles the earlier line meanwhile.
    let reads = vec![canary(7, "v1-a", Some("abort")), canary(8, "v1-a", None)];
    let (code, patches) = ask(Verb::Pause, reads, 0).await;
    assert_eq!((code.unwrap(), patches.len()), (Code::Yes, 1));
}

/// An operator without the right to change the Canary's annotations cannot remove the line of an action that it has handled.
#[tokio::test(start_paused = true)]
async fn a_handled_action_is_overwritten_and_an_abort_takes_the_place_of_any() {
    let line = "pause v1-a 7f-1 2026-11-30T10:00:00Z bob rising errors";
    let pending = canary(7, "v1-a", Some(line));
    let mut handled = pending.clone();
    handled["status"]["conditions"] =
        json!([{"type": "Action", "message": "7f-1,7f-0 pause by bob: rising errors"}]);
    let (code, patches) = ask(Verb::Skip, vec![handled], 0).await;
    assert_eq!((code.unwrap(), patches.len()), (Code::Yes, 1));
    let (result, patches) = ask(Verb::Skip, vec![pending.clone()], 0).await;
    let (code, message) = trouble(result);
    assert_eq!((code, patches.len()), (Code::Undecided, 0));
    let take_back = "kubectl -n test annotate canary podinfo flagger-rs.github.io/action-";
    assert!(message.contains(take_back), "{message}");
    let (code, patches) = ask(Verb::Abort, vec![pending], 0).await;
    assert_eq!((code.unwrap(), patches.len()), (Code::Yes, 1));
}

#[tokio::test(start_paused = true)]
async fn a_canary_without_a_release_is_not_acted_upon() {
    let mut new = canary(7, "", None);
    new["status"] = json!({});
    let (result, patches) = ask(Verb::Retry, vec![new], 0).await;
    let (code, message) = trouble(result);
    assert_eq!((code, patches.len()), (Code::No, 0));
    assert!(
        message.contains("kubectl flagger -n test get podinfo"),
        "{message}"
    );
}
