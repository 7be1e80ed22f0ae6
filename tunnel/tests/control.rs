//! Messages of the control and file flows.

use std::{io::Cursor, net::IpAddr, pin::Pin, task::Context, task::Poll};

use devproxy_tunnel::control::{
    self, Facts, FileEntry, FileKind, FileTree, FromAgent, MAX_MESSAGE, MessageError, PodPort, Protocol,
    RootState, SCHEMA, Scope, ToAgent,
};
use proptest::prelude::*;
use tokio::io::{AsyncRead, ReadBuf};

fn facts() -> Facts {
    Facts {
        schema: SCHEMA,
        environment: vec![(b"A".to_vec(), b"two\nlines".to_vec()), (b"B".to_vec(), vec![0xff, 0xfe])],
        directory: "/app".into(),
        hostname: "cart-7".into(),
        addresses: vec![IpAddr::from([10, 244, 3, 17])],
        mtu: 1450,
        resolv_conf: b"nameserver 10.96.0.10\n".to_vec(),
        hosts: Vec::new(),
        uid: 1000,
        gid: 1000,
    }
}

#[tokio::test]
async fn messages_arrive_as_they_were_sent_and_then_the_end() {
    let port = PodPort { protocol: Protocol::Udp, scope: Scope::Loopback, port: 53 };
    let sent = [
        FromAgent::Facts(Box::new(facts())),
        FromAgent::Listening { failed: vec![(port, "Address already in use".into())] },
        FromAgent::Ready { failed: None },
        FromAgent::Splicing,
        FromAgent::Terminating,
    ];
    let mut bytes = Vec::new();
    for message in &sent {
        control::write(&mut bytes, message).await.unwrap();
    }
    let mut from = &bytes[..];
    for message in &sent {
        assert_eq!(control::read::<FromAgent>(&mut from).await.unwrap(), *message);
    }
    assert!(matches!(control::read::<FromAgent>(&mut from).await, Err(MessageError::Closed)));
}

#[tokio::test]
async fn a_message_cut_short_is_an_error_and_not_an_end() {
    let mut bytes = Vec::new();
    control::write(&mut bytes, &ToAgent::Listen(Vec::new())).await.unwrap();
    bytes.pop();
    assert!(matches!(control::read::<ToAgent>(&mut &bytes[..]).await, Err(MessageError::Io(_))));
}

#[tokio::test]
async fn a_length_over_the_limit_is_refused_before_its_bytes() {
    let length = u32::try_from(MAX_MESSAGE + 1).unwrap().to_le_bytes();
    let error = control::read::<ToAgent>(&mut &length[..]).await.unwrap_err();
    assert!(matches!(error, MessageError::TooLong(over) if over == MAX_MESSAGE + 1));
    let entry = FileEntry { path: "f".into(), mode: 0o644, kind: FileKind::File(vec![0; MAX_MESSAGE]) };
    let tree = FileTree { root: "/etc/app".into(), entries: vec![entry] };
    assert!(matches!(control::write(&mut Vec::new(), &tree).await, Err(MessageError::TooLong(_))));
}

#[tokio::test]
async fn a_large_file_passes() {
    let kind = FileKind::File(vec![9; 5 << 20]);
    let entry = FileEntry { path: String::new(), mode: 0o400, kind };
    let tree = RootState::Tree(FileTree { root: "/data".into(), entries: vec![entry] });
    let mut bytes = Vec::new();
    control::write(&mut bytes, &tree).await.unwrap();
    assert_eq!(control::read::<RootState>(&mut &bytes[..]).await.unwrap(), tree);
}

/// Delivers one byte a call.
struct Trickle(Cursor<Vec<u8>>);

impl AsyncRead for Trickle {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let mut one = [0];
        let mut small = ReadBuf::new(&mut one);
        let read = Pin::new(&mut self.0).poll_read(cx, &mut small);
        buf.put_slice(small.filled());
        read
    }
}

#[tokio::test]
async fn a_message_may_arrive_byte_by_byte() {
    let mut bytes = Vec::new();
    control::write(&mut bytes, &FromAgent::Facts(Box::new(facts()))).await.unwrap();
    let message = control::read::<FromAgent>(&mut Trickle(Cursor::new(bytes))).await.unwrap();
    assert_eq!(message, FromAgent::Facts(Box::new(facts())));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut framed = u32::try_from(bytes.len()).unwrap().to_le_bytes().to_vec();
            framed.extend_from_slice(&bytes);
            let _to_agent = control::read::<ToAgent>(&mut &framed[..]).await;
            let _from_agent = control::read::<FromAgent>(&mut &framed[..]).await;
            let _state = control::read::<RootState>(&mut &framed[..]).await;
            let _unframed = control::read::<ToAgent>(&mut &bytes[..]).await;
        });
    }
}
