//! Types that several verbs share: exit codes, forms of output, durations.

use std::time::Duration;

use clap::ValueEnum;

use crate::api::duration;

/// The lines about exit codes in the help of each verb.
pub const CODES: &str = "Exit codes: 0 as asked, 1 the answer is no, 2 wrong usage or kubeconfig, 3 undecided in time or API server unreachable, \
    4 waits for a person, 5 not found or superseded by a newer version, 6 forbidden.";

/// The form of an output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For people, with more columns.
    Wide,
    /// The view as JSON.
    Json,
    /// The view as YAML.
    Yaml,
    /// The names only.
    Name,
}

/// Parses a duration in kubectl's syntax: `30m`, `90s`.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    duration::read(text).map_err(|error| error.to_string())
}
