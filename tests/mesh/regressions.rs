//! Versions that are worse by the amounts of the published tables, with real requests: 200 a second, steps of a minute, weights of 10 to 50 %.
//! `cargo test --features mesh --test mesh regressions -- --ignored`

use std::time::Instant;

use serde_json::json;

use super::rig::Rig;

/// A primary whose requests take 30 ms (median of a lognormal law, σ 0.4), so that one of ten takes more than the bound of 50 ms.
pub const PRIMARY: (&str, &[&str]) = ("3.3.0", &["--delay=30ms", "--spread=0.4"]);
/// A version that is as good.
pub const EQUAL: (&str, &[&str]) = ("3.3.1", PRIMARY.1);
/// Versions that are worse, each with the metric that finds it and the weight of the step by which it must be found. (A version that is slower
/// by a fifth is not found here: with two pods of the primary, its pods are assumed to differ by as much.)
pub const WORSE: [(&str, &[&str], &str, i64); 2] = [
    (
        "3.3.2",
        &["--delay=30ms", "--spread=0.4", "--error-rate=0.05"],
        "request-success-rate",
        10,
    ),
    (
        "3.3.3",
        &["--delay=30ms", "--spread=0.4", "--error-rate=0.01"],
        "request-success-rate",
        20,
    ),
];

const STEPS: [i64; 5] = [10, 20, 30, 40, 50];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a quarter of an hour"]
async fn a_version_that_is_worse_is_found_within_the_published_steps() {
    let rig = Rig::start().await;
    rig.canary(json!({})).await;
    rig.reach("Initialized").await;
    rig.image(PRIMARY.0).await;
    rig.reach("Succeeded").await;
    rig.until_idle().await;

    let compare = json!({"maxIncrease": 0, "maxFactor": 1});
    rig.canary(json!({
        "interval": "60s",
        "stepWeight": null,
        "stepWeights": STEPS,
        "metrics": [
            {"name": "request-success-rate", "compare": compare},
            {"name": "request-duration", "compare": compare},
        ],
    }))
    .await;
    rig.image(EQUAL.0).await;
    for weight in STEPS {
        rig.weight(weight).await;
    }
    rig.reach("Succeeded").await;
    rig.until_idle().await;
    println!("{}: {}", EQUAL.0, rig.last_record().await["measurements"]);
    for (version, _, metric, weight) in WORSE {
        rig.image(version).await;
        rig.weight(STEPS[0]).await;
        let begun = Instant::now();
        rig.reach("Failed").await;
        let took = begun.elapsed().as_secs();
        rig.until_idle().await;
        let record = rig.last_record().await;
        let sentence = record["cause"]["sentence"].as_str().unwrap_or_default();
        // A version that is proven worse in the middle of a step is rolled back in less than its minute.
        let at = &record["weight"];
        println!("{version}: weight {at}, {took} s after the first: {sentence}");
        let found = format!("The canary is worse than the primary: {metric}: ");
        assert!(sentence.starts_with(&found), "{version}: {record}");
        let reached = record["weight"].as_i64().unwrap();
        assert!(reached <= weight, "{version}: {record}");
    }
    rig.end();
}
