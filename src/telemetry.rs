//! Logs and figures about the gateway itself. Logs go to stderr; figures are counted in atomics where they happen and
//! rendered by the admin listener. Labels are bounded: only configured resources have a name, all else is `other`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Upper bounds of `postern_request_seconds`, in microseconds.
const BOUNDS_MICROS: [u64; 12] = [500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000, 30_000_000];

/// The answers of one resource by status.
#[derive(Debug, Default)]
pub struct Counts {
    /// 200, which is most of them.
    ok: AtomicU64,
    other: Mutex<BTreeMap<u16, u64>>,
    /// Requests sent to the upstream.
    upstream: AtomicU64,
}

impl Counts {
    /// Counts an answer.
    pub fn answered(&self, status: u16) {
        if status == 200 {
            self.ok.fetch_add(1, Ordering::Relaxed);
        } else {
            *self.other.lock().unwrap_or_else(PoisonError::into_inner).entry(status).or_default() += 1;
        }
    }

    /// Counts requests to the upstream.
    pub fn sent(&self, attempts: u32) {
        self.upstream.fetch_add(u64::from(attempts), Ordering::Relaxed);
    }

    fn by_status(&self) -> Vec<(u16, u64)> {
        let mut all: Vec<(u16, u64)> = self.other.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(k, v)| (*k, *v)).collect();
        let ok = self.ok.load(Ordering::Relaxed);
        if ok > 0 {
            all.push((200, ok));
        }
        all
    }
}

/// Requests to issuers, by resource and result.
#[derive(Debug, Default)]
pub struct TokenCounts(Mutex<BTreeMap<(Arc<str>, &'static str), u64>>);

impl TokenCounts {
    /// Counts a request on behalf of this resource: `ok`, `failed` or `refused`.
    pub fn count(&self, resource: &Arc<str>, result: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry((resource.clone(), result)).or_default() += 1;
    }

    fn all(&self) -> Vec<(Arc<str>, &'static str, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|((resource, result), n)| (resource.clone(), *result, *n)).collect()
    }
}

/// Figures of the whole process.
#[derive(Debug, Default)]
pub struct Metrics {
    buckets: [AtomicU64; BOUNDS_MICROS.len() + 1],
    micros: AtomicU64,
    /// Answers to what named no known resource.
    pub other: Counts,
    /// Audit records that were dropped (`audit.on_full: drop`).
    audit_dropped: Arc<AtomicU64>,
    /// Reloads that took over, and those that were refused.
    applied: AtomicU64,
    refused: AtomicU64,
    /// References that serve on with their last good value.
    stale: AtomicU64,
    /// HTTP/2 requests that no one but the library has seen.
    http2_unserved: AtomicU64,
    /// HTTP/2 connections that were ended for what the client did.
    http2_broken: AtomicU64,
    /// Requests to issuers.
    tokens: Arc<TokenCounts>,
}

impl Metrics {
    /// Figures that begin at zero. `audit_dropped` is the audit log's own, `tokens` those of the grants.
    pub fn new(audit_dropped: Arc<AtomicU64>, tokens: Arc<TokenCounts>) -> Self {
        Self { audit_dropped, tokens, ..Self::default() }
    }

    /// Counts a reload that took over, or one that was refused.
    pub fn reloaded(&self, applied: bool) {
        if applied { &self.applied } else { &self.refused }.fetch_add(1, Ordering::Relaxed);
    }

    /// Says how many references serve on with their last good value.
    pub fn stale(&self, references: usize) {
        self.stale.store(references as u64, Ordering::Relaxed);
    }

    /// Counts HTTP/2 requests that the library has answered by itself (ruling B6).
    pub fn http2_unserved(&self, requests: u64) {
        self.http2_unserved.fetch_add(requests, Ordering::Relaxed);
    }

    /// Counts an HTTP/2 connection that was ended for what the client did.
    pub fn http2_broken(&self) {
        self.http2_broken.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts how long a request took.
    pub fn took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS_MICROS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

/// Everything that `/metrics` shows: the process's figures and those of each resource that was called.
pub struct Exposition<F> {
    /// The process's figures.
    pub metrics: Arc<Metrics>,
    /// Lists resources by name with their figures.
    pub resources: F,
}

impl<F> std::fmt::Debug for Exposition<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Exposition")
    }
}

impl<F> Collector for Exposition<F>
where
    F: Fn(&mut dyn FnMut(&str, &Counts)) + Send + Sync + 'static,
{
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut rows: Vec<(String, String, u64)> = Vec::new();
        let mut sent: Vec<(String, u64)> = Vec::new();
        (self.resources)(&mut |name, counts| {
            rows.extend(counts.by_status().into_iter().map(|(code, n)| (name.to_owned(), code.to_string(), n)));
            let n = counts.upstream.load(Ordering::Relaxed);
            if n > 0 {
                sent.push((name.to_owned(), n));
            }
        });
        rows.extend(self.metrics.other.by_status().into_iter().map(|(code, n)| ("other".to_owned(), code.to_string(), n)));

        let mut requests = encoder.encode_descriptor("postern_requests", "Answers, by resource and status", None, MetricType::Counter)?;
        for (resource, code, n) in &rows {
            let labels = [("resource", resource.as_str()), ("code", code.as_str())];
            ConstCounter::new(*n).encode(requests.encode_family(&labels)?)?;
        }
        let mut upstream =
            encoder.encode_descriptor("postern_upstream_requests", "Requests sent to upstreams, by resource", None, MetricType::Counter)?;
        for (resource, n) in &sent {
            ConstCounter::new(*n).encode(upstream.encode_family(&[("resource", resource.as_str())])?)?;
        }
        let mut tokens = encoder.encode_descriptor(
            "postern_token_requests",
            "Requests to issuers, by resource and result",
            None,
            MetricType::Counter,
        )?;
        for (resource, result, n) in self.metrics.tokens.all() {
            let labels = [("resource", &*resource), ("result", result)];
            ConstCounter::new(n).encode(tokens.encode_family(&labels)?)?;
        }
        let dropped = encoder.encode_descriptor(
            "postern_audit_dropped",
            "Audit records dropped because there was no room",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(self.metrics.audit_dropped.load(Ordering::Relaxed)).encode(dropped)?;
        self.encode_reloads(&mut encoder)?;
        let http2 = [
            (
                "postern_http2_unserved",
                "HTTP/2 requests that were refused or left before they reached the gateway",
                &self.metrics.http2_unserved,
            ),
            ("postern_http2_broken_connections", "HTTP/2 connections that were ended for what the client did", &self.metrics.http2_broken),
        ];
        for (name, help, count) in http2 {
            let described = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(count.load(Ordering::Relaxed)).encode(described)?;
        }
        self.encode_times(&mut encoder)
    }
}

impl<F> Exposition<F> {
    fn encode_reloads(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut reloads = encoder.encode_descriptor(
            "postern_config_reloads",
            "Changed configurations, by what became of them",
            None,
            MetricType::Counter,
        )?;
        for (result, count) in [("applied", &self.metrics.applied), ("refused", &self.metrics.refused)] {
            ConstCounter::new(count.load(Ordering::Relaxed)).encode(reloads.encode_family(&[("result", result)])?)?;
        }
        let stale = encoder.encode_descriptor(
            "postern_secrets_stale",
            "Secret references whose source gives no value, so that the last good one serves on",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(self.metrics.stale.load(Ordering::Relaxed)).encode(stale)
    }

    fn encode_times(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counts: Vec<u64> = self.metrics.buckets.iter().map(|b| b.load(Ordering::Relaxed)).collect();
        let bounds = BOUNDS_MICROS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
        let sum = self.metrics.micros.load(Ordering::Relaxed) as f64 / 1e6;
        let mut times = encoder.encode_descriptor(
            "postern_request_seconds",
            "From the arrival of a request to the end of its answer",
            None,
            MetricType::Histogram,
        )?;
        times.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)
    }
}
