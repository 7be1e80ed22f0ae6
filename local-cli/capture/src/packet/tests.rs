use proptest::prelude::*;

use super::*;

fn syn(source: &str, target: &str) -> (Syn, Vec<u8>) {
    let syn = Syn { source: source.parse().unwrap(), target: target.parse().unwrap(), sequence: 0xfedc_ba98 };
    let mut segment = Vec::new();
    segment.extend(syn.source.port().to_be_bytes());
    segment.extend(syn.target.port().to_be_bytes());
    segment.extend(syn.sequence.to_be_bytes());
    segment.extend([0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    let packet = datagram(TCP, syn.source.ip(), syn.target.ip(), &segment);
    (syn, packet)
}

/// Sums to zero when the checksum inside is right.
fn verified(protocol: u8, packet: &[u8]) -> bool {
    let (source, target, found, message) = split(packet).unwrap();
    assert_eq!(found, protocol);
    let mut copy = message.to_vec();
    let at = match protocol {
        TCP => 16,
        _ => 2,
    };
    let before = [copy[at], copy[at + 1]];
    copy[at..at + 2].fill(0);
    finish(&mut copy, at, protocol, source, target);
    before == [copy[at], copy[at + 1]]
}

#[test]
fn a_syn_is_read_in_both_families() {
    for (source, target) in [("10.0.0.1:4000", "10.96.0.50:80"), ("[fd00::1]:4000", "[fd00:96::50]:80")] {
        let (syn, packet) = syn(source, target);
        assert_eq!(Syn::parse(&packet), Some(syn));
    }
}

#[test]
fn what_is_no_syn_is_not_read() {
    let (_, packet) = syn("10.0.0.1:4000", "10.96.0.50:80");
    let mut acknowledged = packet.clone();
    acknowledged[33] |= 0x10;
    assert_eq!(Syn::parse(&acknowledged), None);
    let mut fragment = packet.clone();
    fragment[7] = 1;
    assert_eq!(Syn::parse(&fragment), None);
    let mut udp = packet;
    udp[9] = UDP;
    assert_eq!(Syn::parse(&udp), None);
}

#[test]
fn a_reset_answers_the_syn_from_its_target() {
    for (source, target) in [("10.0.0.1:4000", "10.96.0.50:80"), ("[fd00::1]:4000", "[fd00:96::50]:80")] {
        let (syn, _) = syn(source, target);
        let answer = reset(&syn);
        let (from, to, protocol, segment) = split(&answer.bytes).unwrap();
        assert_eq!((from, to, protocol), (syn.target.ip(), syn.source.ip(), TCP));
        assert_eq!(answer.to, syn.source.ip());
        assert_eq!(segment[..2], 80_u16.to_be_bytes());
        assert_eq!(segment[8..12], 0xfedc_ba99_u32.to_be_bytes());
        assert_eq!(segment[13], 0x14, "RST and ACK");
        assert!(verified(TCP, &answer.bytes));
    }
}

#[test]
fn an_icmp_error_quotes_the_packet() {
    let (syn4, packet4) = syn("10.0.0.1:4000", "10.96.0.50:80");
    let answer = unreachable(&packet4, Unreachable::Host).unwrap();
    let (from, to, protocol, message) = split(&answer.bytes).unwrap();
    assert_eq!((from, to, protocol), (syn4.target.ip(), syn4.source.ip(), ICMP));
    assert_eq!(message[..2], [3, 10]);
    assert_eq!(message[8..], packet4[..28]);
    assert!(verified(ICMP, &answer.bytes));

    let (syn6, packet6) = syn("[fd00::1]:4000", "[fd00:96::50]:80");
    let answer = unreachable(&packet6, Unreachable::Prohibited).unwrap();
    let (from, to, protocol, message) = split(&answer.bytes).unwrap();
    assert_eq!((from, to, protocol), (syn6.target.ip(), syn6.source.ip(), ICMP6));
    assert_eq!(message[..2], [1, 1]);
    assert_eq!(message[8..], packet6[..]);
    assert!(verified(ICMP6, &answer.bytes));
}

#[test]
fn a_udp_head_can_be_quoted() {
    for (source, target) in [("10.0.0.1:4000", "10.96.0.50:53"), ("[fd00::1]:4000", "[fd00:96::50]:53")] {
        let packet = udp_head(source.parse().unwrap(), target.parse().unwrap(), 1000).unwrap();
        let answer = unreachable(&packet, Unreachable::Port).unwrap();
        assert!(answer.bytes.len() > packet.len());
    }
    assert_eq!(udp_head("10.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap(), 1), None);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..128), version in 0_u8..16) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = (*first & 15) | (version << 4);
        }
        let _ = Syn::parse(&bytes);
        let _ = unreachable(&bytes, Unreachable::Network);
    }

    #[test]
    fn every_syn_gets_a_valid_reset(a in any::<[u8; 16]>(), b in any::<[u8; 16]>(), ports in any::<(u16, u16)>(), sequence in any::<u32>()) {
        let syn = Syn {
            source: SocketAddr::new(IpAddr::from(a), ports.0),
            target: SocketAddr::new(IpAddr::from(b), ports.1),
            sequence,
        };
        prop_assert!(verified(TCP, &reset(&syn).bytes));
    }
}
