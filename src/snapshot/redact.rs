//! Texts from outside for the condition `Verdict` and for records: everyone who may read the namespace may read them. Flagger's events show
//! such texts whole.

use std::{borrow::Cow, sync::LazyLock};

use regex::{Captures, Regex};

use super::excerpt;

/// The text in the place of a credential.
const REDACTED: &str = "[redacted]";

/// The forms of credentials, and what stays of each. The first form that matches a text changes it before the next one is tried.
static FORMS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let forms = [
        // The user, the path and the query of a URL.
        (
            r#"(?i)\b([a-z][a-z0-9+.-]*://)(?:[^\s/?#"'<>]*@)?([^\s/?#"'<>@]+)[^\s"'<>]*"#,
            "${1}${2}",
        ),
        // A field with a telling name: `token=…`, `"password": "…"`, `Authorization: Bearer …`.
        (
            r#"(?i)((?:authorization|token|passwd|password|passphrase|secret|api[_-]?key|access[_-]?key|credentials?|cookie)["']?\s*[:=]\s*)(?:"[^"]*"?|'[^']*'?|(?:(?:bearer|basic|token)\s+)?[^\s,;&}"']+)"#,
            "${1}[redacted]",
        ),
        // Tokens with a known form: JSON web tokens, and those of AWS, GitHub, GitLab and Slack.
        (
            r"\b(?:eyJ[\w-]{8,}(?:\.[\w-]*)*|A[KS]IA[0-9A-Z]{12,}|gh[a-z]_\w{16,}|glpat-[\w-]{16,}|xox[a-z]-[\w-]+)",
            REDACTED,
        ),
    ];
    let compiled = forms.into_iter().filter_map(|(form, kept)| {
        let form = Regex::new(form).ok()?;
        Some((form, kept))
    });
    compiled.collect()
});

/// A scheme of HTTP authentication with its credential.
static SCHEME: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?i)\b(bearer|basic)\s+([\w.~+/=-]{4,})").ok());

/// The text as an excerpt, without credentials. Of a URL, the scheme and the host stay.
pub fn redacted(text: &str) -> String {
    let text = FORMS
        .iter()
        .fold(Cow::Borrowed(text), |text, (form, kept)| {
            Cow::Owned(form.replace_all(&text, *kept).into_owned())
        });
    let hide = |found: &Captures<'_>| {
        if is_word(&found[2]) {
            found[0].to_owned()
        } else {
            format!("{} {REDACTED}", &found[1])
        }
    };
    let text = match SCHEME.as_ref() {
        Some(scheme) => scheme.replace_all(&text, hide),
        None => text,
    };
    excerpt(&text)
}

/// Whether this is a word of a sentence, as in "basic authentication", and no credential.
fn is_word(text: &str) -> bool {
    text.len() < 16 && text.chars().skip(1).all(|c| c.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_compiles() {
        assert_eq!(FORMS.len(), 3);
        assert!(SCHEME.is_some());
    }

    #[test]
    fn credentials_are_hidden_and_the_rest_stays() {
        let texts = [
            (
                "POST https://u:hush@hooks.test:8443/services/hush?token=hush: refused",
                "POST https://hooks.test:8443 refused",
            ),
            (
                "see http://hooks/hush, then retry",
                "see http://hooks then retry",
            ),
            (
                "Authorization: Bearer hush is not valid",
                "Authorization: [redacted] is not valid",
            ),
            (
                r#"{"error":"denied","access_token":"hush hush","code":7}"#,
                r#"{"error":"denied","access_token":[redacted],"code":7}"#,
            ),
            (
                "client_secret=hush&client_id=c",
                "client_secret=[redacted]&client_id=c",
            ),
            ("bad: Bearer hu5h", "bad: Bearer [redacted]"),
            ("Basic dXNlcjpodXNo refused", "Basic [redacted] refused"),
            ("x-api-key: hush", "x-api-key: [redacted]"),
            ("got eyJhbGciOiJub25lIn0.e30.hush", "got [redacted]"),
            ("key AKIAIOSFODNN7EXAMPLE", "key [redacted]"),
            ("Basic authentication failed", "Basic authentication failed"),
            ("secrets \"a\" is forbidden", "secrets \"a\" is forbidden"),
            ("no tokens left in bucket", "no tokens left in bucket"),
            ("latency is 812 ms\n", "latency is 812 ms "),
        ];
        for (text, expected) in texts {
            assert_eq!(redacted(text), expected);
        }
    }

    #[test]
    fn a_credential_is_hidden_before_the_text_is_cut() {
        let text = format!("{}Bearer {}", "a ".repeat(120), "hu5h".repeat(50));
        let text = redacted(&text);
        assert!(text.len() <= 256 && !text.contains("hu5h"), "{text}");
    }
}
