//! Ending a node, also one whose starter was killed: by the records of its processes, by its cgroups, by its mounts
//! and by its own names of interfaces; never by a name that somebody else's process may have.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;

use super::{Place, network};
use crate::host::process::{ProcessId, Processes, end_all, find_all};

/// Processes outside of pods that want a processor at a time, on a busy one.
const BUSY: usize = 4;

/// Removes everything but the state folder itself.
pub(super) fn remove(place: Place) -> Result<()> {
    let state = place.state();
    let state = state.as_path();
    let processes = Processes::in_folder(state)?;
    // Nobody may start pods again while they are ended, and containerd must see its shims end or not at all.
    let components: Vec<ProcessId> = processes.all().into_iter().map(|(_, process)| process).collect();
    end_all(&components, Signal::SIGKILL, Duration::from_secs(5));
    end_all(&shims(state), Signal::SIGKILL, Duration::from_secs(5));
    let pods: Vec<ProcessId> =
        cgroup_folders(place).iter().flat_map(|folder| members(folder)).filter_map(ProcessId::of).collect();
    end_all(&pods, Signal::SIGKILL, Duration::from_secs(5));
    for mount in mounts_under(state) {
        // Lazily: what is still open goes with its last user.
        let _ = umount2(&mount, MntFlags::MNT_DETACH);
    }
    for folder in cgroup_folders(place) {
        remove_cgroup(&folder);
    }
    crate::laptop::remove_leftovers()?;
    network::remove(place)?;
    remove_outside_names(state);
    for entry in fs::read_dir(state)? {
        let path = entry?.path();
        if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
    }
    Ok(())
}

/// Makes the empty cgroups that the kubelet wants to find.
///
/// On a machine of its own `kubepods` has half of the processors when all want them, beside `system.slice` and
/// `user.slice`. Here it lies beside single processes, of which each would have as much as all pods together: a client in
/// a pod opened 1,350 connections a second to the laptop and 2,240 with its half.
pub(super) fn create_cgroups(place: Place) {
    let times = BUSY * std::thread::available_parallelism().map_or(1, usize::from);
    for hierarchy in hierarchies() {
        let folder = hierarchy.join(place.cgroup());
        create_cgroup(&folder);
        // Version 1 and version 2, as far as the group's parent divides processors.
        let _ = fs::write(folder.join("cpu.shares"), (1024 * times).to_string());
        let _ = fs::write(folder.join("cpu.weight"), (100 * times).to_string());
    }
}

/// containerd's shims name the socket of their containerd on their command line.
fn shims(state: &Path) -> Vec<ProcessId> {
    let socket = state.join("containerd.sock").display().to_string();
    find_all(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.contains("containerd-shim") && line.contains(&socket)
    })
}

/// One folder per controller on cgroup v1, one on v2, both on a hybrid machine.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (folder, kind) = (fields.next()?, fields.next()?);
            kind.starts_with("cgroup").then(|| PathBuf::from(folder))
        })
        .collect()
}

fn cgroup_folders(place: Place) -> Vec<PathBuf> {
    hierarchies()
        .into_iter()
        .map(|hierarchy| hierarchy.join(place.cgroup()))
        .filter(|folder| folder.exists())
        .collect()
}

fn members(folder: &Path) -> Vec<i32> {
    let own = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let mut all: Vec<i32> = own.lines().filter_map(|line| line.parse().ok()).collect();
    for child in children(folder) {
        all.extend(members(&child));
    }
    all
}

fn remove_cgroup(folder: &Path) {
    for child in children(folder) {
        remove_cgroup(&child);
    }
    // Files of a cgroup cannot be removed, only the folder itself, once it is empty. It may take the kernel a moment.
    for _ in 0..50 {
        if fs::remove_dir(folder).is_ok() || !folder.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn create_cgroup(folder: &Path) {
    if fs::create_dir_all(folder).is_err() {
        return;
    }
    // A cpuset of version 1 starts without any processor and memory, and then takes no process.
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if let (Some(parent), true) = (folder.parent(), folder.join(file).exists()) {
            let inherited = fs::read_to_string(parent.join(file)).unwrap_or_default();
            let _ = fs::write(folder.join(file), inherited.trim());
        }
    }
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect()
}

/// Mounts at or below the folder, the innermost first.
fn mounts_under(state: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut under: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| Some(PathBuf::from(line.split(' ').nth(1)?)))
        .filter(|mount| mount.starts_with(state))
        .collect();
    under.reverse();
    under
}

/// What the kubelet and the CNI write outside of the folder they are told to use.
fn remove_outside_names(state: &Path) {
    for link in children_of("/var/log/containers") {
        if fs::read_link(&link).is_ok_and(|target| target.starts_with(state)) {
            let _ = fs::remove_file(link);
        }
    }
    let sandboxes: Vec<String> = ["containerd/root", "containerd/state"]
        .iter()
        .flat_map(|folder| children(&state.join(folder).join("io.containerd.grpc.v1.cri/sandboxes")))
        .filter_map(|folder| Some(folder.file_name()?.to_string_lossy().into_owned()))
        .collect();
    for result in children_of("/var/lib/cni/results") {
        // NETWORK-SANDBOX-INTERFACE
        let name = result.file_name().unwrap_or_default().to_string_lossy();
        if sandboxes.iter().any(|sandbox| name.contains(sandbox)) {
            let _ = fs::remove_file(result);
        }
    }
    // All containerds of a machine keep the sockets of their shims in one folder: those at which nobody answers are
    // of shims that have ended.
    for socket in children_of("/run/containerd/s") {
        if UnixStream::connect(&socket).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
            let _ = fs::remove_file(socket);
        }
    }
    // Only when empty.
    for folder in [
        "/var/log/containers",
        "/var/lib/cni/results",
        "/var/lib/cni/cache",
        "/var/lib/cni",
        "/run/containerd/s",
        "/run/containerd/runc",
        "/run/containerd",
    ] {
        let _ = fs::remove_dir(folder);
    }
}

fn children_of(folder: &str) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default()
}
