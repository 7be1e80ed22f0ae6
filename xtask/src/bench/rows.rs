//! What is measured, and how the load's words become figures.

use anyhow::{Context as _, Result};
use serde::de::DeserializeOwned;
use shopd::bench::result::{Beside, Requests, Stream};

use super::columns::Column;
use super::statistics::{fairness, largest};

/// One kind of load on some columns.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// As `shopd bench` calls it.
    pub(crate) kind: &'static str,
    pub(crate) columns: &'static [Column],
    pub(crate) connections: u32,
    /// Also measured with delay.
    pub(crate) delayed: bool,
    /// Measured in the last round only, until it has its count.
    pub(crate) once: bool,
    read: fn(&str) -> Result<Seen>,
}

/// Figures of one measurement by name.
pub(crate) type Seen = Vec<(&'static str, f64)>;

const ALL: &[Column] = &Column::ALL;
const THROUGH: &[Column] = &[Column::Direct, Column::PortForward, Column::Outbound, Column::Inbound];
/// Port-forward carries no datagrams.
const DATAGRAMS: &[Column] = &[Column::Direct, Column::Outbound, Column::Inbound];
const SESSION: &[Column] = &[Column::Outbound, Column::Inbound];
const NAMES: &[Column] = &[Column::Direct, Column::Outbound];

const fn row(name: &'static str, columns: &'static [Column], read: fn(&str) -> Result<Seen>) -> Row {
    Row { name, kind: name, columns, connections: 1, delayed: false, once: false, read }
}

const fn bulk(name: &'static str, kind: &'static str, connections: u32) -> Row {
    Row { name, kind, columns: ALL, connections, delayed: true, once: false, read: streams }
}

/// All rows that are a load, in their order within a round.
pub(crate) const ROWS: &[Row] = &[
    bulk("bulk-down-1", "bulk-down", 1),
    bulk("bulk-up-1", "bulk-up", 1),
    bulk("bulk-down-8", "bulk-down", 8),
    bulk("bulk-up-8", "bulk-up", 8),
    Row { delayed: true, ..row("latency", ALL, beside) },
    Row { delayed: true, ..row("latency-beside-down", THROUGH, beside) },
    Row { delayed: true, ..row("latency-beside-up", THROUGH, beside) },
    Row { connections: 16, delayed: true, ..row("connections", THROUGH, requests) },
    Row {
        kind: "connections-ended",
        connections: 16,
        once: true,
        ..row("connections-many", SESSION, requests)
    },
    Row { connections: 32, delayed: true, ..row("http1", THROUGH, requests) },
    Row { connections: 4, ..row("http2", THROUGH, requests) },
    row("udp", DATAGRAMS, requests),
    row("dns-same", NAMES, requests),
    row("dns-new", NAMES, requests),
];

/// Rows that are no load.
pub(crate) const OTHERS: &[&str] = &["memory", "idle-flows", "start", "size"];

impl Row {
    pub(crate) fn delayed_name(&self, millis: u64) -> String {
        format!("{}@{millis}ms", self.name)
    }

    /// Whether its length is that of bulk.
    pub(crate) fn is_bulk(&self) -> bool {
        self.kind.starts_with("bulk")
    }

    /// The figures in what the load printed.
    pub(crate) fn read(&self, printed: &str) -> Result<Seen> {
        (self.read)(printed)
    }
}

fn parse<T: DeserializeOwned>(printed: &str) -> Result<T> {
    serde_json::from_str(printed.trim()).with_context(|| format!("the load printed no result: {printed:?}"))
}

fn streams(printed: &str) -> Result<Seen> {
    let streams: Vec<Stream> = parse(printed)?;
    let each: Vec<_> = streams.iter().map(Stream::megabytes_per_second).collect();
    let mut seen = vec![
        ("MB/s", each.iter().sum()),
        ("longest gap, ms", largest(streams.iter().map(|stream| stream.longest_gap_ms))),
    ];
    if each.len() > 1 {
        seen.push(("slowest/mean", fairness(&each)));
    }
    Ok(seen)
}

fn requests(printed: &str) -> Result<Seen> {
    Ok(of_requests(&parse(printed)?))
}

fn beside(printed: &str) -> Result<Seen> {
    let Beside { requests, bulk } = parse(printed)?;
    let mut seen = of_requests(&requests);
    seen.extend(bulk.map(|stream| ("bulk MB/s", stream.megabytes_per_second())));
    Ok(seen)
}

fn of_requests(requests: &Requests) -> Seen {
    #[expect(clippy::cast_precision_loss, reason = "counts of a few million")]
    let (count, failed) = (requests.times.count as f64, requests.failed() as f64);
    vec![
        ("per second", requests.per_second()),
        ("p50 ms", requests.times.p50_us / 1e3),
        ("p99 ms", requests.times.p99_us / 1e3),
        ("max ms", requests.times.max_us / 1e3),
        ("count", count),
        ("failed", failed),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(seen: &Seen, name: &str) -> f64 {
        seen.iter().find(|(own, _)| *own == name).unwrap().1
    }

    #[test]
    fn streams_are_added_and_their_slowest_is_told() {
        let stream =
            |bytes, gap| Stream { bytes, measured_ms: 1000.0, longest_gap_ms: gap, tenths: Vec::new() };
        let printed = serde_json::to_string(&[stream(1_000_000, 3.0), stream(3_000_000, 9.0)]).unwrap();
        let seen = ROWS[2].read(&printed).unwrap();
        assert!((figure(&seen, "MB/s") - 4.0).abs() < 1e-9);
        assert!((figure(&seen, "slowest/mean") - 0.5).abs() < 1e-9);
        assert!((figure(&seen, "longest gap, ms") - 9.0).abs() < 1e-9);
    }

    #[test]
    fn failures_are_figures_too() {
        let mut requests = Requests { measured_ms: 1000.0, ..Requests::default() };
        requests.failures.insert("connect: refused".into(), 4);
        let seen = self::requests(&serde_json::to_string(&requests).unwrap()).unwrap();
        assert!((figure(&seen, "failed") - 4.0).abs() < 1e-9);
        assert!(self::requests("shopd: no server").is_err());
    }

    #[test]
    fn no_two_rows_have_the_same_name() {
        let mut names: Vec<_> = ROWS.iter().map(|row| row.name).chain(OTHERS.iter().copied()).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
