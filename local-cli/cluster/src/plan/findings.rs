//! What a plan concludes from what was read: whether it can be done, when the traffic goes over, what to warn about.

use serde_json::Value;

use super::{DeclaredPort, Handover, HandoverMode, Original, PortMapping, Protocol, Warning, read::Found};
use crate::{
    ClusterError,
    json::{label_selector_selects, list, name, selects, text},
    name::SESSION_LABEL,
    pod::words_of_failure,
    quantity::milli,
    slices::is_leaving,
};

/// Below so much CPU the agent is throttled under load, in thousandths of a core.
const LOW_CPU: i128 = 200;

/// Refuses what cannot carry an agent.
pub(super) fn suitable(deployment: &Value) -> Result<(), ClusterError> {
    let refuse = |reason: &str| {
        Err(ClusterError::Unsuitable { name: name(deployment).to_owned(), reason: reason.to_owned() })
    };
    let labels = deployment.pointer("/metadata/labels");
    if labels.is_some_and(|labels| labels.get(SESSION_LABEL).is_some()) {
        return refuse("it is the stand-in of a session");
    }
    if is_leaving(deployment) {
        return refuse("it is being deleted");
    }
    let spec = deployment.pointer("/spec/template/spec").unwrap_or(&Value::Null);
    let node = text(spec, "/nodeSelector/kubernetes.io~1os");
    if text(spec, "/os/name") == "windows" || node == "windows" {
        return refuse("its pods run on Windows");
    }
    Ok(())
}

/// When the traffic goes over, and why then.
pub(super) fn handover(
    mode: HandoverMode,
    found: &Found,
    template: &Value,
    ports: &[DeclaredPort],
    replicas: i64,
) -> (Handover, String) {
    let spec = template.get("spec").unwrap_or(&Value::Null);
    if replicas == 0 {
        return (Handover::AtOnce, "it has 0 replicas".into());
    }
    // What forces the original to go first is a fact, not a wish: `--handover=listen` cannot change it.
    if let Some(reason) = no_room_for_both(found, template, spec) {
        return (Handover::OriginalFirst, reason);
    }
    if found.ready_pods() == 0 {
        return (Handover::AtOnce, "none of its pods is ready".into());
    }
    let tcp = ports.iter().any(|port| port.protocol == Protocol::Tcp);
    match mode {
        HandoverMode::Now => (Handover::AtOnce, "asked for".into()),
        HandoverMode::Listen if tcp => (Handover::OnListen, "asked for".into()),
        HandoverMode::Auto if tcp => (Handover::OnListen, "it has TCP ports".into()),
        // Whatever was asked for, there is nothing to wait for.
        HandoverMode::Listen | HandoverMode::Auto => (Handover::AtOnce, NO_TCP_PORTS.into()),
    }
}

/// The original leaves before the program has said anything, which is told before.
const NO_TCP_PORTS: &str = "it has no TCP ports";

/// What the user should know of the handover.
pub(super) fn warning_of_handover(name: &str, handover: &(Handover, String)) -> Option<Warning> {
    let unheard = handover.0 == Handover::AtOnce && handover.1 == NO_TCP_PORTS;
    unheard.then(|| Warning {
        code: "no-ports".into(),
        text: format!(
            "neither {name} nor a Service names a TCP port, so it is scaled to 0 at once; `-p PORT` waits until the program listens there"
        ),
    })
}

/// A mapping from a port of the pods that nobody leads to: the traffic that is meant would never come.
///
/// A Service's own port is what its clients know, and `kubectl port-forward` writes the two the other way round.
/// `named` is what Services and containers name; `leads` finds the Service behind its own port, and the pods' port.
pub(super) fn warning_of_mapping<'a>(
    name: &str,
    named: &[DeclaredPort],
    mapping: PortMapping,
    leads: impl FnOnce(Protocol, u16) -> Option<(&'a str, u16)>,
) -> Option<Warning> {
    let PortMapping { pod, local, protocol } = mapping;
    let of_protocol = || named.iter().filter(|port| port.protocol == protocol).map(|port| port.port);
    if of_protocol().any(|port| port == pod) {
        return None;
    }
    let udp = if protocol == Protocol::Udp { "/udp" } else { "" };
    let (code, text) = if let Some((service, target)) = leads(protocol, pod) {
        (
            "service-port",
            format!(
                "no Service leads to port {pod} of {name}'s pods, Service {service} leads from {pod} to {target}: \
                 was `-p {target}:{local}{udp}` meant?"
            ),
        )
    } else if of_protocol().any(|port| port == local) {
        (
            "port-order",
            format!(
                "`-p {pod}:{local}{udp}` leads the pod's {pod} to {local} here, and nobody names the pod's {pod}: \
                 was `-p {local}:{pod}{udp}` meant?"
            ),
        )
    } else if let Some(first) = of_protocol().next().filter(|_| pod != local) {
        let all = of_protocol().map(|port| port.to_string()).collect::<Vec<_>>().join(", ");
        (
            "unnamed-port",
            format!(
                "no Service leads to port {pod} of {name}'s pods and no container names it, they name {all}: \
                 was `-p {first}:{local}{udp}` meant?"
            ),
        )
    } else {
        return None;
    };
    Some(Warning { code: code.into(), text })
}

/// Why stand-in and original cannot run at the same time.
fn no_room_for_both(found: &Found, template: &Value, spec: &Value) -> Option<String> {
    for volume in list(spec, "/volumes") {
        let claim = text(volume, "/persistentVolumeClaim/claimName");
        let object = found.claims.iter().find(|object| !claim.is_empty() && name(object) == claim);
        let modes = object.map(|object| list(object, "/spec/accessModes")).unwrap_or_default();
        let shared = modes.iter().any(|mode| mode == "ReadWriteMany" || mode == "ReadOnlyMany");
        if !modes.is_empty() && !shared {
            return Some(format!("volume {claim} can be mounted once"));
        }
    }
    let mut ports = list(spec, "/containers").iter().flat_map(|container| list(container, "/ports"));
    if let Some(port) = ports.find_map(|port| port.get("hostPort").filter(|port| **port != 0)) {
        return Some(format!("host port {port} is there once per node"));
    }
    // With the node's network every declared port is a host port.
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        return Some("it has the node's network".into());
    }
    let labels = template.pointer("/metadata/labels");
    let rules = list(spec, "/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution");
    if rules.iter().any(|rule| label_selector_selects(rule.get("labelSelector"), labels)) {
        return Some("its pods must not share a node (required anti-affinity)".into());
    }
    if list(spec, "/topologySpreadConstraints").iter().any(|rule| {
        text(rule, "/whenUnsatisfiable") == "DoNotSchedule"
            && label_selector_selects(rule.get("labelSelector"), labels)
    }) {
        return Some("its pods must be spread evenly".into());
    }
    full_quota(found, spec)
        .map(|(quota, resource)| format!("quota {quota} has no room for one more pod ({resource})"))
}

/// The first quota, and its resource, into which one more pod of this template does not fit. What a `LimitRange` and
/// other admission fill in stands in a pod, not in its template.
fn full_quota(found: &Found, spec: &Value) -> Option<(String, String)> {
    let ended = |pod: &Value| matches!(text(pod, "/status/phase"), "Failed" | "Succeeded");
    let alive = found.pods.iter().filter(|pod| !is_leaving(pod) && !ended(pod));
    let pod =
        alive.max_by_key(|pod| text(pod, "/metadata/creationTimestamp")).and_then(|pod| pod.get("spec"));
    let of = |spec: &Value, section: &str, unit: &str| -> i128 {
        let amount = format!("/resources/{section}/{unit}");
        list(spec, "/containers").iter().filter_map(|container| milli(text(container, &amount))).sum()
    };
    let need = |resource: &str| -> i128 {
        if resource == "pods" || resource == "count/pods" {
            return 1_000;
        }
        let (section, unit) = match resource.split_once('.') {
            Some((section @ ("requests" | "limits"), unit)) => (section, unit),
            _ if resource == "cpu" || resource == "memory" => ("requests", resource),
            _ => return 0,
        };
        // The template may be newer than its pods.
        of(spec, section, unit).max(pod.map_or(0, |pod| of(pod, section, unit)))
    };
    for quota in &found.quotas {
        // A quota with a scope counts only some pods; it speaks for itself at the creation.
        if quota.pointer("/spec/scopeSelector").is_some() || !list(quota, "/spec/scopes").is_empty() {
            continue;
        }
        for (resource, hard) in quota.pointer("/status/hard").and_then(Value::as_object).into_iter().flatten()
        {
            let used = quota.pointer("/status/used").and_then(|used| used.get(resource));
            let amounts = (hard.as_str().and_then(milli), used.and_then(Value::as_str).and_then(milli));
            let (Some(hard), Some(used)) = amounts else { continue };
            let need = need(resource);
            if need > 0 && used + need > hard {
                return Some((name(quota).to_owned(), resource.clone()));
            }
        }
    }
    None
}

/// What the user should know before anything is changed.
pub(super) fn warnings(
    found: &Found,
    template: &Value,
    container: &str,
    stand_in: &Value,
    original: &Original,
) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |code: &str, text: String| warnings.push(Warning { code: code.to_owned(), text });
    let spec = template.get("spec").unwrap_or(&Value::Null);
    let labels = template.pointer("/metadata/labels");

    if original.replicas == 0 {
        warn("zero-replicas", format!("{} has 0 replicas, and will have 0 again afterwards", original.name));
    } else if original.ready == 0 {
        let words = found.pods.iter().find_map(words_of_failure);
        let words = words.unwrap_or_else(|| not_yet(&found.pods).into());
        warn("broken", format!("no pod of {} is ready: {words}", original.name));
    }
    for autoscaler in &found.autoscalers {
        if text(autoscaler, "/spec/scaleTargetRef/kind") == "Deployment"
            && text(autoscaler, "/spec/scaleTargetRef/name") == original.name
        {
            let keda = text(autoscaler, "/metadata/labels/app.kubernetes.io~1managed-by") == "keda-operator";
            if keda {
                warn(
                    "keda",
                    format!(
                        "KEDA scales it ({}) and may scale it back: pause the ScaledObject",
                        name(autoscaler)
                    ),
                );
            } else {
                warn("hpa", format!("autoscaler {} pauses while it has 0 replicas", name(autoscaler)));
            }
        }
    }
    for budget in &found.budgets {
        if label_selector_selects(budget.pointer("/spec/selector"), labels) {
            let budget = name(budget);
            warn(
                "pdb",
                format!(
                    "disruption budget {budget} counts the stand-in: a drain of its node waits for the session"
                ),
            );
        }
    }
    if let Some(owner) = continuous_delivery(&found.deployment) {
        warn("gitops", format!("{owner} manages it and may scale it back: pause its synchronisation"));
    }
    let init = crate::stand_in::init_containers(stand_in);
    if !init.is_empty() {
        warn("init", format!("init containers run again: {}; --skip-init leaves them out", init.join(", ")));
    }
    for service in &found.services {
        if service.pointer("/spec/publishNotReadyAddresses") == Some(&Value::Bool(true))
            && selects(service.pointer("/spec/selector"), labels)
        {
            warn(
                "not-ready-addresses",
                format!(
                    "Service {} leads to pods that are not ready: it reaches the stand-in before the handover",
                    name(service)
                ),
            );
        }
    }
    let gates: Vec<&str> =
        list(spec, "/readinessGates").iter().map(|gate| text(gate, "/conditionType")).collect();
    if !gates.is_empty() {
        warn("readiness-gates", format!("the handover waits for readiness gates: {}", gates.join(", ")));
    }
    let swapped = list(spec, "/containers").iter().find(|candidate| text(candidate, "/name") == container);
    let cpu = swapped.and_then(|container| milli(text(container, "/resources/limits/cpu")));
    if let Some(cpu) = cpu.filter(|cpu| *cpu < LOW_CPU) {
        warn("low-cpu", format!("the container may use {cpu}m of a core: the tunnel is throttled with it"));
    }
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        warn("host-network", "it has the node's network: the agent's port is on the node's loopback, guarded by the session key alone".into());
    }
    warnings
}

/// Why none of these pods is ready, where they do not say so themselves.
fn not_yet(pods: &[Value]) -> &'static str {
    let (leaving, alive): (Vec<&Value>, Vec<&Value>) = pods.iter().partition(|pod| is_leaving(pod));
    if alive.iter().any(|pod| text(pod, "/status/phase") == "Running") {
        "they run, but their readiness probes have not succeeded"
    } else if !alive.is_empty() {
        "they are still starting"
    } else if !leaving.is_empty() {
        "they are being deleted"
    } else {
        "there are none"
    }
}

/// The delivery system that would notice a changed `replicas`.
fn continuous_delivery(deployment: &Value) -> Option<&'static str> {
    let has = |map: &str, key: &str| deployment.pointer(map).is_some_and(|map| map.get(key).is_some());
    if has("/metadata/annotations", "argocd.argoproj.io/tracking-id") {
        return Some("Argo CD");
    }
    if has("/metadata/labels", "kustomize.toolkit.fluxcd.io/name")
        || has("/metadata/labels", "helm.toolkit.fluxcd.io/name")
    {
        return Some("Flux");
    }
    if has("/metadata/labels", "objectset.rio.cattle.io/hash") {
        return Some("Fleet");
    }
    list(deployment, "/metadata/managedFields").iter().find_map(|entry| match text(entry, "/manager") {
        "argocd-controller" | "argocd-application-controller" => Some("Argo CD"),
        "kustomize-controller" | "helm-controller" => Some("Flux"),
        "keda" | "keda-operator" => Some("KEDA"),
        _ => None,
    })
}
