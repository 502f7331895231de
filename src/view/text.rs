//! Texts of a view. Removes characters that a terminal would interpret, and writes durations in words.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::{api::release::ReleaseSpec, snapshot::excerpt::printable};

/// Returns a text that another person wrote, on one line, without control characters and without marks that change the direction of text.
pub fn clean(text: &str) -> String {
    let text = printable(text);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A duration with at most two units, as kubectl prints ages.
pub fn duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600, seconds / 60);
    let two = |big: i64, unit: &str, rest: i64, small: &str| match rest {
        0 => format!("{big}{unit}"),
        rest => format!("{big}{unit}{rest}{small}"),
    };
    match () {
        () if days >= 8 => format!("{days}d"),
        () if days >= 2 => two(days, "d", hours % 24, "h"),
        () if hours >= 8 => format!("{hours}h"),
        () if hours >= 1 => two(hours, "h", minutes % 60, "m"),
        () if minutes >= 10 => format!("{minutes}m"),
        () if minutes >= 2 => two(minutes, "m", seconds % 60, "s"),
        () => format!("{seconds}s"),
    }
}

/// The time since then; a dash if it is not known.
pub fn age(since: Option<Timestamp>, now: Timestamp) -> String {
    since.map_or_else(
        || "-".to_owned(),
        |since| duration(now.duration_since(since)),
    )
}

/// An image without its registry and folders.
pub fn short_image(image: &str) -> &str {
    image.rsplit('/').next().unwrap_or(image)
}

/// The versions before and after a release: its first image, or its revisions if no image changed.
pub fn versions(spec: &ReleaseSpec) -> (&str, &str) {
    match spec.images.first() {
        Some(image) => image_pair(&image.from, &image.to),
        None => (spec.from.as_deref().unwrap_or_default(), &spec.revision),
    }
}

/// Two images, each without registry and folders, unless these are the only difference.
pub fn image_pair<'a>(from: &'a str, to: &'a str) -> (&'a str, &'a str) {
    match (short_image(from), short_image(to)) {
        (one, other) if one == other && from != to => (from, to),
        short => short,
    }
}

/// A time of an object.
pub fn instant(value: Option<&Value>) -> Option<Timestamp> {
    value?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_others_cannot_steer_a_terminal() {
        assert_eq!(
            clean("a\n\u{1b}[31mb\u{202e}c\u{9b}2J  d"),
            "a [31mb c 2J d"
        );
    }

    #[test]
    fn durations_are_printed_as_kubectl_prints_ages() {
        for (seconds, expected) in [
            (-5, "0s"),
            (34, "34s"),
            (119, "119s"),
            (150, "2m30s"),
            (120, "2m"),
            (700, "11m"),
            (3_660, "1h1m"),
            (40_000, "11h"),
            (200_000, "2d7h"),
            (900_000, "10d"),
        ] {
            assert_eq!(duration(SignedDuration::from_secs(seconds)), expected);
        }
    }
}
