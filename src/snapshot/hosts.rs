//! The hosts that may be called, as administrators write them in flags and annotations.

use std::fmt;

/// A list of hosts. `*.example.com` stands for all names below `example.com`, but not for `example.com`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostList(Vec<String>);

impl HostList {
    /// Reads a comma-separated list.
    pub fn read(list: &str) -> Self {
        let hosts = list.split(',').map(normal);
        Self(hosts.filter(|host| !host.is_empty()).collect())
    }

    /// Whether the list has no host.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the list contains a host, which is a name or an address.
    pub fn contains(&self, host: &str) -> bool {
        let host = normal(host);
        self.0.iter().any(|listed| match listed.strip_prefix("*.") {
            Some(suffix) => host
                .strip_suffix(suffix)
                .is_some_and(|below| below.len() > 1 && below.ends_with('.')),
            None => *listed == host,
        })
    }
}

/// The addresses that calls of users may reach. The default is Flagger's: all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destinations {
    /// The only hosts that may be called; all, if the list is empty.
    pub hosts: HostList,
    /// Whether link-local addresses and those of the metadata services of clouds may be called.
    pub link_local: bool,
    /// Whether the addresses of the operator's own pod may be called.
    pub loopback: bool,
}

impl Default for Destinations {
    fn default() -> Self {
        Self {
            hosts: HostList::default(),
            link_local: true,
            loopback: true,
        }
    }
}

impl fmt::Display for HostList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// Returns the same spelling for all spellings of a host: in lower case, without the dot at the end of a complete name, and without the
/// brackets of IPv6.
fn normal(host: &str) -> String {
    let host = host.trim().trim_end_matches('.');
    let host = host.strip_prefix('[').unwrap_or(host);
    host.strip_suffix(']').unwrap_or(host).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_in_the_list_by_its_name_or_below_a_suffix() {
        let list = HostList::read("a.example, *.B.example,,10.0.0.1,[fd00::1]");
        for (host, is_listed) in [
            ("a.example", true),
            ("A.example.", true),
            ("x.a.example", false),
            ("b.example", false),
            (".b.example", false),
            ("x.b.example", true),
            ("y.x.b.EXAMPLE", true),
            ("xb.example", false),
            ("x.b.example.evil", false),
            ("10.0.0.1", true),
            ("10.0.0.10", false),
            ("[fd00::1]", true),
            ("", false),
        ] {
            assert_eq!(list.contains(host), is_listed, "{host:?}");
        }
        assert!(HostList::read(" , ").is_empty() && !HostList::read("").contains(""));
    }
}
