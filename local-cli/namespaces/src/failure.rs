//! What can go wrong, and what the user can do about it.

use std::{fs, io};

/// Namespaces could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The kernel or its policy refused; `step` says where.
    #[error("{step}: {source}")]
    Step {
        /// What was tried, e.g. `unshare(CLONE_NEWUSER)`.
        step: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The helper process has ended.
    #[error("the namespace helper has ended")]
    Gone,
}

impl NamespaceError {
    /// What the user can do about it, where that is known (`AppArmor` on Ubuntu, sysctls, containers).
    pub fn hint(&self) -> Option<String> {
        let Self::Step { step, source } = self else { return None };
        hint(step, source.raw_os_error()?, |path| fs::read_to_string(path).ok())
    }
}

fn hint(step: &str, errno: i32, read: impl Fn(&str) -> Option<String>) -> Option<String> {
    use nix::libc::{EACCES, EINVAL, ENOSPC, ENOSYS, EOPNOTSUPP, EPERM, EROFS};
    let number = |path: &str| read(path).and_then(|text| text.trim().parse::<u64>().ok());
    let refused = matches!(errno, EPERM | EACCES);
    if matches!(errno, ENOSPC | EPERM) && number("/proc/sys/user/max_user_namespaces") == Some(0) {
        return Some("allow user namespaces: sudo sysctl -w user.max_user_namespaces=15000".to_owned());
    }
    if refused && number("/proc/sys/kernel/unprivileged_userns_clone") == Some(0) {
        return Some("allow user namespaces: sudo sysctl -w kernel.unprivileged_userns_clone=1".to_owned());
    }
    // Ubuntu since 23.10: unshare itself succeeds, but the new namespace comes without capabilities.
    if refused && number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        return Some(
            "AppArmor withholds capabilities in user namespaces; devproxy's Debian package brings a profile that allows \
             them, or for all programs: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
                .to_owned(),
        );
    }
    if refused && step.starts_with("unshare") {
        return Some(
            "user namespaces are refused here; in a container start it with `--security-opt seccomp=unconfined` \
             (Docker's default profile forbids unshare)"
                .to_owned(),
        );
    }
    if matches!(errno, EROFS | EACCES) && step.contains("/proc/sys/net") {
        return Some(
            "/proc/sys is read-only here; start the container with `--security-opt systempaths=unconfined`"
                .to_owned(),
        );
    }
    if matches!(errno, EINVAL | ENOSYS) && step.starts_with("unshare") {
        return Some("this kernel is built without CONFIG_USER_NS or CONFIG_NET_NS".to_owned());
    }
    if errno == EOPNOTSUPP && step.contains("veth") {
        return Some("the kernel lacks the veth driver: sudo modprobe veth".to_owned());
    }
    if step.contains("overlay") {
        return Some("the kernel lacks overlayfs for users (Linux 5.11): sudo modprobe overlay".to_owned());
    }
    if step.contains("nf_tables") {
        return Some(
            "the kernel lacks a netfilter part: sudo modprobe -a nf_tables nft_tproxy nft_socket nfnetlink_queue nft_queue"
                .to_owned(),
        );
    }
    None
}

/// Puts the name of the step to an operation's error.
pub(crate) trait At<T> {
    fn at(self, step: impl Into<String>) -> Result<T, NamespaceError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: impl Into<String>) -> Result<T, NamespaceError> {
        self.map_err(|e| NamespaceError::Step { step: step.into(), source: e.into() })
    }
}

#[cfg(test)]
mod tests {
    use nix::libc::{EPERM, EROFS};

    use super::*;

    #[test]
    fn ubuntu_gets_its_sysctl_named() {
        let hint = hint("unshare", EPERM, |path| path.contains("apparmor").then(|| "1\n".to_owned()));
        assert!(hint.unwrap().ends_with("sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"));
    }

    #[test]
    fn a_limit_of_zero_namespaces_gets_its_sysctl_named() {
        let hint =
            hint("unshare", nix::libc::ENOSPC, |path| path.contains("max_user").then(|| "0\n".to_owned()));
        assert!(hint.unwrap().contains("user.max_user_namespaces="));
    }

    #[test]
    fn debian_of_old_gets_its_sysctl_named() {
        let hint = hint("unshare", EPERM, |path| path.contains("userns_clone").then(|| "0\n".to_owned()));
        assert!(hint.unwrap().contains("kernel.unprivileged_userns_clone=1"));
    }

    #[test]
    fn a_read_only_proc_is_told_from_a_refused_namespace() {
        let hint = hint("write /proc/sys/net/ipv4/ip_forward", EROFS, |_| None);
        assert!(hint.unwrap().contains("systempaths"));
    }
}
