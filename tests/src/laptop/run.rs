//! A running command of the laptop: what it prints, what it is told, how it ends.
//!
//! Its output is read by threads, not by the test's runtime: a test that blocks must not block what it tests.

use std::fs::File;
use std::io::{Read, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::sync::watch;

use crate::host::namespace::NetworkNamespace;

/// A command that runs. Dropping it kills its process group; what left the group ends with the laptop.
#[derive(Debug)]
pub struct Run {
    shown: String,
    pid: i32,
    input: Option<File>,
    output: Arc<Output>,
    changed: watch::Receiver<u64>,
    status: watch::Receiver<Option<ExitStatus>>,
    /// How much of the output [`Run::wait_for`] has passed.
    read: usize,
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Exit {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// What it wrote to standard output; on a terminal, all.
    pub stdout: String,
    /// What it wrote to standard error; on a terminal, nothing.
    pub stderr: String,
}

impl Exit {
    /// As a shell tells it: the code, or 128 plus the signal.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Itself if the code is 0, else an error with all that was printed.
    pub fn success(self) -> Result<Self> {
        if self.code() == 0 {
            return Ok(self);
        }
        bail!("ended with {}\nstdout: {}\nstderr: {}", self.status, self.stdout, self.stderr);
    }
}

/// All bytes so far, in the order in which they came.
#[derive(Debug, Default)]
struct Output {
    all: Mutex<Vec<u8>>,
    stdout: Mutex<Vec<u8>>,
    stderr: Mutex<Vec<u8>>,
    /// The window is closed: readers let go of the terminal.
    closed: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
enum Stream {
    Stdout,
    Stderr,
}

pub(super) fn spawn(namespace: &NetworkNamespace, command: &mut Command) -> Result<Run> {
    let mut child = start(namespace, command)?;
    let input = child.stdin.take().map(|pipe| File::from(OwnedFd::from(pipe)));
    let sources = [
        child.stdout.take().map(|pipe| (Stream::Stdout, File::from(OwnedFd::from(pipe)))),
        child.stderr.take().map(|pipe| (Stream::Stderr, File::from(OwnedFd::from(pipe)))),
    ];
    Run::new(command, child, input, sources.into_iter().flatten().collect())
}

pub(super) fn spawn_on_terminal(
    namespace: &NetworkNamespace,
    command: &mut Command,
    uid: u32,
    columns: u16,
) -> Result<Run> {
    let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = {
        let _alone = starting();
        let terminal = openpty(Some(&size), None)?;
        // Another child that inherited the master would keep the terminal open after its closing.
        fcntl(&terminal.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        fcntl(&terminal.slave, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        terminal
    };
    // As login does: the user may open its own terminal by name.
    std::os::unix::fs::fchown(&terminal.slave, Some(uid), None)?;
    command
        .stdin(Stdio::from(terminal.slave.try_clone()?))
        .stdout(Stdio::from(terminal.slave.try_clone()?))
        .stderr(Stdio::from(terminal.slave));
    let child = start(namespace, command)?;
    // The command holds our copies of the slave; as long as they are open, the master reads no end.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let master = File::from(terminal.master);
    let input = master.try_clone()?;
    Run::new(command, child, Some(input), vec![(Stream::Stdout, master)])
}

fn start(namespace: &NetworkNamespace, command: &mut Command) -> Result<Child> {
    namespace.enter(|| {
        let shown = format!("{command:?}");
        let _alone = starting();
        command.spawn().with_context(|| format!("cannot start {shown}"))
    })
}

/// No child may start between the making of a file descriptor and its mark to be closed on exec.
fn starting() -> MutexGuard<'static, ()> {
    static STARTING: Mutex<()> = Mutex::new(());
    STARTING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Run {
    fn new(
        command: &Command,
        mut child: Child,
        input: Option<File>,
        sources: Vec<(Stream, File)>,
    ) -> Result<Self> {
        let output = Arc::new(Output::default());
        let (change, changed) = watch::channel(0);
        let (ended, status) = watch::channel(None);
        let pid = i32::try_from(child.id())?;
        let mut readers = Vec::new();
        for (stream, source) in sources {
            let (output, change) = (Arc::clone(&output), change.clone());
            readers.push(std::thread::spawn(move || read(stream, source, &output, &change)));
        }
        std::thread::spawn(move || {
            let status = child.wait().ok();
            // The output of a daemon that it left behind may stay open: no longer than this.
            let limit = std::time::Instant::now() + Duration::from_millis(500);
            while readers.iter().any(|reader| !reader.is_finished()) && std::time::Instant::now() < limit {
                std::thread::sleep(Duration::from_millis(5));
            }
            ended.send_replace(status);
            change.send_modify(|version| *version += 1);
        });
        // Without the words that only prepare it.
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        let own = words.iter().position(|word| word == "setsid").map_or(0, |at| at + 1);
        let words = words.into_iter().skip(own).skip_while(|word| word == "--ctty");
        Ok(Self { shown: words.collect::<Vec<_>>().join(" "), pid, input, output, changed, status, read: 0 })
    }

    /// The number of its process.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Signals this process alone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid), signal).with_context(|| format!("cannot signal `{}`", self.shown))
    }

    /// Signals its process group, as a terminal does with Ctrl-C.
    pub fn signal_group(&self, signal: Signal) -> Result<()> {
        killpg(Pid::from_raw(self.pid), signal).with_context(|| format!("cannot signal `{}`", self.shown))
    }

    /// Types into its terminal or writes to its standard input.
    pub fn write(&mut self, text: &str) -> Result<()> {
        let input = self.input.as_mut().context("its input is closed")?;
        input.write_all(text.as_bytes())?;
        Ok(())
    }

    /// Ends its standard input.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// All that it printed so far, both outputs in the order in which they came.
    pub fn printed(&self) -> String {
        text(&self.output.all)
    }

    /// What it wrote to standard output so far.
    pub fn stdout(&self) -> String {
        text(&self.output.stdout)
    }

    /// What it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        text(&self.output.stderr)
    }

    /// Whether it runs still.
    pub fn is_running(&self) -> bool {
        self.status.borrow().is_none()
    }

    /// Waits until it has printed `wanted` after what an earlier call found, and gives the rest of that line so far.
    pub async fn wait_for(&mut self, wanted: &str, limit: Duration) -> Result<String> {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let over = !self.is_running();
            self.changed.mark_unchanged();
            let printed = self.printed();
            let fresh = printed.get(self.read..).unwrap_or_default();
            if let Some(at) = fresh.find(wanted) {
                let start = fresh[..at].rfind('\n').map_or(0, |newline| newline + 1);
                let end = fresh[at..].find('\n').map_or(fresh.len(), |newline| at + newline);
                let line = fresh[start..end].to_owned();
                self.read += at + wanted.len();
                return Ok(line);
            }
            if over {
                bail!("`{}` ended without printing `{wanted}`; it printed:\n{printed}", self.shown);
            }
            if tokio::time::timeout_at(deadline, self.changed.changed()).await.is_err() {
                bail!("`{}` did not print `{wanted}` within {limit:?}; it printed:\n{printed}", self.shown);
            }
        }
    }

    /// Waits for its end; after `limit` it is killed and that is the error.
    pub async fn wait(&mut self, limit: Duration) -> Result<Exit> {
        let mut status = self.status.clone();
        let ended = tokio::time::timeout(limit, status.wait_for(Option::is_some)).await;
        let Ok(ended) = ended else {
            let _ = self.signal_group(Signal::SIGKILL);
            bail!("`{}` did not end within {limit:?}; it printed:\n{}", self.shown, self.printed());
        };
        let status = *ended.context("nobody waits for it")?;
        Ok(Exit {
            status: status.context("its exit status is lost")?,
            stdout: self.stdout(),
            stderr: self.stderr(),
        })
    }

    /// Closes its terminal, as closing the window does: the kernel sends SIGHUP, writes fail, reads end.
    pub fn close_terminal(&mut self) {
        self.close_input();
        self.output.closed.store(true, Ordering::Release);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = self.signal_group(Signal::SIGKILL);
        }
    }
}

fn read(stream: Stream, mut source: File, output: &Output, change: &watch::Sender<u64>) {
    let mut chunk = [0; 16 << 10];
    // A terminal whose last process has ended gives EIO instead of an end.
    while !output.closed.load(Ordering::Acquire) {
        // With a limit, to see that the window was closed.
        let mut readable = [PollFd::new(source.as_fd(), PollFlags::POLLIN)];
        if poll(&mut readable, PollTimeout::from(50u8)) == Ok(0) {
            continue;
        }
        let Ok(length @ 1..) = source.read(&mut chunk) else { break };
        let own = match stream {
            Stream::Stdout => &output.stdout,
            Stream::Stderr => &output.stderr,
        };
        for buffer in [&output.all, own] {
            buffer.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&chunk[..length]);
        }
        change.send_modify(|version| *version += 1);
    }
}

fn text(buffer: &Mutex<Vec<u8>>) -> String {
    String::from_utf8_lossy(&buffer.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
}
