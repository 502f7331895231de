//! Linkerd's proxies, at the destination. They report Deployments only.

use super::{Observer, Series};
use crate::metrics::template::Model;

/// Linkerd's proxies.
#[derive(Clone, Copy, Debug)]
pub struct Linkerd;

impl Observer for Linkerd {
    fn series(&self, model: &Model) -> Series {
        let Model {
            namespace, target, ..
        } = model;
        let workload = format!("namespace=\"{namespace}\", deployment=~\"{target}\"");
        Series {
            selector: format!("{workload}, direction=\"inbound\""),
            succeeded: format!("{workload}, classification!=\"failure\", direction=\"inbound\""),
            requests: "response_total",
            durations: "response_latency_ms",
        }
    }
}
