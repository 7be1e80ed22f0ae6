//! The runtime folder: `$XDG_RUNTIME_DIR/devproxy`, else `/run/user/UID/devproxy`, else `/tmp/devproxy-UID`; mode
//! 0700, ours. One socket `ID.sock` a session; the folder goes with the last one.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use nix::unistd::Uid;

use crate::Failure;

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
    pub fn create(&self) -> Result<(), Failure> {
        match fs::DirBuilder::new().mode(0o700).create(&self.0) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => self.check(),
            Err(e) => Err(self.failure(&e)),
        }
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
            .hint("set XDG_RUNTIME_DIR to a folder of yours with mode 0700")
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
        // Fails while another session has a socket there, which is meant.
        let _ = fs::remove_dir(&self.0);
    }
}

fn owned_by(path: &Path, uid: Uid) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == uid.as_raw())
}
