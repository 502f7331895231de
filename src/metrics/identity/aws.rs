//! The identity of the operator's pod at AWS: keys in its environment, IAM roles for service accounts (IRSA), EKS Pod Identity, or the
//! role of its machine (IMDSv2); the first that the environment names, in the order of Amazon's SDKs.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use super::{
    environment::Environment,
    sigv4::Keys,
    step::{Grant, IdentityError, Pass, Step, get, is_sendable, post},
};
use crate::snapshot::{HttpRequest, Method, Secret};

/// The metadata service of a machine.
const METADATA: &str = "http://169.254.169.254";
/// The time for which keys of the environment are used before they are read again. They do not expire.
const LASTING: Duration = Duration::from_secs(60 * 60);
const STS: &str = "the answer of AWS STS";
const AGENT: &str = "the answer of EKS Pod Identity";
const MACHINE: &str = "the answer of AWS's metadata service";

/// The partitions of AWS: the start of the names of their regions, and the domain of their hosts.
const PARTITIONS: [(&str, &str); 7] = [
    ("cn-", "amazonaws.com.cn"),
    ("eusc-", "amazonaws.eu"),
    ("us-iso-", "c2s.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("us-isof-", "csp.hci.ic.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
    ("", "amazonaws.com"),
];

/// The host of a service in a region. `None` if no region can have this name. A name of a region consists of words and a number; a name such as
/// `s3` could make a host that belongs to a user.
pub fn host(service: &str, region: &str) -> Option<String> {
    let (words, number) = region.rsplit_once('-')?;
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|it| it.is_ascii_lowercase());
    let is_number = !number.is_empty() && number.bytes().all(|it| it.is_ascii_digit());
    if !is_number || !words.contains('-') || !words.split('-').all(is_word) {
        return None;
    }
    let mut partitions = PARTITIONS.iter();
    let (_, domain) = partitions.find(|(start, _)| region.starts_with(start))?;
    Some(format!("{service}.{region}.{domain}"))
}

/// The next step of the exchange.
pub fn next(
    environment: &Environment,
    seen: &[String],
    now: Timestamp,
) -> Result<Step, IdentityError> {
    let get = |name| environment.get(name);
    if let (Some(id), Some(secret)) = (get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY")) {
        let token = get("AWS_SESSION_TOKEN").map(str::to_owned);
        let until = now.saturating_add(LASTING).unwrap_or(now);
        return Ok(done([id.to_owned(), secret.to_owned()], token, until));
    }
    if let (Some(file), Some(role)) = (get("AWS_WEB_IDENTITY_TOKEN_FILE"), get("AWS_ROLE_ARN")) {
        return match seen {
            [] => Ok(Step::Read(file.to_owned())),
            [token] => Ok(Step::Call(web_identity(environment, role, token.trim()))),
            [_, answer, ..] => temporary(answer),
        };
    }
    if let Some(uri) = get("AWS_CONTAINER_CREDENTIALS_FULL_URI") {
        return agent(environment, uri, seen);
    }
    if get("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Err(IdentityError::NotSet {
            name: "AWS_ROLE_ARN",
            advice: "give the operator's ServiceAccount a role, by EKS Pod Identity or by IRSA",
        });
    }
    machine(environment, seen)
}

/// IRSA: exchanges the pod's token of Kubernetes for keys of the role.
fn web_identity(environment: &Environment, role: &str, token: &str) -> HttpRequest {
    let region = environment.get("AWS_REGION");
    let region = region.or_else(|| environment.get("AWS_DEFAULT_REGION"));
    let url = match environment.get("AWS_ENDPOINT_URL_STS") {
        Some(own) => own.trim_end_matches('/').to_owned(),
        None => {
            let host = region.and_then(|region| host("sts", region));
            format!("https://{}", host.as_deref().unwrap_or("sts.amazonaws.com"))
        }
    };
    let session = environment
        .get("AWS_ROLE_SESSION_NAME")
        .unwrap_or("flagger");
    let form = [
        ("Action", "AssumeRoleWithWebIdentity"),
        ("Version", "2011-06-15"),
        ("RoleArn", role),
        ("RoleSessionName", session),
        ("WebIdentityToken", token),
    ];
    post(format!("{url}/"), &form)
}

/// Reads the XML of STS. The values contain no escapes, and each name occurs once.
fn temporary(answer: &str) -> Result<Step, IdentityError> {
    let find = |name: &'static str| {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        let (_, rest) = answer.split_once(&open)?;
        let (value, _) = rest.split_once(&close)?;
        Some(value.trim().to_owned())
    };
    keys(
        STS,
        Answer {
            access_key_id: find("AccessKeyId"),
            secret_access_key: find("SecretAccessKey"),
            token: find("SessionToken"),
            expiration: find("Expiration"),
        },
    )
}

/// EKS Pod Identity: asks the agent of the node with the pod's token.
fn agent(environment: &Environment, uri: &str, seen: &[String]) -> Result<Step, IdentityError> {
    let call = |token: Option<&str>| {
        let token = token.map(|token| ("Authorization", token.trim()));
        Step::Call(get(uri.to_owned(), token.as_slice()))
    };
    match (
        environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
        seen,
    ) {
        (Some(file), []) => Ok(Step::Read(file.to_owned())),
        (Some(_), [token]) => Ok(call(Some(token))),
        (Some(_), [_, answer, ..]) | (None, [answer, ..]) => json(AGENT, answer),
        (None, []) => Ok(call(environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN"))),
    }
}

/// IMDSv2: gets a token of the metadata service, the name of the machine's role, and its keys.
fn machine(environment: &Environment, seen: &[String]) -> Result<Step, IdentityError> {
    let host = environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    let host = host.unwrap_or(METADATA).trim_end_matches('/');
    let ask = |role: &str, token: &str| {
        let url = format!("{host}/latest/meta-data/iam/security-credentials/{role}");
        Step::Call(get(url, &[("X-aws-ec2-metadata-token", token)]))
    };
    match seen {
        [] => {
            let lifetime = [("X-aws-ec2-metadata-token-ttl-seconds", "60")];
            Ok(Step::Call(HttpRequest {
                method: Method::Put,
                ..get(format!("{host}/latest/api/token"), &lifetime)
            }))
        }
        [token] => Ok(ask("", token)),
        [token, roles] => {
            let role = roles.lines().next().unwrap_or_default().trim();
            let is_part = |c: char| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c);
            if role.is_empty() || !role.chars().all(is_part) {
                let (what, field) = (MACHINE, "role");
                return Err(IdentityError::Unreadable { what, field });
            }
            Ok(ask(role, token))
        }
        [_, _, answer, ..] => json(MACHINE, answer),
    }
}

fn json(what: &'static str, answer: &str) -> Result<Step, IdentityError> {
    let field = "JSON";
    let answer = serde_json::from_str(answer);
    keys(
        what,
        answer.map_err(|_| IdentityError::Unreadable { what, field })?,
    )
}

fn keys(what: &'static str, answer: Answer) -> Result<Step, IdentityError> {
    let usable = |value: Option<String>, field| {
        let value = value.filter(|value| is_sendable(value));
        value.ok_or(IdentityError::Unreadable { what, field })
    };
    let id = usable(answer.access_key_id, "AccessKeyId")?;
    let secret = usable(answer.secret_access_key, "SecretAccessKey")?;
    let token = usable(answer.token, "session token")?;
    let until = usable(answer.expiration, "Expiration")?.parse();
    let field = "Expiration";
    let until = until.map_err(|_| IdentityError::Unreadable { what, field })?;
    Ok(done([id, secret], Some(token), until))
}

fn done([id, secret]: [String; 2], token: Option<String>, until: Timestamp) -> Step {
    let keys = Keys {
        id,
        secret: Secret(secret),
        token: token.map(Secret),
    };
    Step::Done(Grant {
        pass: Pass::Keys(keys),
        until,
    })
}

/// The keys of a role, as the agent and the metadata service write them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    token: Option<String>,
    expiration: Option<String>,
}

#[cfg(test)]
mod tests;
