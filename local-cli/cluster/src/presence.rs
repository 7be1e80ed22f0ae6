//! Whether the stand-in is still there: who deletes it, by `devproxy restore` or by hand, means the restore.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    ClusterError, Connection,
    record::{Holder, Record},
    resource::{Kind, Objects},
    slices::is_leaving,
};

/// Between two looks. A restore deletes the Lease last, 6 s after the stand-in or later: it still tells who does it.
const LOOK: Duration = Duration::from_secs(3);

/// Resolves when the stand-in, which was there, is deleted. Its name carries the session, so another one is never
/// meant. An API server that does not answer is no loss. Cancel-safe.
pub async fn stand_in_lost(connection: &Connection, stand_in: &str, lease: &str) -> ClusterError {
    loop {
        sleep(LOOK).await;
        if stand_in_is_gone(connection, stand_in).await {
            return match restored_by(connection, stand_in, lease).await {
                Some(by) => ClusterError::Ended { by: format!("{}@{}", by.user, by.host) },
                None => ClusterError::StandInLost { stand_in: stand_in.to_owned() },
            };
        }
    }
}

async fn restored_by(connection: &Connection, stand_in: &str, lease: &str) -> Option<Holder> {
    let lease = Objects::new(connection, Kind::Lease).find(lease).await.ok()??;
    Record::of_lease(&lease).ok().filter(|record| record.stand_in == stand_in)?.restored_by
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
