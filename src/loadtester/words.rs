//! A command line as words, without a shell: quotes and backslashes mean what they mean to `sh`, and nothing else means anything.

/// The words of a command. What only a shell could do is refused, with the reason: variables, pipes, redirections, several commands.
/// What a shell leaves as it is where no file matches (`*`, `?`, `[`) is left as it is, for it is in many an address.
pub fn split(command: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = command.trim().chars();
    while let Some(c) = rest.next() {
        match c {
            ' ' | '\t' => words.extend(word.take()),
            '\'' => quoted(&mut rest, word.get_or_insert_default())?,
            '"' => double_quoted(&mut rest, word.get_or_insert_default())?,
            '\\' => match rest.next() {
                // The line goes on.
                Some('\n') => {}
                Some(c) => word.get_or_insert_default().push(c),
                None => return Err("the command ends with a backslash".to_owned()),
            },
            '\n' => return Err(needs_a_shell("a second line")),
            '#' if word.is_none() => return Err(needs_a_shell("a comment")),
            '|' | '&' | ';' | '<' | '>' | '(' | ')' | '$' | '`' => {
                return Err(needs_a_shell(&format!("`{c}`")));
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

fn quoted(rest: &mut impl Iterator<Item = char>, word: &mut String) -> Result<(), String> {
    for c in rest {
        match c {
            '\'' => return Ok(()),
            c => word.push(c),
        }
    }
    Err("a ' is not closed".to_owned())
}

fn double_quoted(rest: &mut impl Iterator<Item = char>, word: &mut String) -> Result<(), String> {
    while let Some(c) = rest.next() {
        match c {
            '"' => return Ok(()),
            '$' | '`' => return Err(needs_a_shell(&format!("`{c}`"))),
            '\\' => match rest.next() {
                Some('\n') => {}
                Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                Some(c) => word.extend(['\\', c]),
                None => break,
            },
            c => word.push(c),
        }
    }
    Err("a \" is not closed".to_owned())
}

fn needs_a_shell(what: &str) -> String {
    format!(
        "{what} needs a shell, and with -allow there is none: quote it, if it is meant as it is"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_a_shell() {
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
    fn what_needs_a_shell_is_refused_with_the_reason() {
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
            let told = split(command).unwrap_err();
            let why = why.replace("`` ` ``", "```");
            assert!(told.starts_with(&why), "{command}: {told}");
        }
    }
}
