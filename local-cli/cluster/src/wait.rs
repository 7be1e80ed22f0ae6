//! Waits for a condition on a set of objects: list, then watch from that version, then list again. [`until`] is one
//! such wait; [`Follow`] begins to look before it is known what will be waited for.
//!
//! A bare watch can hang on some API servers, and a watch through a gateway can go silent: whatever comes first, an
//! event, the end of the watch or [`QUIET`], leads to a new look.

use std::{collections::BTreeMap, pin::pin, time::Duration};

use futures::TryStreamExt;
use kube::api::WatchEvent;
use serde_json::Value;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    ClusterError, Connection,
    json::text,
    resource::{Kind, Objects},
};

/// Longest trust in a silent watch.
const QUIET: Duration = Duration::from_secs(2);
/// Pause between two lists, so that a watch that ends at once does not become a busy loop.
const BREATH: Duration = Duration::from_millis(100);
/// A [`Follow`] ends with its owner; this is longer than any session.
const FOR_EVER: Duration = Duration::from_hours(24 * 365);
/// Pause after a failed request; an API server that is away for a moment does not end a wait.
const PAUSE: Duration = Duration::from_millis(500);

/// The objects by uid.
pub(crate) type Seen = BTreeMap<String, Value>;

/// Waits until `check` answers, at most `limit`; `None` when it never did. Cancel-safe.
pub(crate) async fn until<T>(
    objects: &Objects<'_>,
    selector: &str,
    limit: Duration,
    mut check: impl FnMut(&Seen) -> Option<T>,
) -> Result<Option<T>, ClusterError> {
    let deadline = Instant::now() + limit;
    loop {
        let (mut seen, version) = match objects.list(selector).await {
            Ok((items, version)) => (items.into_iter().map(by_uid).collect::<Seen>(), version),
            Err(error) if error.is_transient() && Instant::now() + PAUSE < deadline => {
                sleep(PAUSE).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        if let Some(answer) = check(&seen) {
            return Ok(Some(answer));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let quiet = left.min(QUIET);
        // Without the right to watch, or with a version that is too old, the list alone does it.
        match timeout(left, objects.watch(selector, &version, 30)).await {
            Ok(Ok(events)) => {
                let mut events = pin!(events);
                while let Ok(Ok(Some(event))) = timeout(quiet, events.try_next()).await {
                    match event {
                        WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                            let (uid, object) = by_uid(object);
                            seen.insert(uid, object);
                        }
                        WatchEvent::Deleted(object) => {
                            seen.remove(text(&object, "/metadata/uid"));
                        }
                        WatchEvent::Bookmark(_) => continue,
                        WatchEvent::Error(_) => break,
                    }
                    if let Some(answer) = check(&seen) {
                        return Ok(Some(answer));
                    }
                    if Instant::now() >= deadline {
                        return Ok(None);
                    }
                }
            }
            Ok(Err(_)) | Err(_) => sleep(PAUSE.min(left)).await,
        }
        sleep(BREATH.min(deadline.saturating_duration_since(Instant::now()))).await;
    }
}

/// Objects of one kind, followed in the background until this is dropped.
pub(crate) struct Follow {
    seen: watch::Receiver<Option<Seen>>,
    /// Ends only when the list is refused.
    task: JoinSet<ClusterError>,
}

impl Follow {
    /// Begins to look, in the connection's namespace.
    pub(crate) fn begin(connection: &Connection, kind: Kind, selector: String) -> Self {
        let (changes, seen) = watch::channel(None);
        let connection = connection.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let objects = Objects::new(&connection, kind);
            loop {
                let told = until(&objects, &selector, FOR_EVER, |seen| {
                    changes.send_replace(Some(seen.clone()));
                    None::<()>
                });
                if let Err(error) = told.await {
                    return error;
                }
            }
        });
        Self { seen, task }
    }

    /// As [`until`], from what has been seen so far on.
    pub(crate) async fn until<T>(
        &mut self,
        limit: Duration,
        mut check: impl FnMut(&Seen) -> Option<T>,
    ) -> Result<Option<T>, ClusterError> {
        let waiting = async {
            loop {
                if let Some(answer) = self.seen.borrow_and_update().as_ref().and_then(&mut check) {
                    return Ok(answer);
                }
                tokio::select! {
                    // The task holds the sender until it ends, and then says why.
                    Ok(()) = self.seen.changed() => {}
                    Some(Ok(error)) = self.task.join_next() => return Err(error),
                    else => std::future::pending().await,
                }
            }
        };
        timeout(limit, waiting).await.map_or(Ok(None), |answer| answer.map(Some))
    }
}

fn by_uid(object: Value) -> (String, Value) {
    (text(&object, "/metadata/uid").to_owned(), object)
}
