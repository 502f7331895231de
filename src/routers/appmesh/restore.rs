//! The deletion of a Canary with `revertOnDeletion`: the objects of a user become what they were. Until ours are deleted with the Canary,
//! they lead to the apex Service. (Flagger leaves them leading to a primary that is deleted.)

use serde_json::{Value, json};

use super::{AppMesh, write};
use crate::{
    routers::adoption::before,
    snapshot::{Action, Kind, Snapshot, Weights, Write},
};

/// The fields that App Mesh's controller wrote, and whose change it refuses.
const READ_ONLY: [&str; 2] = ["awsName", "meshRef"];

impl AppMesh {
    /// The write of the next object that is not restored yet; `None` if all are.
    pub(super) fn next_restored(self, snapshot: &Snapshot) -> Option<Write> {
        self.restored_routes(snapshot)
            .or_else(|| self.restored_node(snapshot))
            .or_else(|| self.restored_service(snapshot))
    }

    /// The routes that are ours lead to the primary's VirtualNode only.
    fn restored_routes(self, snapshot: &Snapshot) -> Option<Write> {
        let (canary, live) = (&snapshot.canary, self.live(snapshot).ok()?);
        let now = self.routed(canary, live).ok()?;
        let mut wanted = live.clone();
        match before(live, canary, |object| self.routed(canary, object).is_ok()) {
            Some(before) => wanted = with_read_only(live, before),
            None if now == Weights::PRIMARY => return None,
            None => self.withdraw(canary, &mut wanted),
        }
        Some(self.replace(snapshot, wanted))
    }

    /// The VirtualNodes that are ours get the DNS name of the apex Service, behind which the target's pods are.
    fn restored_node(self, snapshot: &Snapshot) -> Option<Write> {
        let (canary, kind) = (&snapshot.canary, self.node_kind());
        self.nodes(canary).into_iter().find_map(|(node, service)| {
            let live = snapshot.object(kind, &node)?;
            let ours = self.host_of(canary, &service);
            let leads_to_us = |object: &Value| self.host(object) == Some(&ours);
            if !leads_to_us(live) {
                return None;
            }
            let mut wanted = live.clone();
            match before(live, canary, leads_to_us) {
                Some(before) => wanted = with_read_only(live, before),
                None => {
                    let apex = self.host_of(canary, canary.apex_name());
                    wanted["spec"]["serviceDiscovery"]["dns"][self.host_field()] = json!(apex);
                }
            }
            Some(write(snapshot, kind, &node, Action::Replace(wanted), ""))
        })
    }

    /// A VirtualService of the user gets its former provider.
    fn restored_service(self, snapshot: &Snapshot) -> Option<Write> {
        if self == Self::V1Beta1 {
            // In `v1beta1`, the VirtualService has the routes, and `restored_routes` restores it.
            return None;
        }
        let (canary, kind) = (&snapshot.canary, Kind::AppMeshService);
        let name = canary.apex_name();
        let live = snapshot.object(kind, name)?;
        let leads_to_us =
            |object: &Value| object["spec"]["provider"] == super::services::provider(name);
        let before = before(live, canary, leads_to_us).filter(|_| leads_to_us(live))?;
        let wanted = with_read_only(live, before);
        Some(write(snapshot, kind, name, Action::Replace(wanted), ""))
    }
}

/// The object as its user had it, with the fields that must not change.
fn with_read_only(live: &Value, mut before: Value) -> Value {
    for field in READ_ONLY {
        if let Some(value) = live.pointer(&format!("/spec/{field}")) {
            before["spec"][field] = value.clone();
        }
    }
    before
}
