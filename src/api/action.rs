//! An action: a person's request that changes a release, in one line of an annotation of the Canary (not in Flagger).
//!
//! ```text
//! VERB [REVISION ID TIME AUTHOR [REASON…]]
//! abort v1-6b3c9d41 01JDS6T0Q4 2026-11-28T10:12:03Z jane@example.com errors at the checkout
//! ```
//!
//! REVISION is `status.lastAppliedSpec` as the person saw it, or the revision of the target if that waits for its run: the operator refuses
//! the action for any other version. ID identifies the action, so that the operator carries it out only once, however often it reads the
//! line. AUTHOR is the name of the user, percent-encoded where it has blanks or `%`. The short form, for `kubectl annotate`, is the verb
//! alone. The operator accepts it for `pause` and `abort`, which put no client at risk. An annotation needs no CRD and no field of the
//! spec, so GitOps tools neither undo nor repeat it. The value is text, because the expressions of admission policies can split text, but
//! cannot read JSON. Only single blanks may separate the words, because a policy splits the line at blanks and must find the same words.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// The key of the annotation that has the action.
pub const ANNOTATION: &str = "flagger-rs.github.io/action";
/// The greatest length of the line, in bytes.
pub const LONGEST: usize = 1024;
/// Separates the IDs in the message of the condition `Action`.
pub const SEPARATOR: char = ',';
/// The characters of a user's name that are percent-encoded.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// An action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// The verb.
    pub verb: Verb,
    /// The version, the author and the time; `None` in the short form.
    pub signature: Option<Signature>,
    /// The reason; empty if there is none.
    pub reason: String,
}

/// The verbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Promote the version now, without further steps and checks. Traffic still moves to ready pods only.
    Promote,
    /// End this step, or open the gate at which the release waits, and go on with the next step.
    Skip,
    /// Hold the weight. Checks go on, and may roll the version back.
    Pause,
    /// End a pause, or open the gate at which the release waits.
    Resume,
    /// Return the traffic to the primary, and mark the version as failed.
    Abort,
    /// Release the failed version again.
    Retry,
}

/// The author of an action, its time, and the version that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// `status.lastAppliedSpec`, as the author saw it.
    pub revision: String,
    /// An identifier that no other action has.
    pub id: String,
    /// When the author asked.
    pub at: Timestamp,
    /// The name of the user.
    pub author: String,
}

/// The reason why a line is no action.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAction {
    /// The line is too long.
    #[error("the line has {0} bytes, and at most {LONGEST} are allowed")]
    TooLong(usize),
    /// The verb is unknown.
    #[error("the verb {0:?} is not promote, skip, pause, resume, abort or retry")]
    UnknownVerb(String),
    /// Words are missing.
    #[error("the line is not VERB, or VERB REVISION ID TIME AUTHOR [REASON…]")]
    Incomplete,
    /// Words are separated by something other than one blank.
    #[error("single blanks must separate the words, without tabs and line ends")]
    Blanks,
    /// The ID cannot tell this action from another one.
    #[error("the ID {0:?} is reserved: use one that no other action has")]
    ReservedId(String),
    /// The time cannot be read.
    #[error("{0:?} is no time such as 2026-11-28T10:12:03Z")]
    NoTime(String),
}

impl Verb {
    /// All verbs.
    pub const ALL: [Self; 6] = [
        Self::Promote,
        Self::Skip,
        Self::Pause,
        Self::Resume,
        Self::Abort,
        Self::Retry,
    ];

    /// The word in the line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Skip => "skip",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Abort => "abort",
            Self::Retry => "retry",
        }
    }

    /// Whether the action needs a reason. The policy of the API server asks for one, too.
    pub const fn needs_reason(self) -> bool {
        match self {
            Self::Promote | Self::Skip | Self::Abort => true,
            Self::Pause | Self::Resume | Self::Retry => false,
        }
    }
}

/// The recorded ID of an action without an ID, and of an invalid line, until the annotation is removed.
pub const UNNAMED: &str = "-";
/// The recorded ID after the removal. The next action without an ID then counts as a new one.
pub const DONE: &str = "by-hand";

/// `reason` of the condition `Action` in the next run: only the IDs of the last actions are left.
pub const EARLIER: &str = "Earlier";

/// The parts of the message of the condition `Action`: the IDs of the last actions, the newest first, and the text about the newest one.
pub fn recorded(message: &str) -> (Vec<&str>, &str) {
    let (ids, text) = message.split_once(' ').unwrap_or((message, ""));
    (ids.split(SEPARATOR).collect(), text)
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Action {
    type Err = InvalidAction;

    fn from_str(line: &str) -> Result<Self, InvalidAction> {
        if line.len() > LONGEST {
            return Err(InvalidAction::TooLong(line.len()));
        }
        let words: Vec<_> = line.split(' ').collect();
        let is_blank = |word: &&str| word.is_empty() || word.contains(char::is_whitespace);
        if words.len() > 1 && words.iter().any(is_blank) {
            return Err(InvalidAction::Blanks);
        }
        let is_verb = |known: &Verb| known.as_str() == words[0];
        let verb = Verb::ALL.into_iter().find(is_verb);
        let verb = verb.ok_or_else(|| InvalidAction::UnknownVerb(printable(words[0], 40)))?;
        let (signature, reason) = match words[1..] {
            [] => (None, String::new()),
            [revision, id, time, author, ref reason @ ..] => {
                if [UNNAMED, DONE].contains(&id) {
                    return Err(InvalidAction::ReservedId(id.to_owned()));
                }
                let at = time.parse();
                let signature = Signature {
                    revision: printable(revision, LONGEST),
                    id: printable(id, LONGEST),
                    at: at.map_err(|_| InvalidAction::NoTime(printable(time, 40)))?,
                    author: printable(&percent_decode_str(author).decode_utf8_lossy(), LONGEST),
                };
                (Some(signature), printable(&reason.join(" "), LONGEST))
            }
            _ => return Err(InvalidAction::Incomplete),
        };
        Ok(Self {
            verb,
            signature,
            reason,
        })
    }
}

/// Formats the action as the line of the annotation.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.verb)?;
        if let Some(Signature {
            revision,
            id,
            at,
            author,
        }) = &self.signature
        {
            write!(f, " {revision} {id} {at} {}", encoded(author))?;
            if !self.reason.is_empty() {
                write!(f, " {}", self.reason)?;
            }
        }
        Ok(())
    }
}

/// An author as a single word. Letters of other alphabets stay as they are: the policy of the API server compares the word with the name of
/// the user, in which it encodes the same characters.
fn encoded(author: &str) -> String {
    let word = |character: char| {
        let text = character.to_string();
        if character.is_ascii() || character.is_whitespace() {
            utf8_percent_encode(&text, ENCODED).to_string()
        } else {
            text
        }
    };
    author.chars().map(word).collect()
}

/// The beginning of a text, without control characters.
fn printable(text: &str, longest: usize) -> String {
    let characters = text.chars().filter(|character| !character.is_control());
    characters.take(longest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str =
        "abort v1-6b3c9d41 01JDS6T0Q4 2026-11-28T10:12:03Z jane%20doe errors at the checkout";

    #[test]
    fn a_line_is_read_and_written() {
        let action: Action = LINE.parse().unwrap();
        let signature = action.signature.clone().unwrap();
        assert_eq!(action.verb, Verb::Abort);
        assert_eq!(signature.author, "jane doe");
        assert_eq!(action.reason, "errors at the checkout");
        assert_eq!(action.to_string(), LINE);
        for verb in Verb::ALL {
            let line = verb.to_string();
            let action: Action = line.parse().unwrap();
            assert_eq!((action.verb, &action.signature), (verb, &None));
            assert_eq!(action.to_string(), line);
        }
    }

    /// The policy of the API server compares the author with the user.
    #[test]
    fn the_author_is_read_as_it_was_written_whatever_its_name_is() {
        let characters = (' '..='~').chain(['é', '界', '\u{1f680}']);
        for name in
            characters.flat_map(|c| [format!("{c}"), format!("a{c}41b"), format!("{c}{c}25")])
        {
            let mut action: Action = LINE.parse().unwrap();
            let signature = action.signature.as_mut().unwrap();
            name.clone_into(&mut signature.author);
            let line = action.to_string();
            assert_eq!(line.split(' ').count(), LINE.split(' ').count(), "{line}");
            assert_eq!(line.parse::<Action>(), Ok(action), "{line}");
        }
    }

    #[test]
    fn a_line_that_is_no_action_is_refused_with_the_reason() {
        let why = |line: &str| line.parse::<Action>().unwrap_err().to_string();
        for (line, expected) in [
            ("", "the verb \"\" is not promote, skip"),
            ("Abort", "the verb \"Abort\" is not"),
            ("abort v1-6b3c9d41", "the line is not VERB, or"),
            (
                "abort r id 2026-11-28T10:12:03Z",
                "the line is not VERB, or",
            ),
            ("abort r id yesterday jane", "\"yesterday\" is no time"),
            (
                "abort r - 2026-11-28T10:12:03Z jane",
                "the ID \"-\" is reserved",
            ),
            // A policy that splits at blanks would read another author.
            (
                "abort r\tid\t2026-11-28T10:12:03Z\tbob x y jane",
                "single blanks must",
            ),
            (
                "abort r  id 2026-11-28T10:12:03Z jane",
                "single blanks must",
            ),
            ("abort\u{a0}r id", "single blanks must"),
            ("abort\n", "the verb \"abort\" is not"),
        ] {
            assert!(why(line).starts_with(expected), "{}", why(line));
        }
        let long = format!("{LINE} {}", "é".repeat(1024));
        assert!(
            why(&long).starts_with("the line has 2132 bytes"),
            "{}",
            why(&long)
        );
    }

    #[test]
    fn control_characters_do_not_reach_events() {
        let action: Action =
            "abort r id\u{7} 2026-11-28T10:12:03Z jane%0a%1b[31m bad\u{1b}[0m version"
                .parse()
                .unwrap();
        assert_eq!(action.signature.unwrap().author, "jane[31m");
        assert_eq!(action.reason, "bad[0m version");
    }
}
