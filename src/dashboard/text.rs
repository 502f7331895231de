//! Texts in pages. Others choose names, labels, sentences and answers, so each text is cut, on one line, and isolated: it cannot change the
//! direction of the text beside it. maud escapes it.

use jiff::Timestamp;
use maud::{Markup, html};

use crate::view::text::{age, clean, duration};

/// The maximum number of characters of a name.
pub const NAME: usize = 120;
/// The maximum number of characters of a sentence.
pub const SENTENCE: usize = 600;

/// The beginning of a text, on one line and without control characters.
pub fn cut(text: &str, most: usize) -> String {
    let mut characters = text.chars();
    let mut start: String = characters.by_ref().take(most).collect();
    start = clean(&start);
    if characters.next().is_some() {
        start.push('…');
    }
    start
}

/// A name, isolated from its surroundings.
pub fn name(text: &str) -> Markup {
    html! { bdi { (cut(text, NAME)) } }
}

/// A name with slashes, such as that of an image. If it is too long for a line, it is broken behind a slash.
pub fn path(text: &str) -> Markup {
    html! { bdi { @for part in cut(text, SENTENCE).split_inclusive('/') { (part) wbr; } } }
}

/// A sentence, isolated from its surroundings.
pub fn sentence(text: &str) -> Markup {
    html! { bdi { (cut(text, SENTENCE)) } }
}

/// The time since then; a dash if it is not known. The complete time is in the title.
pub fn since(at: Option<Timestamp>, now: Timestamp) -> Markup {
    match at {
        Some(at) => html! { time datetime=(at) title=(at) { (age(Some(at), now)) } },
        None => html! { "–" },
    }
}

/// The time until then. The script of the page counts it down.
pub fn until(at: Timestamp, now: Timestamp) -> Markup {
    html! { time data-until datetime=(at) title=(at) { (duration(at.duration_since(now))) } }
}

/// The time of day, in UTC. The complete time is in the title.
pub fn clock(at: Option<Timestamp>) -> Markup {
    match at {
        Some(at) => {
            html! { time datetime=(at) title=(at) { (at.strftime("%H:%M:%S").to_string()) } }
        }
        None => html! { "–" },
    }
}

/// A number with about four digits: charts and tables have no space for more.
pub fn number(value: f64) -> String {
    let size = value.abs();
    let text = match () {
        () if size >= 1e9 || (size > 0.0 && size < 1e-4) => return format!("{value:.2e}"),
        () if size >= 1000.0 => format!("{value:.0}"),
        () if size >= 10.0 => format!("{value:.2}"),
        () => format!("{value:.4}"),
    };
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// A number with its unit.
pub fn with_unit(value: f64, unit: &str) -> String {
    match cut(unit, 20) {
        unit if unit.is_empty() => number(value),
        unit => format!("{} {unit}", number(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_text_is_cut_and_on_one_line() {
        let hostile = format!("<script>\u{202e}\n{}", "é".repeat(1 << 20));
        let text = cut(&hostile, 20);
        assert_eq!(text, format!("<script> {}…", "é".repeat(10)));
        assert_eq!(
            name("<b>").into_string(),
            "<bdi>&lt;b&gt;</bdi>",
            "maud escapes"
        );
        assert_eq!(
            path("a/<b>").into_string(),
            "<bdi>a/<wbr>&lt;b&gt;<wbr></bdi>"
        );
    }

    #[test]
    fn numbers_are_short() {
        for (value, expected) in [
            (0.0, "0"),
            (99.5, "99.5"),
            (812.0, "812"),
            (0.123_456, "0.1235"),
            (123_456.7, "123457"),
            (1e300, "1.00e300"),
            (-2.5, "-2.5"),
            (0.000_01, "1.00e-5"),
        ] {
            assert_eq!(number(value), expected);
        }
    }
}
