//! The kubeconfig, as kubectl finds it: of several files the first that says something wins.

use std::{
    env,
    path::{Path, PathBuf},
};

use kube::config::{Kubeconfig, KubeconfigError, NamedContext};

use crate::ApiSettings;

/// Variable that lists the files.
const VARIABLE: &str = "KUBECONFIG";

/// The file named, or those of `$KUBECONFIG`, or `~/.kube/config`.
pub(crate) fn kubeconfig(settings: &ApiSettings) -> Result<Kubeconfig, KubeconfigError> {
    if let Some(path) = &settings.kubeconfig {
        return Kubeconfig::read_from(path);
    }
    // kubectl leaves out those of the list that do not exist; kube does not.
    let mut there = files(settings).into_iter().peekable();
    if there.peek().is_none() {
        return Kubeconfig::read();
    }
    there.try_fold(Kubeconfig::default(), |all, path| all.merge(Kubeconfig::read_from(path)?))
}

fn files(settings: &ApiSettings) -> Vec<PathBuf> {
    if let Some(path) = &settings.kubeconfig {
        return vec![path.clone()];
    }
    let there = |path: &PathBuf| path.exists();
    match listed() {
        Some(listed) => env::split_paths(&listed).filter(there).collect(),
        None => env::home_dir().map(|home| home.join(".kube/config")).filter(there).into_iter().collect(),
    }
}

fn listed() -> Option<std::ffi::OsString> {
    env::var_os(VARIABLE).filter(|listed| !listed.is_empty())
}

/// The namespaces of all contexts of the same cluster as `chosen`.
pub(crate) fn namespaces(kubeconfig: &Kubeconfig, chosen: Option<&NamedContext>) -> Vec<String> {
    let Some(cluster) = chosen.and_then(|chosen| Some(&chosen.context.as_ref()?.cluster)) else {
        return Vec::new();
    };
    let contexts = kubeconfig.contexts.iter().filter_map(|named| named.context.as_ref());
    let mut all: Vec<_> = contexts
        .filter(|context| context.cluster == *cluster)
        .filter_map(|context| context.namespace.clone())
        .collect();
    all.sort();
    all.dedup();
    all
}

/// What the kubeconfig says where the user says nothing, and which of its files.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The files that are read.
    pub files: Vec<PathBuf>,
    /// The variable that lists them, if it does.
    pub variable: Option<&'static str>,
    /// The current context.
    pub context: Option<(String, PathBuf)>,
    /// The namespace of the context in use.
    pub namespace: Option<(String, PathBuf)>,
}

/// Reads what can be read; what cannot is told by whoever connects. No network.
pub fn said(settings: &ApiSettings) -> Said {
    let files = files(settings);
    let read = |path: &Path| Kubeconfig::read_from(path).unwrap_or_default();
    let all: Vec<_> = files.iter().map(|path| (read(path), path)).collect();
    let context = all.iter().find_map(|(one, path)| Some((one.current_context.clone()?, (*path).clone())));
    let in_use = settings.context.as_ref().or(context.as_ref().map(|(name, _)| name));
    let namespace = all.iter().find_map(|(one, path)| {
        let named = one.contexts.iter().find(|named| Some(&named.name) == in_use)?;
        Some((named.context.as_ref()?.namespace.clone(), (*path).clone()))
    });
    let namespace = namespace.and_then(|(namespace, path)| Some((namespace?, path)));
    let variable = listed().is_some().then_some(VARIABLE);
    Said { files, variable: variable.filter(|_| settings.kubeconfig.is_none()), context, namespace }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_brings_its_namespace_and_the_file_is_named() {
        let path = env::temp_dir().join(format!("devproxy-cluster-said-{}", std::process::id()));
        let text = "
contexts:
- {name: staging, context: {cluster: c, user: ann, namespace: shop}}
- {name: plain, context: {cluster: c, user: ann}}
current-context: staging
";
        std::fs::write(&path, text).unwrap();
        let settings = |context: Option<&str>| ApiSettings {
            kubeconfig: Some(path.clone()),
            context: context.map(str::to_owned),
            namespace: None,
        };
        let of = |text: &str| Some((text.to_owned(), path.clone()));
        let current = said(&settings(None));
        assert_eq!((current.context, current.namespace), (of("staging"), of("shop")));
        assert_eq!((current.files, current.variable), (vec![path.clone()], None));
        assert_eq!(said(&settings(Some("plain"))).namespace, None);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(said(&settings(None)).context, None);
    }
}
