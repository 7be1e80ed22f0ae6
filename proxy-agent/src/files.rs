//! File flows: mounted volumes as trees, whole at first and again after each change.

use std::{path::Path, sync::Arc, time::Duration};

use devproxy_tunnel::{
    Flow,
    control::{self, MessageError, RootState},
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

/// Says of each of `roots` what stands there, also after each change, until the laptop ends the flow.
pub(crate) async fn serve(flow: Flow, roots: Vec<String>) {
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

async fn send(mut roots: Vec<String>, mut to: WriteHalf<Flow>) {
    let places = Arc::new(Semaphore::new(IN_MEMORY));
    let mut volumes = JoinSet::new();
    for root in roots.split_off(ROOTS.min(roots.len())) {
        let cause = format!("there are more than {ROOTS} mounts");
        if tell(&mut to, RootState::Unreadable { root, cause }).await.is_err() {
            return;
        }
    }
    for root in roots {
        // Watched before it is read, so that no change falls between.
        let volume = Volume { watch: watch::Watch::new(Path::new(&root)), root };
        volumes.spawn(volume.read(places.clone()));
    }
    while let Some(read) = volumes.join_next().await {
        let Ok((volume, state, place)) = read else { continue };
        if tell(&mut to, state).await.is_err() {
            return;
        }
        drop(place);
        volumes.spawn(volume.read_changed(places.clone()));
    }
}

async fn tell(to: &mut WriteHalf<Flow>, state: RootState) -> Result<(), MessageError> {
    let written = control::write(to, &state).await;
    let Err(error @ MessageError::TooLong(_)) = written else { return written };
    let (root, cause) = (state.root().to_owned(), error.to_string());
    control::write(to, &RootState::Unreadable { root, cause }).await
}

/// One root, and what tells of its changes.
struct Volume {
    root: String,
    watch: watch::Watch,
}

/// A volume, what stands there, and the place of that in memory.
type Read = (Volume, RootState, Option<OwnedSemaphorePermit>);

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
        let read = tokio::task::spawn_blocking(move || tree::read(&root).map_err(|e| e.to_string()));
        let state = match read.await.unwrap_or_else(|e| Err(e.to_string())) {
            Ok(tree) => RootState::Tree(tree),
            Err(cause) => {
                log::line(format_args!("{} is not sent: {cause}", self.root));
                RootState::Unreadable { root: self.root.clone(), cause }
            }
        };
        (self, state, place)
    }
}

#[cfg(test)]
mod tests;
