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
            supported: enumerated(supported, |name| {
                name.split_once(':').filter(|(family, _)| *family == "smi")
            }),
        }
    }

    /// The built-in metrics of `provider` are not supported; those of `supported` are.
    pub(super) fn queries(provider: &str, supported: &[&str]) -> Self {
        Self::Queries {
            provider: provider.to_owned(),
            supported: enumerated(supported, |name| name.split_once(':')),
        }
    }
}

/// `a, b and c`, from sorted names. Names that `split` divides into a family and a version are listed once, by their family.
fn enumerated(names: &[&str], split: fn(&str) -> Option<(&str, &str)>) -> String {
    let mut names: Vec<_> = names
        .iter()
        .map(|name| split(name).map_or(*name, |(family, _)| family))
        .collect();
    names.dedup();
    match names.as_slice() {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [all @ .., last] => format!("{} and {last}", all.join(", ")),
    }
}
