//! Processes that outlive the one that started them, found again by id and start time.
//!
//! An id alone is not enough: the kernel gives it to somebody else later. The start time (field 22 of
//! /proc/PID/stat, in clock ticks since boot) makes it unique until the next boot, when neither exists.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process, also when its id is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessId {
    /// Its number.
    pub pid: i32,
    start: u64,
}

impl ProcessId {
    /// The process that has this number now.
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, start: start_time(pid)? })
    }

    /// When it started, in clock ticks since boot.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The name that ps shows.
    pub fn name(&self) -> String {
        fs::read_to_string(format!("/proc/{}/comm", self.pid)).unwrap_or_default().trim_end().to_owned()
    }

    /// Its command line; empty for one that has ended.
    pub fn words(&self) -> Vec<String> {
        let line = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let words = line.strip_suffix(b"\0").unwrap_or_default().split(|byte| *byte == 0);
        words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }

    /// Still the same process, and not a zombie.
    pub fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.start)
    }

    /// Sends `signal` if it is still this process.
    pub fn signal(&self, signal: Signal) {
        if self.is_alive() {
            // It may end between the two calls; then there is nothing to do.
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }
}

/// The folder that remembers what was started, one file per process.
#[derive(Debug, Clone)]
pub struct Processes {
    records: PathBuf,
    logs: PathBuf,
}

impl Processes {
    /// Remembers in `state`/processes and logs to `state`/log.
    pub fn in_folder(state: &Path) -> Result<Self> {
        let (records, logs) = (state.join("processes"), state.join("log"));
        fs::create_dir_all(&records)?;
        fs::create_dir_all(&logs)?;
        Ok(Self { records, logs })
    }

    /// Starts `command` as `name`, with its output in a log of that name, in a process group of its own.
    pub fn start(&self, name: &str, command: &mut Command) -> Result<ProcessId> {
        let log = fs::File::create(self.log(name))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let pid = i32::try_from(child.id())?;
        let id = ProcessId::of(pid).with_context(|| format!("{name} ended at once"))?;
        fs::write(self.records.join(name), format!("{} {}\n", id.pid, id.start))?;
        Ok(id)
    }

    /// The log of `name`.
    pub fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    /// What was started and when it still lives.
    pub fn all(&self) -> Vec<(String, ProcessId)> {
        let Ok(entries) = fs::read_dir(&self.records) else { return Vec::new() };
        let mut all: Vec<_> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let text = fs::read_to_string(entry.path()).ok()?;
                let (pid, start) = text.trim().split_once(' ')?;
                let id = ProcessId { pid: pid.parse().ok()?, start: start.parse().ok()? };
                Some((entry.file_name().to_string_lossy().into_owned(), id))
            })
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Whether `name` was started and lives.
    pub fn is_alive(&self, name: &str) -> bool {
        self.all().iter().any(|(known, id)| known == name && id.is_alive())
    }

    /// Ends `name` with `signal`; after `patience` with SIGKILL.
    pub fn end(&self, name: &str, signal: Signal, patience: Duration) {
        for (_, id) in self.all().into_iter().filter(|(known, _)| known == name) {
            end_all(&[id], signal, patience);
        }
        let _ = fs::remove_file(self.records.join(name));
    }
}

/// Sends `signal` to all, waits at most `patience` for them, then sends SIGKILL and waits for that.
pub fn end_all(processes: &[ProcessId], signal: Signal, patience: Duration) {
    for process in processes {
        process.signal(signal);
    }
    if !wait_gone(processes, patience) {
        for process in processes {
            process.signal(Signal::SIGKILL);
        }
        wait_gone(processes, Duration::from_secs(5));
    }
}

/// All processes for which `wanted` says yes, told by number.
pub fn find_all(wanted: impl Fn(i32) -> bool) -> Vec<ProcessId> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|&pid| wanted(pid))
        .filter_map(ProcessId::of)
        .collect()
}

fn wait_gone(processes: &[ProcessId], limit: Duration) -> bool {
    let end = Instant::now() + limit;
    while processes.iter().any(ProcessId::is_alive) {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// Field 22 of /proc/PID/stat; none for a zombie, which is as good as gone.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses, which may itself hold spaces and parentheses.
    let mut fields = stat.get(stat.rfind(')')? + 2..)?.split(' ');
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_process_is_alive_and_another_start_time_is_not() {
        let own = ProcessId::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.is_alive());
        assert!(!ProcessId { start: own.start + 1, ..own }.is_alive());
    }
}
