//! What the shell's /etc has instead of the laptop's.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::Files;

/// Writes the replacing files below `upper`.
pub(super) fn replace(upper: &Path, files: &Files) -> io::Result<()> {
    fs::write(upper.join("resolv.conf"), &files.resolv_conf)?;
    fs::write(upper.join("hosts"), &files.hosts)?;
    fs::write(upper.join("hostname"), format!("{}\n", files.hostname.trim_end()))?;
    let nsswitch = fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    fs::write(upper.join("nsswitch.conf"), without_leaks(&nsswitch))?;
    for (path, content) in ssh_configuration(Path::new("/etc/ssh/ssh_config")) {
        // Only what lies in /etc can be replaced here.
        let Ok(below) = path.strip_prefix("/etc") else { continue };
        let copy = upper.join(below);
        if let Some(folder) = copy.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(copy, content)?;
    }
    Ok(())
}

/// Host names come from the pod's files and its DNS only: `resolve`, `mdns` and `myhostname` would ask the laptop's
/// services by Unix sockets, past every network namespace.
fn without_leaks(nsswitch: &str) -> String {
    let others = nsswitch.lines().filter(|line| !line.trim_start().starts_with("hosts:"));
    others.chain(["hosts: files dns"]).flat_map(|line| [line, "\n"]).collect()
}

/// The system's configuration of ssh with all that it includes. Root's files look like nobody's in the user
/// namespace, and ssh refuses to include a file that is neither root's nor the user's; a copy is the user's.
fn ssh_configuration(first: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    let mut waiting = vec![first.to_owned()];
    while let Some(path) = waiting.pop() {
        if found.iter().any(|(known, _)| *known == path) || found.len() >= 100 {
            continue;
        }
        let Ok(content) = fs::read(&path) else { continue };
        for line in String::from_utf8_lossy(&content).lines() {
            waiting.extend(included(line).flat_map(|pattern| matching(&pattern)));
        }
        found.push((path, content));
    }
    found
}

/// Patterns of an `Include` line; relative ones are below /etc/ssh.
fn included(line: &str) -> impl Iterator<Item = PathBuf> {
    let mut words = line.split([' ', '\t', '=']).filter(|word| !word.is_empty());
    let include = words.next().is_some_and(|word| word.eq_ignore_ascii_case("include"));
    words.filter(move |_| include).map(|word| Path::new("/etc/ssh").join(word.trim_matches('"')))
}

/// Files of a pattern with at most one `*`, in its last component.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let name = pattern.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some((start, end)) = name.split_once('*') else { return vec![pattern.to_owned()] };
    let Some(entries) = pattern.parent().and_then(|folder| fs::read_dir(folder).ok()) else {
        return Vec::new();
    };
    let fits = |path: &PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix(start))
            .is_some_and(|rest| rest.ends_with(end))
    };
    entries.flatten().map(|entry| entry.path()).filter(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hosts_line_changes() {
        let laptop = "passwd: files systemd\nhosts: mymachines resolve [!UNAVAIL=return] files myhostname dns\nrpc: db\n";
        assert_eq!(without_leaks(laptop), "passwd: files systemd\nrpc: db\nhosts: files dns\n");
        assert_eq!(without_leaks(""), "hosts: files dns\n");
    }

    #[test]
    fn what_ssh_includes_is_found() {
        let at = tempfile::tempdir().unwrap();
        let parts = at.path().join("parts");
        fs::create_dir(&parts).unwrap();
        fs::write(parts.join("10-a.conf"), "Include \"/nowhere/x\"\n").unwrap();
        fs::write(parts.join("skipped"), "").unwrap();
        let first = at.path().join("ssh_config");
        fs::write(&first, format!("Host *\n  include {}/*.conf\n", parts.display())).unwrap();
        let found: Vec<_> = ssh_configuration(&first).into_iter().map(|(path, _)| path).collect();
        assert_eq!(found, [first, parts.join("10-a.conf")]);
        let relative: Vec<_> = included("Include=ssh_config.d/*.conf other").collect();
        assert_eq!(relative, [Path::new("/etc/ssh/ssh_config.d/*.conf"), Path::new("/etc/ssh/other")]);
    }
}
