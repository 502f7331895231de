//! Refuses calls of users to addresses that they may not call. It checks hosts and addresses before a connection, and the addresses of a
//! name after the name is resolved.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::net::lookup_host;
use url::{Host, Url};

use crate::snapshot::{Destinations, excerpt};

/// The metadata services of clouds at addresses that are not link-local: Alibaba, Oracle and Azure.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];
/// The metadata service of Google.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254);
/// The beginning of all addresses of Amazon's local services: instance metadata, and the credentials of pods.
const AMAZON_V6: [u16; 2] = [0xfd00, 0xec2];

/// The reason why a call is not sent, or a redirect is not followed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The host is not in the administrator's list.
    #[error("the host {0} is not in the list of the flag -allowed-hosts")]
    Host(String),
    /// The address is in a network that only this machine and its cloud can reach.
    #[error(
        "{} is link-local or that of a cloud's metadata service: calls to it need the flag -allow-link-local",
        shown(.host, .address)
    )]
    LinkLocal {
        /// The host in the URL.
        host: String,
        /// Its address.
        address: IpAddr,
    },
    /// The address is in the operator's own pod.
    #[error(
        "{} is in the operator's own pod: the flag -refuse-loopback is set",
        shown(.host, .address)
    )]
    Loopback {
        /// The host in the URL.
        host: String,
        /// Its address.
        address: IpAddr,
    },
    /// The answer is a redirect to another host.
    #[error("the server redirects to the host {0}: a redirect to another host is not followed")]
    Redirect(String),
}

/// The address of a host, for an error.
fn shown(host: &str, address: &IpAddr) -> String {
    if host.parse() == Ok(*address) {
        format!("the address {address}")
    } else {
        format!("the address {address} of {host}")
    }
}

impl Refused {
    /// The refusal that an error was caused by.
    pub fn among_causes<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        std::iter::successors(Some(error), |error| error.source())
            .find_map(|error| error.downcast_ref())
    }
}

/// Whether every destination is allowed.
pub fn are_open(destinations: &Destinations) -> bool {
    destinations.hosts.is_empty() && destinations.link_local && destinations.loopback
}

/// Checks the host of a URL. The addresses of names are checked when they are resolved.
pub fn check_url(destinations: &Destinations, url: &Url) -> Result<(), Refused> {
    let Some(host) = url.host() else {
        return Ok(());
    };
    let name = host.to_string();
    if !destinations.hosts.is_empty() && !destinations.hosts.contains(&name) {
        return Err(Refused::Host(excerpt(&name)));
    }
    match host {
        Host::Ipv4(address) => check_address(destinations, &address.to_string(), address.into()),
        Host::Ipv6(address) => check_address(destinations, &address.to_string(), address.into()),
        Host::Domain(_) => Ok(()),
    }
}

fn check_address(destinations: &Destinations, host: &str, address: IpAddr) -> Result<(), Refused> {
    let host = || excerpt(host);
    if !destinations.link_local && is_link_local(address) {
        let host = host();
        return Err(Refused::LinkLocal { host, address });
    }
    if !destinations.loopback && is_loopback(address) {
        let host = host();
        return Err(Refused::Loopback { host, address });
    }
    Ok(())
}

/// Whether only this machine and its cloud can reach an address.
pub fn is_link_local(address: IpAddr) -> bool {
    match unwrapped(address) {
        IpAddr::V4(address) => address.is_link_local() || METADATA_V4.contains(&address),
        IpAddr::V6(address) => {
            address.is_unicast_link_local()
                || address == METADATA_V6
                || address.segments().starts_with(&AMAZON_V6)
        }
    }
}

/// A connection to the unspecified address reaches this machine, too.
fn is_loopback(address: IpAddr) -> bool {
    let address = unwrapped(address);
    address.is_loopback() || address.is_unspecified()
}

/// The IPv4 address that is written as an IPv6 address: mapped, compatible, for a translator (NAT64, also with a prefix of the network's own),
/// or for a tunnel (6to4).
fn unwrapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    let of = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d).into()
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => address,
        // RFC 6052 has the address in the middle, around a byte of zeros, if the prefix has 48 bits.
        [0x64, 0xff9b, 1, high, middle @ 1..=0xff, end, 0, 0] => of(high, middle << 8 | end >> 8),
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low]
        | [0x2002, high, low, ..] => of(high, low),
        _ => address,
    }
}

/// Resolves names to the addresses that may be called.
pub struct Resolver(pub Arc<Destinations>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let destinations = self.0.clone();
        Box::pin(async move {
            // The connection has the port of the URL.
            let found = lookup_host((name.as_str(), 0)).await?.collect();
            let allowed = allowed(&destinations, name.as_str(), found)?;
            let addresses: Addrs = Box::new(allowed.into_iter());
            Ok(addresses)
        })
    }
}

/// Returns the addresses that may be called. If there are only others, this is an error.
fn allowed(
    destinations: &Destinations,
    host: &str,
    found: Vec<SocketAddr>,
) -> Result<Vec<SocketAddr>, Refused> {
    let mut refused = None;
    let mut allowed = Vec::new();
    for address in found {
        match check_address(destinations, host, address.ip()) {
            Ok(()) => allowed.push(address),
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) if allowed.is_empty() => Err(error),
        Some(_) | None => Ok(allowed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::HostList;

    fn closed() -> Destinations {
        Destinations {
            hosts: HostList::default(),
            link_local: false,
            loopback: false,
        }
    }

    fn refusal(destinations: &Destinations, url: &str) -> String {
        let checked = check_url(destinations, &Url::parse(url).unwrap());
        checked
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn link_local_and_metadata_addresses_are_refused_in_every_spelling() {
        for host in [
            "169.254.169.254",
            "169.254.0.1",
            "2852039166",
            "0xa9fea9fe",
            "0251.0376.0251.0376",
            "169.254.169.254.",
            "100.100.100.200",
            "192.0.0.192",
            "168.63.129.16",
            "[fe80::1]",
            "[febf::1]",
            "[fd00:ec2::254]",
            "[fd00:ec2::23]",
            "[fd20:ce::254]",
            "[::ffff:169.254.169.254]",
            "[::ffff:6464:64c8]",
            "[::a9fe:a9fe]",
            "[64:ff9b::a9fe:a9fe]",
            "[64:ff9b:1::a9fe:a9fe]",
            "[64:ff9b:1:a9fe:a9:fe00::]",
            "[2002:a9fe:a9fe::1]",
        ] {
            let url = format!("http://user@{host}:80/latest");
            let why = refusal(&closed(), &url);
            assert!(why.starts_with("the address "), "{host}: {why}");
            assert!(
                why.ends_with("need the flag -allow-link-local"),
                "{host}: {why}"
            );
            assert_eq!(refusal(&Destinations::default(), &url), "", "{host}");
        }
        assert_eq!(
            refusal(&closed(), "http://169.254.169.254/"),
            "the address 169.254.169.254 is link-local or that of a cloud's metadata service: calls to it need the flag -allow-link-local"
        );
    }

    #[test]
    fn private_and_public_addresses_are_called() {
        for host in [
            "10.0.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "169.253.0.1",
            "8.8.8.8",
            "[fd00::1]",
            "[2001:db8::1]",
            "[64:ff9b::808:808]",
            "podinfo.test",
        ] {
            assert_eq!(refusal(&closed(), &format!("http://{host}/")), "", "{host}");
        }
    }

    #[test]
    fn the_operators_own_pod_is_refused_if_the_flag_is_set() {
        let open = Destinations {
            loopback: true,
            ..closed()
        };
        for host in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
        ] {
            let url = format!("http://{host}/");
            let why = refusal(&closed(), &url);
            assert!(
                why.ends_with("the flag -refuse-loopback is set"),
                "{host}: {why}"
            );
            assert_eq!(refusal(&open, &url), "", "{host}");
        }
    }

    #[test]
    fn with_a_list_of_hosts_no_other_is_called() {
        let listed = Destinations {
            hosts: HostList::read("hooks.slack.com,*.test,[fd00::1]"),
            ..Destinations::default()
        };
        for host in ["hooks.slack.com", "tester.test", "[fd00::1]"] {
            assert_eq!(refusal(&listed, &format!("http://{host}/")), "", "{host}");
        }
        assert_eq!(
            refusal(&listed, "http://10.0.0.1/"),
            "the host 10.0.0.1 is not in the list of the flag -allowed-hosts"
        );
        assert!(refusal(&listed, "http://evil.com/").starts_with("the host evil.com"));
    }

    #[test]
    fn a_name_has_the_addresses_that_may_be_called_and_is_refused_if_there_are_only_others() {
        let (metadata, good) = ("169.254.169.254:0", "10.0.0.1:0");
        let allowed = |found: &[&str]| {
            let found = found.iter().map(|address| address.parse().unwrap());
            allowed(&closed(), "rebound.example", found.collect())
        };
        assert_eq!(allowed(&[metadata, good]).unwrap(), [good.parse().unwrap()]);
        let why = allowed(&[metadata]).unwrap_err().to_string();
        assert!(
            why.starts_with("the address 169.254.169.254 of rebound.example is"),
            "{why}"
        );
    }
}
