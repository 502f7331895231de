//! The address of each page.

use url::form_urlencoded;

use super::filter::Filter;

/// A page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// All canaries that match a filter.
    Fleet(Filter),
    /// One canary, with its last release or the one that is named.
    Release {
        /// The canary.
        canary: Named,
        /// The name of the record; `None` for the last one.
        record: Option<String>,
    },
    /// The recorded releases of a canary.
    History {
        /// The canary.
        canary: Named,
        /// The names of two records that are compared.
        compared: Option<(String, String)>,
    },
    /// The state of the installation.
    Setup,
}

/// The name of a canary, with its namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Named {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Named {
    /// A canary, if both words can be names in Kubernetes.
    pub fn new(namespace: &str, name: &str) -> Option<Self> {
        (is_name(namespace) && is_name(name)).then(|| Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    /// The address of the canary's page.
    pub fn address(&self) -> String {
        format!("/c/{}/{}", self.namespace, self.name)
    }
}

/// Whether a word can be the name of an object. Any other word is in no address and in no request to the API server.
pub fn is_name(word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    (1..=253).contains(&word.len())
        && word.chars().all(is_part)
        && word.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !word.contains("..")
}

impl Place {
    /// All canaries.
    pub fn first() -> Self {
        Self::Fleet(Filter::new("", 1))
    }

    /// The page at a path with a query, such as `/?q=ns:shop`; `None` if there is none.
    pub fn parse(address: &str) -> Option<Self> {
        let (path, query) = address.split_once('?').unwrap_or((address, ""));
        let value = |name: &str| {
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            let found = pairs.find(|(key, _)| key == name);
            found.map(|(_, value)| value.into_owned())
        };
        let parts: Vec<_> = path.strip_prefix('/')?.split('/').collect();
        Some(match parts.as_slice() {
            [""] => {
                let page = value("page").and_then(|page| page.parse().ok());
                Self::Fleet(Filter::new(
                    &value("q").unwrap_or_default(),
                    page.unwrap_or(1),
                ))
            }
            ["setup"] => Self::Setup,
            ["c", namespace, name] => Self::Release {
                canary: Named::new(namespace, name)?,
                record: None,
            },
            ["c", namespace, name, "r", record] if is_name(record) => Self::Release {
                canary: Named::new(namespace, name)?,
                record: Some((*record).to_owned()),
            },
            ["c", namespace, name, "history"] => {
                let record = |name: &str| value(name).filter(|record| is_name(record));
                Self::History {
                    canary: Named::new(namespace, name)?,
                    compared: record("a").zip(record("b")),
                }
            }
            _ => return None,
        })
    }

    /// The path with its query.
    pub fn address(&self) -> String {
        match self {
            Self::Fleet(filter) => format!("/{}", filter.query()),
            Self::Setup => "/setup".to_owned(),
            Self::Release { canary, record } => match record {
                Some(record) => format!("{}/r/{record}", canary.address()),
                None => canary.address(),
            },
            Self::History { canary, compared } => {
                let query = compared
                    .as_ref()
                    .map(|(a, b)| format!("?a={a}&b={b}"))
                    .unwrap_or_default();
                format!("{}/history{query}", canary.address())
            }
        }
    }

    /// The canary that the page is about.
    pub const fn canary(&self) -> Option<&Named> {
        match self {
            Self::Release { canary, .. } | Self::History { canary, .. } => Some(canary),
            Self::Fleet(_) | Self::Setup => None,
        }
    }

    /// Whether the page follows changes of the cluster.
    pub const fn is_live(&self) -> bool {
        matches!(
            self,
            Self::Fleet(_) | Self::Setup | Self::Release { record: None, .. }
        )
    }

    /// The name of the page in the title of its window.
    pub fn title(&self) -> String {
        match self {
            Self::Fleet(_) => "Canaries".to_owned(),
            Self::Setup => "Setup".to_owned(),
            Self::Release { canary, .. } => format!("{}/{}", canary.namespace, canary.name),
            Self::History { canary, .. } => {
                format!("History of {}/{}", canary.namespace, canary.name)
            }
        }
    }
}

/// The path on this server that a login leads to. Anything else leads to the first page, so that no link leads to another server.
pub fn local(address: &str) -> String {
    match Place::parse(address) {
        Some(place) => place.address(),
        None => "/".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_page_is_found_at_its_address() {
        for address in [
            "/",
            "/?q=pod+ns%3Ashop&page=2",
            "/setup",
            "/c/test/podinfo",
            "/c/test/podinfo/r/podinfo-1a2b",
            "/c/test/podinfo/history",
            "/c/test/podinfo/history?a=podinfo-1&b=podinfo-2",
        ] {
            let place = Place::parse(address);
            assert_eq!(place.map(|place| place.address()).as_deref(), Some(address));
        }
        for address in [
            "",
            "c/test/podinfo",
            "/c/test",
            "/c/test/",
            "/c/Test/podinfo",
            "/c/test/../podinfo",
            "/c/test/%2e%2e",
            "/c/test/podinfo/r/",
            "/c/test/podinfo/abort",
            "/other",
        ] {
            assert_eq!(Place::parse(address), None, "{address}");
        }
    }

    #[test]
    fn a_login_leads_to_no_other_server() {
        for address in [
            "//evil.example",
            "/\\evil.example",
            "https://evil.example/",
            "/c/test/podinfo\r\nSet-Cookie: a=b",
            "javascript:alert(1)",
            "",
        ] {
            assert_eq!(local(address), "/", "{address}");
        }
        assert_eq!(local("/c/test/podinfo"), "/c/test/podinfo");
    }
}
