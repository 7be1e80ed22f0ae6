//! A stranger at the handshake, on both ends: arbitrary messages, and true ones with one byte changed.

#![no_main]

use devproxy_tunnel::{
    SessionKey, TunnelId,
    handshake::{Initiator, Responder},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(([kind, at, change], message)) = data.split_first_chunk::<3>() else { return };
    let key = SessionKey::from_bytes([7; SessionKey::LEN]);
    let spoil = |bytes: &mut Vec<u8>| {
        let at = usize::from(*at) % bytes.len();
        bytes[at] ^= change;
        *change != 0
    };
    match kind % 4 {
        0 => {
            let responder = Responder::new(&key).expect("random numbers");
            assert!(responder.answer(message).is_err(), "a stranger was believed");
        }
        1 => {
            let mut initiator = Initiator::new(&key, TunnelId(1), 0).expect("random numbers");
            initiator.hello().expect("a hello");
            assert!(initiator.finish(message).is_err(), "a stranger was believed");
        }
        spoilt => {
            let mut initiator = Initiator::new(&key, TunnelId(1), 0).expect("random numbers");
            let mut hello = initiator.hello().expect("a hello");
            if spoilt == 2 && spoil(&mut hello) {
                assert!(Responder::new(&key).expect("random numbers").answer(&hello).is_err());
                return;
            }
            let (mut answer, _, confirmation) =
                Responder::new(&key).expect("random numbers").answer(&hello).expect("a true hello");
            if *at >= 128 && spoil(&mut answer) {
                assert!(initiator.finish(&answer).is_err());
                return;
            }
            assert!(confirmation.check(message).is_err(), "a stranger was believed");
        }
    }
});
