use super::*;
use crate::{
    metrics::identity::testing::{call, environment, token},
    snapshot::{Method, Origin},
};

const HOST: &str = "w-1a2b.eastus.prometheus.monitor.azure.com";
const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";

fn azure(host: &str, secret: &[(&'static str, &'static str)]) -> Result<Azure, ServerError> {
    let find = |key| {
        let found = secret.iter().find(|(name, _)| *name == key);
        found.map(|(_, value)| *value)
    };
    Azure::of(host, find).unwrap()
}

fn next(azure: &Azure, variables: &[(&str, &str)], seen: &[&str]) -> Result<Step, IdentityError> {
    let seen: Vec<_> = seen.iter().map(|text| (*text).to_owned()).collect();
    azure.next(&environment(variables), &seen, Timestamp::UNIX_EPOCH)
}

#[test]
fn the_keys_of_the_secret_decide_who_asks() {
    let (id, tenant, secret) = (
        ("clientId", "c"),
        ("tenantId", TENANT),
        ("clientSecret", "hush"),
    );
    let client = Client {
        tenant: TENANT.to_owned(),
        id: "c".to_owned(),
    };
    let who = |keys: &[_]| azure(HOST, keys).map(|azure| azure.who);
    assert_eq!(
        who(&[id, tenant, secret]),
        Ok(Who::Principal(client.clone(), Secret("hush".to_owned())))
    );
    assert_eq!(who(&[id, tenant]), Ok(Who::Workload(client)));
    assert_eq!(who(&[]), Ok(Who::Pod));
    for (keys, missing) in [
        (vec![id], "tenantId"),
        (vec![id, secret], "tenantId"),
        (vec![tenant], "clientId"),
        (vec![tenant, secret], "clientId"),
        (vec![secret], "clientId"),
    ] {
        let error = who(&keys).unwrap_err().to_string();
        let expected = format!("azuremonitor credentials does not contain a {missing}");
        assert_eq!(error, expected, "{keys:?}");
    }
    let debug = format!("{:?}", azure(HOST, &[id, tenant, secret]));
    assert!(!debug.contains("hush"), "{debug}");
}

#[test]
fn a_tenant_is_one_part_of_the_path() {
    for bad in [
        "a/b",
        "..",
        ".",
        "a?b",
        "a#b",
        "a@evil.com",
        "é",
        "a%2fb",
        "a\\b",
    ] {
        let error = azure(HOST, &[("clientId", "c"), ("tenantId", bad)]).unwrap_err();
        assert!(error.to_string().contains("tenantId"), "{bad}: {error}");
    }
    for good in [TENANT, "contoso.onmicrosoft.com"] {
        assert!(azure(HOST, &[("clientId", "c"), ("tenantId", good)]).is_ok());
    }
}

#[test]
fn a_service_principal_sends_its_secret_to_the_login_of_its_cloud_only() {
    let keys = [
        ("clientId", "c d"),
        ("tenantId", TENANT),
        ("clientSecret", "hush&x"),
    ];
    for (end, login) in [
        ("com", "login.microsoftonline.com"),
        ("us", "login.microsoftonline.us"),
        ("cn", "login.chinacloudapi.cn"),
    ] {
        let azure = azure(&format!("w.prometheus.monitor.azure.{end}"), &keys).unwrap();
        // A variable for the pod's own identity does not redirect the user's secret.
        let own = [("AZURE_AUTHORITY_HOST", "https://other.test/")];
        let request = call(next(&azure, &own, &[]));
        assert_eq!(
            request.url.0,
            format!("https://{login}/{TENANT}/oauth2/v2.0/token")
        );
        assert_eq!(
            request.body.unwrap(),
            format!(
                "grant_type=client_credentials&client_id=c+d&scope=https%3A%2F%2Fprometheus.monitor.azure.{end}%2F.default&client_secret=hush%26x"
            )
        );
        assert_eq!(azure.secret_host(), Some(login));
        assert!(!azure.is_of_the_pod());
    }
}

/// The answer is the one in Microsoft's documentation of the client credentials flow.
#[test]
fn the_answer_of_entra_is_a_token_with_a_lifetime() {
    let azure = azure(HOST, &[("clientId", "c"), ("tenantId", TENANT)]).unwrap();
    let variables = [("AZURE_FEDERATED_TOKEN_FILE", "/var/token")];
    let answer = r#"{"token_type": "Bearer", "expires_in": 3599, "access_token": "eyJ0eXAi.x"}"#;
    let step = next(&azure, &variables, &["jwt", answer]);
    assert_eq!(token(step), ("eyJ0eXAi.x".to_owned(), 3599));
    for (bad, field) in [
        ("<html>", "JSON"),
        (r#"{"access_token": "hu"#, "JSON"),
        ("{}", "access_token"),
        (r#"{"access_token": null}"#, "access_token"),
        (r#"{"access_token": ""}"#, "access_token"),
        (r#"{"access_token": "hush\n"}"#, "access_token"),
        (r#"{"access_token": "hush"}"#, "expires_in"),
        (
            r#"{"access_token": "hush", "expires_in": null}"#,
            "expires_in",
        ),
        (
            r#"{"access_token": "hush", "expires_in": "soon"}"#,
            "expires_in",
        ),
        (
            r#"{"access_token": "hush", "expires_in": -1}"#,
            "expires_in",
        ),
    ] {
        let error = next(&azure, &variables, &["jwt", bad]).err().unwrap();
        let text = error.to_string();
        let end = format!("is not as documented: it has no usable {field}");
        assert!(text.ends_with(&end), "{bad}: {text}");
        assert!(!text.contains("hush"), "{text}");
    }
    let long = r#"{"access_token": "t", "expires_in": 18446744073709551615}"#;
    let step = next(&azure, &variables, &["jwt", long]);
    assert_eq!(token(step).1, 24 * 60 * 60, "no token is kept for ever");
}

#[test]
fn a_workload_identity_exchanges_the_token_of_kubernetes() {
    let azure = azure(HOST, &[("clientId", "c"), ("tenantId", TENANT)]).unwrap();
    let error = next(&azure, &[], &[]).err().unwrap().to_string();
    assert!(
        error.starts_with("the operator's pod has no variable AZURE_FEDERATED_TOKEN_FILE: enable"),
        "{error}"
    );
    let mut variables = vec![("AZURE_FEDERATED_TOKEN_FILE", "/var/token")];
    assert!(matches!(next(&azure, &variables, &[]), Ok(Step::Read(file)) if file == "/var/token"));
    let request = call(next(&azure, &variables, &["jwt\n"]));
    assert_eq!(
        request.url.0,
        format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token")
    );
    assert_eq!(
        request.body.unwrap(),
        "grant_type=client_credentials&client_id=c&scope=https%3A%2F%2Fprometheus.monitor.azure.com%2F.default\
         &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=jwt"
    );
    assert_eq!(
        (request.method, request.origin),
        (Method::Post, Origin::Administrator)
    );
    variables.push(("AZURE_AUTHORITY_HOST", "https://login.test/"));
    let request = call(next(&azure, &variables, &["jwt"]));
    assert_eq!(
        request.url.0,
        format!("https://login.test/{TENANT}/oauth2/v2.0/token")
    );
}

/// The answer is the one in Microsoft's documentation of the metadata service: its numbers are texts.
#[test]
fn without_keys_the_pod_asks_with_its_workload_identity_or_that_of_its_machine() {
    let azure = azure(HOST, &[]).unwrap();
    assert!(azure.is_of_the_pod());
    assert_eq!(azure.secret_host(), None);
    let request = call(next(&azure, &[], &[]));
    assert_eq!(
        request.url.0,
        "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fprometheus.monitor.azure.com"
    );
    assert_eq!(
        request.headers,
        [("Metadata".to_owned(), Secret("true".to_owned()))]
    );
    let answer = r#"{"access_token": "eyJ0eXAi", "refresh_token": "", "expires_in": "3599", "expires_on": "1506484173",
        "not_before": "1506480273", "resource": "https://management.azure.com/", "token_type": "Bearer"}"#;
    assert_eq!(
        token(next(&azure, &[], &[answer])),
        ("eyJ0eXAi".to_owned(), 3599)
    );
    let client = [("AZURE_CLIENT_ID", "c")];
    let request = call(next(&azure, &client, &[]));
    assert!(
        request.url.0.ends_with("&client_id=c"),
        "{:?}",
        request.url.0
    );
    let workload = [
        ("AZURE_CLIENT_ID", "c"),
        ("AZURE_TENANT_ID", TENANT),
        ("AZURE_FEDERATED_TOKEN_FILE", "/var/token"),
    ];
    assert!(matches!(next(&azure, &workload, &[]), Ok(Step::Read(_))));
    let request = call(next(&azure, &workload, &["jwt"]));
    assert!(request.url.0.contains(TENANT));
}
