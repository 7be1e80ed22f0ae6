//! Messages of the control and file flows and the payload of OPEN: arbitrary bytes; what decodes survives a round trip.

#![no_main]

use std::{fmt::Debug, task::Poll};

use devproxy_tunnel::{
    Open,
    control::{self, FromAgent, RootState, ToAgent},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 4 {
        0 => round_trip::<ToAgent>(bytes),
        1 => round_trip::<FromAgent>(bytes),
        2 => round_trip::<RootState>(bytes),
        _ => {
            if let Ok(open) = postcard::from_bytes::<Open>(bytes) {
                let again = postcard::to_stdvec(&open).expect("it can be encoded");
                assert_eq!(postcard::from_bytes(&again), Ok(open));
            }
        }
    }
});

fn round_trip<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    let mut from = bytes;
    let Ok(message) = now(control::read::<T>(&mut from)) else { return };
    let mut written = Vec::new();
    now(control::write(&mut written, &message)).expect("what was read can be written");
    assert_eq!(now(control::read::<T>(&mut &written[..])).expect("what was written can be read"), message);
}

/// Reading from memory never waits.
fn now<F: Future>(future: F) -> F::Output {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("memory does not wait"),
    }
}
