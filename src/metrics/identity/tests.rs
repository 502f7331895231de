use super::{testing::repeated, *};
use crate::snapshot::{HttpResponse, Secret};

/// A value that no event may show, with characters that a form encodes.
const HUSH: &str = "hush+/&x";

/// The events about the requests of an exchange, if an endpoint refuses one of them by repeating it. Files and answers are secret.
fn events(identity: &Identity, variables: &[(&str, &str)]) -> Vec<String> {
    let environment = testing::environment(variables);
    let (mut seen, mut events) = (Vec::new(), Vec::new());
    while let Ok(Step::Read(_) | Step::Call(_)) = &identity
        .next(&environment, &seen, Timestamp::UNIX_EPOCH)
        .inspect(|step| {
            if let Step::Call(request) = step {
                events.extend(repeated(request));
            }
        })
    {
        // The second answer of AWS's metadata service is the name of a role.
        let answer = if seen.len() == 1 { "role" } else { HUSH };
        seen.push(answer.to_owned());
    }
    events
}

#[test]
fn an_endpoint_that_repeats_what_proves_an_identity_does_not_publish_it() {
    let azure = |secret: &[(&'static str, &'static str)]| {
        let find = |key| {
            let found = secret.iter().find(|(name, _)| *name == key);
            found.map(|(_, value)| *value)
        };
        let azure = Azure::of("w.prometheus.monitor.azure.com", find);
        Identity::Azure(azure.unwrap().unwrap())
    };
    let client = [("clientId", "c"), ("tenantId", "t")];
    let principal = [client[0], client[1], ("clientSecret", HUSH)];
    let uri = (
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "http://169.254.170.23/v1/credentials",
    );
    let exchanges: [(Identity, &[(&str, &str)]); 6] = [
        (azure(&principal), &[]),
        (azure(&client), &[("AZURE_FEDERATED_TOKEN_FILE", "f")]),
        (
            Identity::Aws,
            &[("AWS_WEB_IDENTITY_TOKEN_FILE", "f"), ("AWS_ROLE_ARN", "r")],
        ),
        (
            Identity::Aws,
            &[uri, ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "f")],
        ),
        (
            Identity::Aws,
            &[uri, ("AWS_CONTAINER_AUTHORIZATION_TOKEN", HUSH)],
        ),
        (Identity::Aws, &[]),
    ];
    for (identity, variables) in exchanges {
        let events = events(&identity, variables);
        let hidden = events.iter().filter(|event| event.contains("[redacted]"));
        assert!(hidden.count() > 0, "{identity:?} {variables:?}: {events:?}");
        let shown: Vec<_> = events.iter().filter(|it| it.contains("hush")).collect();
        assert!(shown.is_empty(), "{identity:?} {variables:?}: {shown:?}");
    }
}

/// Otherwise each check would fail until the planned end of keys that AWS does not accept.
#[test]
fn keys_are_exchanged_when_aws_says_that_they_are_outdated() {
    let keys = Pass::Keys(Keys {
        id: "i".to_owned(),
        secret: Secret("s".to_owned()),
        token: None,
    });
    let token = Pass::Token(Secret("t".to_owned()));
    for (status, error, of_keys) in [
        (400, "ExpiredToken", true),
        (400, "ExpiredTokenException", true),
        (403, "ExpiredToken", true),
        (401, "ExpiredToken", true),
        (400, "UnrecognizedClientException", true),
        (403, "InvalidClientTokenId", true),
        (403, "AccessDenied", false),
        (400, "ValidationError", false),
        (200, "ExpiredToken", false),
        (404, "ExpiredToken", false),
        (500, "ExpiredToken", false),
    ] {
        for body in [
            format!("<Error><Code>{error}</Code></Error>"),
            format!("{{\"__type\": \"com.amazon.coral.service#{error}\"}}"),
        ] {
            let answer = HttpResponse { status, body };
            assert_eq!(keys.is_rejected(&answer), of_keys, "{status} {error}");
            assert_eq!(token.is_rejected(&answer), status == 401, "{status}");
        }
    }
}
