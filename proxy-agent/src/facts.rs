//! What the agent knows about its container, told to the laptop first.

use std::{io::Read as _, os::unix::ffi::OsStringExt as _};

use devproxy_tunnel::control::{Facts, SCHEMA};
use nix::unistd::{getgid, getuid};

use crate::log;

mod interface;

/// /etc/hosts and /etc/resolv.conf are small; a mounted one may be anything.
const FILE_LIMIT: u64 = 1 << 20;

/// Collects everything. What cannot be found out is left empty, with a log line.
pub(crate) fn collect() -> Facts {
    let interface = interface::main();
    Facts {
        schema: SCHEMA,
        environment: std::env::vars_os().map(|(name, value)| (name.into_vec(), value.into_vec())).collect(),
        directory: std::env::current_dir().map_or_else(
            |e| {
                log::line(format_args!("the working directory is unknown: {e}"));
                "/".to_owned()
            },
            |directory| directory.to_string_lossy().into_owned(),
        ),
        hostname: nix::unistd::gethostname()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        addresses: interface.addresses,
        mtu: interface.mtu,
        resolv_conf: read("/etc/resolv.conf"),
        hosts: read("/etc/hosts"),
        uid: getuid().as_raw(),
        gid: getgid().as_raw(),
    }
}

fn read(path: &str) -> Vec<u8> {
    let mut content = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_LIMIT).read_to_end(&mut content));
    if let Err(e) = read {
        log::line(format_args!("cannot read {path}: {e}"));
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_are_those_of_this_process() {
        let facts = collect();
        assert_eq!(facts.schema, SCHEMA);
        let path = std::env::var_os("PATH").unwrap().into_vec();
        assert!(facts.environment.contains(&(b"PATH".to_vec(), path)));
        assert_eq!(facts.directory, std::env::current_dir().unwrap().to_str().unwrap());
        assert_eq!(facts.uid, getuid().as_raw());
        assert_eq!(facts.hosts, std::fs::read("/etc/hosts").unwrap());
        assert!(!facts.hostname.is_empty());
        assert!(facts.addresses.iter().all(|address| !address.is_loopback()));
        assert!(facts.mtu >= 68, "{}", facts.mtu);
    }
}
