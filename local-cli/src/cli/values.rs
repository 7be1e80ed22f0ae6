//! Values of flags that are more than a word: read once, for the command line, the variables and the files.

use devproxy_capture::LocalRoutes;
use devproxy_cluster::{PortMapping, Protocol, ReadyMode};

/// `POD[:LOCAL][/udp|/tcp]`
pub(super) fn mapping(text: &str) -> Result<PortMapping, String> {
    let read: devproxy_capture::PortMapping = text
        .parse()
        .map_err(|_| format!("`{text}` is not POD[:LOCAL][/udp], as in 8080, 8080:3000 or 53:5353/udp"))?;
    let protocol = match read.protocol {
        devproxy_tunnel::control::Protocol::Tcp => Protocol::Tcp,
        devproxy_tunnel::control::Protocol::Udp => Protocol::Udp,
    };
    Ok(PortMapping { pod: read.pod, local: read.local, protocol })
}

/// `listen` or `http:/PATH`
pub(super) fn ready(text: &str) -> Result<ReadyMode, String> {
    let is_path =
        |path: &&str| path.starts_with('/') && !path.contains(|c: char| c.is_whitespace() || c.is_control());
    match text.strip_prefix("http:").filter(is_path) {
        Some(path) => Ok(ReadyMode::Http(path.to_owned())),
        None if text == "listen" => Ok(ReadyMode::Listen),
        None => Err(format!("`{text}` is neither `listen` nor `http:/PATH`, as in http:/healthz")),
    }
}

/// A name, `*.suffix`, address or network.
pub(super) fn local(text: &str) -> Result<String, String> {
    match LocalRoutes::parse([text]) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{error}; it may be as db.example, *.example or 10.0.0.0/8")),
    }
}

/// A number of seconds.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number of seconds, as in 30"))
}

/// A port.
pub(super) fn port(text: &str) -> Result<u16, String> {
    text.parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("`{text}` is not a port from 1 to 65535, as in 9229"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_docker_writes_them() {
        let read = |text| mapping(text).map(|m| (m.pod, m.local, m.protocol)).ok();
        assert_eq!(read("8080"), Some((8080, 8080, Protocol::Tcp)));
        assert_eq!(read("8080:3000"), Some((8080, 3000, Protocol::Tcp)));
        assert_eq!(read("53:5353/udp"), Some((53, 5353, Protocol::Udp)));
        for wrong in ["", "0", "x", "80:", ":80", "80:90:100", "80/sctp", "70000"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_path_that_tells_readiness_begins_with_a_slash() {
        assert_eq!(ready("http:/healthz"), Ok(ReadyMode::Http("/healthz".into())));
        for wrong in ["", "now", "http:", "http:healthz", "http:/a b"] {
            assert!(ready(wrong).is_err(), "{wrong:?}");
        }
    }
}
