//! The records and the counters of runs, with several canaries and several runs.

use serde_json::json;

use super::rig::Rig;

fn analysis(interval: &str) -> serde_json::Value {
    json!({"interval": interval, "stepWeight": 50, "maxWeight": 50, "threshold": 1, "webhooks": null})
}

/// The results of the records of a canary.
fn results(rig: &Rig, canary: &str) -> Vec<String> {
    let releases = rig.all("releases").into_iter();
    let own = releases.filter(|release| release["spec"]["canary"] == canary);
    own.map(|release| {
        release["spec"]["result"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    })
    .collect()
}

/// Both canaries are in one namespace, and three records of each are kept.
#[tokio::test(start_paused = true)]
async fn the_runs_of_a_canary_neither_end_nor_delete_the_records_of_another_one() {
    let mut rig = Rig::new().await;
    rig.start("operator");
    rig.walkthrough(json!({"analysis": analysis("10s")}));
    rig.target("neighbour");
    let service = json!({"hosts": ["neighbour.example.com"]});
    let spec = json!({"service": service, "analysis": analysis("20m")});
    rig.canary("neighbour", spec);
    for phase in ["Initialized", "Progressing"] {
        if phase == "Progressing" {
            rig.release("deployments", "neighbour", "3.1.1");
        }
        rig.until(phase, |rig| {
            rig.get("canaries", "neighbour")["status"]["phase"] == phase
        })
        .await;
    }
    rig.until("a record", |rig| results(rig, "neighbour") == ["Running"])
        .await;
    rig.until_phase("Initialized").await;
    for version in 1..=5 {
        rig.image(&format!("3.2.{version}"));
        rig.until_phase("Progressing").await;
        rig.until_phase("Succeeded").await;
    }
    let phase = &rig.get("canaries", "neighbour")["status"]["phase"];
    assert_eq!(phase, "Progressing", "its run takes longer");
    assert_eq!(results(&rig, "neighbour"), ["Running"]);
    let own = results(&rig, "podinfo");
    assert!((3..=4).contains(&own.len()), "{own:?}");
    assert!(own.iter().all(|result| result == "Promoted"), "{own:?}");
}

/// Alerts count runs that failed.
#[tokio::test(start_paused = true)]
async fn each_run_is_counted_as_it_ended() {
    let mut rig = Rig::new().await;
    rig.start("operator");
    rig.walkthrough(json!({"analysis": analysis("10s")}));
    rig.until_phase("Initialized").await;
    let labels = r#"analysis_status="completed",deployment_strategy="canary",name="podinfo",namespace="test""#;
    let count = |rig: &Rig, name: &str| {
        let series = format!("flagger_canary_{name}_total{{{labels}}} ");
        let text = rig.metrics();
        let mut counts = text.lines().filter_map(|line| line.strip_prefix(&series));
        counts.next().map_or(0, |count| count.parse().unwrap())
    };
    for (version, success_rate, end, expected) in [
        ("3.2.1", 100.0, "Succeeded", (1, 0)),
        ("3.2.2", 10.0, "Failed", (1, 1)),
        ("3.2.3", 100.0, "Succeeded", (2, 1)),
    ] {
        rig.servers.set_success_rate(success_rate);
        rig.image(version);
        rig.until_phase("Progressing").await;
        rig.until_phase(end).await;
        let counted = (count(&rig, "successes"), count(&rig, "failures"));
        assert_eq!(counted, expected, "{version}: {}", rig.metrics());
    }
}
