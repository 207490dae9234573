//! Logs as one JSON object per line on standard error (results of one-shot tasks go to standard output), and
//! the Prometheus recorder behind `/metrics`. Panics are log lines too. A card number that gets as far as here is
//! masked in every text of a line, whoever wrote it.

use std::fmt;
use std::io::Write as _;
use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

use crate::card_data;
use crate::config::Log;
use crate::names::{self, Kind};

const UPKEEP: Duration = Duration::from_secs(5);

/// Seconds; from a cache hit to a stuck batch.
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Counts per batch.
const COUNTS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 5_000.0, 20_000.0, 100_000.0];

static METRICS: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Starts logging and metrics for `service`. Later calls in the same process change nothing.
pub fn init(service: &'static str, log: &Log) {
    let level = log.level.as_str();
    // What libraries say at info is of no use to an operator.
    let quiet = match level {
        "debug" | "trace" => "info",
        _ => "warn",
    };
    let filter = EnvFilter::new(format!(
        "{level},sqlx={quiet},hyper={quiet},h2={quiet},reqwest={quiet},rdkafka=error,librdkafka={quiet},tower={quiet}"
    ));
    // A second call finds the subscriber installed: nothing to do.
    if tracing_subscriber::registry().with(JsonLines { service }.with_filter(filter)).try_init().is_ok() {
        std::panic::set_hook(Box::new(log_panic));
    }
    METRICS.get_or_init(install_metrics);
}

/// What Rust would print by itself, as a log line: the message of a panic may hold whatever was being handled.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(panic = panic.payload_as_str().unwrap_or("no text"), place, "panicked");
}

/// The text of `/metrics`; empty when [`init`] was not called.
pub fn metrics_text() -> String {
    METRICS.get().and_then(Option::as_ref).map(PrometheusHandle::render).unwrap_or_default()
}

fn install_metrics() -> Option<PrometheusHandle> {
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
        .and_then(|b| b.set_buckets(COUNTS));
    let handle = match builder.and_then(|b| b.install_recorder()) {
        Ok(handle) => handle,
        Err(error) => {
            tracing::error!(%error, "no metrics in this process");
            return None;
        }
    };
    for (name, kind, help) in names::ALL {
        match kind {
            Kind::Counter => metrics::describe_counter!(*name, *help),
            Kind::Gauge => metrics::describe_gauge!(*name, *help),
            Kind::Histogram => metrics::describe_histogram!(*name, *help),
        }
    }
    let upkeep = handle.clone();
    // Without upkeep the samples of histograms are kept for ever.
    let thread = std::thread::Builder::new().name("metrics-upkeep".to_owned()).spawn(move || {
        loop {
            std::thread::sleep(UPKEEP);
            upkeep.run_upkeep();
        }
    });
    if let Err(error) = thread {
        tracing::error!(%error, "metrics are not kept tidy: memory will grow");
    }
    Some(handle)
}

/// Writes each event as one flat JSON object: time, level, service, target, message, then the fields of the
/// enclosing spans (`trace_id`, `request_id`, ...), outermost first, and the event's own.
struct JsonLines {
    service: &'static str,
}

struct SpanFields(Map<String, Value>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JsonLines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(SpanFields(fields.0));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(SpanFields(known)) = span.extensions_mut().get_mut()
        {
            let mut fields = Fields(std::mem::take(known));
            values.record(&mut fields);
            *known = fields.0;
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let meta = event.metadata();
        let mut line = Map::new();
        line.insert("time".into(), chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true).into());
        line.insert("level".into(), meta.level().as_str().to_ascii_lowercase().into());
        line.insert("service".into(), self.service.into());
        line.insert("message".into(), Value::Null);
        line.insert("target".into(), meta.target().into());
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(SpanFields(fields)) = span.extensions().get() {
                line.extend(fields.iter().map(|(key, value)| (key.clone(), value.clone())));
            }
        }
        let mut fields = Fields(line);
        event.record(&mut fields);
        let mut text = Value::Object(fields.0).to_string();
        text.push('\n');
        // A closed standard error is no reason to stop selling.
        std::io::stderr().lock().write_all(text.as_bytes()).ok();
    }
}

#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn text(&mut self, field: &Field, text: &str) {
        self.0.insert(field.name().to_owned(), card_data::mask(text).into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        match u64::try_from(value) {
            Ok(value) => self.record_u64(field, value),
            Err(_) => drop(self.0.insert(field.name().to_owned(), value.into())),
        }
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        if value > card_data::BELOW_NUMBERS && card_data::is_in(&value.to_string()) {
            return self.text(field, card_data::MASK);
        }
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().to_owned(), json!(value));
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let chain = std::iter::successors(Some(value), |error| error.source());
        let text = chain.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        self.text(field, &text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Shown(&'static str);
    impl fmt::Debug for Shown {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    /// Collects what a line would hold.
    struct Kept(std::sync::Arc<std::sync::Mutex<Map<String, Value>>>);
    impl<S: Subscriber> Layer<S> for Kept {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut fields = Fields::default();
            event.record(&mut fields);
            self.0.lock().unwrap().extend(fields.0);
        }
    }

    #[test]
    fn card_numbers_are_masked_in_every_kind_of_field() {
        let kept: std::sync::Arc<std::sync::Mutex<Map<String, Value>>> = std::sync::Arc::default();
        let error = std::io::Error::other("row 4111 1111 1111 1111 is wrong");
        let number: u64 = "4111111111111111".parse().unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Kept(kept.clone())), || {
            tracing::error!(
                text = "4111111111111111",
                shown = ?Shown("Card(4111-1111-1111-1111)"),
                error = &error as &(dyn std::error::Error + 'static),
                number,
                signed = number as i64,
                id = "41111111-1111-1111-1111-111111111111",
                "paid with 4111111111111111"
            );
        });
        let line = Value::Object(kept.lock().unwrap().clone());
        let wanted = json!({"message": "paid with [masked]", "text": "[masked]", "shown": "Card([masked])",
            "error": "row [masked] is wrong", "number": "[masked]", "signed": "[masked]",
            "id": "41111111-1111-1111-1111-111111111111"});
        assert_eq!(line, wanted);
    }
}
