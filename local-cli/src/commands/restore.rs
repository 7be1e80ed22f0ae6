//! `devproxy restore`: put it back, from any machine, from the Lease's record alone.

use std::{future::Future, time::Instant};

use devproxy_cluster::{
    ClusterError, Connection, Outcome, Record, SessionInfo, find_session, restore, sessions,
    swap::Progress as Line,
};
use tokio::sync::mpsc;

use super::exec::living;
use crate::{
    Failure,
    cli::{Global, Restore},
    session::{
        live::describe,
        process::Start,
        protocol::{Event, Request, Status},
    },
    ui::Progress,
};

pub(super) async fn run(global: &Global, wanted: &Restore) -> Result<u8, Failure> {
    let progress = super::progress(global);
    let connection = super::connect(global).await?;
    match &wanted.session {
        Some(text) => {
            let target = super::target(global, text)?;
            let namespace = target.namespace.unwrap_or_else(|| connection.namespace.clone());
            one(&connection, &Wanted { namespace, name: target.name }, wanted.force, &progress).await?;
        }
        None => several(&connection, wanted, &progress).await?,
    }
    Ok(0)
}

/// A session by id, Deployment or namespace/Deployment.
async fn one(
    connection: &Connection,
    wanted: &Wanted,
    force: bool,
    progress: &Progress,
) -> Result<(), Failure> {
    let connection = connection.in_namespace(&wanted.namespace);
    let ended = end_here(|status| wanted.is(status), progress).await;
    let record = match find_session(&connection, &wanted.name).await {
        Ok(record) => record,
        // Ended by our request, or a moment before.
        Err(ClusterError::NoSession { .. }) if ended => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let info = sessions(&connection, false).await?.into_iter().find(|info| info.session == record.session);
    if let Some(info) = info.filter(|info| !force && !info.expired && !is_ours(info)) {
        return Err(Failure::new(
            "DP-HELD",
            format!(
                "{} is held by {}@{} since {}, who is still there",
                record.title(),
                info.user,
                info.host,
                info.since
            ),
        )
        .hint("ask them to end it, or restore it nevertheless with --force"));
    }
    by_record(&connection, &record, progress).await
}

/// What the user named, with its namespace.
struct Wanted {
    namespace: String,
    name: String,
}

impl Wanted {
    /// Whether a session of this laptop is meant. A name alone is of the namespace that we are in.
    fn is(&self, status: &Status) -> bool {
        self.name == status.id || (self.name == status.name && self.namespace == status.namespace)
    }
}

/// `--stale`: what expired; `--all`: all of ours and what expired, with `--force` all.
async fn several(connection: &Connection, wanted: &Restore, progress: &Progress) -> Result<(), Failure> {
    let mut none = true;
    let sessions = sessions(connection, false).await?;
    let count = sessions.len();
    for info in sessions {
        if info.expired || (wanted.all && (wanted.force || is_ours(&info))) {
            none = false;
            end_here(|status| status.id == info.session, progress).await;
            match find_session(connection, &info.session).await {
                Ok(record) => by_record(connection, &record, progress).await?,
                // Restored by its own session, or by somebody else meanwhile.
                Err(ClusterError::NoSession { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    let namespace = &connection.namespace;
    match (none, count) {
        (false, _) => {}
        (true, 0) => progress.notice(&format!("nothing to restore in namespace {namespace}")),
        // A laptop that died a moment ago looks alive until its Lease expires.
        (true, _) => progress.notice(&format!(
            "no session in namespace {namespace} counts as stale; `devproxy status` lists {count}, and one that crashed just \
             now is put back by its name"
        )),
    }
    Ok(())
}

fn is_ours(info: &SessionInfo) -> bool {
    let holder = super::holder();
    info.user == holder.user && info.host == holder.host
}

/// Asks a living session of this laptop to end itself: it alone can hand its held connections over. Whether there was
/// one; it may have failed or died on the way, so look at the record afterwards.
async fn end_here(wanted: impl Fn(&Status) -> bool, progress: &Progress) -> bool {
    let Some((mut client, _)) = living().await.into_iter().find(|(_, status)| wanted(status)) else {
        return false;
    };
    client.send(&Request::End).await;
    loop {
        match client.next().await {
            Some(Event::Ended) | None => return true,
            Some(Event::Begun(text)) => progress.begun(&text),
            Some(Event::Done { step, text, milliseconds }) => {
                progress.done(&step, &text, std::time::Duration::from_millis(milliseconds));
            }
            Some(Event::Notice(text)) => progress.notice(&text),
            // The answer to our request, for the terminal.
            Some(Event::Failed(failure)) if failure.code == "DP-SESSION-ENDED" => {}
            Some(Event::Failed(failure)) => progress.warning(&failure.to_string()),
            Some(Event::Shell(_) | Event::Status(_)) => {}
        }
    }
}

/// The terminal process does the work of its dead session process.
pub(crate) async fn by_plan(start: &Start, progress: &Progress) -> Result<(), Failure> {
    let connection = Connection::open(&start.api).await?.in_namespace(&start.plan.namespace);
    match find_session(&connection, &start.plan.session).await {
        Ok(record) => {
            progress.warning("the session process has died; restoring from here");
            by_record(&connection, &record, progress).await
        }
        // The Lease is created first and deleted last: without it there is nothing to undo.
        Err(ClusterError::NoSession { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn by_record(connection: &Connection, record: &Record, progress: &Progress) -> Result<(), Failure> {
    let since = Instant::now();
    let (lines, mut told) = mpsc::channel(64);
    let restoring = restore(connection, record, &lines, None);
    let outcome = telling(restoring, &mut told, progress).await?;
    progress.quiet();
    for problem in &outcome.problems {
        progress.warning(problem);
    }
    if let Some(text) = describe(&record.title(), &outcome) {
        progress.done("restore", &text, since.elapsed());
    }
    Ok(())
}

async fn telling(
    restoring: impl Future<Output = Result<Outcome, ClusterError>>,
    told: &mut mpsc::Receiver<Line>,
    progress: &Progress,
) -> Result<Outcome, ClusterError> {
    tokio::pin!(restoring);
    loop {
        tokio::select! {
            outcome = &mut restoring => return outcome,
            Some(line) = told.recv() => match line {
                Line::Started(step) => progress.begun(&step.to_string()),
                Line::Undoing(text) => progress.begun(&text),
                Line::Note(text) => progress.notice(&text),
                Line::Done(..) => {}
            }
        }
    }
}
