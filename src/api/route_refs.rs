//! The routes of the user in which the operator sets the weights: `spec.service.routeRefs`, or the annotation [`ANNOTATION`] with the same
//! list for clusters with Flagger's CRDs, which prune the field. Without either, the operator makes a route of its own.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::schema;

/// The annotation of a Canary with the list as JSON or YAML. It counts only if the field is missing or empty.
pub const ANNOTATION: &str = "flagger-rs.github.io/route-refs";
/// The kinds of routes that can be named: those of Gateway API, and Istio's.
pub const KINDS: [&str; 5] = [
    "HTTPRoute",
    "GRPCRoute",
    "TLSRoute",
    "TCPRoute",
    "VirtualService",
];
/// The kinds of routes of which the operator can make a copy.
const TEMPLATES: [&str; 4] = ["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"];
/// The most routes of a Canary.
pub const ROUTES: usize = 16;
/// The most names of rules of one route.
const RULES: usize = 16;
/// The most bytes of the annotation.
const LENGTH: usize = 16 * 1024;
/// The most bytes of a name in Kubernetes.
const NAME: usize = 253;
/// The kinds of routes whose rules may have `sessionPersistence`, and conditions for headers.
const SESSIONS: [&str; 2] = ["HTTPRoute", "GRPCRoute"];
/// The end of the name of a copy.
pub const SUFFIX: &str = "-flagger";
/// The most parents of a copy.
pub const PARENTS: usize = 32;
/// The fields of an entry.
const FIELDS: [&str; 8] = [
    "kind",
    "name",
    "namespace",
    "rules",
    "mode",
    "parentRefs",
    "debugHeader",
    "affinity",
];

/// The way in which the operator uses a route of the user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Mode {
    /// The operator sets the weights of the two versions in the route and changes nothing else.
    #[default]
    Patch,
    /// The route has no parents and leads no request. The operator makes a copy of it with parents and weights.
    Template,
}

/// The reaction to `sessionPersistence` in a rule, which keeps clients on a version whatever the weights are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Affinity {
    /// The rule has the canary's backend only as long as the version gets requests.
    Accept,
}

/// A header of requests, with its exact value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct Header {
    /// The name of the header.
    #[schemars(extend("minLength" = 1, "maxLength" = 256))]
    pub name: String,
    /// The value of the header.
    #[schemars(extend("minLength" = 1, "maxLength" = 4096))]
    pub value: String,
}

/// A route of the user. The operator sets the weights of the two versions in it and changes nothing else, or makes a copy of it (`mode`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct RouteRef {
    /// The kind of the route: of the group `gateway.networking.k8s.io`, version `v1`, or a VirtualService of `networking.istio.io`.
    #[schemars(extend("enum" = KINDS))]
    pub kind: String,
    /// The name of the route.
    #[schemars(extend("minLength" = 1, "maxLength" = 253))]
    pub name: String,
    /// The namespace of the route. Default: the Canary's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minLength" = 1, "maxLength" = 63))]
    pub namespace: Option<String>,
    /// The names of the rules in which the operator sets the weights. Each must lead to the Service that clients call, or to the primary's,
    /// and to the canary's. Default: all rules that lead to both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxItems" = RULES))]
    pub rules: Option<Vec<String>>,
    /// `Patch`: the operator sets two weights in the route. `Template`: the route has no parents, and the operator makes a copy of it, with
    /// the name of the route and the suffix `-flagger`, with `parentRefs` and the weights. Default: `Patch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("enum" = ["Patch", "Template"]))]
    pub mode: Option<Mode>,
    /// The parents of the copy (`Template` only).
    #[serde(
        default,
        rename = "parentRefs",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::elsewhere")]
    pub parent_refs: Option<Vec<Value>>,
    /// The requests with this header go to the canary while it has a weight, whatever the weight is (`Template` of HTTPRoutes and
    /// GRPCRoutes only). Default: none.
    #[serde(
        default,
        rename = "debugHeader",
        skip_serializing_if = "Option::is_none"
    )]
    pub debug_header: Option<Header>,
    /// `accept`: the rules may have `sessionPersistence`. The operator adds the canary's backend to them while the version gets requests, and
    /// removes it otherwise, because a gateway keeps clients on a backend whose weight is 0. In mode `Patch`, `rules` must name the rules.
    /// Default: such rules are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("enum" = ["accept"]))]
    pub affinity: Option<Affinity>,
}

/// A list of routes that cannot be used. The text names the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidRouteRefs(String);

impl InvalidRouteRefs {
    /// A list that names a template of another namespace: the Canary could not own the copy.
    pub fn template_elsewhere(kind: &str, name: &str) -> Self {
        Self(format!(
            "routeRefs: {kind} {name} is in another namespace, but mode Template needs it in that of the Canary"
        ))
    }

    /// A list that names a route twice.
    pub fn twice(kind: &str, name: &str) -> Self {
        Self(format!("routeRefs: {kind} {name} is named twice"))
    }
}

/// Whether a Canary names routes, also in a form that cannot be read.
pub fn are_named(field: Option<&[RouteRef]>, annotation: Option<&str>) -> bool {
    field.is_some_and(|field| !field.is_empty())
        || annotation.is_some_and(|text| !text.trim().is_empty())
}

/// The routes that a Canary names, by the value of its field or else of its annotation; none if it names none.
///
/// # Errors
/// The annotation cannot be read, or an entry names no route that the operator can use.
pub fn named(
    field: Option<&[RouteRef]>,
    annotation: Option<&str>,
) -> Result<Vec<RouteRef>, InvalidRouteRefs> {
    match field.filter(|field| !field.is_empty()) {
        Some(field) => checked("spec.service.routeRefs", field.to_vec()),
        None if are_named(None, annotation) => {
            let place = format!("annotation {ANNOTATION}");
            let refs = parsed(&place, annotation.unwrap_or_default())?;
            if refs.is_empty() {
                return Err(InvalidRouteRefs(format!("{place}: it names no route")));
            }
            checked(&place, refs)
        }
        None => Ok(Vec::new()),
    }
}

/// Reads the annotation. JSON is YAML, too.
fn parsed(place: &str, text: &str) -> Result<Vec<RouteRef>, InvalidRouteRefs> {
    let wrong = |why: &str| InvalidRouteRefs(format!("{place}: {why}"));
    if text.len() > LENGTH {
        return Err(wrong(&format!(
            "{} bytes, but at most {LENGTH} are read",
            text.len()
        )));
    }
    let value: Value =
        serde_saphyr::from_str(text).map_err(|_| wrong("it is neither JSON nor YAML"))?;
    let Value::Array(items) = value else {
        return Err(wrong("it is no list of routes"));
    };
    let entry = |(i, item): (usize, Value)| {
        let keys = item.as_object().into_iter().flat_map(|item| item.keys());
        if let Some(key) = keys.into_iter().find(|key| !FIELDS.contains(&key.as_str())) {
            let key = shown(key);
            return Err(wrong(&format!("entry {i} has the unknown field {key}")));
        }
        serde_json::from_value(item).map_err(|error| {
            let why: String = error.to_string().chars().take(200).collect();
            wrong(&format!("entry {i} is no route: {}", why.escape_debug()))
        })
    };
    items.into_iter().enumerate().map(entry).collect()
}

fn checked(place: &str, refs: Vec<RouteRef>) -> Result<Vec<RouteRef>, InvalidRouteRefs> {
    let count = refs.len();
    if count > ROUTES {
        let why = format!("{place}: {count} routes, but at most {ROUTES} are supported");
        return Err(InvalidRouteRefs(why));
    }
    for (i, route) in refs.iter().enumerate() {
        if let Some(why) = problem(route) {
            return Err(InvalidRouteRefs(format!("{place}[{i}]{why}")));
        }
    }
    Ok(refs)
}

/// The first problem of an entry, after its place.
fn problem(route: &RouteRef) -> Option<String> {
    if !KINDS.contains(&route.kind.as_str()) {
        let (kind, kinds) = (shown(&route.kind), KINDS.join(", "));
        return Some(format!(
            ".kind: {kind} is no kind of route, only {kinds} are"
        ));
    }
    let rules = route.rules.as_deref().unwrap_or_default();
    if rules.len() > RULES {
        let count = rules.len();
        return Some(format!(
            ".rules: {count} names, but at most {RULES} are supported"
        ));
    }
    if let Some(why) = wrong_mode(route) {
        return Some(why);
    }
    let mut unique = BTreeSet::new();
    if let Some(twice) = rules.iter().find(|rule| !unique.insert(*rule)) {
        return Some(format!(".rules: {} is named twice", shown(twice)));
    }
    let names = [(".name", &route.name)].into_iter();
    let names = names.chain(route.namespace.iter().map(|name| (".namespace", name)));
    let mut names = names.chain(rules.iter().map(|name| (".rules", name)));
    let (field, wrong) = names.find(|(_, name)| !is_name(name))?;
    Some(format!("{field}: {} is no name", shown(wrong)))
}

/// The first field that does not match the mode, after the place of the entry.
fn wrong_mode(route: &RouteRef) -> Option<String> {
    let parents = route.parent_refs.as_deref().unwrap_or_default();
    let has_rules = route.rules.as_ref().is_some_and(|rules| !rules.is_empty());
    match route.mode.unwrap_or_default() {
        Mode::Patch if !parents.is_empty() => Some(
            ".parentRefs: the route has its own parents; only the copy of mode Template needs some"
                .to_owned(),
        ),
        _ if route.affinity.is_some() && !SESSIONS.contains(&route.kind.as_str()) => {
            Some(format!(".affinity: {} has no sessionPersistence", route.kind))
        }
        Mode::Patch if route.affinity.is_some() && !has_rules => Some(
            ".affinity: name the rules in `rules`, because they do not lead to the canary all the time".to_owned(),
        ),
        Mode::Template if route.name.len() + SUFFIX.len() > NAME => Some(format!(
            ".name: with {SUFFIX}, the name of the copy has more than {NAME} characters"
        )),
        Mode::Template if !TEMPLATES.contains(&route.kind.as_str()) => {
            Some(format!(".mode: Template is not possible for {}", route.kind))
        }
        Mode::Template if parents.is_empty() => {
            Some(".parentRefs: mode Template needs the parents of the copy".to_owned())
        }
        Mode::Template if parents.len() > PARENTS => {
            let count = parents.len();
            Some(format!(
                ".parentRefs: {count} parents, but at most {PARENTS} are supported"
            ))
        }
        Mode::Patch | Mode::Template => wrong_header(route),
    }
}

/// The problem of the debug header, after the place of the entry.
fn wrong_header(route: &RouteRef) -> Option<String> {
    let header = route.debug_header.as_ref()?;
    let has_headers = SESSIONS.contains(&route.kind.as_str());
    if route.mode.unwrap_or_default() != Mode::Template || !has_headers {
        return Some(
            ".debugHeader: this needs mode Template of an HTTPRoute or a GRPCRoute".to_owned(),
        );
    }
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let is_name = !header.name.is_empty() && header.name.chars().all(is_token);
    if !is_name || header.name.len() > 256 {
        let name = shown(&header.name);
        return Some(format!(".debugHeader.name: {name} is no name of a header"));
    }
    let is_value = header.value.chars().all(|c| !c.is_control());
    (header.value.is_empty() || header.value.len() > 4096 || !is_value).then(|| {
        let value = shown(&header.value);
        format!(".debugHeader.value: {value} is no value of a header")
    })
}

/// Whether a text may be the name of an object or of a rule: it becomes part of the path of a request, and of the status.
pub fn is_name(name: &str) -> bool {
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= NAME
        && name.starts_with(is_alphanumeric)
        && name.ends_with(is_alphanumeric)
        && name
            .chars()
            .all(|c| is_alphanumeric(c) || c == '-' || c == '.')
}

/// The beginning of a user's text, for a message: quoted, and without control characters.
fn shown(text: &str) -> String {
    let beginning: String = text.chars().take(80).collect();
    format!("\"{}\"", beginning.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_annotation(text: &str) -> Result<Vec<RouteRef>, String> {
        named(None, Some(text)).map_err(|error| error.to_string())
    }

    fn route(kind: &str, name: &str, rules: &[&str]) -> RouteRef {
        let rules: Vec<_> = rules.iter().map(|&rule| rule.to_owned()).collect();
        RouteRef {
            kind: kind.to_owned(),
            name: name.to_owned(),
            rules: (!rules.is_empty()).then_some(rules),
            ..RouteRef::default()
        }
    }

    #[test]
    fn the_annotation_has_the_same_list_as_the_field_as_json_or_as_yaml() {
        let expected = vec![
            route("HTTPRoute", "web", &["api", "site"]),
            route("GRPCRoute", "web-grpc", &[]),
        ];
        for text in [
            r#"[{"kind": "HTTPRoute", "name": "web", "rules": ["api", "site"]}, {"kind": "GRPCRoute", "name": "web-grpc"}]"#,
            "- kind: HTTPRoute\n  name: web\n  rules: [api, site]\n- {kind: GRPCRoute, name: web-grpc}\n",
        ] {
            assert_eq!(of_annotation(text), Ok(expected.clone()));
        }
        assert_eq!(named(Some(&expected), None), Ok(expected.clone()));
        // The field counts if both are there.
        assert_eq!(named(Some(&expected), Some("[}")), Ok(expected));
    }

    #[test]
    fn without_a_list_there_are_no_routes_and_an_unreadable_one_counts_as_a_list() {
        for (field, annotation, are) in [
            (None, None, false),
            (Some(&[][..]), None, false),
            (None, Some(" \n"), false),
            (None, Some("[]"), true),
            (None, Some("{"), true),
        ] {
            assert_eq!(are_named(field, annotation), are, "{annotation:?}");
        }
    }

    #[test]
    fn bad_lists_are_refused_with_their_place() {
        let place = "annotation flagger-rs.github.io/route-refs";
        for (text, why) in [
            ("{", ": it is neither JSON nor YAML"),
            ("HTTPRoute/web", ": it is no list of routes"),
            ("[]", ": it names no route"),
            ("[web]", ": entry 0 is no route: "),
            (
                "[{kind: HTTPRoute, name: a}, {kind: HTTPRoute, name: b, rule: c}]",
                ": entry 1 has the unknown field \"rule\"",
            ),
            (
                "[{kind: Ingress, name: a}]",
                "[0].kind: \"Ingress\" is no kind of route, only HTTPRoute, GRPCRoute, TLSRoute, TCPRoute, VirtualService are",
            ),
            (
                "[{kind: HTTPRoute, name: a, mode: Copy}]",
                ": entry 0 is no route: unknown variant `Copy`",
            ),
            (
                "[{kind: HTTPRoute, name: a, mode: Template}]",
                "[0].parentRefs: mode Template needs the parents of the copy",
            ),
            (
                "[{kind: HTTPRoute, name: a, parentRefs: [{name: b}]}]",
                "[0].parentRefs: the route has its own parents; only the copy of mode Template needs some",
            ),
            (
                "[{kind: VirtualService, name: a, mode: Template, parentRefs: [{name: b}]}]",
                "[0].mode: Template is not possible for VirtualService",
            ),
            (
                "[{kind: HTTPRoute, name: a, rules: [b, b]}]",
                "[0].rules: \"b\" is named twice",
            ),
            (
                "[{kind: HTTPRoute, name: a, rules: [], affinity: accept}]",
                "[0].affinity: name the rules in `rules`",
            ),
            (
                "[{kind: TCPRoute, name: a, rules: [b], affinity: accept}]",
                "[0].affinity: TCPRoute has no sessionPersistence",
            ),
            (
                "[{kind: HTTPRoute, name: a, affinity: accept}]",
                "[0].affinity: name the rules in `rules`, because they do not lead to the canary all the time",
            ),
            (
                "[{kind: HTTPRoute, name: a, debugHeader: {name: x, value: v}}]",
                "[0].debugHeader: this needs mode Template of an HTTPRoute or a GRPCRoute",
            ),
            (
                "[{kind: GRPCRoute, name: a, mode: Template, parentRefs: [{name: b}], debugHeader: {name: 'x y', value: z}}]",
                "[0].debugHeader.name: \"x y\" is no name of a header",
            ),
            (
                "[{kind: GRPCRoute, name: a, mode: Template, parentRefs: [{name: b}], debugHeader: {name: x, value: ''}}]",
                "[0].debugHeader.value: \"\" is no value of a header",
            ),
            (
                "[{kind: HTTPRoute, name: a, affinity: refuse}]",
                ": entry 0 is no route: unknown variant `refuse`",
            ),
            (
                "[{kind: HTTPRoute, name: ../secrets/a}]",
                "[0].name: \"../secrets/a\" is no name",
            ),
            (
                "[{kind: HTTPRoute, name: a, namespace: 'b?c'}]",
                "[0].namespace: \"b?c\" is no name",
            ),
            (
                "[{kind: HTTPRoute, name: a, rules: [\"\\u202Eapi\"]}]",
                "[0].rules: \"\\u{202e}api\" is no name",
            ),
        ] {
            let found = of_annotation(text).unwrap_err();
            assert!(found.starts_with(&format!("{place}{why}")), "{found}");
        }
    }

    #[test]
    fn a_list_that_is_too_long_is_refused() {
        let many = vec![route("HTTPRoute", "a", &[]); ROUTES + 1];
        let found = named(Some(&many), None).unwrap_err().to_string();
        assert!(
            found.ends_with("17 routes, but at most 16 are supported"),
            "{found}"
        );
        let rules = vec!["a"; RULES + 1];
        let found = named(Some(&[route("HTTPRoute", "a", &rules)]), None);
        let found = found.unwrap_err().to_string();
        assert!(found.contains("[0].rules: 17 names"), "{found}");
        let long = "a".repeat(1_000_000);
        for text in [long.clone(), format!("[{{kind: {long}, name: a}}]")] {
            let found = of_annotation(&text).unwrap_err();
            assert!(found.len() < 200, "{}", found.len());
        }
        let found = named(Some(&[route("HTTPRoute", &long, &[])]), None);
        assert!(found.unwrap_err().to_string().len() < 200);
    }

    /// An alias in YAML can stand for a value that stands for others, and so on: a few bytes become gigabytes.
    #[test]
    fn an_annotation_of_nested_aliases_is_refused() {
        let mut text = "- &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (from, to) in ('a'..'j').zip('b'..='j') {
            let aliases = vec![format!("*{from}"); 10].join(", ");
            text = format!("{text}- &{to} [{aliases}]\n");
        }
        let found = of_annotation(&text).unwrap_err();
        assert!(
            found.contains("neither JSON nor YAML") || found.contains("is no route"),
            "{found}"
        );
    }
}
