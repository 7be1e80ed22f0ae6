//! `devproxy shell`: a plain pod with the agent, without taking anyone's place.
//!
//! It borrows image, pull secrets and security context (what the namespace's policies let through), never labels: no
//! Service leads to it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    ClusterError, Connection,
    find::forbidden_or_missing,
    json::{list, name as name_of, text},
    lease,
    name::{self, MANAGED_BY_LABEL, MANAGER},
    plan::{Architecture, Handover, Holder, Plan, ReadyMode, new_session, not_found, own_ports, shell_steps},
    pod::is_ready,
    resource::{Kind, Objects},
    stand_in::{self, Agent},
    target::Target,
};

/// Name of the pod's one container.
const CONTAINER: &str = "shell";

/// What the user asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellSettings {
    /// `[NAMESPACE/]NAME` of a Deployment to borrow from.
    pub like: Option<String>,
    /// An image with the agent.
    pub agent_image: Option<String>,
    /// Who asks.
    pub holder: Holder,
}

/// Plans the pod. Reads only.
pub async fn shell_plan(connection: &Connection, settings: &ShellSettings) -> Result<Plan, ClusterError> {
    let like = settings.like.as_deref().map(Target::parse).transpose()?;
    let namespace = like.as_ref().and_then(|target| target.namespace.as_deref());
    let connection = connection.in_namespace(namespace.unwrap_or(&connection.namespace));
    let lender = lender(&connection, like.as_ref(), settings.agent_image.is_some()).await;
    let lender = forbidden_or_missing(&connection, lender).await?;
    let platform =
        connection.client.apiserver_version().await.map(|version| version.platform).unwrap_or_default();
    let architecture = platform
        .split_once('/')
        .and_then(|(_, architecture)| Architecture::from_label(architecture))
        .unwrap_or(Architecture::Amd64);
    Ok(assemble(&connection.namespace, new_session()?, settings, &lender, architecture))
}

fn assemble(
    namespace: &str,
    session: String,
    settings: &ShellSettings,
    lender: &Value,
    architecture: Architecture,
) -> Plan {
    let stand_in_name = format!("devproxy-shell-{session}");
    let config_map = settings.agent_image.is_none().then(|| name::config_map(&stand_in_name));
    let secret = name::secret(&stand_in_name);
    let (tunnel_port, ready_port) = own_ports(&session, &BTreeSet::new());
    let mut template = template(lender);
    let agent = Agent {
        session: &session,
        name: &stand_in_name,
        container: CONTAINER,
        config_map: config_map.as_deref(),
        image: settings.agent_image.as_deref(),
        secret: &secret,
        tunnel_port,
        ready_port,
        skip_init: false,
        fill_resources: true,
    };
    stand_in::occupy(&agent, &mut template);
    let stand_in = stand_in::deployment(&agent, &template);
    let lease = stand_in_name.clone();
    Plan {
        steps: shell_steps(&lease, &stand_in_name, config_map.as_deref(), &secret),
        namespace: namespace.to_owned(),
        original: None,
        resource_version: String::new(),
        container: CONTAINER.to_owned(),
        agent_image: settings.agent_image.clone(),
        architecture,
        ports: Vec::new(),
        services: Vec::new(),
        file_roots: Vec::new(),
        writable_volumes: Vec::new(),
        init_containers: Vec::new(),
        host_network: false,
        handover: Handover::AtOnce,
        handover_reason: "nobody's place is taken".into(),
        ready: ReadyMode::Listen,
        holder: settings.holder.clone(),
        warnings: Vec::new(),
        session,
        stand_in_name,
        lease,
        config_map,
        secret,
        tunnel_port,
        ready_port,
        stand_in,
    }
}

/// A pod spec to borrow from: the named Deployment's, else a running pod's, else nothing if there is an image.
async fn lender(
    connection: &Connection,
    like: Option<&Target>,
    has_image: bool,
) -> Result<Value, ClusterError> {
    if let Some(target) = like {
        let deployment = Objects::new(connection, Kind::Deployment).find(&target.name).await?;
        let spec = deployment.as_ref().and_then(|deployment| deployment.pointer("/spec/template/spec"));
        return match spec {
            Some(spec) => Ok(spec.clone()),
            None => Err(not_found(connection, &target.name).await),
        };
    }
    let (pods, _) = Objects::new(connection, Kind::Pod).list("").await?;
    let usable = pods.iter().filter(|pod| {
        is_ready(pod) && lease::session_of(pod).is_empty() && text(pod, "/spec/os/name") != "windows"
    });
    // The first by name, so that two calls choose alike.
    match usable.min_by_key(|pod| name_of(pod)) {
        Some(pod) => Ok(pod.get("spec").cloned().unwrap_or_default()),
        None if has_image => Ok(Value::Null),
        None => Err(ClusterError::NoImage { namespace: connection.namespace.clone() }),
    }
}

fn template(lender: &Value) -> Value {
    let container = list(lender, "/containers").first().cloned().unwrap_or_default();
    let mut own = json!({"name": CONTAINER, "image": container.get("image")});
    for key in ["imagePullPolicy", "securityContext"] {
        if let Some(value) = container.get(key) {
            own[key] = value.clone();
        }
    }
    let mut spec = json!({
        "containers": [own],
        // Nobody's identity.
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
    });
    for key in [
        "imagePullSecrets",
        "securityContext",
        "nodeSelector",
        "tolerations",
        "runtimeClassName",
        "hostUsers",
    ] {
        if let Some(value) = lender.get(key) {
            spec[key] = value.clone();
        }
    }
    json!({"metadata": {"labels": {MANAGED_BY_LABEL: MANAGER}}, "spec": spec})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_borrows_the_image_and_never_labels_or_identity() {
        let lender = json!({
            "serviceAccountName": "cart",
            "imagePullSecrets": [{"name": "registry"}],
            "securityContext": {"runAsNonRoot": true},
            "containers": [{"name": "app", "image": "cart:1", "env": [{"name": "A", "value": "b"}],
                            "volumeMounts": [{"name": "x", "mountPath": "/x"}],
                            "securityContext": {"readOnlyRootFilesystem": true}}],
        });
        let settings = ShellSettings {
            like: None,
            agent_image: None,
            holder: Holder { user: "ann".into(), host: "box".into(), place: None },
        };
        let plan = assemble("shop", "k7f2abcdef".into(), &settings, &lender, Architecture::Amd64);
        assert_eq!(plan.stand_in_name, "devproxy-shell-k7f2abcdef");
        let spec = &plan.stand_in["spec"]["template"]["spec"];
        assert_eq!(spec["containers"][0]["image"], "cart:1");
        assert_eq!(spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"], true);
        assert_eq!(spec["imagePullSecrets"][0]["name"], "registry");
        assert!(spec.get("serviceAccountName").is_none() && spec["containers"][0].get("env").is_none());
        let labels = plan.stand_in["spec"]["template"]["metadata"]["labels"].as_object().unwrap();
        assert_eq!(labels.len(), 2);
        assert!(plan.stand_in["metadata"].get("ownerReferences").is_none());
    }
}
