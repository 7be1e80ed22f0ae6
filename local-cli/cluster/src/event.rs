//! What teammates read who find the original at 0: an Event on it, as `kubectl describe` and `kubectl get events` show
//! it. Nothing depends on it: without the right to create Events the session goes on.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    Connection,
    json::text,
    name::MANAGER,
    record::{Holder, Original, Phase, Record, now},
    resource::{Condition, Kind, Objects},
    restore::OriginalOutcome,
};

/// The API server forgets Events after an hour (its `--event-ttl`), counted from the last change.
const RENEW_EVERY: Duration = Duration::from_mins(50);

/// Says who holds the original, and says it again for as long as this is polled.
pub(crate) async fn keep_swapped(connection: Connection, record: Record) {
    let Some(original) = &record.original else { return };
    let events = Objects::new(&connection, Kind::Event);
    let mut event = swapped(&record, original);
    for count in 1.. {
        event["count"] = json!(count);
        event["lastTimestamp"] = json!(Time(now()));
        tell(&events, &event).await;
        sleep(RENEW_EVERY).await;
    }
}

/// Says what became of an original that was swapped, and by whom; nothing when this restore changed nothing.
pub(crate) async fn tell_outcome(
    connection: &Connection,
    record: &Record,
    by: &Holder,
    outcome: &OriginalOutcome,
) {
    let done = match outcome {
        OriginalOutcome::Restored { replicas } => format!("scaled back to {replicas} replicas by {by}"),
        OriginalOutcome::Rescaled { replicas } if record.phase != Phase::Prepared => {
            format!("left by {by} at {replicas} replicas, to which somebody else had scaled it")
        }
        _ => return,
    };
    if let Some(original) = &record.original {
        tell(&Objects::new(connection, Kind::Event), &restored(record, original, &done)).await;
    }
}

/// Creates it, or changes the one of this name.
async fn tell(events: &Objects<'_>, event: &Value) {
    let told = match events.create(event).await {
        Err(error) if error.is_already_exists() => {
            let again = json!({"count": event["count"], "lastTimestamp": event["lastTimestamp"]});
            events.merge(text(event, "/metadata/name"), Condition::Always, again).await
        }
        told => told,
    };
    if let Err(error) = told {
        tracing::info!(%error, "no Event on the original");
    }
}

fn swapped(record: &Record, original: &Original) -> Value {
    let holder = &record.holder;
    let message = format!(
        "swapped by {holder} since {}; `devproxy restore {}` puts it back, with --force also while they use it",
        record.since,
        record.title()
    );
    event(record, original, "DevproxySwapped", "swapped", &message)
}

fn restored(record: &Record, original: &Original, done: &str) -> Value {
    let message = format!("{done}; it was swapped by {} since {}", record.holder, record.since);
    event(record, original, "DevproxyRestored", "restored", &message)
}

/// In the form of the core group, which is the one that `kubectl describe` asks for.
fn event(record: &Record, original: &Original, reason: &str, suffix: &str, message: &str) -> Value {
    let time: Timestamp = now();
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        // One of each a session, whoever restores it and however often.
        "metadata": {"name": format!("{}.{}.{suffix}", original.name, record.session)},
        "involvedObject": {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "namespace": record.namespace,
            "name": original.name,
            "uid": original.uid,
        },
        "type": "Normal",
        "reason": reason,
        "message": message,
        "firstTimestamp": Time(time),
        "lastTimestamp": Time(time),
        "count": 1,
        "source": {"component": MANAGER, "host": record.holder.host},
        "reportingComponent": MANAGER,
        "reportingInstance": record.session,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::{
        api::tests::{answered, refusal},
        record::tests::record,
    };

    /// Method and body of the requests, answered by what the method asks for.
    async fn requests(of: Duration, status: fn(&str) -> u16) -> Vec<(String, Value)> {
        let seen: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let log = Arc::clone(&seen);
        let connection = answered(move |method, _, body| {
            log.lock().unwrap().push((method.to_owned(), body));
            let status = status(method);
            (status, refusal(status, if status == 409 { "AlreadyExists" } else { "Forbidden" }))
        });
        let _ = tokio::time::timeout(of, keep_swapped(connection, record())).await;
        let seen = seen.lock().unwrap();
        seen.clone()
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_said_again_before_the_server_forgets_it() {
        let seen = requests(Duration::from_hours(2), |method| if method == "POST" { 409 } else { 200 }).await;
        let counts: Vec<_> = seen
            .iter()
            .filter(|(method, _)| method == "PATCH")
            .map(|(_, patch)| patch["count"].clone())
            .collect();
        assert_eq!(counts, [1, 2, 3].map(Value::from));
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_right_it_is_only_tried() {
        let seen = requests(Duration::from_hours(2), |_| 403).await;
        assert_eq!(seen.len(), 3, "{seen:?}");
        let message = seen[0].1["message"].as_str().unwrap();
        assert_eq!(
            message,
            "swapped by ann@box since 1970-01-01T00:00:00Z; `devproxy restore shop/cart` puts it back, with --force also while they use it"
        );
    }
}
