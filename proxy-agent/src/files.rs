//! File flows: mounted volumes as trees, whole at first and again after each change.

use std::{path::Path, sync::Arc, time::Duration};

use devproxy_tunnel::{
    Flow,
    control::{self, FileTree},
};
use tokio::{
    io::{AsyncReadExt as _, ReadHalf, WriteHalf},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};

use crate::log;

mod tree;
mod watch;

/// Roots of one flow; each costs an inotify instance.
const ROOTS: usize = 256;

/// Trees that are read or wait to be written, at most 8 MiB each.
const IN_MEMORY: usize = 4;

/// The kubelet flips `..data` and then removes the old folder: one change, several events.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// Sends the trees of `roots` until the laptop ends the flow.
pub(crate) async fn serve(flow: Flow, mut roots: Vec<String>) {
    roots.truncate(ROOTS);
    let (from, to) = tokio::io::split(flow);
    tokio::select! {
        () = ended(from) => {}
        () = send(roots, to) => {}
    }
}

/// The laptop sends nothing on this flow: its end is the end of the flow.
async fn ended(mut from: ReadHalf<Flow>) {
    let mut byte = [0; 1];
    while matches!(from.read(&mut byte).await, Ok(1..)) {}
}

async fn send(roots: Vec<String>, mut to: WriteHalf<Flow>) {
    let places = Arc::new(Semaphore::new(IN_MEMORY));
    let mut volumes = JoinSet::new();
    for root in roots {
        // Watched before it is read, so that no change falls between.
        let volume = Volume { watch: watch::Watch::new(Path::new(&root)), root };
        volumes.spawn(volume.read(places.clone()));
    }
    while let Some(read) = volumes.join_next().await {
        let Ok((volume, tree, place)) = read else { continue };
        if let Some(tree) = tree {
            match control::write(&mut to, &tree).await {
                Ok(()) => {}
                Err(control::MessageError::TooLong(_)) => {
                    log::line(format_args!("{} is too large to be sent", volume.root));
                }
                Err(_) => return,
            }
        }
        drop(place);
        volumes.spawn(volume.read_changed(places.clone()));
    }
}

/// One root, and what tells of its changes.
struct Volume {
    root: String,
    watch: watch::Watch,
}

/// A volume, its tree unless it cannot be sent, and the tree's place in memory.
type Read = (Volume, Option<FileTree>, Option<OwnedSemaphorePermit>);

impl Volume {
    async fn read_changed(mut self, places: Arc<Semaphore>) -> Read {
        self.watch.changed().await;
        tokio::time::sleep(DEBOUNCE).await;
        self.watch.settle();
        self.read(places).await
    }

    /// In a thread: a volume can hang, the tunnel must not.
    async fn read(self, places: Arc<Semaphore>) -> Read {
        let place = places.acquire_owned().await.ok();
        let root = self.root.clone();
        let tree = match tokio::task::spawn_blocking(move || tree::read(&root)).await {
            Ok(Ok(tree)) => Some(tree),
            Ok(Err(e)) => {
                log::line(format_args!("{} is not sent: {e}", self.root));
                None
            }
            Err(_) => None,
        };
        (self, tree, place)
    }
}

#[cfg(test)]
mod tests;
