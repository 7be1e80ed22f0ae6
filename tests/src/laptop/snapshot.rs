//! The state of a laptop: what must be byte-identical before, during and after a session.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::{Result, bail};

use super::slot::{LAPTOPS, Slot};
use crate::host::program::{is_installed, output};
use crate::node::Place;

/// Commands whose output is the network's state. None of them changes anything.
const NETWORK: &[&[&str]] = &[
    &["ip", "-oneline", "link"],
    &["ip", "-oneline", "address"],
    &["ip", "-4", "route", "show", "table", "all"],
    &["ip", "-6", "route", "show", "table", "all"],
    &["ip", "-4", "rule"],
    &["ip", "-6", "rule"],
    &["nft", "list", "ruleset"],
    &["iptables-save"],
    &["ip6tables-save"],
];

const FILES: &[&str] = &["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/gai.conf"];

/// Parts by name, each as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    parts: BTreeMap<String, String>,
}

impl Snapshot {
    pub(super) fn take(slot: &Slot) -> Result<Self> {
        let mut parts = BTreeMap::new();
        for words in NETWORK.iter().filter(|words| is_installed(words[0])) {
            let text = slot.network().enter(|| output(Command::new(words[0]).args(&words[1..])))?;
            // Comments of iptables-save hold the time.
            let text: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
            parts.insert(words.join(" "), text.join("\n"));
        }
        for file in FILES {
            // A file that does not exist must not exist later either.
            parts.insert((*file).to_owned(), format!("{:?}", fs::read_to_string(file).ok()));
        }
        parts.insert("mounts".into(), mounts());
        let files: Vec<_> = slot.files().iter().map(|path| path.display().to_string()).collect();
        parts.insert("files in shared folders".into(), files.join("\n"));
        parts.insert("files in the runtime folder".into(), listing(slot.runtime()));
        parts.insert("processes".into(), processes(slot));
        Ok(Self { parts })
    }

    /// Without the parts that a running session rightly changes: its processes and its runtime folder.
    #[must_use]
    pub fn outside_of_sessions(mut self) -> Self {
        self.parts.remove("processes");
        self.parts.remove("files in the runtime folder");
        self
    }

    /// What differs, line by line; nothing if equal.
    pub fn difference(&self, later: &Self) -> String {
        let mut said = String::new();
        for (name, before) in &self.parts {
            let after = later.parts.get(name).map_or("", String::as_str);
            if before != after {
                let _ = writeln!(said, "{name}:");
                for line in before.lines().filter(|line| !after.lines().any(|other| other == *line)) {
                    let _ = writeln!(said, "  - {line}");
                }
                for line in after.lines().filter(|line| !before.lines().any(|other| other == *line)) {
                    let _ = writeln!(said, "  + {line}");
                }
            }
        }
        said
    }

    /// An error with the difference unless `later` is equal.
    pub fn require_same(&self, later: &Self) -> Result<()> {
        if self != later {
            bail!("the laptop is not as it was:\n{}", self.difference(later));
        }
        Ok(())
    }
}

/// Of this machine, but for what the node's pods mount meanwhile.
fn mounts() -> String {
    let all = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let node = Place::First.state().display().to_string();
    let kept = all.lines().filter(|line| {
        let place = line.split(' ').nth(1).unwrap_or_default();
        place.starts_with(LAPTOPS) || !(place.starts_with(&node) || place.starts_with("/run/netns"))
    });
    kept.collect::<Vec<_>>().join("\n")
}

fn processes(slot: &Slot) -> String {
    let mut lines: Vec<_> = slot
        .processes()
        .iter()
        .map(|process| format!("{} {}", process.pid, process.words().join(" ")))
        .collect();
    lines.sort();
    lines.join("\n")
}

fn listing(folder: &std::path::Path) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            let path = entry.path();
            lines.push(path.display().to_string());
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            }
        }
    }
    lines.sort();
    lines.join("\n")
}
