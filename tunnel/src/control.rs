//! Messages of the control flow ([`Open::Control`](crate::Open::Control)) and of file flows
//! ([`Open::Files`](crate::Open::Files)).
//!
//! Each message is a little-endian `u32` length and that many bytes of postcard. Laptop and agent of one session
//! are always built from the same source (the laptop brings the agent along), so there is no negotiation here;
//! [`SCHEMA`] only guards against an `--agent-image` of another version.

use std::net::IpAddr;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Version of everything in this module. A difference ends the session with a hint to rebuild the agent image.
pub const SCHEMA: u32 = 2;

/// Longest message either side accepts, in bytes: a ConfigMap or Secret holds at most 1 MiB, a projected volume several.
pub const MAX_MESSAGE: usize = 8 << 20;

/// Laptop → agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToAgent {
    /// The whole port table: listen on exactly these, close what is not in it any more (its accepted connections stay).
    /// Answered by [`FromAgent::Listening`].
    Listen(Vec<PodPort>),
    /// Opens the readiness port (a latch: nothing but the end of the pod closes it). Answered by [`FromAgent::Ready`].
    Ready,
    /// From now on connections that the laptop has not answered, and all new ones, go to these pods of the restored
    /// original, same port, in turn. An empty list resets them instead. Answered by [`FromAgent::Splicing`].
    Splice(Vec<IpAddr>),
}

/// Agent → laptop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromAgent {
    /// First message on the control flow.
    Facts(Box<Facts>),
    /// Answer to [`ToAgent::Listen`]: the ports that could not be opened, with the pod's own words.
    Listening {
        /// Port and cause (`Address already in use`: a sidecar has it).
        failed: Vec<(PodPort, String)>,
    },
    /// Answer to [`ToAgent::Ready`].
    Ready {
        /// Why the port could not be opened, in the pod's own words.
        failed: Option<String>,
    },
    /// Answer to [`ToAgent::Splice`].
    Splicing,
    /// The agent got SIGTERM: its pod is being deleted. It goes on serving until the grace period ends.
    Terminating,
}

/// A port that the agent listens on in the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodPort {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where it listens.
    pub scope: Scope,
    /// Port number in the pod.
    pub port: u16,
}

/// Transport protocol of a [`PodPort`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

/// Address scope of a [`PodPort`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Scope {
    /// All addresses of the pod (`[::]` dual-stack, else `0.0.0.0`).
    Pod,
    /// The pod's loopback only (`127.0.0.1`, and `::1` where there is one).
    Loopback,
}

/// What the agent knows about the container it runs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// [`SCHEMA`] of the agent.
    pub schema: u32,
    /// The container's environment, in order, as bytes (values may be multi-line or not UTF-8).
    pub environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// Working directory.
    pub directory: String,
    /// Host name as `uname` gives it.
    pub hostname: String,
    /// The pod's addresses on its main interface, IPv4 first; link-local ones left out.
    pub addresses: Vec<IpAddr>,
    /// MTU of that interface, bytes.
    pub mtu: u32,
    /// Content of the pod's /etc/resolv.conf.
    pub resolv_conf: Vec<u8>,
    /// Content of the pod's /etc/hosts.
    pub hosts: Vec<u8>,
    /// User id the container runs as.
    pub uid: u32,
    /// Group id the container runs as.
    pub gid: u32,
}

/// Agent → laptop on a file flow: what stands at one root. Said of each root that was asked for, and again after each
/// change; the newest wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootState {
    /// All of it.
    Tree(FileTree),
    /// It cannot be sent.
    Unreadable {
        /// The root as the laptop asked for it.
        root: String,
        /// Why, in the pod's own words.
        cause: String,
    },
}

impl RootState {
    /// The root as the laptop asked for it.
    pub fn root(&self) -> &str {
        match self {
            Self::Tree(tree) => &tree.root,
            Self::Unreadable { root, .. } => root,
        }
    }
}

/// One root of a file flow, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileTree {
    /// The root as the laptop asked for it.
    pub root: String,
    /// Parents before their children; the root itself first, with an empty `path`.
    pub entries: Vec<FileEntry>,
}

/// One file, folder or symbolic link of a [`FileTree`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Path relative to the root, without a leading slash, without `..` components. Checked by the receiver.
    pub path: String,
    /// Permission bits (0o7777).
    pub mode: u32,
    /// What it is.
    pub kind: FileKind,
}

/// What a [`FileEntry`] is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileKind {
    /// A folder.
    Directory,
    /// A regular file with its content.
    File(Vec<u8>),
    /// A symbolic link with its target.
    Symlink(String),
}

/// A message could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The flow ended between two messages.
    #[error("the other side closed the flow")]
    Closed,
    /// The flow failed or ended within a message.
    #[error("the flow failed")]
    Io(#[from] std::io::Error),
    /// Longer than [`MAX_MESSAGE`].
    #[error("a message of {0} bytes is over the limit of {MAX_MESSAGE}")]
    TooLong(usize),
    /// Not what the schema says.
    #[error("a message could not be decoded")]
    Malformed(#[from] postcard::Error),
}

/// Reads one message. Not cancel-safe: a cancelled read loses what it had; own the reader in one task.
///
/// Memory is taken as bytes arrive, so a lying length costs the sender its own bytes.
pub async fn read<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> Result<T, MessageError> {
    let mut length = [0; 4];
    match from.read_exact(&mut length).await {
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Err(MessageError::Closed),
        other => other?,
    };
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_MESSAGE {
        return Err(MessageError::TooLong(length));
    }
    let mut body = Vec::with_capacity(length.min(64 << 10));
    let read = from.take(length as u64).read_to_end(&mut body).await?;
    if read < length {
        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
    }
    Ok(postcard::from_bytes(&body)?)
}

/// Writes one message and flushes it. Not cancel-safe.
pub async fn write<T: Serialize>(
    to: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> Result<(), MessageError> {
    let mut bytes = postcard::to_extend(message, vec![0; 4])?;
    let length = bytes.len() - 4;
    if length > MAX_MESSAGE {
        return Err(MessageError::TooLong(length));
    }
    let prefix = u32::try_from(length).map_err(|_| MessageError::TooLong(length))?;
    bytes[..4].copy_from_slice(&prefix.to_le_bytes());
    to.write_all(&bytes).await?;
    to.flush().await?;
    Ok(())
}
