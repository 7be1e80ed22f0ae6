//! What a load saw: totals, a timeline by second, the first failures with their causes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Failures kept with their cause.
const KEPT_FAILURES: usize = 1000;

#[derive(Debug)]
pub(super) struct Report {
    start: Instant,
    started: u128,
    ok: u64,
    failed: u64,
    /// Reused connections that the server had closed.
    pub(super) reopened: u64,
    /// In microseconds, one per answered request.
    took: Vec<u32>,
    slowest: Duration,
    versions: BTreeMap<String, u64>,
    seconds: BTreeMap<u64, Second>,
    failures: Vec<(u64, String)>,
}

#[derive(Debug, Default)]
struct Second {
    ok: u64,
    failed: u64,
    versions: BTreeMap<String, u64>,
}

impl Report {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            started: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis(),
            ok: 0,
            failed: 0,
            reopened: 0,
            took: Vec::new(),
            slowest: Duration::ZERO,
            versions: BTreeMap::new(),
            seconds: BTreeMap::new(),
            failures: Vec::new(),
        }
    }

    pub(super) fn success(&mut self, took: Duration, version: &str) {
        self.ok += 1;
        self.slowest = self.slowest.max(took);
        self.took.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        *self.versions.entry(version.to_owned()).or_default() += 1;
        let second = self.seconds.entry(self.start.elapsed().as_secs()).or_default();
        second.ok += 1;
        *second.versions.entry(version.to_owned()).or_default() += 1;
    }

    pub(super) fn failure(&mut self, took: Duration, cause: &str) {
        self.failed += 1;
        self.seconds.entry(self.start.elapsed().as_secs()).or_default().failed += 1;
        let at = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        println!("failed at {at} ms after {} ms: {cause}", took.as_millis());
        if self.failures.len() < KEPT_FAILURES {
            self.failures.push((at, cause.to_owned()));
        }
    }

    pub(super) fn answered(&self) -> u64 {
        self.ok + self.failed
    }

    pub(super) fn json(&mut self) -> String {
        self.took.sort_unstable();
        let share = |part: usize| self.took.get(self.took.len() * part / 100).copied().unwrap_or(0);
        let mut json = format!(
            r#"{{"started_unix_ms":{},"elapsed_ms":{},"total":{},"ok":{},"failed":{},"reopened":{},"slowest_ms":{},"p50_us":{},"p99_us":{},"versions":{}"#,
            self.started,
            self.start.elapsed().as_millis(),
            self.answered(),
            self.ok,
            self.failed,
            self.reopened,
            self.slowest.as_millis(),
            share(50),
            share(99),
            counts(&self.versions),
        );
        let seconds = self.seconds.iter().map(|(at, second)| {
            format!(
                r#"{{"second":{at},"ok":{},"failed":{},"versions":{}}}"#,
                second.ok,
                second.failed,
                counts(&second.versions)
            )
        });
        let failures =
            self.failures.iter().map(|(at, cause)| format!(r#"{{"at_ms":{at},"cause":{}}}"#, quoted(cause)));
        let _ = write!(
            json,
            r#","timeline":[{}],"failures":[{}]}}"#,
            seconds.collect::<Vec<_>>().join(","),
            failures.collect::<Vec<_>>().join(",")
        );
        json
    }
}

fn counts(counts: &BTreeMap<String, u64>) -> String {
    let pairs: Vec<_> = counts.iter().map(|(name, count)| format!("{}:{count}", quoted(name))).collect();
    format!("{{{}}}", pairs.join(","))
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(control));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}
