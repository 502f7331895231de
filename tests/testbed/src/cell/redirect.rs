//! Redirects a pod's traffic to its proxy, as istio-init does with iptables. In the syntax of nft:
//!
//! ```text
//! table ip istio {
//!   chain pre { type nat hook prerouting priority -100; iifname "eth0" tcp dport != 15000-15099 redirect to :15006; }
//!   chain out { type nat hook output priority -100; ip daddr 10.96.0.0/16 tcp dport != 53 redirect to :15001; }
//! }
//! ```
//!
//! Outbound, only requests to Services are redirected. The proxy connects to pods, so its own requests need no exception.
//! The rules are written with netlink, because nft is not installed on every machine.

use std::{io, os::fd::AsRawFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto,
    socket,
};

/// The proxy's ports for requests to the pod and from the pod.
const INBOUND: u16 = 15006;
const OUTBOUND: u16 = 15001;
/// The proxy's own ports.
const OWN: [u16; 2] = [15000, 15099];
/// The first bytes of the addresses of Services.
const SERVICES: [u8; 2] = [10, 96];
const DNS: u16 = 53;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;
/// The size of the header of a netlink message.
const HEADER: usize = 16;
const NFPROTO_IPV4: u8 = 2;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEWTABLE: u16 = NFNL_SUBSYS_NFTABLES << 8;
const NEWCHAIN: u16 = NEWTABLE | 3;
const NEWRULE: u16 = NEWTABLE | 6;
const NLMSG_ERROR: u16 = 2;
const TABLE: &str = "istio";
/// The register that all expressions use.
const REGISTER: u32 = 1;

/// Installs the rules in the network namespace of this process.
pub fn install() -> io::Result<()> {
    let messages = messages();
    let begin = message(BATCH_BEGIN, 0, NFNL_SUBSYS_NFTABLES, &[]);
    let end = message(BATCH_END, 0, NFNL_SUBSYS_NFTABLES, &[]);
    let batch = [&[begin], messages.as_slice(), &[end]].concat().concat();
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    let (fd, kernel) = (socket.as_raw_fd(), NetlinkAddr::new(0, 0));
    bind(fd, &kernel)?;
    sendto(fd, &batch, &kernel, MsgFlags::empty())?;
    let mut acknowledged = 0;
    while acknowledged < messages.len() {
        let mut buffer = [0; 8192];
        let length = recv(fd, &mut buffer, MsgFlags::empty())?;
        acknowledged += answers(buffer.get(..length).unwrap_or_default())?;
    }
    Ok(())
}

/// The messages that create the table. The kernel acknowledges each.
fn messages() -> [Vec<u8>; 5] {
    let prerouting = [
        meta(6), // iifname
        compare(0, b"eth0\0\0\0\0\0\0\0\0\0\0\0\0"),
        meta(16), // l4proto
        compare(0, &[6]),
        payload(2, 2, 2), // transport header: dport
        outside(OWN),
        immediate(INBOUND),
        redirect(),
    ];
    let output = [
        payload(1, 16, 2), // network header: daddr
        compare(0, &SERVICES),
        meta(16),
        compare(0, &[6]),
        payload(2, 2, 2),
        compare(1, &DNS.to_be_bytes()),
        immediate(OUTBOUND),
        redirect(),
    ];
    [
        message(NEWTABLE, ACK | CREATE, 0, &text(1, TABLE)),
        message(NEWCHAIN, ACK | CREATE, 0, &chain("pre", 0)),
        message(NEWCHAIN, ACK | CREATE, 0, &chain("out", 3)),
        message(NEWRULE, ACK | CREATE | APPEND, 0, &rule("pre", &prerouting)),
        message(NEWRULE, ACK | CREATE | APPEND, 0, &rule("out", &output)),
    ]
}

/// The number of acknowledged messages. Returns an error if the kernel refused one.
fn answers(mut bytes: &[u8]) -> io::Result<usize> {
    let mut count = 0;
    while let (Some(length), Some(kind), Some(code)) =
        (u32_at(bytes, 0), bytes.get(4..6), u32_at(bytes, HEADER))
    {
        if kind == NLMSG_ERROR.to_ne_bytes() {
            if code != 0 {
                return Err(io::Error::from_raw_os_error(
                    code.cast_signed().wrapping_neg(),
                ));
            }
            count += 1;
        }
        let next = usize::try_from(length)
            .unwrap_or(usize::MAX)
            .next_multiple_of(4)
            .max(HEADER);
        bytes = bytes.get(next..).unwrap_or_default();
    }
    Ok(count)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn message(kind: u16, flags: u16, resource: u16, attributes: &[u8]) -> Vec<u8> {
    let family = if resource == 0 { NFPROTO_IPV4 } else { 0 };
    let length = u32::try_from(HEADER + 4 + attributes.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((REQUEST | flags).to_ne_bytes());
    // Sequence and port: one batch, one sender.
    message.extend([0; 8]);
    message.extend([family, 0]);
    message.extend(resource.to_be_bytes());
    message.extend(attributes);
    message
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
    attribute(NESTED | kind, &parts.concat())
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

/// A base chain of type `nat` at a hook, with the priority of destination NAT.
fn chain(name: &str, hook: u32) -> Vec<u8> {
    let hook = nested(4, &[number(1, hook), number(2, (-100_i32).cast_unsigned())]);
    [text(1, TABLE), text(3, name), hook, text(7, "nat")].concat()
}

fn rule(chain: &str, expressions: &[Vec<u8>]) -> Vec<u8> {
    [text(1, TABLE), text(2, chain), nested(4, expressions)].concat()
}

fn expression(name: &str, parts: &[Vec<u8>]) -> Vec<u8> {
    nested(1, &[text(1, name), nested(2, parts)])
}

fn data(kind: u16, value: &[u8]) -> Vec<u8> {
    nested(kind, &[attribute(1, value)])
}

fn meta(key: u32) -> Vec<u8> {
    expression("meta", &[number(1, REGISTER), number(2, key)])
}

/// The operator is 0 for equal and 1 for not equal.
fn compare(operator: u32, value: &[u8]) -> Vec<u8> {
    expression(
        "cmp",
        &[number(1, REGISTER), number(2, operator), data(3, value)],
    )
}

fn payload(base: u32, offset: u32, length: u32) -> Vec<u8> {
    expression(
        "payload",
        &[
            number(1, REGISTER),
            number(2, base),
            number(3, offset),
            number(4, length),
        ],
    )
}

fn outside([from, to]: [u16; 2]) -> Vec<u8> {
    let (from, to) = (data(3, &from.to_be_bytes()), data(4, &to.to_be_bytes()));
    expression("range", &[number(1, REGISTER), number(2, 1), from, to])
}

fn immediate(port: u16) -> Vec<u8> {
    expression(
        "immediate",
        &[number(1, REGISTER), data(2, &port.to_be_bytes())],
    )
}

fn redirect() -> Vec<u8> {
    expression("redir", &[number(1, REGISTER)])
}
