//! Pods: ready or not, the agent's pod, and a pod's own words when it does not start.

use std::{net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

use crate::{
    ClusterError, Connection,
    json::{list, name, number, text},
    name::SESSION_LABEL,
    plan::{FileRoot, file_roots_of_pod},
    resource::{Kind, Objects},
    slices::is_leaving,
    wait::{Follow, Seen},
};

/// Longest wait for the agent to run. A pod starts within seconds; an init container or a node that is being added
/// takes minutes.
pub(crate) const START_LIMIT: Duration = Duration::from_mins(3);
/// How long a pod may wait for what it lacks, such as a node: the scheduler tries again when something changes, and a
/// preempted pod leaves within its grace period.
const PENDING_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at the stand-in itself, whose controller tells why there is no pod.
const LOOK: Duration = Duration::from_secs(3);

/// The pod that carries the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentPod {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its addresses, as the kubelet reports them, IPv4 first if that is the cluster's first family.
    pub addresses: Vec<IpAddr>,
    /// Its node.
    pub node: String,
    /// What the kubelet fills in the agent's container, as it really is.
    pub file_roots: Vec<FileRoot>,
}

impl AgentPod {
    /// The paths of [`AgentPod::file_roots`].
    pub fn roots(&self) -> Vec<String> {
        self.file_roots.iter().map(|root| root.path.clone()).collect()
    }
}

/// The newest pod of a session that has a node, where the agent can be asked for.
///
/// The kubelet looks at its containers once a second, so that the agent mostly answers before its pod is said to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The pod. Its addresses may not be known yet.
    pub pod: AgentPod,
    /// The kubelet says that the agent's container runs.
    pub running: bool,
}

/// What a pod's container tells about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Running,
    Starting,
    /// Waits for something that may come yet.
    Pending(String),
    /// Waits for its image, which may come yet.
    Pulling(String),
    Image(String),
    Ended(String),
    Processor(String),
}

/// Whether the pod's condition `Ready` is true and it is not being deleted.
pub(crate) fn is_ready(pod: &Value) -> bool {
    !is_leaving(pod)
        && list(pod, "/status/conditions")
            .iter()
            .any(|condition| text(condition, "/type") == "Ready" && text(condition, "/status") == "True")
}

/// All addresses of a pod.
pub(crate) fn addresses(pod: &Value) -> Vec<IpAddr> {
    let all: Vec<IpAddr> =
        list(pod, "/status/podIPs").iter().filter_map(|ip| text(ip, "/ip").parse().ok()).collect();
    if all.is_empty() { text(pod, "/status/podIP").parse().into_iter().collect() } else { all }
}

/// Why a pod is not ready, in its own words: the scheduler's, the kubelet's, the container's.
pub(crate) fn words_of_failure(pod: &Value) -> Option<String> {
    for condition in list(pod, "/status/conditions") {
        if text(condition, "/type") == "PodScheduled" && text(condition, "/status") == "False" {
            return Some(words([text(condition, "/reason"), text(condition, "/message")]));
        }
    }
    let statuses =
        list(pod, "/status/initContainerStatuses").iter().chain(list(pod, "/status/containerStatuses"));
    for status in statuses {
        let container = text(status, "/name");
        let last = |state: &str| {
            let code = number(status, &format!("/{state}/terminated/exitCode")).filter(|code| *code != 0)?;
            let reason = text(status, &format!("/{state}/terminated/reason"));
            let message = text(status, &format!("/{state}/terminated/message"));
            Some(words([&format!("{container}: exit code {code}"), reason, message]))
        };
        if let Some(words) = last("state").or_else(|| last("lastState")) {
            return Some(words);
        }
        let waiting = text(status, "/state/waiting/reason");
        if !matches!(waiting, "" | "ContainerCreating" | "PodInitializing") {
            return Some(words([container, waiting, text(status, "/state/waiting/message")]));
        }
    }
    let message = text(pod, "/status/message");
    (!message.is_empty()).then(|| words([text(pod, "/status/reason"), message]))
}

/// The running agent of a session, if there is one now.
pub async fn find_agent(
    connection: &Connection,
    namespace: &str,
    session: &str,
    container: &str,
) -> Result<Option<AgentPod>, ClusterError> {
    let connection = connection.in_namespace(namespace);
    let (pods, _) = Objects::new(&connection, Kind::Pod).list(&format!("{SESSION_LABEL}={session}")).await?;
    Ok(pods
        .iter()
        .find(|pod| is_running(pod, container) && !is_leaving(pod))
        .map(|pod| agent(pod, container)))
}

/// Waits until the agent's container is said to run. `Processor` when it is built for another one. `placed` gets the
/// pod as soon as it has a node, `note` its words when they change.
pub(crate) async fn await_agent(
    connection: &Connection,
    pods: &mut Follow,
    stand_in: &str,
    container: &str,
    placed: &watch::Sender<Option<Placed>>,
    mut note: impl FnMut(String),
) -> Result<(), ClusterError> {
    let start = tokio::time::Instant::now();
    let mut said = String::new();
    // In sum: an init container that fails again and again runs in between.
    let mut pending_for = Duration::ZERO;
    loop {
        let look = tokio::time::Instant::now();
        let mut pending = None;
        let answer = pods.until(LOOK, |seen| {
            let (pod, state) = newest(seen, container)?;
            pending = None;
            place(pod, container, state == State::Running, placed);
            match state {
                State::Running => Some(Ok(())),
                State::Starting => None,
                State::Pending(words) => {
                    pending = Some(ClusterError::Schedule { words });
                    None
                }
                State::Pulling(words) => {
                    pending = Some(ClusterError::Image { words });
                    None
                }
                State::Image(words) => Some(Err(ClusterError::Image { words })),
                State::Ended(words) => Some(Err(ClusterError::Agent { words })),
                State::Processor(words) => Some(Err(ClusterError::Processor { words })),
            }
        });
        if let Some(answer) = answer.await? {
            return answer;
        }
        if let Some(ClusterError::Schedule { words } | ClusterError::Image { words }) = &pending
            && !words.is_empty()
            && *words != said
        {
            note(words.clone());
            said.clone_from(words);
        }
        if let Some(error) = pending {
            pending_for += look.elapsed();
            if pending_for > PENDING_LIMIT {
                return Err(error);
            }
        } else {
            require_pod_possible(connection, stand_in).await?;
        }
        if start.elapsed() > START_LIMIT {
            return Err(ClusterError::late("the start of the agent", START_LIMIT, said));
        }
    }
}

fn place(pod: &Value, container: &str, running: bool, placed: &watch::Sender<Option<Placed>>) {
    if text(pod, "/spec/nodeName").is_empty() {
        return;
    }
    let now = Placed { pod: agent(pod, container), running };
    placed.send_if_modified(|before| {
        let changed = before.as_ref() != Some(&now);
        *before = Some(now);
        changed
    });
}

/// Refuses with why the stand-in has no pod: quota, Pod Security, a policy, or it is gone itself.
async fn require_pod_possible(connection: &Connection, stand_in: &str) -> Result<(), ClusterError> {
    let Some(deployment) = Objects::new(connection, Kind::Deployment).find(stand_in).await? else {
        return Err(ClusterError::StandInLost { stand_in: stand_in.to_owned() });
    };
    let failure = list(&deployment, "/status/conditions").iter().find(|condition| {
        text(condition, "/type") == "ReplicaFailure" && text(condition, "/status") == "True"
    });
    match failure {
        Some(failure) => Err(ClusterError::Schedule { words: text(failure, "/message").to_owned() }),
        None => Ok(()),
    }
}

fn newest<'a>(seen: &'a Seen, container: &str) -> Option<(&'a Value, State)> {
    let pod = seen
        .values()
        .filter(|pod| !is_leaving(pod))
        .max_by(|a, b| text(a, "/metadata/creationTimestamp").cmp(text(b, "/metadata/creationTimestamp")))?;
    Some((pod, state(pod, container)))
}

/// Now, also after an earlier end: the kubelet starts an agent that died again.
fn is_running(pod: &Value, container: &str) -> bool {
    let mut statuses = list(pod, "/status/containerStatuses").iter();
    statuses.any(|status| text(status, "/name") == container && status.pointer("/state/running").is_some())
}

fn agent(pod: &Value, container: &str) -> AgentPod {
    AgentPod {
        name: name(pod).to_owned(),
        uid: text(pod, "/metadata/uid").to_owned(),
        addresses: addresses(pod),
        node: text(pod, "/spec/nodeName").to_owned(),
        file_roots: file_roots_of_pod(pod, container),
    }
}

fn state(pod: &Value, container: &str) -> State {
    for condition in list(pod, "/status/conditions") {
        if text(condition, "/type") == "PodScheduled" && text(condition, "/status") == "False" {
            return State::Pending(text(condition, "/message").to_owned());
        }
    }
    if text(pod, "/status/phase") == "Failed" {
        return State::Ended(words_of_failure(pod).unwrap_or_else(|| "the pod failed".into()));
    }
    let statuses = list(pod, "/status/containerStatuses");
    if let Some(status) = statuses.iter().find(|status| text(status, "/name") == container) {
        for past in ["state", "lastState"] {
            if let Some(ended) = status.pointer(&format!("/{past}/terminated")) {
                let words = words([
                    &format!("exit code {}", number(ended, "/exitCode").unwrap_or_default()),
                    text(ended, "/reason"),
                    text(ended, "/message"),
                ]);
                let processor = words.to_lowercase().contains("exec format error");
                return if processor { State::Processor(words) } else { State::Ended(words) };
            }
        }
        if status.pointer("/state/running").is_some() {
            return State::Running;
        }
    }
    // What holds up another container holds up the pod.
    for status in list(pod, "/status/initContainerStatuses").iter().chain(statuses) {
        let message = text(status, "/state/waiting/message");
        let words = words([text(status, "/name"), text(status, "/state/waiting/reason"), message]);
        match text(status, "/state/waiting/reason") {
            "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" | "ImageInspectError" => {
                return State::Image(words);
            }
            "RunContainerError" | "CreateContainerError" | "CrashLoopBackOff"
                if message.to_lowercase().contains("exec format error") =>
            {
                return State::Processor(words);
            }
            "CreateContainerConfigError"
            | "CreateContainerError"
            | "RunContainerError"
            | "CrashLoopBackOff" => return State::Pending(words),
            "ErrImagePull" => return State::Pulling(words),
            _ => {}
        }
    }
    State::Starting
}

fn words<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let parts: Vec<&str> = parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect();
    parts.join(": ").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::tests::answered;

    fn pod(container_status: &Value) -> Value {
        json!({"metadata": {"name": "p"}, "status": {"phase": "Running", "containerStatuses": [container_status]}})
    }

    #[test]
    fn a_pod_without_a_node_speaks_the_schedulers_words() {
        let pod = json!({"status": {"conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient cpu."}]}});
        assert_eq!(state(&pod, "c"), State::Pending("0/1 nodes are available: 1 Insufficient cpu.".into()));
        assert!(words_of_failure(&pod).unwrap().contains("Insufficient cpu"));
    }

    #[test]
    fn the_wrong_processor_is_told_apart_from_a_crash() {
        let ended = |message: &str| {
            pod(&json!({"name": "c", "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                        "lastState": {"terminated": {"exitCode": 255, "reason": "Error", "message": message}}}))
        };
        let format = "exec /.devproxy/bin/devproxy-loader: exec format error";
        assert!(matches!(state(&ended(format), "c"), State::Processor(_)));
        assert_eq!(state(&ended("no key\n"), "c"), State::Ended("exit code 255: Error: no key".into()));
    }

    #[test]
    fn an_image_that_cannot_be_pulled_speaks_the_kubelets_words() {
        let pod = pod(&json!({"name": "c", "state": {"waiting":
            {"reason": "ImagePullBackOff", "message": "Back-off pulling image \"x\""}}}));
        assert_eq!(
            state(&pod, "c"),
            State::Image("c: ImagePullBackOff: Back-off pulling image \"x\"".into())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_pod_lacks_is_waited_for_from_when_it_says_so() {
        let minute = Duration::from_mins(1);
        let waiting =
            |reason: &str| json!({"name": "c", "state": {"waiting": {"reason": reason, "message": "m"}}});
        for (reason, code) in [("ErrImagePull", "DP-IMAGE"), ("CreateContainerConfigError", "DP-SCHEDULE")] {
            // The registry was slow, for longer than the limit.
            let begin = tokio::time::Instant::now();
            let statuses = [waiting("ContainerCreating"), waiting(reason)];
            let connection = answered(move |_, path, _| {
                let item = pod(&statuses[usize::from(begin.elapsed() > minute)]);
                let list = json!({"metadata": {"resourceVersion": "7"}, "items": [item]});
                (
                    200,
                    if path.contains("watch=") {
                        Value::Null
                    } else if path.contains("/pods") {
                        list
                    } else {
                        json!({})
                    },
                )
            });
            let mut pods = Follow::begin(&connection, Kind::Pod, String::new());
            let placed = watch::Sender::new(None);
            let error = await_agent(&connection, &mut pods, "s", "c", &placed, |_| {}).await.unwrap_err();
            assert_eq!(error.code(), code);
            assert!(begin.elapsed() > minute + PENDING_LIMIT, "{:?}", begin.elapsed());
        }
    }

    #[test]
    fn running_is_about_the_agents_container() {
        let pod = json!({"status": {"containerStatuses": [
            {"name": "sidecar", "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}},
            {"name": "c", "state": {"running": {}}},
        ]}});
        assert_eq!(state(&pod, "c"), State::Running);
    }

    #[test]
    fn an_agent_that_was_started_again_runs() {
        let again = pod(
            &json!({"name": "c", "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 137}}}),
        );
        assert!(is_running(&again, "c") && !is_running(&again, "other"));
        // While the first start is awaited, its end is the news.
        assert!(matches!(state(&again, "c"), State::Ended(_)));
    }

    #[test]
    fn a_pod_that_is_being_deleted_is_not_ready() {
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        assert!(is_ready(&ready));
        let mut leaving = ready;
        leaving["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert!(!is_ready(&leaving));
    }
}
