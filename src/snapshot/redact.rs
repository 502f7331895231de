//! Hides credentials in texts from outside for the condition `Verdict` and for records, because everyone who may read the namespace may
//! read these. Flagger's events show such texts complete.

use std::{borrow::Cow, sync::LazyLock};

use regex::{Captures, Regex};

use super::excerpt;

/// The text in the place of a credential.
const REDACTED: &str = "[redacted]";

/// Escapes of JSON, HTML and URLs, and the character of each. They are replaced by their characters, because a credential may contain
/// escapes.
const ESCAPES: [(&str, &str); 11] = [
    ("\\\"", "\""),
    ("\\/", "/"),
    ("&quot;", "\""),
    ("&#34;", "\""),
    ("%3D", "="),
    ("%3d", "="),
    ("%3A", ":"),
    ("%22", "\""),
    ("&#x3d;", "="),
    ("&#x3D;", "="),
    ("&#61;", "="),
];

/// A character in JSON's notation.
static JSON_ESCAPE: LazyLock<Regex> = LazyLock::new(|| compiled(r"\\u00([0-9a-fA-F]{2})"));

/// The forms of credentials, and the parts of each that stay. Each form is searched in what the ones before have left.
static FORMS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let forms = [
        // A private key or a certificate.
        (
            r"(?s)-----BEGIN [^-]*-----.*?(?:-----END [^-]*-----|$)",
            REDACTED,
        ),
        // The user, the path and the query of a URL.
        (
            r#"(?i)\b([a-z][a-z0-9+.-]*://)(?:[^\s"'<>]*@)?([^\s/?#"'<>@]+)[^\s"'<>]*"#,
            "${1}${2}",
        ),
        // The address of a database: `user:password@tcp(host)`.
        (r"\b[\w.-]+:[^\s:@/]+@(tcp\(|unix\()", "[redacted]@${1}"),
        // A header: its value ends with the line, or with the text that quotes it.
        (
            r#"(?i)\b((?:proxy-)?authorization|(?:set-)?cookie)(["']?\s*[:=]\s*["']?)[^"'\r\n<]+"#,
            "${1}${2}[redacted]",
        ),
        // An element of XML or HTML whose name is usual for a credential.
        (
            r"(?is)<([\w-]*(?:token|passw|passphrase|secret|key|credential|session)[\w-]*)\b[^>]*>[^<]*",
            "<${1}>[redacted]",
        ),
        // A field or a flag whose name is usual for a credential: `token=…`, `"password": "…"`, `"tokens": […]`, `--token …`,
        // `X-Token-Value …`, `{"name": "DB_PASSWORD", "value": "…"}`, `name="password" value="…"`.
        (
            r#"(?is)((?:[\w-]*(?:token|passwd|password|passphrase|passcode|pwd|secret|api[_-]?key|apikey|access[_-]?key|account[_-]?key|private[_-]?key|credential|session|signature)[\w-]*)["']?\s*(?:,?\s*["']?value["']?\s*)?(?:=>|[:=>]|\s+is\s|\s)\s*|\b(?:sid|sig|auth|otp)["']?\s*(?:=>|[:=>])\s*|\bpass(?:=|["']\s*:)\s*)([\[{].*|\\?"(?:[^"\\]|\\.)*"?|'[^']*'?|(?:(?:bearer|basic|token)\s+)?[^\s,;&}"'<]+)"#,
            "",
        ),
        // Tokens with a known form.
        (
            r"\b(?:eyJ[\w-]{8,}(?:\.[\w-]*)*|A[KS]IA[0-9A-Z]{12,}|(?:gh[a-z]|github_pat|glpat|sk|pk|rk|npm|xox[a-z]|hvs|AIza|ya29|SG)[_.-][\w.-]{8,}|AIza[\w-]{20,})",
            REDACTED,
        ),
    ];
    { forms.into_iter() }
        .map(|(form, kept)| (compiled(form), kept))
        .collect()
});

/// A scheme of HTTP authentication with its credential.
static SCHEME: LazyLock<Regex> =
    LazyLock::new(|| compiled(r"(?i)\b(bearer|basic|apikey)\s+([\w.~+/=-]{4,})"));

/// A long word: a random one may be a credential.
static LONG: LazyLock<Regex> = LazyLock::new(|| compiled(r"[\w+/=-]{24,}"));

#[expect(
    clippy::expect_used,
    reason = "a form that does not compile would hide nothing, and a test compiles each"
)]
fn compiled(form: &str) -> Regex {
    Regex::new(form).expect("the forms compile")
}

/// The text as an excerpt, in which each part that may be a credential is hidden. Of a URL, the scheme and the host stay.
pub fn redacted(text: &str) -> String {
    let mut text = without_forms(without_escapes(&beginning(text)));
    for (escape, character) in ESCAPES {
        text = text.replace(escape, character);
    }
    let text = without_cut_word(&without_forms(text)).to_owned();
    let text = SCHEME.replace_all(&text, hide_value);
    let text = LONG.replace_all(&text, |found: &Captures<'_>| {
        let is_hidden = is_random(&found[0]);
        if is_hidden { REDACTED } else { &found[0] }.to_owned()
    });
    excerpt(&text)
}

/// The part of a text that is searched. An excerpt shows much less, and a search in a text of 1 MB takes seconds.
fn beginning(text: &str) -> Cow<'_, str> {
    const SEARCHED: usize = 8192;
    if text.len() <= SEARCHED {
        return text.into();
    }
    let mut ends = (0..SEARCHED).rev();
    let end = ends.find(|end| text.is_char_boundary(*end));
    format!("{}…", &text[..end.unwrap_or(0)]).into()
}

/// The text without invisible characters, and with the characters that JSON's notation stands for.
fn without_escapes(text: &str) -> String {
    let is_invisible = |c: char| matches!(c, '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}');
    let text: String = text.chars().filter(|c| !is_invisible(*c)).collect();
    let character = |found: &Captures<'_>| {
        let number = u8::from_str_radix(&found[1], 16).unwrap_or(b'?');
        char::from(number).to_string()
    };
    JSON_ESCAPE.replace_all(&text, character).into_owned()
}

/// The text without a long word at its end that was cut, because a credential that was cut may not have its known form any more.
fn without_cut_word(text: &str) -> &str {
    let Some(rest) = text.strip_suffix('…') else {
        return text;
    };
    let word = rest.rsplit(char::is_whitespace).next().unwrap_or_default();
    match word.len() {
        8.. => rest.strip_suffix(word).unwrap_or(rest).trim_end(),
        _ => text,
    }
}

fn without_forms(text: String) -> String {
    FORMS.iter().fold(text, |text, (form, kept)| {
        if kept.is_empty() {
            form.replace_all(&text, hide_value).into_owned()
        } else {
            form.replace_all(&text, *kept).into_owned()
        }
    })
}

/// Hides the value behind a name, unless both are words of a sentence, as in "basic authentication" and "token expired".
fn hide_value(found: &Captures<'_>) -> String {
    let (name, value) = (&found[1], &found[2]);
    if value.starts_with(REDACTED) {
        return found[0].to_owned();
    }
    let is_sentence = name.trim_end() == name.trim_end_matches([' ', ':', '='])
        && !name.contains('-')
        && name
            .chars()
            .skip(1)
            .all(|c| c.is_ascii_lowercase() || c == ' ');
    if is_sentence && is_word(value.trim_matches(['"', '\''])) {
        return found[0].to_owned();
    }
    let space = if name.ends_with([' ', '=', ':', '>', '"', '\'']) {
        ""
    } else {
        " "
    };
    format!("{name}{space}{REDACTED}")
}

/// Whether this is a word of a sentence, and no credential.
fn is_word(text: &str) -> bool {
    let word = text.trim_end_matches(['.', ':', '!', '?', ')']);
    word.len() < 16 && word.chars().skip(1).all(|c| c.is_ascii_lowercase())
}

/// Whether a long word has letters of both sizes and digits, or is a number in base 16. The parts of a UUID are short.
fn is_random(word: &str) -> bool {
    let has = |is: fn(&char) -> bool| word.chars().any(|c| is(&c));
    let is_number = word.chars().all(|c| c.is_ascii_hexdigit()) && has(char::is_ascii_digit);
    is_number
        || (has(char::is_ascii_lowercase)
            && has(char::is_ascii_uppercase)
            && has(char::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each has a credential with the letters "hush".
    #[test]
    fn credentials_of_any_form_are_hidden() {
        let texts = [
            "POST https://u:hush@hooks.test:8443/services/hush?token=hush refused",
            r"see https:\/\/hooks.slack.com\/services\/T00\/hush",
            "Authorization: Bearer hush is not valid",
            "Authorization: ApiKey hush",
            r#"{"error":"denied","access_token":"hush hush","code":7}"#,
            r#"{"message":"{\"token\":\"hush\"}"}"#,
            r#"{"password":"a\"hush"}"#,
            "&quot;password&quot;:&quot;hush&quot;",
            "<token>hush</token>",
            "client_secret=hush&client_id=c",
            "token%3Dhush",
            "pwd=hush",
            "secret => hush",
            "curl --token hush",
            "X-Token-Value hush",
            "x-api-key: hush",
            "Cookie: a=1; sid=hush",
            "bad: Bearer hu5h-hush",
            "Basic hushhushhushhush= refused",
            "got eyJhbGciOiJub25lIn0.e30.hush",
            "github_pat_11ABCDEFG0hush",
            "sk_live_51ABCDEhush",
            "-----BEGIN PRIVATE KEY-----\nhush\n-----END PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\nhush",
            "key 8fJ2kdL0q9ZxWm4TnB7vhush",
            "https://u:hu/hush@host/x",
            "postgres://u:hu#hush@host/x",
            "root:hush@tcp(db:3306)/app",
            r#"{"pass":"hush"}"#,
            r#"invalid token "hu5h-hush""#,
            r#""tokens":["a","hush"]"#,
            r#"{"secret":{"value":"hush"}}"#,
            r#"<input name="password" value="hush">"#,
            r#"<secret name="x">hush</secret>"#,
            "password&#x3d;hush",
            r#""token\u0022:"hush""#,
            r#"{"passw\u006frd":"hush"}"#,
            "pass\u{200b}word=hush",
            r#"{"otp":"hush"}"#,
            "PASS=hush",
            "token is hu5h-hush",
            "AccountKey=hush;Endpoint=x",
            r#"{"name":"DB_PASSWORD","value":"hush"}"#,
            r#"password=\"a hush\""#,
        ];
        for text in texts {
            let redacted = redacted(text);
            assert!(!redacted.contains("hush"), "{text}: {redacted}");
        }
        for (text, part) in [
            ("key AKIAIOSFODNN7EXAMPLE", "AKIA"),
            ("invalid token \"5f4dcc3b5aa765d61d8327deb882cf99\"", "5f4d"),
            ("key 5f4dcc3b5aa765d61d8327deb882cf99", "5f4d"),
        ] {
            assert!(!redacted(text).contains(part), "{text}");
        }
    }

    #[test]
    fn the_rest_of_a_text_stays() {
        for (text, expected) in [
            (
                "POST https://u:p@hooks.test:8443/x refused",
                "POST https://hooks.test:8443 refused",
            ),
            ("client_id=c&code=7", "client_id=c&code=7"),
            ("Basic authentication failed", "Basic authentication failed"),
            ("the token expired", "the token expired"),
            (
                "invalid session: try again",
                "invalid session: [redacted] again",
            ),
            ("secrets \"a\" is forbidden", "secrets \"a\" is forbidden"),
            (
                "no tokens left in the bucket",
                "no tokens left in the bucket",
            ),
            ("latency is 812 ms\n", "latency is 812 ms "),
            ("CAB ticket 42 is open", "CAB ticket 42 is open"),
            (
                "request 0b7c1f1e-5c0d-4a57-9d1a-2b5e8d1f0c11 failed",
                "request 0b7c1f1e-5c0d-4a57-9d1a-2b5e8d1f0c11 failed",
            ),
            (
                "the rollout webhook load-test did not pass: hooks answered 500",
                "the rollout webhook load-test did not pass: hooks answered 500",
            ),
        ] {
            assert_eq!(redacted(text), expected);
        }
    }

    #[test]
    fn a_credential_is_hidden_before_the_text_is_cut() {
        let text = format!("{}Bearer {}", "a ".repeat(120), "hu5h".repeat(50));
        let text = redacted(&text);
        assert!(text.len() <= 256 && !text.contains("hu5h"), "{text}");
        let cut = excerpt(&format!("{}hu5hhu5hhu5hhu5hhu5h", "a ".repeat(120)));
        assert!(cut.ends_with('…') && cut.contains("hu5h"), "{cut}");
        assert!(!redacted(&cut).contains("hu5h"));
    }
}
