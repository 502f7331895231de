//! Exchanges with stand-ins for the endpoints of the clouds, and in virtual time.

use futures::{FutureExt, future::join_all};
use jiff::SignedDuration;
use serde_json::json;
use tokio::time::advance;
use wiremock::{
    Mock, MockServer, Request, ResponseTemplate,
    matchers::{any, body_string_contains, header, method, path, query_param},
};

use super::*;
use crate::{
    metrics::identity::{Keys, azure::Azure, google::Google},
    snapshot::Secret,
};

fn azure(secret: &[(&'static str, &'static str)]) -> Identity {
    let find = |key| {
        let found = secret.iter().find(|(name, _)| *name == key);
        found.map(|(_, value)| *value)
    };
    let azure = Azure::of("w.prometheus.monitor.azure.com", find);
    Identity::Azure(azure.unwrap().unwrap())
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    Environment::of(|name| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

fn token(text: &str) -> Pass {
    Pass::Token(Secret(text.to_owned()))
}

fn granted(text: &str, seconds: u64) -> serde_json::Value {
    json!({"access_token": text, "expires_in": seconds.to_string(), "token_type": "Bearer"})
}

/// Tokens from a metadata service that is this server.
fn from_metadata(server: &MockServer) -> Tokens {
    let own = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", server.uri())];
    let own = own.map(|(name, value)| (name, value.leak() as &str));
    Tokens::new(Http::default(), environment(&own))
}

async fn server(answer: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(answer).mount(&server).await;
    server
}

async fn requests(server: &MockServer) -> Vec<Request> {
    server.received_requests().await.unwrap()
}

#[tokio::test]
async fn the_metadata_service_is_asked_once_for_all_canaries() {
    let server = MockServer::start().await;
    Mock::given(method("GET"))
        .and(path("/metadata/identity/oauth2/token"))
        .and(header("Metadata", "true"))
        .and(query_param(
            "resource",
            "https://prometheus.monitor.azure.com",
        ))
        .respond_with(ResponseTemplate::new(200).set_body_json(granted("t", 3600)))
        .mount(&server)
        .await;
    let (tokens, identity) = (from_metadata(&server), azure(&[]));
    let names: Vec<_> = (0..50).map(|number| format!("ns-{number}")).collect();
    let passes = join_all(names.iter().map(|name| tokens.pass(name, &identity))).await;
    assert!(passes.iter().all(|pass| *pass == Ok(token("t"))));
    assert_eq!(requests(&server).await.len(), 1);
}

#[tokio::test]
async fn a_token_of_kubernetes_is_read_anew_for_each_exchange() {
    let server = MockServer::start().await;
    for (assertion, given) in [("first", "a"), ("second", "b")] {
        Mock::given(method("POST"))
            .and(path("/t/oauth2/v2.0/token"))
            .and(body_string_contains(format!(
                "client_assertion={assertion}"
            )))
            // The token expires too soon to be kept.
            .respond_with(ResponseTemplate::new(200).set_body_json(granted(given, 60)))
            .mount(&server)
            .await;
    }
    let folder = std::env::temp_dir().join(format!("tokens-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("token");
    let own = [
        ("AZURE_AUTHORITY_HOST", server.uri()),
        ("AZURE_FEDERATED_TOKEN_FILE", file.display().to_string()),
    ];
    let own: Vec<_> = own
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let tokens = Tokens::new(Http::default(), environment(&own));
    let identity = azure(&[("clientId", "c"), ("tenantId", "t")]);
    for (content, given) in [("first\n", "a"), ("second", "b")] {
        std::fs::write(&file, content).unwrap();
        assert_eq!(tokens.pass("test", &identity).await, Ok(token(given)));
    }
    std::fs::remove_dir_all(&folder).unwrap();
    let failure = tokens.pass("test", &identity).await.unwrap_err();
    assert_eq!(
        failure.why,
        format!(
            "cannot prove an identity to Azure: cannot read {}: No such file or directory (os error 2)",
            file.display()
        )
    );
}

/// Each row has an answer, and the end of the error.
#[tokio::test]
async fn an_endpoint_that_refuses_or_answers_nonsense_is_named_and_no_token_shown() {
    let refused = json!({"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided."});
    let (plain, text) = (ResponseTemplate::new, |text: &str| text.to_owned());
    for (answer, end) in [
        (
            plain(401).set_body_json(refused.clone()),
            format!("127.0.0.1 answers 401 Unauthorized: {refused}"),
        ),
        (plain(403), text("127.0.0.1 answers 403 Forbidden")),
        (plain(404), text("127.0.0.1 answers 404 Not Found")),
        (
            plain(429).insert_header("Retry-After", "60"),
            text("127.0.0.1 answers 429 Too Many Requests"),
        ),
        (
            plain(302).insert_header("Location", "http://other.test/"),
            text(
                "the server redirects to the host other.test: a redirect to another host is not followed",
            ),
        ),
        (
            plain(200).set_body_string("<html>hush</html>"),
            text(
                "the answer of Azure's metadata service is not as documented: it has no usable JSON",
            ),
        ),
        (
            plain(200).set_body_string(r#"{"access_token": "hush", "exp"#),
            text(
                "the answer of Azure's metadata service is not as documented: it has no usable JSON",
            ),
        ),
    ] {
        let server = server(answer).await;
        let failure = from_metadata(&server).pass("test", &azure(&[])).await;
        let expected = format!("cannot prove an identity to Azure: {end}");
        assert_eq!(failure.unwrap_err().why, expected);
    }
}

/// The endpoint repeats the request, as it is and decoded.
#[tokio::test(start_paused = true)]
async fn a_refusal_that_repeats_a_secret_does_not_show_it() {
    let (tokens, _) = faked(Environment::default(), |_, request| HttpResponse {
        status: 400,
        body: format!("hush &: {}", request.body.as_deref().unwrap()),
    });
    let secret = [
        ("clientId", "c"),
        ("tenantId", "t"),
        ("clientSecret", "hush &"),
    ];
    let failure = tokens.pass("test", &azure(&secret)).await.unwrap_err();
    assert_eq!(
        failure.why,
        "cannot prove an identity to Azure: login.microsoftonline.com answers 400 Bad Request: [redacted]: \
         grant_type=client_credentials&client_id=c&scope=https%3A%2F%2Fprometheus.monitor.azure.com%2F.default&client_secret=[redacted]"
    );
}

/// Tokens from a stand-in in virtual time, which counts its requests and answers with a token that names its number.
fn faked(
    environment: Environment,
    answer: impl Fn(usize, &HttpRequest) -> HttpResponse + Send + Sync + 'static,
) -> (Tokens, Arc<Mutex<usize>>) {
    let count = Arc::new(Mutex::new(0));
    let counted = count.clone();
    let http = Http::faked(Arc::new(move |request: &HttpRequest| {
        let mut count = lock(&counted);
        *count += 1;
        let answer = answer(*count, request);
        async move { Ok(answer) }.boxed()
    }));
    (Tokens::new(http, environment), count)
}

fn numbered(number: usize, seconds: u64) -> HttpResponse {
    HttpResponse {
        status: 200,
        body: granted(&number.to_string(), seconds).to_string(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_kept_until_shortly_before_its_end() {
    let (tokens, _) = faked(Environment::default(), |number, _| numbered(number, 3600));
    let identity = azure(&[]);
    for (wait, expected) in [(0, "1"), (3479, "1"), (2, "2"), (3479, "2"), (2, "3")] {
        advance(Duration::from_secs(wait)).await;
        assert_eq!(tokens.pass("test", &identity).await, Ok(token(expected)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_repeated_after_some_seconds() {
    let (tokens, count) = faked(Environment::default(), |number, _| HttpResponse {
        status: if number == 1 { 403 } else { 200 },
        ..numbered(number, 3600)
    });
    let identity = azure(&[]);
    assert!(tokens.pass("test", &identity).await.is_err());
    assert!(tokens.pass("test", &identity).await.is_err());
    assert_eq!(*lock(&count), 1);
    advance(PAUSE + Duration::from_secs(1)).await;
    assert_eq!(tokens.pass("test", &identity).await, Ok(token("2")));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_throttles_without_a_time_is_asked_once_more() {
    let (tokens, _) = faked(Environment::default(), |number, _| HttpResponse {
        status: if number == 1 { 429 } else { 200 },
        ..numbered(number, 3600)
    });
    assert_eq!(tokens.pass("test", &azure(&[])).await, Ok(token("2")));
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_exchanged_soon_but_not_for_each_rejection() {
    let (tokens, _) = faked(Environment::default(), |number, _| numbered(number, 3600));
    let identity = azure(&[]);
    for expected in ["1", "1"] {
        assert_eq!(tokens.pass("test", &identity).await, Ok(token(expected)));
        tokens.reject("test", &identity);
    }
    advance(PAUSE + Duration::from_secs(1)).await;
    assert_eq!(tokens.pass("test", &identity).await, Ok(token("2")));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_does_not_answer_fails_the_check_in_time() {
    let http = Http::faked(Arc::new(|_: &HttpRequest| {
        futures::future::pending().boxed()
    }));
    let tokens = Tokens::new(http, Environment::default());
    let begun = clock::now();
    let failure = tokens.pass("test", &azure(&[])).await.unwrap_err();
    assert!(
        failure
            .why
            .starts_with("cannot prove an identity to Azure: "),
        "{}",
        failure.why
    );
    assert!(clock::now().duration_since(begun) <= SignedDuration::from_secs(11));
}

/// A user of one namespace can neither get the tokens of another namespace nor make the operator drop them.
#[tokio::test(start_paused = true)]
async fn a_namespace_has_tokens_of_its_own_and_a_limited_number() {
    let (tokens, count) = faked(Environment::default(), |number, _| numbered(number, 3600));
    let secret = |id| azure(&[("clientId", id), ("tenantId", "t"), ("clientSecret", "s")]);
    assert_eq!(tokens.pass("a", &secret("c")).await, Ok(token("1")));
    assert_eq!(tokens.pass("b", &secret("c")).await, Ok(token("2")));
    for number in 0..MAX_OF_NAMESPACE {
        let id = number.to_string().leak();
        tokens.pass("b", &secret(id)).await.unwrap();
    }
    assert_eq!(tokens.pass("a", &secret("c")).await, Ok(token("1")));
    let before = *lock(&count);
    assert_ne!(tokens.pass("b", &secret("c")).await, Ok(token("2")));
    assert_eq!(*lock(&count), before + 1);
    assert_eq!(lock(&tokens.held)["b"].len(), MAX_OF_NAMESPACE);
}

#[tokio::test]
async fn a_cancelled_exchange_lets_the_next_one_begin() {
    let server = server(ResponseTemplate::new(200).set_delay(Duration::from_secs(60))).await;
    let (tokens, identity) = (from_metadata(&server), azure(&[]));
    {
        let first = tokens.pass("test", &identity);
        let arrived = async {
            while requests(&server).await.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = first => panic!("it has no answer"),
            () = arrived => {}
        }
    }
    server.reset().await;
    let answer = ResponseTemplate::new(200).set_body_json(granted("t", 3600));
    Mock::given(any()).respond_with(answer).mount(&server).await;
    assert_eq!(tokens.pass("test", &identity).await, Ok(token("t")));
}

fn role_keys() -> serde_json::Value {
    json!({"Code": "Success", "AccessKeyId": "i", "SecretAccessKey": "s", "Token": "t", "Expiration": "2999-01-01T00:00:00Z"})
}

fn aws(variables: &[(&str, String)]) -> Tokens {
    let own: Vec<_> = variables
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    Tokens::new(Http::default(), environment(&own))
}

fn expected_keys() -> Pass {
    Pass::Keys(Keys {
        id: "i".to_owned(),
        secret: Secret("s".to_owned()),
        token: Some(Secret("t".to_owned())),
    })
}

#[tokio::test]
async fn the_metadata_service_of_aws_gives_the_keys_of_the_machines_role() {
    let server = MockServer::start().await;
    let token = || header("X-aws-ec2-metadata-token", "session");
    Mock::given(method("PUT"))
        .and(path("/latest/api/token"))
        .and(header("X-aws-ec2-metadata-token-ttl-seconds", "60"))
        .respond_with(ResponseTemplate::new(200).set_body_string("session"))
        .mount(&server)
        .await;
    Mock::given(method("GET"))
        .and(path("/latest/meta-data/iam/security-credentials/"))
        .and(token())
        .respond_with(ResponseTemplate::new(200).set_body_string("role"))
        .mount(&server)
        .await;
    Mock::given(method("GET"))
        .and(path("/latest/meta-data/iam/security-credentials/role"))
        .and(token())
        .respond_with(ResponseTemplate::new(200).set_body_json(role_keys()))
        .mount(&server)
        .await;
    let tokens = aws(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.uri())]);
    for _ in 0..3 {
        let pass = tokens.pass("test", &Identity::Aws).await;
        assert_eq!(pass, Ok(expected_keys()));
    }
    assert_eq!(requests(&server).await.len(), 3, "the keys are kept");
}

#[tokio::test]
async fn pod_identity_and_sts_get_the_token_of_the_pod_from_its_file() {
    let server = MockServer::start().await;
    Mock::given(method("GET"))
        .and(path("/v1/credentials"))
        .and(header("Authorization", "jwt"))
        .respond_with(ResponseTemplate::new(200).set_body_json(role_keys()))
        .mount(&server)
        .await;
    let xml = "<Credentials><AccessKeyId>i</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>\
        <Expiration>2999-01-01T00:00:00Z</Expiration></Credentials>";
    Mock::given(method("POST"))
        .and(path("/"))
        .and(body_string_contains("Action=AssumeRoleWithWebIdentity"))
        .and(body_string_contains("WebIdentityToken=jwt"))
        .respond_with(ResponseTemplate::new(200).set_body_string(xml))
        .mount(&server)
        .await;
    let file = std::env::temp_dir().join(format!("aws-token-{}", std::process::id()));
    std::fs::write(&file, "jwt\n").unwrap();
    let path = file.display().to_string();
    let agent = aws(&[
        (
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            format!("{}/v1/credentials", server.uri()),
        ),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", path.clone()),
    ]);
    let irsa = aws(&[
        ("AWS_WEB_IDENTITY_TOKEN_FILE", path),
        ("AWS_ROLE_ARN", "arn".to_owned()),
        ("AWS_ENDPOINT_URL_STS", server.uri()),
    ]);
    for tokens in [agent, irsa] {
        let pass = tokens.pass("test", &Identity::Aws).await;
        assert_eq!(pass, Ok(expected_keys()));
    }
    std::fs::remove_file(&file).unwrap();
}

#[tokio::test]
async fn the_metadata_server_of_google_gives_a_token() {
    let server = MockServer::start().await;
    Mock::given(method("GET"))
        .and(path(
            "/computeMetadata/v1/instance/service-accounts/default/token",
        ))
        .and(header("Metadata-Flavor", "Google"))
        .respond_with(ResponseTemplate::new(200).set_body_json(granted("t", 3599)))
        .mount(&server)
        .await;
    let host = server.uri().replace("http://", "");
    let tokens = Tokens::new(
        Http::default(),
        environment(&[("GCE_METADATA_HOST", &host)]),
    );
    let identity = Identity::Google(Google::Pod);
    assert_eq!(tokens.pass("test", &identity).await, Ok(token("t")));
}
