use super::*;
use crate::metrics::identity::testing::{call, environment};

const NOW: &str = "2026-01-01T00:00:00Z";

fn next(variables: &[(&str, &str)], seen: &[&str]) -> Result<Step, IdentityError> {
    let seen: Vec<_> = seen.iter().map(|text| (*text).to_owned()).collect();
    super::next(&environment(variables), &seen, NOW.parse().unwrap())
}

fn done(step: Result<Step, IdentityError>) -> (Keys, String) {
    match step {
        Ok(Step::Done(Grant {
            pass: Pass::Keys(keys),
            until,
        })) => (keys, until.to_string()),
        _ => panic!("another step"),
    }
}

fn keys(id: &str, secret: &str, token: Option<&str>) -> Keys {
    Keys {
        id: id.to_owned(),
        secret: Secret(secret.to_owned()),
        token: token.map(|token| Secret(token.to_owned())),
    }
}

const IRSA: [(&str, &str); 3] = [
    ("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/token"),
    ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/flagger"),
    ("AWS_REGION", "eu-west-1"),
];

#[test]
fn a_region_leads_to_amazons_hosts_only() {
    for (region, expected) in [
        ("eu-west-1", "monitoring.eu-west-1.amazonaws.com"),
        ("us-gov-west-1", "monitoring.us-gov-west-1.amazonaws.com"),
        ("cn-north-1", "monitoring.cn-north-1.amazonaws.com.cn"),
        ("us-iso-east-1", "monitoring.us-iso-east-1.c2s.ic.gov"),
        ("us-isob-east-1", "monitoring.us-isob-east-1.sc2s.sgov.gov"),
        ("eusc-de-east-1", "monitoring.eusc-de-east-1.amazonaws.eu"),
    ] {
        assert_eq!(host("monitoring", region).as_deref(), Some(expected));
    }
    for region in [
        "",
        "s3",
        "compute-1",
        "eu-west-1-",
        "eu--west-1",
        "evil.com/",
        "x@evil.com",
        "a.b",
        "a#",
        "a?",
        "EU",
        "a b",
        "a\\b",
        "é",
    ] {
        assert_eq!(host("monitoring", region), None, "{region}");
    }
}

#[test]
fn keys_of_the_environment_come_first() {
    let mut variables = vec![("AWS_ACCESS_KEY_ID", "i"), ("AWS_SECRET_ACCESS_KEY", "s")];
    variables.extend(IRSA);
    let (found, until) = done(next(&variables, &[]));
    assert_eq!(found, keys("i", "s", None));
    assert_eq!(until, "2026-01-01T01:00:00Z");
    variables.push(("AWS_SESSION_TOKEN", "t"));
    assert_eq!(done(next(&variables, &[])).0, keys("i", "s", Some("t")));
}

/// The answer is the one in Amazon's documentation of AssumeRoleWithWebIdentity.
#[test]
fn irsa_exchanges_the_token_of_kubernetes_at_the_sts_of_the_region() {
    assert!(matches!(next(&IRSA, &[]), Ok(Step::Read(file)) if file == "/var/token"));
    let request = call(next(&IRSA, &["jwt\n"]));
    assert_eq!(request.url.0, "https://sts.eu-west-1.amazonaws.com/");
    assert_eq!(
        request.body.unwrap(),
        "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fflagger\
         &RoleSessionName=flagger&WebIdentityToken=jwt"
    );
    let answer = "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">
      <AssumeRoleWithWebIdentityResult>
        <SubjectFromWebIdentityToken>amzn1.account.AF6RHO7KZU5XRVQJGXK6HB56KR2A</SubjectFromWebIdentityToken>
        <AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/FederatedWebIdentityRole/app1</Arn></AssumedRoleUser>
        <Credentials>
          <SessionToken>AQoDYXdzEE0a8ANXXXXXXXXNO1ewxE5TijQyp+IEXAMPLE</SessionToken>
          <SecretAccessKey>wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLEKEY</SecretAccessKey>
          <Expiration>2026-10-24T23:00:23Z</Expiration>
          <AccessKeyId>ASgeIAIOSFODNN7EXAMPLE</AccessKeyId>
        </Credentials>
      </AssumeRoleWithWebIdentityResult>
    </AssumeRoleWithWebIdentityResponse>";
    let (found, until) = done(next(&IRSA, &["jwt", answer]));
    let expected = keys(
        "ASgeIAIOSFODNN7EXAMPLE",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLEKEY",
        Some("AQoDYXdzEE0a8ANXXXXXXXXNO1ewxE5TijQyp+IEXAMPLE"),
    );
    assert_eq!((found, until.as_str()), (expected, "2026-10-24T23:00:23Z"));
    let half = answer.split_once("</SecretAccessKey>").unwrap().0;
    let error = next(&IRSA, &["jwt", half]).err().unwrap().to_string();
    assert_eq!(
        error,
        "the answer of AWS STS is not as documented: it has no usable AccessKeyId"
    );
}

#[test]
fn without_a_region_the_global_sts_is_asked_or_the_administrators() {
    let request = call(next(&IRSA[..2], &["jwt"]));
    assert_eq!(request.url.0, "https://sts.amazonaws.com/");
    let mut variables = IRSA.to_vec();
    variables.push(("AWS_ENDPOINT_URL_STS", "http://sts.test/"));
    let request = call(next(&variables, &["jwt"]));
    assert_eq!(request.url.0, "http://sts.test/");
}

/// The answer is the one in Amazon's documentation of the metadata service.
const ROLE: &str = r#"{"Code": "Success", "LastUpdated": "2012-04-26T16:39:16Z", "Type": "AWS-HMAC", "AccessKeyId": "ASIAIOSFODNN7EXAMPLE",
    "SecretAccessKey": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "Token": "token", "Expiration": "2026-05-17T15:09:54Z"}"#;

fn of_role() -> Keys {
    keys(
        "ASIAIOSFODNN7EXAMPLE",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        Some("token"),
    )
}

#[test]
fn eks_pod_identity_asks_the_agent_with_the_token_of_the_pod() {
    let uri = (
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "http://169.254.170.23/v1/credentials",
    );
    let file = ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/var/agent");
    assert!(matches!(next(&[uri, file], &[]), Ok(Step::Read(file)) if file == "/var/agent"));
    let request = call(next(&[uri, file], &["jwt\n"]));
    assert_eq!(request.url.0, "http://169.254.170.23/v1/credentials");
    let header = |value: &str| ("Authorization".to_owned(), Secret(value.to_owned()));
    assert_eq!(request.headers, [header("jwt")]);
    let (found, until) = done(next(&[uri, file], &["jwt", ROLE]));
    assert_eq!((found, until.as_str()), (of_role(), "2026-05-17T15:09:54Z"));
    let direct = [uri, ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "direct")];
    assert_eq!(call(next(&direct, &[])).headers, [header("direct")]);
    assert_eq!(done(next(&direct, &[ROLE])).0, of_role());
    assert_eq!(call(next(&[uri], &[])).headers, []);
}

#[test]
fn a_machine_is_asked_for_a_token_its_role_and_the_keys() {
    let request = call(next(&[], &[]));
    assert_eq!(request.url.0, "http://169.254.169.254/latest/api/token");
    assert_eq!(request.method, Method::Put);
    let path = "http://169.254.169.254/latest/meta-data/iam/security-credentials/";
    let request = call(next(&[], &["token"]));
    assert_eq!(request.url.0, path);
    let token = (
        "X-aws-ec2-metadata-token".to_owned(),
        Secret("token".to_owned()),
    );
    assert_eq!(request.headers, std::slice::from_ref(&token));
    let request = call(next(&[], &["token", "my-role\n"]));
    assert_eq!(request.url.0, format!("{path}my-role"));
    assert_eq!(request.headers, [token]);
    let (found, _) = done(next(&[], &["token", "my-role", ROLE]));
    assert_eq!(found, of_role());
    for roles in ["", "\n", "../../x", "a?b", "<html>"] {
        let error = next(&[], &["token", roles]).err().unwrap().to_string();
        assert!(error.ends_with("it has no usable role"), "{error}");
    }
    let off = [("AWS_EC2_METADATA_DISABLED", "true")];
    let error = next(&off, &[]).err().unwrap().to_string();
    assert!(error.contains("AWS_ROLE_ARN"), "{error}");
}

#[test]
fn keys_that_cannot_be_used_are_an_error_without_them() {
    for (answer, field) in [
        ("<html>hush", "JSON"),
        ("{}", "AccessKeyId"),
        (r#"{"AccessKeyId": "hush"}"#, "SecretAccessKey"),
        (
            r#"{"AccessKeyId": "a", "SecretAccessKey": null}"#,
            "SecretAccessKey",
        ),
        (
            r#"{"AccessKeyId": "a", "SecretAccessKey": "hush"}"#,
            "session token",
        ),
        (
            r#"{"AccessKeyId": "a", "SecretAccessKey": "hush", "Token": "t"}"#,
            "Expiration",
        ),
        (
            r#"{"AccessKeyId": "a", "SecretAccessKey": "hush", "Token": "t", "Expiration": "soon"}"#,
            "Expiration",
        ),
        (
            r#"{"AccessKeyId": "a", "SecretAccessKey": "hush\nx", "Token": "t"}"#,
            "SecretAccessKey",
        ),
    ] {
        let error = next(&[], &["token", "role", answer])
            .err()
            .unwrap()
            .to_string();
        assert_eq!(
            error,
            format!(
                "the answer of AWS's metadata service is not as documented: it has no usable {field}"
            )
        );
    }
}
