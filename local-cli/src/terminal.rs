//! The terminal process: parent of the user's program, so that tty, signals and job control are those of a shell's
//! child; and watcher of the session process, which it replaces at the restore when that one dies.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use devproxy_namespaces::{Entrance, inhabitants};
use nix::{
    sys::signal::{Signal as Sent, kill},
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{
    Failure, environment,
    failure::{EXIT_INTERRUPTED, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND},
    session::{
        client::{self, Client},
        process::Start,
        protocol::{Event, Request, ShellEntrance},
    },
    ui::Progress,
};

/// How long what runs in the shell has between SIGHUP and SIGKILL when the session cannot go on.
const HANGUP_GRACE: Duration = Duration::from_secs(10);

/// The user's program: what to run and with which environment.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    form: environment::Form,
}

impl Program {
    /// Looks `words` up as a shell would, before anything is changed in the cluster. No words: the user's shell.
    pub fn find(words: &[String], form: environment::Form) -> Result<Self, Failure> {
        let Some((name, arguments)) = words.split_first() else {
            let shell =
                std::env::var_os("SHELL").filter(|s| !s.is_empty()).unwrap_or_else(|| "/bin/sh".into());
            return Ok(Self { path: shell.into(), arguments: Vec::new(), form });
        };
        let path = lookup(name)?;
        Ok(Self { path, arguments: arguments.iter().map(OsString::from).collect(), form })
    }

    /// Starts it inside the shell, as our child.
    pub fn spawn(&self, shell: &ShellEntrance) -> Result<Child, Failure> {
        let entrance = Entrance::of(shell.helper)
            .map_err(|e| Failure::new("DP-SESSION-ENDED", format!("the session's shell is gone: {e}")))?;
        let directory = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let variables: BTreeMap<_, _> =
            environment::shell(self.form, std::env::vars_os(), &shell.environment, &shell.session);
        let mut command = std::process::Command::new(&self.path);
        command.args(&self.arguments).env_clear().envs(variables);
        entrance.prepare(&mut command, &directory);
        Command::from(command).spawn().map_err(|e| {
            Failure::new("DP-PROGRAM", format!("`{}` could not be started: {e}", self.path.display()))
                .exit(EXIT_NOT_EXECUTABLE)
        })
    }
}

fn lookup(name: &str) -> Result<PathBuf, Failure> {
    let executable = |path: &Path| {
        path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        let path = std::path::absolute(name).unwrap_or_else(|_| PathBuf::from(name));
        return match path.metadata() {
            Err(e) => {
                Err(Failure::new("DP-PROGRAM-NOT-FOUND", format!("`{name}`: {e}")).exit(EXIT_NOT_FOUND))
            }
            Ok(_) if executable(&path) => Ok(path),
            Ok(_) => Err(Failure::new("DP-PROGRAM-NOT-EXECUTABLE", format!("`{name}` is not executable"))
                .hint(format!("chmod +x {name}"))
                .exit(EXIT_NOT_EXECUTABLE)),
        };
    }
    std::env::var_os("PATH")
        .iter()
        .flat_map(std::env::split_paths)
        .map(|folder| folder.join(name))
        .find(|path| executable(path))
        .ok_or_else(|| {
            Failure::new("DP-PROGRAM-NOT-FOUND", format!("command not found: `{name}`"))
                .hint("the program is looked up in the laptop's PATH, the pod's image is not here")
                .exit(EXIT_NOT_FOUND)
        })
}

/// The code a shell would give for `status`.
pub fn exit_code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// One session from start to restore, as seen from the terminal. The result is the program's exit code.
pub async fn run(start: Start, program: &Program, progress: &Progress) -> Result<u8, Failure> {
    let mut signals = Signals::new()?;
    let (mut process, client) = client::spawn(start.clone()).await?;
    let mut terminal = Terminal { start, client, progress, failure: None };
    let result = terminal.drive(program, &mut signals).await;
    progress.quiet();
    // Reaps it where it has ended; where the user left early it goes on alone.
    let _ = process.try_wait();
    result
}

struct Terminal<'a> {
    start: Start,
    client: Client,
    progress: &'a Progress,
    failure: Option<Failure>,
}

impl Terminal<'_> {
    async fn drive(&mut self, program: &Program, signals: &mut Signals) -> Result<u8, Failure> {
        let Some(shell) = self.establish(signals).await? else {
            return Err(self.failure.take().unwrap_or_else(Failure::interrupted));
        };
        self.progress.quiet();
        let code = match program.spawn(&shell) {
            Ok(child) => self.accompany(child, signals).await,
            Err(failure) => {
                self.failure.get_or_insert(failure);
                Ok(0)
            }
        };
        self.restore(signals).await?;
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => code,
        }
    }

    /// Until the shell is there; `None` when the session ended instead (its undo is done by then).
    async fn establish(&mut self, signals: &mut Signals) -> Result<Option<ShellEntrance>, Failure> {
        let mut asked = false;
        loop {
            tokio::select! {
                event = self.client.next() => match event {
                    Some(Event::Shell(shell)) if !asked => return Ok(Some(*shell)),
                    Some(Event::Ended) => return Ok(None),
                    Some(event) => self.show(event),
                    None => {
                        self.restore_alone().await?;
                        return Ok(None);
                    }
                },
                _ = signals.next() => {
                    if asked {
                        return Err(self.left_early());
                    }
                    asked = true;
                    self.failure.get_or_insert_with(Failure::interrupted);
                    self.progress.begun("undoing");
                    self.client.send(&Request::End).await;
                }
            }
        }
    }

    /// While the program runs.
    async fn accompany(&mut self, mut child: Child, signals: &mut Signals) -> Result<u8, Failure> {
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid {
            self.client.send(&Request::Running { pid }).await;
        }
        let mut alive = true;
        loop {
            tokio::select! {
                status = child.wait() => return status.map(exit_code).map_err(|e| Failure::new("DP-PROGRAM", e)),
                event = self.client.next(), if alive => {
                    let lost = match event {
                        Some(Event::Failed(failure)) => Some(failure),
                        Some(Event::Ended) => Some(Failure::new("DP-SESSION-ENDED", "the session was ended by `devproxy restore`")),
                        None => Some(Failure::new("DP-SESSION-PROCESS", "the session process has died")),
                        Some(event) => {
                            self.show(event);
                            None
                        }
                    };
                    if let Some(failure) = lost {
                        self.progress.warning(&format!("{failure}; ending the program"));
                        self.failure.get_or_insert(failure);
                        alive = false;
                        if let Some(pid) = pid {
                            hang_up(&mut child, pid).await;
                        }
                    }
                }
                // Ctrl-C and Ctrl-\ reach the program from the terminal itself; these are meant for it too.
                got = signals.next() => if let (Some(forward), Some(pid)) = (got.forwarded(), pid) {
                    let _ = kill(Pid::from_raw(pid), forward);
                }
            }
        }
    }

    async fn restore(&mut self, signals: &mut Signals) -> Result<(), Failure> {
        if !self.client.send(&Request::End).await {
            // Already ended, or dead: what it told us before is still in the queue.
            tracing::debug!("the session process no longer takes requests");
        }
        let mut warned = false;
        loop {
            tokio::select! {
                event = self.client.next() => match event {
                    Some(Event::Ended) => return Ok(()),
                    Some(event) => self.show(event),
                    None => return self.restore_alone().await,
                },
                got = signals.next() => {
                    if warned || got == Got::HangUp {
                        return Err(self.left_early());
                    }
                    warned = true;
                    self.progress.notice("restoring; Ctrl-C again leaves it to the session process in the background");
                }
            }
        }
    }

    fn left_early(&self) -> Failure {
        Failure::new(
            "DP-INTERRUPTED",
            "left before the restore was done; the session process goes on with it",
        )
        .hint(format!(
            "`devproxy status` shows it, `devproxy restore {}` repeats it",
            self.start.plan.title()
        ))
        .exit(EXIT_INTERRUPTED)
    }

    /// The session process is dead: we do its last work.
    async fn restore_alone(&mut self) -> Result<(), Failure> {
        self.progress.warning("the session process has died; restoring from here");
        crate::commands::restore::by_plan(&self.start, self.progress).await
    }

    fn show(&mut self, event: Event) {
        match event {
            Event::Begun(text) => self.progress.begun(&text),
            Event::Done { step, text, milliseconds } => {
                self.progress.done(&step, &text, Duration::from_millis(milliseconds));
            }
            Event::Notice(text) => self.progress.notice(&text),
            Event::Failed(failure) => {
                self.failure.get_or_insert(failure);
                self.progress.begun("undoing");
            }
            Event::Shell(_) | Event::Status(_) | Event::Ended => {}
        }
    }
}

/// SIGHUP to all that lives in the shell, then SIGKILL after [`HANGUP_GRACE`].
async fn hang_up(child: &mut Child, pid: i32) {
    let send = |signal| {
        for inhabitant in inhabitants(pid).unwrap_or_default().into_iter().chain([pid]) {
            let _ = kill(Pid::from_raw(inhabitant), signal);
        }
    };
    send(Sent::SIGHUP);
    if tokio::time::timeout(HANGUP_GRACE, child.wait()).await.is_err() {
        send(Sent::SIGKILL);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Got {
    Interrupt,
    Quit,
    Terminate,
    HangUp,
}

impl Got {
    fn forwarded(self) -> Option<Sent> {
        match self {
            Self::Interrupt | Self::Quit => None,
            Self::Terminate => Some(Sent::SIGTERM),
            Self::HangUp => Some(Sent::SIGHUP),
        }
    }
}

struct Signals {
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|e| Failure::new("DP-SIGNALS", e));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            quit: listen(SignalKind::quit())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Cancel-safe.
    async fn next(&mut self) -> Got {
        tokio::select! {
            _ = self.interrupt.recv() => Got::Interrupt,
            _ = self.quit.recv() => Got::Quit,
            _ = self.terminate.recv() => Got::Terminate,
            _ = self.hang_up.recv() => Got::HangUp,
        }
    }
}
