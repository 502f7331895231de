use std::sync::{Arc, Mutex};

use super::*;
use crate::shell::{api_server::request::WRITE_DEADLINE, lock::lock};

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
async fn a_holder_is_honoured_for_its_own_duration_since_its_last_observed_renewal() {
    let first = observe(&lease("flagger", "1", 60), None, Instant::now());
    assert_eq!(
        first.duration,
        Duration::from_secs(60),
        "Flagger's own duration, not ours"
    );
    tokio::time::advance(Duration::from_secs(30)).await;
    let same = observe(&lease("flagger", "1", 60), Some(&first), Instant::now());
    assert_eq!(same.since, first.since);
    let renewed = observe(&lease("flagger", "2", 60), Some(&same), Instant::now());
    assert_eq!(renewed.since, Instant::now());
}

#[tokio::test(start_paused = true)]
async fn the_right_to_write_ends_before_another_process_may_lead() {
    let (until, right) = watch::channel(Instant::now() + RENEW_DEADLINE);
    let leadership = Leadership::until(right);
    assert!(leadership.may_write());
    tokio::time::advance(RENEW_DEADLINE).await;
    assert!(!leadership.may_write());
    assert!(RENEW_DEADLINE + ATTEMPT < DURATION);
    assert!(RENEW_DEADLINE + WRITE_DEADLINE < DURATION);
    drop(until);
}

/// An API server with one Lease. It accepts a write only if the write carries the current resourceVersion.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<(Option<Lease>, u64)>>);

/// The state of the connection between a candidate and the server.
#[derive(Clone, Copy, PartialEq)]
enum Link {
    Good,
    /// No request arrives.
    Cut,
    /// Writes arrive, their answers do not.
    AnswersLost,
    /// Another process writes before each write.
    Contended,
}

impl Server {
    fn stored(&self) -> LeaseSpec {
        let lease = lock(&self.0).0.clone();
        lease.unwrap().spec.unwrap()
    }

    fn store(&self, mut lease: Lease) -> Lease {
        let mut stored = lock(&self.0);
        stored.1 += 1;
        lease.metadata.resource_version = Some(stored.1.to_string());
        stored.0 = Some(lease.clone());
        lease
    }

    /// Returns status and body of the answer.
    fn answer(&self, method: &http::Method, body: &[u8], link: Link) -> (u16, String) {
        let now = lock(&self.0).0.clone();
        let refused = |code: u16, reason: &str| {
            let status = serde_json::json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                "reason": reason, "message": reason});
            (code, status.to_string())
        };
        let json = |lease: &Lease| (200, serde_json::to_string(lease).unwrap());
        if *method == http::Method::GET {
            let answer = now.as_ref().map_or_else(|| refused(404, "NotFound"), json);
            if let (Link::Contended, Some(lease)) = (link, now) {
                self.store(lease);
            }
            return answer;
        }
        let wanted: Lease = serde_json::from_slice(body).unwrap();
        let now = match (link, now) {
            (Link::Contended, Some(lease)) => Some(self.store(lease)),
            (_, now) => now,
        };
        let version = now.and_then(|lease| lease.metadata.resource_version);
        if wanted.metadata.resource_version != version {
            return refused(409, "Conflict");
        }
        json(&self.store(wanted))
    }

    /// Returns a candidate, its right to write, and its link to this server.
    fn candidate(&self, name: &str) -> (Arc<Candidate>, Leadership, Arc<Mutex<Link>>) {
        let link = Arc::new(Mutex::new(Link::Good));
        let (server, of_requests) = (self.clone(), link.clone());
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let (server, link) = (server.clone(), *lock(&of_requests));
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await?;
                if link == Link::Cut {
                    return std::future::pending().await;
                }
                let (status, text) = server.answer(&head.method, &body, link);
                if link == Link::AnswersLost && head.method != http::Method::GET {
                    return std::future::pending().await;
                }
                let answer = http::Response::builder().status(status);
                let body = kube::client::Body::from(text.into_bytes());
                Ok::<_, kube::Error>(answer.body(body).unwrap())
            }
        });
        let client = Client::new(service, "default");
        let (candidate, right) = Candidate::new(client, "flagger-system", None, name.to_owned());
        (Arc::new(candidate), right, link)
    }
}

/// Competes for the Lease again and again, as the process does.
fn run_for_leader(candidate: &Arc<Candidate>) {
    let candidate = candidate.clone();
    tokio::spawn(async move {
        loop {
            candidate.acquire().await;
            candidate.keep().await;
        }
    });
}

/// Advances time in small steps. Returns the time after which `until` first held, and asserts that the two processes may never write at the
/// same time.
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
async fn the_second_candidate_leads_only_once_the_first_cannot_renew() {
    let server = Server::default();
    let (a, a_may, a_link) = server.candidate("a");
    let (b, b_may, _) = server.candidate("b");
    run_for_leader(&a);
    let both = [&a_may, &b_may];
    assert!(watch(both, RETRY, || a_may.may_write()).await.is_some());
    run_for_leader(&b);
    let minute = Duration::from_secs(60);
    assert_eq!(watch(both, minute, || b_may.may_write()).await, None);
    assert!(a_may.may_write());

    *lock(&a_link) = Link::Cut;
    let stopped = watch(both, minute, || !a_may.may_write()).await.unwrap();
    let followed = watch(both, minute, || b_may.may_write()).await.unwrap();
    assert!(stopped <= RENEW_DEADLINE && stopped + followed <= DURATION + 2 * RETRY);
    // Even a write that the first process sent at the last moment has ended when the other process begins.
    assert!(followed >= ATTEMPT, "{followed:?}");
    let spec = server.stored();
    assert_eq!(
        (spec.holder_identity.as_deref(), spec.lease_transitions),
        (Some("b"), Some(1))
    );

    *lock(&a_link) = Link::Good;
    assert_eq!(watch(both, minute, || a_may.may_write()).await, None);
    assert_eq!(server.stored().acquire_time, spec.acquire_time);
}

#[tokio::test(start_paused = true)]
async fn a_lease_held_by_flagger_is_respected_for_a_minute_even_if_its_clock_is_wrong() {
    for renewed in ["2001-01-01T00:00:00Z", "2099-01-01T00:00:00Z"] {
        let server = Server::default();
        let mut lease = lease("flagger", "", 60);
        let spec = lease.spec.as_mut().unwrap();
        spec.renew_time = Some(MicroTime(renewed.parse().unwrap()));
        spec.lease_transitions = Some(3);
        server.store(lease);
        let (a, right, _) = server.candidate("a");
        run_for_leader(&a);
        let no_right = Leadership::never();
        let taken = watch([&right, &no_right], Duration::from_secs(90), || {
            right.may_write()
        });
        let taken = taken.await.unwrap().as_secs();
        assert!((60..=63).contains(&taken), "{renewed}: {taken} s");
        assert_eq!(server.stored().lease_transitions, Some(4));
    }
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_taken_at_once() {
    let server = Server::default();
    let (a, a_may, _) = server.candidate("a");
    let (b, b_may, _) = server.candidate("b");
    a.acquire().await;
    run_for_leader(&b);
    sleep(RETRY).await;
    a.release().await;
    assert!(!a_may.may_write());
    assert_eq!(server.stored().holder_identity.as_deref(), Some(""));
    let taken = watch([&a_may, &b_may], DURATION, || b_may.may_write()).await;
    assert!(taken.unwrap() <= RETRY + Duration::from_millis(50));
}

#[tokio::test(start_paused = true)]
async fn taking_a_lease_without_a_holder_counts_as_a_transition() {
    let server = Server::default();
    let mut lease = lease("", "", 1);
    let spec = lease.spec.as_mut().unwrap();
    // Newer versions of Go's client release a Lease like this.
    spec.holder_identity = None;
    spec.lease_transitions = Some(3);
    server.store(lease);
    server.candidate("a").0.acquire().await;
    assert_eq!(server.stored().lease_transitions, Some(4));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_conflicts_with_another_write_is_retried() {
    let server = Server::default();
    let (a, right, link) = server.candidate("a");
    a.acquire().await;
    let keeping = tokio::spawn(async move { a.keep().await });
    for problem in [Link::Contended, Link::AnswersLost] {
        *lock(&link) = problem;
        sleep(2 * RETRY).await;
        *lock(&link) = Link::Good;
        sleep(DURATION).await;
        assert!(!keeping.is_finished() && right.may_write());
    }
    *lock(&link) = Link::Contended;
    sleep(DURATION).await;
    assert!(keeping.is_finished() && !right.may_write());
}

#[test]
fn two_processes_on_one_host_have_different_identities() {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let [first, second] = [identity(), identity()];
    assert_ne!(first, second);
    assert!(first.starts_with(&format!("{}_", host.trim())), "{first}");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_does_not_lead_releases_nothing() {
    let server = Server::default();
    let (a, _a_may, _) = server.candidate("a");
    let (b, _, _) = server.candidate("b");
    a.acquire().await;
    b.release().await;
    assert_eq!(server.stored().holder_identity.as_deref(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn a_lease_has_the_times_and_the_name_that_other_processes_read() {
    let server = Server::default();
    let (a, _a_may, _) = server.candidate("a");
    a.acquire().await;
    let acquired = server.stored();
    let keeping = tokio::spawn(async move { a.keep().await });
    sleep(2 * RETRY).await;
    let renewed = server.stored();
    assert_eq!(renewed.lease_duration_seconds, Some(15));
    assert_eq!(renewed.acquire_time, acquired.acquire_time);
    assert!(renewed.renew_time > acquired.renew_time, "{renewed:?}");
    assert_eq!(renewed.lease_transitions, Some(0));
    keeping.abort();
}
