//! Alerts: the messages that each alert of a Canary gets, and the fields that describe a release (Flagger: `pkg/controller/events.go`).

use super::Severity;
use crate::api::canary::{Canary, CanaryAlert, Strategy};

/// Whether an alert of a Canary gets messages of this severity. Without `severity` it gets all, as Flagger's documentation states.
/// (Flagger's code sends none then.)
pub fn wants(alert: &CanaryAlert, severity: Severity) -> bool {
    severity
        >= match alert.severity.as_deref() {
            Some("error") => Severity::Error,
            Some("warn") => Severity::Warn,
            _ => Severity::Info,
        }
}

/// The fields of an alert: the cluster, and a description of the release if a canary is given.
pub fn fields(cluster: &str, canary: Option<&Canary>) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let mut add = |name: &str, value: String| fields.push((name.to_owned(), value));
    if !cluster.is_empty() {
        add("Cluster", cluster.to_owned());
    }
    let Some(canary) = canary else { return fields };
    let target = &canary.spec.target_ref;
    add(
        "Target",
        format!(
            "{}/{}.{}",
            target.kind,
            target.name,
            canary.metadata.namespace.as_deref().unwrap_or_default()
        ),
    );
    add("Failed checks threshold", canary.threshold().to_string());
    add(
        "Progress deadline",
        format!("{}s", canary.progress_deadline_seconds()),
    );
    if let Some(routing) = routing(canary) {
        add("Traffic routing", routing);
    }
    fields
}

fn routing(canary: &Canary) -> Option<String> {
    match canary.strategy() {
        Strategy::AbTesting => return Some("A/B Testing".to_owned()),
        Strategy::BlueGreen => return Some("Blue/Green".to_owned()),
        Strategy::Canary => {}
    }
    let analysis = canary.spec.analysis.as_ref()?;
    if analysis.has_decimals() {
        let steps = shown(&canary.step_weights());
        return Some(format!(
            "Weight steps: {steps} max: {}",
            canary.max_weight()
        ));
    }
    let max = analysis.max_weight.unwrap_or(0);
    if let Some(step) = analysis.step_weight.filter(|step| *step > 0) {
        return Some(format!("Weight step: {step} max: {max}"));
    }
    let weights = analysis.step_weights.as_deref().unwrap_or_default();
    (!weights.is_empty()).then(|| format!("Weight steps: {} max: {max}", shown(weights)))
}

fn shown<T: ToString>(weights: &[T]) -> String {
    let weights: Vec<_> = weights.iter().map(ToString::to_string).collect();
    weights.join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_alert_without_severity_wants_all_messages() {
        let alert = |severity: Option<&str>| CanaryAlert {
            severity: severity.map(str::to_owned),
            ..CanaryAlert::default()
        };
        assert!(wants(&alert(None), Severity::Info) && wants(&alert(Some("")), Severity::Info));
        assert!(
            !wants(&alert(Some("warn")), Severity::Info)
                && wants(&alert(Some("warn")), Severity::Error)
        );
        assert!(!wants(&alert(Some("error")), Severity::Warn));
    }

    #[test]
    fn the_fields_describe_the_release() {
        let canary = |analysis: Value| -> Canary {
            serde_json::from_value(json!({"metadata": {"name": "podinfo", "namespace": "test"}, "apiVersion": "flagger.app/v1beta1", "kind": "Canary",
                "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}, "service": {"port": 80}, "analysis": analysis}})).unwrap()
        };
        let routing = |analysis| {
            fields("", Some(&canary(analysis)))
                .into_iter()
                .nth(3)
                .map(|(_, value)| value)
        };
        assert_eq!(
            routing(json!({"interval": "1m", "threshold": 5, "stepWeight": 10, "maxWeight": 50}))
                .unwrap(),
            "Weight step: 10 max: 50"
        );
        assert_eq!(
            routing(json!({"interval": "1m", "threshold": 5, "stepWeight": 1})).unwrap(),
            "Weight step: 1 max: 0"
        );
        assert_eq!(
            routing(json!({"interval": "1m", "threshold": 5, "stepWeight": 0})),
            None
        );
        assert_eq!(
            routing(json!({"interval": "1m", "threshold": 5, "stepWeights": [1, 2]})).unwrap(),
            "Weight steps: 1,2 max: 0"
        );
        assert_eq!(
            routing(json!({"interval": "1m", "threshold": 5, "stepWeight": 5, "maxWeight": 50, "decimalStepWeights": [0.1, 1]})).unwrap(),
            "Weight steps: 0.1,1 max: 1"
        );
        assert_eq!(
            routing(json!({"interval": "1m", "threshold": 5, "iterations": 2})).unwrap(),
            "Blue/Green"
        );
        let all = fields(
            "prod",
            Some(&canary(
                json!({"interval": "1m", "threshold": 0, "iterations": 2, "match": [{}]}),
            )),
        );
        let text: Vec<_> = all
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            text.join(" | "),
            "Cluster=prod | Target=Deployment/podinfo.test | Failed checks threshold=1 | Progress deadline=600s | Traffic routing=A/B Testing"
        );
    }
}
