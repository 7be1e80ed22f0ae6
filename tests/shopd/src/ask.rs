//! `shopd ask http://HOST:PORT/PATH [SECONDS]`: prints the answer if it comes within so many seconds (30); for pods
//! without curl.

use std::io::{Error, Result, Write as _};
use std::time::Duration;

use crate::client;

/// Prints the body; an answer other than 200 is an error.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let (url, seconds) = match words {
        [url] => (url, Some(30)),
        [url, seconds] => (url, seconds.parse().ok()),
        _ => return usage(),
    };
    let Some(seconds) = seconds else { return usage() };
    let (host, path) = split(url)?;
    let reply = client::get(&host, &path, Duration::from_secs(seconds))?;
    std::io::stdout().write_all(&reply.body)?;
    if reply.status == 200 { Ok(()) } else { Err(Error::other(format!("status {}", reply.status))) }
}

fn usage() -> Result<()> {
    Err(Error::other("usage: shopd ask http://HOST:PORT/PATH [SECONDS]"))
}

/// Host with port, and path.
pub(crate) fn split(url: &str) -> Result<(String, String)> {
    let rest =
        url.strip_prefix("http://").ok_or_else(|| Error::other(format!("`{url}` is no http:// address")))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let host = if has_port { host.to_owned() } else { format!("{host}:80") };
    Ok((host, format!("/{path}")))
}
