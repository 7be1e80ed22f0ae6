use super::*;

fn agent<'a>() -> Agent<'a> {
    Agent {
        session: "k7f2abcdef",
        name: "cart-devproxy-k7f2",
        container: "app",
        config_map: Some("cart-devproxy-k7f2-agent"),
        image: None,
        secret: "cart-devproxy-k7f2-key",
        tunnel_port: 20_001,
        ready_port: 20_002,
        skip_init: false,
        fill_resources: true,
    }
}

fn original(spec: &Value) -> Value {
    json!({
        "metadata": {"name": "cart", "uid": "u-1", "labels": {"argocd.argoproj.io/instance": "shop"}},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "cart"}},
            "template": {"metadata": {"labels": {"app": "cart"}, "annotations": {"a": "b"}}, "spec": spec},
        },
    })
}

fn built(agent: &Agent<'_>, spec: &Value) -> Value {
    of_deployment(agent, &original(spec))
}

fn pod_spec(stand_in: &Value) -> &Value {
    &stand_in["spec"]["template"]["spec"]
}

#[test]
fn the_whole_stand_in_of_a_plain_deployment() {
    let spec = json!({"containers": [{"name": "app", "image": "cart:1", "command": ["/app"], "args": ["-v"],
                                      "ports": [{"containerPort": 8080}]}]});
    let expected = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "cart-devproxy-k7f2",
            "labels": {"devproxy.dev/session": "k7f2abcdef", "app.kubernetes.io/managed-by": "devproxy"},
            "annotations": {"devproxy.dev/original": "cart", "devproxy.dev/original-replicas": "3"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "cart", "uid": "u-1"}],
        },
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"devproxy.dev/session": "k7f2abcdef"}},
            "strategy": {"type": "Recreate"},
            "revisionHistoryLimit": 0,
            "progressDeadlineSeconds": 2_147_483_647,
            "template": {
                "metadata": {"labels": {"app": "cart", "devproxy.dev/session": "k7f2abcdef"}, "annotations": {"a": "b"}},
                "spec": {
                    "terminationGracePeriodSeconds": 30,
                    "securityContext": {"sysctls": [
                        {"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"},
                    ]},
                    "containers": [{
                        "name": "app",
                        "image": "cart:1",
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["/.devproxy/bin/devproxy-loader"],
                        "args": ["--dir", "/.devproxy/run", "/.devproxy/bin/agent", "--",
                                 "--key", "/.devproxy/key/session", "--tunnel-port", "20001", "--ready-port", "20002"],
                        "ports": [{"containerPort": 8080}],
                        "readinessProbe": {"tcpSocket": {"port": 20_002}, "periodSeconds": 1, "timeoutSeconds": 1,
                                           "successThreshold": 1, "failureThreshold": 2},
                        "terminationMessagePolicy": "FallbackToLogsOnError",
                        "resources": {"requests": {"memory": "64Mi", "cpu": "10m"}, "limits": {"memory": "256Mi"}},
                        "volumeMounts": [
                            {"name": "devproxy-bin", "mountPath": "/.devproxy/bin", "readOnly": true},
                            {"name": "devproxy-key", "mountPath": "/.devproxy/key", "readOnly": true},
                            {"name": "devproxy-run", "mountPath": "/.devproxy/run"},
                        ],
                    }],
                    "volumes": [
                        {"name": "devproxy-bin", "configMap": {"name": "cart-devproxy-k7f2-agent", "defaultMode": 0o555}},
                        {"name": "devproxy-key", "secret": {"secretName": "cart-devproxy-k7f2-key", "defaultMode": 0o444}},
                        {"name": "devproxy-run", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
                    ],
                },
            },
        },
    });
    assert_eq!(built(&agent(), &spec), expected);
}

#[test]
fn only_the_target_container_changes() {
    let sidecar = json!({"name": "proxy", "image": "envoy", "livenessProbe": {"httpGet": {"port": 1}},
                         "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}});
    let spec = json!({"containers": [sidecar, {"name": "app", "image": "cart:1"}]});
    let stand_in = built(&agent(), &spec);
    assert_eq!(pod_spec(&stand_in)["containers"][0], sidecar);
    assert_eq!(pod_spec(&stand_in)["containers"][1]["command"][0], "/.devproxy/bin/devproxy-loader");
}

#[test]
fn a_breakpoint_does_not_kill_the_pod() {
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [{
        "name": "app", "image": "cart:1",
        "livenessProbe": {"httpGet": {"port": 8080}}, "startupProbe": {"exec": {"command": ["x"]}},
        "readinessProbe": {"exec": {"command": ["ready"]}},
        "lifecycle": {"postStart": {"exec": {"command": ["x"]}}},
    }]});
    let stand_in = built(&agent(), &spec);
    let container = &pod_spec(&stand_in)["containers"][0];
    for key in ["livenessProbe", "startupProbe", "lifecycle"] {
        assert!(container.get(key).is_none(), "{key} is still there");
    }
    assert!(container["readinessProbe"].get("exec").is_none());
    assert_eq!(pod_spec(&stand_in)["terminationGracePeriodSeconds"], 30);
}

#[test]
fn skip_init_keeps_sidecars() {
    let spec = json!({
        "initContainers": [{"name": "migrate", "image": "m"}, {"name": "mesh", "image": "e", "restartPolicy": "Always"}],
        "containers": [{"name": "app", "image": "cart:1"}],
    });
    assert_eq!(init_containers(&built(&agent(), &spec)), ["migrate"]);
    let skipped = built(&Agent { skip_init: true, ..agent() }, &spec);
    assert!(init_containers(&skipped).is_empty());
    assert_eq!(pod_spec(&skipped)["initContainers"][0]["name"], "mesh");
}

#[test]
fn with_the_nodes_network_there_are_no_sysctls() {
    let spec = json!({"hostNetwork": true, "containers": [{"name": "app", "image": "cart:1"}]});
    assert!(pod_spec(&built(&agent(), &spec)).get("securityContext").is_none());
}

#[test]
fn restricted_settings_and_own_sysctls_stay() {
    let pod = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"},
                     "sysctls": [{"name": "net.ipv4.ping_group_range", "value": "1 1"}]});
    let container = json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                           "capabilities": {"drop": ["ALL"]}});
    let spec = json!({"securityContext": pod, "hostUsers": false,
                      "containers": [{"name": "app", "image": "cart:1", "securityContext": container}]});
    let stand_in = built(&agent(), &spec);
    assert_eq!(pod_spec(&stand_in)["containers"][0]["securityContext"], container);
    let security = &pod_spec(&stand_in)["securityContext"];
    assert_eq!(security["runAsNonRoot"], true);
    assert_eq!(security["sysctls"].as_array().unwrap().len(), 2);
    assert_eq!(security["sysctls"][0]["value"], "1 1");
}

#[test]
fn volumes_with_sub_paths_and_names_like_ours_stay() {
    let mounts = json!([{"name": "devproxy-bin", "mountPath": "/etc/app.conf", "subPath": "app.conf"}]);
    let volumes = json!([{"name": "devproxy-bin", "configMap": {"name": "cart"}}]);
    let spec = json!({"volumes": volumes,
                      "containers": [{"name": "app", "image": "cart:1", "volumeMounts": mounts}]});
    let stand_in = built(&agent(), &spec);
    let container = &pod_spec(&stand_in)["containers"][0];
    assert_eq!(container["volumeMounts"][0], mounts[0]);
    assert_eq!(pod_spec(&stand_in)["volumes"][0], volumes[0]);
    assert_eq!(container["volumeMounts"][1]["name"], "devproxy-binx");
    assert_eq!(pod_spec(&stand_in)["volumes"][1]["name"], "devproxy-binx");
}

#[test]
fn resources_that_the_container_has_stay() {
    let resources = json!({"requests": {"memory": "1Gi"}, "limits": {"cpu": "2"}});
    let spec = json!({"containers": [{"name": "app", "image": "cart:1", "resources": resources}]});
    assert_eq!(pod_spec(&built(&agent(), &spec))["containers"][0]["resources"], resources);
    let bare = json!({"containers": [{"name": "app", "image": "cart:1"}]});
    let left = built(&Agent { fill_resources: false, ..agent() }, &bare);
    assert!(pod_spec(&left)["containers"][0].get("resources").is_none());
}

#[test]
fn an_image_of_its_own_needs_no_config_map() {
    let spec = json!({"containers": [{"name": "app", "image": "cart:1", "imagePullPolicy": "Always"}]});
    let stand_in = built(&Agent { config_map: None, image: Some("agent:1"), ..agent() }, &spec);
    let container = &pod_spec(&stand_in)["containers"][0];
    assert_eq!(
        (&container["image"], &container["command"]),
        (&json!("agent:1"), &json!(["/devproxy-agent"]))
    );
    assert_eq!(container["args"][0], "--key");
    assert_eq!(container["imagePullPolicy"], "IfNotPresent");
    assert_eq!(list(pod_spec(&stand_in), "/volumes").len(), 2);
}

#[test]
fn fields_that_we_do_not_know_survive() {
    let spec =
        json!({"futureField": {"x": [1]}, "containers": [{"name": "app", "image": "c", "newThing": true}]});
    let stand_in = built(&agent(), &spec);
    assert_eq!(pod_spec(&stand_in)["futureField"], json!({"x": [1]}));
    assert_eq!(pod_spec(&stand_in)["containers"][0]["newThing"], true);
}
