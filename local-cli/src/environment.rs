//! The environment of the shell: the pod's, with what belongs to the person at the terminal kept.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
};

use crate::settings;

/// The session in whose shell this process is: a user namespace with one id, and the variable that names it.
pub fn around_us() -> Option<String> {
    let map = std::fs::read_to_string("/proc/self/uid_map").ok()?;
    let is_one_id = map.split_whitespace().nth(2) == Some("1");
    std::env::var(SESSION).ok().filter(|_| is_one_id)
}

/// Names whose value on the laptop stays: they describe the terminal, the person and the tools, not the service.
const LAPTOP_KEEPS: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "PWD",
    "OLDPWD",
    "SHLVL",
    "TERM",
    "COLORTERM",
    "TERM_PROGRAM",
    "TERM_PROGRAM_VERSION",
    "LANG",
    "LANGUAGE",
    "EDITOR",
    "VISUAL",
    "PAGER",
    "LESS",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "DBUS_SESSION_BUS_ADDRESS",
    "SSH_AUTH_SOCK",
    "SSH_AGENT_PID",
    "GPG_TTY",
    "GPG_AGENT_INFO",
    "TMUX",
    "TMUX_PANE",
    "STY",
    "NO_COLOR",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "LS_COLORS",
    "TMPDIR",
    "PS1",
];

/// The same by prefix.
const LAPTOP_KEEPS_PREFIX: &[&str] = &["LC_", "XDG_", "VSCODE_", "JETBRAINS_", "CARGO_", "RUSTUP_"];

/// Names of the pod that would break the laptop's programs: they point into the image.
const POD_LOSES: &[&str] = &["PYTHONHOME", "JAVA_HOME", "NODE_PATH"];

/// How the two environments are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// The pod's over the laptop's.
    #[default]
    Merged,
    /// The pod's alone.
    Pod,
}

/// By this variable, which is the session's id, what runs in its shell is known when all of ours is dead.
pub const ID: &str = "DEVPROXY_SESSION_ID";

/// The same by whose place is taken, `NAMESPACE/NAME`: for people, and where the id is not known any more.
pub const SESSION: &str = "DEVPROXY_SESSION";

/// The environment of a program in the shell; `session` becomes [`SESSION`].
pub fn shell(
    form: Form,
    laptop: impl IntoIterator<Item = (OsString, OsString)>,
    pod: &[(Vec<u8>, Vec<u8>)],
    session: &str,
    id: &str,
) -> BTreeMap<OsString, OsString> {
    let pod =
        pod.iter().map(|(name, value)| (OsString::from_vec(name.clone()), OsString::from_vec(value.clone())));
    let mut result = BTreeMap::new();
    if form == Form::Merged {
        result.extend(laptop.into_iter().filter(|(name, _)| !dropped_from_laptop(name.as_bytes())));
        for (name, value) in pod {
            let bytes = name.as_bytes();
            let keep = kept_from_laptop(bytes) && result.contains_key(&name);
            if !keep && !dropped_from_pod(bytes) {
                result.insert(name, value);
            }
        }
        // What Debian's and Ubuntu's prompts show in front; the others show the pod's host name.
        result.insert("debian_chroot".into(), session.into());
    } else {
        result.extend(pod);
    }
    result.insert(SESSION.into(), session.into());
    result.insert(ID.into(), id.into());
    result
}

fn kept_from_laptop(name: &[u8]) -> bool {
    LAPTOP_KEEPS.iter().any(|keep| keep.as_bytes() == name)
        || LAPTOP_KEEPS_PREFIX.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
}

fn dropped_from_pod(name: &[u8]) -> bool {
    let ours = || std::str::from_utf8(name).is_ok_and(settings::is_variable);
    name.starts_with(b"LD_") || POD_LOSES.iter().any(|lost| lost.as_bytes() == name) || ours()
}

/// The laptop's proxies do not exist for the pod, and its kubeconfig is not the pod's identity.
fn dropped_from_laptop(name: &[u8]) -> bool {
    let lower = name.to_ascii_lowercase();
    lower.ends_with(b"_proxy") || name == b"KUBECONFIG"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laptop(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn pod(pairs: &[(&str, &str)]) -> Vec<(Vec<u8>, Vec<u8>)> {
        pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
    }

    fn get<'a>(environment: &'a BTreeMap<OsString, OsString>, name: &str) -> Option<&'a str> {
        environment.get(&OsString::from(name)).map(|value| value.to_str().unwrap())
    }

    #[test]
    fn the_pod_wins_but_the_person_keeps_terminal_and_tools() {
        let merged = shell(
            Form::Merged,
            laptop(&[
                ("PATH", "/home/me/bin"),
                ("DATABASE_URL", "local"),
                ("LC_ALL", "de"),
                ("EDITOR", "vi"),
            ]),
            &pod(&[("PATH", "/app/bin"), ("DATABASE_URL", "pod"), ("LC_ALL", "C"), ("MULTI", "a\nb")]),
            "shop/cart",
            "k7f2abcdef",
        );
        assert_eq!(get(&merged, "PATH"), Some("/home/me/bin"));
        assert_eq!(get(&merged, "DATABASE_URL"), Some("pod"));
        assert_eq!(get(&merged, "LC_ALL"), Some("de"));
        assert_eq!(get(&merged, "EDITOR"), Some("vi"));
        assert_eq!(get(&merged, "MULTI"), Some("a\nb"));
        assert_eq!(get(&merged, "DEVPROXY_SESSION"), Some("shop/cart"));
        assert_eq!(get(&merged, ID), Some("k7f2abcdef"));
        assert_eq!(get(&merged, "debian_chroot"), Some("shop/cart"));
    }

    #[test]
    fn what_points_into_the_image_or_at_the_laptop_is_dropped() {
        let merged = shell(
            Form::Merged,
            laptop(&[("https_proxy", "http://p"), ("KUBECONFIG", "/k"), ("JAVA_HOME", "/jdk")]),
            &pod(&[("LD_PRELOAD", "/x.so"), ("JAVA_HOME", "/opt/java"), ("HTTP_PROXY", "http://mesh")]),
            "s",
            "i",
        );
        assert_eq!(get(&merged, "https_proxy"), None);
        assert_eq!(get(&merged, "KUBECONFIG"), None);
        assert_eq!(get(&merged, "LD_PRELOAD"), None);
        assert_eq!(get(&merged, "JAVA_HOME"), Some("/jdk"));
        assert_eq!(get(&merged, "HTTP_PROXY"), Some("http://mesh"));
    }

    #[test]
    fn the_strict_form_is_the_pods_alone() {
        let strict = shell(Form::Pod, laptop(&[("EDITOR", "vi")]), &pod(&[("PATH", "/app")]), "s", "i");
        assert_eq!(get(&strict, ID), Some("i"));
        assert_eq!(get(&strict, "EDITOR"), None);
        assert_eq!(get(&strict, "PATH"), Some("/app"));
        assert_eq!(get(&strict, "debian_chroot"), None);
    }
}
