//! Text from outside (a server's answer, a user's template) inside our messages: short and on one line.

/// The longest excerpt, in bytes.
const LENGTH: usize = 256;

/// Returns the text on one line without control characters, cut to 256 bytes.
pub fn excerpt(text: &str) -> String {
    let mut line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if line.len() > LENGTH {
        let cut = (0..=LENGTH - '…'.len_utf8())
            .rev()
            .find(|i| line.is_char_boundary(*i))
            .unwrap_or(0);
        line.truncate(cut);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_one_short_line() {
        let text = excerpt(&format!("<html>\n\u{1b}[31m{}", "é".repeat(10_000)));
        assert!(
            text.len() <= 256 && !text.contains(['\n', '\u{1b}']),
            "{text}"
        );
    }

    #[test]
    fn a_text_of_256_bytes_is_not_cut() {
        let longest = "a".repeat(256);
        assert_eq!(excerpt(&longest), longest);
        assert_eq!(excerpt(&"a".repeat(257)), format!("{}…", "a".repeat(253)));
        // A character of two bytes at the cut.
        assert_eq!(
            excerpt(&format!("{}é{longest}", "a".repeat(252))),
            format!("{}…", "a".repeat(252))
        );
        assert_eq!(excerpt("a\n\tb"), "a  b");
    }
}
