//! Copies between two streams, both ways, with half-close and reset.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use devproxy_tunnel::{CopyEnd, Flow, copy};
use tokio::net::TcpStream;

/// A stream that can be ended as a RST ends it.
pub(crate) trait Abort {
    /// Ends both directions.
    fn abort(self);
}

impl Abort for TcpStream {
    fn abort(self) {
        // Closing a socket that lingers for zero seconds sends RST. Where that fails the close below is all there is.
        let _ = self.set_zero_linger();
    }
}

impl Abort for Flow {
    fn abort(self) {
        // Dropped, it is reset, unless all was said.
    }
}

/// Copies until both directions have ended, and counts the bytes. Returns the error of the end that failed; then the other
/// end has been reset. Dropping the future drops both streams.
pub(crate) async fn splice<A, B>(a: A, b: B, forth: &AtomicU64, back: &AtomicU64) -> io::Result<()>
where
    A: CopyEnd + Abort,
    B: CopyEnd + Abort,
{
    let count = |bytes: &AtomicU64, moved: usize| bytes.fetch_add(moved as u64, Ordering::Relaxed);
    let ended = copy(&a, &b, |moved| _ = count(forth, moved), |moved| _ = count(back, moved)).await;
    if ended.is_err() {
        a.abort();
        b.abort();
    }
    ended
}

#[cfg(test)]
mod tests;
