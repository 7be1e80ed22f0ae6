//! `devproxy restore`: put it back, from any machine.
//!
//! - [`record`]: where no session process does it itself, from the Lease's record alone

mod record;

use devproxy_cluster::{
    ClusterError, Connection, SessionInfo, find_session, require_namespace, require_unheld, restorable,
    sessions, target::Target,
};

pub(crate) use self::record::by_plan;
use self::record::{by_record, end_what_is_left};
use super::exec::living;
use crate::{
    Failure,
    cli::{Global, Restore},
    environment,
    session::protocol::{Event, Request, Status},
    terminal::Signals,
    ui::Progress,
};

pub(super) async fn run(global: &Global, wanted: &Restore, signals: &mut Signals) -> Result<u8, Failure> {
    signals.during(Box::pin(restore(global, wanted))).await.map_err(|failure| {
        failure.if_interrupted(
            "left before the restore was done",
            "a session that lives goes on with it; `devproxy restore` again finishes any other",
        )
    })
}

async fn restore(global: &Global, wanted: &Restore) -> Result<u8, Failure> {
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
        named.into_iter().map(|target| Wanted::of(target, &connection)).collect()
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
    if found.is_empty() {
        require_namespace(connection).await?;
        let namespace = &connection.namespace;
        progress.notice(&format!(
            "no session of yours on this laptop or in namespace {namespace}: nothing to restore"
        ));
    }
    single(found)
}

/// `found`: id, namespace and name of each.
fn single(mut found: Vec<(String, String, String)>) -> Result<Option<Wanted>, Failure> {
    if found.len() > 1 {
        let list: Vec<_> =
            found.iter().map(|(id, namespace, name)| format!("{namespace}/{name} ({id})")).collect();
        let cause = format!("{} sessions are yours: {}", found.len(), list.join(", "));
        return Err(Failure::new("DP-WHICH-SESSION", cause).hint("name one or several of them"));
    }
    Ok(found.pop().map(|(id, namespace, _)| Wanted { namespace, name: id }))
}

/// `swap --take-over`: ends the session that holds `target`, whoever has it, if it has not just ended.
pub(super) async fn take(
    connection: &Connection,
    target: Target,
    progress: &Progress,
) -> Result<(), Failure> {
    one(connection, &Wanted::of(target, connection), true, progress).await
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
            // Somebody else has put it back.
            wanted.end_what_is_left(progress).await;
            progress.notice(&format!("{} is not swapped: nothing to restore", wanted.title()));
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let info = sessions(&connection, false).await?.into_iter().find(|info| info.session == record.session);
    if let Some(info) = info.filter(|info| !force && !info.life.is_over() && !is_ours(info)) {
        // Theirs is another session than one that was killed here.
        wanted.end_what_is_left(progress).await;
        return Err(Failure::new(
            "DP-HELD",
            format!(
                "{} is held by {}@{} since {}, whose devproxy was there less than 2 minutes ago",
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
    /// In the connection's namespace, unless it names one.
    fn of(target: Target, connection: &Connection) -> Self {
        let namespace = target.namespace.unwrap_or_else(|| connection.namespace.clone());
        Self { namespace, name: target.name }
    }

    /// Whether a session of this laptop is meant. A name alone is of the namespace that we are in.
    fn is(&self, status: &Status) -> bool {
        self.name == status.id || (self.name == status.name && self.namespace == status.namespace)
    }

    fn title(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Of a session whose record is gone, and that does not answer: one of this name that does is of another cluster.
    async fn end_what_is_left(&self, progress: &Progress) {
        if !living().await.iter().any(|(_, status)| self.is(status)) {
            end_what_is_left(environment::SESSION, &self.title(), progress).await;
        }
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

pub(super) fn is_ours(info: &SessionInfo) -> bool {
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
            Some(Event::Failed(failure)) if failure.is_end() => {}
            Some(Event::Failed(failure)) => {
                progress.warning(&failure.to_string());
                ended = Ended::Otherwise;
            }
            Some(Event::Shell(_) | Event::Status(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_sessions_none_is_guessed() {
        let session = |id: &str, name: &str| (id.to_owned(), "shop".to_owned(), name.to_owned());
        assert!(single(Vec::new()).unwrap().is_none());
        let only = single(vec![session("k7f2abcdef", "cart")]).unwrap().unwrap();
        assert_eq!((only.namespace.as_str(), only.name.as_str()), ("shop", "k7f2abcdef"));
        let both = vec![session("k7f2abcdef", "cart"), session("m2p9abcdef", "till")];
        let failure = single(both).err().unwrap();
        assert_eq!(
            failure.to_string(),
            "2 sessions are yours: shop/cart (k7f2abcdef), shop/till (m2p9abcdef) [DP-WHICH-SESSION]"
        );
        assert_eq!(failure.hint.as_deref(), Some("name one or several of them"));
    }
}
