//! Splits a command line into words without a shell. Quotes and backslashes have the meaning that they have in `sh`.

/// The reason why a command line cannot be split without a shell.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// The last character is a backslash.
    #[error("the command ends with a backslash")]
    TrailingBackslash,
    /// The text after this quote has no second quote.
    #[error("a {0} is not closed")]
    Unclosed(char),
    /// The command uses a feature that only a shell has, for example a pipe or a variable.
    #[error(
        "{0} needs a shell, and with -allow there is none: put it in quotes to pass it on as text"
    )]
    NeedsShell(String),
}

/// Splits a command line into words. Refuses everything that only a shell can do: variables, pipes, redirections, several commands.
/// Leaves `*`, `?` and `[` unchanged, as a shell does if no file matches: many URLs contain these characters.
pub fn split(command: &str) -> Result<Vec<String>, SplitError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = command.trim().chars();
    while let Some(c) = rest.next() {
        match c {
            ' ' | '\t' => words.extend(word.take()),
            '\'' => quoted(&mut rest, word.get_or_insert_default())?,
            '"' => double_quoted(&mut rest, word.get_or_insert_default())?,
            '\\' => match rest.next() {
                // The command continues on the next line.
                Some('\n') => {}
                Some(c) => word.get_or_insert_default().push(c),
                None => return Err(SplitError::TrailingBackslash),
            },
            '\n' => return Err(SplitError::NeedsShell("a second line".to_owned())),
            '#' if word.is_none() => return Err(SplitError::NeedsShell("a comment".to_owned())),
            '|' | '&' | ';' | '<' | '>' | '(' | ')' | '$' | '`' => {
                return Err(SplitError::NeedsShell(format!("`{c}`")));
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

fn quoted(rest: &mut impl Iterator<Item = char>, word: &mut String) -> Result<(), SplitError> {
    for c in rest {
        match c {
            '\'' => return Ok(()),
            c => word.push(c),
        }
    }
    Err(SplitError::Unclosed('\''))
}

fn double_quoted(
    rest: &mut impl Iterator<Item = char>,
    word: &mut String,
) -> Result<(), SplitError> {
    while let Some(c) = rest.next() {
        match c {
            '"' => return Ok(()),
            '$' | '`' => return Err(SplitError::NeedsShell(format!("`{c}`"))),
            '\\' => match rest.next() {
                Some('\n') => {}
                Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                Some(c) => word.extend(['\\', c]),
                None => break,
            },
            c => word.push(c),
        }
    }
    Err(SplitError::Unclosed('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_split_as_by_a_shell() {
        for (command, words) in [
            ("", &[][..]),
            (
                " hey  -z 1m\thttp://podinfo/ \n",
                &["hey", "-z", "1m", "http://podinfo/"],
            ),
            (
                "hey 'http://podinfo/?a=1&b=$2'",
                &["hey", "http://podinfo/?a=1&b=$2"],
            ),
            (
                "hey http://podinfo/?a=*[1]{2}~#x",
                &["hey", "http://podinfo/?a=*[1]{2}~#x"],
            ),
            (
                r#"ghz -d '{"name": "x"}' --call=a"b c"d"#,
                &["ghz", "-d", r#"{"name": "x"}"#, "--call=ab cd"],
            ),
            (r#"a "" '' "\"\\\$\`\x""#, &["a", "", "", r#""\$`\x"#]),
            ("a\\ b \\'c\\' \\|", &["a b", "'c'", "|"]),
            (
                "hey -z 1m \\\n  http://podinfo/",
                &["hey", "-z", "1m", "http://podinfo/"],
            ),
        ] {
            assert_eq!(split(command).unwrap(), words, "{command}");
        }
    }

    #[test]
    fn a_command_that_needs_a_shell_is_refused_with_the_reason() {
        for (command, why) in [
            ("hey http://podinfo/ | grep 200", "`|` needs a shell"),
            ("hey http://podinfo/?a=1&b=2", "`&` needs a shell"),
            ("a; b", "`;` needs a shell"),
            ("a > b", "`>` needs a shell"),
            ("a $(b)", "`$` needs a shell"),
            ("a \"$B\"", "`$` needs a shell"),
            ("a `b`", "`` ` `` needs a shell"),
            ("a\nb", "a second line needs a shell"),
            ("a # b", "a comment needs a shell"),
            ("a 'b", "a ' is not closed"),
            ("a \"b", "a \" is not closed"),
            ("a \"b\\", "a \" is not closed"),
            ("a \\", "the command ends with a backslash"),
        ] {
            let message = split(command).unwrap_err().to_string();
            let why = why.replace("`` ` ``", "```");
            assert!(message.starts_with(&why), "{command}: {message}");
        }
    }
}
