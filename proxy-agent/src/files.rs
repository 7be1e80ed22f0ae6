//! File flows: mounted volumes as trees, whole at first and again after each change.

use std::{path::Path, time::Duration};

use devproxy_tunnel::{Flow, control};
use tokio::{
    io::{AsyncReadExt as _, ReadHalf, WriteHalf},
    task::JoinSet,
};

use crate::log;

mod tree;
mod watch;

/// Roots of one flow; each costs an inotify instance.
const ROOTS: usize = 256;

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
    let mut watches = JoinSet::new();
    // Watched before it is read, so that no change falls between.
    for root in roots {
        let watch = watch::Watch::new(Path::new(&root));
        watches.spawn(async move { (root, watch) });
    }
    while let Some(changed) = watches.join_next().await {
        let Ok((root, mut watch)) = changed else { continue };
        if let Some(tree) = read(root.clone()).await {
            match control::write(&mut to, &tree).await {
                Ok(()) => {}
                Err(control::MessageError::TooLong(_)) => {
                    log::line(format_args!("{root} is too large to be sent"));
                }
                Err(_) => return,
            }
        }
        watches.spawn(async move {
            watch.changed().await;
            tokio::time::sleep(DEBOUNCE).await;
            watch.settle();
            (root, watch)
        });
    }
}

/// In a thread: a volume can hang, the tunnel must not.
async fn read(root: String) -> Option<control::FileTree> {
    let name = root.clone();
    let read = tokio::task::spawn_blocking(move || tree::read(&root)).await.ok()?;
    read.inspect_err(|e| log::line(format_args!("{name} is not sent: {e}"))).ok()
}

#[cfg(test)]
mod tests;
