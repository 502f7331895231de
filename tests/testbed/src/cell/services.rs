//! Services of a cell: a TCP relay on each ClusterIP, and DNS, in place of kube-proxy and CoreDNS.

use std::{
    collections::{BTreeMap, HashMap},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::Path,
    time::{Duration, SystemTime},
};

use futures::{Stream, StreamExt};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api, Client, ResourceExt,
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        watcher,
    },
};
use simple_dns::{
    CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE, rdata::RData,
};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinHandle,
};

use super::network;
use crate::Error;

const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The connect timeout to an endpoint. It is long, so that a busy machine loses no requests; callers have timeouts of their own.
const CONNECT: Duration = Duration::from_secs(60);

/// The Services and EndpointSlices of the cluster.
#[derive(Clone)]
struct Known {
    services: Store<Service>,
    slices: Store<EndpointSlice>,
}

/// Serves until the process ends.
pub async fn serve(client: Client) -> Result<(), Error> {
    let (services, service_writer) = reflector::store();
    let (slices, slice_writer) = reflector::store();
    let watch = watcher(
        Api::<Service>::all(client.clone()),
        watcher::Config::default(),
    )
    .default_backoff()
    .reflect(service_writer)
    .touched_objects();
    let slice_watch = watcher(
        Api::<EndpointSlice>::all(client),
        watcher::Config::default(),
    )
    .default_backoff()
    .reflect(slice_writer)
    .for_each(async |_| ());
    let known = Known { services, slices };
    let dns = SocketAddr::from((network::DNS_IP, 53));
    let dns = UdpSocket::bind(dns)
        .await
        .map_err(|e| Error::io(Path::new("DNS"), e))?;
    tokio::join!(
        slice_watch,
        relay_all(known.clone(), watch),
        answer(known, dns)
    );
    Ok(())
}

/// Keeps one listener for each address of each Service.
async fn relay_all<E>(known: Known, changes: impl Stream<Item = Result<Service, E>>) {
    let mut listeners: HashMap<SocketAddrV4, JoinHandle<()>> = HashMap::new();
    let mut changes = std::pin::pin!(changes);
    while changes.next().await.is_some() {
        let wanted = known.addresses();
        listeners.retain(|address, task| {
            let keep = wanted.contains_key(address) && !task.is_finished();
            if !keep {
                task.abort();
            }
            keep
        });
        for address in wanted.into_keys() {
            listeners
                .entry(address)
                .or_insert_with(|| tokio::spawn(relay(known.clone(), address)));
        }
    }
}

/// A port of a Service.
#[derive(Clone, Debug)]
struct Target {
    namespace: String,
    service: String,
    port: Option<String>,
}

impl Known {
    fn addresses(&self) -> BTreeMap<SocketAddrV4, Target> {
        let mut addresses = BTreeMap::new();
        for service in self.services.state() {
            let spec = service.spec.clone().unwrap_or_default();
            let Some(ip) = spec.cluster_ip.as_deref().and_then(|ip| ip.parse().ok()) else {
                continue;
            };
            for port in spec.ports.into_iter().flatten() {
                let Ok(number) = u16::try_from(port.port) else {
                    continue;
                };
                if port.protocol.is_none_or(|protocol| protocol == "TCP") {
                    let target = Target {
                        namespace: service.namespace().unwrap_or_default(),
                        service: service.name_any(),
                        port: port.name,
                    };
                    addresses.insert(SocketAddrV4::new(ip, number), target);
                }
            }
        }
        addresses
    }

    /// The ready addresses of a Service, for one of its ports.
    fn endpoints(&self, target: &Target) -> Vec<SocketAddrV4> {
        let of = |slice: &EndpointSlice| {
            slice.namespace().as_deref() == Some(&target.namespace)
                && slice.labels().get(SERVICE_NAME) == Some(&target.service)
        };
        let mut found = Vec::new();
        for slice in self.slices.state().iter().filter(|slice| of(slice)) {
            let mut ports = slice.ports.iter().flatten();
            let named = |name: &Option<String>| {
                name.as_deref().unwrap_or_default() == target.port.as_deref().unwrap_or_default()
            };
            let port = ports
                .find(|port| named(&port.name))
                .and_then(|port| port.port);
            let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else {
                continue;
            };
            let ready = slice.endpoints.iter().flatten().filter(|endpoint| {
                let conditions = endpoint.conditions.as_ref();
                conditions.and_then(|conditions| conditions.ready) != Some(false)
            });
            let ips = ready.flat_map(|endpoint| &endpoint.addresses);
            found.extend(ips.filter_map(|ip| Some(SocketAddrV4::new(ip.parse().ok()?, port))));
        }
        found
    }
}

async fn relay(known: Known, address: SocketAddrV4) {
    let Ok(listener) = TcpListener::bind(address).await else {
        return;
    };
    while let Ok((mut from, _)) = listener.accept().await {
        let targets = known.addresses();
        let target = targets.get(&address);
        let endpoints = target
            .map(|target| known.endpoints(target))
            .unwrap_or_default();
        tokio::spawn(async move {
            // Without an endpoint that answers, the caller's connection is closed at once.
            let Some(to) = pick(&endpoints) else { return };
            if let Ok(Ok(mut to)) = tokio::time::timeout(CONNECT, TcpStream::connect(to)).await {
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            }
        });
    }
}

/// A random element: the clock's last digits are random enough to spread connections.
fn pick<T: Copy>(of: &[T]) -> Option<T> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()?;
    let number = usize::try_from(now.subsec_nanos() / 128).ok()?;
    of.get(number.checked_rem(of.len())?).copied()
}

async fn answer(known: Known, socket: UdpSocket) {
    let mut buffer = [0; 1500];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        if let Some(answer) = buffer.get(..length).and_then(|query| known.answer(query)) {
            // The client retries if the answer is lost.
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

impl Known {
    fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let query = Packet::parse(query).ok()?;
        let question = query.questions.first()?;
        let name = question.qname.to_string();
        let addresses = self.resolve(&name);
        let mut reply = Packet::new_reply(query.id());
        reply.set_flags(PacketFlag::RECURSION_AVAILABLE | PacketFlag::AUTHORITATIVE_ANSWER);
        if addresses.is_none() {
            *reply.rcode_mut() = RCODE::NameError;
        }
        if question.qtype == QTYPE::TYPE(TYPE::A) {
            for address in addresses.into_iter().flatten() {
                let name = Name::new(&name).ok()?.into_owned();
                let data = RData::A(address.into());
                reply
                    .answers
                    .push(ResourceRecord::new(name, CLASS::IN, 5, data));
            }
        }
        reply.questions.push(question.clone());
        reply.build_bytes_vec().ok()
    }

    /// Resolves `SERVICE.NAMESPACE.svc.cluster.local`; a headless Service resolves to its ready addresses. `None` if the name does not
    /// exist.
    fn resolve(&self, name: &str) -> Option<Vec<Ipv4Addr>> {
        let name = name.to_ascii_lowercase();
        let (service, namespace) = name.strip_suffix(".svc.cluster.local")?.split_once('.')?;
        let key = reflector::ObjectRef::new(service).within(namespace);
        let spec = self.services.get(&key)?.spec.clone()?;
        if let Some(ip) = spec.cluster_ip.as_deref().and_then(|ip| ip.parse().ok()) {
            return Some(vec![ip]);
        }
        let port = spec
            .ports
            .into_iter()
            .flatten()
            .next()
            .and_then(|port| port.name);
        let target = Target {
            namespace: namespace.to_owned(),
            service: service.to_owned(),
            port,
        };
        Some(
            self.endpoints(&target)
                .iter()
                .map(|address| *address.ip())
                .collect(),
        )
    }
}
