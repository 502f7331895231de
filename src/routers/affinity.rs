//! Session affinity: the rules that keep a client on the side that answered it first, whatever the dialect
//! (`getSessionAffinityRoutes` in `pkg/router/istio.go`, the same in `gateway_api.go`).
//!
//! What this must not do: make up cookies. They stand in the Canary's status before any route uses them, so that the rules are a
//! function of the Canary and the weights, and a lost write changes nobody's side.

use crate::{
    api::{
        canary::{Canary, CanaryStatus, SessionAffinity, Strategy},
        duration,
    },
    snapshot::Weights,
};

/// How long the canary's cookie lives where the Canary does not say.
const MAX_AGE: i64 = 86_400;
/// The letters of a cookie's value, and how many it has.
const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const LENGTH: usize = 10;

/// Whose clients a dialect can keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sides {
    /// The canary's.
    Canary,
    /// The canary's, and the primary's if its cookie has a name.
    Both,
}

/// Cookies that the status does not have yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cookies {
    /// `status.sessionAffinityCookie`
    pub canary: Option<String>,
    /// `status.primarySessionAffinityCookie`
    pub primary: Option<String>,
}

/// A rule of a route, as far as affinity goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// For clients with a cookie that matches this: these weights, and the cookie is taken back by this header, if at all.
    Sticky {
        /// The regular expression of the `Cookie` header.
        cookie: String,
        /// Where these clients go.
        weights: Weights,
        /// `Set-Cookie` of the answers.
        set_cookie: Option<String>,
    },
    /// For all others: the weights of the release, and the `Set-Cookie` of each side's answers.
    Split {
        /// What the primary's answers say.
        primary: Option<String>,
        /// What the canary's answers say.
        canary: Option<String>,
    },
}

impl Cookies {
    /// Puts the new cookies into a status.
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

/// The cookies that a route with a share for the canary needs and the status lacks, of letters that the nonce decides; `None` if
/// nothing is missing. The primary has one even where its cookie has no name, as in Flagger.
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

/// The run is over: its cookie is one that is taken back.
pub fn retire(status: &mut CanaryStatus) {
    let current = status.session_affinity_cookie.take();
    if let Some(current) = current.filter(|cookie| !cookie.is_empty()) {
        status.previous_session_affinity_cookie = Some(current);
    }
}

/// The rules for these weights. The first is what is written; a route that has one of the others is as good: without a share for the
/// canary it does not matter whose cookie is taken back, and the status may be a write ahead or behind.
pub fn rules(canary: &Canary, sides: Sides, weights: &Weights) -> Vec<Vec<Rule>> {
    let plain = vec![Rule::Split {
        primary: None,
        canary: None,
    }];
    let Some(affinity) = of(canary) else {
        return vec![plain];
    };
    let [current, primary, previous] = kept(canary);
    if weights.canary == 0 {
        let over = [current, previous].into_iter().flatten();
        let taken_back = over.map(|cookie| {
            let sticky = Rule::Sticky {
                cookie: regex(cookie),
                weights: *weights,
                set_cookie: Some(format!("{cookie}; Max-Age=-1")),
            };
            [vec![sticky], plain.clone()].concat()
        });
        return taken_back.chain([plain.clone()]).collect();
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

/// Affinity, where it is asked for and means anything: an A/B test says itself who meets the version.
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

/// The status' cookies: the canary's, the primary's, and the canary's of the last run.
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

/// The text of `Set-Cookie`, its attributes in Flagger's order.
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

/// Seconds between two steps: so long is a client kept on the primary.
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

/// Spreads a nonce over all bits (the finalizer of `SplitMix64`): near nonces have letters that are not alike.
const fn mixed(nonce: u64) -> u64 {
    let nonce = nonce.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let nonce = (nonce ^ (nonce >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let nonce = (nonce ^ (nonce >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    nonce ^ (nonce >> 31)
}

#[cfg(test)]
mod tests;
