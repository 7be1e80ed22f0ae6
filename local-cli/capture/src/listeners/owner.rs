//! Which program holds a socket.

use std::{fs, io};

/// A process that holds a listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Process id, as the caller's `/proc` counts.
    pub pid: i32,
    /// Its command line without its folder, or its name where it has none.
    pub command: String,
}

/// Finds a holder of the socket with this inode; the lowest pid if several (a parent that forked its workers).
///
/// Reads the descriptors of every process of the user: some milliseconds, for a line that is printed once.
pub fn owner(inode: u32) -> io::Result<Option<Owner>> {
    let link = format!("socket:[{inode}]");
    let mut pids: Vec<i32> = devproxy_namespaces::processes()?.collect();
    pids.sort_unstable();
    // Our own process never serves a port of the shell.
    pids.retain(|pid| u32::try_from(*pid) != Ok(std::process::id()));
    Ok(pids.into_iter().find(|pid| holds(*pid, &link)).map(|pid| Owner { pid, command: command(pid) }))
}

/// `false` also for processes of others, which may not be looked into.
fn holds(pid: i32, link: &str) -> bool {
    fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|mut open| {
        open.any(|entry| {
            entry.and_then(|entry| fs::read_link(entry.path())).is_ok_and(|target| target.as_os_str() == link)
        })
    })
}

/// Arguments after the first that are shown.
const ARGUMENTS: usize = 2;
/// Characters that are shown: an argument may be a whole script.
const LONGEST: usize = 48;

fn command(pid: i32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let name = || fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
    shortened(&line).unwrap_or_else(name)
}

/// The words of a `cmdline` as one short line; `None` if there are none.
fn shortened(line: &[u8]) -> Option<String> {
    let mut words =
        line.split(|byte| *byte == 0).filter(|word| !word.is_empty()).map(String::from_utf8_lossy);
    let program = words.next()?.rsplit('/').next().unwrap_or_default().to_owned();
    let whole = words.take(ARGUMENTS).fold(program, |line, word| format!("{line} {word}"));
    let first = whole.lines().next().unwrap_or_default();
    let mut shown: String = first.chars().take(LONGEST).collect();
    if shown.len() < whole.len() {
        shown.push('…');
    }
    Some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_socket_has_no_owner() {
        assert_eq!(owner(u32::MAX).unwrap(), None);
    }

    #[test]
    fn a_command_is_short() {
        let own = i32::try_from(std::process::id()).unwrap();
        let shown = command(own);
        assert!(shown.starts_with("devproxy_capture"), "{shown}");
        let shown = |line: &str| shortened(line.as_bytes());
        assert_eq!(
            shown("/usr/bin/node\0--inspect\0server.js\0--port\0").as_deref(),
            Some("node --inspect server.js")
        );
        assert_eq!(shown("python3\0-c\0import os\nos.fork()\0").as_deref(), Some("python3 -c import os…"));
        let long = shown(&format!("python3\0-c\0{}", "é".repeat(100))).unwrap();
        assert_eq!(long.chars().count(), LONGEST + 1, "{long}");
        assert_eq!(shown(""), None);
    }
}
