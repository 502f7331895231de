use super::*;

fn copy(existing: Option<&Value>) -> Copy<'_> {
    Copy {
        name: "a-primary".to_owned(),
        existing,
        considered: vec![],
        foreign: None,
    }
}

fn owner(name: &str, controller: bool) -> Value {
    json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "name": name, "uid": name, "controller": controller})
}

fn source() -> Value {
    json!({"metadata": {"name": "a", "namespace": "n"}, "type": "Opaque", "data": {"k": "v"}})
}

#[test]
fn a_changed_copy_keeps_its_other_owners_but_has_one_controller() {
    let own = owner("me", true);
    let write =
        |existing: Option<&Value>| copy(existing).write(Kind::Secret, &source(), Map::new(), &own);
    let mut first = write(None).unwrap();
    assert_eq!(first["metadata"]["name"], "a-primary");
    assert_eq!(first["type"], "Opaque");
    assert_eq!(write(Some(&first)), None);
    let mut earlier = own.clone();
    earlier["uid"] = json!("of an earlier one");
    first["metadata"]["ownerReferences"] =
        json!([earlier, {"kind": "App", "uid": "other", "controller": true}]);
    first["data"] = json!({});
    let second = write(Some(&first)).unwrap();
    assert_eq!(
        second["metadata"]["ownerReferences"],
        json!([own, {"kind": "App", "uid": "other", "controller": false}])
    );
}

#[test]
fn a_copy_that_is_current_gets_its_further_owner() {
    let mut live = source();
    live["metadata"]["ownerReferences"] = json!([owner("other", true)]);
    let own = owner("me", true);
    let owners = |live: &Value| {
        copy(Some(live))
            .owned(&own)
            .map(|copy| copy["metadata"]["ownerReferences"].clone())
    };
    assert_eq!(
        owners(&live),
        Some(json!([owner("other", true), owner("me", false)]))
    );
    live["metadata"]["ownerReferences"] = json!([]);
    assert_eq!(owners(&live), Some(json!([owner("me", true)])));
    live["metadata"]["ownerReferences"] = json!([owner("other", true), owner("me", false)]);
    assert_eq!(owners(&live), None);
    let mut earlier = owner("me", true);
    earlier["uid"] = json!("of an earlier one");
    live["metadata"]["ownerReferences"] = json!([earlier]);
    assert_eq!(owners(&live), Some(json!([owner("me", true)])));
}
