//! A real Kubernetes node on a plain Linux machine: etcd, API server, controllers, kubelet, containerd, kube-proxy,
//! CNI and CoreDNS, all inside one network namespace, IPv4 and IPv6.
//!
//! It outlives the process that starts it: tests find it by its state folder and share it. Every start first removes
//! what a killed run left, and [`Node::down`] leaves nothing.

mod components;
mod containerd;
mod leftovers;
mod network;
mod pki;
mod place;
mod programs;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

pub use components::Component;
pub use network::Ranges;
pub use place::Place;
pub use programs::{KUBERNETES, Programs, cache_folder};

use crate::host::lock::FileLock;
use crate::host::namespace::NetworkNamespace;
use crate::host::process::Processes;
use crate::host::{packages, require_root};
use crate::images::Image;
use crate::kubectl::Kubectl;

/// How long the node may take until it is ready and CoreDNS answers.
const READY_LIMIT: Duration = Duration::from_mins(2);

/// The running node.
#[derive(Debug, Clone)]
pub struct Node {
    place: Place,
    state: PathBuf,
    programs: Programs,
    processes: Processes,
    kubectl: Kubectl,
}

/// What `status` prints.
#[derive(Debug)]
pub struct Status {
    /// Components by name, and whether they live.
    pub components: Vec<(String, bool)>,
    /// The administrator's kubeconfig; works from this machine's own network.
    pub kubeconfig: PathBuf,
    /// The folder with kubectl of the same version.
    pub programs: PathBuf,
    /// Whether the node is ready and CoreDNS available.
    pub ready: bool,
}

impl Node {
    /// The running node, or a new one: ready, with CoreDNS answering. Callers in several processes wait for each
    /// other.
    pub fn up() -> Result<Self> {
        Self::up_at(Place::First)
    }

    /// As [`Node::up`], at another place.
    pub fn up_at(place: Place) -> Result<Self> {
        require_root()?;
        let state = place.state();
        fs::create_dir_all(&state)?;
        // Whatever the umask; what is secret in it is closed by itself.
        fs::set_permissions(&state, fs::Permissions::from_mode(0o755))?;
        packages::require_node()?;
        // Outside of the lock: a build of minutes for another cache must not stop whoever has all.
        let programs = Programs::build()?;
        // One bring-up or take-down at a time.
        let _lock = FileLock::wait(&place.lock())?;
        let node = Self::new(place, programs)?;
        if node.is_ready() {
            return Ok(node);
        }
        node.start()
            .with_context(|| format!("the node did not come up; logs are in {}/log", node.state.display()))?;
        Ok(node)
    }

    fn new(place: Place, programs: Programs) -> Result<Self> {
        let state = place.state();
        let processes = Processes::in_folder(&state)?;
        let kubectl = Kubectl::new(programs.component("kubectl"), state.join("admin.kubeconfig"), None);
        Ok(Self { place, state, programs, processes, kubectl })
    }

    /// The node as it is, without starting anything.
    pub fn status(place: Place) -> Result<Option<Status>> {
        let Some(programs) = Programs::built()? else { return Ok(None) };
        if !place.state().join("admin.kubeconfig").exists() {
            return Ok(None);
        }
        let node = Self::new(place, programs)?;
        let components =
            node.processes.all().into_iter().map(|(name, process)| (name, process.is_alive())).collect();
        let programs = node.programs.folder().to_owned();
        Ok(Some(Status { components, kubeconfig: node.kubeconfig(), programs, ready: node.is_ready() }))
    }

    /// Ends everything and removes every trace, also of a run that was killed half way.
    pub fn down(place: Place) -> Result<()> {
        require_root()?;
        crate::laptop::remove_all()?;
        let state = place.state();
        if state.exists() {
            let lock = FileLock::wait(&place.lock())?;
            leftovers::remove(place)?;
            fs::remove_dir_all(&state).with_context(|| format!("cannot remove {}", state.display()))?;
            lock.remove()?;
        }
        Ok(())
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.state.join("admin.kubeconfig")
    }

    /// kubectl as the administrator.
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// The node's state folder.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The built programs of Kubernetes.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Where it lives on this machine.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The node's network namespace.
    pub fn network(&self) -> NetworkNamespace {
        self.place.network()
    }

    /// Imports `image` into the node's containerd unless it has exactly this content.
    pub fn import(&self, image: Image) -> Result<()> {
        containerd::import(self.place, image)
    }

    /// Forgets the node's connections. Conntrack keeps a SYN to a dead pod for 120 s: a client that uses its port
    /// again would fail because of an earlier test.
    pub fn forget_connections(&self) -> Result<()> {
        self.place.network().enter(|| {
            // It exits with 1 when there was nothing to delete.
            let _ = crate::host::program::run("conntrack", &["-F"]);
            Ok(())
        })
    }

    /// Ends a component with SIGKILL, as a crash would.
    pub fn kill(&self, component: Component) {
        self.processes.end(component.name(), nix::sys::signal::Signal::SIGKILL, Duration::ZERO);
    }

    /// Starts a component that is not running.
    pub fn restart(&self, component: Component) -> Result<()> {
        component.start(self)
    }

    /// The log file of a component.
    pub fn log(&self, component: Component) -> PathBuf {
        self.processes.log(component.name())
    }

    fn is_ready(&self) -> bool {
        let alive = Component::ALL.iter().all(|component| self.processes.is_alive(component.name()));
        alive && self.coredns_is_available().unwrap_or(false)
    }

    fn start(&self) -> Result<()> {
        leftovers::remove(self.place)?;
        let processes = Processes::in_folder(&self.state)?;
        debug_assert!(processes.all().is_empty(), "leftovers were removed");
        leftovers::create_cgroups(self.place);
        network::create(self.place)?;
        components::write_configuration(self)?;
        // The API server waits for etcd, and containerd for nobody.
        for component in [Component::Etcd, Component::Containerd, Component::ApiServer] {
            component.start(self)?;
        }
        containerd::wait(self.place)?;
        std::thread::scope(|scope| {
            let images = scope.spawn(|| {
                for image in [Image::Pause, Image::CoreDns] {
                    self.import(image)?;
                }
                anyhow::Ok(())
            });
            self.wait_for("the API server", || self.kubectl().run(&["get", "--raw", "/readyz"]).is_ok())?;
            for component in [Component::ControllerManager, Component::Scheduler, Component::Proxy] {
                component.start(self)?;
            }
            images.join().map_err(|_| anyhow::anyhow!("the import of images panicked"))??;
            Component::Kubelet.start(self)
        })?;
        self.kubectl().apply(include_str!("../cluster/coredns.yaml"))?;
        self.import(Image::Busybox)?;
        self.import(Image::Shop)?;
        self.wait_for("CoreDNS", || self.coredns_is_available().unwrap_or(false))
    }

    fn coredns_is_available(&self) -> Result<bool> {
        let available = self.kubectl().run(&[
            "get",
            "deployment",
            "coredns",
            "-n",
            "kube-system",
            "-o",
            "jsonpath={.status.availableReplicas}",
        ])?;
        Ok(available.trim() == "1")
    }

    fn wait_for(&self, what: &str, mut is_so: impl FnMut() -> bool) -> Result<()> {
        let start = Instant::now();
        while !is_so() {
            for component in Component::ALL {
                let name = component.name();
                let started = self.processes.all().into_iter().find(|(known, _)| known == name);
                if started.is_some_and(|(_, process)| !process.is_alive()) {
                    bail!("{name} ended while waiting for {what}: {}", last_line(&self.processes.log(name)));
                }
            }
            if start.elapsed() > READY_LIMIT {
                bail!("{what} is not ready after {} s", READY_LIMIT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

fn last_line(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("(nothing in its log)").to_owned()
}
