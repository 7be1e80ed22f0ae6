//! The runtime folder: `$XDG_RUNTIME_DIR/devproxy`, else `/run/user/UID/devproxy`, else `/tmp/devproxy-UID`; mode
//! 0700, ours. One socket `ID.sock` a session; the folder goes with the last one.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use nix::unistd::Uid;
use tokio::net::UnixListener;

use crate::Failure;

/// Times that a folder which vanishes is made again.
const ATTEMPTS: u32 = 5;

/// The runtime folder, checked.
#[derive(Debug, Clone)]
pub struct RuntimeFolder(PathBuf);

impl RuntimeFolder {
    /// Where it is, whether or not it exists.
    pub fn locate() -> Self {
        let uid = Uid::current();
        let system = PathBuf::from(format!("/run/user/{uid}"));
        Self(match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
            Some(set) if owned_by(&set, uid) => set.join("devproxy"),
            _ if owned_by(&system, uid) => system.join("devproxy"),
            _ => PathBuf::from(format!("/tmp/devproxy-{uid}")),
        })
    }

    /// Makes it, 0700; refuses one that belongs to somebody else or that others may enter.
    fn create(&self) -> Result<(), Failure> {
        match fs::DirBuilder::new().mode(0o700).create(&self.0) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => self.check(),
            Err(e) => Err(self.failure(&e)),
        }
    }

    /// The control socket of session `id`. Its name appears when it takes connections: whoever finds the name and
    /// gets no answer has found a dead one.
    pub fn listen(&self, id: &str) -> Result<UnixListener, Failure> {
        let (new, socket) = (self.0.join(format!("{id}.new")), self.socket(id));
        let bind = || -> io::Result<UnixListener> {
            let listener = UnixListener::bind(&new)?;
            fs::rename(&new, &socket)?;
            Ok(listener)
        };
        for _ in 0..ATTEMPTS {
            self.create()?;
            match bind() {
                // The last session of before has taken the folder with it in this moment.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                result => return result.map_err(|e| self.failure(&e)),
            }
        }
        Err(self.failure(&io::Error::from(io::ErrorKind::NotFound)))
    }

    fn check(&self) -> Result<(), Failure> {
        let metadata = fs::symlink_metadata(&self.0).map_err(|e| self.failure(&e))?;
        if metadata.is_dir() && metadata.uid() == Uid::current().as_raw() && metadata.mode() & 0o777 == 0o700
        {
            Ok(())
        } else {
            Err(self.failure(&io::Error::other("it belongs to somebody else or others may enter it")))
        }
    }

    fn failure(&self, error: &io::Error) -> Failure {
        Failure::new("DP-RUNTIME-FOLDER", format!("runtime folder `{}`: {error}", self.0.display()))
            .hint("set XDG_RUNTIME_DIR to a folder of yours with mode 0700 and a short path")
    }

    /// Path of the control socket of session `id`.
    pub fn socket(&self, id: &str) -> PathBuf {
        self.0.join(format!("{id}.sock"))
    }

    /// Ids that have a socket, also of dead sessions.
    pub fn ids(&self) -> Vec<String> {
        if self.check().is_err() {
            return Vec::new();
        }
        let Ok(entries) = fs::read_dir(&self.0) else { return Vec::new() };
        let mut ids: Vec<_> = entries
            .filter_map(|entry| {
                entry.ok()?.file_name().into_string().ok()?.strip_suffix(".sock").map(str::to_owned)
            })
            .collect();
        ids.sort();
        ids
    }

    /// Removes the socket of `id`, and the folder when it was the last.
    pub fn remove(&self, id: &str) {
        let _ = fs::remove_file(self.socket(id));
        let _ = fs::remove_file(self.0.join(format!("{id}.new")));
        // Fails while another session has a socket there, which is meant.
        let _ = fs::remove_dir(&self.0);
    }
}

fn owned_by(path: &Path, uid: Uid) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == uid.as_raw())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn folder(name: &str) -> RuntimeFolder {
        RuntimeFolder(std::env::temp_dir().join(format!("devproxy-{name}-{}", std::process::id())))
    }

    #[tokio::test]
    async fn the_last_session_takes_the_folder_along() {
        let folder = folder("last");
        let (one, two) = (folder.listen("one").unwrap(), folder.listen("two").unwrap());
        assert_eq!(folder.ids(), ["one", "two"]);
        folder.remove("one");
        assert_eq!(folder.ids(), ["two"]);
        folder.remove("two");
        assert!(!folder.0.exists());
        drop((one, two));
    }

    #[tokio::test]
    async fn a_folder_that_others_may_enter_is_refused() {
        let folder = folder("open");
        fs::create_dir(&folder.0).unwrap();
        fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o755)).unwrap();
        let refused = folder.listen("one").unwrap_err();
        assert_eq!(refused.code, "DP-RUNTIME-FOLDER");
        assert!(folder.ids().is_empty());
        fs::remove_dir(&folder.0).unwrap();
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_for_a_socket_is_refused_with_its_name() {
        let folder = folder(&"x".repeat(120));
        let refused = folder.listen("one").unwrap_err();
        assert!(refused.cause.contains("SUN_LEN") && refused.cause.contains("xxx"), "{refused}");
        assert!(refused.hint.unwrap().contains("short path"));
        fs::remove_dir(&folder.0).unwrap();
    }
}
