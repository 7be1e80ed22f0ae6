//! The pod's files at their true paths, in the helper's private mount namespace. Everything is in memory; no folder is
//! made on the laptop.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use devproxy_tunnel::control::FileTree;
use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::Mode,
};

use super::{
    etc,
    mirror::mirror,
    places::Places,
    tree::{CONTENT, Tree},
};
use crate::{Files, NamespaceError, Skipped, failure::At, syscall};

/// Sockets by which the laptop's resolvers would answer past the network namespace.
const LEAKS: [&str; 2] = ["/run/nscd", "/run/avahi-daemon"];
const RESOLVED: &str = "/run/systemd/resolve";

/// All that is mounted.
#[derive(Debug)]
pub(super) struct Mounts {
    places: Places,
    trees: HashMap<String, Tree>,
    /// Device numbers of folders in which entries can be made without touching the laptop's disk.
    ours: HashSet<u64>,
    /// What becomes read-only at the end.
    closing: Vec<PathBuf>,
}

impl Mounts {
    /// Mounts everything. A volume that cannot appear is told, anything else that fails is an error.
    pub(super) fn make(places: Places, files: &Files) -> Result<(Self, Vec<Skipped>), NamespaceError> {
        let none = None::<&str>;
        // What the laptop mounts later is seen inside, nothing ever the other way.
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).at("mount --make-rslave /")?;
        let mut mounts = Self { places, trees: HashMap::new(), ours: HashSet::new(), closing: Vec::new() };
        mounts.overlay_etc(files)?;
        mask_leaks(&files.resolv_conf)?;
        let mut skipped = Vec::new();
        let mut trees: Vec<&FileTree> = files.trees.iter().collect();
        // Parents first: a volume may be mounted inside of another.
        trees.sort_by_key(|tree| Path::new(&tree.root).components().count());
        for tree in trees {
            if let Err(reason) = mounts.add(tree) {
                skipped.push(Skipped { path: tree.root.clone().into(), reason });
            }
        }
        for path in &mounts.closing {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            // Carries on the flags of the mount, which a user namespace may not take away.
            let flags = flags | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            mount(none, path, none, flags, none).at(format!("make {} read-only", path.display()))?;
        }
        Ok((mounts, skipped))
    }

    /// Brings one tree to a new state.
    pub(super) fn refresh(&mut self, tree: &FileTree) -> Result<(), NamespaceError> {
        let step = || format!("refresh {}", tree.root);
        let mounted = self.trees.get_mut(&tree.root).ok_or(Errno::ENOENT).at(step())?;
        mounted.update(tree).at(step())
    }

    /// An overlay: the laptop's other files in /etc stay live, also when they are renamed over.
    fn overlay_etc(&mut self, files: &Files) -> Result<(), NamespaceError> {
        let lower = open("/etc", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
        let lower = lower.at("open /etc")?;
        let scaffold = syscall::tmpfs(0o755).at("make a tmpfs")?;
        let [upper, work] = ["up", "work"].map(|name| within(&scaffold, name));
        for folder in [&upper, &work] {
            fs::create_dir(folder).at("make a folder in the tmpfs")?;
        }
        etc::replace(&upper, files).at("write the shell's /etc")?;
        for tree in &files.trees {
            // Points for volumes below /etc have to be there before the overlay is.
            let Ok(below) = Path::new(&tree.root).strip_prefix("/etc") else { continue };
            if self.places.objection(Path::new(&tree.root)).is_none() {
                let point = upper.join(below);
                let made = match point.parent() {
                    Some(folder) if Tree::is_file(tree) => {
                        fs::create_dir_all(folder).and_then(|()| fs::write(&point, ""))
                    }
                    _ => fs::create_dir_all(&point),
                };
                made.at("make a mount point in /etc")?;
            }
        }
        // The overlay takes its upper folder only from a mounted tmpfs; it covers it at once.
        syscall::attach(scaffold.as_fd(), lower.as_fd(), Path::new("")).at("mount a tmpfs")?;
        let options = format!(
            "userxattr,lowerdir=/proc/self/fd/{},upperdir={},workdir={}",
            lower.as_raw_fd(),
            upper.display(),
            work.display()
        );
        let mounted = mount(Some("overlay"), "/etc", Some("overlay"), MsFlags::empty(), Some(&*options));
        mounted.at("mount the overlay on /etc")?;
        self.ours.insert(fs::metadata("/etc").at("stat /etc")?.dev());
        Ok(())
    }

    /// One volume at its true path, or why not.
    fn add(&mut self, tree: &FileTree) -> Result<(), String> {
        let said = |e: io::Error| e.to_string();
        if self.trees.contains_key(&tree.root) {
            return Err("it is there twice".to_owned());
        }
        if let Some(objection) = self.places.objection(Path::new(&tree.root)) {
            return Err(objection);
        }
        let (existing, missing) = resolve(Path::new(&tree.root));
        // Joining nothing would append a slash, which no file stands.
        let nothing_missing = missing.as_os_str().is_empty();
        let target = if nothing_missing { existing.clone() } else { existing.join(&missing) };
        // Once more for what it really is: /var/run is /run.
        if let Some(objection) = self.places.objection(&target) {
            return Err(objection);
        }
        let is_file = Tree::is_file(tree);
        let memory = syscall::tmpfs(0o755).map_err(said)?;
        let folder = File::open(within(&memory, ".")).map_err(said)?;
        let device = folder.metadata().map_err(said)?.dev();
        let written = Tree::write(folder.into(), tree).map_err(said)?;
        self.make_point(&existing, &missing, is_file)?;
        if target.is_dir() == is_file {
            return Err("the laptop has something else there".to_owned());
        }
        let copy = copy(&memory, Path::new(if is_file { CONTENT } else { "." })).map_err(said)?;
        let root = open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).map_err(|e| said(e.into()))?;
        syscall::attach(copy.as_fd(), root.as_fd(), &target).map_err(said)?;
        self.ours.insert(device);
        self.trees.insert(tree.root.clone(), written);
        self.closing.push(target);
        Ok(())
    }

    /// Makes the folder or empty file on which the volume is mounted, in memory.
    fn make_point(&mut self, existing: &Path, missing: &Path, is_file: bool) -> Result<(), String> {
        if missing.as_os_str().is_empty() {
            return Ok(());
        }
        let metadata = fs::metadata(existing).map_err(|e| e.to_string())?;
        if !metadata.is_dir() {
            return Err(format!("{} is a file on the laptop", existing.display()));
        }
        if !self.ours.contains(&metadata.dev()) {
            let uid = nix::unistd::getuid();
            let shared = metadata.mode() & 0o1000 != 0;
            if shared || (!uid.is_root() && metadata.uid() == uid.as_raw()) {
                // New files that a program makes there must reach the disk.
                return Err(format!("{} is a folder of yours", existing.display()));
            }
            let (device, writable) = mirror(existing).map_err(|e| format!("{}: {e}", existing.display()))?;
            self.ours.insert(device);
            // A program's own new files must not vanish in memory: better no new files. In /run they vanish anyway.
            if !(writable && existing.starts_with("/run")) {
                self.closing.push(existing.to_owned());
            }
        }
        let target = existing.join(missing);
        let made = match target.parent() {
            Some(folder) if is_file => {
                fs::create_dir_all(folder).and_then(|()| File::create(&target).map(drop))
            }
            _ => fs::create_dir_all(&target),
        };
        made.map_err(|e| e.to_string())
    }
}

fn mask_leaks(resolv_conf: &[u8]) -> Result<(), NamespaceError> {
    for folder in LEAKS.into_iter().chain([RESOLVED]).filter(|folder| Path::new(folder).is_dir()) {
        let step = || format!("mask {folder}");
        let empty = syscall::tmpfs(0o755).at(step())?;
        if folder == RESOLVED {
            for name in ["resolv.conf", "stub-resolv.conf"] {
                fs::write(within(&empty, name), resolv_conf).at(step())?;
            }
        }
        let point = open(folder, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
        syscall::attach(empty.as_fd(), point.at(step())?.as_fd(), Path::new("")).at(step())?;
    }
    Ok(())
}

/// A path in a tmpfs that is mounted nowhere.
fn within(memory: &OwnedFd, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", memory.as_raw_fd())).join(name)
}

/// A second mount of `path` in a tmpfs, for the programs: it can become read-only while we go on writing by the first.
/// Before Linux 6.15 only something mounted can be copied, so the tmpfs covers /etc for that moment.
fn copy(memory: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let etc = open("/etc", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    syscall::attach(memory.as_fd(), etc.as_fd(), Path::new(""))?;
    let copy = syscall::copy_mounts(memory.as_fd(), path);
    umount2("/etc", MntFlags::MNT_DETACH)?;
    copy
}

/// The part of a path that exists, without symbolic links, and the rest.
fn resolve(path: &Path) -> (PathBuf, PathBuf) {
    for ancestor in path.ancestors() {
        // A folder that the user may not enter (/root) counts as the end of what exists.
        if let Ok(existing) = fs::canonicalize(ancestor) {
            let missing = path.strip_prefix(ancestor).unwrap_or(Path::new(""));
            return (existing, missing.to_owned());
        }
    }
    (PathBuf::from("/"), path.strip_prefix("/").unwrap_or(path).to_owned())
}
