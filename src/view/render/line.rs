//! Lines with styles, cut to the width of a terminal.

use std::fmt::Write as _;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The style of a part of a line. It only emphasizes: the words have the same information.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// The terminal's own style.
    Plain,
    /// Bold.
    Strong,
    /// Less important.
    Dim,
    /// Green.
    Good,
    /// Yellow.
    Warn,
    /// Red.
    Bad,
}

impl Style {
    /// The codes of ANSI terminals.
    const fn codes(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Strong => "1",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Warn => "33",
            Self::Bad => "31",
        }
    }
}

/// One line of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(Vec<(Style, String)>);

impl Line {
    /// A line without styles.
    pub fn plain(text: impl Into<String>) -> Self {
        Self::default().and(Style::Plain, text)
    }

    /// Adds a text to the line.
    #[must_use]
    pub fn and(mut self, style: Style, text: impl Into<String>) -> Self {
        self.0.push((style, text.into()));
        self
    }

    /// The text without styles.
    pub fn text(&self) -> String {
        self.0.iter().map(|(_, text)| text.as_str()).collect()
    }

    /// Lines of at most this width, broken at blanks; the later ones begin with `indent` blanks.
    pub fn wrapped(self, width: usize, indent: usize) -> Vec<Self> {
        let mut lines = vec![Self::default()];
        let mut used = 0;
        for (style, text) in self.0 {
            for word in text.split_inclusive(' ') {
                let shown = word.trim_end().width();
                if used > indent && used + shown > width {
                    lines.push(Self::plain(" ".repeat(indent)));
                    used = indent;
                }
                used += word.width();
                if let Some(last) = lines.last_mut() {
                    last.push(style, word);
                }
            }
        }
        lines
    }

    fn push(&mut self, style: Style, text: &str) {
        match self.0.last_mut() {
            Some((last, before)) if *last == style => before.push_str(text),
            _ => self.0.push((style, text.to_owned())),
        }
    }
}

/// The width of a text in a terminal.
pub fn width(text: &str) -> usize {
    text.width()
}

/// A text, filled with blanks to this width.
pub fn padded(text: &str, to: usize) -> String {
    let missing = to.saturating_sub(text.width());
    format!("{text}{}", " ".repeat(missing))
}

/// The line for a terminal of this width, with or without colors. Text beyond the width is cut and ends with `…`.
pub fn paint(line: &Line, colors: bool, width: Option<usize>) -> String {
    let mut painted = String::new();
    let all = line.text();
    let all = all.trim_end();
    let mut left = match width {
        Some(width) if all.width() > width => Some(width.saturating_sub(1)),
        _ => None,
    };
    let mut rest = all.len();
    for (style, text) in &line.0 {
        let text = text.get(..rest.min(text.len())).unwrap_or(text);
        rest -= text.len();
        let (text, is_cut) = cut(text, &mut left);
        match style.codes() {
            codes if colors && !codes.is_empty() && !text.is_empty() => {
                let _ = write!(painted, "\u{1b}[{codes}m{text}\u{1b}[0m");
            }
            _ => painted.push_str(text),
        }
        if is_cut {
            painted.push('…');
            break;
        }
    }
    painted
}

/// The part of a text that fits, and whether it was cut. `left` is the width that remains.
fn cut<'a>(text: &'a str, left: &mut Option<usize>) -> (&'a str, bool) {
    let Some(left) = left else {
        return (text, false);
    };
    for (at, character) in text.char_indices() {
        let width = character.width().unwrap_or(0);
        if width > *left {
            return (&text[..at], true);
        }
        *left -= width;
    }
    (text, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_to_the_width_and_colored_only_if_asked() {
        let line = Line::plain("ab ")
            .and(Style::Bad, "cdef")
            .and(Style::Plain, "  ");
        assert_eq!(paint(&line, false, None), "ab cdef");
        assert_eq!(paint(&line, false, Some(7)), "ab cdef");
        assert_eq!(paint(&line, false, Some(6)), "ab cd…");
        assert_eq!(paint(&line, true, Some(6)), "ab \u{1b}[31mcd\u{1b}[0m…");
        // Each of these characters takes two columns.
        assert_eq!(paint(&Line::plain("日本語"), false, Some(5)), "日本…");
    }

    #[test]
    fn a_line_is_wrapped_at_blanks() {
        let line = Line::plain("Why  ").and(Style::Strong, "one two three four");
        let lines: Vec<_> = line.wrapped(14, 5).iter().map(Line::text).collect();
        assert_eq!(lines, ["Why  one two ", "     three ", "     four"]);
    }
}
