//! Whether the stand-in is still there: who deletes it, by `devproxy restore` or by hand, means the restore. And whether the
//! original is still at 0.

use std::time::Duration;

use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use crate::{
    ClusterError, Connection,
    json::number,
    lease::{RENEW_EVERY, restored_by},
    record::Record,
    resource::{Kind, Objects},
    slices::is_leaving,
};

/// Between two looks. A restore deletes the Lease last, when the stand-in's pod has ended: mostly it still tells who does it.
const LOOK: Duration = Duration::from_secs(3);

/// Resolves when the stand-in, which was there, is deleted. Its name carries the session, so another one is never
/// meant. An API server that does not answer is no loss. `sooner` is reason to look at once. Cancel-safe.
pub async fn stand_in_lost(
    connection: &Connection,
    stand_in: &str,
    lease: &str,
    sooner: &Notify,
) -> ClusterError {
    loop {
        let _ = timeout(LOOK, sooner.notified()).await;
        if stand_in_is_gone(connection, stand_in).await {
            return cause(connection, stand_in, lease).await;
        }
    }
}

/// Resolves when the original does not have `known` replicas any more, with those that it has: somebody else scaled it.
/// Cancel-safe.
pub async fn original_rescaled(connection: &Connection, name: &str, known: i64) -> i64 {
    loop {
        sleep(RENEW_EVERY).await;
        let found = Objects::new(connection, Kind::Deployment).find(name).await;
        let replicas = found.ok().flatten().and_then(|found| number(&found, "/spec/replicas"));
        if let Some(replicas) = replicas.filter(|replicas| *replicas != known) {
            return replicas;
        }
    }
}

/// Why the stand-in is gone: somebody restores its session or has taken it over, as the Lease tells; else it was deleted.
pub(crate) async fn cause(connection: &Connection, stand_in: &str, lease: &str) -> ClusterError {
    let unknown = ClusterError::StandInLost { stand_in: stand_in.to_owned() };
    ended(connection, stand_in, lease).await.unwrap_or(unknown)
}

/// The end of the session with this stand-in, when the Lease tells by whom.
pub(crate) async fn ended(connection: &Connection, stand_in: &str, lease: &str) -> Option<ClusterError> {
    let lease = Objects::new(connection, Kind::Lease).find(lease).await.ok()??;
    let record = Record::of_lease(&lease).ok()?;
    let by = if record.stand_in == stand_in { restored_by(&lease)? } else { record.holder };
    Some(ClusterError::Ended { by: by.to_string() })
}

/// One look, for certain.
pub async fn stand_in_is_gone(connection: &Connection, stand_in: &str) -> bool {
    match Objects::new(connection, Kind::Deployment).find(stand_in).await {
        Ok(found) => found.is_none_or(|found| is_leaving(&found)),
        Err(error) => {
            tracing::debug!(%error, "stand-in not seen");
            false
        }
    }
}
