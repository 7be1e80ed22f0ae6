use serde_json::json;

use super::{read::Found, *};

fn settings() -> SwapSettings {
    SwapSettings {
        target: "shop/cart".into(),
        container: None,
        handover: HandoverMode::Auto,
        drain: Drain::Signal,
        ready: ReadyMode::Listen,
        skip_init: false,
        ports: Vec::new(),
        agent_image: None,
        holder: Holder { user: "ann".into(), host: "box".into(), place: None },
    }
}

fn ready_pod() -> Value {
    json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
}

fn found(spec: &Value) -> Found {
    Found {
        deployment: json!({
            "metadata": {"name": "cart", "uid": "u-1", "resourceVersion": "7"},
            "spec": {
                "replicas": 3,
                "selector": {"matchLabels": {"app": "cart"}},
                "template": {"metadata": {"labels": {"app": "cart"}}, "spec": spec},
            },
        }),
        pods: vec![ready_pod(), ready_pod(), ready_pod()],
        platform: "linux/arm64".into(),
        ..Found::default()
    }
}

fn service(name: &str, ports: &Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"selector": {"app": "cart"}, "ports": ports}})
}

/// A plan for a Deployment of three pods behind a Service.
pub(crate) fn plan(drain: Drain) -> Plan {
    let mut found = found(&plain());
    found.services = vec![service("cart", &json!([{"port": 80, "targetPort": 8080}]))];
    planned(&found, &SwapSettings { drain, ..settings() })
}

fn planned(found: &Found, settings: &SwapSettings) -> Plan {
    assemble("shop", "k7f2abcdef".into(), settings, found).unwrap()
}

fn plain() -> Value {
    json!({"containers": [{"name": "app", "image": "cart:1",
                           "ports": [{"containerPort": 8080, "name": "http"}, {"containerPort": 9090, "protocol": "UDP"}]}]})
}

fn ports(plan: &Plan) -> Vec<(Protocol, u16, u16, Option<&str>)> {
    plan.ports.iter().map(|port| (port.protocol, port.port, port.local, port.service.as_deref())).collect()
}

fn codes(plan: &Plan) -> Vec<&str> {
    plan.warnings.iter().map(|warning| warning.code.as_str()).collect()
}

#[test]
fn the_steps_are_those_of_the_design_in_order() {
    let plan = planned(&found(&plain()), &settings());
    let steps: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
    assert_eq!(
        steps,
        [
            "create Lease devproxy-cart",
            "create Deployment cart-devproxy-k7f2 with 0 replicas",
            "create ConfigMap cart-devproxy-k7f2-agent with the agent",
            "create Secret cart-devproxy-k7f2-key with the session key",
            "scale Deployment cart-devproxy-k7f2 0 → 1",
            "wait for the agent in cart-devproxy-k7f2",
            "wait until cart-devproxy-k7f2 is ready",
            "scale Deployment cart 3 → 0",
            "wait until no client is led to the pods of cart",
        ]
    );
    let undos: Vec<String> = plan.steps.iter().rev().filter_map(Step::undo).collect();
    assert_eq!(undos[0], "scale Deployment cart 0 → 3, wait until it serves");
    assert_eq!(undos.last().unwrap(), "delete Lease devproxy-cart, last");
    assert_eq!(plan.architecture, Architecture::Arm64);
    assert_eq!(plan.title(), "shop/cart");
}

#[test]
fn a_plan_survives_the_way_to_the_session_process() {
    let plan = planned(&found(&plain()), &settings());
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
}

#[test]
fn services_lead_to_ports_by_number_and_by_name() {
    let mut found = found(&plain());
    found.services = vec![
        service("cart", &json!([{"port": 80, "targetPort": "http"}, {"port": 7000}])),
        service("udp", &json!([{"port": 53, "targetPort": 9090, "protocol": "UDP"}])),
        json!({"metadata": {"name": "other"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 1}]}}),
        json!({"metadata": {"name": "all"}, "spec": {"ports": [{"port": 2}]}}),
    ];
    let plan = planned(&found, &settings());
    assert_eq!(
        ports(&plan),
        [
            (Protocol::Tcp, 8080, 8080, Some("cart")),
            (Protocol::Udp, 9090, 9090, Some("udp")),
            (Protocol::Tcp, 7000, 7000, Some("cart")),
        ]
    );
    assert_eq!(plan.services, ["cart", "udp"]);
}

#[test]
fn the_ports_of_a_sidecar_are_not_ours() {
    let spec = json!({"containers": [
        {"name": "app", "image": "c", "ports": [{"containerPort": 8080}]},
        {"name": "proxy", "image": "e", "ports": [{"containerPort": 15001}, {"containerPort": 9, "name": "admin"}]},
    ]});
    let mut found = found(&spec);
    found.services = vec![service(
        "cart",
        &json!([
            {"port": 80, "targetPort": 8080}, {"port": 1, "targetPort": 15001}, {"port": 2, "targetPort": "admin"},
        ]),
    )];
    let settings = SwapSettings { container: Some("app".into()), ..settings() };
    assert_eq!(ports(&planned(&found, &settings)), [(Protocol::Tcp, 8080, 8080, Some("cart"))]);
}

#[test]
fn the_users_ports_move_and_add() {
    let mapping = |pod, local| PortMapping { pod, local, protocol: Protocol::Tcp };
    let settings = SwapSettings { ports: vec![mapping(8080, 3000), mapping(5000, 5000)], ..settings() };
    let plan = planned(&found(&plain()), &settings);
    assert!(ports(&plan).contains(&(Protocol::Tcp, 8080, 3000, None)));
    assert!(ports(&plan).contains(&(Protocol::Tcp, 5000, 5000, None)));
}

#[test]
fn a_mapping_from_a_port_that_nobody_leads_to_is_asked_about() {
    let mut found = found(&plain());
    found.services = vec![service(
        "web",
        &json!([{"port": 80, "targetPort": "http"}, {"port": 53, "targetPort": 9090, "protocol": "UDP"}]),
    )];
    let mapped = |pod, local, protocol| {
        let ports = vec![PortMapping { pod, local, protocol }];
        planned(&found, &SwapSettings { ports, ..settings() }).warnings
    };
    let told = |pod, local, protocol| {
        let warnings = mapped(pod, local, protocol);
        assert_eq!(warnings.len(), 1, "{pod}:{local}");
        format!("{}: {}", warnings[0].code, warnings[0].text)
    };
    assert_eq!(
        told(80, 3000, Protocol::Tcp),
        "service-port: no Service leads to port 80 of cart's pods, Service web leads from 80 to 8080: was `-p 8080:3000` meant?"
    );
    assert_eq!(
        told(53, 5353, Protocol::Udp),
        "service-port: no Service leads to port 53 of cart's pods, Service web leads from 53 to 9090: was `-p 9090:5353/udp` meant?"
    );
    assert_eq!(
        told(3000, 8080, Protocol::Tcp),
        "port-order: `-p 3000:8080` leads the pod's 3000 to 8080 here, and nobody names the pod's 3000: was `-p 8080:3000` meant?"
    );
    assert_eq!(
        told(8081, 3000, Protocol::Tcp),
        "unnamed-port: no Service leads to port 8081 of cart's pods and no container names it, they name 8080: was `-p 8080:3000` meant?"
    );
    for (pod, local) in [(8080, 3000), (8080, 8080), (5000, 5000)] {
        assert!(mapped(pod, local, Protocol::Tcp).is_empty(), "{pod}:{local}");
    }
}

#[test]
fn the_agents_ports_are_free() {
    let (first, second) = own_ports("k7f2abcdef", &std::collections::BTreeSet::new());
    let spec = json!({"containers": [{"name": "app", "image": "c", "ports": [{"containerPort": first}]},
                                     {"name": "b", "image": "c", "ports": [{"containerPort": second}]}]});
    let settings = SwapSettings { container: Some("app".into()), ..settings() };
    let plan = planned(&found(&spec), &settings);
    assert_ne!(plan.tunnel_port, plan.ready_port);
    for port in [plan.tunnel_port, plan.ready_port] {
        assert!(port != first && port != second && (20_000..30_000).contains(&port));
    }
}

#[test]
fn one_of_several_containers_has_to_be_named() {
    let mut found = found(&json!({"containers": [{"name": "app"}, {"name": "log"}]}));
    let error = assemble("shop", "k7f2abcdef".into(), &settings(), &found).unwrap_err();
    assert_eq!(error.to_string(), "cart has several containers: app, log");
    let wrong = SwapSettings { container: Some("web".into()), ..settings() };
    assert_eq!(assemble("shop", "k".into(), &wrong, &found).unwrap_err().code(), "DP-CONTAINER");
    found.deployment["spec"]["template"]["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/default-container": "log"});
    assert_eq!(planned(&found, &settings()).container, "log");
}

#[test]
fn the_handover_follows_what_is_found() {
    let handover = |spec: &Value, change: &dyn Fn(&mut Found)| {
        let mut found = found(spec);
        change(&mut found);
        planned(&found, &settings()).handover
    };
    let nothing = |_: &mut Found| {};
    assert_eq!(handover(&plain(), &nothing), Handover::OnListen);
    assert_eq!(handover(&json!({"containers": [{"name": "app"}]}), &nothing), Handover::AtOnce);
    assert_eq!(handover(&plain(), &|found| found.pods.clear()), Handover::AtOnce);
    assert_eq!(
        handover(&plain(), &|found| found.deployment["spec"]["replicas"] = json!(0)),
        Handover::AtOnce
    );

    let mut spec = plain();
    spec["containers"][0]["ports"][0]["hostPort"] = json!(80);
    assert_eq!(handover(&spec, &nothing), Handover::OriginalFirst);

    let mut spec = plain();
    spec["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "disk"}}]);
    let claim = |mode: &str| json!({"metadata": {"name": "disk"}, "spec": {"accessModes": [mode]}});
    assert_eq!(
        handover(&spec, &|found| found.claims = vec![claim("ReadWriteOnce")]),
        Handover::OriginalFirst
    );
    assert_eq!(handover(&spec, &|found| found.claims = vec![claim("ReadWriteMany")]), Handover::OnListen);

    let mut spec = plain();
    spec["affinity"] = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {"matchLabels": {"app": "cart"}}, "topologyKey": "kubernetes.io/hostname"}]}});
    assert_eq!(handover(&spec, &nothing), Handover::OriginalFirst);

    let quota = |hard: &str| json!({"metadata": {"name": "q"}, "status": {"hard": {"pods": hard}, "used": {"pods": "3"}}});
    assert_eq!(handover(&plain(), &|found| found.quotas = vec![quota("3")]), Handover::OriginalFirst);
    assert_eq!(handover(&plain(), &|found| found.quotas = vec![quota("4")]), Handover::OnListen);

    // What a LimitRange fills in stands in the pods alone.
    let quota = json!({"metadata": {"name": "q"}, "status": {"hard": {"limits.cpu": "2"}, "used": {"limits.cpu": "1500m"}}});
    for (limit, expected) in [("600m", Handover::OriginalFirst), ("500m", Handover::OnListen)] {
        let full = |found: &mut Found| {
            found.quotas = vec![quota.clone()];
            for pod in &mut found.pods {
                pod["spec"] =
                    json!({"containers": [{"name": "app", "resources": {"limits": {"cpu": limit}}}]});
            }
        };
        assert_eq!(handover(&plain(), &full), expected);
    }
}

#[test]
fn an_original_that_leaves_first_is_scaled_before_the_pod_starts() {
    let mut spec = plain();
    spec["hostNetwork"] = json!(true);
    let plan = planned(&found(&spec), &settings());
    let at = |wanted: fn(&Step) -> bool| plan.steps.iter().position(wanted).unwrap();
    let scaled = at(|step| matches!(step, Step::ScaleOriginal { .. }));
    assert!(scaled < at(|step| matches!(step, Step::StartStandIn { .. })));
    assert!(plan.record().original_first);
}

#[test]
fn what_could_surprise_is_said_before() {
    let mut spec = plain();
    spec["initContainers"] = json!([{"name": "migrate", "image": "m"}]);
    spec["readinessGates"] = json!([{"conditionType": "lb"}]);
    spec["containers"][0]["resources"] = json!({"limits": {"cpu": "50m"}});
    let mut found = found(&spec);
    found.autoscalers = vec![json!({"metadata": {"name": "h"},
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "cart"}}})];
    found.budgets =
        vec![json!({"metadata": {"name": "b"}, "spec": {"selector": {"matchLabels": {"app": "cart"}}}})];
    found.deployment["metadata"]["annotations"] = json!({"argocd.argoproj.io/tracking-id": "x"});
    let plan = planned(&found, &settings());
    assert_eq!(codes(&plan), ["hpa", "pdb", "gitops", "init", "readiness-gates", "low-cpu"]);
    let without = planned(&found, &SwapSettings { skip_init: true, ..settings() });
    assert!(!codes(&without).contains(&"init"));
}

#[test]
fn a_broken_original_is_told_in_its_pods_words() {
    let mut found = found(&plain());
    found.pods = vec![json!({"status": {"containerStatuses": [{"name": "app",
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
        "lastState": {"terminated": {"exitCode": 1, "message": "no database"}}}]}})];
    let plan = planned(&found, &settings());
    assert_eq!(codes(&plan), ["broken"]);
    assert!(plan.warnings[0].text.contains("no database"), "{}", plan.warnings[0].text);
    assert_eq!(plan.original.as_ref().map(|original| original.ready), Some(0));
}

#[test]
fn a_broken_original_whose_pods_say_nothing_is_told_by_what_they_do() {
    let told = |pods: Value| {
        let mut found = found(&plain());
        found.pods = pods.as_array().cloned().unwrap();
        planned(&found, &settings()).warnings[0].text.clone()
    };
    let running = json!({"status": {"phase": "Running"}});
    let leaving =
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Running"}});
    assert_eq!(told(json!([])), "no pod of cart is ready: there are none");
    assert_eq!(told(json!([leaving])), "no pod of cart is ready: they are being deleted");
    assert_eq!(
        told(json!([{"status": {"phase": "Pending"}}, leaving])),
        "no pod of cart is ready: they are still starting"
    );
    assert_eq!(
        told(json!([leaving, running])),
        "no pod of cart is ready: they run, but their readiness probes have not succeeded"
    );
}

#[test]
fn without_ports_the_original_leaves_at_once_and_that_is_said_before() {
    let mode = |handover| SwapSettings { handover, ..settings() };
    let bare = json!({"containers": [{"name": "app"}]});
    for mode in [mode(HandoverMode::Auto), mode(HandoverMode::Listen)] {
        let plan = planned(&found(&bare), &mode);
        assert_eq!((plan.handover, codes(&plan)), (Handover::AtOnce, vec!["no-ports"]));
        assert_eq!(
            plan.warnings[0].text,
            "neither cart nor a Service names a TCP port, so it is scaled to 0 at once; `-p PORT` waits until the program listens there"
        );
    }
    // Who asked for it knows.
    assert_eq!(codes(&planned(&found(&bare), &mode(HandoverMode::Now))), Vec::<&str>::new());
    let port = PortMapping { pod: 8080, local: 8080, protocol: Protocol::Tcp };
    let plan = planned(&found(&bare), &SwapSettings { ports: vec![port], ..settings() });
    assert_eq!((plan.handover, codes(&plan)), (Handover::OnListen, Vec::new()));
}

#[test]
fn a_stand_in_is_not_swapped() {
    let mut found = found(&plain());
    found.deployment["metadata"]["labels"] = json!({"devproxy.dev/session": "x"});
    assert_eq!(assemble("shop", "k".into(), &settings(), &found).unwrap_err().code(), "DP-UNSUITABLE");
}

#[test]
fn files_and_volumes_are_told_apart() {
    let mut spec = plain();
    spec["volumes"] = json!([
        {"name": "config", "configMap": {"name": "cart-config"}},
        {"name": "secret", "secret": {"secretName": "cart-secret"}},
        {"name": "info", "downwardAPI": {"items": []}},
        {"name": "scratch", "emptyDir": {}},
    ]);
    spec["containers"][0]["volumeMounts"] = json!([
        {"name": "config", "mountPath": "/etc/cart/app.conf", "subPath": "app.conf"},
        {"name": "secret", "mountPath": "/secrets/", "readOnly": true},
        {"name": "info", "mountPath": "/info"},
        {"name": "scratch", "mountPath": "/scratch"},
    ]);
    let plan = planned(&found(&spec), &settings());
    let roots: Vec<_> =
        plan.file_roots.iter().map(|root| (root.path.as_str(), root.kind, root.name.as_str())).collect();
    assert_eq!(
        roots,
        [
            ("/etc/cart/app.conf", FileKind::ConfigMap, "cart-config"),
            ("/secrets", FileKind::Secret, "cart-secret"),
            ("/info", FileKind::DownwardApi, "info"),
            (
                "/var/run/secrets/kubernetes.io/serviceaccount",
                FileKind::ServiceAccountToken,
                "kube-api-access"
            ),
        ]
    );
    assert_eq!(plan.writable_volumes.len(), 1);
    assert_eq!(plan.writable_volumes[0].kind, "emptyDir");

    spec["automountServiceAccountToken"] = json!(false);
    let plan = planned(&found(&spec), &settings());
    assert!(plan.file_roots.iter().all(|root| root.kind != FileKind::ServiceAccountToken));
}

#[test]
fn a_real_pod_shows_its_token_and_not_our_mounts() {
    let pod = json!({"spec": {
        "volumes": [{"name": "kube-api-access-x", "projected": {}}, {"name": "devproxy-key", "secret": {"secretName": "k"}}],
        "containers": [{"name": "app", "volumeMounts": [
            {"name": "devproxy-key", "mountPath": "/.devproxy/key"},
            {"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
        ]}],
    }});
    let roots = file_roots_of_pod(&pod, "app");
    assert_eq!(roots.len(), 1);
    assert_eq!(roots[0].kind, FileKind::ServiceAccountToken);
}
