//! The terminal process: parent of the user's program, so that tty, signals and job control are those of a shell's
//! child; and watcher of the session process, which it replaces at the restore when that one dies.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use devproxy_namespaces::Entrance;
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
        hangup::hang_up,
        process::Start,
        protocol::{Event, Request, ShellEntrance},
    },
    ui::Progress,
};

/// Longest wait for the status of a program that was killed.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// The user's program: what to run and with which environment.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    form: environment::Form,
}

impl Program {
    /// Looks `words` up as a shell would, before anything is changed in the cluster. No words: the user's shell.
    pub fn find(words: &[OsString], form: environment::Form) -> Result<Self, Failure> {
        let Some((name, arguments)) = words.split_first() else {
            let shell =
                std::env::var_os("SHELL").filter(|s| !s.is_empty()).unwrap_or_else(|| "/bin/sh".into());
            let path = lookup(&shell).map_err(|failure| {
                failure.hint("$SHELL does not name a program; name one after `--`, e.g. `-- bash`")
            })?;
            return Ok(Self { path, arguments: Vec::new(), form });
        };
        Ok(Self { path: lookup(name)?, arguments: arguments.to_vec(), form })
    }

    /// Starts it inside the shell, as our child.
    pub fn spawn(&self, inside: &Entrance, shell: &ShellEntrance) -> Result<Child, Failure> {
        let directory = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let variables: BTreeMap<_, _> =
            environment::shell(self.form, std::env::vars_os(), &shell.environment, &shell.session);
        let mut command = std::process::Command::new(&self.path);
        command.args(&self.arguments).env_clear().envs(variables);
        inside.prepare(&mut command, &directory);
        Command::from(command).spawn().map_err(|e| {
            let (program, directory) = (self.path.display(), directory.display());
            Failure::new("DP-PROGRAM", format!("`{program}` could not be started in `{directory}`: {e}"))
                .hint("the pod's files may hide the folder, the program or its interpreter")
                .exit(EXIT_NOT_EXECUTABLE)
        })
    }
}

/// The way into the shell of a session.
pub fn enter(shell: &ShellEntrance) -> Result<Entrance, Failure> {
    Entrance::of(shell.helper)
        .map_err(|e| Failure::new("DP-SESSION-ENDED", format!("the session's shell is gone: {e}")))
}

fn lookup(name: &OsStr) -> Result<PathBuf, Failure> {
    let executable = |path: &Path| {
        path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let shown = name.display();
    if name.as_bytes().contains(&b'/') {
        let path = std::path::absolute(name).unwrap_or_else(|_| PathBuf::from(name));
        return match path.metadata() {
            Err(e) => {
                Err(Failure::new("DP-PROGRAM-NOT-FOUND", format!("`{shown}`: {e}")).exit(EXIT_NOT_FOUND))
            }
            Ok(_) if executable(&path) => Ok(path),
            Ok(_) => Err(Failure::new("DP-PROGRAM-NOT-EXECUTABLE", format!("`{shown}` is not executable"))
                .hint(format!("chmod +x {shown}"))
                .exit(EXIT_NOT_EXECUTABLE)),
        };
    }
    std::env::var_os("PATH")
        .iter()
        .flat_map(std::env::split_paths)
        // An empty or relative folder of PATH means the one we are in.
        .filter_map(|folder| std::path::absolute(Path::new(".").join(folder).join(name)).ok())
        .find(|path| executable(path))
        .ok_or_else(|| {
            Failure::new("DP-PROGRAM-NOT-FOUND", format!("command not found: `{shown}`"))
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

/// Waits for `child`; what is meant for it and reaches only us is passed on.
pub async fn accompany(mut child: Child, signals: &mut Signals) -> Result<u8, Failure> {
    loop {
        tokio::select! {
            status = child.wait() => return ended(status),
            got = signals.next() => got.forward(&child),
        }
    }
}

fn ended(status: std::io::Result<ExitStatus>) -> Result<u8, Failure> {
    status.map(exit_code).map_err(|e| Failure::new("DP-PROGRAM", e))
}

/// One session from start to restore, as seen from the terminal. The result is the program's exit code.
pub async fn run(start: Start, program: &Program, progress: &Progress) -> Result<u8, Failure> {
    let mut signals = Signals::new()?;
    let (mut process, client) = client::spawn(start.clone()).await?;
    let mut terminal = Terminal { start, client, progress, inside: None, ended: false, failure: None };
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
    /// The way into the shell, once there is one.
    inside: Option<Entrance>,
    /// [`Event::Ended`] came.
    ended: bool,
    failure: Option<Failure>,
}

impl Terminal<'_> {
    async fn drive(&mut self, program: &Program, signals: &mut Signals) -> Result<u8, Failure> {
        let mut code = Ok(0);
        if let Some(shell) = self.establish(signals).await? {
            self.progress.quiet();
            match self.start(program, &shell) {
                Ok(child) => code = self.accompany(child, signals).await,
                Err(failure) => {
                    self.failure.get_or_insert(failure);
                }
            }
            self.restore(signals).await?;
        }
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => code,
        }
    }

    fn start(&mut self, program: &Program, shell: &ShellEntrance) -> Result<Child, Failure> {
        program.spawn(self.inside.insert(enter(shell)?), shell)
    }

    /// Until the shell is there; `None` when the session ended instead: its undo is done by then, and the failure
    /// says why.
    async fn establish(&mut self, signals: &mut Signals) -> Result<Option<ShellEntrance>, Failure> {
        let mut asked = false;
        loop {
            tokio::select! {
                event = self.client.next() => match event {
                    Some(Event::Shell(shell)) if !asked => return Ok(Some(*shell)),
                    Some(Event::Ended) => {
                        self.failure.get_or_insert_with(|| Failure::new("DP-SESSION-ENDED", "the session has ended"));
                        return Ok(None);
                    }
                    Some(event) => self.show(event),
                    None => {
                        self.failure.get_or_insert_with(died);
                        self.restore_alone(signals).await?;
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

    /// While the program runs. When the session cannot go on, its process hangs the program up; we do it when that
    /// one is dead.
    async fn accompany(&mut self, mut child: Child, signals: &mut Signals) -> Result<u8, Failure> {
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
            self.client.send(&Request::Running { pid }).await;
        }
        loop {
            tokio::select! {
                status = child.wait() => return ended(status),
                event = self.client.next() => match event {
                    Some(Event::Failed(failure)) => self.cannot_go_on(failure),
                    // The terminal is the program's: no spinner.
                    Some(Event::Begun(_)) => {}
                    Some(Event::Ended) => {
                        self.ended = true;
                        self.cannot_go_on(Failure::new("DP-SESSION-ENDED", "the session has ended"));
                        break;
                    }
                    Some(event) => self.show(event),
                    None => {
                        self.cannot_go_on(died());
                        break;
                    }
                },
                got = signals.next() => got.forward(&child),
            }
        }
        if let Some(inside) = self.inside.clone() {
            let mut hanging_up = std::pin::pin!(hang_up(&inside));
            loop {
                tokio::select! {
                    () = &mut hanging_up => break,
                    got = signals.next() => got.forward(&child),
                }
            }
        }
        // What SIGKILL did not end is in the kernel's hands; it does not keep the cluster from its restore.
        tokio::time::timeout(LAST_WAIT, child.wait()).await.map_or(Ok(0), ended)
    }

    fn cannot_go_on(&mut self, failure: Failure) {
        if self.failure.is_none() {
            self.progress.warning(&format!("{failure}; ending the program"));
            self.failure = Some(failure);
        }
    }

    async fn restore(&mut self, signals: &mut Signals) -> Result<(), Failure> {
        if self.ended {
            return Ok(());
        }
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
                    None => return self.restore_alone(signals).await,
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
        .hint(format!("`devproxy status` shows it, {}", self.repeat()))
        .exit(EXIT_INTERRUPTED)
    }

    fn repeat(&self) -> String {
        format!("`devproxy restore {}` repeats it from any machine", self.start.plan.title())
    }

    /// The session process is dead: we do its last work. First what runs in the shell, which has no network any more.
    async fn restore_alone(&self, signals: &mut Signals) -> Result<(), Failure> {
        let restoring = async {
            if let Some(inside) = &self.inside {
                hang_up(inside).await;
            }
            crate::commands::restore::by_plan(&self.start, self.progress)
                .await
                .map_err(|failure| failure.hint(self.repeat()))
        };
        let mut restoring = std::pin::pin!(restoring);
        let mut warned = false;
        loop {
            tokio::select! {
                result = &mut restoring => return result,
                got = signals.next() => {
                    if warned || got == Got::HangUp {
                        return Err(Failure::new("DP-INTERRUPTED", "left before the restore was done")
                            .hint(self.repeat())
                            .exit(EXIT_INTERRUPTED));
                    }
                    warned = true;
                    self.progress.notice("restoring; Ctrl-C again leaves it undone");
                }
            }
        }
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

fn died() -> Failure {
    Failure::new("DP-SESSION-PROCESS", "the session process has died")
}

/// A signal that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Got {
    Interrupt,
    Quit,
    Terminate,
    HangUp,
}

impl Got {
    /// Ctrl-C and Ctrl-\ reach the program from the terminal itself; the others are meant for it too.
    fn forward(self, to: &Child) {
        let signal = match self {
            Self::Interrupt | Self::Quit => return,
            Self::Terminate => Sent::SIGTERM,
            Self::HangUp => Sent::SIGHUP,
        };
        if let Some(pid) = to.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

/// The signals that end programs, from its making on ours to answer.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Takes them over.
    pub fn new() -> Result<Self, Failure> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str) -> Result<PathBuf, u8> {
        lookup(OsStr::new(name)).map_err(|failure| failure.exit)
    }

    #[test]
    fn programs_are_looked_up_as_a_shell_does() {
        assert!(found("sh").is_ok_and(|path| path.is_absolute() && path.ends_with("sh")));
        assert_eq!(found("/bin/sh"), Ok("/bin/sh".into()));
        assert_eq!(found("no-such-program"), Err(EXIT_NOT_FOUND));
        assert_eq!(found("/no/such/program"), Err(EXIT_NOT_FOUND));
        assert_eq!(found("/etc/passwd"), Err(EXIT_NOT_EXECUTABLE));
        assert_eq!(found("/bin/sh -l"), Err(EXIT_NOT_FOUND), "arguments are no part of the name");
    }

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        use std::os::unix::process::ExitStatusExt;
        let code = |raw| exit_code(ExitStatus::from_raw(raw));
        assert_eq!((code(7 << 8), code(255 << 8), code(9), code(15)), (7, 255, 137, 143));
    }
}
