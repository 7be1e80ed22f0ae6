//! Constant requests from a pod of its own inside the cluster, and what became of each.
//!
//! Every load is a new pod with a new address: conntrack keeps a SYN to a dead pod for 120 s, and a client with the
//! same address and port would fail because of an earlier test.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::images::Image;
use crate::namespace::Namespace;

/// A load under construction.
#[derive(Debug)]
#[must_use = "a load does nothing until it is started"]
pub struct LoadBuilder<'a> {
    namespace: &'a Namespace,
    url: String,
    rate: u32,
    keep_alive: u32,
    count: u64,
    limit: Duration,
}

/// A load that runs.
#[derive(Debug)]
pub struct Load<'a> {
    namespace: &'a Namespace,
    pod: String,
}

/// What a load saw.
#[derive(Debug, Clone, Deserialize)]
pub struct Report {
    /// When it started, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// How long it has run.
    pub elapsed_ms: u64,
    /// Requests that were answered or failed.
    pub total: u64,
    /// Answered with status 200.
    pub ok: u64,
    /// All others.
    pub failed: u64,
    /// Reused connections that the server had closed between two requests; asked again, not a failure.
    pub reopened: u64,
    /// The slowest answer.
    pub slowest_ms: u64,
    /// Half of the answers took no longer, in microseconds.
    pub p50_us: u64,
    /// 99 of 100 answers took no longer, in microseconds.
    pub p99_us: u64,
    /// Answers by the version that gave them.
    pub versions: BTreeMap<String, u64>,
    /// By second since the start.
    pub timeline: Vec<Second>,
    /// The first thousand.
    pub failures: Vec<FailedRequest>,
}

/// One second of a load.
#[derive(Debug, Clone, Deserialize)]
pub struct Second {
    /// Since the start.
    pub second: u64,
    /// Answered with status 200.
    pub ok: u64,
    /// All others.
    pub failed: u64,
    /// Answers by version.
    pub versions: BTreeMap<String, u64>,
}

/// A request that failed.
#[derive(Debug, Clone, Deserialize)]
pub struct FailedRequest {
    /// Since the start of the load.
    pub at_ms: u64,
    /// Step and error.
    pub cause: String,
}

impl<'a> LoadBuilder<'a> {
    pub(crate) fn new(namespace: &'a Namespace, url: &str) -> Self {
        Self {
            namespace,
            url: url.to_owned(),
            rate: 300,
            keep_alive: 0,
            count: 200_000,
            limit: Duration::from_mins(10),
        }
    }

    /// Requests per second, each on a connection of its own; 300 if not given.
    pub fn rate(mut self, per_second: u32) -> Self {
        self.rate = per_second;
        self
    }

    /// Further workers that keep their connection, with ten requests per second each.
    pub fn keep_alive(mut self, workers: u32) -> Self {
        self.keep_alive = workers;
        self
    }

    /// Ends after so many requests; 200,000 if not given.
    pub fn count(mut self, requests: u64) -> Self {
        self.count = requests;
        self
    }

    /// Ends after this time; 10 minutes if not given.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Starts it and waits for the first answer, so that what follows is seen by a running load.
    pub async fn start(self) -> Result<Load<'a>> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let pod = format!("load-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let words = [
            "shopd".to_owned(),
            "load".into(),
            self.url,
            "--rate".into(),
            self.rate.to_string(),
            "--keep-alive".into(),
            self.keep_alive.to_string(),
            "--count".into(),
            self.count.to_string(),
            "--seconds".into(),
            self.limit.as_secs().to_string(),
        ];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.namespace.run_pod(&pod, Image::Shop, &words).await?;
        let load = Load { namespace: self.namespace, pod };
        self.namespace
            .until("the first answer to the load", Duration::from_secs(30), async || {
                load.report().await.is_ok_and(|report| report.total > 0)
            })
            .await?;
        Ok(load)
    }
}

impl Load<'_> {
    /// What it saw so far.
    pub async fn report(&self) -> Result<Report> {
        self.control("report").await
    }

    /// Ends it, waits for the requests on their way and gives what it saw.
    pub async fn finish(self) -> Result<Report> {
        let report = self.control("finish").await?;
        self.namespace.kubectl(["delete", "pod", &self.pod, "--grace-period=1"]).await?;
        Ok(report)
    }

    /// Waits until so many requests have been answered by `version`.
    pub async fn until_answered_by(&self, version: &str, count: u64, limit: Duration) -> Result<()> {
        let what = format!("{count} answers of {version}");
        self.namespace
            .until(&what, limit, async || {
                let Ok(report) = self.report().await else { return false };
                report.versions.get(version).is_some_and(|answers| *answers >= count)
            })
            .await
    }

    async fn control(&self, what: &str) -> Result<Report> {
        let text = self
            .namespace
            .exec(&self.pod, ["shopd".to_owned(), "ask".into(), format!("http://127.0.0.1:7070/{what}")])
            .await
            .with_context(|| format!("the load {} does not answer", self.pod))?;
        serde_json::from_str(&text).with_context(|| format!("no report: {text}"))
    }
}

impl Report {
    /// Itself if nothing failed, else an error with the first causes.
    pub fn require_no_failure(self) -> Result<Self> {
        if self.failed == 0 {
            return Ok(self);
        }
        let first: Vec<_> = self
            .failures
            .iter()
            .take(10)
            .map(|failure| format!("  at {} ms: {}", failure.at_ms, failure.cause))
            .collect();
        bail!("{} of {} requests failed:\n{}", self.failed, self.total, first.join("\n"));
    }

    /// Answers of `version`.
    pub fn answers_of(&self, version: &str) -> u64 {
        self.versions.get(version).copied().unwrap_or(0)
    }
}
