//! What a session remembers about itself in the cluster: enough to put everything back from any machine.
//!
//! It is JSON in an annotation of the session's Lease. Fields may be added; [`SCHEMA`] grows when an older devproxy
//! could no longer restore from it.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    ClusterError,
    json::{name, text},
    name::{RECORD_ANNOTATION, REPLICAS_ANNOTATION, SESSION_LABEL},
    place::Place,
};

/// Version of [`Record`].
pub const SCHEMA: u32 = 1;

/// Who holds a session. `Display` is `user@host`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Login name on the laptop.
    pub user: String,
    /// The laptop's host name.
    pub host: String,
    /// Where the processes run, once they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.user, self.host)
    }
}

/// How far a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The original has not been touched.
    Prepared,
    /// The original is being scaled to 0, or has been a moment ago.
    HandingOver,
    /// The stand-in alone serves.
    Swapped,
    /// Being put back.
    Restoring,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prepared => "prepared",
            Self::HandingOver => "handing over",
            Self::Swapped => "swapped",
            Self::Restoring => "restoring",
        })
    }
}

/// The Deployment whose place is taken, as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Original {
    /// Its name.
    pub name: String,
    /// Its uid: another Deployment of the same name is not it.
    pub uid: String,
    /// `spec.replicas` before.
    pub replicas: i64,
    /// How many of its pods were ready before: a broken original is not waited for.
    pub ready: i64,
    /// Its selector, to find its pods.
    pub selector: Value,
    /// The `managedFields` entries that owned `spec.replicas`.
    #[serde(default)]
    pub replica_owners: Vec<Value>,
}

/// The memory of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`SCHEMA`] of the writer.
    pub schema: u32,
    /// Id of the session.
    pub session: String,
    /// Where everything is.
    pub namespace: String,
    /// Name of the Lease that carries this record.
    pub lease: String,
    /// `None` for `devproxy shell`.
    #[serde(default)]
    pub original: Option<Original>,
    /// Name of the stand-in.
    pub stand_in: String,
    /// Name of the ConfigMap; `None` with an agent image.
    #[serde(default)]
    pub config_map: Option<String>,
    /// Name of the Secret.
    pub secret: String,
    /// The Services that select the pods.
    #[serde(default)]
    pub services: Vec<String>,
    /// The original left before the stand-in came: both cannot be there at once, on the way back either.
    #[serde(default)]
    pub original_first: bool,
    /// How far it has come.
    pub phase: Phase,
    /// Who.
    pub holder: Holder,
    /// Since when.
    pub since: Timestamp,
}

impl Record {
    /// Reads the record of a Lease.
    pub fn of_lease(lease: &Value) -> Result<Self, ClusterError> {
        let unreadable = |reason: String| ClusterError::Record { lease: name(lease).to_owned(), reason };
        let Some(json) = annotation(lease, RECORD_ANNOTATION) else {
            return Err(unreadable("it has none".into()));
        };
        let schema = serde_json::from_str::<Value>(json)
            .ok()
            .and_then(|record| record.get("schema").and_then(Value::as_u64))
            .ok_or_else(|| unreadable("it is not a record".into()))?;
        if schema > u64::from(SCHEMA) {
            return Err(unreadable(format!("it has schema {schema}, this devproxy knows {SCHEMA}")));
        }
        let record: Self = serde_json::from_str(json).map_err(|error| unreadable(error.to_string()))?;
        // A restore deletes what the record names: it must be about this Lease.
        let namespace = text(lease, "/metadata/namespace");
        if record.lease != name(lease) || record.namespace != namespace {
            return Err(unreadable("it is a copy from another Lease".into()));
        }
        Ok(record)
    }

    /// What a stand-in tells without its Lease, which somebody deleted. `original` is the Deployment that it names.
    pub(crate) fn of_stand_in(stand_in: &Value, original: Option<&Value>) -> Self {
        let label =
            stand_in.pointer("/metadata/labels").and_then(|labels| labels.get(SESSION_LABEL)?.as_str());
        let stand_in_name = name(stand_in).to_owned();
        // That of the owner, not of whatever has the name now.
        let uid = text(stand_in, "/metadata/ownerReferences/0/uid").to_owned();
        let replicas =
            annotation(stand_in, REPLICAS_ANNOTATION).and_then(|text| text.parse().ok()).unwrap_or(1);
        let original = original.map(|original| Original {
            name: name(original).to_owned(),
            uid,
            replicas,
            ready: replicas,
            selector: original.pointer("/spec/selector").cloned().unwrap_or_default(),
            replica_owners: Vec::new(),
        });
        Self {
            schema: SCHEMA,
            session: label.unwrap_or_default().to_owned(),
            namespace: text(stand_in, "/metadata/namespace").to_owned(),
            lease: crate::name::lease(original.as_ref().map_or(&stand_in_name, |original| &original.name)),
            original,
            config_map: Some(crate::name::config_map(&stand_in_name)),
            secret: crate::name::secret(&stand_in_name),
            stand_in: stand_in_name,
            services: Vec::new(),
            original_first: false,
            phase: Phase::Swapped,
            holder: Holder { user: "unknown".into(), host: "unknown".into(), place: None },
            since: text(stand_in, "/metadata/creationTimestamp").parse().unwrap_or(Timestamp::UNIX_EPOCH),
        }
    }

    /// The name for messages: `namespace/deployment`, or the shell's.
    pub fn title(&self) -> String {
        let name = self.original.as_ref().map_or(self.stand_in.as_str(), |original| original.name.as_str());
        format!("{}/{name}", self.namespace)
    }

    pub(crate) fn to_json(&self) -> String {
        // A struct of strings and numbers always serialises.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// An annotation of an object.
pub(crate) fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.pointer("/metadata/annotations")?.get(key)?.as_str()
}

/// Now, in whole seconds: it is for people.
pub(crate) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn record() -> Record {
        Record {
            schema: SCHEMA,
            session: "k7f2abcdef".into(),
            namespace: "shop".into(),
            lease: "devproxy-cart".into(),
            original: Some(Original {
                name: "cart".into(),
                uid: "u-1".into(),
                replicas: 3,
                ready: 3,
                selector: json!({"matchLabels": {"app": "cart"}}),
                replica_owners: vec![json!({"manager": "kubectl"})],
            }),
            stand_in: "cart-devproxy-k7f2".into(),
            config_map: Some("cart-devproxy-k7f2-agent".into()),
            secret: "cart-devproxy-k7f2-key".into(),
            services: vec!["cart".into()],
            original_first: false,
            phase: Phase::HandingOver,
            holder: Holder { user: "ann".into(), host: "box".into(), place: None },
            since: Timestamp::UNIX_EPOCH,
        }
    }

    fn lease(record: &str) -> Value {
        json!({"metadata": {"name": "devproxy-cart", "namespace": "shop",
                            "annotations": {"devproxy.dev/record": record}}})
    }

    #[test]
    fn a_record_survives_its_lease() {
        let record = record();
        assert_eq!(Record::of_lease(&lease(&record.to_json())).unwrap(), record);
    }

    #[test]
    fn fields_of_a_later_version_do_no_harm() {
        let mut json: Value = serde_json::from_str(&record().to_json()).unwrap();
        json["guard"] = json!("cart-guard");
        assert_eq!(Record::of_lease(&lease(&json.to_string())).unwrap(), record());
    }

    #[test]
    fn a_later_schema_is_refused() {
        let mut json: Value = serde_json::from_str(&record().to_json()).unwrap();
        json["schema"] = json!(2);
        let error = Record::of_lease(&lease(&json.to_string())).unwrap_err();
        assert_eq!(error.code(), "DP-RECORD");
    }

    #[test]
    fn a_stand_in_remembers_enough_for_a_restore() {
        let stand_in = json!({"metadata": {
            "name": "cart-devproxy-k7f2", "namespace": "shop", "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": {"devproxy.dev/session": "k7f2abcdef"},
            "annotations": {"devproxy.dev/original": "cart", "devproxy.dev/original-replicas": "3"},
            "ownerReferences": [{"kind": "Deployment", "name": "cart", "uid": "u-1"}],
        }});
        let original = json!({"metadata": {"name": "cart", "uid": "u-2"}, "spec": {"selector": {"matchLabels": {"app": "cart"}}}});
        let read = Record::of_stand_in(&stand_in, Some(&original));
        let mut expected = record();
        expected.phase = Phase::Swapped;
        expected.services.clear();
        expected.since = "2026-01-02T03:04:05Z".parse().unwrap();
        expected.holder = read.holder.clone();
        if let Some(original) = &mut expected.original {
            original.replica_owners.clear();
        }
        assert_eq!(read, expected);
        assert_eq!(Record::of_stand_in(&stand_in, None).original, None);
    }

    #[test]
    fn a_record_copied_to_another_lease_is_refused() {
        let mut lease = lease(&record().to_json());
        lease["metadata"]["name"] = json!("devproxy-other");
        assert!(Record::of_lease(&lease).is_err());
    }
}
