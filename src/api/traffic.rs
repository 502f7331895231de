//! Schemas of what a Canary only hands on to a mesh or gateway: the operator neither reads nor changes it, so it has no types
//! here, and what a user wrote arrives as it was.

use serde_json::{Map, Value, json};

/// A string, a number, a list or a map, with what it is for.
fn described(mut schema: Value, description: &str) -> Value {
    schema["description"] = json!(description);
    schema
}

fn string(description: &str) -> Value {
    described(json!({"type": "string"}), description)
}

fn number(description: &str) -> Value {
    described(json!({"type": "number"}), description)
}

fn boolean(description: &str) -> Value {
    described(json!({"type": "boolean"}), description)
}

fn strings(description: &str) -> Value {
    described(
        json!({"type": "array", "items": {"type": "string"}}),
        description,
    )
}

fn map(description: &str) -> Value {
    described(
        json!({"type": "object", "additionalProperties": {"type": "string"}}),
        description,
    )
}

fn object(description: &str, properties: Value) -> Value {
    described(
        json!({"type": "object", "properties": properties}),
        description,
    )
}

fn list(description: &str, items: Value) -> Value {
    described(json!({"type": "array", "items": items}), description)
}

fn one_of(values: &[&str], description: &str) -> Value {
    described(json!({"type": "string", "enum": values}), description)
}

/// A text that is matched in one of these ways.
fn string_match(kinds: &[&str], may_be_empty: bool) -> Value {
    let alternatives = |kind: &&str| json!({"required": [kind]});
    let each: Map<String, Value> = kinds
        .iter()
        .map(|kind| ((*kind).to_owned(), json!({"type": "string"})))
        .collect();
    let mut ways: Vec<Value> = kinds.iter().map(alternatives).collect();
    if may_be_empty {
        let any: Vec<Value> = kinds.iter().map(alternatives).collect();
        ways.insert(0, json!({"not": {"anyOf": any}}));
    }
    json!({"type": "object", "properties": each, "oneOf": ways})
}

fn string_matches(kinds: &[&str], may_be_empty: bool, description: &str) -> Value {
    described(
        json!({"type": "object", "additionalProperties": string_match(kinds, may_be_empty)}),
        description,
    )
}

const WAYS: [&str; 3] = ["exact", "prefix", "regex"];

/// `spec.service.match`
pub fn service_match() -> Value {
    let text = |description| described(string_match(&WAYS, true), description);
    list(
        "The requests that are routed.",
        object(
            "One set of conditions; all must hold.",
            json!({
        "uri": text("The path."), "scheme": text("The scheme."), "method": text("The method."), "authority": text("The host."),
        "headers": string_matches(&WAYS, true, "Headers, by their name."),
        "queryParams": string_matches(&WAYS, true, "Query parameters, by their name."),
        "withoutHeaders": string_matches(&WAYS, true, "Headers that must not match, by their name."),
        "port": described(json!({"type": "integer"}), "The port that is called."),
        "gateways": strings("The gateways that the rule is for."),
        "ignoreUriCase": boolean("Whether the path matches in any case."),
        "name": string("A name for the rule."),
        "sourceLabels": map("Labels of the caller's pods."),
        "sourceNamespace": string("The caller's namespace.")}),
        ),
    )
}

/// `spec.analysis.match`
pub fn analysis_match() -> Value {
    list(
        "The requests that the version gets in A/B testing.",
        object(
            "One set of conditions; all must hold.",
            json!({
        "headers": string_matches(&["exact", "prefix", "suffix", "regex"], false, "Headers, by their name."),
        "queryParams": string_matches(&WAYS, true, "Query parameters, by their name."),
        "sourceLabels": map("Labels of the caller's pods.")}),
        ),
    )
}

/// `spec.service.rewrite`
pub fn rewrite() -> Value {
    object(
        "How the path or the host of a request is changed.",
        json!({
        "uri": string("The new path, or the new prefix."), "authority": string("The new host."),
        "type": string("ReplacePrefixMatch replaces the prefix that matched; anything else the whole path (Gateway API).")}),
    )
}

/// `spec.service.retries`
pub fn retries() -> Value {
    object(
        "How often and when a request is tried again.",
        json!({
        "attempts": described(json!({"type": "integer", "format": "int32"}), "How often."),
        "perTryTimeout": string("How long one attempt may take."),
        "retryOn": string("The failures after which it is tried again.")}),
    )
}

/// `spec.service.headers`
pub fn headers() -> Value {
    let operations = |description| {
        object(
            description,
            json!({
        "add": map("Headers to add."), "set": map("Headers to set."), "remove": strings("Headers to remove.")}),
        )
    };
    object(
        "Headers that are added, set or removed.",
        json!({
        "request": operations("Of the request."), "response": operations("Of the response.")}),
    )
}

/// `spec.service.corsPolicy`
pub fn cors_policy() -> Value {
    object(
        "Who may call from a browser.",
        json!({
        "allowCredentials": boolean("Whether credentials may be sent."), "allowHeaders": strings("Headers that may be sent."),
        "allowMethods": strings("Methods that may be used."), "allowOrigin": strings("Deprecated, use allowOrigins."),
        "allowOrigins": list("Origins that may call.", string_match(&WAYS, false)),
        "exposeHeaders": strings("Headers that may be read."), "maxAge": string("How long the answer may be kept.")}),
    )
}

/// `spec.service.mirror`
pub fn mirror() -> Value {
    let mut backend = object(
        "The backend.",
        json!({
        "group": described(json!({"type": "string", "default": ""}), "Its API group."),
        "kind": described(json!({"type": "string", "default": "Service"}), "Its kind."),
        "name": string("Its name."), "namespace": string("Its namespace."),
        "port": described(json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535}), "Its port.")}),
    );
    backend["required"] = json!(["name"]);
    backend["x-kubernetes-validations"] = json!([{
        "message": "Must have port for Service reference",
        "rule": "(size(self.group) == 0 && self.kind == 'Service') ? has(self.port) : true"}]);
    list(
        "Other backends that get copies of the requests.",
        object("One of them.", json!({"backendRef": backend})),
    )
}

/// `spec.service.gatewayRefs`
pub fn gateway_refs() -> Value {
    let text = |least: u32, most: u32, pattern: Option<&str>, description: &str| {
        let mut schema = described(json!({"type": "string", "maxLength": most}), description);
        if least > 0 {
            schema["minLength"] = json!(least);
        }
        if let Some(pattern) = pattern {
            schema["pattern"] = json!(pattern);
        }
        schema
    };
    let subdomain = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
    let or_empty = r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
    let mut group = text(0, 253, Some(or_empty), "Its API group.");
    group["default"] = json!("gateway.networking.k8s.io");
    let mut kind = text(
        1,
        63,
        Some("^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"),
        "Its kind.",
    );
    kind["default"] = json!("Gateway");
    let mut item = object(
        "One of them.",
        json!({
        "group": group, "kind": kind,
        "name": text(1, 253, None, "Its name."),
        "namespace": text(1, 63, Some("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"), "Its namespace."),
        "sectionName": text(1, 253, Some(subdomain), "Its listener."),
        "port": described(json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535}), "The listener's port.")}),
    );
    item["required"] = json!(["name"]);
    let mut refs = list("The Gateway API gateways that route.", item);
    refs["maxItems"] = json!(32);
    refs
}

/// `spec.service.trafficPolicy`
pub fn traffic_policy() -> Value {
    object(
        "How connections to the pods are made.",
        json!({
        "connectionPool": object("Limits of connections.", json!({"http": object("Limits of requests.", json!({
            "h2UpgradePolicy": one_of(&["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"], "Whether to speak HTTP/2."),
            "http1MaxPendingRequests": number("Requests that may wait."), "http2MaxRequests": number("Requests at a time."),
            "idleTimeout": string("How long a connection may idle."),
            "maxRequestsPerConnection": number("Requests per connection."), "maxRetries": number("Retries at a time.")}))})),
        "loadBalancer": load_balancer(),
        "outlierDetection": object("When a pod is left out.", json!({
            "baseEjectionTime": string("For how long."), "consecutive5xxErrors": number("After so many 5xx."),
            "consecutiveErrors": number("After so many errors."), "consecutiveGatewayErrors": number("After so many gateway errors."),
            "consecutiveLocalOriginFailures": number("After so many failures to connect."), "interval": string("How often it is judged."),
            "maxEjectionPercent": number("The greatest share that is left out."),
            "minHealthPercent": number("The share of healthy pods below which none is left out."),
            "splitExternalLocalOriginErrors": boolean("Whether failures to connect count apart.")})),
        "tls": object("How connections are encrypted.", json!({
            "mode": one_of(&["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"], "Whether, and who proves who they are."),
            "caCertificates": string("The file of the authorities."), "clientCertificate": string("The file of our certificate."),
            "privateKey": string("The file of our key."), "sni": string("The server's name."),
            "subjectAltNames": strings("Names that the server may have.")}))}),
    )
}

fn load_balancer() -> Value {
    let cookie = described(
        json!({"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string"}, "path": {"type": "string"}, "ttl": {"type": "string"}}}),
        "By a cookie.",
    );
    let locality = object(
        "Where to, by where from.",
        json!({
        "distribute": list("Shares.", object("One of them.", json!({"from": string("From there."), "to": described(
            json!({"type": "object", "additionalProperties": {"type": "number"}}), "To there, in percent.")}))),
        "enabled": boolean("Whether this is in force."),
        "failover": list("Substitutes.", object("One of them.", json!({"from": string("For there."), "to": string("There.")})))}),
    );
    let mut balancer = object(
        "Which pod gets a request.",
        json!({
        "simple": one_of(&["ROUND_ROBIN", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "LEAST_REQUEST"], "By a rule."),
        "consistentHash": object("The same one for the same …", json!({
            "httpHeaderName": string("… value of a header."), "httpCookie": cookie,
            "useSourceIp": boolean("… address."), "httpQueryParameterName": string("… query parameter."),
            "minimumRingSize": number("The least number of places on the ring.")})),
        "localityLbSetting": locality,
        "warmupDurationSecs": string("How long a new pod is spared.")}),
    );
    let hash = |key: &str| json!({"required": [key]});
    let keys: Vec<Value> = [
        "httpHeaderName",
        "httpCookie",
        "useSourceIp",
        "httpQueryParameterName",
    ]
    .into_iter()
    .map(hash)
    .collect();
    let by_hash =
        json!({"required": ["consistentHash"], "properties": {"consistentHash": {"oneOf": keys}}});
    balancer["oneOf"] = json!([{"required": ["simple"]}, by_hash]);
    balancer
}

/// `spec.analysis.sessionAffinity.maxAge`
pub fn max_age() -> Value {
    described(
        json!({"type": "number", "default": 86400}),
        "How many seconds the cookie lives. Default: 86400.",
    )
}

/// The schemas of this module, by their place in a Canary's `spec`, and the alternatives that derives cannot express: kube's derive
/// hoists what stands in `oneOf`, so these are put in place afterwards.
pub fn put_in_place(spec: &mut Value) {
    let places: [(&str, Value); 11] = [
        ("/properties/service/properties/match", service_match()),
        ("/properties/service/properties/rewrite", rewrite()),
        ("/properties/service/properties/retries", retries()),
        ("/properties/service/properties/headers", headers()),
        ("/properties/service/properties/corsPolicy", cors_policy()),
        ("/properties/service/properties/mirror", mirror()),
        ("/properties/service/properties/gatewayRefs", gateway_refs()),
        (
            "/properties/service/properties/trafficPolicy",
            traffic_policy(),
        ),
        ("/properties/analysis/properties/match", analysis_match()),
        (
            "/properties/analysis/properties/sessionAffinity/properties/maxAge",
            max_age(),
        ),
        (
            "/properties/analysis/oneOf",
            json!([
            {"required": ["interval", "threshold", "iterations"]},
            {"required": ["interval", "threshold", "stepWeight"]},
            {"required": ["interval", "threshold", "stepWeights"]}]),
        ),
    ];
    for (place, schema) in places {
        let Some((parent, key)) = place.rsplit_once('/') else {
            continue;
        };
        if let Some(parent) = spec.pointer_mut(parent) {
            parent[key] = schema;
        }
    }
}
