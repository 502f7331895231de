//! Go's flag syntax: `-x=v`, `--x=v`, `-x v`, `-bool`. The operator and the load tester are started by manifests that are written for it.
//!
//! In that syntax `-abc` is one flag; parsers for the syntax of Unix cannot be taught that, so it is read here. Which flags there are,
//! and what their values mean, is for `args` and `loadtester::args` to say.

use std::{collections::BTreeMap, fmt::Write};

/// A flag that exists: name, default, what for. One whose default is `true` or `false` needs no value.
pub type Flag = (&'static str, &'static str, &'static str);

/// The process is to end at once: with this code, after this text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// 0, or 2 for a command line that cannot be understood.
    pub code: u8,
    /// What to print: to stdout for 0, else to stderr.
    pub text: String,
}

impl Exit {
    /// The command line cannot be understood, for that reason: what Go prints then.
    pub fn wrong(problem: &str, usage: &str) -> Self {
        Self {
            code: 2,
            text: format!("{problem}\n{usage}"),
        }
    }
}

/// The flags as given, by name; `known` are those that exist, with their defaults.
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
            return Err(Exit::wrong(&format!("bad flag syntax: {arg}"), usage));
        }
        if name == "h" || name == "help" {
            return Err(Exit {
                code: 0,
                text: usage.to_owned(),
            });
        }
        let Some((_, default)) = known.iter().find(|(known, _)| *known == name) else {
            let problem = format!("flag provided but not defined: -{name}");
            return Err(Exit::wrong(&problem, usage));
        };
        let is_bool = matches!(*default, "true" | "false");
        let value = match value {
            Some(value) => value,
            None if is_bool => "true".to_owned(),
            None => args
                .next()
                .ok_or_else(|| Exit::wrong(&format!("flag needs an argument: -{name}"), usage))?,
        };
        if is_bool && !is_true(&value) && !is_false(&value) {
            let problem = format!("invalid boolean value {value:?} for -{name}: parse error");
            return Err(Exit::wrong(&problem, usage));
        }
        given.insert(name.to_owned(), value);
    }
    Ok(given)
}

/// What `-h` prints of these flags, as Go words it.
pub fn usage(program: &str, flags: &[(&str, &str, &str)]) -> String {
    let mut text = format!("Usage of {program}:\n");
    for (name, default, purpose) in flags {
        let default = if matches!(*default, "" | "false") {
            String::new()
        } else {
            format!(" (default {default})")
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  -{name}\n    \t{purpose}{default}");
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
