//! Names to choose from, for completions. Without the right to list them there are none.

use serde_json::Value;

use crate::{
    ApiSettings, ClusterError, Connection,
    json::{list, text},
    kubeconfig::kubeconfig,
    name::SESSION_LABEL,
    resource::{Kind, Objects},
};

/// More names than this help nobody to choose.
const MOST: u32 = 1000;

/// The Deployments that can be swapped: no session's stand-ins.
pub async fn deployments(connection: &Connection) -> Result<Vec<String>, ClusterError> {
    let selector = format!("!{SESSION_LABEL}");
    Ok(valid(Objects::new(connection, Kind::Deployment).names(&selector, MOST).await?))
}

/// The cluster's namespaces, which few users may list.
pub async fn namespaces(connection: &Connection) -> Result<Vec<String>, ClusterError> {
    Ok(valid(Objects::everywhere(connection, Kind::Namespace).names("", MOST).await?))
}

/// The containers of a Deployment's pods.
pub async fn containers(connection: &Connection, deployment: &str) -> Result<Vec<String>, ClusterError> {
    let found: Value = Objects::new(connection, Kind::Deployment).get(deployment).await?;
    let containers = list(&found, "/spec/template/spec/containers");
    Ok(valid(containers.iter().map(|container| text(container, "/name").to_owned()).collect()))
}

/// The contexts of the kubeconfig, and the namespaces that they name. No network.
pub fn contexts(settings: &ApiSettings) -> (Vec<String>, Vec<String>) {
    let contexts = kubeconfig(settings).map(|kubeconfig| kubeconfig.contexts).unwrap_or_default();
    let namespaces = contexts.iter().filter_map(|named| named.context.as_ref()?.namespace.clone()).collect();
    (contexts.into_iter().map(|named| named.name).collect(), namespaces)
}

/// What goes into a shell's command line is a name and nothing else, whatever the server says.
fn valid(names: Vec<String>) -> Vec<String> {
    let harmless = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    names.into_iter().filter(|name| !name.is_empty() && name.bytes().all(harmless)).collect()
}
