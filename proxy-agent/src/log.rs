//! Few lines on stderr, never more than [`A_MINUTE`]: the container's log is the node's disk.

use std::{
    cell::Cell,
    fmt,
    io::Write as _,
    time::{Duration, Instant},
};

/// Lines a minute; what is over it is dropped.
const A_MINUTE: u32 = 60;

thread_local! {
    static WINDOW: Cell<Option<(Instant, u32)>> = const { Cell::new(None) };
}

/// Writes one line, unless this minute's lines are used up. Never put a secret into it.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    let now = Instant::now();
    let (since, count) = WINDOW.get().unwrap_or((now, 0));
    let (since, count) = if now - since > Duration::from_mins(1) { (now, 0) } else { (since, count) };
    WINDOW.set(Some((since, count + 1)));
    if count < A_MINUTE {
        // A closed stderr is no reason to end.
        let _ = writeln!(std::io::stderr(), "devproxy-agent: {text}");
    }
}
