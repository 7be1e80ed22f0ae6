//! Writes that are not given up when the session is cancelled while they are on their way.

use std::future::Future;

use serde_json::Value;
use tokio::task::JoinSet;

use crate::ClusterError;

/// Whoever cancels a step drops its future, but cannot call its request back: it could arrive after the undo has
/// looked, and leave something behind. So a request runs on, and the undo waits for its answer first.
#[derive(Default)]
pub(super) struct Writes {
    /// At most one: steps wait for their requests.
    running: JoinSet<Result<Value, ClusterError>>,
}

impl Writes {
    /// Sends and waits for the answer. Cancelling leaves the request to [`Writes::unfinished`].
    pub(super) async fn send(
        &mut self,
        request: impl Future<Output = Result<Value, ClusterError>> + Send + 'static,
    ) -> Result<Value, ClusterError> {
        self.running.spawn(request);
        match self.unfinished().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    /// The answer to a request whose sender was cancelled. Cancel-safe.
    pub(super) async fn unfinished(&mut self) -> Option<Result<Value, ClusterError>> {
        match self.running.join_next().await? {
            Ok(answer) => Some(answer),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only the end of the runtime, which ends us too.
                Err(_) => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_request_still_arrives_and_its_answer_is_kept() {
        let mut writes = Writes::default();
        let request = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            Ok(Value::from("created"))
        };
        assert!(tokio::time::timeout(Duration::from_secs(1), writes.send(request)).await.is_err());
        assert_eq!(writes.unfinished().await.unwrap().unwrap(), "created");
        assert!(writes.unfinished().await.is_none());
    }
}
