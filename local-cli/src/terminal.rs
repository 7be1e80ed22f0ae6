//! The terminal process: parent of the user's program, so that tty, signals and job control are those of a shell's
//! child; and watcher of the session process, which it replaces at the restore when that one dies.
//!
//! - [`foreground`]: the terminal in front of which we are, and its end
//! - [`program`]: the user's program
//! - [`signals`]: what Ctrl-C, SIGTERM and the closed terminal mean

mod foreground;
mod program;
mod signals;

use std::{
    process::ExitStatus,
    time::{Duration, Instant},
};

use devproxy_namespaces::Entrance;
use tokio::{
    process::Child,
    time::{error::Elapsed, timeout},
};

pub use self::{
    program::{Program, enter},
    signals::Signals,
};
use self::{
    program::{exit_code, surprise},
    signals::Got,
};
use crate::{
    Failure,
    failure::EXIT_INTERRUPTED,
    session::{
        client::{Client, Session},
        process::Start,
        protocol::{Event, RESTORING, Request, ShellEntrance, Status, WAITING, any},
    },
    ui::Progress,
};

/// Longest wait for what a session has to say to a program that has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// A program that ends so long after a signal of its user ends of it, as far as anybody has to be told.
const OBEYED: Duration = Duration::from_secs(10);
/// Exit codes above it are those of signals.
const SIGNALLED: u8 = 128;
/// Longest wait for the status of a program that was killed.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// Waits for `child`, which has joined the session of `client`; what is meant for it and reaches only us is passed on.
pub async fn accompany(mut child: Child, signals: &mut Signals, client: &mut Client) -> Result<u8, Failure> {
    let progress = Progress::new();
    let mut lost = None;
    let mut show = |event| match event {
        Event::Notice(text) => progress.notice(&text),
        Event::Failed(failure) => {
            progress.warning(&ending(&failure));
            lost.get_or_insert(failure);
        }
        // The steps of the session are told at its own terminal.
        _ => {}
    };
    let (mut there, mut asked) = (true, None);
    let status = loop {
        tokio::select! {
            status = child.wait() => break ended(status)?,
            event = client.next(), if there => match event {
                Some(event) => show(event),
                None => there = false,
            },
            got = signals.next() => {
                asked = Some(Instant::now());
                got.forward(&child);
            }
        }
    };
    let state = last_words(client, show).await;
    match lost {
        Some(failure) => return Err(failure),
        // Not of a program that ended by itself while the session did.
        None if exit_code(status) > SIGNALLED
            && state.is_ok_and(|state| state.is_none_or(|state| state.phase == RESTORING)) =>
        {
            progress.notice("the session has ended, and the program with it");
        }
        None if is_recent(asked) => {}
        None => surprise(status, None).iter().for_each(|text| progress.warning(text)),
    }
    Ok(exit_code(status))
}

/// What a session still has to say when a program has ended, and its state, `None` when it is over or dead: it says why
/// before it hangs programs up, so before this answer.
async fn last_words(client: &mut Client, mut show: impl FnMut(Event)) -> Result<Option<Status>, Elapsed> {
    // Also of one that takes no requests any more: what it said before is still in the queue.
    client.send(&Request::Status).await;
    let rest = async {
        loop {
            match client.next().await? {
                Event::Status(status) => return Some(*status),
                event => show(event),
            }
        }
    };
    timeout(LAST_WORDS, rest).await
}

/// Whether the program may have ended of a signal that its user sent.
fn is_recent(asked: Option<Instant>) -> bool {
    asked.is_some_and(|at| at.elapsed() < OBEYED)
}

fn ended(status: std::io::Result<ExitStatus>) -> Result<ExitStatus, Failure> {
    status.map_err(|e| Failure::new("DP-PROGRAM", e))
}

/// One session from start to restore, as seen from the terminal. The result is the program's exit code.
/// `since` is when it was typed.
pub async fn run(
    session: Session,
    start: Start,
    program: &Program,
    progress: &Progress,
    since: Instant,
    signals: &mut Signals,
) -> Result<u8, Failure> {
    let (mut process, client) = session.start(start.clone()).await;
    let mut terminal = Terminal { start, client, progress, since, inside: None, ended: false, failure: None };
    let result = terminal.drive(program, signals).await;
    progress.quiet();
    // Reaps it where it has ended; where the user left early it goes on alone.
    let _ = process.try_wait();
    result
}

struct Terminal<'a> {
    start: Start,
    client: Client,
    progress: &'a Progress,
    since: Instant,
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
                Ok(child) => code = self.accompany(child, program, signals).await,
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
        self.inside = enter(shell)?;
        program.spawn(self.inside.as_ref(), shell)
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
    async fn accompany(
        &mut self,
        mut child: Child,
        program: &Program,
        signals: &mut Signals,
    ) -> Result<u8, Failure> {
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
            self.client.send(&Request::Running { pid }).await;
        }
        let mut asked = None;
        loop {
            tokio::select! {
                status = child.wait() => {
                    let status = ended(status)?;
                    self.explain(status, program, is_recent(asked)).await;
                    return Ok(exit_code(status));
                }
                event = self.client.next() => match event {
                    Some(Event::Failed(failure)) => self.cannot_go_on(failure),
                    // The terminal is the program's: no spinner.
                    Some(Event::Begun(text)) => self.progress.begun_beside(&text),
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
                got = signals.next() => {
                    asked = Some(Instant::now());
                    got.forward(&child);
                }
            }
        }
        if let Some(inside) = self.inside.clone() {
            let mut hanging_up = std::pin::pin!(inside.hang_up());
            loop {
                tokio::select! {
                    () = &mut hanging_up => break,
                    got = signals.next() => got.forward(&child),
                }
            }
        }
        // What SIGKILL did not end is in the kernel's hands; it does not keep the cluster from its restore.
        let status = timeout(LAST_WAIT, child.wait()).await;
        status.map_or(Ok(0), |status| ended(status).map(exit_code))
    }

    /// Says what a person may not see in the prompt that comes back: that the program was killed, unless they asked for
    /// its end, or that it never listened.
    async fn explain(&mut self, status: ExitStatus, program: &Program, asked: bool) {
        let mut said = Vec::new();
        let state = last_words(&mut self.client, |event| said.push(event)).await;
        for event in said {
            match event {
                Event::Failed(failure) => self.cannot_go_on(failure),
                Event::Ended => self.ended = true,
                event => self.show(event),
            }
        }
        if self.failure.is_some() || self.ended {
            return;
        }
        let state = match state {
            Ok(Some(state)) => state,
            // The helper hangs programs up when the session process dies, and may see it before us.
            Ok(None) => {
                self.failure = Some(died());
                return;
            }
            Err(_) => return,
        };
        if asked {
            return;
        }
        let silent = state.phase == WAITING && !program.is_shell;
        let silence = state.silence.filter(|silence| silent && !silence.partly);
        if let Some(text) = surprise(status, silence.map(|silence| any(&silence.ports)).as_deref()) {
            self.progress.warning(&text);
        }
    }

    fn cannot_go_on(&mut self, failure: Failure) {
        if self.failure.is_some() {
            return self.show(Event::Failed(failure));
        }
        self.progress.warning(&ending(&failure));
        self.failure = Some(failure);
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
                inside.hang_up().await;
            }
            Box::pin(crate::commands::restore::by_plan(&self.start, self.progress))
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
                let took = Duration::from_millis(milliseconds);
                if step == "shell" {
                    self.progress.done_after(&step, &text, took, self.since.elapsed());
                } else {
                    self.progress.done(&step, &text, took);
                }
            }
            Event::Notice(text) => self.progress.notice(&text),
            Event::Failed(failure) if self.failure.is_none() => {
                self.failure = Some(failure);
                self.progress.begun("undoing");
            }
            // The first is what we end with; what fails while that is undone is told too.
            Event::Failed(failure) if !failure.is_end() => self.progress.trouble(&failure),
            Event::Failed(_) | Event::Shell(_) | Event::Status(_) | Event::Ended => {}
        }
    }
}

/// What is told while the program still runs.
fn ending(failure: &Failure) -> String {
    format!("{failure}; ending the program")
}

/// Told at the end, when the restore is done: one that fails takes its place.
fn died() -> Failure {
    Failure::new("DP-SESSION-PROCESS", "the session process has died")
        .hint("what it had changed was put back; with -v its log tells what led to it")
}
