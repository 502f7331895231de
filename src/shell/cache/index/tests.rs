use serde_json::json;

use super::*;

fn object(kind: Kind, name: &str) -> ObjectRef {
    ObjectRef {
        kind,
        namespace: "test".to_owned(),
        name: name.to_owned(),
    }
}

fn canary() -> ObjectRef {
    object(Kind::Canary, "podinfo")
}

fn target() -> ObjectRef {
    object(Kind::Deployment, "podinfo")
}

fn arrival<'a>(object: &ObjectRef, version: &'a str, text: &'a dyn Fn() -> String) -> Arrival<'a> {
    Arrival {
        object: object.clone(),
        version,
        text,
    }
}

fn text(version: &str) -> impl Fn() -> String {
    let text = json!({"version": version}).to_string();
    move || text.clone()
}

/// An index whose list of Deployments is done; one canary looks at its target.
fn live() -> Index {
    let mut index = Index::default();
    assert_eq!(index.reconcile(&canary(), [target()]), [Kind::Deployment]);
    index.listing(Kind::Deployment);
    drop(index.listed(&arrival(&target(), "5", &text("5"))));
    drop(index.is_listed(Kind::Deployment));
    index
}

/// What is known: the version that was packed, `-` for nothing there, `?` for nothing known.
fn known(index: &Index, object: &ObjectRef) -> String {
    match index.known(object) {
        Known::Present(_, packed) => packed.value()["version"].as_str().unwrap().to_owned(),
        Known::Absent => "-".to_owned(),
        Known::Unknown => "?".to_owned(),
    }
}

#[test]
fn nothing_can_be_said_before_the_list_is_there() {
    let mut index = Index::default();
    drop(index.reconcile(&canary(), [target()]));
    index.listing(Kind::Deployment);
    drop(index.listed(&arrival(&target(), "5", &text("5"))));
    assert_eq!(known(&index, &target()), "?");
    assert!(!index.all_known());
    drop(index.is_listed(Kind::Deployment));
    assert_eq!(known(&index, &target()), "5");
    assert!(index.all_known());
}

#[test]
fn what_nobody_looks_at_is_not_even_read() {
    let mut index = live();
    let other = object(Kind::Deployment, "other");
    let unread = || -> String { panic!("nobody looks at it") };
    assert!(index.arrived(&arrival(&other, "7", &unread)).is_empty());
    assert_eq!(
        known(&index, &other),
        "?",
        "who comes to look at it has to ask"
    );
    assert_eq!(index.sizes()[&Kind::Deployment].0, 1);
}

#[test]
fn what_arrives_late_is_not_taken_for_new() {
    let mut index = live();
    drop(index.arrived(&arrival(&target(), "9", &text("9"))));
    assert!(
        index
            .arrived(&arrival(&target(), "7", &text("7")))
            .is_empty()
    );
    assert!(
        index
            .arrived(&arrival(&target(), "9", &text("9")))
            .is_empty(),
        "our own write comes back as an event"
    );
    assert_eq!(known(&index, &target()), "9");
    assert!(
        index.deleted(&target(), "8").is_empty(),
        "it was made again since"
    );
    assert_eq!(known(&index, &target()), "9");
    assert_eq!(index.deleted(&target(), "11").len(), 1);
    assert_eq!(known(&index, &target()), "-");
}

#[test]
fn an_answer_that_a_deletion_overtook_brings_nothing_back() {
    let mut index = live();
    assert_eq!(index.deleted(&target(), "11").len(), 1);
    assert!(
        index
            .answered(&arrival(&target(), "10", &text("10")))
            .is_empty()
    );
    assert_eq!(known(&index, &target()), "-");
    assert_eq!(
        index.arrived(&arrival(&target(), "12", &text("12"))).len(),
        1,
        "it is made again"
    );
    drop(index.answered(&arrival(&canary(), "10", &text("10"))));
    assert!(
        index.canaries().is_empty(),
        "a Canary that is gone stays so"
    );
}

#[test]
fn versions_are_numbers_and_not_texts() {
    let mut index = live();
    assert_eq!(
        index.arrived(&arrival(&target(), "10", &text("10"))).len(),
        1
    );
    assert_eq!(known(&index, &target()), "10");
}

#[test]
fn an_object_that_is_not_as_it_was_thought_to_be_is_asked_for() {
    let mut index = live();
    index.doubt(&target());
    assert_eq!(known(&index, &target()), "?");
    drop(index.answered(&arrival(&target(), "4", &text("4"))));
    assert_eq!(
        known(&index, &target()),
        "4",
        "an answer counts, whatever was thought before"
    );
}

#[test]
fn what_is_doubted_is_asked_for_and_what_is_older_is_no_news() {
    let mut index = live();
    index.doubt(&target());
    drop(index.arrived(&arrival(&target(), "4", &text("4"))));
    assert_eq!(known(&index, &target()), "?");
    let same = index.answered(&arrival(&target(), "5", &text("5")));
    assert!(same.is_empty(), "it is as it was thought to be");
    assert_eq!(known(&index, &target()), "5");
    index.doubt(&target());
    let other = index.answered(&arrival(&target(), "6", &text("6")));
    assert_eq!((known(&index, &target()).as_str(), other.len()), ("6", 1));
    index.doubt(&target());
    index.is_absent(&target());
    drop(index.answered(&arrival(&target(), "5", &text("5"))));
    assert_eq!(known(&index, &target()), "-");
}

#[test]
fn a_canary_that_was_doubted_when_it_went_is_gone() {
    let mut index = live();
    drop(index.arrived(&arrival(&canary(), "6", &text("6"))));
    index.doubt(&canary());
    index.listing(Kind::Canary);
    assert_eq!(index.is_listed(Kind::Canary).len(), 1);
    assert_eq!(index.touched_by(&canary()).len(), 0);
}

#[test]
fn a_write_of_its_own_is_no_news_to_a_canary_but_one_after_it_is() {
    let mut index = live();
    index.writes(&canary(), &target());
    // The watch is faster than the answer.
    assert!(
        index
            .arrived(&arrival(&target(), "6", &text("6")))
            .is_empty()
    );
    assert!(!index.wrote(&target(), "6"));
    index.writes(&canary(), &target());
    assert!(
        index
            .arrived(&arrival(&target(), "8", &text("8")))
            .is_empty()
    );
    assert!(index.wrote(&target(), "7"), "somebody else wrote the 8");
    assert_eq!(index.arrived(&arrival(&target(), "9", &text("9"))).len(), 1);
}

#[test]
fn what_a_new_list_does_not_name_is_asked_for() {
    let mut index = live();
    index.listing(Kind::Deployment);
    // Written by us while the list was on its way.
    drop(index.arrived(&arrival(&target(), "8", &text("8"))));
    assert_eq!(index.is_listed(Kind::Deployment).len(), 1);
    assert_eq!(known(&index, &target()), "?");
}

#[test]
fn an_api_server_that_went_back_in_time_is_believed_once_it_was_asked() {
    let mut index = live();
    index.listing(Kind::Deployment);
    assert_eq!(index.listed(&arrival(&target(), "3", &text("3"))).len(), 1);
    drop(index.is_listed(Kind::Deployment));
    assert_eq!(known(&index, &target()), "?");
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_may_be_listed_and_not_watched_is_not_listed_all_the_time() {
    let mut index = live();
    for times in 1..5 {
        assert_eq!(index.failed(Kind::Deployment), times);
        assert_eq!(index.failures(Kind::Deployment), times);
        drop(index.is_listed(Kind::Deployment));
    }
    tokio::time::advance(STEADY).await;
    assert_eq!(index.failures(Kind::Deployment), 0, "it is watched again");
    assert_eq!(index.failed(Kind::Deployment), 1);
}

#[test]
fn a_kind_that_cannot_be_watched_is_asked_for_at_every_look() {
    let mut index = live();
    assert!(!index.uses_unwatched_kind(&canary()));
    assert_eq!(index.failed(Kind::Deployment), 1);
    assert_eq!(index.failed(Kind::Deployment), 2);
    assert!(index.uses_unwatched_kind(&canary()) && index.all_known());
    drop(index.arrived(&arrival(&target(), "9", &text("9"))));
    assert_eq!(known(&index, &target()), "?");
    index.listing(Kind::Deployment);
    drop(index.listed(&arrival(&target(), "9", &text("9"))));
    drop(index.is_listed(Kind::Deployment));
    assert_eq!(known(&index, &target()), "9");
}

#[test]
fn what_does_not_exist_is_known_but_for_secrets_which_are_not_all_listed() {
    let mut index = Index::default();
    let (config, secret) = (object(Kind::ConfigMap, "env"), object(Kind::Secret, "keys"));
    drop(index.reconcile(&canary(), [config.clone(), secret.clone()]));
    for kind in [Kind::ConfigMap, Kind::Secret] {
        index.listing(kind);
        drop(index.is_listed(kind));
    }
    assert_eq!([known(&index, &config), known(&index, &secret)], ["-", "?"]);
    index.is_absent(&secret);
    assert_eq!(known(&index, &secret), "?", "it may come unheard");
    // Its creation is told, and counts.
    let made = json!({"metadata": {"name": "keys"}, "data": {"password": "aHVzaA=="}}).to_string();
    assert_eq!(
        index
            .arrived(&arrival(&secret, "9", &|| made.clone()))
            .len(),
        1
    );
    let Known::Present(_, kept) = index.known(&secret) else {
        panic!("it is there");
    };
    assert!(
        !kept.value().to_string().contains("aHVzaA"),
        "no content is kept"
    );
}

#[test]
fn an_answer_that_something_is_missing_does_not_undo_its_creation() {
    let mut index = live();
    index.doubt(&target());
    drop(index.arrived(&arrival(&target(), "9", &text("9"))));
    index.is_absent(&target());
    assert_eq!(known(&index, &target()), "9");
}

#[test]
fn all_who_look_are_told_and_with_the_last_of_them_it_is_forgotten() {
    let mut index = live();
    let other = object(Kind::Canary, "other");
    drop(index.reconcile(&other, [target()]));
    assert_eq!(index.arrived(&arrival(&target(), "6", &text("6"))).len(), 2);
    index.subscribe_only(&canary(), &BTreeSet::new());
    assert_eq!(*index.touched_by(&target())[0], other);
    index.subscribe_only(&other, &BTreeSet::new());
    assert!(
        index
            .arrived(&arrival(&target(), "7", &text("7")))
            .is_empty()
    );
    assert!(!index.sizes().contains_key(&Kind::Deployment));
}

#[test]
fn a_canary_that_is_gone_looks_at_nothing() {
    let mut index = live();
    index.listing(Kind::Canary);
    drop(index.listed(&arrival(&canary(), "6", &text("6"))));
    drop(index.is_listed(Kind::Canary));
    assert_eq!(index.canaries().len(), 1);
    assert_eq!(index.deleted(&canary(), "7").len(), 1);
    assert!(index.canaries().is_empty() && index.sizes().is_empty());
    assert_eq!(known(&index, &canary()), "-");
}
