//! What the environment says:
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `NAME` | the service that it plays | `shop` |
//! | `VERSION` | told in every answer | `v1` |
//! | `PORT` | HTTP | 8080 |
//! | `TCP_ECHO`, `UDP_ECHO` | ports of the echo servers | none |
//! | `GREETING` | what the TCP echo server says first | nothing |
//! | `DRAIN` | seconds of service after SIGTERM; 0 dies at once | 3 |
//! | `START_DELAY` | milliseconds before it listens | 0 |
//! | `REDIS` | `host:port` for `/redis/…` | `redis:6379` |

use std::time::Duration;

/// All settings, read once.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) port: u16,
    pub(crate) tcp_echo: Option<u16>,
    pub(crate) udp_echo: Option<u16>,
    pub(crate) greeting: Option<String>,
    pub(crate) drain: Duration,
    pub(crate) start_delay: Duration,
    pub(crate) redis: String,
}

impl Settings {
    pub(crate) fn from_environment() -> Self {
        let text = |name: &str| std::env::var(name).ok();
        let number = |name: &str| text(name)?.parse::<u16>().ok();
        let seconds = text("DRAIN").and_then(|text| text.parse().ok()).unwrap_or(3.0);
        Self {
            name: text("NAME").unwrap_or_else(|| "shop".into()),
            version: text("VERSION").unwrap_or_else(|| "v1".into()),
            port: number("PORT").unwrap_or(8080),
            tcp_echo: number("TCP_ECHO"),
            udp_echo: number("UDP_ECHO"),
            greeting: text("GREETING"),
            drain: Duration::from_secs_f64(seconds),
            start_delay: Duration::from_millis(number("START_DELAY").unwrap_or(0).into()),
            redis: text("REDIS").unwrap_or_else(|| "redis:6379".into()),
        }
    }
}

/// The host name as the kernel has it.
pub(crate) fn host_name() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
