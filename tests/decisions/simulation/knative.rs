//! Simulates Knative: it creates a Revision for each new template, and reports the traffic of the spec in the status.

use flagger_rs::snapshot::{Kind, knative};
use serde_json::{Value, json};

use super::Simulation;

impl Simulation {
    /// Each Revision becomes ready at once, except the latest one if the canary is `dead`.
    pub(super) fn run_knative(&mut self) {
        let name = self.snapshot.reference(Kind::KnativeService, "podinfo");
        let Some(mut service) = self.snapshot.objects.get(&name).cloned() else {
            return;
        };
        let template = service["spec"]["template"]["spec"].clone();
        let revision = |latest: &str| self.snapshot.object(Kind::KnativeRevision, latest);
        let known = knative::latest(&service).and_then(revision);
        if known.is_none_or(|known| known["spec"] != template) {
            let objects = self.snapshot.objects.keys();
            let number = objects
                .filter(|it| it.kind == Kind::KnativeRevision)
                .count()
                + 1;
            let latest = format!("podinfo-{number:05}");
            let reference = self.snapshot.reference(Kind::KnativeRevision, &latest);
            let metadata = json!({"name": latest, "namespace": "test"});
            self.store(reference, json!({"metadata": metadata, "spec": template}));
            service["status"]["latestCreatedRevisionName"] = json!(latest);
        }
        service["status"]["observedGeneration"] = service["metadata"]["generation"].clone();
        let whole = json!([{"latestRevision": true, "percent": 100}]);
        let traffic = service["spec"].get("traffic").cloned();
        service["status"]["traffic"] = traffic.unwrap_or(whole);
        let latest = knative::latest(&service).unwrap().to_owned();
        self.snapshot.objects.insert(name, service);
        for (name, object) in &mut self.snapshot.objects {
            if name.kind == Kind::KnativeRevision {
                let is_dead = self.dead && name.name == latest;
                let status = if is_dead { "False" } else { "True" };
                let conditions = json!([{"type": "Ready", "status": status}]);
                let generation = &object["metadata"]["generation"];
                object["status"] =
                    json!({"observedGeneration": generation, "conditions": conditions});
            }
        }
    }

    /// The routes of the Knative Service.
    pub fn traffic(&self) -> &Value {
        &self.snapshot.target().unwrap()["spec"]["traffic"]
    }
}
