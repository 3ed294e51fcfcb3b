//! What is counted and measured, for Prometheus. Labels are fixed words and configured names.

use std::sync::Arc;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::job::Job;
use crate::outcome::Written;
use crate::served::{Models, Residence};

type Labels = Vec<(&'static str, String)>;
type Histograms = Family<Labels, Histogram, fn() -> Histogram>;

/// From 10 milliseconds to about 5 hours.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.01, 2.0, 21))
}

/// From a millisecond to a minute.
fn short() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 17))
}

/// All of it.
pub struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    jobs: Family<Labels, Counter>,
    queued: Gauge,
    running: Family<Labels, Gauge>,
    wait: Histogram,
    run: Histograms,
    stages: Histograms,
    first_block: Histogram,
    cancel: Histogram,
    rows: Histogram,
    images: Counter,
    clips: Counter,
    tokens: Family<Labels, Counter>,
    passes: Counter,
    model_bytes: Family<Labels, Gauge>,
    loads: Family<Labels, Counter>,
    memory: Family<Labels, Gauge>,
    streams: Gauge,
    refused: Family<Labels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("brisk");
        let info = prometheus_client::metrics::info::Info::new(vec![(
            "version",
            env!("CARGO_PKG_VERSION"),
        )]);
        registry.register("build", "The version", info);
        let mut metrics = Self {
            registry,
            requests: Family::default(),
            jobs: Family::default(),
            queued: Gauge::default(),
            running: Family::default(),
            wait: seconds(),
            run: Family::new_with_constructor(seconds),
            stages: Family::new_with_constructor(seconds),
            first_block: seconds(),
            cancel: short(),
            rows: Histogram::new([1.0, 2.0, 4.0, 8.0, 12.0, 16.0]),
            images: Counter::default(),
            clips: Counter::default(),
            tokens: Family::default(),
            passes: Counter::default(),
            model_bytes: Family::default(),
            loads: Family::default(),
            memory: Family::default(),
            streams: Gauge::default(),
            refused: Family::default(),
        };
        let all = &mut metrics.registry;
        all.register("http_requests", "Requests", metrics.requests.clone());
        all.register("jobs", "Jobs that ended", metrics.jobs.clone());
        all.register("jobs_queued", "Jobs that wait", metrics.queued.clone());
        all.register("jobs_running", "Jobs that run", metrics.running.clone());
        let help = "Seconds from the request to its turn";
        all.register("job_wait_seconds", help, metrics.wait.clone());
        all.register(
            "job_run_seconds",
            "Seconds of computing",
            metrics.run.clone(),
        );
        all.register(
            "stage_seconds",
            "Seconds of each stage",
            metrics.stages.clone(),
        );
        let help = "Seconds from the request to the first text of a stream";
        all.register("first_block_seconds", help, metrics.first_block.clone());
        let help = "Seconds from the wish to stop to the end";
        all.register("cancel_seconds", help, metrics.cancel.clone());
        let help = "Sequences that share a forward pass";
        all.register("batch_rows", help, metrics.rows.clone());
        all.register("images", "Pictures drawn", metrics.images.clone());
        all.register("clips", "Clips made", metrics.clips.clone());
        all.register("tokens", "Tokens of texts", metrics.tokens.clone());
        let help = "Forward passes of texts";
        all.register("forward_passes", help, metrics.passes.clone());
        let help = "Bytes of each model's files while it is loaded";
        all.register("model_bytes", help, metrics.model_bytes.clone());
        all.register("model_loads", "Times it was loaded", metrics.loads.clone());
        all.register("memory_bytes", "Bytes of memory", metrics.memory.clone());
        all.register(
            "streams_open",
            "Streams that are open",
            metrics.streams.clone(),
        );
        all.register(
            "refused",
            "Requests refused, by code",
            metrics.refused.clone(),
        );
        metrics
    }
}

impl Metrics {
    /// A request was answered.
    pub fn answered(&self, route: &str, method: &str, status: u16, refused: Option<&'static str>) {
        let labels = vec![
            ("route", route.to_owned()),
            ("method", method.to_owned()),
            ("status", status.to_string()),
        ];
        self.requests.get_or_create(&labels).inc();
        if let Some(code) = refused {
            let labels = vec![("reason", code.to_owned())];
            self.refused.get_or_create(&labels).inc();
        }
    }

    /// A job left the compute thread after so many seconds.
    pub fn ran(&self, job: &Job, seconds: f64) {
        let (kind, model) = (job.ask.kind().to_owned(), job.ask.model().id.clone());
        let state = job.state();
        if let Some(started) = state.started {
            let waited = started.duration_since(job.created);
            self.wait.observe(waited.as_secs_f64());
        }
        for (stage, seconds) in &state.stages {
            let labels = vec![("model", model.clone()), ("stage", (*stage).to_owned())];
            self.stages.get_or_create(&labels).observe(*seconds);
        }
        let labels = vec![("kind", kind), ("model", model)];
        self.run.get_or_create(&labels).observe(seconds);
    }

    /// A job ended.
    pub fn ended(&self, job: &Job) {
        let labels = vec![
            ("kind", job.ask.kind().to_owned()),
            ("model", job.ask.model().id.clone()),
            ("outcome", job.state().status().name().to_owned()),
        ];
        self.jobs.get_or_create(&labels).inc();
    }

    /// A job that was to stop did, so many seconds later.
    pub fn cancelled(&self, seconds: f64) {
        self.cancel.observe(seconds);
    }

    /// Pictures were drawn.
    pub fn drew(&self, images: usize) {
        self.images.inc_by(images as u64);
    }

    /// A clip was made.
    pub fn filmed(&self) {
        self.clips.inc();
    }

    /// Texts were written.
    pub fn wrote(&self, texts: &[Written]) {
        let labels = vec![("type", "completion".to_owned())];
        let tokens: usize = texts.iter().map(|text| text.tokens).sum();
        self.tokens.get_or_create(&labels).inc_by(tokens as u64);
        let passes: usize = texts.iter().map(|text| text.passes).sum();
        self.passes.inc_by(passes as u64);
    }

    /// A request's prompt had so many tokens.
    pub fn read(&self, tokens: usize) {
        let labels = vec![("type", "prompt".to_owned())];
        self.tokens.get_or_create(&labels).inc_by(tokens as u64);
    }

    /// The first text of a stream came.
    pub fn first_block(&self, seconds: f64) {
        self.first_block.observe(seconds);
    }

    /// So many sequences shared a forward pass.
    pub fn passed(&self, sequences: usize) {
        self.rows.observe(sequences as f64);
    }

    /// A model was loaded.
    pub fn loaded(&self, model: &str) {
        let labels = vec![("model", model.to_owned())];
        self.loads.get_or_create(&labels).inc();
    }

    /// A stream begins; it ends when what is returned is dropped.
    pub fn stream(self: &Arc<Self>) -> OpenStream {
        self.streams.inc();
        OpenStream(Arc::clone(self))
    }

    /// The text that Prometheus reads.
    pub fn text(&self, models: &Models, queued: usize, running: &[Arc<Job>]) -> String {
        self.queued.set(queued as i64);
        for endpoint in crate::fields::Endpoint::ALL {
            let labels = vec![("kind", endpoint.job_kind().to_owned())];
            let runs = running.iter().filter(|job| job.ask.endpoint() == endpoint);
            let runs = runs.count() as i64;
            self.running.get_or_create(&labels).set(runs);
        }
        for model in models.all() {
            let loaded = model.residence() == Residence::Loaded;
            let bytes = if loaded { model.bytes } else { 0 };
            let labels = vec![("model", model.id.clone())];
            self.model_bytes.get_or_create(&labels).set(bytes as i64);
        }
        let kinds = [
            ("peak", brisk_pipelines::machine::peak_memory()),
            ("available", brisk_pipelines::memory::available()),
        ];
        for (kind, bytes) in kinds {
            if let Some(bytes) = bytes {
                let labels = vec![("kind", kind.to_owned())];
                self.memory.get_or_create(&labels).set(bytes as i64);
            }
        }
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Counts a stream as open.
#[derive(Debug)]
pub struct OpenStream(Arc<Metrics>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.streams.dec();
    }
}
