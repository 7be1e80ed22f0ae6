//! `--drain=labels`: the original's pods go on serving whom they serve, and nobody new is led to them; then they are
//! deleted.
//!
//! A pod without the labels of its ReplicaSet is nobody's: it would outlive all of us. So the same request that takes
//! them off writes the session and the labels onto the pod, from which any restore gives them back or deletes it.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::sleep;

use super::{Swap, original_pods};
use crate::{
    ClusterError,
    json::{list, name, text},
    name::{DRAINED_LABELS_ANNOTATION, DRAINING_LABEL},
    record::Phase,
    resource::{Condition, Kind, Objects},
    slices,
    wait::until,
};

/// How long clients may still come after the labels are gone. Measured: 0.5–1 s on one node.
const LINGER: Duration = Duration::from_secs(5);
/// Longest wait for the controllers to see that the pods are nobody's.
const RELEASE_LIMIT: Duration = Duration::from_secs(30);

impl Swap {
    pub(super) async fn take_labels_off(&mut self, labels: &[String]) -> Result<(), ClusterError> {
        let Some(original) = self.plan.original.clone() else { return Ok(()) };
        // Before the first touch: whoever finds this phase looks for such pods.
        self.note_phase(Phase::HandingOver).await?;
        if self.draining.is_none() {
            let (pods, _) = Objects::new(&self.connection, Kind::Pod).list(&original_pods(&original)).await?;
            self.draining = Some(pods.into_iter().filter(|pod| !slices::is_leaving(pod)).collect());
        }
        let requests: Vec<_> = self
            .draining
            .iter()
            .flatten()
            .map(|pod| {
                let (connection, patch) =
                    (self.connection.clone(), drained(pod, labels, &self.record.session));
                let (name, uid) = (name(pod).to_owned(), text(pod, "/metadata/uid").to_owned());
                async move {
                    let pods = Objects::new(&connection, Kind::Pod);
                    match pods.merge(&name, Condition::Uid(&uid), patch).await {
                        // It left by itself.
                        Err(error) if error.is_not_found() => Ok(Value::Null),
                        answer => answer,
                    }
                }
            })
            .collect();
        self.writes.send_all(requests).await?;
        self.await_release().await
    }

    /// A ReplicaSet that still counts them as its own would end them when it is scaled.
    async fn await_release(&self) -> Result<(), ClusterError> {
        let pods = Objects::new(&self.connection, Kind::Pod);
        let selector = self.drained_selector();
        let released = until(&pods, &selector, RELEASE_LIMIT, |seen| {
            seen.values().all(|pod| list(pod, "/metadata/ownerReferences").is_empty()).then_some(())
        });
        released
            .await?
            .ok_or_else(|| ClusterError::late("the release of the original's pods", RELEASE_LIMIT, ""))
    }

    pub(super) async fn delete_drained(&mut self) -> Result<(), ClusterError> {
        sleep(LINGER).await;
        let (pods, _) = Objects::new(&self.connection, Kind::Pod).list(&self.drained_selector()).await?;
        let requests: Vec<_> = pods
            .iter()
            .map(|pod| {
                let (connection, name) = (self.connection.clone(), name(pod).to_owned());
                let uid = text(pod, "/metadata/uid").to_owned();
                async move {
                    Objects::new(&connection, Kind::Pod).delete(&name, Some(&uid)).await?;
                    Ok(Value::Null)
                }
            })
            .collect();
        self.writes.send_all(requests).await.map(drop)
    }

    fn drained_selector(&self) -> String {
        format!("{DRAINING_LABEL}={}", self.record.session)
    }
}

/// The patch that takes labels off a pod and writes down what they were.
fn drained(pod: &Value, keys: &[String], session: &str) -> Value {
    let has = pod.pointer("/metadata/labels");
    let taken: Map<String, Value> =
        keys.iter().filter_map(|key| Some((key.clone(), has?.get(key)?.clone()))).collect();
    let memory = Value::Object(taken.clone()).to_string();
    let mut labels: Map<String, Value> = taken.into_iter().map(|(key, _)| (key, Value::Null)).collect();
    labels.insert(DRAINING_LABEL.to_owned(), json!(session));
    json!({"metadata": {"labels": labels, "annotations": {DRAINED_LABELS_ANNOTATION: memory}}})
}

/// The patch that undoes [`drained`]; `None` where the pod's memory cannot be read.
pub(crate) fn given_back(pod: &Value) -> Option<Value> {
    let memory = pod.pointer("/metadata/annotations")?.get(DRAINED_LABELS_ANNOTATION)?.as_str()?;
    let mut labels: Map<String, Value> = serde_json::from_str(memory).ok()?;
    labels.insert(DRAINING_LABEL.to_owned(), Value::Null);
    Some(json!({"metadata": {"labels": labels, "annotations": {DRAINED_LABELS_ANNOTATION: null}}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7386, on two levels.
    fn merged(pod: &Value, patch: &Value) -> Value {
        let mut pod = pod.clone();
        for part in ["labels", "annotations"] {
            let target = pod["metadata"][part].as_object_mut().unwrap();
            for (key, value) in patch["metadata"][part].as_object().unwrap() {
                if value.is_null() {
                    target.remove(key);
                } else {
                    target.insert(key.clone(), value.clone());
                }
            }
        }
        pod
    }

    #[test]
    fn a_drained_pod_remembers_what_it_was() {
        let pod = json!({"metadata": {
            "labels": {"app": "cart", "pod-template-hash": "7d9", "team": "blue"},
            "annotations": {"note": "mine"},
        }});
        let keys = ["app", "pod-template-hash", "absent"].map(str::to_owned);
        let away = merged(&pod, &drained(&pod, &keys, "k7f2"));
        assert_eq!(away["metadata"]["labels"], json!({"team": "blue", "devproxy.dev/draining": "k7f2"}));
        assert_eq!(merged(&away, &given_back(&away).unwrap()), pod);
        assert_eq!(given_back(&pod), None);
    }
}
