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

use super::{clock, leadership::Leadership};

/// The Lease's name, as in Flagger.
pub const NAME: &str = "flagger-leader-election";
/// How long a holder that is not heard of is honoured.
const DURATION: Duration = Duration::from_secs(15);
/// How long after its last renewal a holder goes on writing.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// The time between two attempts.
const RETRY: Duration = Duration::from_secs(2);
/// Where less than this is left of the right to write, it is given up.
const LAST: Duration = Duration::from_millis(250);
/// The longest that an attempt may take.
const ATTEMPT: Duration = Duration::from_secs(4);

/// One candidate.
pub struct Candidate {
    api: Api<Lease>,
    identity: String,
    until: watch::Sender<Instant>,
}

/// What came of a renewal.
enum Renewal {
    Ours,
    Lost,
    /// Someone wrote between our look and our write: whoever edits the Lease by hand, or a write of our own whose answer was
    /// lost. The next look tells; until then the right to write is no longer than it was.
    Unclear,
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
            Leadership::until(right),
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
        let mut held = None;
        // To the end of the right to write and no longer: whoever asks then is told that nobody leads.
        let left = || {
            self.until
                .borrow()
                .saturating_duration_since(Instant::now())
        };
        loop {
            sleep(RETRY.min(left() / 2)).await;
            let started = Instant::now();
            match timeout(ATTEMPT.min(left()), self.renew(&mut held)).await {
                Ok(Ok(Renewal::Ours)) => drop(self.until.send_replace(started + RENEW_DEADLINE)),
                Ok(Ok(Renewal::Lost)) => break,
                Ok(Ok(Renewal::Unclear)) => {}
                Ok(Err(error)) => warn!("leader election: {error}"),
                Err(_) => warn!("leader election: the API server does not answer"),
            }
            if left() < LAST {
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
                spec.renew_time = Some(MicroTime(clock::now()));
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
            let created = won(self.api.create(&PostParams::default(), &lease).await)?;
            return Ok(created.is_some());
        };
        let now = Instant::now();
        let reconcile = reconcile(&lease, seen.as_ref(), now);
        let before = seen.replace(reconcile.clone());
        if before.is_none_or(|before| before.holder != reconcile.holder)
            && let Some(holder) = &reconcile.holder
        {
            info!("Another instance has been elected as leader: {holder}");
        }
        if reconcile
            .holder
            .as_ref()
            .is_some_and(|holder| *holder != self.identity)
            && now < reconcile.since + reconcile.duration
        {
            return Ok(false);
        }
        Ok(self.take(lease).await?.is_some())
    }

    /// One write; what it has to know of the Lease it has from the write before, as long as nobody else writes.
    async fn renew(&self, held: &mut Option<Lease>) -> Result<Renewal, kube::Error> {
        if let Some(mut lease) = held.take() {
            lease.spec = Some(self.held(lease.spec.take()));
            match self.api.replace(NAME, &PostParams::default(), &lease).await {
                Ok(lease) => {
                    *held = Some(lease);
                    return Ok(Renewal::Ours);
                }
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => return Err(error),
            }
        }
        let Some(lease) = self.api.get_opt(NAME).await? else {
            return Ok(Renewal::Lost);
        };
        let holder = lease
            .spec
            .as_ref()
            .and_then(|spec| spec.holder_identity.as_ref());
        if holder != Some(&self.identity) {
            return Ok(Renewal::Lost);
        }
        *held = self.take(lease).await?;
        Ok(if held.is_some() {
            Renewal::Ours
        } else {
            Renewal::Unclear
        })
    }

    /// The compare-and-swap: the Lease carries the resourceVersion that was read. The Lease as it is then, if it is ours.
    async fn take(&self, mut lease: Lease) -> Result<Option<Lease>, kube::Error> {
        lease.spec = Some(self.held(lease.spec.take()));
        won(self.api.replace(NAME, &PostParams::default(), &lease).await)
    }

    /// The Lease in our hands.
    fn held(&self, before: Option<LeaseSpec>) -> LeaseSpec {
        let now = Some(MicroTime(clock::now()));
        let is_new = before.is_none();
        let before = before.unwrap_or_default();
        let ours = before.holder_identity.as_ref() == Some(&self.identity);
        let transitions = before.lease_transitions.unwrap_or(0);
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
fn reconcile(lease: &Lease, before: Option<&Seen>, now: Instant) -> Seen {
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
fn won<T>(result: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match result {
        Ok(written) => Ok(Some(written)),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
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
    use std::sync::{Arc, Mutex};

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
        let first = reconcile(&lease("flagger", "1", 60), None, Instant::now());
        assert_eq!(
            first.duration,
            Duration::from_secs(60),
            "Flagger's own duration, not ours"
        );
        tokio::time::advance(Duration::from_secs(30)).await;
        let same = reconcile(&lease("flagger", "1", 60), Some(&first), Instant::now());
        assert_eq!(same.since, first.since);
        let renewed = reconcile(&lease("flagger", "2", 60), Some(&same), Instant::now());
        assert_eq!(renewed.since, Instant::now());
    }

    #[tokio::test(start_paused = true)]
    async fn the_right_to_write_ends_before_anyone_else_may_lead() {
        let (until, right) = watch::channel(Instant::now() + RENEW_DEADLINE);
        let leadership = Leadership::until(right);
        assert!(leadership.may_write());
        tokio::time::advance(RENEW_DEADLINE).await;
        assert!(!leadership.may_write());
        assert!(RENEW_DEADLINE + ATTEMPT < DURATION);
        drop(until);
    }

    /// An API server that knows one Lease, and lets a write through only if it carries the version that was read.
    #[derive(Clone, Default)]
    struct Server(Arc<Mutex<(Option<Lease>, u64)>>);

    /// What happens to a candidate's calls.
    #[derive(Clone, Copy, PartialEq)]
    enum Line {
        Good,
        /// No call arrives, none is answered.
        Cut,
        /// Writes arrive, their answers do not.
        Deaf,
        /// Someone else writes before each write.
        Crowded,
    }

    impl Server {
        fn stored(&self) -> LeaseSpec {
            let lease = self.0.lock().unwrap().0.clone();
            lease.unwrap().spec.unwrap()
        }

        fn store(&self, mut lease: Lease) -> Lease {
            let mut stored = self.0.lock().unwrap();
            stored.1 += 1;
            lease.metadata.resource_version = Some(stored.1.to_string());
            stored.0 = Some(lease.clone());
            lease
        }

        /// Status and body of the answer.
        fn answer(&self, method: &http::Method, body: &[u8], line: Line) -> (u16, String) {
            let now = self.0.lock().unwrap().0.clone();
            let refused = |code: u16, reason: &str| {
                let status = serde_json::json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                    "reason": reason, "message": reason});
                (code, status.to_string())
            };
            let json = |lease: &Lease| (200, serde_json::to_string(lease).unwrap());
            if *method == http::Method::GET {
                let answer = now.as_ref().map_or_else(|| refused(404, "NotFound"), json);
                if let (Line::Crowded, Some(lease)) = (line, now) {
                    self.store(lease);
                }
                return answer;
            }
            let wanted: Lease = serde_json::from_slice(body).unwrap();
            let now = match (line, now) {
                (Line::Crowded, Some(lease)) => Some(self.store(lease)),
                (_, now) => now,
            };
            let version = now.and_then(|lease| lease.metadata.resource_version);
            if wanted.metadata.resource_version != version {
                return refused(409, "Conflict");
            }
            json(&self.store(wanted))
        }

        /// A candidate, its right to write, and its line to this server.
        fn candidate(&self, name: &str) -> (Arc<Candidate>, Leadership, Arc<Mutex<Line>>) {
            let line = Arc::new(Mutex::new(Line::Good));
            let (server, of_calls) = (self.clone(), line.clone());
            let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
                let (server, line) = (server.clone(), *of_calls.lock().unwrap());
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect_bytes().await?;
                    if line == Line::Cut {
                        return std::future::pending().await;
                    }
                    let (status, text) = server.answer(&head.method, &body, line);
                    if line == Line::Deaf && head.method != http::Method::GET {
                        return std::future::pending().await;
                    }
                    let answer = http::Response::builder().status(status);
                    let body = kube::client::Body::from(text.into_bytes());
                    Ok::<_, kube::Error>(answer.body(body).unwrap())
                }
            });
            let client = Client::new(service, "default");
            let (candidate, right) = Candidate::new(client, "flagger-system", name.to_owned());
            (Arc::new(candidate), right, line)
        }
    }

    /// Stands for election over and over, as the process does.
    fn stand(candidate: &Arc<Candidate>) {
        let candidate = candidate.clone();
        tokio::spawn(async move {
            loop {
                candidate.acquire().await;
                candidate.keep().await;
            }
        });
    }

    /// Lets time pass in small steps; says when `until` came true first. At no time may both write.
    async fn watch(
        rights: [&Leadership; 2],
        time: Duration,
        until: impl Fn() -> bool,
    ) -> Option<Duration> {
        let start = Instant::now();
        while start.elapsed() < time {
            sleep(Duration::from_millis(50)).await;
            assert!(!rights.iter().all(|right| right.may_write()));
            if until() {
                return Some(start.elapsed());
            }
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn one_leads_and_the_other_only_when_the_first_cannot_renew() {
        let server = Server::default();
        let (a, a_may, a_line) = server.candidate("a");
        let (b, b_may, _) = server.candidate("b");
        stand(&a);
        let both = [&a_may, &b_may];
        assert!(watch(both, RETRY, || a_may.may_write()).await.is_some());
        stand(&b);
        let minute = Duration::from_secs(60);
        assert_eq!(watch(both, minute, || b_may.may_write()).await, None);
        assert!(a_may.may_write());

        *a_line.lock().unwrap() = Line::Cut;
        let stopped = watch(both, minute, || !a_may.may_write()).await.unwrap();
        let followed = watch(both, minute, || b_may.may_write()).await.unwrap();
        assert!(stopped <= RENEW_DEADLINE && stopped + followed <= DURATION + 2 * RETRY);
        // A write that was sent at the last moment has ended when the other begins.
        assert!(followed >= ATTEMPT, "{followed:?}");
        let spec = server.stored();
        assert_eq!(
            (spec.holder_identity.as_deref(), spec.lease_transitions),
            (Some("b"), Some(1))
        );

        *a_line.lock().unwrap() = Line::Good;
        assert_eq!(watch(both, minute, || a_may.may_write()).await, None);
        assert_eq!(server.stored().acquire_time, spec.acquire_time);
    }

    #[tokio::test(start_paused = true)]
    async fn flaggers_own_lease_is_honoured_for_a_minute_whatever_its_clock_says() {
        for renewed in ["2001-01-01T00:00:00Z", "2099-01-01T00:00:00Z"] {
            let server = Server::default();
            let mut lease = lease("flagger", "", 60);
            let spec = lease.spec.as_mut().unwrap();
            spec.renew_time = Some(MicroTime(renewed.parse().unwrap()));
            spec.lease_transitions = Some(3);
            server.store(lease);
            let (a, right, _) = server.candidate("a");
            stand(&a);
            let nobody = Leadership::never();
            let taken = watch([&right, &nobody], Duration::from_secs(90), || {
                right.may_write()
            });
            let taken = taken.await.unwrap().as_secs();
            assert!((60..=63).contains(&taken), "{renewed}: {taken} s");
            assert_eq!(server.stored().lease_transitions, Some(4));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_given_back_is_taken_at_once() {
        let server = Server::default();
        let (a, a_may, _) = server.candidate("a");
        let (b, b_may, _) = server.candidate("b");
        a.acquire().await;
        stand(&b);
        sleep(RETRY).await;
        a.release().await;
        assert!(!a_may.may_write());
        assert_eq!(server.stored().holder_identity.as_deref(), Some(""));
        let taken = watch([&a_may, &b_may], DURATION, || b_may.may_write()).await;
        assert!(taken.unwrap() <= RETRY + Duration::from_millis(50));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_without_a_holder_changes_hands_too() {
        let server = Server::default();
        let mut lease = lease("", "", 1);
        let spec = lease.spec.as_mut().unwrap();
        // As newer versions of Go's client give it back.
        spec.holder_identity = None;
        spec.lease_transitions = Some(3);
        server.store(lease);
        server.candidate("a").0.acquire().await;
        assert_eq!(server.stored().lease_transitions, Some(4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_in_someone_elses_way_is_tried_again() {
        let server = Server::default();
        let (a, right, line) = server.candidate("a");
        a.acquire().await;
        let keeping = tokio::spawn(async move { a.keep().await });
        for trouble in [Line::Crowded, Line::Deaf] {
            *line.lock().unwrap() = trouble;
            sleep(2 * RETRY).await;
            *line.lock().unwrap() = Line::Good;
            sleep(DURATION).await;
            assert!(!keeping.is_finished() && right.may_write());
        }
        *line.lock().unwrap() = Line::Crowded;
        sleep(DURATION).await;
        assert!(keeping.is_finished() && !right.may_write());
    }
}
