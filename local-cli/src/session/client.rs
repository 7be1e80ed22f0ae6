//! The other end of the control socket: the terminal process's own session, or one found in the runtime folder.

use std::{
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::Path,
    process::Stdio,
    time::Duration,
};

use devproxy_cluster::ApiSettings;
use tokio::{
    io::BufReader,
    net::{UnixStream, unix::OwnedWriteHalf},
    process::{Child, Command},
    sync::mpsc,
    task::JoinSet,
};

use crate::{
    Failure,
    session::{
        process::{self, Start},
        protocol::{self, Event, ProtocolError, Request, Status},
        runtime::RuntimeFolder,
    },
};

/// Events that wait for their reader; the session process drops notices rather than wait for us.
const QUEUE: usize = 64;
/// A session process that does not answer within this time is treated as dead.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long the prompt waits for a session process that has nothing to do.
const LEAVE_LIMIT: Duration = Duration::from_secs(1);

/// A conversation with a session process.
#[derive(Debug)]
pub struct Client {
    writer: OwnedWriteHalf,
    events: mpsc::Receiver<Event>,
    _reader: JoinSet<()>,
}

impl Client {
    fn over(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        let (sender, events) = mpsc::channel(QUEUE);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut reader = BufReader::new(reader);
            loop {
                match protocol::receive(&mut reader).await {
                    Ok(Some(event)) => {
                        if sender.send(event).await.is_err() {
                            break;
                        }
                    }
                    // An event that only a newer version knows.
                    Err(ProtocolError::Malformed(_)) => {}
                    Ok(None) | Err(ProtocolError::Io(_)) => break,
                }
            }
        });
        Self { writer, events, _reader: tasks }
    }

    /// Connects to the session `id` of this laptop; `ConnectionRefused` when its process is dead.
    pub async fn connect(folder: &RuntimeFolder, id: &str) -> std::io::Result<Self> {
        let stream = UnixStream::connect(folder.socket(id)).await?;
        if stream.peer_cred()?.uid() != nix::unistd::Uid::current().as_raw() {
            return Err(std::io::ErrorKind::PermissionDenied.into());
        }
        Ok(Self::over(stream))
    }

    /// The next event, `None` when the session process is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Sends a request; `false` when the session process is gone.
    pub async fn send(&mut self, request: &Request) -> bool {
        protocol::send(&mut self.writer, request).await.is_ok()
    }

    /// State of the session; `None` when it does not answer in time.
    pub async fn status(&mut self) -> Option<Status> {
        self.send(&Request::Status).await;
        tokio::time::timeout(ANSWER_LIMIT, async {
            loop {
                if let Event::Status(status) = self.next().await? {
                    return Some(*status);
                }
            }
        })
        .await
        .ok()?
    }
}

/// The session process of this terminal.
#[derive(Debug)]
pub struct Session {
    process: Child,
    client: Client,
}

impl Session {
    /// Starts it: this program again, in a session of its own (setsid), its control socket as standard input. It
    /// outlives us and restores when we die.
    pub fn spawn(verbose: u8) -> Result<Self, Failure> {
        let (near, far) = std::os::unix::net::UnixStream::pair().map_err(|e| process_failure(&e))?;
        let mut command = std::process::Command::new(Path::new("/proc/self/exe"));
        command
            .arg0("devproxy")
            .arg(process::ARGUMENT)
            .stdin(Stdio::from(OwnedFd::from(far)))
            .stdout(Stdio::null());
        if verbose == 0 {
            command.stderr(Stdio::null());
        }
        // What the start needed goes back to the kernel at once (by default a second later, and only if something is
        // allocated then): 3.5 MB of heap in an idle session instead of 10, with equal throughput. It has no other way in.
        #[cfg(target_env = "musl")]
        command.env("MIMALLOC_PURGE_DELAY", "0");
        // A process group of its own keeps Ctrl-C away until it has called setsid.
        command.process_group(0);
        let process = Command::from(command).spawn().map_err(|e| process_failure(&e))?;
        near.set_nonblocking(true).map_err(|e| process_failure(&e))?;
        let client = Client::over(UnixStream::from_std(near).map_err(|e| process_failure(&e))?);
        Ok(Self { process, client })
    }

    /// While it is being planned: the settings have led to a login.
    pub async fn prepare(&mut self, api: ApiSettings) {
        self.client.send(&Request::Prepare(Box::new(api))).await;
    }

    /// Hands the plan over; from now on it is in charge.
    pub async fn start(mut self, start: Start) -> (Child, Client) {
        self.client.send(&Request::Start(Box::new(start))).await;
        (self.process, self.client)
    }

    /// There is no plan: it leaves without having changed anything.
    pub async fn dismiss(mut self) {
        drop(self.client);
        let _ = tokio::time::timeout(LEAVE_LIMIT, self.process.wait()).await;
    }
}

fn process_failure(error: &std::io::Error) -> Failure {
    Failure::new("DP-SESSION-PROCESS", format!("the session process could not be started: {error}"))
}
