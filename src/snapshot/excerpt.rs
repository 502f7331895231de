//! Text from outside (a server's answer, a user's template) inside our messages: short and on one line.

/// The longest excerpt, in bytes.
const LENGTH: usize = 256;

/// Replaces each control character, and each mark that changes the direction of a text, by a blank.
pub fn printable(text: &str) -> String {
    let is_mark = |c: char| matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars()
        .map(|c| if c.is_control() || is_mark(c) { ' ' } else { c })
        .collect()
}

/// Returns the text on one line without control characters, cut to 256 bytes.
pub fn excerpt(text: &str) -> String {
    let mut line = printable(text);
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
        let text = excerpt(&format!("<html>\n\u{1b}[31m\u{202e}{}", "é".repeat(10_000)));
        assert!(
            text.len() <= 256 && !text.contains(['\n', '\u{1b}', '\u{202e}']),
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
