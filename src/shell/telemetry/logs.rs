//! Log lines in Flagger's form.

use std::fmt;

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::{api::canary::Canary, notifications::EventKind};

/// Starts logging to stderr: JSON with Flagger's keys, or plain lines. As in Flagger, an unknown `level` means info.
pub fn start_logging(level: &str, json: bool) {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(directives(level)))
        .with_writer(std::io::stderr);
    // This fails only if logging was started before.
    let _ = if json {
        builder.event_format(FlaggerJson).try_init()
    } else {
        builder.try_init()
    };
}

/// Returns the directives of the filter for a `-log-level`.
fn directives(level: &str) -> String {
    let level = match level {
        "debug" => "debug",
        "warn" => "warn",
        "error" | "fatal" | "panic" => "error",
        _ => "info",
    };
    // Debug lines of libraries are not logged. kube would log each failed request; this program logs a failure itself if it matters.
    format!(
        "warn,kube_client::client::builder=off,kube_runtime=off,flagger_rs={level},flagger={level},loadtester={level}"
    )
}

/// Logs an event of a canary.
pub fn log_event(canary: &Canary, kind: EventKind, message: &str) {
    match kind {
        EventKind::Normal => tracing::info!(canary = canary_name(canary), "{message}"),
        EventKind::Warning => tracing::warn!(canary = canary_name(canary), "{message}"),
    }
}

/// Returns `NAME.NAMESPACE`, the value of the field `canary` of log lines.
pub fn canary_name(canary: &Canary) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    format!(
        "{}.{}",
        text(&canary.metadata.name),
        text(&canary.metadata.namespace)
    )
}

/// Writes lines as `{"level":"info","ts":"…","msg":"…","canary":"NAME.NAMESPACE"}`.
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

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use serde_json::{Value, json};

    use super::*;
    use crate::shell::lock::lock;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            lock(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that `log` writes.
    fn lines_of(log: impl FnOnce()) -> Vec<Value> {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .event_format(FlaggerJson)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let text = String::from_utf8(lock(&written.0).clone()).unwrap();
        let lines = text.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn the_log_level_selects_the_lines_of_this_program() {
        for (level, shown) in [
            ("debug", "debug"),
            ("info", "info"),
            ("warn", "warn"),
            ("error", "error"),
            ("fatal", "error"),
            ("anything", "info"),
            ("", "info"),
        ] {
            let directives = directives(level);
            for program in ["flagger_rs", "flagger", "loadtester"] {
                let own = format!("{program}={shown}");
                assert!(directives.split(',').any(|d| d == own), "{directives}");
            }
        }
    }

    #[test]
    fn an_event_is_logged_at_the_level_of_its_type() {
        let lines = lines_of(|| {
            log_event(&Canary::default(), EventKind::Normal, "a");
            log_event(&Canary::default(), EventKind::Warning, "b");
        });
        let levels: Vec<_> = lines.iter().map(|line| &line["level"]).collect();
        assert_eq!(levels, ["info", "warn"]);
    }

    #[test]
    fn a_log_line_is_json_with_flaggers_keys() {
        let canary: Canary = serde_json::from_value(json!({"apiVersion": "flagger.app/v1beta1",
            "kind": "Canary", "metadata": {"name": "podinfo", "namespace": "test"},
            "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
                "service": {"port": 80}}}))
        .unwrap();
        let lines = lines_of(|| {
            log_event(&canary, EventKind::Warning, "Halt \"podinfo\"\n");
            tracing::error!(secret = ?crate::snapshot::Secret("hush".to_owned()), "no canary");
        });
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(lines[0]["canary"], "podinfo.test");
        assert_eq!(lines[0]["level"], "warn");
        let caller = lines[0]["caller"].as_str().unwrap();
        assert!(caller.starts_with("shell/telemetry/logs.rs:"), "{caller}");
        assert_eq!(lines[0]["msg"], "Halt \"podinfo\"\n");
        assert_eq!(
            (&lines[1]["level"], &lines[1]["msg"]),
            (&json!("error"), &json!("no canary"))
        );
        let ts = lines[0]["ts"].as_str().unwrap();
        assert!(
            ts.parse::<jiff::Timestamp>().is_ok() && ts.len() == "2006-01-02T15:04:05.000Z".len()
        );
        assert!(lines[1].get("canary").is_none() && !lines[1].to_string().contains("hush"));
    }
}
