//! A provider that this version does not support.

/// The reason why a provider cannot be used. The `Display` text lists the providers that can.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// Its router is not supported yet.
    #[error("{provider} is not supported yet, only {supported} are")]
    Router {
        /// The name of the provider.
        provider: String,
        /// The names of the supported providers.
        supported: String,
    },
    /// Its built-in metrics are not supported yet.
    #[error("built-in metrics of {provider} are not supported yet, only those of {supported} are")]
    Queries {
        /// The name of the provider.
        provider: String,
        /// The names of the supported providers.
        supported: String,
    },
}

impl ProviderError {
    /// The router of `provider` is not supported; those of `supported` are.
    pub(super) fn router(provider: &str, supported: &[&str]) -> Self {
        Self::Router {
            provider: provider.to_owned(),
            supported: enumerated(supported),
        }
    }

    /// The built-in metrics of `provider` are not supported; those of `supported` are.
    pub(super) fn queries(provider: &str, supported: &[&str]) -> Self {
        Self::Queries {
            provider: provider.to_owned(),
            supported: enumerated(supported),
        }
    }
}

/// `a, b and c`.
fn enumerated(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [all @ .., last] => format!("{} and {last}", all.join(", ")),
    }
}
