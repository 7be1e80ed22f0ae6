//! Bounded waits for a condition on a set of objects: list, then watch from that version, then list again.
//!
//! A bare watch can hang on some API servers, and a watch through a gateway can go silent: whatever comes first, an
//! event, the end of the watch or [`QUIET`], leads to a new look.

use std::{collections::BTreeMap, pin::pin, time::Duration};

use futures::TryStreamExt;
use kube::api::WatchEvent;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::{ClusterError, json::text, resource::Objects};

/// Longest trust in a silent watch.
const QUIET: Duration = Duration::from_secs(2);
/// Pause between two lists, so that a watch that ends at once does not become a busy loop.
const BREATH: Duration = Duration::from_millis(100);
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

fn by_uid(object: Value) -> (String, Value) {
    (text(&object, "/metadata/uid").to_owned(), object)
}
