//! The checks of each request that do not depend on its visitor, and the headers that tell browsers what pages may do.

use http::{HeaderMap, HeaderValue, Method, header};
use url::{Host, Url};

use super::refusal::Refusal;

/// The checks and the headers.
pub struct Policy {
    /// Whether requests must name a loopback address as their server. Without a login, a page of another site could otherwise have its own
    /// name resolve to this machine, and then read everything.
    is_local: bool,
    /// The address of the pages in browsers, if a proxy changes the header `Host`.
    origin: Option<String>,
    content: HeaderValue,
    is_framed: bool,
}

impl Policy {
    /// A policy; the reason if an address is wrong.
    pub fn new(is_local: bool, origin: Option<&str>, ancestors: &[String]) -> Result<Self, String> {
        let origin = origin.map(|it| origin_of("--origin", it)).transpose()?;
        let ancestors: Result<Vec<_>, _> = ancestors
            .iter()
            .map(|it| origin_of("--frame-ancestor", it))
            .collect();
        let ancestors = match ancestors? {
            none if none.is_empty() => "'none'".to_owned(),
            some => some.join(" "),
        };
        let content = format!(
            "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'; frame-ancestors {ancestors}"
        );
        Ok(Self {
            is_local,
            origin,
            content: HeaderValue::from_str(&content).map_err(|error| error.to_string())?,
            is_framed: ancestors != "'none'",
        })
    }

    /// Checks a request.
    pub fn check(&self, method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = headers.get(header::HOST).and_then(|it| it.to_str().ok());
        let host = host.unwrap_or_default();
        if self.is_local && !is_loopback(host) {
            let text = "This dashboard answers at localhost and 127.0.0.1 only.";
            return Err(Refusal::Foreign(text.to_owned()));
        }
        if [Method::GET, Method::HEAD].contains(method) {
            return Ok(());
        }
        let origin = headers.get(header::ORIGIN).and_then(|it| it.to_str().ok());
        let is_own = origin.is_some_and(|origin| {
            let named = origin.split_once("://").map(|(_, host)| host);
            self.origin.as_deref() == Some(origin) || (!host.is_empty() && named == Some(host))
        });
        if is_own {
            return Ok(());
        }
        let text = "This form was sent by a page of another server.";
        Err(Refusal::Foreign(text.to_owned()))
    }

    /// Adds the headers to an answer.
    pub fn protect(&self, headers: &mut HeaderMap, is_asset: bool) {
        headers.insert(header::CONTENT_SECURITY_POLICY, self.content.clone());
        let fixed = HeaderValue::from_static;
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff"));
        headers.insert(header::REFERRER_POLICY, fixed("same-origin"));
        headers.insert("cross-origin-opener-policy", fixed("same-origin"));
        headers.insert("cross-origin-resource-policy", fixed("same-origin"));
        if !self.is_framed {
            headers.insert(header::X_FRAME_OPTIONS, fixed("DENY"));
        }
        if !is_asset {
            headers.insert(header::CACHE_CONTROL, fixed("no-store"));
        }
    }
}

/// The origin of an address: its scheme, host and port.
fn origin_of(flag: &str, address: &str) -> Result<String, String> {
    let url = Url::parse(address).ok();
    let url = url.filter(|url| ["http", "https"].contains(&url.scheme()));
    let origin = url.map(|url| url.origin().ascii_serialization());
    origin.ok_or_else(|| format!("{flag} needs an address such as https://flagger.example.com"))
}

/// Whether the header `Host` names this machine.
fn is_loopback(host: &str) -> bool {
    let url = Url::parse(&format!("http://{host}/")).ok();
    match url.as_ref().and_then(Url::host) {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(host: &'static str, origin: Option<&'static str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static(host));
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
        }
        headers
    }

    #[test]
    fn without_a_login_only_the_names_of_this_machine_are_answered() {
        let policy = Policy::new(true, None, &[]).unwrap();
        for (host, expected) in [
            ("localhost:8765", true),
            ("127.0.0.1:8765", true),
            ("[::1]:8765", true),
            ("evil.example:8765", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
        ] {
            let checked = policy.check(&Method::GET, &headers(host, None));
            assert_eq!(checked.is_ok(), expected, "{host}");
        }
    }

    #[test]
    fn a_form_must_be_of_a_page_of_this_server() {
        let policy = Policy::new(false, Some("https://flagger.example.com/"), &[]).unwrap();
        for (origin, expected) in [
            (Some("http://flagger:8765"), true),
            (Some("https://flagger.example.com"), true),
            (Some("https://evil.example"), false),
            (Some("https://flagger.example.com.evil.example"), false),
            (Some("null"), false),
            (None, false),
        ] {
            let checked = policy.check(&Method::POST, &headers("flagger:8765", origin));
            assert_eq!(checked.is_ok(), expected, "{origin:?}");
        }
    }

    #[test]
    fn pages_run_no_script_of_others_and_are_in_no_frame() {
        let protected = |ancestors: &[String]| {
            let mut headers = HeaderMap::new();
            Policy::new(false, None, ancestors)
                .unwrap()
                .protect(&mut headers, false);
            headers
        };
        let headers = protected(&[]);
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'self'; "), "{policy}");
        assert!(policy.ends_with("frame-ancestors 'none'") && !policy.contains("unsafe"));
        assert_eq!(headers["x-frame-options"], "DENY");
        let headers = protected(&["https://argocd.example.com/x".to_owned()]);
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.ends_with("frame-ancestors https://argocd.example.com"));
        assert!(!headers.contains_key("x-frame-options"));
        for wrong in ["*", "https://a; script-src *", "data:x", "argocd"] {
            assert!(
                Policy::new(false, None, &[wrong.to_owned()]).is_err(),
                "{wrong}"
            );
        }
    }
}
