//! The steps of the handover: the stand-in is reached, the original goes.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::{CONFLICTS, Progress, READY_LIMIT, SETTLE, SLICES_LIMIT, Swap};
use crate::{
    ClusterError, event,
    json::{list, number, selector_query, text},
    name::SESSION_LABEL,
    ownership,
    plan::Handover,
    pod,
    record::{Original, Phase},
    resource::{Kind, Objects},
    slices,
    wait::until,
};

/// Longest wait for the original's pods to leave; their grace period is theirs to choose.
const LEAVE_LIMIT: Duration = Duration::from_mins(2);

impl Swap {
    pub(super) async fn await_ready(&self) -> Result<(), ClusterError> {
        let pods = Objects::new(&self.connection, Kind::Pod);
        let mut words = None;
        let selector = self.session_selector();
        let ready = until(&pods, &selector, READY_LIMIT, |seen| {
            words = seen.values().find_map(pod::words_of_failure);
            seen.values().find(|pod| pod::is_ready(pod)).map(pod::addresses)
        });
        let addresses = ready.await?.ok_or_else(|| {
            ClusterError::late("readiness of the stand-in", READY_LIMIT, words.unwrap_or_default())
        })?;
        let services = &self.plan.services;
        if !slices::await_present(&self.connection, services, &[addresses], SLICES_LIMIT).await? {
            let what = format!("the stand-in's arrival in the EndpointSlices of {}", services.join(", "));
            return Err(ClusterError::late(what, SLICES_LIMIT, ""));
        }
        let original_follows = self.plan.handover != Handover::OriginalFirst
            && self.plan.original.as_ref().is_some_and(|original| original.replicas > 0);
        if original_follows && !services.is_empty() {
            sleep(SETTLE).await;
        }
        Ok(())
    }

    pub(super) async fn scale_original(&mut self) -> Result<(), ClusterError> {
        let Some(planned) = self.plan.original.clone() else { return Ok(()) };
        let title = self.plan.title();
        let changed = |change: String| ClusterError::Changed { deployment: title.clone(), change };
        // As long as they are there for sure: afterwards an API server that is away could hide their end.
        let (pods, _) = Objects::new(&self.connection, Kind::Pod).list(&original_pods(&planned)).await?;
        self.leaving.extend(pods.iter().flat_map(pod::addresses));
        for _ in 0..CONFLICTS {
            let Some(current) = self.deployments().find(&planned.name).await? else {
                return Err(changed("it was deleted".into()));
            };
            if text(&current, "/metadata/uid") != planned.uid || slices::is_leaving(&current) {
                return Err(changed("it was deleted".into()));
            }
            let managed = list(&current, "/metadata/managedFields");
            let replicas = number(&current, "/spec/replicas").unwrap_or(1);
            // By a request whose answer was lost.
            if replicas == 0 && ownership::ours(managed) {
                self.tell_teammates();
                return Ok(());
            }
            if replicas != planned.replicas {
                return Err(changed(format!("it has {replicas} replicas now, it had {}", planned.replicas)));
            }
            // In the record before in the cluster: whoever finds the one can undo the other.
            let replica_owners = ownership::owners_of_replicas(managed);
            self.record.original = Some(Original { replica_owners, ..planned.clone() });
            self.note_phase(Phase::HandingOver).await?;
            let version = Some(text(&current, "/metadata/resourceVersion").to_owned());
            let patch = json!({"spec": {"replicas": 0}});
            match self.merge(Kind::Deployment, &planned.name, version, patch).await {
                Ok(_) => {
                    self.tell_teammates();
                    return Ok(());
                }
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
        Err(changed("it changes faster than it can be scaled".into()))
    }

    fn tell_teammates(&mut self) {
        self.heart.spawn(event::keep_swapped(self.connection.clone(), self.record.clone()));
    }

    pub(super) async fn await_original_gone(&mut self) -> Result<(), ClusterError> {
        let Some(original) = &self.plan.original else { return Ok(()) };
        let pods = Objects::new(&self.connection, Kind::Pod);
        let selector = original_pods(original);
        let first = self.plan.handover == Handover::OriginalFirst;
        let addresses = &mut self.leaving;
        let left = until(&pods, &selector, LEAVE_LIMIT, |seen| {
            addresses.extend(seen.values().flat_map(pod::addresses));
            // A volume or a port is free when the pod is gone; traffic ends when it begins to leave.
            if first { seen.is_empty() } else { seen.values().all(slices::is_leaving) }.then_some(())
        });
        if left.await?.is_none() {
            if first {
                let what = format!("the end of the pods of {}", original.name);
                return Err(ClusterError::late(what, LEAVE_LIMIT, ""));
            }
            self.tell(Progress::Note(format!("pods of {} are slow to leave", original.name)));
        }
        self.leaving.sort_unstable();
        self.leaving.dedup();
        let services = &self.plan.services;
        if !slices::await_absent(&self.connection, services, &self.leaving, SLICES_LIMIT).await? {
            self.tell(Progress::Note(format!("pods of {} are still in the EndpointSlices", original.name)));
        } else if !first && !services.is_empty() {
            // Until then clients are still led to them, whoever reads the slices.
            sleep(SETTLE).await;
        }
        Ok(())
    }
}

/// The original's pods, without a stand-in's: it carries the same labels and one more.
pub(crate) fn original_pods(original: &Original) -> String {
    format!("{},!{SESSION_LABEL}", selector_query(Some(&original.selector)))
}
