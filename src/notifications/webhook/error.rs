//! The reason why a webhook did not pass: in Flagger's words for events, and as a plain clause for records.

use crate::{api::duration::DurationError, snapshot::redacted};

/// The reason why a webhook cannot be called, or did not pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// The hook's `url` is not a URL.
    #[error("the URL is not valid: {0}")]
    InvalidUrl(url::ParseError),
    /// The hook's `timeout` is not a duration; the text is Go's.
    #[error(transparent)]
    InvalidTimeout(DurationError),
    /// The hook answered with a status that does not pass.
    #[error("{answer}")]
    Rejected {
        /// The host of the hook.
        host: String,
        /// The HTTP status.
        status: u16,
        /// An excerpt of the answer.
        answer: String,
    },
    /// No attempt got an answer that decides.
    #[error("POST {url} giving up after {attempts} attempt(s){}", tail(last))]
    GaveUp {
        /// The host of the hook.
        host: String,
        /// The URL without its password and its query.
        url: String,
        /// The number of attempts.
        attempts: u64,
        /// The last attempt: an HTTP status after which a retry may succeed, with the answer; or the reason why there was no answer.
        last: Result<(u16, String), String>,
    },
}

fn tail(last: &Result<(u16, String), String>) -> String {
    match last {
        Ok(_) => String::new(),
        Err(why) => format!(": {why}"),
    }
}

impl WebhookError {
    /// The error as a clause for people, with the answer. The clause contains no credential of a known form, and only the host of the URL.
    pub fn cause(&self) -> String {
        let after = |attempts: u64| match attempts {
            1 => String::new(),
            n => format!(" after {n} attempts"),
        };
        let answered = |host: &str, status: u16, attempts: u64, answer: &str| {
            let answer = match redacted(answer).trim() {
                "" => String::new(),
                answer => format!(": {answer}"),
            };
            format!("{host} answered {status}{}{answer}", after(attempts))
        };
        match self {
            Self::InvalidUrl(_) | Self::InvalidTimeout(_) => self.to_string(),
            Self::Rejected {
                host,
                status,
                answer,
            } => answered(host, *status, 1, answer),
            Self::GaveUp {
                host,
                attempts,
                last: Ok((status, answer)),
                ..
            } => answered(host, *status, *attempts, answer),
            Self::GaveUp {
                host,
                attempts,
                last: Err(why),
                ..
            } => format!(
                "{host} gave no answer{}: {}",
                after(*attempts),
                redacted(why)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_names_the_host_and_the_answer_but_no_credential() {
        let host = || "hooks.test".to_owned();
        let rejected = |answer: &str| WebhookError::Rejected {
            host: host(),
            status: 403,
            answer: answer.to_owned(),
        };
        let gave_up = |attempts, last| WebhookError::GaveUp {
            host: host(),
            url: "http://hush:xxxxx@hooks.test/services/hush".to_owned(),
            attempts,
            last,
        };
        let refused = Err("connection refused".to_owned());
        for (error, cause, event) in [
            (
                rejected("not yet "),
                "hooks.test answered 403: not yet",
                "not yet ",
            ),
            (rejected("\n"), "hooks.test answered 403", "\n"),
            (
                rejected("token=hush"),
                "hooks.test answered 403: token=[redacted]",
                "token=hush",
            ),
            (
                gave_up(1, Ok((500, "CAB ticket 42 is open".to_owned()))),
                "hooks.test answered 500: CAB ticket 42 is open",
                "POST http://hush:xxxxx@hooks.test/services/hush giving up after 1 attempt(s)",
            ),
            (
                gave_up(3, refused),
                "hooks.test gave no answer after 3 attempts: connection refused",
                "POST http://hush:xxxxx@hooks.test/services/hush giving up after 3 attempt(s): connection refused",
            ),
        ] {
            assert_eq!(error.cause(), cause);
            assert_eq!(error.to_string(), event);
        }
    }
}
