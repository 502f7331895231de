//! Amazon's Signature Version 4, for requests without a query string. (An SDK would bring a second HTTP stack for this file.)

use aws_lc_rs::hmac;
use jiff::{Timestamp, tz::TimeZone};
use sha2::{Digest, Sha256};
use url::Url;

use crate::snapshot::{HttpRequest, Method, Secret};

/// The keys of an identity of AWS. Their `Debug` shows no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The ID of the access key.
    pub id: String,
    /// The secret access key.
    pub secret: Secret,
    /// The token of a session, which temporary keys have.
    pub token: Option<Secret>,
}

/// Signs a request. Its host has the form `SERVICE.REGION.…`.
pub fn sign(mut request: HttpRequest, keys: &Keys, now: Timestamp) -> HttpRequest {
    let Some(url) = Url::parse(&request.url.0).ok() else {
        // It cannot be sent either.
        return request;
    };
    let host = url.host_str().unwrap_or_default();
    let mut labels = host.split('.');
    let service = labels.next().unwrap_or_default();
    let region = labels.next().unwrap_or_default();
    let mut add = |name: &str, value: &str| {
        let value = Secret(value.to_owned());
        request.headers.push((name.to_owned(), value));
    };
    add("X-Amz-Date", &time(now));
    if let Some(Secret(token)) = &keys.token {
        add("X-Amz-Security-Token", token);
    }
    let authorization = authorization(&request, &url, keys, [region, service], &time(now));
    request
        .headers
        .push(("Authorization".to_owned(), Secret(authorization)));
    request
}

fn time(now: Timestamp) -> String {
    now.to_zoned(TimeZone::UTC)
        .strftime("%Y%m%dT%H%M%SZ")
        .to_string()
}

fn authorization(
    request: &HttpRequest,
    url: &Url,
    keys: &Keys,
    [region, service]: [&str; 2],
    time: &str,
) -> String {
    let date = time.get(..8).unwrap_or_default();
    let scope = format!("{date}/{region}/{service}/aws4_request");
    let (canonical, signed) = canonical(request, url);
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", digest(&canonical));
    let secret = format!("AWS4{}", keys.secret.0).into_bytes();
    let key = [date, region, service, "aws4_request"]
        .iter()
        .fold(secret, |key, part| mac(&key, part));
    let signature = hex(&mac(&key, &text));
    let id = &keys.id;
    format!(
        "AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={signed}, Signature={signature}"
    )
}

/// The canonical form of a request, and the names of its headers.
fn canonical(request: &HttpRequest, url: &Url) -> (String, String) {
    let host = url.host_str().unwrap_or_default();
    let host = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let headers = request.headers.iter();
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.0.trim()));
    let mut headers: Vec<_> = headers
        .chain([("host".to_owned(), host.as_str())])
        .collect();
    headers.sort();
    let mut lines = String::new();
    for (name, value) in &headers {
        lines.extend([name, ":", value, "\n"]);
    }
    let names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
    let names = names.join(";");
    let method = match request.method {
        Method::Get => "GET",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
    };
    let body = digest(request.body.as_deref().unwrap_or_default());
    let canonical = format!("{method}\n{}\n\n{lines}\n{names}\n{body}", url.path());
    (canonical, names)
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
}

fn digest(text: &str) -> String {
    hex(&Sha256::digest(text))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::identity::step::{get, post};

    const TOKEN: &str = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";

    /// The vectors `get-vanilla`, `post-vanilla`, `post-x-www-form-urlencoded` and `post-sts-header-before` of Amazon's test suite.
    #[test]
    fn requests_have_the_signatures_of_amazons_test_suite() {
        let url = || "https://example.amazonaws.com/".to_owned();
        let now: Timestamp = "2015-08-30T12:36:00Z".parse().unwrap();
        let vanilla = HttpRequest {
            method: Method::Post,
            ..get(url(), &[])
        };
        let form = post(url(), &[("Param1", "value1")]);
        for (request, token, names, signature) in [
            (
                get(url(), &[]),
                None,
                "host;x-amz-date",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                vanilla.clone(),
                None,
                "host;x-amz-date",
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                form,
                None,
                "content-type;host;x-amz-date",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
            (
                vanilla,
                Some(TOKEN),
                "host;x-amz-date;x-amz-security-token",
                "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
            ),
        ] {
            let keys = Keys {
                id: "AKIDEXAMPLE".to_owned(),
                secret: Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned()),
                token: None,
            };
            let mut request = request;
            let mut add = |name: &str, value: &str| {
                let value = Secret(value.to_owned());
                request.headers.push((name.to_owned(), value));
            };
            add("X-Amz-Date", &time(now));
            if let Some(token) = token {
                add("X-Amz-Security-Token", token);
            }
            let url = Url::parse(&request.url.0).unwrap();
            let scope = ["us-east-1", "service"];
            assert_eq!(
                authorization(&request, &url, &keys, scope, &time(now)),
                format!(
                    "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders={names}, Signature={signature}"
                )
            );
        }
    }

    #[test]
    fn service_and_region_are_those_of_the_host() {
        let keys = Keys {
            id: "i".to_owned(),
            secret: Secret("hush".to_owned()),
            token: Some(Secret("hush".to_owned())),
        };
        let request = get(
            "https://monitoring.eu-west-1.amazonaws.com/".to_owned(),
            &[],
        );
        let signed = sign(request, &keys, Timestamp::UNIX_EPOCH);
        let names: Vec<_> = signed
            .headers
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(
            names,
            ["X-Amz-Date", "X-Amz-Security-Token", "Authorization"]
        );
        let authorization = &signed.headers[2].1.0;
        let start = "AWS4-HMAC-SHA256 Credential=i/19700101/eu-west-1/monitoring/aws4_request, ";
        assert!(authorization.starts_with(start), "{authorization}");
        assert!(!format!("{keys:?} {signed:?}").contains("hush"));
    }
}
