//! The cell's network: a bridge with the node on it, and a network namespace for each pod.

use std::{
    io::Write,
    net::Ipv4Addr,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
};

use crate::Error;

/// The node's address, seen from each pod.
pub const NODE_IP: &str = "10.244.0.1";
/// The addresses of Services.
pub const SERVICES: &str = "10.96.0.0/16";
/// The address of Service `kubernetes`: the first of [`SERVICES`].
pub const KUBERNETES_IP: &str = "10.96.0.1";
/// The address of DNS.
pub const DNS_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The API server's port on the node.
pub const API_PORT: u16 = 6443;

/// Sets up the node's side of the network, in a new network namespace.
pub fn set_up() -> Result<(), Error> {
    ip(&format!(
        // A bridge without a fixed MAC address takes the lowest one of its ports. When that pod is deleted, the address changes, and
        // connections between other pods stall until their neighbour caches expire: 53 s when measured.
        "link add cni0 address 02:00:0a:f4:00:01 type bridge\n\
         addr add {NODE_IP}/16 dev cni0\n\
         link set cni0 up\n\
         link set lo up\n\
         route add local {SERVICES} dev lo\n"
    ))
}

/// A pod's network namespace. Dropping it removes it.
pub struct PodNetwork {
    /// Its name under `/run/netns`.
    pub name: String,
    /// The pod's address.
    pub address: Ipv4Addr,
}

impl PodNetwork {
    /// Creates a network namespace with the next address. Addresses are not reused.
    pub fn new() -> Result<Self, Error> {
        static NEXT: AtomicU16 = AtomicU16::new(2);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let [high, low] = number.to_be_bytes();
        let address = Ipv4Addr::new(10, 244, high, low);
        let name = format!("pod{number}");
        ip(&format!(
            "netns add {name}\n\
             link add v{number} type veth peer name eth0 netns {name}\n\
             link set v{number} master cni0 up\n"
        ))?;
        let pod = Self { name, address };
        pod.ip(&format!(
            "addr add {address}/16 dev eth0\n\
             link set eth0 up\n\
             link set lo up\n\
             route add default via {NODE_IP}\n"
        ))?;
        Ok(pod)
    }

    fn ip(&self, commands: &str) -> Result<(), Error> {
        batch(&["-netns", &self.name, "-batch", "-"], commands)
    }
}

impl Drop for PodNetwork {
    fn drop(&mut self) {
        // This deletes the pod's half of the link too. The namespace may be deleted already.
        let _ = ip(&format!("netns delete {}\n", self.name));
    }
}

fn ip(commands: &str) -> Result<(), Error> {
    batch(&["-batch", "-"], commands)
}

fn batch(args: &[&str], commands: &str) -> Result<(), Error> {
    let io = |e| Error::io(Path::new("ip (of iproute2)"), e);
    let mut child = Command::new("ip")
        .args(args)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(commands.as_bytes()).map_err(io)?;
    }
    let output = child.wait_with_output().map_err(io)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Command {
        command: format!("ip {}", args.join(" ")),
        output: format!("{}of:\n{commands}", String::from_utf8_lossy(&output.stderr)),
    })
}
