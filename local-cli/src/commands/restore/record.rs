//! The restore where no session process does it itself: from the Lease's record, and what was left running here.

use std::{future::Future, time::Instant};

use devproxy_cluster::{
    ClusterError, Connection, Outcome, Patience, Record, find_session, restore, swap::Progress as Line,
};
use devproxy_namespaces::Entrance;
use tokio::sync::mpsc;

use crate::{
    Failure,
    commands::{holder, open},
    environment,
    session::{
        live::{again, describe},
        process::Start,
    },
    ui::Progress,
};

/// The terminal process does the work of its dead session process, with its patience.
pub(crate) async fn by_plan(start: &Start, progress: &Progress) -> Result<(), Failure> {
    // One that was opened stays: a login plugin may ask its user.
    let mut connection = None;
    let mut patience = Patience::default();
    let mut told = false;
    while let Err(failure) = attempt(&mut connection, start, progress, &mut told).await {
        if let Some(line) = again(&mut patience, failure)? {
            progress.notice(&line);
        }
        patience.pause().await;
    }
    Ok(())
}

async fn attempt(
    opened: &mut Option<Connection>,
    start: &Start,
    progress: &Progress,
    told: &mut bool,
) -> Result<(), Failure> {
    let connection = match opened {
        Some(connection) => connection,
        None => opened.insert(open(start.api.clone()).await?.in_namespace(&start.plan.namespace)),
    };
    match find_session(connection, &start.plan.session).await {
        Ok(record) => {
            if !std::mem::replace(told, true) {
                progress.warning("the session process has died; restoring from here");
            }
            by_record(connection, &record, progress).await
        }
        // The Lease is created first and deleted last: without it there is nothing to undo.
        Err(ClusterError::NoSession { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn by_record(
    connection: &Connection,
    record: &Record,
    progress: &Progress,
) -> Result<(), Failure> {
    let since = Instant::now();
    let (lines, mut told) = mpsc::channel(64);
    let by = holder();
    let restoring = restore(connection, record, &by, &lines, None);
    let restoring = telling(restoring, &mut told, progress);
    let (outcome, ()) = tokio::join!(restoring, end_what_is_left(environment::ID, &record.session, progress));
    let outcome = outcome?;
    progress.quiet();
    for problem in &outcome.problems {
        progress.warning(problem);
    }
    progress.done("restore", &describe(&record.title(), &outcome), since.elapsed());
    Ok(())
}

/// Whoever killed all of ours on this laptop has left the program behind, without a network. It is known by a variable of
/// its environment.
pub(super) async fn end_what_is_left(variable: &str, value: &str, progress: &Progress) {
    let Some(inside) = Entrance::left_behind(variable, value) else { return };
    let name = |pid: &i32| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        format!("{pid} ({})", name.trim())
    };
    let names = || inside.inhabitants().unwrap_or_default().iter().map(name).collect::<Vec<_>>().join(", ");
    progress.notice(&format!("ending what it left running here: pid {}", names()));
    inside.hang_up().await;
    let left = names();
    if !left.is_empty() {
        progress.warning(&format!("still runs, and has no network any more: pid {left}; `kill -9` ends it"));
    }
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
