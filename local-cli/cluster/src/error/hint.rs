//! What to do about an error, mostly the words to type.

use super::ClusterError;
use crate::{lease::Life, resource::EVERYWHERE};

impl ClusterError {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Kubeconfig { .. } => {
                "set KUBECONFIG, or pass --kubeconfig FILE; `kubectl config view` shows what kubectl uses"
                    .into()
            }
            Self::Context { nearest, .. } if !nearest.is_empty() => format!("did you mean `{}`", nearest[0]),
            Self::Context { .. } => "`kubectl config get-contexts` lists them".into(),
            Self::Unreachable { .. } => {
                "check that the cluster runs and that the VPN is up; --context selects another cluster".into()
            }
            Self::Tls { .. } => {
                "check certificate-authority of the cluster in the kubeconfig, and this machine's clock"
                    .into()
            }
            Self::Login { .. } => "log in again, as for kubectl".into(),
            Self::Forbidden { namespace, .. } if namespace == EVERYWHERE => {
                "ask for one namespace with -n NAMESPACE, or an administrator for the right on all".into()
            }
            Self::Forbidden { user, rights, namespace, nearest } => format!(
                "{}an administrator grants {} with `kubectl create rolebinding devproxy-{} --clusterrole=edit {} -n {namespace}` or with the rbac.yaml that comes with devproxy",
                // A namespace that does not exist is refused in the same words.
                match nearest.first() {
                    Some(nearest) => format!("did you mean namespace `{nearest}`? if not, "),
                    None if rights.iter().any(|right| ["get", "list"].contains(&right.verb.as_str())) =>
                        "is the namespace right? if so, ".to_owned(),
                    None => String::new(),
                },
                if rights.len() == 1 { "it" } else { "them" },
                short_name(user),
                subject(user),
            ),
            Self::Refused { .. } => "the words are those of the cluster's policy".into(),
            Self::Target { .. } => "give [NAMESPACE/]NAME or deployment/NAME".into(),
            Self::Kind { kind, name } if kind == "Service" => {
                format!("name the Deployment behind the Service, `devproxy swap {name}` if it has the same name")
            }
            Self::Kind { kind, .. } if kind == "Pod" || kind == "ReplicaSet" => {
                "name the Deployment that owns it: `kubectl get deployments`".into()
            }
            Self::Kind { .. } | Self::Unsuitable { .. } => {
                "`devproxy shell` gives the cluster's network without taking its place".into()
            }
            Self::NotFound { nearest, .. }
            | Self::NoSession { nearest, .. }
            | Self::NoNamespace { nearest, .. }
                if !nearest.is_empty() =>
            {
                format!("did you mean `{}`", nearest.join("`, `"))
            }
            Self::NotFound { known: Some(0), .. } => {
                "the namespace has no Deployments, or does not exist; -n NAMESPACE or --context NAME selects another".into()
            }
            Self::NotFound { namespace, .. } => {
                format!("`kubectl get deployments -n {namespace}` lists them")
            }
            Self::SeveralContainers { containers, .. } | Self::NoContainer { containers, .. } => {
                format!("choose one with -c: {}", containers.join(", "))
            }
            Self::Held { deployment, life: Life::Dead, .. } => {
                format!("its processes on this laptop are dead: `devproxy restore {deployment}` puts it back")
            }
            Self::Held { deployment, life: Life::Expired, .. } => {
                format!("it has not been renewed: `devproxy restore {deployment}` puts it back")
            }
            Self::Held { deployment, own: true, .. } => format!(
                "it is your own, on this laptop: `devproxy exec {deployment}` joins it, `devproxy restore {deployment}` ends it"
            ),
            Self::Held { deployment, .. } => {
                format!("ask them to end it; `devproxy swap {deployment} --take-over` takes it from them")
            }
            Self::NoSession { .. } => "`devproxy status --all` lists the sessions".into(),
            Self::NoNamespace { .. } => "-n NAMESPACE or --context NAME selects another".into(),
            Self::LeaseLost { .. } => "somebody restored it by hand; the session ends".into(),
            Self::Ended { .. } => "`devproxy status` shows who holds it now".into(),
            Self::StandInLost { .. } => "somebody deleted it, or restored the session; the original is put back".into(),
            Self::Record { .. } => "use a devproxy at least as new as the one that made it".into(),
            Self::Schedule { .. } => {
                "the original would not start here either; `kubectl get events` tells more".into()
            }
            Self::Image { .. } => "--agent-image IMAGE brings the agent in an image of its own".into(),
            Self::Agent { .. } => "--agent-image IMAGE avoids the original's image".into(),
            Self::Processor { .. } => {
                "only amd64 and arm64 nodes are supported; --agent-image may help".into()
            }
            Self::Changed { .. } => "nothing of theirs was touched; run it again".into(),
            Self::NoImage { .. } => "name one with --like DEPLOYMENT or --agent-image IMAGE".into(),
            Self::TooLarge { .. } => "use --agent-image IMAGE".into(),
            Self::Api { .. } | Self::Late { .. } => "with -v the log tells what led to it".into(),
            Self::Local { .. } => return None,
        })
    }
}

/// `ann` of `ann@example.org`, `oidc:ann` and `system:serviceaccount:shop:ann`: for the name of an object.
fn short_name(user: &str) -> String {
    let user = user.split('@').next().unwrap_or(user);
    let name = user.rsplit([':', '/']).next().filter(|name| !name.is_empty()).unwrap_or("user");
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

/// Whom a role is bound to, as kubectl takes it. Others than people are not users to it; and a name that a shell would
/// take apart is the server's word in a command that is copied.
fn subject(user: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "@._:/+=,-".contains(c);
    let quoted = |text: &str| {
        if text.chars().all(is_plain) {
            text.to_owned()
        } else {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
    };
    match user.strip_prefix("system:serviceaccount:") {
        Some(account) => format!("--serviceaccount={}", quoted(account)),
        None => format!("--user={}", quoted(user)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_a_hint_is_one_word_of_the_shell() {
        assert_eq!(
            ["ann@example.org", "oidc:ann", "system:serviceaccount:shop:ann", "Ann"].map(short_name),
            ["ann"; 4]
        );
        assert_eq!(short_name("Ann O'Hara"), "ann-o-hara");
        assert_eq!(subject("CN=ann,O=dev"), "--user=CN=ann,O=dev");
        assert_eq!(subject("$(reboot)'"), r"--user='$(reboot)'\'''");
    }
}
