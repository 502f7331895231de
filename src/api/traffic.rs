//! The schemas of the fields that a router copies unchanged into the objects of a mesh or gateway. The operator does not read these
//! fields, so they have no Rust types: each value stays exactly as the user wrote it.

use serde_json::{Map, Value, json};

use super::route_refs::PARENTS;

/// The schema with a description.
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

/// The schema of a string match: an object with exactly one of the fields `kinds`, or with none if it may be empty.
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

/// The schema of `spec.service.match`.
pub fn service_match() -> Value {
    list(
        "The requests that the route applies to (Istio, Gateway API, Contour and App Mesh only). A request must match one of these sets of conditions. Default: all requests.",
        conditions(string_matches(
            &WAYS,
            true,
            "Headers of the request, by name.",
        )),
    )
}

/// `spec.analysis.match`. The API server would drop a key without a schema, and the canary would get more requests than the user wants.
pub fn analysis_match() -> Value {
    list(
        "The requests that the canary gets during an A/B test. A request must match one of these sets of conditions. Needs `iterations`.",
        conditions(string_matches(
            &["exact", "prefix", "suffix", "regex"],
            false,
            "Headers of the request, by name.",
        )),
    )
}

/// A set of conditions (Istio: `HTTPMatchRequest`), with this schema of headers.
fn conditions(headers: Value) -> Value {
    let text = |description| described(string_match(&WAYS, true), description);
    object(
        "A set of conditions. All of them must hold. A Canary with a condition that its provider cannot express is not run.",
        json!({
        "uri": text("The path of the request."),
        "scheme": text("The scheme of the request."),
        "method": text("The HTTP method of the request."),
        "authority": text("The host of the request."),
        "headers": headers,
        "queryParams": string_matches(&WAYS, true, "Query parameters of the request, by name."),
        "withoutHeaders": string_matches(&WAYS, true, "Headers of the request that must not match, by name."),
        "port": described(json!({"type": "integer"}), "The port that the request is sent to."),
        "gateways": strings("The gateways that this set of conditions applies to."),
        "ignoreUriCase": boolean("Whether upper and lower case of the path are the same. Default: false."),
        "name": string("A name of this set of conditions."),
        "sourceLabels": map("Labels of the client's pods."),
        "sourceNamespace": string("The namespace of the client's pods.")}),
    )
}

/// `spec.service.rewrite`
pub fn rewrite() -> Value {
    object(
        "How the route changes the path or the host of a request. Default: not at all.",
        json!({
        "uri": string("The new path, or the new prefix of the path."),
        "authority": string("The new host of the request."),
        "type": string("ReplacePrefixMatch replaces the matched prefix; any other value replaces the complete path (Gateway API only).")}),
    )
}

/// `spec.service.retries`
pub fn retries() -> Value {
    object(
        "How often, and after which failures, a request is sent again. Default: the default of the mesh or gateway.",
        json!({
        "attempts": described(json!({"type": "integer", "format": "int32"}), "The maximum number of retries of a request."),
        "perTryTimeout": string("The time limit of one attempt, for example `2s`."),
        "retryOn": string("The failures after which a request is sent again, separated by commas.")}),
    )
}

/// `spec.service.headers`
pub fn headers() -> Value {
    let operations = |description| {
        object(
            description,
            json!({
        "add": map("Headers to add, by name."),
        "set": map("Headers to set, by name."),
        "remove": strings("Names of headers to remove.")}),
        )
    };
    object(
        "The headers that the route adds, sets or removes.",
        json!({
        "request": operations("The changes of the request's headers."), "response": operations("The changes of the response's headers.")}),
    )
}

/// `spec.service.corsPolicy`
pub fn cors_policy() -> Value {
    object(
        "The rules for cross-origin requests (CORS).",
        json!({
        "allowCredentials": boolean("Whether a browser may send credentials."),
        "allowHeaders": strings("Headers that a browser may send."),
        "allowMethods": strings("Methods that a browser may use."),
        "allowOrigin": strings("Deprecated, use `allowOrigins`: the allowed origins."),
        "allowOrigins": list("The allowed origins.", string_match(&WAYS, false)),
        "exposeHeaders": strings("Headers of the response that a browser may read."),
        "maxAge": string("The time that a browser may cache these rules, for example `24h`.")}),
    )
}

/// `spec.service.mirror`
pub fn mirror() -> Value {
    let mut backend = object(
        "The backend that gets the copies.",
        json!({
        "group": described(json!({"type": "string", "default": ""}), "The API group of the backend. Default: the core group."),
        "kind": described(json!({"type": "string", "default": "Service"}), "The kind of the backend. Default: Service."),
        "name": string("The name of the backend."),
        "namespace": string("The namespace of the backend. Default: the Canary's."),
        "port": described(json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535}), "The port of the backend. Required for a Service.")}),
    );
    backend["required"] = json!(["name"]);
    backend["x-kubernetes-validations"] = json!([{
        "message": "Must have port for Service reference",
        "rule": "(size(self.group) == 0 && self.kind == 'Service') ? has(self.port) : true"}]);
    list(
        "The backends that get copies of the requests (Gateway API only).",
        object(
            "A backend that gets copies.",
            json!({"backendRef": backend}),
        ),
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
    let mut group = text(
        0,
        253,
        Some(or_empty),
        "The API group of the gateway. Default: gateway.networking.k8s.io.",
    );
    group["default"] = json!("gateway.networking.k8s.io");
    let mut kind = text(
        1,
        63,
        Some("^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"),
        "The kind of the gateway. Default: Gateway.",
    );
    kind["default"] = json!("Gateway");
    let mut item = object(
        "A gateway that the route belongs to.",
        json!({
        "group": group, "kind": kind,
        "name": text(1, 253, None, "The name of the gateway."),
        "namespace": text(1, 63, Some("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"), "The namespace of the gateway. Default: the Canary's."),
        "sectionName": text(1, 253, Some(subdomain), "The name of the gateway's listener. Default: all listeners."),
        "port": described(json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535}), "The port of the gateway's listener. Default: all ports.")}),
    );
    item["required"] = json!(["name"]);
    list(
        "The Gateway API gateways (`parentRefs`) that the route belongs to (Gateway API only).",
        item,
    )
}

/// `spec.service.trafficPolicy`
pub fn traffic_policy() -> Value {
    object(
        "How the mesh connects to the pods; part of the DestinationRules (Istio only).",
        json!({
        "connectionPool": object("The limits of connections to a pod.", json!({"http": object("The limits of HTTP requests.", json!({
            "h2UpgradePolicy": one_of(&["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"], "Whether connections are upgraded to HTTP/2."),
            "http1MaxPendingRequests": number("The maximum number of requests that wait for a connection."),
            "http2MaxRequests": number("The maximum number of concurrent requests."),
            "idleTimeout": string("The time after which an idle connection is closed, for example `30s`."),
            "maxRequestsPerConnection": number("The maximum number of requests per connection."),
            "maxRetries": number("The maximum number of concurrent retries.")}))})),
        "loadBalancer": load_balancer(),
        "outlierDetection": object("The rules that exclude failing pods from load balancing.", json!({
            "baseEjectionTime": string("The minimum time that a pod is excluded, for example `30s`."),
            "consecutive5xxErrors": number("The number of consecutive 5xx responses after which a pod is excluded."),
            "consecutiveErrors": number("The number of consecutive errors after which a pod is excluded."),
            "consecutiveGatewayErrors": number("The number of consecutive gateway errors (502, 503, 504) after which a pod is excluded."),
            "consecutiveLocalOriginFailures": number("The number of consecutive failures to connect after which a pod is excluded."),
            "interval": string("The time between two evaluations of the pods, for example `10s`."),
            "maxEjectionPercent": number("The maximum percentage of pods that are excluded."),
            "minHealthPercent": number("The percentage of healthy pods below which no pod is excluded."),
            "splitExternalLocalOriginErrors": boolean("Whether failures to connect are counted separately. Default: false.")})),
        "tls": object("The TLS settings of connections to the pods.", json!({
            "mode": one_of(&["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"], "Whether connections use TLS, and whether the client has a certificate too (mutual TLS)."),
            "caCertificates": string("The file with the certificates of the certificate authorities."),
            "clientCertificate": string("The file with the client's certificate."),
            "privateKey": string("The file with the client's private key."),
            "sni": string("The server name (SNI) that the client sends."),
            "subjectAltNames": strings("The names of which the server's certificate must have one.")}))}),
    )
}

fn load_balancer() -> Value {
    let cookie = described(
        json!({"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string"}, "path": {"type": "string"}, "ttl": {"type": "string"}}}),
        "Requests with the same value of this cookie go to the same pod.",
    );
    let locality = object(
        "How traffic is distributed among localities (regions and zones).",
        json!({
        "distribute": list("The weights of localities.", object("The weights for traffic from one locality.", json!({"from": string("The locality of the client."),
        "to": described(
            json!({"type": "object", "additionalProperties": {"type": "number"}}), "The percentage of traffic to each locality.")}))),
        "enabled": boolean("Whether load balancing by locality is enabled."),
        "failover": list("The localities that traffic fails over to.", object("The failover of one region.", json!({
            "from": string("The region whose pods fail."), "to": string("The region that gets its traffic.")})))}),
    );
    let mut balancer = object(
        "How the mesh chooses the pod of a request. Set either `simple` or `consistentHash`.",
        json!({
        "simple": one_of(&["ROUND_ROBIN", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "LEAST_REQUEST"], "The load balancing algorithm."),
        "consistentHash": object("Requests with the same key go to the same pod. Set exactly one key.", json!({
            "httpHeaderName": string("The name of the header whose value is the key."), "httpCookie": cookie,
            "useSourceIp": boolean("Whether the client's IP address is the key."),
            "httpQueryParameterName": string("The name of the query parameter whose value is the key."),
            "minimumRingSize": number("The minimum number of virtual nodes on the hash ring.")})),
        "localityLbSetting": locality,
        "warmupDurationSecs": string("The time in which a new pod gets a growing share of the traffic, for example `60s`.")}),
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
        "The lifetime of the canary's cookie, in seconds. The primary's cookie lives for one `interval`. Default: 86400.",
    )
}

/// Sets the schemas of this module at their places in a Canary's `spec`, and the `oneOf` of the analysis. The derive cannot express them:
/// kube's derive hoists the contents of a `oneOf`, so this function sets them afterwards.
pub fn put_in_place(spec: &mut Value) {
    let copies = "/properties/service/properties/routeRefs/items/properties/parentRefs";
    let mut of_copies = gateway_refs();
    of_copies["maxItems"] = json!(PARENTS);
    of_copies["description"] = json!("The parents of the copy (mode `Template` only).");
    let places: [(&str, Value); 12] = [
        (copies, of_copies),
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
            {"required": ["interval", "threshold", "stepWeights"]},
            // Flagger's fields may stay beside it, so exactly one of the four must fit.
            {"required": ["interval", "threshold", "decimalStepWeights"],
                "not": {"anyOf": [{"required": ["iterations"]}, {"required": ["stepWeight"]}, {"required": ["stepWeights"]}]}}]),
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
