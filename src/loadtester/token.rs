//! Checks the token of a caller.

use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

use crate::snapshot::Secret;

/// Whether an `Authorization` header contains the token, as a bearer token or as the password of any user. A webhook cannot set headers,
/// but it sends a password if its URL has one: `http://user:TOKEN@flagger-loadtester.test/`.
pub fn is_known(token: &Secret, authorization: Option<&str>) -> bool {
    let Some((scheme, value)) = authorization.and_then(|value| value.trim().split_once(' ')) else {
        return false;
    };
    let given = match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Some(value.trim().to_owned()),
        "basic" => STANDARD
            .decode(value.trim())
            .ok()
            .and_then(|pair| String::from_utf8(pair).ok())
            .and_then(|pair| Some(pair.split_once(':')?.1.to_owned())),
        _ => None,
    };
    // The comparison of digests takes the same time whether or not the beginning of a guess is right.
    given.is_some_and(|given| Sha256::digest(given) == Sha256::digest(&token.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_a_bearer_token_or_a_password() {
        let token = Secret("t:0k en".to_owned());
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        for (header, known) in [
            (Some("Bearer t:0k en".to_owned()), true),
            (Some("bearer  t:0k en".to_owned()), true),
            (Some(basic("flagger:t:0k en")), true),
            (Some(basic(":t:0k en")), true),
            (Some(basic("t:0k en")), false),
            (Some("Bearer t:0k".to_owned()), false),
            (Some("Bearer ".to_owned()), false),
            (Some("Basic !".to_owned()), false),
            (Some("Digest t:0k en".to_owned()), false),
            (Some("t:0k en".to_owned()), false),
            (None, false),
        ] {
            assert_eq!(is_known(&token, header.as_deref()), known, "{header:?}");
        }
    }
}
