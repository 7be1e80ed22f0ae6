//! Which paths of the pod may appear on the laptop. Covering the wrong one would take the laptop's own programs, the
//! project or the desktop's sockets away from the shell.

use std::path::{Component, Path, PathBuf};

/// Neither these nor anything below them.
const CLOSED: [&str; 10] =
    ["/proc", "/dev", "/sys", "/tmp", "/var/tmp", "/bin", "/sbin", "/lib", "/lib64", "/run/user"];

/// Not these themselves (nor a parent); what is below may be covered.
const KEPT: [&str; 5] = ["/", "/etc", "/usr", "/var", "/run"];

/// What belongs to the user and must stay in sight.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    /// The home folder, canonical.
    pub(super) home: Option<PathBuf>,
    /// Where `devproxy` was started: the project.
    pub(super) project: Option<PathBuf>,
}

impl Places {
    /// Why `path` (absolute, without symbolic links) is not covered; `None` if it may be.
    pub(super) fn objection(&self, path: &Path) -> Option<String> {
        if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
            return Some("not an absolute path".to_owned());
        }
        if let Some(closed) = CLOSED.iter().find(|closed| path.starts_with(closed)) {
            return Some(format!("{closed} stays the laptop's own"));
        }
        let covers = |kept: &Path| kept.starts_with(path);
        if let Some(kept) = CLOSED.iter().chain(&KEPT).find(|kept| covers(Path::new(kept))) {
            return Some(format!("it would hide {kept} of the laptop"));
        }
        // /usr/bin, /usr/lib, /usr/share: the laptop's programs. /usr/share/nginx/html is nobody's.
        if path.starts_with("/usr") && path.components().count() < 4 {
            return Some("/usr stays the laptop's own".to_owned());
        }
        if let Some(home) = &self.home {
            if path.starts_with(home) {
                return Some("your home folder stays the laptop's own".to_owned());
            }
            if covers(home) {
                return Some("it would hide your home folder".to_owned());
            }
        }
        match &self.project {
            Some(project) if covers(project) => Some("it would hide the working directory".to_owned()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objection(path: &str) -> Option<String> {
        let places = Places { home: Some("/home/ann".into()), project: Some("/srv/shop/cart".into()) };
        places.objection(Path::new(path))
    }

    #[test]
    fn volumes_at_paths_of_their_own_appear() {
        for path in [
            "/app/config",
            "/run/secrets/kubernetes.io/serviceaccount",
            "/etc/nginx/conf.d",
            "/usr/share/nginx/html",
            "/var/lib/app",
            "/data",
            "/srv/other",
            "/home/app/config",
        ] {
            assert_eq!(objection(path), None, "{path}");
        }
    }

    #[test]
    fn what_the_laptop_lives_on_is_never_covered() {
        for path in [
            "/",
            "/tmp",
            "/tmp/config",
            "/proc/x",
            "/dev/shm",
            "/sys",
            "/usr",
            "/usr/lib",
            "/bin",
            "/lib64",
            "/etc",
            "/var",
            "/run",
            "/run/user/1000/x",
            "relative",
            "/app/../usr",
        ] {
            assert!(objection(path).is_some(), "{path}");
        }
    }

    #[test]
    fn home_and_project_stay_in_sight() {
        for path in ["/home", "/home/ann", "/home/ann/.config/app", "/srv", "/srv/shop", "/srv/shop/cart"] {
            assert!(objection(path).is_some(), "{path}");
        }
    }
}
