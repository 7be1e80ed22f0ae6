//! Writes that are not given up when the session is cancelled while they are on their way.

use std::future::Future;

use serde_json::Value;
use tokio::task::JoinSet;

use crate::ClusterError;

/// Whoever cancels a step drops its future, but cannot call its request back: it could arrive after the undo has
/// looked, and leave something behind. So requests run on, and the undo waits for their answers first.
#[derive(Default)]
pub(super) struct Writes {
    /// Those of one step, or of steps side by side, each with its place among them.
    running: JoinSet<(usize, Answer)>,
}

/// The object as it was written.
pub(super) type Answer = Result<Value, ClusterError>;

impl Writes {
    /// Sends and waits for the answer. Cancelling leaves the request to [`Writes::unfinished`].
    pub(super) async fn send(
        &mut self,
        request: impl Future<Output = Answer> + Send + 'static,
    ) -> Result<Value, ClusterError> {
        self.send_all([request]).await.map(|mut answers| answers.pop().unwrap_or_default())
    }

    /// Sends all at once and waits for every answer; the first error in their order. Cancelling leaves the requests to
    /// [`Writes::unfinished`].
    pub(super) async fn send_all<R>(
        &mut self,
        requests: impl IntoIterator<Item = R>,
    ) -> Result<Vec<Value>, ClusterError>
    where
        R: Future<Output = Answer> + Send + 'static,
    {
        // An answer that nobody waits for any more is not one to these.
        while self.next().await.is_some() {}
        let mut sent = 0;
        for (place, request) in requests.into_iter().enumerate() {
            self.running.spawn(async move { (place, request.await) });
            sent += 1;
        }
        let mut answers = Vec::new();
        while answers.len() < sent {
            match self.next().await {
                Some(answer) => answers.push(answer),
                None => std::future::pending().await,
            }
        }
        answers.sort_by_key(|(place, _)| *place);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    /// The answer to a request whose sender was cancelled. Cancel-safe.
    pub(super) async fn unfinished(&mut self) -> Option<Answer> {
        self.next().await.map(|(_, answer)| answer)
    }

    async fn next(&mut self) -> Option<(usize, Answer)> {
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
    #[tokio::test(start_paused = true)]
    async fn of_requests_side_by_side_all_are_awaited_and_the_first_error_is_told() {
        let answer = |seconds, code: &'static str| async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            if code.is_empty() {
                Ok(Value::from(seconds))
            } else {
                Err(ClusterError::late(code, Duration::ZERO, ""))
            }
        };
        let mut writes = Writes::default();
        let error =
            writes.send_all([answer(3, "first"), answer(1, "second"), answer(9, "")]).await.unwrap_err();
        assert!(error.to_string().starts_with("first"), "{error}");
        assert!(writes.unfinished().await.is_none(), "the undo must not come before the slowest answer");
        let answers = writes.send_all([answer(2, ""), answer(1, "")]).await.unwrap();
        assert_eq!(answers, [2, 1].map(Value::from));
    }
}
