use proptest::prelude::*;

use super::*;

fn routes(entries: &[&str]) -> LocalRoutes {
    LocalRoutes::parse(entries).unwrap()
}

#[test]
fn networks_and_addresses_match_their_own_family() {
    let routes = routes(&["192.168.1.7/16", "10.0.0.7", "fd00::/8"]);
    for inside in ["192.168.255.1", "10.0.0.7", "fd12::1", "::ffff:192.168.0.1"] {
        assert!(routes.has_address(inside.parse().unwrap()), "{inside}");
    }
    for outside in ["192.169.0.1", "10.0.0.8", "fe80::1", "::"] {
        assert!(!routes.has_address(outside.parse().unwrap()), "{outside}");
    }
    assert!(self::routes(&["0.0.0.0/0"]).has_address("1.2.3.4".parse().unwrap()));
    assert!(!self::routes(&["0.0.0.0/0"]).has_address("::1".parse().unwrap()));
    assert!(self::routes(&["::/0"]).has_address("::1".parse().unwrap()));
}

#[test]
fn names_match_whole_and_by_suffix() {
    let routes = routes(&["Mirror.example", "*.example.com."]);
    for inside in ["mirror.example", "MIRROR.EXAMPLE.", "a.example.com", "a.b.example.com."] {
        assert!(routes.has_name(inside), "{inside}");
    }
    for outside in
        ["index.mirror.example", "example.com", "badexample.com", "mirror.example.shop.svc.cluster.local", ""]
    {
        assert!(!routes.has_name(outside), "{outside}");
    }
}

#[test]
fn bad_entries_are_told_apart() {
    let error = |entry: &str| LocalRoutes::parse([entry]).unwrap_err();
    assert_eq!(error(" "), LocalRouteError::Empty);
    assert_eq!(error("10.0.0.0/33"), LocalRouteError::Prefix("10.0.0.0/33".into()));
    assert_eq!(error("10.0.0.0/+8"), LocalRouteError::Prefix("10.0.0.0/+8".into()));
    assert_eq!(error("nine/8"), LocalRouteError::Address("nine/8".into()));
    for name in ["a..b", "*", "*.*", "a b", "10.0.0", "-\u{e9}"] {
        assert_eq!(error(name), LocalRouteError::Name(name.into()));
    }
}

#[test]
fn learnt_addresses_are_bounded() {
    let routes = routes(&["mirror.example"]);
    for n in 0..=u32::try_from(LEARNT).unwrap() {
        routes.learn(Ipv4Addr::from_bits(n).into());
    }
    assert!(!routes.has_address(Ipv4Addr::from_bits(0).into()));
    assert!(routes.has_address(Ipv4Addr::from_bits(1).into()));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,40}") {
        let _ = LocalRoutes::parse([text]);
    }

    #[test]
    fn a_network_holds_exactly_its_prefix(address in any::<u32>(), other in any::<u32>(), prefix in 0_u32..=32) {
        let network = format!("{}/{prefix}", Ipv4Addr::from_bits(address));
        let routes = LocalRoutes::parse([network]).unwrap();
        let same = u64::from(address) >> (32 - prefix) == u64::from(other) >> (32 - prefix);
        prop_assert_eq!(routes.has_address(Ipv4Addr::from_bits(other).into()), same);
    }
}
