//! Session affinity: the rules that keep a client on the side that answered it first, for all routers (Flagger:
//! `getSessionAffinityRoutes` in `pkg/router/istio.go`, and the same in `gateway_api.go`).
//!
//! The rules use only cookies from the Canary's status. So they are a function of the Canary and the weights, and a lost write does not
//! move a client to the other side.

use crate::{
    api::{
        canary::{Canary, CanaryStatus, SessionAffinity, Strategy},
        duration,
        percent::Percent,
    },
    snapshot::Weights,
};

/// How long the canary's cookie lives by default, in seconds.
const MAX_AGE: i64 = 86_400;
/// The letters that a cookie's value is made of.
const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
/// The length of a cookie's value.
const LENGTH: usize = 10;

/// The sides whose clients a router can keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sides {
    /// Only the canary.
    Canary,
    /// The canary, and the primary if its cookie has a name.
    Both,
}

/// New cookies for the status; `None` for a cookie that stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cookies {
    /// `status.sessionAffinityCookie`
    pub canary: Option<String>,
    /// `status.primarySessionAffinityCookie`
    pub primary: Option<String>,
}

/// A rule of a route, without the parts that differ between routers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A rule for clients with a certain cookie.
    Sticky {
        /// The regular expression that the header `Cookie` must match.
        cookie: String,
        /// The weights for these clients.
        weights: Weights,
        /// The header `Set-Cookie` of the responses, if the cookie is to be deleted.
        set_cookie: Option<String>,
    },
    /// The rule for all other clients, with the weights of the release.
    Split {
        /// The header `Set-Cookie` of the primary's responses.
        primary: Option<String>,
        /// The header `Set-Cookie` of the canary's responses.
        canary: Option<String>,
    },
}

impl Cookies {
    /// Puts the new cookies into the status.
    pub fn keep(self, status: &mut CanaryStatus) {
        let Self { canary, primary } = self;
        if canary.is_some() {
            status.session_affinity_cookie = canary;
        }
        if primary.is_some() {
            status.primary_session_affinity_cookie = primary;
        }
    }
}

/// The cookies that the status lacks for a route with a share for the canary; `None` if it has them, or needs none. The nonce decides
/// their letters. As in Flagger, the primary has a cookie even if that cookie has no name.
pub fn new_cookies(canary: &Canary, sides: Sides, nonce: u64) -> Option<Cookies> {
    let affinity = of(canary)?;
    let named = name(affinity);
    let [current, primary, _] = kept(canary);
    let has_primary = primary.is_some_and(|cookie| match named {
        Some(named) => cookie.split('=').next() == Some(named),
        None => true,
    });
    let cookies = Cookies {
        canary: current
            .is_none()
            .then(|| format!("{}={}", affinity.cookie_name, letters(nonce))),
        primary: (sides == Sides::Both && !has_primary)
            .then(|| format!("{}={}", named.unwrap_or_default(), letters(!nonce))),
    };
    (cookies != Cookies::default()).then_some(cookies)
}

/// Moves the cookie of a run that has ended to `previousSessionAffinityCookie`. Routes delete it at the clients.
pub fn retire(status: &mut CanaryStatus) {
    let current = status.session_affinity_cookie.take();
    if let Some(current) = current.filter(|cookie| !cookie.is_empty()) {
        status.previous_session_affinity_cookie = Some(current);
    }
}

/// The sets of rules that are correct for these weights. The first set is the one that is written. There are several sets if the canary has
/// no share: then it does not matter which run's cookie is deleted, and the status may be one write ahead of the route or behind it.
pub fn rules(canary: &Canary, sides: Sides, weights: &Weights) -> Vec<Vec<Rule>> {
    let plain = vec![Rule::Split {
        primary: None,
        canary: None,
    }];
    let Some(affinity) = of(canary) else {
        return vec![plain];
    };
    let [current, primary, previous] = kept(canary);
    if weights.canary == Percent::ZERO {
        let former = [current, previous].into_iter().flatten();
        let deleting = former.map(|cookie| {
            let sticky = Rule::Sticky {
                cookie: regex(cookie),
                weights: *weights,
                set_cookie: Some(format!("{cookie}; Max-Age=-1")),
            };
            [vec![sticky], plain.clone()].concat()
        });
        return deleting.chain([plain.clone()]).collect();
    }
    let Some(current) = current else {
        return vec![plain];
    };
    let sticky = |cookie: &str, weights| Rule::Sticky {
        cookie: regex(cookie),
        weights,
        set_cookie: None,
    };
    let primary = primary.filter(|_| sides == Sides::Both && name(affinity).is_some());
    let mut rules = vec![sticky(current, Weights::CANARY)];
    rules.extend(primary.map(|primary| sticky(primary, Weights::PRIMARY)));
    rules.push(Rule::Split {
        canary: Some(set_cookie(affinity, current, max_age(affinity))),
        primary: primary.map(|primary| set_cookie(affinity, primary, interval(canary))),
    });
    vec![rules]
}

/// The Canary's session affinity. It is ignored in an A/B test, whose conditions decide which clients reach the canary.
fn of(canary: &Canary) -> Option<&SessionAffinity> {
    let analysis = canary.spec.analysis.as_ref()?;
    let is_test = canary.strategy() == Strategy::AbTesting || !analysis.match_.is_empty();
    analysis.session_affinity.as_ref().filter(|_| !is_test)
}

/// The name of the primary's cookie.
fn name(affinity: &SessionAffinity) -> Option<&str> {
    let name = affinity.primary_cookie_name.as_deref();
    name.filter(|name| !name.is_empty())
}

/// The cookies of the status: the canary's, the primary's, and the canary's of the last run.
fn kept(canary: &Canary) -> [Option<&str>; 3] {
    let kept = canary.status.as_ref().map_or([None; 3], |status| {
        [
            status.session_affinity_cookie.as_deref(),
            status.primary_session_affinity_cookie.as_deref(),
            status.previous_session_affinity_cookie.as_deref(),
        ]
    });
    kept.map(|cookie| cookie.filter(|cookie| !cookie.is_empty()))
}

fn regex(cookie: &str) -> String {
    let mut pieces = cookie.split('=');
    let (name, value) = (pieces.next(), pieces.next());
    format!(
        ".*{}.*{}.*",
        name.unwrap_or_default(),
        value.unwrap_or_default()
    )
}

/// The value of a header `Set-Cookie`, with its attributes in Flagger's order.
fn set_cookie(affinity: &SessionAffinity, cookie: &str, max_age: i64) -> String {
    let mut text = format!("{cookie}; Max-Age={max_age}");
    let pair = |name: &str, value: &Option<String>| {
        let value = value.as_deref().filter(|value| !value.is_empty());
        value.map(|value| format!("; {name}={value}"))
    };
    let flag = |name: &str, on: bool| on.then(|| format!("; {name}"));
    let attributes = [
        pair("Domain", &affinity.domain),
        flag("HttpOnly", affinity.http_only),
        flag("Partitioned", affinity.partitioned),
        pair("Path", &affinity.path),
        pair("SameSite", &affinity.same_site),
        flag("Secure", affinity.secure),
    ];
    text.extend(attributes.into_iter().flatten());
    text
}

fn max_age(affinity: &SessionAffinity) -> i64 {
    affinity.max_age.filter(|age| *age != 0).unwrap_or(MAX_AGE)
}

/// The seconds between two steps. The primary keeps a client for this long.
fn interval(canary: &Canary) -> i64 {
    let analysis = canary.spec.analysis.as_ref();
    let interval = analysis.and_then(|analysis| duration::parse(&analysis.interval));
    let seconds = interval.unwrap_or_else(|| canary.interval()).as_secs();
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

fn letters(nonce: u64) -> String {
    let mut rest = mixed(nonce);
    let mut letter = || {
        let place = usize::try_from(rest % 52).unwrap_or_default();
        rest /= 52;
        char::from(LETTERS.get(place).copied().unwrap_or(b'a'))
    };
    (0..LENGTH).map(|_| letter()).collect()
}

/// Spreads a nonce over all bits (the finalizer of `SplitMix64`), so that similar nonces give different letters.
const fn mixed(nonce: u64) -> u64 {
    let nonce = nonce.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let nonce = (nonce ^ (nonce >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let nonce = (nonce ^ (nonce >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    nonce ^ (nonce >> 31)
}

#[cfg(test)]
mod tests;
