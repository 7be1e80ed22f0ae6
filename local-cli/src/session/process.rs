//! The session process, from start to restore.

use std::{os::fd::AsFd, process::ExitCode, time::Duration};

use devproxy_cluster::{ApiSettings, Place, Plan};
use serde::{Deserialize, Serialize};
use tokio::{
    io::BufReader,
    net::{UnixListener, UnixStream},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinSet,
};

use crate::{
    Failure,
    session::{
        ahead::Ahead,
        live,
        protocol::{self, Event, Request},
        runtime::RuntimeFolder,
        shared::{Ending, Shared},
    },
};

/// First argument that makes this program the session process.
pub const ARGUMENT: &str = "__session";

/// Connections to the control socket that are served at once.
const CLIENTS: usize = 64;
/// Pause after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// All that the session process needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Start {
    /// How to reach the API server.
    pub api: ApiSettings,
    /// What to do.
    pub plan: Plan,
    /// How the shell behaves.
    pub options: Options,
    /// Log level.
    pub verbose: u8,
}

/// How the shell behaves.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Options {
    /// Ports of the shell on the laptop's 127.0.0.1.
    pub publish: Vec<u16>,
    /// Names and CIDRs that go out through the laptop.
    pub local: Vec<String>,
    /// How long a connection waits for the program, seconds.
    pub hold: u64,
}

/// Runs the session process: standard input is the socket to the terminal process.
pub fn main() -> ExitCode {
    // Started as /proc/self/exe, it would be `exe` for ps, top and pkill.
    let _ = nix::sys::prctl::set_name(c"devproxy");
    // Of a session of its own: neither Ctrl-C nor the end of the terminal reaches it.
    let _ = nix::unistd::setsid();
    // A pipe of the shell before us (`$(devproxy … 3>&1)`) must not be held until the restore is done.
    let _ = devproxy_namespaces::close_inherited();
    raise_descriptor_limit();
    // One thread: what many flows have to say at once leaves in one message, without a wake-up of another thread
    // between. It is busy for 110 ms with 100 MB.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(run()),
        Err(_) => ExitCode::FAILURE,
    }
}

async fn run() -> ExitCode {
    let Ok(terminal) = standard_input() else { return ExitCode::FAILURE };
    let parent = terminal.peer_cred().ok().and_then(|peer| peer.pid());
    let (reader, writer) = terminal.into_split();
    let mut reader = BufReader::new(reader);
    let mut ahead = Ahead::begin();
    let mut start = loop {
        match protocol::receive(&mut reader).await {
            Ok(Some(Request::Prepare(api))) => ahead.connect(*api),
            Ok(Some(Request::Start(start))) => break start,
            // No plan: there is nothing to do.
            _ => return ExitCode::FAILURE,
        }
    };
    start_log(start.verbose);
    // Either of the two restores when the other dies.
    start.plan.holder.place =
        parent.and_then(|parent| Place::of(&[parent, std::process::id().cast_signed()]));

    let shared = Shared::new(&start.plan);
    let mut tasks = JoinSet::new();
    let (events, queue) = mpsc::channel(64);
    shared.outlet.subscribe(events.clone());
    let writing = tokio::io::BufWriter::new(writer);
    let mut terminal_writer = JoinSet::new();
    terminal_writer.spawn(write(queue, writing));
    tasks.spawn(serve_terminal(shared.clone(), reader, events));
    tasks.spawn(signals(shared.clone()));

    let folder = RuntimeFolder::locate();
    let id = start.plan.session.clone();
    match folder.listen(&id) {
        Ok(listener) => {
            tasks.spawn(serve_clients(shared.clone(), listener));
            Box::pin(live::session(*start, ahead, &shared)).await;
        }
        Err(failure) => shared.fail(failure).await,
    }
    folder.remove(&id);
    shared.outlet.send(|| Event::Ended).await;
    tasks.shutdown().await;
    drop(shared);
    // What is queued still leaves; the queue ends with its last sender.
    let _ = tokio::time::timeout(Duration::from_secs(2), terminal_writer.join_next()).await;
    ExitCode::SUCCESS
}

/// A connection costs up to three descriptors and the usual soft limit is 1,024; the hard one is meant for us.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// The socket that the terminal process left as standard input, which becomes /dev/null: programs that we start
/// (login plugins) must not hold the socket open.
fn standard_input() -> std::io::Result<UnixStream> {
    let socket = std::os::unix::net::UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    nix::unistd::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

fn start_log(verbose: u8) {
    if verbose > 0 {
        let level = if verbose == 1 {
            "info,hyper=warn,tower=warn"
        } else {
            "debug,hyper=info,rustls=info,tower=info"
        };
        crate::log::start(level);
    }
}

/// Events to one listener, until its queue ends or it is gone.
async fn write(mut queue: mpsc::Receiver<Event>, mut writer: impl tokio::io::AsyncWrite + Unpin) {
    use tokio::io::AsyncWriteExt;
    while let Some(event) = queue.recv().await {
        if protocol::send(&mut writer, &event).await.is_err() || writer.flush().await.is_err() {
            break;
        }
    }
}

/// The terminal process: its end is the session's.
async fn serve_terminal(
    shared: Shared,
    mut reader: BufReader<tokio::net::unix::OwnedReadHalf>,
    events: mpsc::Sender<Event>,
) {
    while let Ok(Some(request)) = protocol::receive(&mut reader).await {
        answer(&shared, request, Ending::Terminal, &events).await;
    }
    shared.end(Ending::Terminal);
}

async fn serve_clients(shared: Shared, listener: UnixListener) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if clients.len() < CLIENTS => {
                let Ok((stream, _)) = accepted else {
                    // Out of descriptors: the connection stays in the queue, and asking again at once helps nobody.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                let ours = stream.peer_cred().is_ok_and(|peer| peer.uid() == nix::unistd::Uid::current().as_raw());
                if ours {
                    clients.spawn(serve_client(shared.clone(), stream));
                }
            }
            Some(_) = clients.join_next() => {}
        }
    }
}

async fn serve_client(shared: Shared, stream: UnixStream) {
    let (reader, writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let (events, queue) = mpsc::channel(64);
    let reading = async {
        while let Ok(Some(request)) = protocol::receive(&mut reader).await {
            if matches!(request, Request::End) {
                shared.outlet.subscribe(events.clone());
            }
            answer(&shared, request, Ending::Restore, &events).await;
        }
    };
    tokio::select! {
        () = reading => {}
        () = write(queue, writer) => {}
    }
}

/// `by` is who asks, should it be for the end.
async fn answer(shared: &Shared, request: Request, by: Ending, events: &mpsc::Sender<Event>) {
    match request {
        // Only the first messages of the terminal process may start.
        Request::Prepare(_) | Request::Start(_) => {}
        Request::Running { pid } => shared.update(|status| status.program = Some(pid)),
        Request::End => shared.end(by),
        Request::Status => {
            let _ = events.send(Event::Status(Box::new(shared.status()))).await;
        }
        Request::Join => {
            let entrance = shared.entrance.borrow().clone();
            let ending = shared.ending.borrow().is_some();
            let answer = match entrance {
                _ if ending => Event::Failed(Failure::new("DP-SESSION-ENDED", "the session is ending")),
                Some(entrance) => {
                    // What its program opens is told to it too.
                    shared.outlet.subscribe(events.clone());
                    Event::Shell(Box::new(entrance))
                }
                None => Event::Failed(
                    Failure::new("DP-SESSION-STARTING", "the session is still starting")
                        .hint("try again in a moment"),
                ),
            };
            let _ = events.send(answer).await;
        }
    }
}

/// SIGTERM ends the session like any other end. SIGHUP and SIGINT are not ours.
async fn signals(shared: Shared) {
    let (Ok(mut terminate), Ok(mut hang_up), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::hangup()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => shared.end(Ending::Terminated),
            _ = hang_up.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}
