//! Cluster, laptops and namespaces together: where a test begins.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail};
use tokio::sync::OnceCell;

use crate::cluster::Cluster;
use crate::host::process::ProcessId;
use crate::laptop::Laptop;
use crate::namespace::Namespace;
use crate::node::Node;

/// Says which run of which machine made an object, so that those of killed runs can be found.
pub(crate) const RUN_LABEL: &str = "bed.devproxy.dev/run";

/// The test bed. Cheap to clone; all tests of a process share one, all processes of a machine share its node.
#[derive(Debug, Clone)]
pub struct Bed {
    cluster: Arc<Cluster>,
}

impl Bed {
    /// The bed of this process, brought up by whoever asks first. The node is left running for the next test
    /// binary; `cargo xtask test` takes it down.
    pub async fn get() -> Result<Self> {
        static BED: OnceCell<Bed> = OnceCell::const_new();
        let bed = BED.get_or_try_init(|| async {
            let cluster = blocking(Cluster::get).await?;
            Self::on(cluster).await
        });
        bed.await.cloned()
    }

    /// A bed on `cluster`.
    pub async fn on(cluster: Cluster) -> Result<Self> {
        let bed = Self { cluster: Arc::new(cluster) };
        let cluster = Arc::clone(&bed.cluster);
        blocking(move || remove_killed_runs(&cluster)).await?;
        Ok(bed)
    }

    /// The cluster under it.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// The bed's own node; an error on a cluster of the user's.
    pub fn node(&self) -> Result<&Node> {
        match &*self.cluster {
            Cluster::Node(node) => Ok(node),
            Cluster::Users(_) => bail!("this test needs the bed's own node: run it without KUBECONFIG"),
        }
    }

    /// A namespace of a new name that begins with `purpose`; deleted when it is dropped.
    pub async fn namespace(&self, purpose: &str) -> Result<Namespace> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{purpose}-{}-{count}", std::process::id());
        Namespace::create(Arc::clone(&self.cluster), name).await
    }

    /// A laptop of its own, empty, wired to this cluster.
    pub async fn laptop(&self) -> Result<Laptop> {
        let cluster = Arc::clone(&self.cluster);
        blocking(move || Laptop::start(&cluster)).await
    }

    /// A laptop whose wire to the API server is the kernel's, without a relay; only on the bed's own node.
    pub async fn laptop_without_relay(&self) -> Result<Laptop> {
        let (cluster, node) = (Arc::clone(&self.cluster), self.node()?.clone());
        blocking(move || Laptop::start_without_relay(&cluster, &node)).await
    }
}

/// Runs what blocks beside the runtime.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("the work panicked")?
}

/// This run as a label's value: machine's boot, process, its start.
pub(crate) fn run_label() -> Result<String> {
    let pid = i32::try_from(std::process::id())?;
    let own = ProcessId::of(pid).context("no /proc")?;
    Ok(format!("{}_{pid}_{}", boot()?, own.start()))
}

fn boot() -> Result<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim().chars().take(8).collect())
}

/// Deletes the namespaces of runs of this machine that have ended without doing so.
fn remove_killed_runs(cluster: &Cluster) -> Result<()> {
    let list = cluster.kubectl().get(&["namespaces", "--selector", RUN_LABEL])?;
    let boot = boot()?;
    for namespace in list["items"].as_array().into_iter().flatten() {
        let label = namespace["metadata"]["labels"][RUN_LABEL].as_str().unwrap_or_default();
        let mut parts = label.split('_');
        let same_machine = parts.next() == Some(&boot);
        let alive =
            parts.next().and_then(|pid| pid.parse().ok()).and_then(ProcessId::of).is_some_and(|process| {
                parts.next().is_some_and(|start| start == process.start().to_string())
            });
        if same_machine
            && !alive
            && let Some(name) = namespace["metadata"]["name"].as_str()
        {
            cluster.kubectl().run(&["delete", "namespace", name, "--wait=false", "--ignore-not-found"])?;
        }
    }
    Ok(())
}
