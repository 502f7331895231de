//! Limits of the number of requests in a time.

use std::{collections::HashMap, net::IpAddr, sync::Mutex, time::Duration};

use tokio::time::Instant;

use crate::shell::lock::lock;

/// The maximum number of addresses that are remembered.
const ADDRESSES: usize = 4096;

/// How many requests may come at once, and how long it takes until one more may come.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The number of requests at once.
    pub burst: u32,
    /// The time until one more request may come.
    pub each: Duration,
}

/// The requests of one client so far: the instant at which the client has its whole burst again.
#[derive(Debug)]
pub struct Requests(Mutex<Instant>);

impl Default for Requests {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl Requests {
    /// Counts a request. Returns whether it may be served.
    pub fn take(&self, pace: Pace) -> bool {
        let mut full = lock(&self.0);
        let now = Instant::now();
        let after = (*full).max(now) + pace.each;
        let may = after <= now + pace.each * pace.burst;
        if may {
            *full = after;
        }
        may
    }

    fn is_idle(&self) -> bool {
        *lock(&self.0) <= Instant::now()
    }
}

/// The requests of each address.
#[derive(Debug, Default)]
pub struct ByAddress(Mutex<HashMap<IpAddr, Requests>>);

impl ByAddress {
    /// Counts a request from an address. Returns whether it may be served.
    pub fn take(&self, address: IpAddr, pace: Pace) -> bool {
        let mut all = lock(&self.0);
        if all.len() >= ADDRESSES {
            all.retain(|_, requests| !requests.is_idle());
        }
        // More addresses than this at the same time are an attack: no new one is served until the others are idle.
        if all.len() >= ADDRESSES && !all.contains_key(&address) {
            return false;
        }
        all.entry(address.to_canonical()).or_default().take(pace)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const PACE: Pace = Pace {
        burst: 3,
        each: Duration::from_secs(1),
    };

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_served_and_then_one_request_in_each_interval() {
        let requests = Requests::default();
        let served = || (0..5).filter(|_| requests.take(PACE)).count();
        assert_eq!(served(), 3);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(served(), 2);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(served(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn many_addresses_take_little_memory() {
        let all = ByAddress::default();
        let address =
            |number: usize| IpAddr::from(Ipv4Addr::from_bits(u32::try_from(number).unwrap()));
        let served = (0..2 * ADDRESSES).filter(|number| all.take(address(*number), PACE));
        assert_eq!(served.count(), ADDRESSES);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(all.take(address(9 * ADDRESSES), PACE));
        assert_eq!(lock(&all.0).len(), 1);
    }
}
