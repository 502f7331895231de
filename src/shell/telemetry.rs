//! What operators of the operator see: logs in Flagger's form, and the `flagger_*` metrics.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus::{GaugeVec, Opts, Registry, TextEncoder};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use super::{
    meters::Meters,
    series::{End, Numbers, Series},
};
use crate::{
    api::canary::{Canary, CanaryPhase},
    notifications::EventKind,
};

/// Starts logging: JSON in Flagger's keys, or plain lines. `level` is one of Flagger's; anything else means info, as there.
pub fn start_logging(level: &str, json: bool) {
    let level = match level {
        "debug" => "debug",
        "warn" => "warn",
        "error" | "fatal" | "panic" => "error",
        _ => "info",
    };
    // The libraries' own debug lines are theirs; what kube says of each request that fails, we say where it matters.
    let filter = EnvFilter::new(format!(
        "warn,kube_client::client::builder=off,kube_runtime=off,flagger_rs={level},flagger={level},loadtester={level}"
    ));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // Fails only if logging was started before.
    let _ = if json {
        builder.event_format(FlaggerJson).try_init()
    } else {
        builder.try_init()
    };
}

/// `{"level":"info","ts":"…","msg":"…","canary":"NAME.NAMESPACE"}`
struct FlaggerJson;

impl<S: Subscriber + for<'a> LookupSpan<'a>, N: for<'a> FormatFields<'a> + 'static>
    FormatEvent<S, N> for FlaggerJson
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let meta = event.metadata();
        let level = match *meta.level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG | Level::TRACE => "debug",
        };
        let now = jiff::Timestamp::now();
        let file = meta
            .file()
            .and_then(|file| file.strip_prefix("src/"))
            .unwrap_or_default();
        let mut line = serde_json::Map::new();
        line.insert("level".to_owned(), level.into());
        line.insert("ts".to_owned(), format!("{now:.3}").into());
        line.insert(
            "caller".to_owned(),
            format!("{file}:{}", meta.line().unwrap_or(0)).into(),
        );
        line.extend(fields.0);
        writeln!(writer, "{}", serde_json::Value::Object(line))
    }
}

#[derive(Default)]
struct Fields(serde_json::Map<String, serde_json::Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(key(field), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(key(field), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(key(field), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(key(field), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(key(field), value.into());
    }
}

fn key(field: &Field) -> String {
    if field.name() == "message" {
        "msg".to_owned()
    } else {
        field.name().to_owned()
    }
}

/// `NAME.NAMESPACE`
pub fn name(canary: &Canary) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    format!(
        "{}.{}",
        text(&canary.metadata.name),
        text(&canary.metadata.namespace)
    )
}

/// An event as a log line.
pub fn event(canary: &Canary, kind: EventKind, message: &str) {
    match kind {
        EventKind::Normal => tracing::info!(canary = name(canary), "{message}"),
        EventKind::Warning => tracing::warn!(canary = name(canary), "{message}"),
    }
}

/// The operator's own metrics: Flagger's, by its names, and ours under `flagger_rs_`.
#[derive(Clone)]
pub struct Recorder(Arc<Metrics>);

struct Metrics {
    registry: Registry,
    info: GaugeVec,
    total: GaugeVec,
    series: Mutex<Series>,
}

impl Recorder {
    /// All metrics, at nothing.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let gauge = GaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Self(Arc::new(Metrics {
            info: gauge(
                "flagger_info",
                "Flagger version and mesh provider information",
                &["version", "mesh_provider"],
            )?,
            total: gauge(
                "flagger_canary_total",
                "Total number of canary objects",
                &["namespace"],
            )?,
            series: Mutex::default(),
            registry,
        })))
    }

    /// What runs here.
    pub fn info(&self, version: &str, mesh_provider: &str) {
        self.0
            .info
            .with_label_values(&[version, mesh_provider])
            .set(1.0);
    }

    /// How many canaries a namespace has; a namespace without any is forgotten.
    pub fn total(&self, namespaces: &std::collections::BTreeMap<String, usize>) {
        self.0.total.reset();
        for (namespace, count) in namespaces {
            self.0
                .total
                .with_label_values(&[namespace])
                .set(f64::from(u32::try_from(*count).unwrap_or(u32::MAX)));
        }
    }

    /// Where a release stands: 0 while it runs, 2 when it failed, else 1.
    pub fn status(&self, canary: &Canary, phase: CanaryPhase) {
        let value = match phase {
            CanaryPhase::Progressing => 0,
            CanaryPhase::Failed => 2,
            _ => 1,
        };
        self.with(canary, |numbers| numbers.status = Some(value));
    }

    /// What is routed.
    pub fn weights(&self, canary: &Canary, primary: u8, share: u8) {
        self.with(canary, |numbers| numbers.weights = Some((primary, share)));
    }

    /// The value of a metric of the release.
    pub fn sample(&self, canary: &Canary, metric: &str, value: f64) {
        self.with(canary, |numbers| numbers.sample(metric, value));
    }

    /// How long a step's questions took.
    pub fn step(&self, canary: &Canary, seconds: f64) {
        self.with(canary, |numbers| numbers.step(seconds));
    }

    /// A run ended.
    pub fn ended(&self, canary: &Canary, success: bool, skipped: bool) {
        let end = End {
            success,
            strategy: canary.strategy().as_str(),
            how: if skipped { "skipped" } else { "completed" },
        };
        self.with(canary, |numbers| numbers.ended(end));
    }

    /// Where the operator's own work is counted.
    pub fn meters(&self) -> Result<Meters, prometheus::Error> {
        Meters::new(&self.0.registry)
    }

    /// A canary is gone: so are its gauges.
    pub fn forget(&self, target: &str, namespace: &str) {
        self.series().forget(namespace, target);
    }

    /// The exposition.
    pub fn render(&self) -> String {
        let mut text = TextEncoder::new()
            .encode_to_string(&self.0.registry.gather())
            .unwrap_or_default();
        self.series().write(&mut text);
        text
    }

    fn with(&self, canary: &Canary, change: impl FnOnce(&mut Numbers)) {
        let namespace = canary.metadata.namespace.as_deref().unwrap_or_default();
        change(self.series().of(namespace, &canary.spec.target_ref.name));
    }

    fn series(&self) -> MutexGuard<'_, Series> {
        self.0.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use serde_json::{Value, json};

    use super::*;

    fn canary(name: &str) -> Canary {
        serde_json::from_value(json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary",
            "metadata": {"name": name, "namespace": "test"},
            "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": format!("{name}-app")},
                "service": {"port": 80}, "analysis": {"interval": "1m", "threshold": 1, "stepWeight": 10}}}))
        .unwrap()
    }

    #[test]
    fn metrics_read_as_flaggers() {
        let recorder = Recorder::new().unwrap();
        let canary = canary("podinfo");
        recorder.info("1.44.0", "istio");
        recorder.total(&[("test".to_owned(), 2)].into());
        recorder.status(&canary, CanaryPhase::Failed);
        recorder.weights(&canary, 95, 5);
        recorder.sample(&canary, "request-success-rate", 99.5);
        recorder.step(&canary, 0.3);
        recorder.ended(&canary, true, true);
        recorder.ended(&canary, false, false);
        let text = recorder.render();
        for line in [
            "# HELP flagger_info Flagger version and mesh provider information",
            "# TYPE flagger_info gauge",
            r#"flagger_info{mesh_provider="istio",version="1.44.0"} 1"#,
            r#"flagger_canary_total{namespace="test"} 2"#,
            r#"flagger_canary_status{name="podinfo-app",namespace="test"} 2"#,
            r#"flagger_canary_weight{namespace="test",workload="podinfo-app"} 5"#,
            r#"flagger_canary_weight{namespace="test",workload="podinfo-app-primary"} 95"#,
            r#"flagger_canary_metric_analysis{metric="request-success-rate",name="podinfo-app",namespace="test"} 99.5"#,
            "# HELP flagger_canary_duration_seconds Seconds spent performing canary analysis.",
            "# TYPE flagger_canary_duration_seconds histogram",
            r#"flagger_canary_duration_seconds_bucket{name="podinfo-app",namespace="test",le="0.25"} 0"#,
            r#"flagger_canary_duration_seconds_bucket{name="podinfo-app",namespace="test",le="0.5"} 1"#,
            r#"flagger_canary_duration_seconds_bucket{name="podinfo-app",namespace="test",le="10"} 1"#,
            r#"flagger_canary_duration_seconds_bucket{name="podinfo-app",namespace="test",le="+Inf"} 1"#,
            r#"flagger_canary_duration_seconds_sum{name="podinfo-app",namespace="test"} 0.3"#,
            "# TYPE flagger_canary_successes_total counter",
            r#"flagger_canary_successes_total{analysis_status="skipped",deployment_strategy="canary",name="podinfo-app",namespace="test"} 1"#,
            r#"flagger_canary_failures_total{analysis_status="completed",deployment_strategy="canary",name="podinfo-app",namespace="test"} 1"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n\n{text}");
        }
    }

    #[test]
    fn a_canary_that_is_gone_leaves_no_gauge_and_takes_no_other_with_it() {
        let recorder = Recorder::new().unwrap();
        for name in ["gone", "stays"] {
            let canary = canary(name);
            recorder.status(&canary, CanaryPhase::Succeeded);
            recorder.weights(&canary, 100, 0);
            // The spec does not name it: it did once.
            recorder.sample(&canary, "latency", 1.0);
        }
        recorder.forget("gone-app", "test");
        let text = recorder.render();
        assert!(!text.contains("gone"), "{text}");
        assert_eq!(text.matches("stays-app").count(), 4, "{text}");
    }

    #[test]
    fn what_was_counted_outlives_its_canary() {
        let recorder = Recorder::new().unwrap();
        recorder.status(&canary("a"), CanaryPhase::Succeeded);
        recorder.step(&canary("a"), 1.0);
        recorder.ended(&canary("a"), true, false);
        recorder.forget("a-app", "test");
        recorder.ended(&canary("a"), true, false);
        let text = recorder.render();
        let labels = r#"analysis_status="completed",deployment_strategy="canary",name="a-app",namespace="test""#;
        let line = format!("flagger_canary_successes_total{{{labels}}} 2");
        assert!(text.lines().any(|l| l == line), "{text}");
        assert!(
            text.contains("flagger_canary_duration_seconds_count"),
            "{text}"
        );
        assert!(!text.contains("flagger_canary_status"), "{text}");
    }

    #[test]
    fn a_name_cannot_break_out_of_its_label() {
        let recorder = Recorder::new().unwrap();
        let mut canary = canary("a");
        canary.spec.target_ref.name = "a\"} 1\nb\\".to_owned();
        recorder.status(&canary, CanaryPhase::Failed);
        let line = r#"flagger_canary_status{name="a\"} 1\nb\\",namespace="test"} 2"#;
        let text = recorder.render();
        assert!(text.lines().any(|l| l == line), "{text}");
    }

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            written.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_line_is_json_in_flaggers_keys() {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .event_format(FlaggerJson)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            event(&canary("podinfo"), EventKind::Warning, "Halt \"podinfo\"\n");
            tracing::error!(secret = ?crate::snapshot::Secret("hush".to_owned()), "no canary");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0]["canary"], "podinfo.test");
        assert_eq!(lines[0]["msg"], "Halt \"podinfo\"\n");
        assert_eq!(
            (&lines[1]["level"], &lines[1]["msg"]),
            (&json!("error"), &json!("no canary"))
        );
        let ts = lines[0]["ts"].as_str().unwrap();
        assert!(
            ts.parse::<jiff::Timestamp>().is_ok() && ts.len() == "2006-01-02T15:04:05.000Z".len()
        );
        assert!(lines[1].get("canary").is_none() && !text.contains("hush"));
    }
}
