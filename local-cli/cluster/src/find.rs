//! From what the user named to a session's record; and what it is when it is no session.

use serde_json::Value;

use crate::{
    ClusterError, Connection,
    json::name as name_of,
    lease,
    name::{self, ORIGINAL_ANNOTATION, SESSION_LABEL},
    record::{Record, annotation},
    resource::{Kind, Objects},
    target::nearest,
};

/// More names than this are not looked through for a similar one.
const MOST: u32 = 1000;

/// Finds the record of a session by its id or by the name of its Deployment, in the connection's namespace.
pub async fn find_session(connection: &Connection, wanted: &str) -> Result<Record, ClusterError> {
    let leases = Objects::new(connection, Kind::Lease);
    let (all, _) = leases.list(SESSION_LABEL).await?;
    let found = all.iter().find(|lease| {
        lease::session_of(lease) == wanted
            || name_of(lease) == wanted
            || name_of(lease) == name::lease(wanted)
    });
    match found {
        Some(lease) => Record::of_lease(lease),
        None => without_lease(connection, wanted).await?.ok_or_else(|| ClusterError::NoSession {
            session: wanted.to_owned(),
            namespace: connection.namespace.clone(),
            nearest: Vec::new(),
        }),
    }
}

/// The Lease was deleted by hand, and nobody was there to restore: the stand-in remembers enough.
async fn without_lease(connection: &Connection, wanted: &str) -> Result<Option<Record>, ClusterError> {
    let deployments = Objects::new(connection, Kind::Deployment);
    let (all, _) = deployments.list(SESSION_LABEL).await?;
    let is_it = |stand_in: &&Value| {
        lease::session_of(stand_in) == wanted || annotation(stand_in, ORIGINAL_ANNOTATION) == Some(wanted)
    };
    let Some(stand_in) = all.iter().find(is_it) else { return Ok(None) };
    let original = match annotation(stand_in, ORIGINAL_ANNOTATION) {
        Some(original) => deployments.find(original).await?,
        None => None,
    };
    Ok(Some(Record::of_stand_in(stand_in, original.as_ref())))
}

/// Fine when `wanted`, of which there is no session, is a Deployment that nobody holds; else the error says what is
/// wrong with the name.
pub async fn require_unheld(connection: &Connection, wanted: &str) -> Result<(), ClusterError> {
    let originals = format!("!{SESSION_LABEL}");
    // Without the right to list them nothing is similar.
    let names = Objects::new(connection, Kind::Deployment).names(&originals, MOST).await.unwrap_or_default();
    if names.iter().any(|name| name == wanted) {
        return Ok(());
    }
    if names.is_empty() {
        require_namespace(connection).await?;
    }
    Err(ClusterError::NoSession {
        session: wanted.to_owned(),
        namespace: connection.namespace.clone(),
        nearest: nearest(wanted, names),
    })
}

/// What is forbidden in a namespace that certainly does not exist is told as what it is.
pub(crate) async fn forbidden_or_missing<T>(
    connection: &Connection,
    found: Result<T, ClusterError>,
) -> Result<T, ClusterError> {
    if found.as_ref().is_err_and(ClusterError::is_forbidden) {
        require_namespace(connection).await?;
    }
    found
}

/// An error when the connection's namespace certainly does not exist: an empty list looks alike. Who may not read
/// namespaces learns nothing.
pub async fn require_namespace(connection: &Connection) -> Result<(), ClusterError> {
    let namespaces = Objects::everywhere(connection, Kind::Namespace);
    match namespaces.find(&connection.namespace).await {
        Ok(None) => {
            let names = namespaces.names("", MOST).await.unwrap_or_default();
            Err(ClusterError::NoNamespace {
                namespace: connection.namespace.clone(),
                nearest: nearest(&connection.namespace, names),
            })
        }
        Ok(Some(_)) | Err(_) => Ok(()),
    }
}
