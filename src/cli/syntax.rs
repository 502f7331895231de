//! Go's flag syntax: `-x=v`, `--x=v`, `-x v`, `-bool`. Manifests for Flagger and its load tester use it.
//!
//! In that syntax `-abc` is one flag; parsers for the syntax of Unix read it as three flags. The flags themselves are in [`super::FLAGS`]
//! and `loadtester::args`.

use std::{collections::BTreeMap, fmt::Write};

/// Name, default and help of a flag. A flag whose default is `true` or `false` needs no value.
pub type Flag = (&'static str, &'static str, &'static str);

/// The process has to exit at once, after printing a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// 0, or 2 for an invalid command line.
    pub code: u8,
    /// The text: to stdout if the code is 0, otherwise to stderr.
    pub text: String,
}

impl Exit {
    /// The command line is invalid. The text is the one that Go prints.
    pub fn invalid(problem: &str, usage: &str) -> Self {
        Self {
            code: 2,
            text: format!("{problem}\n{usage}"),
        }
    }
}

/// Reads a command line. Returns the given flags by name; `known` has the names and defaults of all flags.
///
/// # Errors
/// The command line is invalid, or asks for the usage.
pub fn read(
    args: impl IntoIterator<Item = String>,
    known: &[(&str, &str)],
    usage: &str,
) -> Result<BTreeMap<String, String>, Exit> {
    let mut given = BTreeMap::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let Some(flag) = arg
            .strip_prefix("--")
            .or_else(|| arg.strip_prefix('-'))
            .filter(|flag| !flag.is_empty())
        else {
            break;
        };
        let (name, value) = flag
            .split_once('=')
            .map_or((flag, None), |(name, value)| (name, Some(value.to_owned())));
        if name.is_empty() || name.starts_with('-') {
            return Err(Exit::invalid(&format!("bad flag syntax: {arg}"), usage));
        }
        if name == "h" || name == "help" {
            return Err(Exit {
                code: 0,
                text: usage.to_owned(),
            });
        }
        let Some((_, default)) = known.iter().find(|(known, _)| *known == name) else {
            let problem = format!("flag provided but not defined: -{name}");
            return Err(Exit::invalid(&problem, usage));
        };
        let is_bool = matches!(*default, "true" | "false");
        let value = match value {
            Some(value) => value,
            None if is_bool => "true".to_owned(),
            None => args
                .next()
                .ok_or_else(|| Exit::invalid(&format!("flag needs an argument: -{name}"), usage))?,
        };
        if is_bool && !is_true(&value) && !is_false(&value) {
            let problem = format!("invalid boolean value {value:?} for -{name}: parse error");
            return Err(Exit::invalid(&problem, usage));
        }
        given.insert(name.to_owned(), value);
    }
    Ok(given)
}

/// Returns the text that `-h` prints for flags (name, default, help), in Go's words.
pub fn usage<'a>(
    program: &str,
    flags: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>,
) -> String {
    let mut text = format!("Usage of {program}:\n");
    for (name, default, help) in flags {
        let default = if matches!(default, "" | "false") {
            String::new()
        } else {
            format!(" (default {default})")
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  -{name}\n    \t{help}{default}");
    }
    text
}

/// Go's `strconv.ParseBool`.
pub fn is_true(value: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

fn is_false(value: &str) -> bool {
    matches!(value, "0" | "f" | "F" | "false" | "FALSE" | "False")
}

/// Parses an integer as Go does: with a sign, with `0x`, `0o`, `0b` or an octal `0` before the digits, and with `_` between them.
pub fn integer(value: &str) -> Option<i64> {
    let (sign, digits) = match value.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", value.strip_prefix('+').unwrap_or(value)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, rest) = match lower.split_at_checked(2) {
        Some(("0x", rest)) => (16, rest),
        Some(("0o", rest)) => (8, rest),
        Some(("0b", rest)) => (2, rest),
        _ if lower.len() > 1 && lower.starts_with('0') => (8, lower.get(1..)?),
        _ => (10, lower.as_str()),
    };
    // One underscore may follow the base. All others must be between digits, and the sign must come before the base.
    let after_base = radix != 10 && rest.starts_with('_');
    let rest = if after_base { rest.get(1..)? } else { rest };
    if rest.split('_').any(str::is_empty) || rest.starts_with(['+', '-']) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{}", rest.replace('_', "")), radix).ok()
}
