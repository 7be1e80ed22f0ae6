//! One of the sixteen places for a laptop: user, home, namespaces, held by a file lock so that tests of several
//! processes never share one and a killed test frees its own.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use crate::host::lock::FileLock;
use crate::host::namespace::NetworkNamespace;
use crate::host::process::{ProcessId, end_all, find_all};
use crate::host::program::run;

const SLOTS: u32 = 16;
/// Outside of any node's folder: a laptop may be wired to a cluster of the user's.
pub(super) const LAPTOPS: &str = "/var/tmp/devproxy-laptops";
/// Above the ordinary users of Debian, below those of systemd and of subordinate ranges.
const FIRST_UID: u32 = 60_600;

/// The addresses at which laptops see the API server, for its certificate.
pub fn wire_addresses() -> impl Iterator<Item = String> {
    (0..SLOTS).map(wire_address)
}

#[derive(Debug)]
pub(super) struct Slot {
    index: u32,
    network: NetworkNamespace,
    wire: NetworkNamespace,
    home: PathBuf,
    runtime: PathBuf,
    programs: PathBuf,
    _lock: FileLock,
}

impl Slot {
    /// Takes the first free place and makes it as new.
    pub(super) fn take() -> Result<Self> {
        crate::host::require_root()?;
        let folder = laptops();
        fs::create_dir_all(&folder)?;
        open_devices();
        for index in 0..SLOTS {
            if let Some(lock) = FileLock::try_take(&folder.join(format!("{index}.lock")))? {
                clean(index)?;
                return Self::make(index, lock);
            }
        }
        bail!("all {SLOTS} laptops of the bed are in use")
    }

    fn make(index: u32, lock: FileLock) -> Result<Self> {
        let (uid, user) = (uid(index), user(index));
        let place = place(index);
        let (home, runtime, programs) = (place.join("home"), place.join("run"), place.join("bin"));
        if run("id", &["-u", &user]).is_err() {
            run("groupadd", &["--gid", &uid.to_string(), &user])?;
            // A system user has no subordinate ids: it can map itself only, as the product promises to need.
            run(
                "useradd",
                &[
                    "--system",
                    "--no-create-home",
                    "--shell",
                    "/bin/bash",
                    "--uid",
                    &uid.to_string(),
                    "--gid",
                    &uid.to_string(),
                    "--home-dir",
                    &home.to_string_lossy(),
                    &user,
                ],
            )?;
        }
        for (folder, mode) in [(&place, 0o755), (&home, 0o700), (&runtime, 0o700), (&programs, 0o755)] {
            fs::create_dir_all(folder)?;
            fs::set_permissions(folder, fs::Permissions::from_mode(mode))?;
        }
        for folder in [&home, &runtime] {
            chown(folder, Some(uid), Some(uid))?;
        }

        let network = NetworkNamespace::create(&format!("dplap{index}"))?;
        let wire = NetworkNamespace::create(&format!("dpwire{index}"))?;
        network.ip(&["link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", wire.name()])?;
        for (namespace, address) in [(&network, laptop_address(index)), (&wire, wire_address(index))] {
            // Without link-local addresses, whose detection of duplicates would change a snapshot seconds later.
            namespace.ip(&["link", "set", "eth0", "addrgenmode", "none"])?;
            namespace.ip(&["addr", "add", &format!("{address}/30"), "dev", "eth0"])?;
            namespace.ip(&["link", "set", "eth0", "up"])?;
        }
        Ok(Self { index, network, wire, home, runtime, programs, _lock: lock })
    }

    pub(super) fn network(&self) -> &NetworkNamespace {
        &self.network
    }

    pub(super) fn wire(&self) -> &NetworkNamespace {
        &self.wire
    }

    pub(super) fn wire_address(&self) -> String {
        wire_address(self.index)
    }

    /// The folder of all that follows.
    pub(super) fn place(&self) -> PathBuf {
        place(self.index)
    }

    /// A second wire, straight to `node`, and the node's address at its end. There is no route over it: what
    /// is reached is this one address.
    pub(super) fn wire_to(&self, node: &NetworkNamespace) -> Result<String> {
        let far_end = format!("laptop{}", self.index);
        self.network.ip(&[
            "link",
            "add",
            "eth1",
            "type",
            "veth",
            "peer",
            "name",
            &far_end,
            "netns",
            node.name(),
        ])?;
        let ends = [(&self.network, "eth1", 2), (node, far_end.as_str(), 1)];
        for (namespace, interface, host) in ends {
            let address = format!("100.64.8.{}", 128 + self.index * 4 + host);
            namespace.ip(&["link", "set", interface, "addrgenmode", "none"])?;
            namespace.ip(&["addr", "add", &format!("{address}/30"), "dev", interface])?;
            namespace.ip(&["link", "set", interface, "up"])?;
        }
        Ok(format!("100.64.8.{}", 128 + self.index * 4 + 1))
    }

    pub(super) fn home(&self) -> &Path {
        &self.home
    }

    pub(super) fn runtime(&self) -> &Path {
        &self.runtime
    }

    pub(super) fn programs(&self) -> &Path {
        &self.programs
    }

    pub(super) fn uid(&self) -> u32 {
        uid(self.index)
    }

    pub(super) fn gid(&self) -> u32 {
        uid(self.index)
    }

    pub(super) fn user(&self) -> String {
        user(self.index)
    }

    pub(super) fn processes(&self) -> Vec<ProcessId> {
        processes(self.index)
    }

    /// A file of this user outside of its own folders would be found here.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        files_of(self.index)
    }

    /// A hard link where it can be: the cache and target folders may be closed to other users, and the programs are
    /// large.
    pub(super) fn publish(&self, name: &str, program: &Path) -> Result<()> {
        let (place, unfinished) = (self.programs.join(name), self.programs.join(format!(".{name}")));
        let program =
            fs::canonicalize(program).with_context(|| format!("no program {}", program.display()))?;
        let same = |a: &Path| {
            let (here, there) = (fs::metadata(a).ok()?, fs::metadata(&program).ok()?);
            Some(
                (here.len(), here.mtime(), here.mtime_nsec())
                    == (there.len(), there.mtime(), there.mtime_nsec()),
            )
        };
        if same(&place) == Some(true) {
            return Ok(());
        }
        let _ = fs::remove_file(&unfinished);
        if fs::hard_link(&program, &unfinished).is_err() {
            fs::copy(&program, &unfinished)?;
            let modified = fs::metadata(&program)?.modified()?;
            File::options().write(true).open(&unfinished)?.set_modified(modified)?;
        }
        fs::rename(&unfinished, &place)?;
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Err(error) = clean(self.index) {
            eprintln!("laptop {}: cannot clean up: {error:#}", self.index);
        }
    }
}

/// Cleans the laptops that no living process holds.
pub fn remove_leftovers() -> Result<()> {
    remove_unused(clean)
}

/// Removes the laptops that no living process holds, with their users.
pub fn remove_all() -> Result<()> {
    remove_unused(|index| {
        clean(index)?;
        if run("id", &["-u", &user(index)]).is_ok() {
            run("userdel", &[&user(index)])?;
        }
        Ok(())
    })?;
    // Only when empty.
    let _ = fs::remove_dir(laptops());
    Ok(())
}

fn remove_unused(remove: impl Fn(u32) -> Result<()>) -> Result<()> {
    for index in 0..SLOTS {
        let lock = laptops().join(format!("{index}.lock"));
        if lock.exists()
            && let Some(lock) = FileLock::try_take(&lock)?
        {
            remove(index)?;
            lock.remove()?;
        }
    }
    Ok(())
}

fn clean(index: u32) -> Result<()> {
    // A process may start another one while it is looked for: until there is none.
    for _ in 0..20 {
        let alive = processes(index);
        if alive.is_empty() {
            break;
        }
        end_all(&alive, Signal::SIGKILL, Duration::from_secs(2));
    }
    for name in ["dplap", "dpwire"] {
        NetworkNamespace::named(&format!("{name}{index}")).remove()?;
    }
    for file in files_of(index) {
        let _ = if file.is_dir() { fs::remove_dir_all(&file) } else { fs::remove_file(&file) };
    }
    if place(index).exists() {
        fs::remove_dir_all(place(index))?;
    }
    Ok(())
}

fn processes(index: u32) -> Vec<ProcessId> {
    find_all(|pid| fs::metadata(format!("/proc/{pid}")).is_ok_and(|meta| meta.uid() == uid(index)))
}

/// In the folders where everybody may write.
fn files_of(index: u32) -> Vec<PathBuf> {
    ["/tmp", "/var/tmp", "/dev/shm", "/run/lock"]
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.symlink_metadata().is_ok_and(|meta| meta.uid() == uid(index)))
        .collect()
}

/// As desktop distributions have them; some minimal ones leave them to root.
fn open_devices() {
    for device in ["/dev/fuse", "/dev/net/tun"] {
        // A machine without the device: what needs it says so itself.
        let _ = fs::set_permissions(device, fs::Permissions::from_mode(0o666));
    }
}

fn laptops() -> PathBuf {
    PathBuf::from(LAPTOPS)
}

fn place(index: u32) -> PathBuf {
    laptops().join(index.to_string())
}

fn uid(index: u32) -> u32 {
    FIRST_UID + index
}

fn user(index: u32) -> String {
    format!("devproxy-laptop{index}")
}

fn wire_address(index: u32) -> String {
    format!("100.64.8.{}", index * 4 + 1)
}

fn laptop_address(index: u32) -> String {
    format!("100.64.8.{}", index * 4 + 2)
}
