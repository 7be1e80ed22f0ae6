//! The Lease: lock (its creation is atomic), heartbeat, and carrier of the [`Record`].

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    ClusterError, Connection,
    json::{number, text},
    name::{MANAGED_BY_LABEL, MANAGER, RECORD_ANNOTATION, RESTORED_BY_ANNOTATION, SESSION_LABEL},
    place::Place,
    record::{Holder, Phase, Record, annotation},
    resource::{Condition, Kind, Objects},
};

/// How often a living session renews its Lease.
pub(crate) const RENEW_EVERY: Duration = Duration::from_secs(10);
/// Without renewal for so long a session counts as dead, in seconds.
pub const GRACE_SECONDS: i64 = 120;

/// Creates the Lease. The Lease on success; who holds it otherwise.
pub(crate) async fn acquire(connection: &Connection, record: &Record) -> Result<Value, ClusterError> {
    let leases = Objects::new(connection, Kind::Lease);
    match leases.create(&object(record, Timestamp::now())).await {
        Ok(lease) => Ok(lease),
        Err(error) if error.is_already_exists() => match leases.find(&record.lease).await? {
            // Our own request, repeated after an answer that was lost.
            Some(lease) if session_of(&lease) == record.session => Ok(lease),
            Some(lease) => Err(held(&lease, &record.title())),
            None => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// Writes another phase into the record, on the very Lease with this uid.
pub(crate) async fn note_phase(
    connection: &Connection,
    uid: &str,
    record: &mut Record,
    phase: Phase,
) -> Result<(), ClusterError> {
    let next = Record { phase, ..record.clone() };
    let patch = json!({"metadata": {"annotations": {RECORD_ANNOTATION: next.to_json()}}});
    Objects::new(connection, Kind::Lease)
        .merge(&record.lease, Condition::Uid(uid), patch)
        .await
        .map_err(|error| lost(&record.lease, error))?;
    *record = next;
    Ok(())
}

/// Writes who puts it back, and that it is being done, onto the very Lease that was read. A session that is only prepared
/// stays so: what is done depends on how far it came, and it may go on in this moment.
pub(crate) async fn note_restore(
    connection: &Connection,
    lease: &Value,
    record: &Record,
    by: &Holder,
) -> Result<(), ClusterError> {
    let by = serde_json::to_string(by).unwrap_or_default();
    if annotation(lease, RESTORED_BY_ANNOTATION) == Some(&by)
        && matches!(record.phase, Phase::Prepared | Phase::Restoring)
    {
        return Ok(());
    }
    let mut patch = json!({"metadata": {"annotations": {RESTORED_BY_ANNOTATION: by}}});
    if record.phase != Phase::Prepared {
        let noted = Record { phase: Phase::Restoring, ..record.clone() };
        patch["metadata"]["annotations"][RECORD_ANNOTATION] = noted.to_json().into();
    }
    let uid = Condition::Uid(text(lease, "/metadata/uid"));
    let noted = Objects::new(connection, Kind::Lease).merge(&record.lease, uid, patch).await;
    match noted.map_err(|error| lost(&record.lease, error)) {
        // Another one by now, or none: nothing that this restore needs.
        Ok(_) | Err(ClusterError::LeaseLost { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Who began to put it back.
pub(crate) fn restored_by(lease: &Value) -> Option<Holder> {
    serde_json::from_str(annotation(lease, RESTORED_BY_ANNOTATION)?).ok()
}

/// Deletes the Lease of this session; another session's Lease of the same name stays.
pub(crate) async fn release(connection: &Connection, record: &Record) -> Result<(), ClusterError> {
    let leases = Objects::new(connection, Kind::Lease);
    match leases.find(&record.lease).await? {
        Some(lease) if session_of(&lease) == record.session => {
            leases.delete(&record.lease, Some(text(&lease, "/metadata/uid"))).await
        }
        _ => Ok(()),
    }
}

/// Renews the Lease with this uid until it vanishes or is another session's, and says which. An API server that does
/// not answer is no loss.
pub(crate) async fn keep(connection: &Connection, lease: &str, uid: &str) -> String {
    let leases = Objects::new(connection, Kind::Lease);
    loop {
        sleep(RENEW_EVERY).await;
        let patch = json!({"spec": {"renewTime": MicroTime(Timestamp::now())}});
        if let Err(error) = leases.merge(lease, Condition::Uid(uid), patch).await {
            match lost(lease, error) {
                ClusterError::LeaseLost { reason, .. } => return reason,
                error => tracing::info!(%error, "Lease not renewed"),
            }
        }
    }
}

/// Answers that mean "not this Lease any more": gone, or another uid (409 as a precondition, 422 as a change of an
/// immutable field, depending on the server's version).
fn lost(lease: &str, error: ClusterError) -> ClusterError {
    let reason = match &error {
        ClusterError::Api { status: 404, .. } => "it was deleted",
        ClusterError::Api { status: 409 | 422, .. } => "it belongs to another session now",
        _ => return error,
    };
    ClusterError::LeaseLost { lease: lease.to_owned(), reason: reason.to_owned() }
}

/// The session of a Lease.
pub(crate) fn session_of(lease: &Value) -> &str {
    lease
        .pointer("/metadata/labels")
        .and_then(|labels| labels.get(SESSION_LABEL)?.as_str())
        .unwrap_or_default()
}

/// When it was renewed last.
pub(crate) fn renewed(lease: &Value) -> Option<Timestamp> {
    text(lease, "/spec/renewTime").parse().ok()
}

/// Whether a session has anybody left to end it. What is over is put back by `devproxy restore`, by anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Life {
    /// As far as can be seen from here.
    Alive,
    /// No sign of life for longer than the grace period.
    Expired,
    /// Its processes have died, on this very laptop.
    Dead,
}

impl Life {
    pub(crate) fn of(lease: &Value, holder: &Holder, now: Timestamp) -> Self {
        match &holder.place {
            Some(place) if place.has_ended() => Self::Dead,
            _ if expired(lease, now) => Self::Expired,
            _ => Self::Alive,
        }
    }

    /// Nobody is left.
    pub fn is_over(self) -> bool {
        self != Self::Alive
    }
}

/// Whether a Lease has not been renewed for longer than it promises.
pub(crate) fn expired(lease: &Value, now: Timestamp) -> bool {
    let grace = number(lease, "/spec/leaseDurationSeconds").unwrap_or(GRACE_SECONDS);
    renewed(lease).is_none_or(|renewed| now.duration_since(renewed) > SignedDuration::from_secs(grace))
}

/// The refusal that names the holder.
pub(crate) fn held(lease: &Value, deployment: &str) -> ClusterError {
    let (holder, since) = if let Ok(record) = Record::of_lease(lease) {
        (record.holder, record.since)
    } else {
        let identity = text(lease, "/spec/holderIdentity");
        let (user, host) = identity.split_once('@').unwrap_or((identity, "an unknown machine"));
        let holder = Holder { user: user.to_owned(), host: host.to_owned(), place: None };
        (holder, text(lease, "/spec/acquireTime").parse().unwrap_or(Timestamp::UNIX_EPOCH))
    };
    ClusterError::Held {
        deployment: deployment.to_owned(),
        life: Life::of(lease, &holder, Timestamp::now()),
        own: holder.place.as_ref().is_some_and(Place::is_here),
        user: holder.user,
        host: holder.host,
        since,
        session: session_of(lease).to_owned(),
    }
}

fn object(record: &Record, now: Timestamp) -> Value {
    let mut lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": record.lease,
            "labels": {SESSION_LABEL: record.session, MANAGED_BY_LABEL: MANAGER},
            "annotations": {RECORD_ANNOTATION: record.to_json()},
        },
        "spec": {
            "holderIdentity": record.holder.to_string(),
            "leaseDurationSeconds": GRACE_SECONDS,
            "acquireTime": MicroTime(now),
            "renewTime": MicroTime(now),
        },
    });
    if let Some(original) = &record.original {
        lease["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": original.name,
            "uid": original.uid,
        }]);
    }
    lease
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::{api::tests::answered, record::tests::record};

    #[test]
    fn a_lease_carries_lock_record_and_heartbeat() {
        let now: Timestamp = "2026-01-02T03:04:05.6Z".parse().unwrap();
        let mut lease = object(&record(), now);
        lease["metadata"]["namespace"] = json!("shop");
        assert_eq!(Record::of_lease(&lease).unwrap(), record());
        assert_eq!(lease["spec"]["renewTime"], "2026-01-02T03:04:05.600000Z");
        assert_eq!(session_of(&lease), "k7f2abcdef");
        assert!(lease["metadata"]["ownerReferences"][0].get("blockOwnerDeletion").is_none());
    }

    #[test]
    fn a_lease_expires_after_its_own_duration() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let lease = object(&record(), now);
        assert!(!expired(&lease, now + SignedDuration::from_secs(GRACE_SECONDS)));
        assert!(expired(&lease, now + SignedDuration::from_secs(GRACE_SECONDS + 1)));
        assert!(expired(&json!({"spec": {}}), now));
    }

    #[test]
    fn a_session_whose_processes_died_here_is_over_at_once() {
        let now = Timestamp::now();
        let lease = object(&record(), now);
        let mut child = std::process::Command::new("sleep").arg("3600").spawn().unwrap();
        let place = Place::of(&[child.id().cast_signed()]);
        let holder = Holder { place, ..record().holder };
        let life = |holder: &Holder, later| Life::of(&lease, holder, now + SignedDuration::from_secs(later));
        assert_eq!((life(&holder, 0), life(&holder, 121)), (Life::Alive, Life::Expired));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((life(&holder, 0), life(&holder, 121)), (Life::Dead, Life::Dead));
        assert_eq!((life(&record().holder, 0), life(&record().holder, 121)), (Life::Alive, Life::Expired));
    }

    #[test]
    fn the_refusal_names_the_holder() {
        let mut lease = object(&record(), Timestamp::now());
        lease["metadata"]["namespace"] = json!("shop");
        let error = held(&lease, "shop/cart");
        assert!(error.to_string().contains("shop/cart is swapped by ann on box since"), "{error}");
        assert_eq!(error.code(), "DP-HELD");
    }

    #[tokio::test]
    async fn a_restore_writes_no_phase_over_that_of_a_session_which_goes_on_in_this_moment() {
        for (phase, written) in [(Phase::Prepared, None), (Phase::HandingOver, Some(Phase::Restoring))] {
            let record = Record { phase, ..record() };
            let sent: Arc<Mutex<Option<Value>>> = Arc::default();
            let server = Arc::clone(&sent);
            let connection = answered(move |_, _, body| {
                *server.lock().unwrap() = Some(body.clone());
                (200, json!({}))
            });
            let lease = object(&record, Timestamp::now());
            note_restore(&connection, &lease, &record, &record.holder).await.unwrap();
            let mut noted = sent.lock().unwrap().take().unwrap();
            assert_eq!(restored_by(&noted), Some(record.holder.clone()));
            noted["metadata"]["name"] = json!(record.lease);
            noted["metadata"]["namespace"] = json!(record.namespace);
            assert_eq!(Record::of_lease(&noted).ok().map(|record| record.phase), written);
        }
    }

    #[test]
    fn a_lease_that_is_gone_or_anothers_is_lost() {
        let api = |status| ClusterError::Api {
            verb: "patch",
            resource: "leases",
            name: "x".into(),
            status,
            reason: String::new(),
            message: String::new(),
        };
        for status in [404, 409, 422] {
            assert_eq!(lost("x", api(status)).code(), "DP-LEASE-LOST");
        }
        assert_eq!(lost("x", api(500)).code(), "DP-API");
    }
}
