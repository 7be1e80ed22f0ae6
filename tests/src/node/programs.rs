//! Kubernetes, etcd, kubectl and CoreDNS, built by the ordinary Go client from pinned modules and kept in the
//! user's cache folder under a hash of what they were built from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::host::program::{is_installed, output};

/// The version that the cluster reports.
pub const KUBERNETES: &str = "1.34.4";

/// The components inside the one program `kubenode`, told apart by the name they are started with.
const COMPONENTS: &[&str] = &[
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
];

/// The built programs.
#[derive(Debug, Clone)]
pub struct Programs {
    folder: PathBuf,
    /// CoreDNS, for its image.
    pub coredns: PathBuf,
}

impl Programs {
    /// Builds what the cache does not have: some 5 minutes on 2 cores the first time, nothing later.
    pub fn build() -> Result<Self> {
        let [kubenode, coredns] = sources()?;
        kubenode.build()?;
        coredns.build()?;
        Ok(Self::of(&kubenode, &coredns))
    }

    /// What the cache has, if it has all.
    pub fn built() -> Result<Option<Self>> {
        let [kubenode, coredns] = sources()?;
        let all = kubenode.program().exists() && coredns.program().exists();
        Ok(all.then(|| Self::of(&kubenode, &coredns)))
    }

    fn of(kubenode: &Source, coredns: &Source) -> Self {
        for component in COMPONENTS {
            let link = kubenode.cached.join(component);
            if !link.exists() {
                // Another process may have made it meanwhile, which is as good.
                let _ = std::os::unix::fs::symlink(kubenode.name, &link);
            }
        }
        Self { folder: kubenode.cached.clone(), coredns: coredns.program() }
    }

    /// The folder of all components, for a `PATH`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The program file of a component, such as `kubelet`.
    pub fn component(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// `$XDG_CACHE_HOME/devproxy` or `~/.cache/devproxy`.
pub fn cache_folder() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set: no place for built programs")?;
    Ok(base.join("devproxy"))
}

/// A Go program of ours and its place in the cache.
#[derive(Debug)]
struct Source {
    name: &'static str,
    folder: PathBuf,
    link_flags: String,
    cached: PathBuf,
}

fn sources() -> Result<[Source; 2]> {
    let version = format!(
        "-X k8s.io/component-base/version.gitVersion=v{KUBERNETES} \
         -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=34"
    );
    Ok([Source::new("kubenode", version)?, Source::new("clusterdns", String::new())?])
}

impl Source {
    fn new(name: &'static str, link_flags: String) -> Result<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster").join(name);
        let mut hash = Sha256::new();
        for file in ["go.mod", "go.sum", "main.go"] {
            let content =
                fs::read(folder.join(file)).with_context(|| format!("cannot read {name}/{file}"))?;
            hash.update((content.len() as u64).to_le_bytes());
            hash.update(content);
        }
        hash.update(&link_flags);
        let digest = format!("{:x}", hash.finalize());
        let cached = cache_folder()?.join("programs").join(format!("{name}-{}", &digest[..16]));
        Ok(Self { name, folder, link_flags, cached })
    }

    fn program(&self) -> PathBuf {
        self.cached.join(self.name)
    }

    fn build(&self) -> Result<()> {
        let (name, program) = (self.name, self.program());
        if program.exists() {
            return Ok(());
        }
        fs::create_dir_all(&self.cached)?;
        let lock = fs::File::create(self.cached.join("lock"))?;
        lock.lock()?;
        if program.exists() {
            return Ok(());
        }
        if !is_installed("go") {
            bail!(
                "building {name} needs Go 1.26 or newer: install it from https://go.dev/dl or your distribution"
            );
        }
        eprintln!("building {name} with Go (minutes, once)");
        // Built beside its place and renamed: a killed build leaves no half program.
        let unfinished = self.cached.join("unfinished");
        output(
            Command::new("go")
                .args(["build", "-trimpath", "-mod=readonly", "-buildvcs=false", "-ldflags"])
                .arg(format!("-s -w {}", self.link_flags))
                .arg("-o")
                .arg(&unfinished)
                .arg(".")
                // Static: CoreDNS stands alone in its image.
                .env("CGO_ENABLED", "0")
                .current_dir(&self.folder),
        )
        .with_context(|| format!("cannot build {name}"))?;
        fs::rename(&unfinished, &program)?;
        Ok(())
    }
}
