//! Messages on the control socket: one JSON document a line.
//!
//! JSON and a version, because another version of the CLI may ask for status or restore.

use std::{collections::BTreeMap, fmt};

use devproxy_cluster::ApiSettings;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{Failure, session::process::Start};

/// Version of the messages. Additions do not change it.
pub const SCHEMA: u32 = 1;

/// Longest line either side accepts, in bytes. A plan holds a whole pod template; etcd keeps at most 1.5 MiB.
const MAX_LINE: u64 = 16 << 20;

/// [`Status::phase`] of a session without an original.
pub const OPEN: &str = "open";
/// [`Status::phase`] while the original is led away from.
pub const HANDING_OVER: &str = "handing over";
/// [`Status::phase`] when the program has taken the original's place.
pub const SWAPPED: &str = "swapped";
/// [`Status::phase`] until somebody listens.
pub const WAITING: &str = "waiting for the program to listen";
/// [`Status::phase`] when the session is ending.
pub const RESTORING: &str = "restoring";

/// To the session process.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// First message of the terminal process: connect, a plan follows.
    Prepare(Box<ApiSettings>),
    /// Message of the terminal process: do it.
    Start(Box<Start>),
    /// The program runs.
    Running {
        /// Its process id.
        pid: i32,
    },
    /// End the session and restore. Answered by progress and [`Event::Ended`].
    End,
    /// Answered by [`Event::Shell`]; notices follow.
    Join,
    /// Answered by [`Event::Status`].
    Status,
}

/// From the session process.
#[derive(Debug, Serialize, Deserialize)]
pub enum Event {
    /// A step has begun: what the spinner says.
    Begun(String),
    /// A step is done.
    Done {
        /// First word of the line: plan, agent, tunnel, shell, handover, restore.
        step: String,
        /// The rest of the line.
        text: String,
        /// How long it took.
        milliseconds: u64,
    },
    /// Something the user should know; not an error.
    Notice(String),
    /// The shell is there: programs may enter.
    Shell(Box<ShellEntrance>),
    /// State of the session.
    Status(Box<Status>),
    /// The session cannot go on; restore follows.
    Failed(Failure),
    /// Restored (or nothing was to be restored). The last message.
    Ended,
}

/// What a program needs to enter the shell.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShellEntrance {
    /// Process whose namespaces are the shell's.
    pub helper: i32,
    /// `namespace/deployment`.
    pub session: String,
    /// The session's id.
    #[serde(default)]
    pub id: String,
    /// The pod's environment: names and values as bytes.
    pub environment: Vec<(Vec<u8>, Vec<u8>)>,
}

/// `devproxy status` of a session of this laptop.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA`]
    pub schema: u32,
    /// Session id.
    pub id: String,
    /// Namespace of the original.
    pub namespace: String,
    /// Name of the original; of the agent's pod for `devproxy shell`.
    pub name: String,
    /// `starting`, `waiting for the program to listen`, `handing over`, `swapped`, `restoring`.
    pub phase: String,
    /// The agent's pod.
    pub pod: Option<String>,
    /// Ports on which nobody listens, of those where somebody should.
    #[serde(default)]
    pub silence: Option<Silence>,
    /// Replicas that somebody else gave the original meanwhile.
    #[serde(default)]
    pub rescaled: Option<i64>,
    /// Process id of the user's program.
    pub program: Option<i32>,
    /// To the agent and back when the tunnel was made, milliseconds.
    pub round_trip: Option<f64>,
    /// Times the tunnel was made again.
    pub reconnects: u32,
    /// Ports that the agent shall have open, below `pod`, as text.
    pub ports: BTreeMap<String, Vec<String>>,
}

/// Nobody listens on any of these.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Silence {
    /// Where somebody should.
    pub ports: Vec<PortPair>,
    /// Since when nobody does.
    pub since: Timestamp,
    /// Whether somebody listens on another port that leads to the handover.
    pub partly: bool,
}

/// `8080 or 9090`
pub fn any(ports: &[PortPair]) -> String {
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

/// A port of the pod, and where the program answers for it. `Display` is how people read it: `8080→3000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortPair {
    /// In the pod.
    pub pod: u16,
    /// In the shell.
    pub local: u16,
}

impl fmt::Display for PortPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pod == self.local {
            write!(f, "{}", self.pod)
        } else {
            write!(f, "{}→{}", self.pod, self.local)
        }
    }
}

/// The other side sent what is not a message, or the socket failed.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// Socket failure.
    #[error("the control socket failed")]
    Io(#[from] std::io::Error),
    /// Not a message.
    #[error("not a message of the control socket")]
    Malformed(#[from] serde_json::Error),
}

/// Sends one message. Not cancel-safe.
pub async fn send<T: Serialize>(
    to: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> Result<(), ProtocolError> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line).await?;
    Ok(())
}

/// The next message; `None` at the end. Not cancel-safe: own the reader in one task.
pub async fn receive<T: DeserializeOwned>(
    from: &mut (impl AsyncBufRead + Unpin),
) -> Result<Option<T>, ProtocolError> {
    let mut line = Vec::new();
    if from.take(MAX_LINE).read_until(b'\n', &mut line).await? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_arrive_as_sent_and_the_end_is_told() {
        let (mut near, far) = tokio::io::duplex(1 << 16);
        send(&mut near, &Event::Notice("two\nlines".into())).await.unwrap();
        send(&mut near, &Event::Ended).await.unwrap();
        drop(near);
        let mut far = tokio::io::BufReader::new(far);
        assert!(
            matches!(receive(&mut far).await.unwrap(), Some(Event::Notice(text)) if text == "two\nlines")
        );
        assert!(matches!(receive(&mut far).await.unwrap(), Some(Event::Ended)));
        assert!(receive::<Event>(&mut far).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn garbage_is_an_error() {
        let mut bytes: &[u8] = b"{\"nothing\": 1}\n";
        assert!(receive::<Request>(&mut bytes).await.is_err());
    }
}
