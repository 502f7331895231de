//! Who may write: one process at a time, by compare-and-swap on a Lease (`flagger-leader-election`, as in Flagger).
//!
//! The times are shorter than Flagger's. A candidate honours the *holder's* `leaseDurationSeconds`, counted from its own
//! observation: clocks of two machines are never compared. The leader stops writing when it could not renew in time, and no write is
//! under way by the time another may lead.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

/// The Lease's name, as in Flagger.
const NAME: &str = "flagger-leader-election";
/// How long a holder that is not heard of is honoured.
const DURATION: Duration = Duration::from_secs(15);
/// How long after its last renewal a holder goes on writing.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// The time between two attempts.
const RETRY: Duration = Duration::from_secs(2);
/// The longest that an attempt may take.
const ATTEMPT: Duration = Duration::from_secs(4);

/// The right to write; cheap to ask for, right before each write.
#[derive(Clone, Debug)]
pub struct Leadership {
    until: Option<watch::Receiver<Instant>>,
}

impl Leadership {
    /// Without an election everyone may write.
    pub const fn always() -> Self {
        Self { until: None }
    }

    /// Whether a write may be sent now.
    pub fn may_write(&self) -> bool {
        self.until
            .as_ref()
            .is_none_or(|until| Instant::now() < *until.borrow())
    }
}

/// One candidate.
pub struct Candidate {
    api: Api<Lease>,
    identity: String,
    until: watch::Sender<Instant>,
}

/// What a candidate saw of the holder, and when it last saw it change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    holder: Option<String>,
    version: Option<String>,
    duration: Duration,
    since: Instant,
}

impl Candidate {
    /// A candidate under this identity, for the Lease of a namespace; and the right that it may come to have.
    pub fn new(client: Client, namespace: &str, identity: String) -> (Self, Leadership) {
        let (until, right) = watch::channel(Instant::now());
        (
            Self {
                api: Api::namespaced(client, namespace),
                identity,
                until,
            },
            Leadership { until: Some(right) },
        )
    }

    /// Returns when the Lease is ours.
    pub async fn acquire(&self) {
        let mut seen: Option<Seen> = None;
        loop {
            let started = Instant::now();
            match timeout(ATTEMPT, self.try_acquire(&mut seen)).await {
                Ok(Ok(true)) => {
                    self.until.send_replace(started + RENEW_DEADLINE);
                    info!("Acting as elected leader");
                    return;
                }
                Ok(Ok(false)) => {}
                Ok(Err(error)) => warn!("leader election: {error}"),
                Err(_) => warn!("leader election: the API server does not answer"),
            }
            sleep(RETRY).await;
        }
    }

    /// Renews; returns when the Lease is lost.
    pub async fn keep(&self) {
        loop {
            sleep(RETRY).await;
            let started = Instant::now();
            match timeout(ATTEMPT, self.renew()).await {
                Ok(Ok(true)) => drop(self.until.send_replace(started + RENEW_DEADLINE)),
                Ok(Ok(false)) => break,
                Ok(Err(error)) => warn!("leader election: {error}"),
                Err(_) => warn!("leader election: the API server does not answer"),
            }
            if Instant::now() >= *self.until.borrow() {
                break;
            }
        }
        self.until.send_replace(Instant::now());
        warn!("Leadership lost");
    }

    /// Gives the Lease back, so that the next leader need not wait.
    pub async fn release(&self) {
        let held = *self.until.borrow() > Instant::now();
        self.until.send_replace(Instant::now());
        if !held {
            return;
        }
        let given_back = timeout(ATTEMPT, async {
            let Some(mut lease) = self.api.get_opt(NAME).await? else {
                return Ok(());
            };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_ref() == Some(&self.identity) {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
                spec.renew_time = Some(MicroTime(jiff::Timestamp::now()));
                self.api
                    .replace(NAME, &PostParams::default(), &lease)
                    .await?;
            }
            Ok::<_, kube::Error>(())
        });
        if let Ok(Err(error)) = given_back.await {
            warn!("leader election: the lease cannot be given back: {error}");
        }
    }

    async fn try_acquire(&self, seen: &mut Option<Seen>) -> Result<bool, kube::Error> {
        let Some(lease) = self.api.get_opt(NAME).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(NAME.to_owned()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.held(None)),
            };
            return won(self.api.create(&PostParams::default(), &lease).await);
        };
        let now = Instant::now();
        let look = look(&lease, seen.as_ref(), now);
        let before = seen.replace(look.clone());
        if before.is_none_or(|before| before.holder != look.holder)
            && let Some(holder) = &look.holder
        {
            info!("Another instance has been elected as leader: {holder}");
        }
        if look
            .holder
            .as_ref()
            .is_some_and(|holder| *holder != self.identity)
            && now < look.since + look.duration
        {
            return Ok(false);
        }
        self.take(lease).await
    }

    async fn renew(&self) -> Result<bool, kube::Error> {
        let Some(lease) = self.api.get_opt(NAME).await? else {
            return Ok(false);
        };
        let holder = lease
            .spec
            .as_ref()
            .and_then(|spec| spec.holder_identity.as_ref());
        if holder != Some(&self.identity) {
            return Ok(false);
        }
        self.take(lease).await
    }

    /// The compare-and-swap: the Lease carries the resourceVersion that was read.
    async fn take(&self, mut lease: Lease) -> Result<bool, kube::Error> {
        lease.spec = Some(self.held(lease.spec.take()));
        won(self.api.replace(NAME, &PostParams::default(), &lease).await)
    }

    /// The Lease in our hands.
    fn held(&self, before: Option<LeaseSpec>) -> LeaseSpec {
        let now = Some(MicroTime(jiff::Timestamp::now()));
        let before = before.unwrap_or_default();
        let ours = before.holder_identity.as_ref() == Some(&self.identity);
        let transitions = before.lease_transitions.unwrap_or(0);
        let is_new = before.holder_identity.is_none();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if ours {
                before.acquire_time.clone()
            } else {
                now.clone()
            },
            renew_time: now,
            lease_transitions: Some(if ours || is_new {
                transitions
            } else {
                transitions + 1
            }),
            ..before
        }
    }
}

/// What is seen of a Lease; time counts from when it was first seen like this.
fn look(lease: &Lease, before: Option<&Seen>, now: Instant) -> Seen {
    let spec = lease.spec.clone().unwrap_or_default();
    let version = lease.metadata.resource_version.clone();
    let since = before
        .filter(|before| before.version == version)
        .map_or(now, |before| before.since);
    Seen {
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        version,
        duration: Duration::from_secs(
            spec.lease_duration_seconds
                .and_then(|s| u64::try_from(s).ok())
                .unwrap_or(0),
        ),
        since,
    }
}

/// A write that lost against another candidate's is no error.
fn won<T>(result: Result<T, kube::Error>) -> Result<bool, kube::Error> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

/// `<host name>_<uuid>`, as in Flagger.
pub fn identity() -> String {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    format!(
        "{}_{}",
        read("/proc/sys/kernel/hostname"),
        read("/proc/sys/kernel/random/uuid")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, version: &str, seconds: i32) -> Lease {
        Lease {
            metadata: ObjectMeta {
                resource_version: Some(version.to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                lease_duration_seconds: Some(seconds),
                ..LeaseSpec::default()
            }),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_is_honoured_for_its_own_duration_from_when_it_was_last_seen_to_renew() {
        let first = look(&lease("flagger", "1", 60), None, Instant::now());
        assert_eq!(
            first.duration,
            Duration::from_secs(60),
            "Flagger's own duration, not ours"
        );
        tokio::time::advance(Duration::from_secs(30)).await;
        let same = look(&lease("flagger", "1", 60), Some(&first), Instant::now());
        assert_eq!(same.since, first.since);
        let renewed = look(&lease("flagger", "2", 60), Some(&same), Instant::now());
        assert_eq!(renewed.since, Instant::now());
    }

    #[tokio::test(start_paused = true)]
    async fn the_right_to_write_ends_before_anyone_else_may_lead() {
        let (until, right) = watch::channel(Instant::now() + RENEW_DEADLINE);
        let leadership = Leadership { until: Some(right) };
        assert!(leadership.may_write());
        tokio::time::advance(RENEW_DEADLINE).await;
        assert!(!leadership.may_write());
        assert!(RENEW_DEADLINE + ATTEMPT < DURATION);
        drop(until);
    }
}
