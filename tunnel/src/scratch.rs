//! One read buffer a thread, so that idle connections and flows hold none.

use std::cell::Cell;

/// Bytes read at once; more than the longest UDP datagram.
const LENGTH: usize = 64 << 10;

thread_local! {
    static BUFFER: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// Lends the thread's buffer; its content is whatever was read last. A nested call gets a buffer of its own.
pub fn with<T>(use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut buffer = BUFFER.take().unwrap_or_else(|| vec![0; LENGTH].into_boxed_slice());
    let result = use_it(&mut buffer);
    BUFFER.set(Some(buffer));
    result
}
