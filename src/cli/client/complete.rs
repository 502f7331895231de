//! Completes a command that was typed in part: verbs, flags and their values. The caller reads names of canaries and namespaces from the
//! cluster, and names of contexts from the kubeconfig.

use super::{Program, command};

/// The candidates that can complete the last word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Candidates {
    /// One of these words, each with a remark.
    Words(Vec<(String, String)>),
    /// The name of a canary, in this namespace or that of the context.
    Canaries,
    /// The name of the record of a release of this canary.
    Releases(String),
    /// The name of a namespace.
    Namespaces,
    /// The name of a context.
    Contexts,
    /// The name of a file.
    Files,
}

/// The candidates for the last of these words.
pub fn candidates(words: &[String]) -> Candidates {
    let (last, before) = match words.split_last() {
        Some((last, before)) => (last.as_str(), before),
        None => ("", words),
    };
    let command = command(Program::Flagger);
    let verb = before.iter().find_map(|word| command.find_subcommand(word));
    let flag = before.last().and_then(|flag| find(verb, &command, flag));
    if let Some(flag) = flag.filter(|flag| needs_value(flag)) {
        if flag.get_id() == "release" {
            let name = verb.and_then(|verb| name_of(verb, &command, before));
            let none = Candidates::Words(Vec::new());
            return name.map_or(none, Candidates::Releases);
        }
        return values(flag);
    }
    if last.starts_with('-') {
        let verbs = verb.into_iter().flat_map(clap::Command::get_arguments);
        let flags = verbs.chain(command.get_arguments());
        let flags = flags.filter_map(|flag| Some((format!("--{}", flag.get_long()?), help(flag))));
        return Candidates::Words(flags.collect());
    }
    match verb {
        None => {
            let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
            let about = |verb: &clap::Command| {
                verb.get_about()
                    .map(ToString::to_string)
                    .unwrap_or_default()
            };
            let verbs = verbs.map(|verb| (verb.get_name().to_owned(), about(verb)));
            Candidates::Words(verbs.collect())
        }
        Some(verb) => match verb.get_positionals().next() {
            Some(name) if name.get_id() == "name" => Candidates::Canaries,
            Some(other) => values(other),
            None => Candidates::Words(Vec::new()),
        },
    }
}

/// The namespace in these words: the value of `-n`.
pub fn namespace(words: &[String]) -> Option<String> {
    value_of(words, &["-n", "--namespace"])
}

/// The value of one of these flags.
pub fn value_of(words: &[String], flags: &[&str]) -> Option<String> {
    let pairs = words.iter().zip(words.iter().skip(1));
    let after = pairs
        .into_iter()
        .find(|(flag, _)| flags.contains(&flag.as_str()));
    let joined = || {
        let mut pairs = words.iter().filter_map(|word| word.split_once('='));
        pairs
            .find(|(flag, _)| flags.contains(flag))
            .map(|(_, value)| value.to_owned())
    };
    after.map(|(_, value)| value.clone()).or_else(joined)
}

fn find<'a>(
    verb: Option<&'a clap::Command>,
    all: &'a clap::Command,
    flag: &str,
) -> Option<&'a clap::Arg> {
    let of_verb = verb.into_iter().flat_map(clap::Command::get_arguments);
    let mut arguments = of_verb.chain(all.get_arguments());
    arguments.find(|argument| {
        let long = argument
            .get_long()
            .is_some_and(|long| flag.strip_prefix("--") == Some(long));
        let short = argument
            .get_short()
            .is_some_and(|short| flag == format!("-{short}"));
        long || short
    })
}

/// Whether the word after a flag is its value.
fn needs_value(flag: &clap::Arg) -> bool {
    let range = flag.get_num_args();
    let is_optional = range.is_some_and(|range| range.min_values() == 0);
    flag.get_action().takes_values() && !is_optional
}

/// The name of the canary: the first word after the verb that is neither a flag nor the value of one.
fn name_of(verb: &clap::Command, all: &clap::Command, words: &[String]) -> Option<String> {
    let at = words.iter().position(|word| word == verb.get_name())?;
    let pairs = words.get(at..)?.windows(2);
    let mut names = pairs.filter(|pair| {
        let flag = find(Some(verb), all, &pair[0]);
        !pair[1].starts_with('-') && !flag.is_some_and(needs_value)
    });
    names.next().map(|pair| pair[1].clone())
}

fn values(argument: &clap::Arg) -> Candidates {
    match argument.get_id().as_str() {
        "namespace" => Candidates::Namespaces,
        "context" => Candidates::Contexts,
        "kubeconfig" | "filename" => Candidates::Files,
        _ => {
            let words = argument.get_possible_values();
            let remark = |word: &clap::builder::PossibleValue| {
                word.get_help().map(ToString::to_string).unwrap_or_default()
            };
            Candidates::Words(
                words
                    .iter()
                    .map(|word| (word.get_name().to_owned(), remark(word)))
                    .collect(),
            )
        }
    }
}

fn help(flag: &clap::Arg) -> String {
    flag.get_help().map(ToString::to_string).unwrap_or_default()
}

/// The last line of an answer to a shell: an instruction. The numbers are those of kubectl's own completion.
pub const fn directive(candidates: &Candidates) -> u8 {
    match candidates {
        Candidates::Files => 0,
        Candidates::Words(_)
        | Candidates::Canaries
        | Candidates::Releases(_)
        | Candidates::Namespaces
        | Candidates::Contexts => 4,
    }
}

/// The completion script for a shell. It calls this program for each completion.
pub const fn script(shell: super::verbs::Shell) -> &'static str {
    use super::verbs::Shell;
    match shell {
        Shell::Bash => BASH,
        Shell::Zsh => ZSH,
        Shell::Fish => FISH,
        Shell::Kubectl => KUBECTL,
    }
}

const BASH: &str = r#"# source <(flagger completion bash)
_flagger() {
    local IFS=$'\n' answer directive
    mapfile -t answer < <(flagger __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    directive=${answer[-1]}
    unset 'answer[-1]'
    COMPREPLY=($(compgen -W "${answer[*]%%$'\t'*}" -- "${COMP_WORDS[COMP_CWORD]}"))
    [[ $directive == :0 ]] && COMPREPLY=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -F _flagger flagger
"#;

const ZSH: &str = r#"#compdef flagger
# source <(flagger completion zsh)
_flagger() {
    local -a answer described
    local line
    answer=("${(@f)$(flagger __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    [[ ${answer[-1]} == :0 ]] && { _files; return }
    for line in "${(@)answer[1,-2]}"; do
        described+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
    done
    _describe flagger described
}
compdef _flagger flagger
"#;

const FISH: &str = r#"# flagger completion fish | source
function __flagger_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l answer (flagger __complete $words[2..] 2>/dev/null)
    if test "$answer[-1]" = ":0"
        __fish_complete_path (commandline -ct)
    else
        printf '%s\n' $answer[1..-2]
    end
end
complete -c flagger -f -a '(__flagger_complete)'
"#;

const KUBECTL: &str = r#"#!/bin/sh
# kubectl 1.26 and newer runs this file, `kubectl_complete-flagger` on PATH, to complete `kubectl flagger`.
exec kubectl-flagger __complete "$@"
"#;
