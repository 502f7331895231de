//! The reasons why a request is not served as asked.

use http::StatusCode;

use crate::{
    cli::client::Code,
    shell::{api_server::ClusterError, client::Stop},
};

/// The reason why a request is not served as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no session. The form for a login is shown.
    #[error("Log in first.")]
    NoLogin,
    /// The API server does not accept the token.
    #[error("The API server does not accept this token. It may have expired.")]
    WrongToken,
    /// The proxy has sent no token.
    #[error("The proxy in front of this dashboard has sent no token.")]
    NoToken,
    /// The request does not come from a trusted proxy.
    #[error("This dashboard is used through its proxy only.")]
    NotTrusted,
    /// The proxy has named no user, or several.
    #[error("The proxy in front of this dashboard has not named one user.")]
    NoUser,
    /// The proxy has named a user or a group of Kubernetes itself.
    #[error("Users and groups of Kubernetes itself cannot use this dashboard.")]
    Reserved,
    /// The request comes from a page of another server, or names another server.
    #[error("{0}")]
    Foreign(String),
    /// There is no such page, or the visitor may not know whether there is.
    #[error("There is no such page, or you may not see it.")]
    Missing,
    /// Too many requests in a short time.
    #[error("Too many requests. Try again in a minute.")]
    TooMany,
    /// The request is wrong.
    #[error("{0}")]
    Wrong(String),
    /// The API server did not carry out the request.
    #[error("{text}")]
    Stopped {
        /// The status of the answer.
        status: u16,
        /// The reason, and what to do.
        text: String,
    },
    /// The API server cannot be reached.
    #[error("The API server does not answer: {0}")]
    Unreachable(String),
    /// The process itself failed.
    #[error("{0}")]
    Failed(String),
}

impl Refusal {
    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoLogin | Self::WrongToken | Self::NoToken => StatusCode::UNAUTHORIZED,
            Self::NotTrusted | Self::NoUser | Self::Reserved | Self::Foreign(_) => {
                StatusCode::FORBIDDEN
            }
            Self::Missing => StatusCode::NOT_FOUND,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Wrong(_) => StatusCode::BAD_REQUEST,
            Self::Stopped { status, .. } => {
                StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_GATEWAY)
            }
            Self::Unreachable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<ClusterError> for Refusal {
    fn from(error: ClusterError) -> Self {
        match error.code() {
            Some(401) => Self::WrongToken,
            Some(403) => Self::Stopped {
                status: 403,
                text: error.to_string(),
            },
            _ => Self::Unreachable(error.to_string()),
        }
    }
}

/// A command of the command line could not be carried out. Its text names the reason, and the command to type next.
impl From<Stop> for Refusal {
    fn from(stop: Stop) -> Self {
        let Stop::Trouble(trouble) = stop else {
            return Self::Failed("the output is closed".to_owned());
        };
        let status = match trouble.code {
            Code::Forbidden => 403,
            Code::NotFound => 404,
            Code::Usage => 400,
            Code::Undecided | Code::WaitsForPerson => 503,
            Code::No | Code::Yes => 409,
        };
        Self::Stopped {
            status,
            text: trouble.message,
        }
    }
}
