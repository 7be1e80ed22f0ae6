//! Both ends prove the key, and nobody else gets in.

use devproxy_tunnel::{
    SessionKey, TunnelId,
    handshake::{Greeting, HandshakeError, Initiator, MAX_MESSAGE, Responder, VERSION},
};

fn key(byte: u8) -> SessionKey {
    SessionKey::from_bytes([byte; SessionKey::LEN])
}

#[test]
fn both_ends_with_the_key_agree_on_tunnel_and_lane() {
    let mut laptop = Initiator::new(&key(1), TunnelId(42), 3).unwrap();
    let hello = laptop.hello().unwrap();
    let (answer, heard, confirmation) = Responder::new(&key(1)).unwrap().answer(&hello).unwrap();
    assert_eq!((heard.version, heard.tunnel, heard.lane), (VERSION, 42, 3));
    let (proof, said) = laptop.finish(&answer).unwrap();
    assert_eq!(said.tunnel, 42);
    confirmation.check(&proof).unwrap();
}

#[test]
fn another_key_is_refused_at_the_first_message() {
    let hello = Initiator::new(&key(1), TunnelId(1), 0).unwrap().hello().unwrap();
    let refused = Responder::new(&key(2)).unwrap().answer(&hello);
    assert!(matches!(refused, Err(HandshakeError::WrongKey)));
}

#[test]
fn an_agent_without_the_key_is_not_believed() {
    let mut laptop = Initiator::new(&key(1), TunnelId(1), 0).unwrap();
    laptop.hello().unwrap();
    let mut stranger = Initiator::new(&key(2), TunnelId(1), 0).unwrap();
    let (forged, _, _) = Responder::new(&key(2)).unwrap().answer(&stranger.hello().unwrap()).unwrap();
    assert!(matches!(laptop.finish(&forged), Err(HandshakeError::WrongKey)));
}

#[test]
fn a_replayed_hello_gets_no_further_than_the_confirmation() {
    let mut laptop = Initiator::new(&key(1), TunnelId(1), 0).unwrap();
    let hello = laptop.hello().unwrap();
    let (answer, _, confirmation) = Responder::new(&key(1)).unwrap().answer(&hello).unwrap();
    let (proof, _) = laptop.finish(&answer).unwrap();
    confirmation.check(&proof).unwrap();
    // The same hello and the same proof, recorded and sent once more.
    let (_, _, confirmation) = Responder::new(&key(1)).unwrap().answer(&hello).unwrap();
    assert!(matches!(confirmation.check(&proof), Err(HandshakeError::WrongKey)));
}

#[test]
fn messages_of_any_other_length_are_errors() {
    for length in [0, 1, 31, 32, 48, 100, MAX_MESSAGE, MAX_MESSAGE + 1, 70_000] {
        assert!(Responder::new(&key(1)).unwrap().answer(&vec![7; length]).is_err());
        let mut laptop = Initiator::new(&key(1), TunnelId(1), 0).unwrap();
        laptop.hello().unwrap();
        assert!(laptop.finish(&vec![7; length]).is_err());
    }
}

#[test]
fn another_version_is_named_and_unknown_capabilities_are_ignored() {
    let hello = |greeting: Greeting| {
        let mut noise = snow::Builder::new("Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s".parse().unwrap())
            .prologue(b"devproxy tunnel")
            .and_then(|builder| builder.psk(0, &[1; SessionKey::LEN]))
            .and_then(snow::Builder::build_initiator)
            .unwrap();
        let mut payload = postcard::to_stdvec(&greeting).unwrap();
        // A newer peer may say more.
        payload.extend_from_slice(b"more");
        let mut message = vec![0; MAX_MESSAGE];
        let length = noise.write_message(&payload, &mut message).unwrap();
        message.truncate(length);
        message
    };
    let newer = Greeting { version: VERSION + 1, capabilities: 0, tunnel: 1, lane: 0 };
    let refused = Responder::new(&key(1)).unwrap().answer(&hello(newer));
    assert!(matches!(refused, Err(HandshakeError::Version(version)) if version == VERSION + 1));
    let capable = Greeting { version: VERSION, capabilities: u64::MAX, ..newer };
    let (_, heard, _) = Responder::new(&key(1)).unwrap().answer(&hello(capable)).unwrap();
    assert_eq!(heard.tunnel, 1);
}
