//! What the user named: `[NAMESPACE/]NAME`, `deploy/NAME`, `deployment.apps/NAME`.

use crate::ClusterError;

/// A Deployment, and the namespace if the user gave one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Namespace, else the connection's.
    pub namespace: Option<String>,
    /// Name of the Deployment.
    pub name: String,
}

/// The ways to write a kind that can be swapped.
const DEPLOYMENT: &[&str] = &["deploy", "deployment", "deployments", "deployment.apps", "deployments.apps"];

/// Kinds that people try, as they write them, and as Kubernetes calls them.
const OTHER_KINDS: &[(&[&str], &str)] = &[
    (&["sts", "statefulset", "statefulsets", "statefulset.apps", "statefulsets.apps"], "StatefulSet"),
    (&["ds", "daemonset", "daemonsets", "daemonset.apps", "daemonsets.apps"], "DaemonSet"),
    (&["rs", "replicaset", "replicasets", "replicaset.apps", "replicasets.apps"], "ReplicaSet"),
    (&["po", "pod", "pods"], "Pod"),
    (&["svc", "service", "services"], "Service"),
    (&["job", "jobs", "job.batch", "jobs.batch"], "Job"),
    (&["cj", "cronjob", "cronjobs", "cronjob.batch", "cronjobs.batch"], "CronJob"),
];

impl Target {
    /// Reads what the user wrote. A word before the slash that is a kind is taken as the kind, as kubectl does.
    pub fn parse(text: &str) -> Result<Self, ClusterError> {
        let bad = || ClusterError::Target { text: text.to_owned() };
        let parts: Vec<&str> = text.split('/').collect();
        let (namespace, kind, name) = match parts[..] {
            [name] => (None, None, name),
            [first, name] if kind_of(first).is_some() => (None, Some(first), name),
            [namespace, name] => (Some(namespace), None, name),
            [namespace, kind, name] if kind_of(kind).is_some() => (Some(namespace), Some(kind), name),
            _ => return Err(bad()),
        };
        if let Some(Some(other)) = kind.map(kind_of).map(|kind| kind.filter(|kind| *kind != "Deployment")) {
            return Err(ClusterError::Kind { kind: other.to_owned(), name: name.to_owned() });
        }
        if !valid(name) || namespace.is_some_and(|namespace| !valid(namespace)) {
            return Err(bad());
        }
        Ok(Self { namespace: namespace.map(str::to_owned), name: name.to_owned() })
    }
}

fn kind_of(word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase();
    if DEPLOYMENT.contains(&word.as_str()) {
        return Some("Deployment");
    }
    OTHER_KINDS.iter().find(|(words, _)| words.contains(&word.as_str())).map(|(_, kind)| *kind)
}

/// RFC 1123 subdomain: what may stand in a URL's path without being escaped.
fn valid(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
}

/// The names most like `wanted`, nearest first, at most three.
pub fn nearest(wanted: &str, names: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut scored: Vec<(f64, String)> = names
        .into_iter()
        .map(|name| {
            let contained = name.contains(wanted) || wanted.contains(&name);
            (strsim::jaro_winkler(wanted, &name) + if contained { 0.2 } else { 0.0 }, name)
        })
        .filter(|(score, _)| *score >= 0.75)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    scored.into_iter().take(3).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Option<String>, String) {
        let target = Target::parse(text).unwrap();
        (target.namespace, target.name)
    }

    #[test]
    fn every_way_to_name_a_deployment() {
        assert_eq!(parsed("cart"), (None, "cart".into()));
        assert_eq!(parsed("shop/cart"), (Some("shop".into()), "cart".into()));
        for kind in ["deploy", "deployment", "deployments", "deployment.apps", "Deployment"] {
            assert_eq!(parsed(&format!("{kind}/cart")), (None, "cart".into()));
            assert_eq!(parsed(&format!("shop/{kind}/cart")), (Some("shop".into()), "cart".into()));
        }
    }

    #[test]
    fn another_kind_is_refused_by_kind() {
        for (text, expected) in [("sts/db", "StatefulSet"), ("shop/pod/x", "Pod"), ("svc/cart", "Service")] {
            let Err(ClusterError::Kind { kind, .. }) = Target::parse(text) else {
                panic!("{text} was taken")
            };
            assert_eq!(kind, expected);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", "/", "a/", "/a", "a/b/c/d", "A", "a b", "a/../b", "-a", "a?x=1"] {
            assert!(matches!(Target::parse(text), Err(ClusterError::Target { .. })), "{text:?}");
        }
    }

    #[test]
    fn the_nearest_names_come_first() {
        let names = ["cart", "card-service", "checkout", "redis"].map(str::to_owned);
        assert_eq!(nearest("crat", names.clone())[0], "cart");
        assert_eq!(nearest("cart-v2", names.clone())[0], "cart");
        assert!(nearest("zzz", names).is_empty());
    }
}
