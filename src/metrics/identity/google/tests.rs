use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey},
};
use serde_json::Value;

use super::*;
use crate::metrics::identity::testing::{call, environment, repeated, token};

fn next(google: &Google, variables: &[(&str, &str)], seen: &[&str]) -> Result<Step, IdentityError> {
    let seen: Vec<_> = seen.iter().map(|text| (*text).to_owned()).collect();
    let now = Timestamp::from_second(1_577_232_000).unwrap();
    google.next(&environment(variables), &seen, now)
}

fn key(pair: &KeyPair) -> Value {
    let der = AsDer::<Pkcs8V1Der>::as_der(pair).unwrap();
    let text = STANDARD.encode(der.as_ref());
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(String::from_utf8_lossy)
        .collect();
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        lines.join("\n")
    );
    json!({
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "k1",
        "private_key": pem,
        "client_email": "flagger@p.iam.gserviceaccount.com",
        "token_uri": "http://169.254.169.254/token",
    })
}

#[test]
fn a_key_signs_an_assertion_for_google_only() {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let google = Google::Key(Secret(key(&pair).to_string()));
    let request = call(next(&google, &[], &[]));
    assert_eq!(request.url.0, "https://oauth2.googleapis.com/token");
    let events = repeated(&request);
    let form: Vec<(String, String)> = url::form_urlencoded::parse(request.body.unwrap().as_bytes())
        .into_owned()
        .collect();
    let [grant, assertion] = form.try_into().unwrap();
    assert!(events.iter().all(|event| !event.contains(&assertion.1)));
    assert_eq!(grant.1, "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let parts: Vec<_> = assertion.1.split('.').collect();
    let json = |part: &str| -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    assert_eq!(
        json(parts[0]),
        json!({"alg": "RS256", "typ": "JWT", "kid": "k1"})
    );
    assert_eq!(
        json(parts[1]),
        json!({"iss": "flagger@p.iam.gserviceaccount.com", "scope": "https://www.googleapis.com/auth/monitoring.read",
            "aud": "https://oauth2.googleapis.com/token", "iat": 1_577_232_000, "exp": 1_577_235_600})
    );
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref());
    let signed = format!("{}.{}", parts[0], parts[1]);
    let signature = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
    public.verify(signed.as_bytes(), &signature).unwrap();
    let answer = r#"{"access_token": "1/8xbJqaOZXSUZbHLl5EOtu1pxz3fmmetKx9W8CV4t79M", "scope": "s", "token_type": "Bearer", "expires_in": 3600}"#;
    let (found, until) = token(next(&google, &[], &[answer]));
    assert!(found.starts_with("1/8xbJ"));
    assert_eq!(until, 1_577_235_600);
}

#[test]
fn a_key_that_cannot_be_used_is_an_error_without_it() {
    let good = key(&KeyPair::generate(KeySize::Rsa2048).unwrap());
    for (field, value, named) in [
        (
            "type",
            json!("authorized_user"),
            "type (it must be service_account)",
        ),
        ("type", Value::Null, "JSON"),
        ("client_email", json!(""), "client_email"),
        ("private_key", json!(""), "private_key"),
        (
            "private_key",
            json!("-----BEGIN PRIVATE KEY-----\nhush\n-----END PRIVATE KEY-----"),
            "private_key",
        ),
        (
            "private_key",
            json!("-----BEGIN PRIVATE KEY-----\naHVzaA==\n-----END PRIVATE KEY-----"),
            "private_key",
        ),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        let google = Google::Key(Secret(bad.to_string()));
        let error = next(&google, &[], &[]).err().unwrap().to_string();
        assert_eq!(
            error,
            format!(
                "the key of the service account is not as documented: it has no usable {named}"
            )
        );
    }
    let google = Google::Key(Secret("hush".to_owned()));
    let error = next(&google, &[], &[]).err().unwrap().to_string();
    assert!(!format!("{error} {google:?}").contains("hush"), "{error}");
}

/// The answer is the one in Google's documentation of the metadata server.
#[test]
fn without_a_key_the_metadata_service_knows_the_identity_of_the_pod() {
    let request = call(next(&Google::Pod, &[], &[]));
    assert_eq!(
        request.url.0,
        "http://169.254.169.254/computeMetadata/v1/instance/service-accounts/default/token?scopes=https://www.googleapis.com/auth/monitoring.read"
    );
    let header = ("Metadata-Flavor".to_owned(), Secret("Google".to_owned()));
    assert_eq!(request.headers, [header]);
    let answer = r#"{"access_token":"ya29.AHES6ZRN3-HlhAPya30GnW_bHSb_QtAS08i85nHq39HE3C2LTrCARA","expires_in":3599,"token_type":"Bearer"}"#;
    let (found, until) = token(next(&Google::Pod, &[], &[answer]));
    assert!(found.starts_with("ya29."));
    assert_eq!(until, 1_577_235_599);
    let own = [("GCE_METADATA_HOST", "metadata.test:8080")];
    let request = call(next(&Google::Pod, &own, &[]));
    assert!(
        request
            .url
            .0
            .starts_with("http://metadata.test:8080/computeMetadata/v1/")
    );
}

#[test]
fn a_key_in_a_file_of_the_pod_comes_before_the_metadata_service() {
    let variables = [("GOOGLE_APPLICATION_CREDENTIALS", "/var/key.json")];
    let read = next(&Google::Pod, &variables, &[]);
    assert!(matches!(read, Ok(Step::Read(file)) if file == "/var/key.json"));
    let key = key(&KeyPair::generate(KeySize::Rsa2048).unwrap()).to_string();
    let request = call(next(&Google::Pod, &variables, &[&key]));
    assert_eq!(request.url.0, "https://oauth2.googleapis.com/token");
    let answer = r#"{"access_token":"t","expires_in":3599}"#;
    assert_eq!(
        token(next(&Google::Pod, &variables, &[&key, answer])).0,
        "t"
    );
}
