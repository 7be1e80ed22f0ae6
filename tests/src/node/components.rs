//! The processes of the node and how each is started.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::network::Ranges;
use super::pki::{Pki, Subject};
use super::{Node, Place, containerd};
use crate::host::program::find;
use crate::laptop::wire_addresses;

/// A process of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// The store.
    Etcd,
    /// The container runtime.
    Containerd,
    /// kube-apiserver.
    ApiServer,
    /// kube-controller-manager.
    ControllerManager,
    /// kube-scheduler.
    Scheduler,
    /// The kubelet.
    Kubelet,
    /// kube-proxy.
    Proxy,
}

impl Component {
    /// In the order in which they start.
    pub const ALL: [Self; 7] = [
        Self::Etcd,
        Self::Containerd,
        Self::ApiServer,
        Self::ControllerManager,
        Self::Scheduler,
        Self::Proxy,
        Self::Kubelet,
    ];

    /// The name of its process and log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Containerd => "containerd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Kubelet => "kubelet",
            Self::Proxy => "kube-proxy",
        }
    }

    pub(super) fn start(self, node: &Node) -> Result<()> {
        let program = match self {
            Self::Containerd => find("containerd").context("containerd is not installed")?,
            _ => node.programs.component(self.name()),
        };
        let arguments = self.arguments(node.place);
        node.place
            .network()
            .enter(|| node.processes.start(self.name(), Command::new(&program).args(&arguments)))?;
        Ok(())
    }

    fn arguments(self, place: Place) -> Vec<String> {
        let state = place.state();
        let state = state.display();
        let pki = format!("{state}/pki");
        let (node, pods, services) = (place.address(), Ranges::PODS, Ranges::SERVICES);
        match self {
            Self::Etcd => vec![
                format!("--data-dir={state}/etcd"),
                "--listen-client-urls=http://127.0.0.1:2379".into(),
                "--advertise-client-urls=http://127.0.0.1:2379".into(),
                "--listen-peer-urls=http://127.0.0.1:2380".into(),
                // The node never survives its machine, so its store need not either.
                "--unsafe-no-fsync".into(),
            ],
            Self::Containerd => vec!["--config".into(), format!("{state}/containerd.toml")],
            Self::ApiServer => vec![
                "--etcd-servers=http://127.0.0.1:2379".into(),
                format!("--advertise-address={node}"),
                "--bind-address=::".into(),
                "--secure-port=6443".into(),
                format!("--client-ca-file={pki}/ca.crt"),
                format!("--tls-cert-file={pki}/apiserver.crt"),
                format!("--tls-private-key-file={pki}/apiserver.key"),
                format!("--kubelet-client-certificate={pki}/admin.crt"),
                format!("--kubelet-client-key={pki}/admin.key"),
                format!("--kubelet-certificate-authority={pki}/ca.crt"),
                format!("--service-account-key-file={pki}/sa.pub"),
                format!("--service-account-signing-key-file={pki}/sa.key"),
                "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
                format!("--service-cluster-ip-range={services}"),
                "--authorization-mode=Node,RBAC".into(),
                "--kubelet-preferred-address-types=InternalIP".into(),
                "--allow-privileged=true".into(),
                // Tests run many requests from few identities on few cores.
                "--max-requests-inflight=2000".into(),
                "--profiling=false".into(),
            ],
            Self::ControllerManager => vec![
                format!("--kubeconfig={state}/controller-manager.kubeconfig"),
                format!("--service-account-private-key-file={pki}/sa.key"),
                format!("--root-ca-file={pki}/ca.crt"),
                format!("--cluster-cidr={pods}"),
                format!("--service-cluster-ip-range={services}"),
                "--allocate-node-cidrs=false".into(),
                "--use-service-account-credentials=true".into(),
                format!("--cluster-signing-cert-file={pki}/ca.crt"),
                format!("--cluster-signing-key-file={pki}/ca.key"),
                "--leader-elect=false".into(),
                "--node-monitor-grace-period=20s".into(),
            ],
            Self::Scheduler => {
                vec![format!("--kubeconfig={state}/scheduler.kubeconfig"), "--leader-elect=false".into()]
            }
            Self::Kubelet => vec![
                format!("--config={state}/kubelet.yaml"),
                format!("--kubeconfig={state}/kubelet.kubeconfig"),
                format!("--root-dir={state}/kubelet"),
                "--hostname-override=node1".into(),
                format!("--node-ip={node},{}", place.address6()),
                "--v=2".into(),
            ],
            Self::Proxy => vec![
                format!("--kubeconfig={state}/proxy.kubeconfig"),
                format!("--cluster-cidr={pods}"),
                "--proxy-mode=iptables".into(),
                "--hostname-override=node1".into(),
                // The sysctls of conntrack belong to the machine, not to this namespace: leave all of them.
                "--conntrack-max-per-core=0".into(),
                "--conntrack-tcp-timeout-established=0s".into(),
                "--conntrack-tcp-timeout-close-wait=0s".into(),
                "--conntrack-udp-timeout=0s".into(),
                "--conntrack-udp-timeout-stream=0s".into(),
            ],
        }
    }
}

/// Keys, kubeconfigs and configuration files of all components.
pub(super) fn write_configuration(node: &Node) -> Result<()> {
    let state = &node.state;
    let pki = Pki::create(&state.join("pki"))?;
    let wires = wire_addresses().map(|address| format!("IP:{address}")).collect::<Vec<_>>().join(",");
    let api_server = format!(
        "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,\
         DNS:localhost,IP:10.96.0.1,IP:fd00:10:96::1,IP:127.0.0.1,IP:{},IP:{},{wires}",
        node.place.address(),
        node.place.address6()
    );
    let kubelet = format!("DNS:node1,IP:{},IP:{}", node.place.address(), node.place.address6());
    let subjects = [
        ("apiserver", "/CN=kube-apiserver", api_server.as_str()),
        ("admin", "/O=system:masters/CN=admin", "DNS:admin"),
        ("kubelet", "/O=system:nodes/CN=system:node:node1", kubelet.as_str()),
        ("controller-manager", "/CN=system:kube-controller-manager", "DNS:controller-manager"),
        ("scheduler", "/CN=system:kube-scheduler", "DNS:scheduler"),
        ("proxy", "/CN=system:kube-proxy", "DNS:proxy"),
    ];
    for (file, name, alternatives) in subjects {
        pki.issue(&Subject { file, name, alternatives })?;
        if file != "apiserver" {
            write_kubeconfig(node.place, &pki, file)?;
        }
    }
    containerd::write_configuration(state)?;
    // Pods with dnsPolicy Default, CoreDNS itself, must not ask the machine's name server.
    fs::write(state.join("resolv.conf"), "nameserver 127.0.0.1\n")?;
    fs::write(state.join("kubelet.yaml"), kubelet_configuration(node.place, &pki))?;
    Ok(())
}

/// JSON is YAML too, and needs no care for quoting.
fn write_kubeconfig(place: Place, pki: &Pki, user: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "bed", "cluster": {
            "server": format!("https://{}:6443", place.address()),
            "certificate-authority": pki.certificate("ca"),
        }}],
        "users": [{"name": user, "user": {
            "client-certificate": pki.certificate(user),
            "client-key": pki.key(user),
        }}],
        "contexts": [{"name": "bed", "context": {"cluster": "bed", "user": user}}],
        "current-context": "bed",
    });
    let file = place.state().join(format!("{user}.kubeconfig"));
    fs::write(&file, serde_json::to_vec_pretty(&config)?)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

fn kubelet_configuration(place: Place, pki: &Pki) -> String {
    let state = place.state();
    serde_json::json!({
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": pki.certificate("ca")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": pki.certificate("kubelet"),
        "tlsPrivateKeyFile": pki.key("kubelet"),
        "clusterDomain": "cluster.local",
        "clusterDNS": [Ranges::DNS],
        "cgroupDriver": "cgroupfs",
        "failSwapOn": false,
        "failCgroupV1": false,
        "cgroupsPerQOS": true,
        // A tree of its own: what lies in it is ours to end, also after a killed run.
        "cgroupRoot": format!("/{}", place.cgroup()),
        "enforceNodeAllocatable": ["pods"],
        "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "resolvConf": state.join("resolv.conf"),
        "containerRuntimeEndpoint": format!("unix://{}/containerd.sock", state.display()),
        "podLogsDir": state.join("pod-logs"),
        "volumePluginDir": state.join("volume-plugins"),
        // The defaults wait longer for changed ConfigMaps than tests want to.
        "syncFrequency": "10s",
        "maxPods": 200,
        "serializeImagePulls": false,
        "registryPullQPS": 0,
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
    })
    .to_string()
}
