//! Pods whose labels were taken off (`--drain=labels`): they are nobody's, and must not outlive the session.

use super::{GONE_LIMIT, Restore};
use crate::{
    ClusterError,
    json::{name, text},
    name::DRAINING_LABEL,
    record::Phase,
    resource::{Condition, Kind, Objects},
    slices,
    swap::{Progress, given_back},
    wait::until,
};

impl Restore<'_> {
    /// The original was not scaled: its pods are its own again, and its ReplicaSet ends those that it made instead.
    pub(super) async fn give_labels_back(&self) -> Result<(), ClusterError> {
        let pods = Objects::new(self.connection, Kind::Pod);
        for pod in self.drained().await? {
            let (name, uid) = (name(&pod), text(&pod, "/metadata/uid"));
            match given_back(&pod) {
                Some(patch) => match pods.merge(name, Condition::Uid(uid), patch).await {
                    Err(error) if !error.is_not_found() => return Err(error),
                    _ => {}
                },
                None => pods.delete(name, Some(uid)).await?,
            }
        }
        Ok(())
    }

    /// The original has other pods.
    pub(super) async fn delete_drained(&self) -> Result<(), ClusterError> {
        let pods = Objects::new(self.connection, Kind::Pod);
        for pod in self.drained().await? {
            pods.delete(name(&pod), Some(text(&pod, "/metadata/uid"))).await?;
        }
        Ok(())
    }

    /// Waits until they are gone.
    pub(super) async fn await_drained(&self, problems: &mut Vec<String>) -> Result<(), ClusterError> {
        if !self.may_have_drained() {
            return Ok(());
        }
        let pods = Objects::new(self.connection, Kind::Pod);
        let selector = self.drained_selector();
        let title = self.record.title();
        let mut told = false;
        let gone = until(&pods, &selector, GONE_LIMIT, |seen| {
            if !seen.is_empty() && !std::mem::replace(&mut told, true) {
                let what = format!("waiting for the end of the pods of {title} without labels");
                self.tell(Progress::Undoing(what));
            }
            seen.is_empty().then_some(())
        });
        if gone.await?.is_none() {
            problems.push(format!("pods of {title} have not ended after {} s", GONE_LIMIT.as_secs()));
        }
        Ok(())
    }

    async fn drained(&self) -> Result<Vec<serde_json::Value>, ClusterError> {
        if !self.may_have_drained() {
            return Ok(Vec::new());
        }
        let (mut pods, _) = Objects::new(self.connection, Kind::Pod).list(&self.drained_selector()).await?;
        pods.retain(|pod| !slices::is_leaving(pod));
        Ok(pods)
    }

    fn may_have_drained(&self) -> bool {
        self.record.phase != Phase::Prepared
    }

    fn drained_selector(&self) -> String {
        format!("{DRAINING_LABEL}={}", self.record.session)
    }
}
