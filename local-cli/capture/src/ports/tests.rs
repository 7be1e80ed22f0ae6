use super::*;

fn rules() -> PortRules {
    PortRules {
        declared: [(Protocol::Tcp, 8080), (Protocol::Udp, 9090)].into(),
        mappings: vec!["80:3000".parse().unwrap()],
        publish: [7000].into(),
    }
}

fn pod(protocol: Protocol, scope: Scope, port: u16) -> PodPort {
    PodPort { protocol, scope, port }
}

fn opened(lines: &[&str], handover: bool) -> OpenPorts {
    rules().open(&Listeners::of(lines), handover)
}

#[test]
fn declared_ports_are_open_from_handover_on_whatever_listens() {
    let declared = [
        pod(Protocol::Tcp, Scope::Pod, 80),
        pod(Protocol::Tcp, Scope::Pod, 8080),
        pod(Protocol::Udp, Scope::Pod, 9090),
    ];
    assert_eq!(opened(&["tcp 0.0.0.0:8080"], false), OpenPorts::default());
    for lines in
        [&[][..], &["tcp 0.0.0.0:8080"], &["tcp 127.0.0.1:8080", "udp 127.0.0.1:9090"], &["tcp [::]:3000"]]
    {
        assert_eq!(opened(lines, true), OpenPorts { pod: declared.into(), laptop: [].into() }, "{lines:?}");
    }
}

#[test]
fn another_wildcard_port_is_open_in_the_pod_while_it_listens() {
    for line in ["tcp 0.0.0.0:50051", "tcp [::]:50051", "tcp 10.244.3.17:50051"] {
        let expected = OpenPorts { pod: [pod(Protocol::Tcp, Scope::Pod, 50_051)].into(), laptop: [].into() };
        assert_eq!(opened(&[line], false), expected, "{line}");
    }
}

#[test]
fn another_loopback_port_is_open_on_both_loopbacks() {
    for line in ["tcp 127.0.0.1:6060", "tcp [::1]:6060"] {
        let expected =
            OpenPorts { pod: [pod(Protocol::Tcp, Scope::Loopback, 6060)].into(), laptop: [6060].into() };
        assert_eq!(opened(&[line], false), expected, "{line}");
    }
    let wide = opened(&["tcp 127.0.0.1:6060", "tcp 0.0.0.0:6060"], false);
    assert_eq!(wide.pod, [pod(Protocol::Tcp, Scope::Pod, 6060)].into());
}

#[test]
fn debugger_and_published_ports_never_reach_the_cluster() {
    for port in DEBUGGER_PORTS.into_iter().chain([7000]) {
        for line in
            [format!("tcp 0.0.0.0:{port}"), format!("tcp 127.0.0.1:{port}"), format!("tcp [::]:{port}")]
        {
            let expected = OpenPorts { pod: [].into(), laptop: [port].into() };
            assert_eq!(opened(&[&line], false), expected, "{line}");
        }
    }
}

#[test]
fn udp_clients_are_not_mirrored() {
    assert_eq!(opened(&["udp 0.0.0.0:40123", "udp 127.0.0.1:5353"], false), OpenPorts::default());
    assert_eq!(opened(&["udp 0.0.0.0:5353"], false).pod, [pod(Protocol::Udp, Scope::Pod, 5353)].into());
}

#[test]
fn a_mapping_changes_the_port_of_its_protocol_only() {
    assert_eq!(rules().local(Protocol::Tcp, 80), 3000);
    assert_eq!(rules().local(Protocol::Udp, 80), 80);
    assert_eq!(rules().local(Protocol::Tcp, 8080), 8080);
}

#[test]
fn mappings_are_read() {
    let mapping = |protocol, pod, local| Ok(PortMapping { protocol, pod, local });
    assert_eq!("8080".parse(), mapping(Protocol::Tcp, 8080, 8080));
    assert_eq!("8080:3000".parse(), mapping(Protocol::Tcp, 8080, 3000));
    assert_eq!("8080:3000/tcp".parse(), mapping(Protocol::Tcp, 8080, 3000));
    assert_eq!("53/udp".parse(), mapping(Protocol::Udp, 53, 53));
    for bad in ["", "0", "8080:", ":80", "+80", "65536", "80/sctp", "80:90:100", "80/tcp/tcp", "a"] {
        assert!(bad.parse::<PortMapping>().is_err(), "{bad}");
    }
}
