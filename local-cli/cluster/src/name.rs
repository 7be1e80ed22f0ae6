//! Names of a session's objects: fixed by session and Deployment before anything is created, so that a Role can list
//! them and a restore can find them.

use std::io::Read as _;

use sha2::{Digest as _, Sha256};

/// Label with the session's id on every object of a session.
pub const SESSION_LABEL: &str = "devproxy.dev/session";
/// Annotation of the Lease that holds the [`Record`](crate::Record).
pub const RECORD_ANNOTATION: &str = "devproxy.dev/record";
/// Annotation of the Lease: who began to put it back. Beside the record, which its own session may write at any moment.
pub const RESTORED_BY_ANNOTATION: &str = "devproxy.dev/restored-by";
/// Annotation of the stand-in: a copy of the original's replicas, for a person who finds it without its Lease.
pub const REPLICAS_ANNOTATION: &str = "devproxy.dev/original-replicas";
/// Annotation of the stand-in: the original's name.
pub const ORIGINAL_ANNOTATION: &str = "devproxy.dev/original";
/// Label of an original's pod that is out of its Services and goes on serving for a moment: the session's id.
pub const DRAINING_LABEL: &str = "devproxy.dev/draining";
/// Annotation of such a pod: the labels that were taken off, as JSON.
pub const DRAINED_LABELS_ANNOTATION: &str = "devproxy.dev/drained-labels";
/// The well-known label that says who made an object.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Our name in `managedFields` and in [`MANAGED_BY_LABEL`].
pub const MANAGER: &str = "devproxy";

/// Longest name that is also a valid label value and host name (RFC 1123), in bytes.
const LONGEST: usize = 63;
/// What is appended to the stand-in's name for its ConfigMap and Secret.
const LONGEST_SUFFIX: usize = 6;
/// Characters of a session id.
const ID_LENGTH: usize = 10;
/// Base 32: lower-case letters and digits without `l` and `1`, `o` (there is `0`) and `3`.
const ALPHABET: &[u8; 32] = b"bcdfghjkmnpqrstvwxz2456789ayeui0";

/// A new session id: 50 random bits.
///
/// # Errors
/// When the kernel's random source cannot be read.
pub fn session_id() -> std::io::Result<String> {
    let mut bytes = [0; ID_LENGTH];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect())
}

/// `<deployment>-devproxy-<4 characters of the session>`.
pub fn stand_in(deployment: &str, session: &str) -> String {
    let suffix = format!("-devproxy-{}", session.get(..4).unwrap_or(session));
    format!("{}{suffix}", cut(deployment, LONGEST - LONGEST_SUFFIX - suffix.len()))
}

/// The Lease: named after the Deployment alone, since its atomic creation is the lock.
pub fn lease(deployment: &str) -> String {
    format!("devproxy-{}", cut(deployment, LONGEST - "devproxy-".len()))
}

/// The ConfigMap with loader and agent.
pub fn config_map(stand_in: &str) -> String {
    format!("{stand_in}-agent")
}

/// The Secret with the session key.
pub fn secret(stand_in: &str) -> String {
    format!("{stand_in}-key")
}

/// `name` if it fits, else its beginning and a hash of all of it.
fn cut(name: &str, longest: usize) -> String {
    if name.len() <= longest {
        return name.to_owned();
    }
    let hash = Sha256::digest(name.as_bytes());
    let hash: String = hash.iter().take(6).map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect();
    // Names of Kubernetes objects are ASCII, so any index is a character's border.
    let start = name.get(..longest - hash.len() - 1).unwrap_or_default().trim_end_matches(['-', '.']);
    format!("{start}-{hash}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_those_of_the_design() {
        assert_eq!(stand_in("cart", "k7f2abcdef"), "cart-devproxy-k7f2");
        assert_eq!(lease("cart"), "devproxy-cart");
        assert_eq!(config_map("cart-devproxy-k7f2"), "cart-devproxy-k7f2-agent");
    }

    #[test]
    fn session_ids_differ_and_are_valid_labels() {
        let (one, two) = (session_id().unwrap(), session_id().unwrap());
        assert_ne!(one, two);
        assert!(one.len() >= 8 && one.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
    }

    proptest! {
        #[test]
        fn no_name_is_longer_than_a_label(name in "[a-z]([-a-z0-9]{0,250}[a-z0-9])?") {
            let stand_in = stand_in(&name, "k7f2abcdef");
            for name in [lease(&name), config_map(&stand_in), secret(&stand_in), stand_in] {
                prop_assert!(name.len() <= LONGEST);
                prop_assert!(!name.ends_with('-'));
            }
        }

        #[test]
        fn long_names_that_differ_at_their_end_stay_apart(end in "[a-z]{4}", other in "[a-z]{4}") {
            prop_assume!(end != other);
            let start = "a".repeat(80);
            prop_assert_ne!(lease(&format!("{start}{end}")), lease(&format!("{start}{other}")));
        }
    }
}
