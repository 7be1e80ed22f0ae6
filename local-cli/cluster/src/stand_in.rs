//! The stand-in: a second Deployment of one pod from the same template, with the agent in the target container.
//!
//! The template is copied as JSON, so that fields of a newer cluster survive; the Deployment's own metadata is not
//! copied (a delivery system would take the copy for its own and prune it).

use serde_json::{Map, Value, json};

use crate::{
    json::{list, name, number, text},
    name::{MANAGED_BY_LABEL, MANAGER, ORIGINAL_ANNOTATION, REPLICAS_ANNOTATION, SESSION_LABEL},
};

/// The agent serves at least 5 s after SIGTERM, and flows longer; the template may say 0.
const GRACE_SECONDS: i64 = 30;
/// "No deadline" to the Deployment controller: a session lasts days.
const NO_DEADLINE: i64 = i32::MAX as i64;
/// Where the agent's parts are mounted.
const FOLDER: &str = "/.devproxy";
/// Keys of the ConfigMap, and file names under `/.devproxy/bin`.
pub(crate) const LOADER: &str = "devproxy-loader";
/// See [`LOADER`].
pub(crate) const AGENT: &str = "agent";
/// Key of the Secret, and file name under `/.devproxy/key`.
pub(crate) const KEY: &str = "session";

/// What the stand-in needs to know about the session.
pub(crate) struct Agent<'a> {
    pub(crate) session: &'a str,
    /// Name of the stand-in.
    pub(crate) name: &'a str,
    /// The container that the agent replaces.
    pub(crate) container: &'a str,
    /// `None` with an image of its own.
    pub(crate) config_map: Option<&'a str>,
    pub(crate) image: Option<&'a str>,
    pub(crate) secret: &'a str,
    pub(crate) tunnel_port: u16,
    pub(crate) ready_port: u16,
    /// Leave out init containers that run to an end.
    pub(crate) skip_init: bool,
    /// Give the container requests and limits where it has none.
    pub(crate) fill_resources: bool,
}

/// The stand-in of a Deployment, with 0 replicas.
pub(crate) fn of_deployment(agent: &Agent<'_>, original: &Value) -> Value {
    let mut template = original.pointer("/spec/template").cloned().unwrap_or_default();
    occupy(agent, &mut template);
    let mut stand_in = deployment(agent, &template);
    stand_in["metadata"]["annotations"] = json!({
        ORIGINAL_ANNOTATION: name(original),
        REPLICAS_ANNOTATION: number(original, "/spec/replicas").unwrap_or(1).to_string(),
    });
    // No blockOwnerDeletion: it needs a right on finalizers that `edit` lacks where the check is on.
    stand_in["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": name(original),
        "uid": text(original, "/metadata/uid"),
    }]);
    stand_in
}

/// The Deployment around a pod template that carries the agent.
pub(crate) fn deployment(agent: &Agent<'_>, template: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": agent.name,
            "labels": {SESSION_LABEL: agent.session, MANAGED_BY_LABEL: MANAGER},
        },
        "spec": {
            "replicas": 0,
            // The session alone: the original's ReplicaSets neither adopt nor count the pod (tried).
            "selector": {"matchLabels": {SESSION_LABEL: agent.session}},
            // Two agents of one session must not be there at once.
            "strategy": {"type": "Recreate"},
            "revisionHistoryLimit": 0,
            "progressDeadlineSeconds": NO_DEADLINE,
            "template": template,
        },
    })
}

/// Init containers of a stand-in that run to an end; sidecars are not counted.
pub(crate) fn init_containers(stand_in: &Value) -> Vec<String> {
    list(stand_in, "/spec/template/spec/initContainers")
        .iter()
        .filter(|container| !is_sidecar(container))
        .map(|container| text(container, "/name").to_owned())
        .collect()
}

/// Puts the agent into the target container of a pod template.
pub(crate) fn occupy(agent: &Agent<'_>, template: &mut Value) {
    object(object(template, "metadata"), "labels")
        .as_object_mut()
        .map(|labels| labels.insert(SESSION_LABEL.to_owned(), json!(agent.session)));
    let spec = object(template, "spec");
    let grace = number(spec, "/terminationGracePeriodSeconds").unwrap_or(GRACE_SECONDS);
    spec["terminationGracePeriodSeconds"] = json!(grace.max(GRACE_SECONDS));
    if agent.skip_init
        && let Some(Value::Array(containers)) = spec.get_mut("initContainers")
    {
        containers.retain(is_sidecar);
    }
    allow_low_ports(spec);
    let pod_has_resources = spec.get("resources").is_some();
    let volumes = add_volumes(agent, spec);
    let containers = spec.get_mut("containers").and_then(Value::as_array_mut);
    let target = containers.and_then(|all| all.iter_mut().find(|one| text(one, "/name") == agent.container));
    if let Some(container) = target {
        occupy_container(agent, container, &volumes);
        if agent.fill_resources && !pod_has_resources {
            fill_resources(container);
        }
    }
}

fn is_sidecar(container: &Value) -> bool {
    text(container, "/restartPolicy") == "Always"
}

/// Names of our volumes in this pod, made different from the template's own.
struct Volumes {
    bin: Option<String>,
    key: String,
    run: String,
}

fn add_volumes(agent: &Agent<'_>, spec: &mut Value) -> Volumes {
    let taken: Vec<String> =
        list(spec, "/volumes").iter().map(|volume| text(volume, "/name").to_owned()).collect();
    let free = |wanted: &str| {
        let mut name = format!("devproxy-{wanted}");
        while taken.contains(&name) {
            name.push('x');
        }
        name
    };
    let names = Volumes { bin: agent.config_map.map(|_| free("bin")), key: free("key"), run: free("run") };
    let mut added = Vec::new();
    if let (Some(volume), Some(config_map)) = (&names.bin, agent.config_map) {
        added.push(json!({"name": volume, "configMap": {"name": config_map, "defaultMode": 0o555}}));
    }
    added.push(json!({"name": names.key, "secret": {"secretName": agent.secret, "defaultMode": 0o444}}));
    // Where a memfd may not be executed, the loader writes the agent here: works with a read-only root and any uid.
    added.push(json!({"name": names.run, "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}));
    append(spec, "volumes", added);
    names
}

fn occupy_container(agent: &Agent<'_>, container: &mut Value, volumes: &Volumes) {
    if let Some(container) = container.as_object_mut() {
        // A breakpoint must not kill the pod, and hooks call programs that do not run here.
        for key in ["lifecycle", "livenessProbe", "startupProbe", "restartPolicyRules"] {
            container.remove(key);
        }
    }
    let mut args: Vec<String> = Vec::new();
    if let Some(image) = agent.image {
        container["image"] = json!(image);
        container["command"] = json!(["/devproxy-agent"]);
    } else {
        container["command"] = json!([format!("{FOLDER}/bin/{LOADER}")]);
        args.extend(["--dir".into(), format!("{FOLDER}/run"), format!("{FOLDER}/bin/{AGENT}"), "--".into()]);
    }
    args.extend([
        "--key".to_owned(),
        format!("{FOLDER}/key/{KEY}"),
        "--tunnel-port".to_owned(),
        agent.tunnel_port.to_string(),
        "--ready-port".to_owned(),
        agent.ready_port.to_string(),
    ]);
    container["args"] = json!(args);
    // The image that the original runs lies on the node; `Always` could bring a newer one, or fail.
    if text(container, "/imagePullPolicy") != "Never" || agent.image.is_some() {
        container["imagePullPolicy"] = json!("IfNotPresent");
    }
    // The kernel accepts on the agent's port even while the container is throttled, so that one missed probe means
    // something; two are for a node under load.
    container["readinessProbe"] = json!({
        "tcpSocket": {"port": agent.ready_port},
        "periodSeconds": 1,
        "timeoutSeconds": 1,
        "successThreshold": 1,
        "failureThreshold": 2,
    });
    // Brings the agent's last words without a right to read logs.
    container["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    let mut mounts = vec![
        json!({"name": volumes.key, "mountPath": format!("{FOLDER}/key"), "readOnly": true}),
        json!({"name": volumes.run, "mountPath": format!("{FOLDER}/run")}),
    ];
    if let Some(bin) = &volumes.bin {
        mounts.insert(0, json!({"name": bin, "mountPath": format!("{FOLDER}/bin"), "readOnly": true}));
    }
    append(container, "volumeMounts", mounts);
}

/// The local program's ports below 1024 are opened by the agent as any user. The sysctl is "safe" and allowed under Pod
/// Security `restricted`; with the node's network validation refuses it.
fn allow_low_ports(spec: &mut Value) {
    const LOWEST: &str = "net.ipv4.ip_unprivileged_port_start";
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        return;
    }
    let security = object(spec, "securityContext");
    if !list(security, "/sysctls").iter().any(|sysctl| text(sysctl, "/name") == LOWEST) {
        append(security, "sysctls", vec![json!({"name": LOWEST, "value": "0"})]);
    }
}

/// A quota may demand requests and limits, and a leak of ours must not eat the node. Only where the container says
/// nothing about memory: half of a pair could contradict its other half.
fn fill_resources(container: &mut Value) {
    let has = |pointer: &str| container.pointer(pointer).is_some();
    let (no_memory, no_cpu) = (
        !has("/resources/requests/memory") && !has("/resources/limits/memory"),
        !has("/resources/requests/cpu") && !has("/resources/limits/cpu"),
    );
    let resources = object(container, "resources");
    if no_memory {
        object(resources, "requests")["memory"] = json!("64Mi");
        object(resources, "limits")["memory"] = json!("256Mi");
    }
    // No limit for the processor: throttling is latency.
    if no_cpu {
        object(resources, "requests")["cpu"] = json!("10m");
    }
}

/// The map at `key`, made if it is absent or null.
fn object<'a>(value: &'a mut Value, key: &str) -> &'a mut Value {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    if !value[key].is_object() {
        value[key] = json!({});
    }
    &mut value[key]
}

fn append(value: &mut Value, key: &str, items: Vec<Value>) {
    if items.is_empty() {
        return;
    }
    match value.get_mut(key).and_then(Value::as_array_mut) {
        Some(list) => list.extend(items),
        None => value[key] = Value::Array(items),
    }
}

#[cfg(test)]
mod tests;
