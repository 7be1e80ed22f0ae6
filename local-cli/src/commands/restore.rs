//! `devproxy restore`: put it back, from any machine, from the Lease's record alone.

use std::{future::Future, time::Instant};

use devproxy_cluster::{
    ClusterError, Connection, Outcome, Record, SessionInfo, find_session, require_namespace, require_unheld,
    restorable, restore, sessions, swap::Progress as Line, target::Target,
};
use devproxy_namespaces::Entrance;
use tokio::sync::mpsc;

use super::exec::living;
use crate::{
    Failure,
    cli::{Global, Restore},
    environment,
    session::{
        live::describe,
        process::Start,
        protocol::{Event, Request, Status},
    },
    ui::Progress,
};

pub(super) async fn run(global: &Global, wanted: &Restore) -> Result<u8, Failure> {
    let progress = super::progress(global);
    // All of them first: a typo in the last one is no reason to have ended the others.
    let named: Vec<_> =
        wanted.sessions.iter().map(|text| super::target(global, text)).collect::<Result<_, _>>()?;
    let connection = super::connect(global).await?;
    if wanted.stale || wanted.all {
        several(&connection, wanted, &progress).await?;
        return Ok(0);
    }
    let named = if named.is_empty() {
        Vec::from_iter(the_only(&connection, &progress).await?)
    } else {
        let namespace = |target: &Target| target.namespace.clone().unwrap_or(connection.namespace.clone());
        named.into_iter().map(|target| Wanted { namespace: namespace(&target), name: target.name }).collect()
    };
    let Some((last, before)) = named.split_last() else { return Ok(0) };
    let mut code = 0;
    for each in before {
        if let Err(failure) = one(&connection, each, wanted.force, &progress).await {
            progress.failure(&failure);
            code = failure.exit;
        }
    }
    one(&connection, last, wanted.force, &progress).await.map(|()| code)
}

/// Without a name: our session, if there is but one that is surely ours: it answers on this laptop, or it is over.
async fn the_only(connection: &Connection, progress: &Progress) -> Result<Option<Wanted>, Failure> {
    let here = living().await.into_iter().map(|(_, status)| (status.id, status.namespace, status.name));
    let mut found: Vec<_> = here.collect();
    match sessions(connection, false).await {
        Ok(held) => {
            let ours = held.into_iter().filter(|info| info.life.is_over() && is_ours(info));
            for info in
                ours.filter(|info| !found.iter().any(|(id, ..)| *id == info.session)).collect::<Vec<_>>()
            {
                found.push((info.session, info.namespace, info.deployment.unwrap_or(info.stand_in)));
            }
        }
        Err(_) if !found.is_empty() => {}
        refused => drop(restorable(connection, refused).await?),
    }
    match &found[..] {
        [] => {
            require_namespace(connection).await?;
            let namespace = &connection.namespace;
            progress.notice(&format!(
                "no session of yours on this laptop or in namespace {namespace}: nothing to restore"
            ));
            Ok(None)
        }
        [(id, namespace, _)] => Ok(Some(Wanted { namespace: namespace.clone(), name: id.clone() })),
        _ => {
            let list: Vec<_> =
                found.iter().map(|(id, namespace, name)| format!("{namespace}/{name} ({id})")).collect();
            let cause = format!("{} sessions are yours: {}", found.len(), list.join(", "));
            Err(Failure::new("DP-WHICH-SESSION", cause).hint("name one or several of them"))
        }
    }
}

/// A session by id, Deployment or namespace/Deployment.
async fn one(
    connection: &Connection,
    wanted: &Wanted,
    force: bool,
    progress: &Progress,
) -> Result<(), Failure> {
    let connection = connection.in_namespace(&wanted.namespace);
    if end_here(|status| wanted.is(status), progress).await == Ended::Whole {
        return Ok(());
    }
    let found = find_session(&connection, &wanted.name).await;
    let record = match restorable(&connection, found).await {
        Ok(record) => record,
        Err(ClusterError::NoSession { .. }) => {
            require_unheld(&connection, &wanted.name).await?;
            let Wanted { namespace, name } = wanted;
            progress.notice(&format!("{namespace}/{name} is not swapped: nothing to restore"));
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let info = sessions(&connection, false).await?.into_iter().find(|info| info.session == record.session);
    if let Some(info) = info.filter(|info| !force && !info.life.is_over() && !is_ours(info)) {
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

/// `--stale`: what is over; `--all`: all of ours and what is over, with `--force` all.
async fn several(connection: &Connection, wanted: &Restore, progress: &Progress) -> Result<(), Failure> {
    let mut none = true;
    let sessions = restorable(connection, sessions(connection, false).await).await?;
    let count = sessions.len();
    for info in sessions {
        if info.life.is_over() || (wanted.all && (wanted.force || is_ours(&info))) {
            none = false;
            if end_here(|status| status.id == info.session, progress).await == Ended::Whole {
                continue;
            }
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
        (true, 0) => {
            require_namespace(connection).await?;
            progress.notice(&format!("nothing to restore in namespace {namespace}"));
        }
        // Another laptop that died a moment ago looks alive until its Lease expires.
        (true, _) => progress.notice(&format!(
            "nothing in namespace {namespace} is stale: `devproxy status` lists {count}, and a laptop that dies counts as \
             gone after two minutes"
        )),
    }
    Ok(())
}

fn is_ours(info: &SessionInfo) -> bool {
    let holder = super::holder();
    info.user == holder.user && info.host == holder.host
}

/// What became of a request to end.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// The session has put all back.
    Whole,
    /// There is none here that answers, or it failed or died on the way: the record tells what is left.
    Otherwise,
}

/// Asks a living session of this laptop to end itself: it alone can hand its held connections over.
async fn end_here(wanted: impl Fn(&Status) -> bool, progress: &Progress) -> Ended {
    let Some((mut client, _)) = living().await.into_iter().find(|(_, status)| wanted(status)) else {
        return Ended::Otherwise;
    };
    client.send(&Request::End).await;
    let mut ended = Ended::Whole;
    loop {
        match client.next().await {
            Some(Event::Ended) => return ended,
            None => return Ended::Otherwise,
            Some(Event::Begun(text)) => progress.begun(&text),
            Some(Event::Done { step, text, milliseconds }) => {
                progress.done(&step, &text, std::time::Duration::from_millis(milliseconds));
            }
            Some(Event::Notice(text)) => progress.notice(&text),
            // The answer to our request, for the terminal.
            Some(Event::Failed(failure)) if failure.code == "DP-SESSION-ENDED" => {}
            Some(Event::Failed(failure)) => {
                progress.warning(&failure.to_string());
                ended = Ended::Otherwise;
            }
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
    let restoring = telling(restoring, &mut told, progress);
    let (outcome, ()) = tokio::join!(restoring, end_what_is_left(&record.session, progress));
    let outcome = outcome?;
    progress.quiet();
    for problem in &outcome.problems {
        progress.warning(problem);
    }
    if let Some(text) = describe(&record.title(), &outcome) {
        progress.done("restore", &text, since.elapsed());
    }
    Ok(())
}

/// Whoever killed all of ours on this laptop has left the program behind, without a network.
async fn end_what_is_left(session: &str, progress: &Progress) {
    let Some(inside) = Entrance::left_behind(environment::ID, session) else { return };
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
