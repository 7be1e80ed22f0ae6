use proptest::prelude::*;

use super::*;

pub(crate) fn held_packet(id: u32) -> HeldPacket {
    HeldPacket { id: PacketId { queue: 0, id }, bytes: Vec::new() }
}

fn attribute_bytes(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(u16::try_from(value.len() + 4).unwrap().to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn packet_message(queue: u16, id: u32, payload: &[u8]) -> Vec<u8> {
    let mut header = id.to_be_bytes().to_vec();
    header.extend([0x08, 0x00, 0]);
    let mut body = vec![2, 0];
    body.extend(queue.to_be_bytes());
    body.extend(attribute_bytes(ATTRIBUTE_PACKET, &header));
    body.extend(attribute_bytes(5, &7_u32.to_be_bytes()));
    body.extend(attribute_bytes(ATTRIBUTE_PAYLOAD, payload));
    let mut message = u32::try_from(NLMSG_HEADER + body.len()).unwrap().to_ne_bytes().to_vec();
    message.extend(PACKET.to_ne_bytes());
    message.extend([0; 10]);
    message.extend(body);
    message
}

#[test]
fn several_packets_of_one_read_are_found() {
    let mut bytes = packet_message(0, 1, b"abc");
    bytes.extend(packet_message(7, 2, b"defgh"));
    let mut packets = Vec::new();
    parse(&bytes, &mut packets);
    assert_eq!(
        packets,
        [
            HeldPacket { id: PacketId { queue: 0, id: 1 }, bytes: b"abc".to_vec() },
            HeldPacket { id: PacketId { queue: 7, id: 2 }, bytes: b"defgh".to_vec() },
        ]
    );
}

#[test]
fn a_verdict_is_one_whole_message() {
    let mut bytes = Vec::new();
    encode(&mut bytes, PacketId { queue: 3, id: 9 }, Verdict::Accept);
    assert_eq!(bytes.len(), VERDICT_LENGTH);
    let (kind, body, rest) = message(&bytes).unwrap();
    assert_eq!((kind, rest.len()), (VERDICT, 0));
    assert_eq!(body[..4], [0, 0, 0, 3]);
    let (kind, value, _) = attribute(&body[4..]).unwrap();
    assert_eq!((kind, value), (ATTRIBUTE_VERDICT, &[0, 0, 0, 1, 0, 0, 0, 9][..]));
}

proptest! {
    #[test]
    fn hostile_bytes_neither_panic_nor_hang(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        parse(&bytes, &mut Vec::new());
    }

    #[test]
    fn a_cut_message_never_panics(cut in 0_usize..80, flip in 0_usize..80, with in any::<u8>()) {
        let mut bytes = packet_message(1, 2, &[9; 40]);
        let length = bytes.len();
        bytes[flip % length] = with;
        bytes.truncate(length.saturating_sub(cut));
        parse(&bytes, &mut Vec::new());
    }
}
