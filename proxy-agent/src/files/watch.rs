//! Tells when a volume has changed.

use std::{
    fs::Metadata,
    io,
    os::{
        fd::{AsFd as _, AsRawFd, RawFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::{Interest, unix::AsyncFd};

/// `fs.inotify.max_user_instances` (128 a uid on the whole node) is often used up; then we look this often.
const LOOK: Duration = Duration::from_secs(1);

/// One watched root.
pub(super) enum Watch {
    /// A folder: the kubelet renames a new `..data` link over the old one in it.
    Events(AsyncFd<Events>),
    /// Without inotify.
    Looking { root: PathBuf, seen: Option<Fingerprint> },
}

impl Watch {
    pub(super) fn new(root: &Path) -> Self {
        match Events::new(root) {
            Ok(events) => Self::Events(events),
            Err(_) => Self::looking(root),
        }
    }

    pub(super) fn looking(root: &Path) -> Self {
        Self::Looking { root: root.to_owned(), seen: fingerprint(root) }
    }

    /// Resolves after a change. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        match self {
            Self::Events(events) => {
                let waited = events
                    .async_io(Interest::READABLE, |events| events.0.read_events().map_err(io::Error::from));
                if waited.await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            Self::Looking { root, seen } => loop {
                tokio::time::sleep(LOOK).await;
                let now = fingerprint(root);
                if now != *seen {
                    *seen = now;
                    return;
                }
            },
        }
    }

    /// Forgets what has happened until now.
    pub(super) fn settle(&mut self) {
        if let Self::Events(events) = self {
            while events.get_ref().0.read_events().is_ok_and(|events| !events.is_empty()) {}
        }
    }
}

/// The inotify instance of one root.
pub(super) struct Events(Inotify);

impl Events {
    fn new(root: &Path) -> io::Result<AsyncFd<Self>> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let changes = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_ATTRIB;
        inotify.add_watch(root, changes)?;
        #[expect(unsafe_code, reason = "tokio has no safe registration of a descriptor that is not a socket")]
        // SAFETY: `as_raw_fd` always returns the descriptor that `self` owns: valid and open as long as `self` lives,
        // which is never taken out of the `AsyncFd` nor handed out mutably.
        let registered = unsafe { AsyncFd::register_with_interest(Self(inotify), Interest::READABLE) };
        Ok(registered?)
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// What differs after a flip: the target of `..data`, and the folder's own time and identity.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    data: Option<PathBuf>,
    inode: u64,
    modified: (i64, i64),
}

fn fingerprint(root: &Path) -> Option<Fingerprint> {
    let metadata: Metadata = std::fs::metadata(root).ok()?;
    Some(Fingerprint {
        data: std::fs::read_link(root.join("..data")).ok(),
        inode: metadata.ino(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    })
}
