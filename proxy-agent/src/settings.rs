//! The command line: `--key FILE --tunnel-port N --ready-port N`, parsed by hand to keep the binary small.

use std::{
    ffi::OsString,
    io::{self, Read as _},
    path::PathBuf,
};

use devproxy_tunnel::SessionKey;

/// What the agent is told at its start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Proves to the laptop that this is its agent, and to the agent that this is its laptop.
    pub key: SessionKey,
    /// Carriers arrive here, on the pod's loopback only.
    pub tunnel_port: u16,
    /// Open on all addresses while the stand-in is ready.
    pub ready_port: u16,
}

/// The command line or the key is wrong.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// An argument that does not exist.
    #[error("unknown argument `{0}`; usage: devproxy-agent --key FILE --tunnel-port N --ready-port N")]
    Unknown(String),
    /// An argument without its value, or not given at all.
    #[error("`{0}` is missing; usage: devproxy-agent --key FILE --tunnel-port N --ready-port N")]
    Missing(&'static str),
    /// Not a port number from 1 to 65535.
    #[error("`{0}` is not a port from 1 to 65535")]
    Port(&'static str),
    /// The key file cannot be read.
    #[error("cannot read the key file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key file is not [`SessionKey::LEN`] bytes long.
    #[error("the key file {0} does not hold exactly {len} bytes", len = SessionKey::LEN)]
    Key(PathBuf),
}

impl Settings {
    /// Reads the arguments (without the program's name) and the key file.
    pub fn from_arguments(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, SettingsError> {
        let (mut key, mut tunnel_port, mut ready_port) = (None, None, None);
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let (name, slot) = match argument.to_str() {
                Some("--key") => ("--key", &mut key),
                Some("--tunnel-port") => ("--tunnel-port", &mut tunnel_port),
                Some("--ready-port") => ("--ready-port", &mut ready_port),
                _ => return Err(SettingsError::Unknown(argument.to_string_lossy().into_owned())),
            };
            *slot = Some(arguments.next().ok_or(SettingsError::Missing(name))?);
        }
        let tunnel_port = port("--tunnel-port", tunnel_port)?;
        let ready_port = port("--ready-port", ready_port)?;
        let key = read_key(PathBuf::from(key.ok_or(SettingsError::Missing("--key"))?))?;
        Ok(Self { key, tunnel_port, ready_port })
    }
}

fn port(name: &'static str, value: Option<OsString>) -> Result<u16, SettingsError> {
    let value = value.ok_or(SettingsError::Missing(name))?;
    let number = value.to_str().and_then(|text| text.parse().ok()).filter(|port| *port != 0);
    number.ok_or(SettingsError::Port(name))
}

fn read_key(path: PathBuf) -> Result<SessionKey, SettingsError> {
    let mut bytes = Vec::with_capacity(SessionKey::LEN + 1);
    let read = std::fs::File::open(&path).and_then(|file| {
        // One byte more than a key tells a longer file from a right one without reading all of it.
        file.take(SessionKey::LEN as u64 + 1).read_to_end(&mut bytes)
    });
    match read {
        Err(source) => Err(SettingsError::Read { path, source }),
        Ok(_) => SessionKey::from_slice(&bytes).ok_or(SettingsError::Key(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Settings, SettingsError> {
        Settings::from_arguments(arguments.iter().map(OsString::from))
    }

    #[test]
    fn a_complete_command_line_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, [7; 32]).unwrap();
        let settings =
            parse(&["--ready-port", "2", "--key", file.to_str().unwrap(), "--tunnel-port", "1"]).unwrap();
        assert_eq!((settings.tunnel_port, settings.ready_port), (1, 2));
        assert_eq!(settings.key.as_bytes(), &[7; 32]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, [7; 33]).unwrap();
        let key = file.to_str().unwrap();
        let error = |arguments: &[&str]| parse(arguments).unwrap_err().to_string();
        assert!(
            error(&["--key", key, "--tunnel-port", "1", "--ready-port", "2"]).contains("exactly 32 bytes")
        );
        assert!(error(&["--tunnel-port", "1"]).contains("`--ready-port` is missing"));
        assert!(
            error(&["--tunnel-port", "0", "--ready-port", "2"]).contains("`--tunnel-port` is not a port")
        );
        assert!(error(&["--verbose"]).contains("unknown argument `--verbose`"));
        assert!(
            error(&["--key", "/nowhere", "--tunnel-port", "1", "--ready-port", "2"]).contains("/nowhere")
        );
    }
}
