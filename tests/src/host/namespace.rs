//! Network namespaces with a name, entered thread by thread.
//!
//! A child inherits the network namespace of the *thread* that starts it, so a helper thread that has entered the
//! namespace is all that is needed: no `pre_exec`, no `ip netns exec` (which would remount /sys and hide the cgroups
//! from containerd).

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use crate::host::program::run;

/// A network namespace under /run/netns.
#[derive(Debug, Clone)]
pub struct NetworkNamespace {
    name: String,
}

impl NetworkNamespace {
    /// Makes the namespace, or takes the one that exists, with its loopback up.
    pub fn create(name: &str) -> Result<Self> {
        let namespace = Self { name: name.to_owned() };
        if !namespace.path().exists() {
            run("ip", &["netns", "add", name])?;
        }
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// The namespace of this name, which must exist already when it is entered.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    /// Its name under /run/netns.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that holds it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// `ip` inside of it.
    pub fn ip(&self, args: &[&str]) -> Result<String> {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend(args);
        run("ip", &all)
    }

    /// Runs `work` on a thread of its own inside the namespace. Sockets that it opens and children that it starts
    /// stay there.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = self.path();
        let file = File::open(&path).with_context(|| format!("no network namespace {}", path.display()))?;
        std::thread::scope(|scope| {
            let worker = scope.spawn(move || {
                setns(&file, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("cannot enter {}", path.display()))?;
                work()
            });
            worker.join().map_err(|_| anyhow!("the work in namespace {} panicked", self.name))?
        })
    }

    /// Removes the name; the kernel removes the namespace and its interfaces with its last process.
    pub fn remove(&self) -> Result<()> {
        if self.path().exists() {
            run("ip", &["netns", "delete", &self.name])?;
        }
        Ok(())
    }
}
