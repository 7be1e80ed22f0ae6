//! Every failure that the cluster's side can report: the exact words, with their hint.

use std::{collections::BTreeSet, fmt::Write as _, io};

use devproxy::Failure;
use devproxy_cluster::{
    ClusterError::{self, *},
    Life, Right,
};

fn some(text: &str) -> String {
    text.to_owned()
}

/// One of each, with the hint's variants.
fn all() -> Vec<ClusterError> {
    let names = |names: &[&str]| names.iter().map(|name| some(name)).collect::<Vec<_>>();
    let (name, namespace, deployment) = (|| some("crat"), || some("shop"), || some("cart"));
    let kind = |kind| Kind { kind: some(kind), name: some("db") };
    let held = |life, own| Held {
        deployment: some("shop/cart"),
        user: some("ann"),
        host: some("box"),
        since: jiff::Timestamp::constant(1_767_259_800, 0),
        session: some("k7f2abcdef"),
        life,
        own,
    };
    let similar = |user, rights: &[(&str, &str)], namespace, nearest: &[&str]| Forbidden {
        user: some(user),
        rights: rights
            .iter()
            .map(|(verb, resource)| Right { verb: some(verb), resource: some(resource) })
            .collect(),
        namespace: some(namespace),
        nearest: names(nearest),
    };
    let forbidden = |user, rights, namespace| similar(user, rights, namespace, &[]);
    let (one, several) = (&[("get", "deployments")], &[("create", "leases"), ("create", "pods/portforward")]);
    let late = |words| Late { what: some("the start of the agent"), seconds: 120, words: some(words) };
    vec![
        Kubeconfig { message: some("/home/ann/.kube/config: No such file or directory (os error 2)") },
        Context { context: some("stagin"), nearest: names(&["staging"]) },
        Context { context: some("zzz"), nearest: Vec::new() },
        Unreachable { url: some("https://192.0.2.1:6443"), message: some("no connection within 9 s") },
        Tls { url: some("https://192.0.2.1:6443"), message: some("invalid peer certificate: Expired") },
        Login { message: some("Unauthorized") },
        forbidden("ann@example.org", one, "shop"),
        similar("ann@example.org", one, "shpo", &["shop"]),
        forbidden("system:serviceaccount:ci:robot", several, "shop"),
        forbidden("ann@example.org", one, "*"),
        Refused { resource: some("deployments"), name: deployment(), message: some("denied request: no") },
        Api {
            verb: "create",
            resource: "configmaps",
            name: deployment(),
            status: 500,
            reason: some("InternalError"),
            message: some("etcdserver: request timed out"),
        },
        Target { text: some("a b") },
        kind("StatefulSet"),
        kind("Service"),
        kind("Pod"),
        NotFound { name: name(), namespace: namespace(), nearest: names(&["cart", "card"]), known: Some(3) },
        NotFound { name: name(), namespace: namespace(), nearest: Vec::new(), known: Some(3) },
        NotFound { name: name(), namespace: namespace(), nearest: Vec::new(), known: Some(0) },
        SeveralContainers { deployment: deployment(), containers: names(&["app", "proxy"]) },
        NoContainer { deployment: deployment(), container: some("ap"), containers: names(&["app", "proxy"]) },
        Unsuitable { name: deployment(), reason: some("its pods run on Windows") },
        held(Life::Alive, false),
        held(Life::Alive, true),
        held(Life::Expired, false),
        held(Life::Dead, true),
        NoSession { session: deployment(), namespace: namespace(), nearest: Vec::new() },
        NoSession { session: name(), namespace: namespace(), nearest: names(&["cart"]) },
        NoNamespace { namespace: some("shpo"), nearest: names(&["shop"]) },
        NoNamespace { namespace: some("zzz"), nearest: Vec::new() },
        LeaseLost { lease: some("devproxy-cart"), reason: some("it was deleted") },
        Ended { by: some("bob@desk") },
        StandInLost { stand_in: some("cart-devproxy-k7f2") },
        Record { lease: some("devproxy-cart"), reason: some("schema 9") },
        Schedule { words: some("0/3 nodes are available: 3 Insufficient cpu.") },
        Image { words: some("Back-off pulling image \"cart:9\"") },
        Agent { words: some("exit code 1") },
        Processor { words: some("exec format error") },
        late(""),
        late("cart: waiting for its image"),
        Changed { deployment: deployment(), change: some("3 → 5 replicas") },
        NoImage { namespace: namespace() },
        TooLarge { bytes: 1_100_000, limit: 1_048_576 },
        Local { what: some("the random source"), source: io::Error::from_raw_os_error(13) },
    ]
}

#[test]
fn every_failure_of_the_cluster() {
    let mut text = String::new();
    for error in all() {
        let failure = Failure::from(error);
        let _ = writeln!(text, "error: {failure}");
        if let Some(hint) = &failure.hint {
            let _ = writeln!(text, "hint: {hint}");
        }
        text.push('\n');
        assert_eq!(failure.exit, 125, "{failure}");
        assert!(
            !failure.cause.contains('\n') && !failure.cause.ends_with('.') || failure.code == "DP-SCHEDULE"
        );
    }
    insta::assert_snapshot!(text);
}

#[test]
fn every_code_of_the_cluster_is_among_them() {
    let source = include_str!("../cluster/src/error.rs");
    let named = source.split('"').filter(|word| word.starts_with("DP-")).collect::<BTreeSet<_>>();
    let all = all();
    assert_eq!(named, all.iter().map(ClusterError::code).collect());
}
