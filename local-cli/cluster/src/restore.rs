//! Puts everything back from a session's record alone: by the session itself, or later from another machine.
//!
//! Idempotent: each part looks at what there is. The original's owner wins: its replicas are set only while they are
//! still what we set. The Lease goes last, so that whatever stops a restore, the next one finds the record.

mod drained;

use std::{future::Future, net::IpAddr, pin::Pin, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use crate::{
    ClusterError, Connection, event,
    json::{list, name as name_of, number, text},
    lease,
    name::SESSION_LABEL,
    ownership, pod,
    record::{Holder, Original, Phase, Record},
    resource::{Condition, Kind, Objects},
    slices,
    swap::{CONFLICTS, Progress, SETTLE, SLICES_LIMIT, original_pods},
    wait::until,
};

/// Longest wait for the original's pods; then the stand-in leaves anyway.
const READY_LIMIT: Duration = Duration::from_mins(5);
/// Between two looks at which of the original's pods are ready.
const LOOK: Duration = Duration::from_secs(3);
/// Between two looks at the words of the original's pods.
const WORDS: Duration = Duration::from_secs(10);
/// Longest time for the live session to tell the agent.
const SPLICE_LIMIT: Duration = Duration::from_secs(15);
/// So long the end of the stand-in's pod takes without connections: the agent's 5 s for late clients, the kubelet's own.
const LINGER_LIMIT: Duration = Duration::from_secs(9);
/// Longest wait for the stand-in's pod to end: its grace period and the kubelet's own time.
const GONE_LIMIT: Duration = Duration::from_mins(2);

/// Returned by a [`SpliceHook`].
pub type Splicing<'a> = Pin<Box<dyn Future<Output = bool> + Send + 'a>>;

/// What a live session does before the stand-in leaves: the agent sends what is held, and what still comes, to these
/// pods.
pub trait SpliceHook: Send {
    /// `ready` are the first addresses of the original's ready pods; empty when none is. Whether the agent knows.
    fn splice(&mut self, ready: Vec<IpAddr>) -> Splicing<'_>;
}

/// What became of the original.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OriginalOutcome {
    /// It never lost a replica.
    Untouched,
    /// It has its replicas again.
    Restored {
        /// So many.
        replicas: i64,
    },
    /// It has its replicas; an earlier restore may have given them back.
    Back {
        /// So many.
        replicas: i64,
    },
    /// Somebody scaled it meanwhile; left as it is.
    Rescaled {
        /// So many.
        replicas: i64,
    },
    /// Somebody deleted it.
    Deleted,
    /// Somebody deleted it and made another one of the same name; left as it is.
    Replaced,
    /// Another session holds it by now: what is done to it is theirs.
    Held,
    /// There is none: `devproxy shell`.
    None,
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// What became of the original.
    pub original: OriginalOutcome,
    /// Pods of it that are ready, in the end.
    pub ready: usize,
    /// What did not go as it should, one line each: a pod's own words, a wait that ended without its event.
    pub problems: Vec<String>,
}

impl Outcome {
    pub(crate) fn nothing() -> Self {
        Self { original: OriginalOutcome::Untouched, ready: 0, problems: Vec::new() }
    }
}

/// Puts everything back. An error means that something could not be done and the Lease stays: call it again.
/// Cancelling it loses nothing either. The Event on the original says that it was done `by` them.
pub async fn restore(
    connection: &Connection,
    record: &Record,
    by: &Holder,
    progress: &mpsc::Sender<Progress>,
    hook: Option<&mut dyn SpliceHook>,
) -> Result<Outcome, ClusterError> {
    let connection = connection.in_namespace(&record.namespace);
    let (record, lock) = begin(&connection, record, by).await?;
    let mut restore = Restore { connection: &connection, record: &record, lock, by, progress };
    let mut problems = Vec::new();
    let (original, ready);
    if record.original_first {
        // Both cannot be there at once: the stand-in makes room, as the original did.
        splice(hook, Vec::new()).await;
        restore.remove_stand_in("waiting for the end of its pod", &mut problems).await?;
        // Somebody else may have finished it meanwhile, and begun a session of their own.
        restore.lock = Lock::of(&connection, &record).await?.0;
        (original, ready) = restore.put_back(&mut problems).await?;
    } else {
        (original, ready) = restore.put_back(&mut problems).await?;
        // Clients were led here only if it has come to the handover.
        let led = record.phase != Phase::Prepared && !ready.is_empty();
        let meanwhile = if splice(hook, ready.clone()).await && led {
            "for 5 s its pod still passes late clients on"
        } else {
            if led {
                // Nobody passes on who learns of the original late.
                sleep(SETTLE).await;
            }
            "waiting for the end of its pod"
        };
        restore.remove_stand_in(meanwhile, &mut problems).await?;
    }
    restore.await_drained(&mut problems).await?;
    restore.remove_rest().await?;
    restore.give_ownership_back(&mut problems).await?;
    lease::release(&connection, &record).await?;
    Ok(Outcome { original, ready: ready.len(), problems })
}

/// What became of the session's Lease, which goes last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lock {
    Ours,
    /// A restore came to its end before (its answer may be lost), or somebody deleted it.
    Gone,
    /// Another session has one of the same name.
    Theirs,
}

impl Lock {
    async fn of(connection: &Connection, record: &Record) -> Result<(Self, Option<Value>), ClusterError> {
        let lease = Objects::new(connection, Kind::Lease).find(&record.lease).await?;
        let lock = match &lease {
            None => Self::Gone,
            Some(lease) if lease::session_of(lease) == record.session => Self::Ours,
            Some(_) => Self::Theirs,
        };
        Ok((lock, lease))
    }
}

/// The record as the Lease has it: it may be newer than the caller's.
async fn begin(
    connection: &Connection,
    record: &Record,
    by: &Holder,
) -> Result<(Record, Lock), ClusterError> {
    let mut record = record.clone();
    let (lock, lease) = Lock::of(connection, &record).await?;
    if let Some(lease) = lease.filter(|_| lock == Lock::Ours) {
        if let Ok(newer) = Record::of_lease(&lease) {
            record = newer;
        }
        lease::note_restore(connection, &lease, &record, by).await?;
    }
    Ok((record, lock))
}

struct Restore<'a> {
    connection: &'a Connection,
    record: &'a Record,
    lock: Lock,
    by: &'a Holder,
    progress: &'a mpsc::Sender<Progress>,
}

impl Restore<'_> {
    /// The original's replicas, its pods, its place in the slices. Also the addresses of its ready pods.
    async fn put_back(
        &self,
        problems: &mut Vec<String>,
    ) -> Result<(OriginalOutcome, Vec<IpAddr>), ClusterError> {
        let Some(original) = &self.record.original else {
            return Ok((OriginalOutcome::None, Vec::new()));
        };
        if self.lock == Lock::Theirs {
            return Ok((OriginalOutcome::Held, Vec::new()));
        }
        let outcome = self.scale_back(original).await?;
        event::tell_outcome(self.connection, self.record, self.by, &outcome).await;
        if outcome == (OriginalOutcome::Rescaled { replicas: 0 })
            && self.record.phase != Phase::Prepared
            && original.replicas > 0
        {
            let (name, had) = (&original.name, original.replicas);
            let again =
                format!("`kubectl scale deployment/{name} -n {} --replicas={had}`", self.record.namespace);
            problems.push(format!("{name} had {had} replicas before and answers nobody now: {again}"));
        }
        let expected = match &outcome {
            // A broken one is not waited for, nor is one that never left.
            OriginalOutcome::Restored { replicas } | OriginalOutcome::Back { replicas } => {
                (*replicas).min(original.ready)
            }
            OriginalOutcome::Rescaled { replicas } if original.ready > 0 => *replicas,
            OriginalOutcome::Untouched if self.record.phase != Phase::Prepared => original.ready,
            _ => 0,
        };
        if expected == 0 {
            // It serves, or it never did: nothing to wait for, but what is held can go to what is there.
            self.delete_drained().await?;
            let pods = Objects::new(self.connection, Kind::Pod);
            let (pods, _) = pods.list(&original_pods(original)).await?;
            let ready = pods.iter().filter(|pod| pod::is_ready(pod));
            return Ok((outcome, ready.filter_map(|pod| pod::addresses(pod).first().copied()).collect()));
        }
        let ready = if expected == 1 { "1 pod" } else { &format!("{expected} pods") };
        let are = if expected == 1 { "is" } else { "are" };
        self.tell(Progress::Undoing(format!("waiting until {ready} of {} {are} ready", original.name)));
        let mut pods = self.await_pods(original, expected, problems).await?;
        self.delete_drained().await?;
        let services = self.existing_services().await?;
        if !pods.is_empty() && !services.is_empty() {
            let services_told = services.join(", ");
            self.tell(Progress::Undoing(format!(
                "waiting until these pods are reached through {services_told}"
            )));
            // Who learns of it late is passed on by the stand-in's agent, which serves on when its pod is deleted.
            let deadline = Instant::now() + SLICES_LIMIT;
            while !slices::await_present(self.connection, &services, &pods, LOOK).await? {
                if Instant::now() >= deadline {
                    problems.push(format!(
                        "{} is ready but not in the EndpointSlices of all its Services",
                        original.name
                    ));
                    break;
                }
                // A ReplicaSet whose pods got their labels back ends as many, ready or not.
                pods = self.await_pods(original, expected, problems).await?;
            }
        }
        let first = pods.iter().filter_map(|addresses| addresses.first().copied()).collect();
        Ok((outcome, first))
    }

    async fn scale_back(&self, original: &Original) -> Result<OriginalOutcome, ClusterError> {
        let deployments = Objects::new(self.connection, Kind::Deployment);
        for _ in 0..CONFLICTS {
            let Some(current) = deployments.find(&original.name).await? else {
                return Ok(OriginalOutcome::Deleted);
            };
            match decide(&current, original, self.record.phase, self.lock) {
                Decision::Leave(outcome) => return Ok(outcome),
                Decision::Unscaled(outcome) => {
                    self.give_labels_back().await?;
                    return Ok(outcome);
                }
                Decision::Scale => {}
            }
            let replicas = original.replicas;
            self.tell(Progress::Undoing(format!("{} 0 → {replicas} replicas", original.name)));
            let version = text(&current, "/metadata/resourceVersion");
            let patch = json!({"spec": {"replicas": replicas}});
            match deployments.merge(&original.name, Condition::Version(version), patch).await {
                Ok(_) => return Ok(OriginalOutcome::Restored { replicas }),
                Err(error) if error.is_conflict() => {}
                Err(error) if error.is_not_found() => return Ok(OriginalOutcome::Deleted),
                Err(error) => return Err(error),
            }
        }
        Err(ClusterError::Changed {
            deployment: self.record.title(),
            change: "it changes faster than it can be scaled".into(),
        })
    }

    /// Waits for the original's pods; what is ready in the end, even if it is less.
    async fn await_pods(
        &self,
        original: &Original,
        expected: i64,
        problems: &mut Vec<String>,
    ) -> Result<Vec<Vec<IpAddr>>, ClusterError> {
        let expected = usize::try_from(expected).unwrap_or(0);
        let pods = Objects::new(self.connection, Kind::Pod);
        let selector = original_pods(original);
        let deadline = Instant::now() + READY_LIMIT;
        let mut said = String::new();
        loop {
            let (mut ready, mut words) = (Vec::new(), None);
            let done = until(&pods, &selector, WORDS, |seen| {
                let all = seen.values().filter(|pod| pod::is_ready(pod));
                ready = slices::addresses_by_pod(all);
                words = seen
                    .values()
                    .filter(|pod| !pod::is_ready(pod) && !slices::is_leaving(pod))
                    .find_map(pod::words_of_failure);
                (ready.len() >= expected).then_some(())
            })
            .await?;
            if done.is_some() {
                return Ok(ready);
            }
            if let Some(words) = words.filter(|words| *words != said) {
                self.tell(Progress::Note(format!("{}: {words}", original.name)));
                said = words;
            }
            if Instant::now() >= deadline {
                let have = ready.len();
                let minutes = READY_LIMIT.as_secs() / 60;
                problems.push(format!(
                    "{have} of {expected} pods of {} are ready after {minutes} minutes{}{said}",
                    original.name,
                    if said.is_empty() { "" } else { ": " },
                ));
                return Ok(ready);
            }
        }
    }

    /// A Service that somebody deleted meanwhile is not waited for.
    async fn existing_services(&self) -> Result<Vec<String>, ClusterError> {
        if self.record.services.is_empty() {
            return Ok(Vec::new());
        }
        let existing = Objects::new(self.connection, Kind::Service).list_if_allowed().await?;
        let exists =
            |service: &&String| existing.iter().any(|existing| name_of(existing) == service.as_str());
        Ok(self.record.services.iter().filter(exists).cloned().collect())
    }

    /// Its pod leaves the slices with the deletion.
    async fn remove_stand_in(&self, meanwhile: &str, problems: &mut Vec<String>) -> Result<(), ClusterError> {
        let stand_in = &self.record.stand_in;
        self.tell(Progress::Undoing(format!("deleting {stand_in}: {meanwhile}")));
        Objects::new(self.connection, Kind::Deployment).delete(stand_in, None).await?;
        let pods = Objects::new(self.connection, Kind::Pod);
        let selector = self.session_selector();
        let gone = async |limit| until(&pods, &selector, limit, |seen| seen.is_empty().then_some(())).await;
        if gone(LINGER_LIMIT).await?.is_some() {
            return Ok(());
        }
        let left = "its last connections have 25 s, its other containers their grace period";
        self.tell(Progress::Undoing(format!("waiting for the pod of {stand_in}: {left}")));
        if gone(GONE_LIMIT).await?.is_none() {
            problems.push(format!("the pod of {stand_in} has not ended after {} s", GONE_LIMIT.as_secs()));
        }
        Ok(())
    }

    async fn remove_rest(&self) -> Result<(), ClusterError> {
        if let Some(config_map) = &self.record.config_map {
            Objects::new(self.connection, Kind::ConfigMap).delete(config_map, None).await?;
        }
        Objects::new(self.connection, Kind::Secret).delete(&self.record.secret, None).await
    }

    /// A second request, after the replicas: see [`ownership`].
    async fn give_ownership_back(&self, problems: &mut Vec<String>) -> Result<(), ClusterError> {
        let was_ours = self.record.phase != Phase::Prepared && self.lock != Lock::Theirs;
        let Some(original) = self.record.original.as_ref().filter(|_| was_ours) else {
            return Ok(());
        };
        let deployments = Objects::new(self.connection, Kind::Deployment);
        for _ in 0..CONFLICTS {
            let Some(current) = deployments.find(&original.name).await? else { return Ok(()) };
            if text(&current, "/metadata/uid") != original.uid {
                return Ok(());
            }
            // The next session's work already: it gives the field back itself.
            if original.replicas > 0 && number(&current, "/spec/replicas") == Some(0) {
                return Ok(());
            }
            let managed = list(&current, "/metadata/managedFields");
            let Some(after) = ownership::given_back(managed, &original.replica_owners) else { return Ok(()) };
            let version = text(&current, "/metadata/resourceVersion");
            let patch = json!({"metadata": {"managedFields": after}});
            match deployments.merge(&original.name, Condition::Version(version), patch).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_conflict() => {}
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        problems.push(format!("the ownership of replicas of {} could not be given back", original.name));
        Ok(())
    }

    fn session_selector(&self) -> String {
        format!("{SESSION_LABEL}={}", self.record.session)
    }

    fn tell(&self, progress: Progress) {
        let _ = self.progress.try_send(progress);
    }
}

/// Whether the agent knows. One that cannot be told resets what it holds when its pod ends.
async fn splice(hook: Option<&mut dyn SpliceHook>, ready: Vec<IpAddr>) -> bool {
    let Some(hook) = hook else { return false };
    timeout(SPLICE_LIMIT, hook.splice(ready)).await.unwrap_or(false)
}

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Scale,
    /// It has its replicas, and not by us: those of its pods that have no labels are its own.
    Unscaled(OriginalOutcome),
    Leave(OriginalOutcome),
}

/// Whether the original's replicas are still what we set, and so ours to put back.
fn decide(current: &Value, original: &Original, phase: Phase, lock: Lock) -> Decision {
    if text(current, "/metadata/uid") != original.uid {
        return Decision::Leave(OriginalOutcome::Replaced);
    }
    if slices::is_leaving(current) {
        return Decision::Leave(OriginalOutcome::Deleted);
    }
    let managed = list(current, "/metadata/managedFields");
    // An API without managedFields (some proxies strip them) leaves only the count to judge by.
    // And the phase is noted before the first touch.
    let ours = phase != Phase::Prepared && (managed.is_empty() || ownership::ours(managed));
    let replicas = number(current, "/spec/replicas").unwrap_or(1);
    let has_its_own = replicas == original.replicas;
    match replicas {
        replicas if has_its_own && ours => Decision::Leave(OriginalOutcome::Back { replicas }),
        0 if ours => Decision::Scale,
        _ if has_its_own && phase == Phase::Prepared => Decision::Unscaled(OriginalOutcome::Untouched),
        // Never scaled; or a restore came so far, which gives the ownership back before the Lease.
        replicas if has_its_own && (phase != Phase::Swapped || lock == Lock::Gone) => {
            Decision::Unscaled(OriginalOutcome::Back { replicas })
        }
        // We had scaled it, and this is not our doing.
        replicas => Decision::Leave(OriginalOutcome::Rescaled { replicas }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    fn current(uid: &str, replicas: i64, owner: &str) -> Value {
        json!({
            "metadata": {"name": "cart", "uid": uid, "managedFields": [
                {"manager": owner, "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
            ]},
            "spec": {"replicas": replicas},
        })
    }

    fn decided(current: &Value, phase: Phase) -> Decision {
        decide(current, &record().original.unwrap(), phase, Lock::Ours)
    }

    #[test]
    fn replicas_go_back_only_while_they_are_what_we_set() {
        assert_eq!(decided(&current("u-1", 0, "devproxy"), Phase::Swapped), Decision::Scale);
        assert_eq!(decided(&current("u-1", 0, "devproxy"), Phase::Restoring), Decision::Scale);
        for (replicas, owner) in [(5, "kubectl"), (3, "kubectl"), (0, "kubectl"), (5, "devproxy")] {
            assert_eq!(
                decided(&current("u-1", replicas, owner), Phase::Swapped),
                Decision::Leave(OriginalOutcome::Rescaled { replicas }),
            );
        }
    }

    #[test]
    fn a_second_restore_finds_the_first() {
        let leave = Decision::Leave(OriginalOutcome::Back { replicas: 3 });
        assert_eq!(decided(&current("u-1", 3, "devproxy"), Phase::Restoring), leave);
        let untouched = Decision::Unscaled(OriginalOutcome::Untouched);
        assert_eq!(decided(&current("u-1", 3, "kubectl"), Phase::Prepared), untouched);
        let back = Decision::Unscaled(OriginalOutcome::Back { replicas: 3 });
        assert_eq!(decided(&current("u-1", 3, "kubectl"), Phase::HandingOver), back);
    }

    #[test]
    fn a_restore_whose_last_answer_was_lost_finds_itself_done() {
        let again = |replicas, phase, lock| {
            decide(&current("u-1", replicas, "kubectl"), &record().original.unwrap(), phase, lock)
        };
        let back = Decision::Unscaled(OriginalOutcome::Back { replicas: 3 });
        assert_eq!(again(3, Phase::Swapped, Lock::Gone), back);
        assert_eq!(again(3, Phase::HandingOver, Lock::Gone), back);
        // The ownership was given back, the Lease could not be deleted.
        assert_eq!(again(3, Phase::Restoring, Lock::Ours), back);
        // Somebody deleted the Lease and scaled it.
        let theirs = Decision::Leave(OriginalOutcome::Rescaled { replicas: 5 });
        assert_eq!(again(5, Phase::Swapped, Lock::Gone), theirs);
        let untouched = Decision::Unscaled(OriginalOutcome::Untouched);
        assert_eq!(again(3, Phase::Prepared, Lock::Gone), untouched);
    }

    #[test]
    fn before_the_handover_the_original_is_not_ours_whoever_scaled_it() {
        let rescaled = Decision::Leave(OriginalOutcome::Rescaled { replicas: 0 });
        assert_eq!(decided(&current("u-1", 0, "devproxy"), Phase::Prepared), rescaled);
        let untouched = Decision::Unscaled(OriginalOutcome::Untouched);
        assert_eq!(decided(&current("u-1", 3, "devproxy"), Phase::Prepared), untouched);
    }

    #[test]
    fn another_deployment_of_the_same_name_is_left_alone() {
        assert_eq!(
            decided(&current("u-2", 0, "devproxy"), Phase::Swapped),
            Decision::Leave(OriginalOutcome::Replaced),
        );
    }
}
