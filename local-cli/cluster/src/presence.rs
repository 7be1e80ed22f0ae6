//! Whether the stand-in is still there: who deletes it by hand means the restore.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    ClusterError, Connection,
    resource::{Kind, Objects},
    slices::is_leaving,
};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(5);

/// Resolves when the Deployment of this name, which was there, is deleted. Its name carries the session, so another one
/// is never meant. An API server that does not answer is no loss. Cancel-safe.
pub async fn stand_in_lost(connection: &Connection, stand_in: &str) -> ClusterError {
    loop {
        sleep(LOOK).await;
        if stand_in_is_gone(connection, stand_in).await {
            return ClusterError::StandInLost { stand_in: stand_in.to_owned() };
        }
    }
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
