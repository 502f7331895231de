//! The reasons why a metric has no value. Each `Display` text is Flagger's.

use crate::{api::duration::DurationError, snapshot::excerpt};

/// The reason why no server can be built from a MetricTemplate's provider.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// No provider of this version has the template's `type`.
    #[error("not supported, only {supported} are")]
    NotSupported {
        /// The names of the providers that this version has.
        supported: String,
    },
    /// The address is not a URL of HTTP.
    #[error("{provider} address {address} is not a valid URL")]
    InvalidAddress {
        /// The `type` of the template.
        provider: String,
        /// The address without user and password.
        address: String,
    },
    /// The provider has no default address, and the template has none either.
    #[error("{0} endpoint is not set")]
    NoAddress(&'static str),
    /// The template of a provider that needs a region has none.
    #[error("region not specified")]
    NoRegion,
    /// The template's Secret is missing or lacks a key.
    #[error("{provider} credentials does not contain {key}")]
    MissingCredential {
        /// The `type` of the template.
        provider: &'static str,
        /// The key, with the words and quotes that Flagger puts around it.
        key: &'static str,
    },
    /// The provider refuses a setting.
    #[error("{0}")]
    NotAllowed(String),
    /// The metric's `interval` is not a duration.
    #[error("error parsing metric interval: {0}")]
    InvalidInterval(DurationError),
}

impl ServerError {
    /// The error about a setting that the provider refuses, whose text begins with the provider.
    pub fn not_allowed(provider: &str, why: &str) -> Self {
        Self::NotAllowed(format!("{provider} {why}"))
    }
}

/// The reason why a query has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// The answer contains no value, or `NaN`.
    #[error("no values found")]
    NoValues,
    /// The answer contains no value. The text has Flagger's detail for this provider.
    #[error("{0}: no values found")]
    NoValuesIn(String),
    /// The query returned a series instead of one value.
    #[error("query returned multiple values")]
    MultipleValues,
    /// The server answered with a status that means an error.
    #[error("error response: {0}")]
    Refused(String),
    /// The query failed. The text is that of Flagger's provider, with an excerpt of the reason that the server gave.
    #[error("{0}")]
    Failed(String),
    /// The answer is not the JSON that the provider documents.
    #[error("{}", excerpt(&format!("error unmarshaling result: {reason}, '{body}'")))]
    NotJson {
        /// The text of the JSON parser.
        reason: String,
        /// An excerpt of the answer.
        body: String,
    },
    /// The value is text, but not a number.
    #[error("the value {0:?} is not a number")]
    NotANumber(String),
    /// The server gave no answer.
    #[error("request failed: {0}")]
    NoAnswer(String),
}

impl MetricError {
    /// The error about an answer without a value, which quotes the answer.
    pub fn none_in(body: &str) -> Self {
        Self::NoValuesIn(format!("invalid response: {}", excerpt(body)))
    }

    /// The error about a call, in Flagger's form, with the reason.
    pub fn failed(call: &str, why: &str) -> Self {
        Self::Failed(format!("{call}: {}", excerpt(why)))
    }

    /// The error about a value that is not a number.
    pub fn not_a_number(value: &str) -> Self {
        Self::NotANumber(excerpt(value))
    }

    /// Whether the server answered well, but has no value.
    pub const fn is_none(&self) -> bool {
        match self {
            Self::NoValues | Self::NoValuesIn(_) => true,
            Self::MultipleValues
            | Self::Refused(_)
            | Self::Failed(_)
            | Self::NotJson { .. }
            | Self::NotANumber(_)
            | Self::NoAnswer(_) => false,
        }
    }
}

/// The reason why a server does not count as online.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfflineError {
    /// The request that only checks the credentials failed.
    #[error(transparent)]
    Call(MetricError),
    /// The server refused the request that only checks the credentials, for this reason.
    #[error("unexpected status code: {0}")]
    UnexpectedStatus(String),
    /// The query that every server can answer failed.
    #[error("running query failed: {0}")]
    Query(MetricError),
    /// The query that every server can answer has another value than expected.
    #[error("value is not {expected} for query: {query}")]
    WrongValue {
        /// The value that every server gives.
        expected: u32,
        /// The query.
        query: &'static str,
    },
}
