use serde_json::{Value, json};

use super::*;

fn canary(analysis: Value, status: Value) -> Canary {
    let mut all = json!({"interval": "15s", "threshold": 1, "stepWeight": 10,
        "sessionAffinity": {"cookieName": "flagger-cookie"}});
    for (key, value) in analysis.as_object().unwrap() {
        all[key] = value.clone();
    }
    serde_json::from_value(json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary",
        "metadata": {"name": "podinfo", "namespace": "test"},
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}, "service": {"port": 80}, "analysis": all},
        "status": status}))
    .unwrap()
}

fn with_primary() -> Value {
    json!({"sessionAffinity": {"cookieName": "flagger-cookie", "primaryCookieName": "primary-cookie"}})
}

#[test]
fn a_run_gets_its_cookies_once_and_the_nonce_decides_their_letters() {
    let new = |analysis, status, sides| new_cookies(&canary(analysis, status), sides, 7);
    let both = new(with_primary(), json!({}), Sides::Both).unwrap();
    let value = |cookie: &Option<String>, name: &str| {
        let cookie = cookie.clone().unwrap();
        let value = cookie.strip_prefix(&format!("{name}=")).unwrap().to_owned();
        assert!(value.len() == 10 && value.chars().all(|c| c.is_ascii_alphabetic()));
        value
    };
    assert_ne!(
        value(&both.canary, "flagger-cookie"),
        value(&both.primary, "primary-cookie")
    );
    assert_eq!(new(with_primary(), json!({}), Sides::Both), Some(both));
    let unnamed = new(json!({}), json!({}), Sides::Both).unwrap();
    value(&unnamed.primary, "");
    assert_eq!(
        new(json!({}), json!({}), Sides::Canary).unwrap().primary,
        None
    );
    let kept =
        json!({"sessionAffinityCookie": "flagger-cookie=a", "primarySessionAffinityCookie": "=b"});
    assert_eq!(new(json!({}), kept.clone(), Sides::Both), None);
    // The user gave the primary's cookie a name in the meantime.
    let named = new(with_primary(), kept, Sides::Both).unwrap();
    assert_eq!(named.canary, None);
    value(&named.primary, "primary-cookie");
    let test = json!({"iterations": 1, "match": [{"headers": {"x": {"exact": "y"}}}]});
    assert_eq!(new(test, json!({}), Sides::Both), None);
    assert_eq!(
        new(json!({"sessionAffinity": null}), json!({}), Sides::Both),
        None
    );
}

#[test]
fn the_header_set_cookie_is_flaggers() {
    let all = json!({"sessionAffinity": {"cookieName": "flagger-cookie", "primaryCookieName": "primary-cookie", "maxAge": 3600,
        "domain": "example.com", "httpOnly": true, "partitioned": true, "path": "/app", "sameSite": "Strict", "secure": true}});
    let status = json!({"sessionAffinityCookie": "flagger-cookie=Qw", "primarySessionAffinityCookie": "primary-cookie=As"});
    let attributes =
        "Domain=example.com; HttpOnly; Partitioned; Path=/app; SameSite=Strict; Secure";
    let rules = rules(&canary(all, status), Sides::Both, &Weights::canary(10));
    let sticky = |cookie: &str, weights| Rule::Sticky {
        cookie: cookie.to_owned(),
        weights,
        set_cookie: None,
    };
    assert_eq!(
        rules,
        [[
            sticky(".*flagger-cookie.*Qw.*", Weights::CANARY),
            sticky(".*primary-cookie.*As.*", Weights::PRIMARY),
            Rule::Split {
                canary: Some(format!("flagger-cookie=Qw; Max-Age=3600; {attributes}")),
                primary: Some(format!("primary-cookie=As; Max-Age=15; {attributes}")),
            }
        ]]
    );
}

/// The status retires a cookie in a separate write. The routes must be correct both before and after it.
#[test]
fn without_a_share_the_rules_are_the_same_before_and_after_a_cookie_is_retired() {
    let mut status: CanaryStatus = serde_json::from_value(
        json!({"sessionAffinityCookie": "c=new", "previousSessionAffinityCookie": "c=old"}),
    )
    .unwrap();
    let wanted = |status: &CanaryStatus| {
        let canary = canary(json!({}), serde_json::to_value(status).unwrap());
        rules(&canary, Sides::Both, &Weights::PRIMARY).remove(0)
    };
    let before = wanted(&status);
    retire(&mut status);
    assert_eq!(status.session_affinity_cookie, None);
    assert_eq!(
        status.previous_session_affinity_cookie.as_deref(),
        Some("c=new")
    );
    assert_eq!(wanted(&status), before);
    let Some(Rule::Sticky { set_cookie, .. }) = before.first() else {
        panic!("{before:?}");
    };
    assert_eq!(set_cookie.as_deref(), Some("c=new; Max-Age=-1"));
    retire(&mut status);
    assert_eq!(wanted(&status), before, "once is enough");
}

#[test]
fn the_cookie_of_a_new_run_changes_no_rule_before_the_canary_gets_a_share() {
    let at = |status| rules(&canary(json!({}), status), Sides::Both, &Weights::PRIMARY);
    let idle = at(json!({"previousSessionAffinityCookie": "c=old"})).remove(0);
    let begun =
        at(json!({"sessionAffinityCookie": "c=new", "previousSessionAffinityCookie": "c=old"}));
    assert!(begun.contains(&idle), "it is as good as any");
    let first = at(json!({})).remove(0);
    assert!(at(json!({"sessionAffinityCookie": "c=new"})).contains(&first));
}
