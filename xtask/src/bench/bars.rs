//! What the figures should be at least, as the project's issue on speed says.

use serde::Serialize;

use super::columns::Column;
use super::figures::Figures;
use super::processes::Role;
use super::statistics::{largest, ratio};

/// A figure and its limit.
#[derive(Debug, Serialize)]
pub(crate) struct Bar {
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) seen: Option<f64>,
    pub(crate) limit: Limit,
}

/// Which side of it is good.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Limit {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
}

use Limit::{AtLeast, AtMost, Below};

const PF: Column = Column::PortForward;
const PUMP: Column = Column::Pump;
const OUT: Column = Column::Outbound;
const IN: Column = Column::Inbound;

impl Bar {
    /// None if it was not measured.
    pub(crate) fn passed(&self) -> Option<bool> {
        let seen = self.seen?;
        Some(match self.limit {
            AtLeast(limit) => seen >= limit,
            AtMost(limit) => seen <= limit,
            Below(limit) => seen < limit,
        })
    }
}

/// All of them.
pub(crate) fn all(figures: &Figures) -> Vec<Bar> {
    let look = Look(figures);
    [look.bulk(), look.requests(), look.delayed(), look.memory(), look.start()]
        .into_iter()
        .flatten()
        .collect()
}

struct Look<'a>(&'a Figures);

impl Look<'_> {
    fn bulk(&self) -> Vec<Bar> {
        let mut bars = Vec::new();
        for (connections, limit) in [(1, 1.0), (8, 1.15)] {
            for way in ["down", "up"] {
                let row = format!("bulk-{way}-{connections}");
                let speed = |column| (row.as_str(), column);
                let times = |a, b| self.ratio("MB/s", a, b);
                bars.push(bar(
                    format!("{row}: outbound / port-forward"),
                    "×",
                    times(speed(OUT), speed(PF)),
                    AtLeast(limit),
                ));
                bars.push(bar(
                    format!("{row}: outbound / bare pump"),
                    "×",
                    times(speed(OUT), speed(PUMP)),
                    AtLeast(0.9),
                ));
                // A download by a pod is an upload of the laptop.
                let same_way = format!("bulk-{}-{connections}", if way == "down" { "up" } else { "down" });
                let inbound = times((&same_way, IN), speed(OUT));
                let to = if way == "down" { "to" } else { "from" };
                bars.push(bar(
                    format!("bytes {to} the laptop, {connections}: inbound / outbound"),
                    "×",
                    inbound,
                    AtLeast(0.8),
                ));
            }
        }
        for column in [OUT, IN] {
            let gaps: Vec<f64> = ["bulk-down-1", "bulk-up-1", "bulk-down-8", "bulk-up-8"]
                .iter()
                .flat_map(|row| self.0.of(row, "longest gap, ms", column.name()).iter().copied())
                .collect();
            let longest = (!gaps.is_empty()).then(|| largest(gaps.into_iter()));
            bars.push(bar(
                format!("{}: longest time without bytes", column.name()),
                "ms",
                longest,
                Below(1000.0),
            ));
            for row in ["bulk-down-8", "bulk-up-8"] {
                let fair = self.0.median(row, "slowest/mean", column.name());
                bars.push(bar(format!("{row}: {}, slowest / mean", column.name()), "", fair, AtLeast(0.7)));
            }
        }
        bars
    }

    fn requests(&self) -> Vec<Bar> {
        let mut bars = Vec::new();
        for column in [OUT, IN] {
            let name = column.name();
            let rate = self.ratio("per second", ("connections", column), ("connections", PF));
            bars.push(bar(format!("connections per second: {name} / port-forward"), "×", rate, AtLeast(4.0)));
            let sum = |figure| {
                let of = |row| self.0.of(row, figure, name).iter();
                let values: Vec<f64> = of("connections").chain(of("connections-many")).copied().collect();
                (!values.is_empty()).then(|| values.iter().sum::<f64>())
            };
            let count = sum("count").unwrap_or_default();
            bars.push(bar(
                format!("connections: failed of {count:.0} {name}"),
                "",
                sum("failed"),
                AtMost(0.0),
            ));
        }
        let idle = self.ratio("p50 ms", ("latency", OUT), ("latency", PF));
        bars.push(bar("idle round trip p50: outbound / port-forward".into(), "×", idle, AtMost(1.3)));
        for row in ["latency-beside-down", "latency-beside-up"] {
            let beside = self.ratio("p99 ms", (row, OUT), (row, PF));
            bars.push(bar(format!("{row}: p99 outbound / port-forward"), "×", beside, AtMost(0.1)));
        }
        let http = self.ratio("per second", ("http1", OUT), ("http1", PF));
        bars.push(bar("HTTP/1.1 requests: outbound / port-forward".into(), "×", http, AtLeast(1.5)));
        let cached = self.0.median("dns-same", "p50 ms", OUT.name());
        bars.push(bar("DNS, cached: p50".into(), "ms", cached, Below(0.2)));
        let uncached = self.0.of("dns-new", "p50 ms", OUT.name());
        let times = ratio(uncached, self.0.of("latency", "p50 ms", OUT.name()));
        bars.push(bar("DNS, uncached: p50 / idle round trip".into(), "×", times, AtMost(1.5)));
        bars
    }

    fn delayed(&self) -> Vec<Bar> {
        let of = |way| {
            let (one, eight) = (format!("bulk-{way}-1@80ms"), format!("bulk-{way}-8@80ms"));
            let times = self.ratio("MB/s", (&one, OUT), (&eight, OUT));
            bar(format!("80 ms, {way}: one flow / eight together"), "×", times, AtLeast(0.8))
        };
        ["down", "up"].map(of).into()
    }

    fn memory(&self) -> Vec<Bar> {
        let mut bars = Vec::new();
        let of = |figure: &str, role: Role| self.0.median("memory", figure, role.name());
        let sum = |figure, roles: &[Role]| roles.iter().map(|role| of(figure, *role)).sum::<Option<f64>>();
        // PSS counts a page of the program once, however many of its processes map it.
        let idle = sum("idle PSS, MB", &[Role::Terminal, Role::Session, Role::Namespaces]);
        let peak = sum("peak RSS, MB", &[Role::Terminal, Role::Session]);
        let agent = Role::Agent;
        bars.extend([
            bar("memory of the laptop's processes, idle (PSS)".into(), "MB", idle, AtMost(20.0)),
            bar("memory of the laptop's two processes, peak (RSS)".into(), "MB", peak, AtMost(50.0)),
            bar("memory of the agent, idle (RSS)".into(), "MB", of("idle RSS, MB", agent), AtMost(8.0)),
            bar("memory of the agent, peak (RSS)".into(), "MB", of("peak RSS, MB", agent), AtMost(25.0)),
        ]);
        for way in ["outbound", "inbound"] {
            for role in [Role::Session, Role::Agent] {
                let each = self.0.median("idle-flows", &format!("KiB each, 10000 {way}"), role.name());
                let what = format!("an idle flow of 10,000 {way}: {}", role.name());
                bars.push(bar(what, "KiB", each, AtMost(4.0)));
            }
        }
        for (file, limit) in [("agent", 3.0), ("CLI", 20.0)] {
            bars.push(bar(
                format!("{file} on disk"),
                "MB",
                self.0.median("size", "MB on disk", file),
                AtMost(limit),
            ));
        }
        bars
    }

    fn start(&self) -> Vec<Bar> {
        let of = |part, limit| {
            bar(format!("start: {part}"), "s", self.0.median("start", "s", part), AtMost(limit))
        };
        vec![of("enter to shell", 3.0), of("own part", 0.7)]
    }

    fn ratio(&self, figure: &str, own: (&str, Column), other: (&str, Column)) -> Option<f64> {
        let of = |(row, column): (&str, Column)| self.0.of(row, figure, column.name());
        let (own, other) = (of(own), of(other));
        if own.is_empty() || other.is_empty() { None } else { ratio(own, other) }
    }
}

fn bar(what: String, unit: &'static str, seen: Option<f64>, limit: Limit) -> Bar {
    Bar { what, unit, seen, limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_passed_missed_or_not_measured() {
        let passed = |seen, limit| bar(String::new(), "", seen, limit).passed();
        assert_eq!(passed(Some(1.15), AtLeast(1.15)), Some(true));
        assert_eq!(passed(Some(1.14), AtLeast(1.15)), Some(false));
        assert_eq!(passed(Some(0.2), Below(0.2)), Some(false));
        assert_eq!(passed(Some(0.0), AtMost(0.0)), Some(true));
        assert_eq!(passed(None, AtMost(0.0)), None);
    }

    #[test]
    fn inbound_is_compared_with_outbound_of_the_same_way() {
        let mut figures = Figures::default();
        figures.put("bulk-down-1", "MB/s", "outbound", 100.0);
        figures.put("bulk-up-1", "MB/s", "inbound", 90.0);
        figures.put("bulk-down-1", "MB/s", "inbound", 10.0);
        let bars = all(&figures);
        let seen = |what: &str| bars.iter().find(|bar| bar.what == what).unwrap().seen;
        assert_eq!(seen("bytes to the laptop, 1: inbound / outbound"), Some(0.9));
        assert_eq!(seen("bytes from the laptop, 1: inbound / outbound"), None);
        assert_eq!(seen("bulk-down-1: outbound / port-forward"), None);
    }

    #[test]
    fn failures_of_all_rounds_are_added() {
        let mut figures = Figures::default();
        for (row, count, failed) in [("connections", 100.0, 0.0), ("connections-many", 50_000.0, 2.0)] {
            figures.put(row, "count", "inbound", count);
            figures.put(row, "failed", "inbound", failed);
        }
        let bars = all(&figures);
        let bar = bars.iter().find(|bar| bar.what == "connections: failed of 50100 inbound").unwrap();
        assert_eq!(bar.passed(), Some(false));
    }
}
