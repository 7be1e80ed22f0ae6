//! Memory and time of the processes that take part, from /proc.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use devproxy_tests::host::process::ProcessId;
use serde::Serialize;

/// Who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    Terminal,
    Session,
    Namespaces,
    Agent,
    PortForward,
    ApiServer,
    Kubelet,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Terminal => "terminal process",
            Self::Session => "session process",
            Self::Namespaces => "namespace helper",
            Self::Agent => "agent",
            Self::PortForward => "kubectl port-forward",
            Self::ApiServer => "API server",
            Self::Kubelet => "kubelet",
        }
    }
}

/// Everybody, found once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Processes {
    pub(crate) all: BTreeMap<Role, ProcessId>,
}

/// Memory of one process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Memory {
    pub(crate) rss: f64,
    /// What is shared with others divided among them.
    pub(crate) pss: f64,
    /// The most that it ever had.
    pub(crate) peak: f64,
}

/// Processor time since the start of each process.
pub(crate) type Times = BTreeMap<Role, Duration>;

impl Processes {
    pub(crate) fn memory(&self) -> Result<BTreeMap<Role, Memory>> {
        self.all.iter().map(|(role, process)| Ok((*role, memory(process.pid)?))).collect()
    }

    /// Those that have ended meanwhile are left out.
    pub(crate) fn times(&self) -> Times {
        self.all.iter().filter_map(|(role, process)| Some((*role, time(process.pid)?))).collect()
    }

    /// Resident memory of one, in bytes.
    pub(crate) fn rss(&self, role: Role) -> Result<f64> {
        let process = self.all.get(&role).with_context(|| format!("no {}", role.name()))?;
        Ok(memory(process.pid)?.rss)
    }
}

fn memory(pid: i32) -> Result<Memory> {
    let read = |file: &str| {
        fs::read_to_string(format!("/proc/{pid}/{file}")).with_context(|| format!("process {pid} has ended"))
    };
    let (status, rollup) = (read("status")?, read("smaps_rollup")?);
    Ok(Memory {
        rss: kilobytes(&status, "VmRSS:").unwrap_or(0.0),
        pss: kilobytes(&rollup, "Pss:").unwrap_or(0.0),
        peak: kilobytes(&status, "VmHWM:").unwrap_or(0.0),
    })
}

/// A line such as `VmRSS:      5012 kB`, as bytes.
fn kilobytes(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? * 1024.0)
}

fn time(pid: i32) -> Option<Duration> {
    ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Fields 14 and 15 of /proc/PID/stat, in hundredths of a second on all Linux machines.
fn ticks(stat: &str) -> Option<Duration> {
    // The name in parentheses may hold spaces and parentheses itself.
    let mut fields = stat.get(stat.rfind(')')? + 2..)?.split(' ').skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(Duration::from_millis((user + system) * 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_lines_of_proc() {
        let status = "Name:\tx\nVmHWM:\t    9000 kB\nVmRSS:\t    5012 kB\n";
        assert_eq!(kilobytes(status, "VmRSS:"), Some(5012.0 * 1024.0));
        assert_eq!(kilobytes(status, "VmSwap:"), None);
    }

    #[test]
    fn a_name_with_parentheses_does_not_move_the_fields() {
        let stat = "71 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0";
        assert_eq!(ticks(stat), Some(Duration::from_secs(2)));
    }
}
