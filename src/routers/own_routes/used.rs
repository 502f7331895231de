//! The routes of the user in which the operator sets weights, as the spec names them and as the status records them. The record is a
//! condition, because Flagger's CRD prunes unknown fields of a status. It is written before the first weight, so the operator knows which
//! routes it has to give back, also when the spec names them no more.

use std::{fmt, str::FromStr};

use super::kinds;
use crate::{
    api::{
        canary::{Canary, CanaryStatus},
        route_refs::{InvalidRouteRefs, Mode, RouteRef, SUFFIX, is_name},
        status::ConditionType,
    },
    snapshot::{ObjectRef, references},
};

/// The marks of a record.
const AFFINITY: &str = "affinity";
const TEMPLATE: &str = "template";

/// A route of the user, and the names of the rules in which the operator sets weights; without names, all rules that lead to both versions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Used {
    /// The route.
    pub route: ObjectRef,
    /// The names of its rules.
    pub rules: Vec<String>,
    /// Whether the rules have the canary's backend only while the version gets requests (`affinity: accept`).
    pub accepts_affinity: bool,
    /// The route of the user of which `route` is the operator's copy (mode `Template`).
    pub template: Option<ObjectRef>,
}

impl Used {
    fn of(route: &RouteRef, own_namespace: &str) -> Option<Self> {
        let namespace = references::namespace(route.namespace.as_deref(), own_namespace);
        let kind = kinds::named(&route.kind)?;
        let named = kind.reference(namespace, &route.name);
        let (with_weights, template) = match route.mode.unwrap_or_default() {
            Mode::Patch => (named, None),
            Mode::Template => {
                let copy = format!("{}{SUFFIX}", route.name);
                (kind.reference(namespace, &copy), Some(named))
            }
        };
        Some(Self {
            route: with_weights,
            rules: route.rules.clone().unwrap_or_default(),
            accepts_affinity: route.affinity.is_some(),
            template,
        })
    }

    /// The routes that the operator reads: the one with the weights, and the one of which it is a copy.
    pub fn routes(&self) -> impl Iterator<Item = &ObjectRef> {
        std::iter::once(&self.route).chain(&self.template)
    }
}

/// The routes that a Canary names, sorted.
///
/// # Errors
/// The list cannot be read.
pub fn named(canary: &Canary) -> Result<Vec<Used>, InvalidRouteRefs> {
    let own = canary.metadata.namespace.as_deref().unwrap_or_default();
    let refs = canary.route_refs()?;
    let mut named: Vec<_> = refs.iter().filter_map(|it| Used::of(it, own)).collect();
    let mut templates = named.iter().filter_map(|used| used.template.as_ref());
    if let Some(elsewhere) = templates.find(|it| it.namespace != own) {
        let (kind, name) = (elsewhere.kind.name(), &elsewhere.name);
        return Err(InvalidRouteRefs::template_elsewhere(kind, name));
    }
    named.sort();
    match named.windows(2).find(|pair| pair[0].route == pair[1].route) {
        Some([twice, ..]) => Err(InvalidRouteRefs::twice(
            twice.route.kind.name(),
            &twice.route.name,
        )),
        _ => Ok(named),
    }
}

/// The routes in which the operator may have set weights, as the status records them, sorted.
pub fn recorded(status: &CanaryStatus) -> Vec<Used> {
    let condition = status.condition(ConditionType::RouteRefs);
    let text = condition.and_then(|condition| condition.message.as_deref());
    let words = text.unwrap_or_default().split_whitespace();
    let mut recorded: Vec<_> = words.filter_map(|word| word.parse().ok()).collect();
    recorded.sort();
    recorded
}

/// The routes that a Canary names, and those of its record.
pub fn named_or_recorded(canary: &Canary) -> Vec<Used> {
    let recorded = canary.status.as_ref().map(recorded);
    let mut used = named(canary).unwrap_or_default();
    used.extend(recorded.unwrap_or_default());
    used
}

/// The record of these routes, which [`recorded`] reads.
pub fn record(used: &[Used]) -> String {
    let texts: Vec<_> = used.iter().map(ToString::to_string).collect();
    texts.join(" ")
}

impl fmt::Display for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ObjectRef {
            kind,
            namespace,
            name,
        } = &self.route;
        write!(f, "{}/{namespace}/{name}", kind.name())?;
        let mark = if self.rules.is_empty() { "" } else { ":" };
        write!(f, "{mark}{}", self.rules.join(","))?;
        if self.accepts_affinity {
            write!(f, ";{AFFINITY}")?;
        }
        if self.template.is_some() {
            write!(f, ";{TEMPLATE}")?;
        }
        Ok(())
    }
}

impl FromStr for Used {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (text, marks) = text.split_once(';').unwrap_or((text, ""));
        let has = |mark: &str| marks.split(';').any(|it| it == mark);
        let (route, rules) = text.split_once(':').unwrap_or((text, ""));
        let mut parts = route.split('/');
        let mut next = || parts.next().ok_or(());
        let (kind_name, namespace, name) = (next()?, next()?, next()?);
        let rules: Vec<_> = rules.split(',').filter(|rule| !rule.is_empty()).collect();
        let mut names = [namespace, name].into_iter().chain(rules.iter().copied());
        if !names.all(is_name) {
            return Err(());
        }
        let kind = kinds::named(kind_name).ok_or(())?;
        let source = name.strip_suffix(SUFFIX).filter(|_| has(TEMPLATE));
        Ok(Self {
            route: kind.reference(namespace, name),
            rules: rules.into_iter().map(str::to_owned).collect(),
            accepts_affinity: has(AFFINITY),
            template: source.map(|source| kind.reference(namespace, source)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Kind;

    #[test]
    fn a_record_is_read_as_it_is_written_and_unknown_words_are_left_out() {
        let used = |kind: Kind, name: &str, rules: &[&str]| Used {
            route: kind.reference("shop", name),
            rules: rules.iter().map(|&rule| rule.to_owned()).collect(),
            accepts_affinity: false,
            template: None,
        };
        let keeps_sessions = Used {
            accepts_affinity: true,
            ..used(Kind::HttpRoute, "shop", &["api"])
        };
        let copy = Used {
            template: Some(Kind::TcpRoute.reference("shop", "web")),
            ..used(Kind::TcpRoute, "web-flagger", &[])
        };
        let all = [
            used(Kind::GrpcRoute, "web", &[]),
            used(Kind::HttpRoute, "web", &["api", "web.site"]),
            keeps_sessions,
            copy,
        ];
        let text = record(&all);
        assert_eq!(
            text,
            "GRPCRoute/shop/web HTTPRoute/shop/web:api,web.site HTTPRoute/shop/shop:api;affinity TCPRoute/shop/web-flagger;template"
        );
        for (word, used) in text.split(' ').zip(&all) {
            assert_eq!(word.parse().as_ref(), Ok(used));
        }
        for edited in [
            "",
            "HTTPRoute",
            "HTTPRoute/shop",
            "Ingress/shop/web",
            "HTTPRoute/shop/..",
            "HTTPRoute/shop/web?watch=1",
        ] {
            assert_eq!(edited.parse::<Used>(), Err(()), "{edited}");
        }
    }
}
