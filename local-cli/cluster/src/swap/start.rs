//! The start of the agent: awaited in the pod's own words, and begun again when the node has the other processor.

use serde_json::{Value, json};

use super::{
    Progress, READY_LIMIT, Swap,
    payload::{Agents, binary_data},
};
use crate::{
    ClusterError,
    json::text,
    plan::Architecture,
    pod, presence,
    resource::{Kind, Objects},
    slices,
    wait::{Follow, until},
};

impl Swap {
    /// Waits until the agent's container is said to run.
    pub(super) async fn await_agent(
        &mut self,
        pods: &mut Follow,
        agents: &Agents<'_>,
    ) -> Result<(), ClusterError> {
        loop {
            let (plan, progress) = (&self.plan, &self.progress);
            let note = |words: String| {
                let _ = progress.try_send(Progress::Note(words));
            };
            let awaited = pod::await_agent(
                &self.connection,
                pods,
                &plan.stand_in_name,
                &plan.container,
                &self.placed,
                note,
            );
            match awaited.await {
                Ok(()) => return Ok(()),
                Err(ClusterError::StandInLost { stand_in }) => {
                    return Err(presence::cause(&self.connection, &stand_in, &plan.lease).await);
                }
                Err(ClusterError::Processor { words })
                    if self.switched.is_none() && plan.config_map.is_some() =>
                {
                    self.switched = Some(words);
                    self.switch_processor(agents).await?;
                }
                // No node has the other processor: then the first words were about the program, not the node.
                Err(error @ ClusterError::Schedule { .. }) => match self.switched.take() {
                    Some(words) => return Err(ClusterError::Processor { words }),
                    None => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
    }

    /// The node's processor is the other one: bring the agent for it, and stay on such nodes.
    async fn switch_processor(&mut self, agents: &Agents<'_>) -> Result<(), ClusterError> {
        self.plan.architecture = self.plan.architecture.other();
        let architecture = self.plan.architecture;
        self.tell(Progress::Note(format!(
            "the node's processor is {}: changing the agent",
            architecture.label()
        )));
        if let Some(config_map) = self.plan.config_map.clone() {
            let patch = json!({"binaryData": binary_data(agents.of(architecture))?});
            self.merge(Kind::ConfigMap, &config_map, None, patch).await?;
        }
        let spec = self.plan.stand_in.pointer("/spec/template/spec").cloned().unwrap_or_default();
        let affinity = pinned_affinity(&spec, architecture);
        let selector = self.session_selector();
        let (before, _) = Objects::new(&self.connection, Kind::Pod).list(&selector).await?;
        let patch = json!({"spec": {"template": {"spec": {"affinity": affinity}}}});
        let stand_in = self.plan.stand_in_name.clone();
        self.merge(Kind::Deployment, &stand_in, None, patch).await?;
        let pods = Objects::new(&self.connection, Kind::Pod);
        let old: Vec<&str> = before.iter().map(|pod| text(pod, "/metadata/uid")).collect();
        let left = until(&pods, &selector, READY_LIMIT, |seen| {
            let stays = |uid: &&str| seen.get(*uid).is_some_and(|pod| !slices::is_leaving(pod));
            (!old.iter().any(stays)).then_some(())
        });
        left.await?.ok_or_else(|| ClusterError::late("the change of the agent", READY_LIMIT, ""))
    }
}

/// The template's own affinity and this processor. Terms are alternatives, so each of them gets the condition.
fn pinned_affinity(spec: &Value, architecture: Architecture) -> Value {
    let condition = json!({"key": "kubernetes.io/arch", "operator": "In", "values": [architecture.label()]});
    let mut affinity =
        spec.get("affinity").filter(|affinity| affinity.is_object()).cloned().unwrap_or(json!({}));
    let path = "/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    if let Some(terms) = affinity.pointer_mut(path).and_then(Value::as_array_mut) {
        for term in terms {
            match term.get_mut("matchExpressions").and_then(Value::as_array_mut) {
                Some(expressions) => expressions.push(condition.clone()),
                None => term["matchExpressions"] = json!([condition]),
            }
        }
    } else {
        if !affinity["nodeAffinity"].is_object() {
            affinity["nodeAffinity"] = json!({});
        }
        affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
            json!({"nodeSelectorTerms": [{"matchExpressions": [condition]}]});
    }
    affinity
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::list;

    #[test]
    fn every_alternative_of_an_affinity_is_pinned() {
        let spec = json!({"affinity": {
            "podAffinity": {"x": 1},
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "disk", "operator": "Exists"}]},
                {"matchFields": []},
            ]}},
        }});
        let pinned = pinned_affinity(&spec, Architecture::Arm64);
        let path = "/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
        for term in list(&pinned, path) {
            let last = list(term, "/matchExpressions").last().unwrap();
            assert_eq!((text(last, "/key"), text(last, "/values/0")), ("kubernetes.io/arch", "arm64"));
        }
        assert_eq!(pinned["podAffinity"], json!({"x": 1}));
        assert_eq!(list(&pinned_affinity(&Value::Null, Architecture::Amd64), path).len(), 1);
    }
}
