//! The order in which calls get their places, if more calls wait than may run at the same time. A plain data structure.
//!
//! A free place goes to the namespace that has the fewest places, among equals to the call that has waited the longest. No namespace gets
//! more places than are still free. So namespaces with many waiting calls have equal shares as soon as their first calls have ended. A few
//! places stay free, so that a call of another namespace does not wait. The same holds for the places at one host.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The limits of the places.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The maximum number of places in total.
    pub total: usize,
    /// The maximum number of places of one namespace.
    pub namespace: usize,
    /// The maximum number of places at one host.
    pub host: usize,
}

/// The number of a call, in the order of arrival.
pub type Ticket = u64;

/// The namespace of a call, and the host that it goes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// The namespace.
    pub namespace: String,
    /// The host.
    pub host: String,
}

/// The calls that have a place, and those that wait for one.
#[derive(Debug)]
pub struct FairQueue {
    limits: Limits,
    last: Ticket,
    /// The number of places taken.
    taken: usize,
    /// The number of places taken at each host.
    hosts: HashMap<String, usize>,
    namespaces: HashMap<String, Namespace>,
}

#[derive(Debug, Default)]
struct Namespace {
    taken: usize,
    hosts: HashMap<String, Share>,
    /// For each host, the call that has waited the longest, oldest first.
    oldest: BTreeMap<Ticket, String>,
}

/// The calls of one namespace to one host.
#[derive(Debug, Default)]
struct Share {
    taken: usize,
    waiting: BTreeSet<Ticket>,
}

impl FairQueue {
    /// A queue without calls.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            last: 0,
            taken: 0,
            hosts: HashMap::new(),
            namespaces: HashMap::new(),
        }
    }

    /// Adds a call, which waits from now on.
    pub fn join(&mut self, claim: &Claim) -> Ticket {
        self.last += 1;
        let ticket = self.last;
        let namespace = self.namespaces.entry(claim.namespace.clone()).or_default();
        let share = namespace.hosts.entry(claim.host.clone()).or_default();
        if share.waiting.is_empty() {
            namespace.oldest.insert(ticket, claim.host.clone());
        }
        share.waiting.insert(ticket);
        ticket
    }

    /// Gives a place to the next call, and returns it. `None` if no call may have one now.
    pub fn admit(&mut self) -> Option<Ticket> {
        let free = self.limits.total.saturating_sub(self.taken);
        let most = self.limits.namespace.min(free);
        let waiting = self.namespaces.iter().filter_map(|(name, namespace)| {
            let (oldest, _) = namespace.oldest.first_key_value()?;
            (namespace.taken < most).then_some((namespace.taken, *oldest, name))
        });
        let mut waiting: Vec<_> = waiting.collect();
        waiting.sort_unstable();
        let (ticket, claim) = waiting.into_iter().find_map(|(_, _, name)| {
            let namespace = self.namespaces.get(name)?;
            let mut oldest = namespace.oldest.iter();
            let (ticket, host) = oldest.find(|(_, host)| self.may_call(namespace, host))?;
            let (namespace, host) = (name.clone(), host.clone());
            Some((*ticket, Claim { namespace, host }))
        })?;
        self.stop_waiting(&claim, ticket);
        self.taken += 1;
        *self.hosts.entry(claim.host.clone()).or_default() += 1;
        let namespace = self.namespaces.entry(claim.namespace).or_default();
        namespace.taken += 1;
        namespace.hosts.entry(claim.host).or_default().taken += 1;
        Some(ticket)
    }

    /// Removes a call, whether it has a place or waits for one.
    pub fn leave(&mut self, claim: &Claim, ticket: Ticket) {
        if !self.stop_waiting(claim, ticket) {
            self.taken -= 1;
            if let Some(taken) = self.hosts.get_mut(&claim.host) {
                *taken -= 1;
                if *taken == 0 {
                    self.hosts.remove(&claim.host);
                }
            }
            if let Some(namespace) = self.namespaces.get_mut(&claim.namespace) {
                namespace.taken -= 1;
                if let Some(share) = namespace.hosts.get_mut(&claim.host) {
                    share.taken -= 1;
                }
            }
        }
        self.forget_if_empty(claim);
    }

    /// Whether a namespace may have one more place at a host.
    fn may_call(&self, namespace: &Namespace, host: &str) -> bool {
        let taken = self.hosts.get(host).copied().unwrap_or_default();
        let own = namespace.hosts.get(host).map_or(0, |share| share.taken);
        own < self.limits.host.saturating_sub(taken)
    }

    /// Removes a call from those that wait. Returns whether it waited.
    fn stop_waiting(&mut self, claim: &Claim, ticket: Ticket) -> bool {
        let Some(namespace) = self.namespaces.get_mut(&claim.namespace) else {
            return false;
        };
        let Some(share) = namespace.hosts.get_mut(&claim.host) else {
            return false;
        };
        let waited = share.waiting.remove(&ticket);
        if waited
            && namespace.oldest.remove(&ticket).is_some()
            && let Some(next) = share.waiting.first()
        {
            namespace.oldest.insert(*next, claim.host.clone());
        }
        waited
    }

    fn forget_if_empty(&mut self, claim: &Claim) {
        let Some(namespace) = self.namespaces.get_mut(&claim.namespace) else {
            return;
        };
        let is_empty = |share: &Share| share.taken == 0 && share.waiting.is_empty();
        if namespace.hosts.get(&claim.host).is_some_and(is_empty) {
            namespace.hosts.remove(&claim.host);
        }
        if namespace.hosts.is_empty() {
            self.namespaces.remove(&claim.namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        total: 12,
        namespace: 5,
        host: 8,
    };

    fn claim(namespace: &str, host: &str) -> Claim {
        Claim {
            namespace: namespace.to_owned(),
            host: host.to_owned(),
        }
    }

    /// A queue and its calls: each with its claim.
    struct Calls {
        queue: FairQueue,
        claims: BTreeMap<Ticket, Claim>,
        /// The calls that have a place, in the order in which they got it.
        running: Vec<Ticket>,
    }

    impl Calls {
        fn new() -> Self {
            Self {
                queue: FairQueue::new(LIMITS),
                claims: BTreeMap::new(),
                running: Vec::new(),
            }
        }

        /// Adds calls and admits all that may run.
        fn add(&mut self, calls: usize, namespace: &str, host: &str) -> Vec<Ticket> {
            let claim = claim(namespace, host);
            let tickets: Vec<_> = (0..calls).map(|_| self.queue.join(&claim)).collect();
            let claims = tickets.iter().map(|ticket| (*ticket, claim.clone()));
            self.claims.extend(claims);
            self.admit();
            tickets
        }

        fn admit(&mut self) -> Vec<Ticket> {
            let admitted: Vec<_> = std::iter::from_fn(|| self.queue.admit()).collect();
            self.running.extend(&admitted);
            admitted
        }

        /// Ends a call. Returns the calls that get a place.
        fn end(&mut self, ticket: Ticket) -> Vec<Ticket> {
            self.running.retain(|running| *running != ticket);
            let claim = self.claims.remove(&ticket).unwrap();
            self.queue.leave(&claim, ticket);
            self.admit()
        }

        fn running(&self, namespace: &str) -> Vec<Ticket> {
            let of = |ticket: &&Ticket| self.claims[*ticket].namespace == namespace;
            self.running.iter().filter(of).copied().collect()
        }
    }

    #[test]
    fn a_namespace_has_at_most_its_limit_and_at_most_as_many_as_are_free() {
        let mut calls = Calls::new();
        calls.add(100, "a", "h1");
        assert_eq!(calls.running("a").len(), 4, "half of the host's eight");
        calls.add(100, "a", "h2");
        assert_eq!(calls.running("a").len(), 5, "the limit");
        for namespace in ["b", "c", "d", "e"] {
            calls.add(100, namespace, namespace);
        }
        let counts = ["a", "b", "c", "d", "e"].map(|of| calls.running(of).len());
        assert_eq!(counts, [5, 4, 2, 1, 0]);
    }

    #[test]
    fn a_free_place_goes_to_the_namespace_with_the_fewest_and_then_to_the_oldest_call() {
        let mut calls = Calls::new();
        for namespace in ["a", "b", "c", "d", "e"] {
            calls.add(100, namespace, namespace);
        }
        // The namespaces have 4, 4, 2, 1 and 1 places.
        let counts = |calls: &Calls| ["a", "b", "c", "d", "e"].map(|of| calls.running(of).len());
        let before = counts(&calls);
        assert_eq!(before.iter().sum::<usize>(), 12, "{before:?}");
        let hungry = before.iter().position(|count| *count == 1).unwrap();
        let first = calls.running("a")[0];
        assert!(
            calls.end(first).is_empty(),
            "one place is free, and each has one"
        );
        let second = calls.running("a")[0];
        let admitted = calls.end(second);
        let namespace = &calls.claims[&admitted[0]].namespace;
        assert_eq!(namespace, ["a", "b", "c", "d", "e"][hungry]);
    }

    #[test]
    fn a_host_at_its_limit_holds_up_no_call_to_another_host() {
        let mut calls = Calls::new();
        let waiting = calls.add(100, "a", "slow");
        let other = calls.add(1, "a", "fast");
        assert!(calls.running("a").contains(&other[0]));
        assert!(!calls.running("a").contains(&waiting[4]));
        // At the slow host, `b` gets a place although many calls of `a` wait.
        let late = calls.add(1, "b", "slow");
        assert!(calls.running("b").contains(&late[0]));
    }

    #[test]
    fn a_call_that_stops_waiting_takes_no_place_and_leaves_nothing() {
        let mut calls = Calls::new();
        let all = calls.add(8, "a", "h");
        assert!(calls.end(all[4]).is_empty(), "it waited");
        assert_eq!(calls.end(all[0]), [all[5]], "the next one");
        for ticket in calls.claims.clone().into_keys() {
            calls.end(ticket);
        }
        let FairQueue {
            taken,
            hosts,
            namespaces,
            ..
        } = calls.queue;
        assert_eq!((taken, hosts.len(), namespaces.len()), (0, 0, 0));
    }

    #[test]
    fn a_namespace_that_asks_for_little_never_waits_for_those_that_ask_for_everything() {
        let mut calls = Calls {
            queue: FairQueue::new(Limits {
                total: 256,
                namespace: 64,
                host: 64,
            }),
            ..Calls::new()
        };
        for n in 0..50 {
            calls.add(500, &format!("hostile-{n}"), &format!("host-{}", n % 7));
        }
        // The first ones have taken all places.
        assert_eq!(calls.running.len(), 256);
        for _ in 0..2 * 256 {
            let oldest = *calls.running.first().unwrap();
            calls.end(oldest);
        }
        let counts = (0..50).map(|n| calls.running(&format!("hostile-{n}")).len());
        assert_eq!(counts.collect::<BTreeSet<_>>(), [5, 6].into());
        let good = calls.add(1, "good", "prometheus");
        assert_eq!(calls.running("good"), good);
    }
}
