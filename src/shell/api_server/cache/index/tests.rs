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

/// An index that has listed Deployments; one canary needs its target.
fn live() -> Index {
    let mut index = Index::default();
    assert_eq!(index.subscribe(&canary(), [target()]), [Kind::Deployment]);
    index.list_started(Kind::Deployment);
    drop(index.listed(&arrival(&target(), "5", &text("5"))));
    drop(index.list_ended(Kind::Deployment));
    index
}

/// Returns what the index knows: the version of the object, `-` if it does not exist, `?` if it must be read.
fn known(index: &Index, object: &ObjectRef) -> String {
    match index.get(object) {
        Cached::Present(_, packed) => packed.value()["version"].as_str().unwrap().to_owned(),
        Cached::Absent => "-".to_owned(),
        Cached::Unknown => "?".to_owned(),
    }
}

#[test]
fn objects_are_unknown_until_their_list_has_ended() {
    let mut index = Index::default();
    drop(index.subscribe(&canary(), [target()]));
    index.list_started(Kind::Deployment);
    drop(index.listed(&arrival(&target(), "5", &text("5"))));
    assert_eq!(known(&index, &target()), "?");
    assert!(!index.all_kinds_have_begun());
    drop(index.list_ended(Kind::Deployment));
    assert_eq!(known(&index, &target()), "5");
    assert!(index.all_kinds_have_begun());
}

#[test]
fn an_object_that_no_canary_needs_is_not_parsed() {
    let mut index = live();
    let other = object(Kind::Service, "other");
    let unread = || -> String { panic!("no canary needs it") };
    assert!(index.changed(&arrival(&other, "7", &unread)).is_empty());
    assert_eq!(
        known(&index, &other),
        "?",
        "a canary that needs it later must read it"
    );
    assert!(!index.sizes().contains_key(&Kind::Service));
}

#[test]
fn of_a_workload_that_no_canary_needs_only_the_labels_of_its_pods_are_kept() {
    let mut index = live();
    let other = object(Kind::Deployment, "other");
    assert!(index.changed(&arrival(&other, "7", &text("7"))).is_empty());
    assert_eq!(known(&index, &other), "?");
    assert_eq!(index.sizes()[&Kind::Deployment].0, 1);
    assert!(index.workloads.in_namespace("test").contains_key(&other));
}

#[test]
fn late_events_are_ignored() {
    let mut index = live();
    drop(index.changed(&arrival(&target(), "9", &text("9"))));
    assert!(
        index
            .changed(&arrival(&target(), "7", &text("7")))
            .is_empty()
    );
    assert!(
        index
            .changed(&arrival(&target(), "9", &text("9")))
            .is_empty(),
        "a write of ours comes back as an event"
    );
    assert_eq!(known(&index, &target()), "9");
    assert!(
        index.deleted(&target(), "8").is_empty(),
        "it was created again since"
    );
    assert_eq!(known(&index, &target()), "9");
    assert_eq!(index.deleted(&target(), "11").len(), 1);
    assert_eq!(known(&index, &target()), "-");
}

#[test]
fn an_answer_that_is_older_than_a_deletion_is_ignored() {
    let mut index = live();
    assert_eq!(index.deleted(&target(), "11").len(), 1);
    assert!(
        index
            .answered(&arrival(&target(), "10", &text("10")))
            .is_empty()
    );
    assert_eq!(known(&index, &target()), "-");
    assert_eq!(
        index.changed(&arrival(&target(), "12", &text("12"))).len(),
        1,
        "it is created again"
    );
    drop(index.answered(&arrival(&canary(), "10", &text("10"))));
    assert!(
        index.canaries().is_empty(),
        "a deleted Canary stays deleted"
    );
}

#[test]
fn versions_are_compared_as_numbers() {
    let mut index = live();
    assert_eq!(
        index.changed(&arrival(&target(), "10", &text("10"))).len(),
        1
    );
    assert_eq!(known(&index, &target()), "10");
}

#[test]
fn a_stale_object_is_unknown_until_it_was_read() {
    let mut index = live();
    index.mark_stale(&target());
    assert_eq!(known(&index, &target()), "?");
    drop(index.answered(&arrival(&target(), "4", &text("4"))));
    assert_eq!(
        known(&index, &target()),
        "4",
        "a direct answer counts, even if it is older"
    );
}

#[test]
fn events_older_than_a_stale_object_are_ignored() {
    let mut index = live();
    index.mark_stale(&target());
    drop(index.changed(&arrival(&target(), "4", &text("4"))));
    assert_eq!(known(&index, &target()), "?");
    let same = index.answered(&arrival(&target(), "5", &text("5")));
    assert!(same.is_empty(), "the object has not changed");
    assert_eq!(known(&index, &target()), "5");
    index.mark_stale(&target());
    let other = index.answered(&arrival(&target(), "6", &text("6")));
    assert_eq!((known(&index, &target()).as_str(), other.len()), ("6", 1));
    index.mark_stale(&target());
    index.not_found(&target());
    drop(index.answered(&arrival(&target(), "5", &text("5"))));
    assert_eq!(known(&index, &target()), "-");
}

#[test]
fn a_stale_canary_that_a_list_does_not_contain_is_removed() {
    let mut index = live();
    drop(index.changed(&arrival(&canary(), "6", &text("6"))));
    index.mark_stale(&canary());
    index.list_started(Kind::Canary);
    assert_eq!(index.list_ended(Kind::Canary).len(), 1);
    assert_eq!(index.subscribers(&canary()).len(), 0);
}

#[test]
fn a_canary_is_not_affected_by_its_own_write_but_by_a_later_one() {
    let mut index = live();
    index.write_started(&canary(), &target());
    // The watch is faster than the answer to the write.
    assert!(
        index
            .changed(&arrival(&target(), "6", &text("6")))
            .is_empty()
    );
    assert!(!index.write_ended(&target(), "6"));
    index.write_started(&canary(), &target());
    assert!(
        index
            .changed(&arrival(&target(), "8", &text("8")))
            .is_empty()
    );
    assert!(
        index.write_ended(&target(), "7"),
        "another actor wrote version 8"
    );
    assert_eq!(index.changed(&arrival(&target(), "9", &text("9"))).len(), 1);
}

#[test]
fn an_object_that_a_new_list_does_not_contain_is_read() {
    let mut index = live();
    index.list_started(Kind::Deployment);
    // This process wrote the object after the list began.
    drop(index.changed(&arrival(&target(), "8", &text("8"))));
    assert_eq!(index.list_ended(Kind::Deployment).len(), 1);
    assert_eq!(known(&index, &target()), "?");
}

#[test]
fn an_object_that_a_list_shows_at_an_older_version_is_read() {
    let mut index = live();
    index.list_started(Kind::Deployment);
    assert_eq!(index.listed(&arrival(&target(), "3", &text("3"))).len(), 1);
    drop(index.list_ended(Kind::Deployment));
    assert_eq!(known(&index, &target()), "?");
}

#[tokio::test(start_paused = true)]
async fn the_pause_grows_for_a_kind_that_can_be_listed_but_not_watched() {
    let mut index = live();
    for times in 1..5 {
        assert_eq!(index.watch_failed(Kind::Deployment), times);
        assert_eq!(index.failures(Kind::Deployment), times);
        drop(index.list_ended(Kind::Deployment));
    }
    tokio::time::advance(STEADY).await;
    assert_eq!(index.failures(Kind::Deployment), 0, "it is watched again");
    assert_eq!(index.watch_failed(Kind::Deployment), 1);
}

#[test]
fn objects_of_a_kind_that_cannot_be_watched_are_unknown() {
    let mut index = live();
    assert!(!index.uses_unwatched_kind(&canary()));
    assert_eq!(index.watch_failed(Kind::Deployment), 1);
    assert_eq!(index.watch_failed(Kind::Deployment), 2);
    assert!(index.uses_unwatched_kind(&canary()) && index.all_kinds_have_begun());
    drop(index.changed(&arrival(&target(), "9", &text("9"))));
    assert_eq!(known(&index, &target()), "?");
    index.list_started(Kind::Deployment);
    drop(index.listed(&arrival(&target(), "9", &text("9"))));
    drop(index.list_ended(Kind::Deployment));
    assert_eq!(known(&index, &target()), "9");
}

#[test]
fn absence_is_known_except_for_secrets_which_are_not_all_listed() {
    let mut index = Index::default();
    let (config, secret) = (object(Kind::ConfigMap, "env"), object(Kind::Secret, "keys"));
    drop(index.subscribe(&canary(), [config.clone(), secret.clone()]));
    for kind in [Kind::ConfigMap, Kind::Secret] {
        index.list_started(kind);
        drop(index.list_ended(kind));
    }
    assert_eq!([known(&index, &config), known(&index, &secret)], ["-", "?"]);
    index.not_found(&secret);
    assert_eq!(known(&index, &secret), "?", "its creation may not be seen");
    // If the watch reports its creation, the cache keeps it.
    let made = json!({"metadata": {"name": "keys"}, "data": {"password": "aHVzaA=="}}).to_string();
    assert_eq!(
        index
            .changed(&arrival(&secret, "9", &|| made.clone()))
            .len(),
        1
    );
    let Cached::Present(_, kept) = index.get(&secret) else {
        panic!("the secret is not cached");
    };
    assert!(
        !kept.value().to_string().contains("aHVzaA"),
        "no content is kept"
    );
}

#[test]
fn a_not_found_answer_does_not_undo_a_later_creation() {
    let mut index = live();
    index.mark_stale(&target());
    drop(index.changed(&arrival(&target(), "9", &text("9"))));
    index.not_found(&target());
    assert_eq!(known(&index, &target()), "9");
}

#[test]
fn a_change_affects_all_subscribers_and_the_last_one_takes_the_object_with_it() {
    let mut index = live();
    let other = object(Kind::Canary, "other");
    drop(index.subscribe(&other, [target()]));
    assert_eq!(index.changed(&arrival(&target(), "6", &text("6"))).len(), 2);
    index.subscribe_only(&canary(), &BTreeSet::new());
    assert_eq!(*index.subscribers(&target())[0], other);
    index.subscribe_only(&other, &BTreeSet::new());
    assert!(
        index
            .changed(&arrival(&target(), "7", &text("7")))
            .is_empty()
    );
    assert!(!index.sizes().contains_key(&Kind::Deployment));
}

#[test]
fn a_deleted_canary_has_no_subscriptions() {
    let mut index = live();
    index.list_started(Kind::Canary);
    drop(index.listed(&arrival(&canary(), "6", &text("6"))));
    drop(index.list_ended(Kind::Canary));
    assert_eq!(index.canaries().len(), 1);
    assert_eq!(index.deleted(&canary(), "7").len(), 1);
    assert!(index.canaries().is_empty() && index.sizes().is_empty());
    assert_eq!(known(&index, &canary()), "-");
}

#[test]
fn late_events_do_not_bring_a_deleted_canary_back() {
    let mut index = Index::default();
    let listed = |index: &mut Index, versions: &[&str]| {
        index.list_started(Kind::Canary);
        for version in versions {
            drop(index.listed(&arrival(&canary(), version, &text(version))));
        }
        drop(index.list_ended(Kind::Canary));
    };
    listed(&mut index, &["5"]);
    index.mark_stale(&canary());
    index.not_found(&canary());
    assert!(index.canaries().is_empty());
    assert!(index.subscribers(&canary()).is_empty());
    for late in ["4", "5"] {
        let affected = index.changed(&arrival(&canary(), late, &text(late)));
        assert!(affected.is_empty(), "{late}");
        assert_eq!(known(&index, &canary()), "-", "{late}");
    }
    let created = index.changed(&arrival(&canary(), "8", &text("8")));
    assert_eq!(created.len(), 1);
    assert_eq!(known(&index, &canary()), "8");

    // If the answer was wrong, the next list shows that.
    index.mark_stale(&canary());
    index.not_found(&canary());
    listed(&mut index, &["8"]);
    assert_eq!(known(&index, &canary()), "?");
    assert_eq!(index.canaries().len(), 1);

    // The next list forgets it. If the cluster was restored from a backup, versions begin again.
    index.mark_stale(&canary());
    index.not_found(&canary());
    listed(&mut index, &[]);
    listed(&mut index, &["2"]);
    assert_eq!(known(&index, &canary()), "2");
}
