//! Where the product runs: a network namespace of its own whose only wire ends at a [`Relay`] to the API server, and
//! an ordinary user without any capability.
//!
//! The far end of the wire lies in a second namespace that holds nothing but the relay's socket. So no packet of the
//! laptop can reach a pod, a service, the node or the Internet, and a test passes only if the product carried its
//! bytes. Up to sixteen laptops exist at a time, each with its own user, so that all that one did can be told and
//! ended by its user's number.

mod command;
mod run;
mod slot;
mod snapshot;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

pub use command::LaptopCommand;
pub use run::{Exit, Run};
pub use slot::{remove_all, remove_leftovers, wire_addresses};
pub use snapshot::Snapshot;

use crate::cluster::Cluster;
use crate::host::namespace::NetworkNamespace;
use crate::host::process::ProcessId;
use crate::images::build_shopd;
use crate::namespace::Namespace;
use crate::node::Node;
use crate::relay::Relay;
use slot::Slot;

/// A developer's machine.
#[derive(Debug)]
pub struct Laptop {
    slot: Slot,
    relay: Relay,
    /// The `cluster` entry of its kubeconfigs.
    cluster: Value,
    own_api: bool,
    kubectl: crate::kubectl::Kubectl,
}

impl Laptop {
    /// Takes a free laptop, empties it, and wires it to `cluster`.
    pub(crate) fn start(cluster: &Cluster) -> Result<Self> {
        let slot = Slot::take()?;
        let kubectl = cluster.kubectl().clone();
        let view: Value = serde_json::from_str(&kubectl.run(&[
            "config",
            "view",
            "--raw",
            "--minify",
            "--flatten",
            "-o",
            "json",
        ])?)?;
        let mut entry = view["clusters"][0]["cluster"].clone();
        let server = entry["server"].as_str().context("the kubeconfig names no server")?.to_owned();
        let target = host_and_port(&server)?;
        let listen: SocketAddr = format!("{}:6443", slot.wire_address()).parse()?;
        let relay = Relay::start(slot.wire(), listen, &target)?;
        let own_api = matches!(cluster, Cluster::Node(_));
        entry["server"] = json!(format!("https://{listen}"));
        if !own_api {
            // The certificate of somebody else's API server does not name the wire.
            let (host, _) = target.rsplit_once(':').unwrap_or((&target, ""));
            entry["tls-server-name"] = json!(host);
        }
        slot.publish("kubectl", kubectl.program())?;
        slot.publish("shopd", &build_shopd()?)?;
        Ok(Self { slot, relay, cluster: entry, own_api, kubectl })
    }

    /// As [`Laptop::start`], with a wire straight to the node: bytes pass through the kernel alone, as over a real
    /// network, and not through the relay, which costs more than most of what a bench compares.
    pub(crate) fn start_without_relay(cluster: &Cluster, node: &Node) -> Result<Self> {
        let mut laptop = Self::start(cluster)?;
        let address = laptop.slot.wire_to(&node.network())?;
        laptop.cluster["server"] = json!(format!("https://{address}:6443"));
        // The certificate names the node's own address only.
        laptop.cluster["tls-server-name"] = json!(node.place().address());
        Ok(laptop)
    }

    /// The wire to the API server.
    pub fn relay(&self) -> &Relay {
        &self.relay
    }

    /// Where it finds the API server: its end of the wire is in the same /30.
    pub fn api_server(&self) -> String {
        format!("{}:6443", self.slot.wire_address())
    }

    /// Whether its kubeconfigs speak to the bed's own node.
    pub fn uses_own_node(&self) -> bool {
        self.own_api
    }

    /// Logs the user in as a developer of `namespace` with the built-in role `edit`: `~/.kube/config` as any tool
    /// expects it, with `namespace` as default.
    pub async fn login(&self, namespace: &Namespace) -> Result<()> {
        self.login_as(namespace, "edit").await
    }

    /// As [`Laptop::login`], with another ClusterRole bound in the namespace.
    pub async fn login_as(&self, namespace: &Namespace, role: &str) -> Result<()> {
        let token = namespace.developer_token(role).await?;
        self.write_kubeconfig(&self.kubeconfig(namespace.name(), &json!({"token": token})))
    }

    /// Logs the user in with the rights of a Role `devproxy` alone, given as YAML (`deploy/rbac.yaml`).
    pub async fn login_with(&self, namespace: &Namespace, role: &str) -> Result<()> {
        namespace.apply_text(role).await?;
        let token = namespace.account_token("developer", "Role", "devproxy").await?;
        self.write_kubeconfig(&self.kubeconfig(namespace.name(), &json!({"token": token})))
    }

    /// A kubeconfig for this laptop's wire with `user` as the `user` entry (token, exec plugin, certificate).
    pub fn kubeconfig(&self, namespace: &str, user: &Value) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "bed", "cluster": self.cluster}],
            "users": [{"name": "developer", "user": user}],
            "contexts": [{"name": "bed", "context": {
                "cluster": "bed", "user": "developer", "namespace": namespace,
            }}],
            "current-context": "bed",
        })
    }

    /// Writes `~/.kube/config`.
    pub fn write_kubeconfig(&self, config: &Value) -> Result<()> {
        self.write_file(".kube/config", 0o600, &serde_json::to_vec_pretty(config)?)?;
        Ok(())
    }

    /// Writes a file below the home folder, as the user's own.
    pub fn write_file(&self, name: &str, mode: u32, content: &[u8]) -> Result<PathBuf> {
        let path = self.home().join(name);
        let mut missing: Vec<_> = path.ancestors().skip(1).take_while(|folder| !folder.exists()).collect();
        while let Some(folder) = missing.pop() {
            fs::create_dir(folder)?;
            self.own(folder)?;
        }
        fs::write(&path, content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        self.own(&path)?;
        Ok(path)
    }

    /// The user's home folder.
    pub fn home(&self) -> &Path {
        self.slot.home()
    }

    /// The user's runtime folder, `XDG_RUNTIME_DIR`.
    pub fn runtime(&self) -> &Path {
        self.slot.runtime()
    }

    /// The user's number.
    pub fn uid(&self) -> u32 {
        self.slot.uid()
    }

    /// The user's name.
    pub fn user(&self) -> String {
        self.slot.user()
    }

    /// Its network namespace.
    pub fn network(&self) -> &NetworkNamespace {
        self.slot.network()
    }

    /// Puts a program file on the user's `PATH` as `name`.
    pub fn install(&self, name: &str, program: &Path) -> Result<()> {
        self.slot.publish(name, program)
    }

    /// A command of the user, found on the laptop's `PATH`.
    pub fn command(&self, program: &str) -> LaptopCommand<'_> {
        LaptopCommand::new(self, program)
    }

    /// The product under test: the `devproxy` that cargo built beside this test, or `DEVPROXY_BIN`.
    pub fn devproxy<A: Into<String>>(&self, args: impl IntoIterator<Item = A>) -> Result<LaptopCommand<'_>> {
        self.slot.publish("devproxy", &product()?)?;
        Ok(self.command("devproxy").args(args))
    }

    /// The same program by another name: kubectl's plugin.
    pub fn install_product_as(&self, name: &str) -> Result<()> {
        self.slot.publish(name, &product()?)
    }

    /// The user's processes.
    pub fn processes(&self) -> Vec<ProcessId> {
        self.slot.processes()
    }

    /// The user's process of this name.
    pub fn process(&self, name: &str) -> Result<ProcessId> {
        self.find(name, |process| process.name() == name)
    }

    /// The session process of the user's session.
    pub fn session_process(&self) -> Result<ProcessId> {
        self.with_argument("__session")
    }

    /// The namespace helper of the user's session.
    pub fn helper(&self) -> Result<ProcessId> {
        self.with_argument("__namespaces")
    }

    fn with_argument(&self, argument: &str) -> Result<ProcessId> {
        self.find(argument, |process| process.words().iter().any(|word| word == argument))
    }

    fn find(&self, what: &str, wanted: impl FnMut(&ProcessId) -> bool) -> Result<ProcessId> {
        self.processes().into_iter().find(wanted).with_context(|| format!("no process {what} runs"))
    }

    /// The state of the laptop's network, files and processes, to compare later.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::take(&self.slot)
    }

    /// kubectl as the cluster's administrator (not as the laptop's user).
    pub fn administrator(&self) -> &crate::kubectl::Kubectl {
        &self.kubectl
    }

    fn own(&self, path: &Path) -> Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid()), Some(self.slot.gid()))?;
        Ok(())
    }
}

/// `DEVPROXY_BIN`, or `devproxy` in the target folder of this test.
fn product() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("DEVPROXY_BIN") {
        return Ok(named.into());
    }
    let own = std::env::current_exe()?;
    // target/debug/deps/test-…, or target/debug/xtask
    let found =
        own.ancestors().skip(1).take(2).map(|folder| folder.join("devproxy")).find(|file| file.is_file());
    let Some(found) = found else {
        bail!(
            "no `devproxy` beside {}: run `cargo build --package devproxy`, or set DEVPROXY_BIN",
            own.display()
        );
    };
    Ok(found)
}

/// The `host:port` of an `https://` address.
fn host_and_port(server: &str) -> Result<String> {
    let rest =
        server.strip_prefix("https://").with_context(|| format!("`{server}` is no https:// address"))?;
    let host = rest.split('/').next().unwrap_or(rest);
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    Ok(if has_port { host.to_owned() } else { format!("{host}:443") })
}
