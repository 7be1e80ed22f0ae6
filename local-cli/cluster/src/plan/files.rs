//! Which mounts of the container hold files that the shell shows at their true paths, and which can be written to.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::json::{list, text};

/// Where the ServiceAccount admission plugin mounts the token.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What a [`FileRoot`] shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
    /// A projected volume: several sources in one folder.
    Projected,
    /// Labels, annotations, limits of the pod.
    DownwardApi,
    /// The ServiceAccount's token, CA and namespace.
    ServiceAccountToken,
}

/// A folder or (with a subPath) a file of the container that the kubelet fills.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRoot {
    /// Absolute path in the container.
    pub path: String,
    /// What it shows.
    pub kind: FileKind,
    /// Name of the ConfigMap or Secret, else of the volume.
    pub name: String,
}

/// A mount that the kubelet does not fill: it is not shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WritableVolume {
    /// Absolute path in the container.
    pub path: String,
    /// `emptyDir`, `persistentVolumeClaim` …, as in the volume.
    pub kind: String,
    /// Name of the volume.
    pub volume: String,
    /// Mounted read-only.
    pub read_only: bool,
}

/// The file roots of a template. The token's volume is not in it: it is added when a pod is created, unless
/// `automount` (of the ServiceAccount) or the pod's own setting says no.
pub(super) fn roots(template: &Value, container: &str, automount: Option<bool>) -> Vec<FileRoot> {
    let spec = template.get("spec").unwrap_or(&Value::Null);
    let mut roots = of_spec(spec, container);
    let automount =
        spec.get("automountServiceAccountToken").and_then(Value::as_bool).or(automount).unwrap_or(true);
    if automount && !roots.iter().any(|root| root.path == TOKEN_PATH) {
        roots.push(FileRoot {
            path: TOKEN_PATH.to_owned(),
            kind: FileKind::ServiceAccountToken,
            name: "kube-api-access".to_owned(),
        });
    }
    roots
}

/// The file roots of a container of a running pod, as it really is; the agent's own mounts are left out.
pub fn file_roots_of_pod(pod: &Value, container: &str) -> Vec<FileRoot> {
    of_spec(pod.get("spec").unwrap_or(&Value::Null), container)
}

pub(super) fn writable(template: &Value, container: &str) -> Vec<WritableVolume> {
    let spec = template.get("spec").unwrap_or(&Value::Null);
    mounts(spec, container)
        .filter(|(_, volume)| file_kind(volume).is_none())
        .map(|(mount, volume)| WritableVolume {
            path: text(mount, "/mountPath").to_owned(),
            kind: source(volume).unwrap_or("emptyDir").to_owned(),
            volume: text(volume, "/name").to_owned(),
            read_only: mount.get("readOnly") == Some(&Value::Bool(true)),
        })
        .collect()
}

fn of_spec(spec: &Value, container: &str) -> Vec<FileRoot> {
    mounts(spec, container)
        .filter(|(mount, _)| !text(mount, "/mountPath").starts_with("/.devproxy"))
        .filter_map(|(mount, volume)| {
            let (mut kind, name) = file_kind(volume)?;
            let path = text(mount, "/mountPath").trim_end_matches('/').to_owned();
            if path == TOKEN_PATH {
                kind = FileKind::ServiceAccountToken;
            }
            Some(FileRoot { path, kind, name })
        })
        .collect()
}

/// The container's mounts with their volumes.
fn mounts<'a>(spec: &'a Value, container: &str) -> impl Iterator<Item = (&'a Value, &'a Value)> {
    let volumes = list(spec, "/volumes");
    list(spec, "/containers")
        .iter()
        .filter(move |candidate| text(candidate, "/name") == container)
        .flat_map(|container| list(container, "/volumeMounts"))
        .filter_map(move |mount| {
            let volume = volumes.iter().find(|volume| text(volume, "/name") == text(mount, "/name"))?;
            Some((mount, volume))
        })
        .collect::<Vec<_>>()
        .into_iter()
}

fn file_kind(volume: &Value) -> Option<(FileKind, String)> {
    let named = |pointer: &str| text(volume, pointer).to_owned();
    match source(volume)? {
        "configMap" => Some((FileKind::ConfigMap, named("/configMap/name"))),
        "secret" => Some((FileKind::Secret, named("/secret/secretName"))),
        "projected" => Some((FileKind::Projected, named("/name"))),
        "downwardAPI" => Some((FileKind::DownwardApi, named("/name"))),
        _ => None,
    }
}

/// The one key of a volume beside its name.
fn source(volume: &Value) -> Option<&str> {
    volume.as_object()?.keys().map(String::as_str).find(|key| *key != "name")
}
