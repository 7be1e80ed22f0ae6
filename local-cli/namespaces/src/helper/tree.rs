//! A [`FileTree`] as real files in memory. All names and targets come from the pod and are hostile: nothing is ever
//! written outside of the tree's own folder.

use std::{
    collections::HashMap,
    fs::{File, Permissions},
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::{Component, Path},
};

use devproxy_tunnel::control::{FileEntry, FileKind, FileTree};
use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, renameat},
    sys::stat::{Mode, mkdirat},
    unistd::{UnlinkatFlags, symlinkat, unlinkat},
};

/// Name of the file of a tree whose root is a file.
pub(super) const CONTENT: &str = "content";

/// What replaces an entry is prepared under this name beside it.
const PREPARED: &str = "..devproxy";

/// A written tree. The folder is reached by a writable mount that no program sees.
#[derive(Debug)]
pub(super) struct Tree {
    folder: OwnedFd,
    entries: Vec<FileEntry>,
}

impl Tree {
    /// Writes a tree into an empty folder.
    pub(super) fn write(folder: OwnedFd, tree: &FileTree) -> io::Result<Self> {
        let mut written = Self { folder, entries: Vec::new() };
        written.update(tree)?;
        Ok(written)
    }

    pub(super) fn is_file(tree: &FileTree) -> bool {
        matches!(tree.entries.first(), Some(FileEntry { kind: FileKind::File(_), .. }))
    }

    /// Brings the folder to a new state: first all that is new, then the symbolic links change (`..data` first: that
    /// is the moment at which a volume of the kubelet changes), at last the old things go.
    pub(super) fn update(&mut self, tree: &FileTree) -> io::Result<()> {
        let entries = checked(tree)?;
        if Self::is_file(tree) {
            return self.update_file(entries);
        }
        let old: HashMap<&str, &FileEntry> =
            self.entries.iter().map(|entry| (entry.path.as_str(), entry)).collect();
        let new: HashMap<&str, &FileEntry> =
            entries.iter().map(|entry| (entry.path.as_str(), entry)).collect();
        if old.get("").is_some_and(|root| root.kind != FileKind::Directory) {
            return Err(Errno::EINVAL.into());
        }
        // An entry that changes between folder and other things must go first, with all below.
        let folder_before = |path: &str| old.get(path).is_some_and(|entry| entry.kind == FileKind::Directory);
        let turned = |path: &str| match (old.get(path), new.get(path)) {
            (Some(old), Some(new)) => (old.kind == FileKind::Directory) != (new.kind == FileKind::Directory),
            _ => false,
        };
        for entry in self.entries.iter().rev() {
            if ancestors(&entry.path).any(turned) {
                self.remove(entry);
            }
        }
        let gone = |path: &str| ancestors(path).any(turned);
        let mut links = Vec::new();
        for entry in &entries {
            let before = old.get(entry.path.as_str()).filter(|_| !gone(&entry.path));
            match &entry.kind {
                FileKind::Directory
                    if entry.path.is_empty() || (folder_before(&entry.path) && !gone(&entry.path)) => {}
                FileKind::Directory => self.make_folder(entry)?,
                FileKind::File(content) if before.is_none_or(|before| **before != *entry) => {
                    self.put_file(entry, content)?;
                }
                FileKind::Symlink(target) if before.is_none_or(|before| before.kind != entry.kind) => {
                    links.push((entry, target));
                }
                FileKind::File(_) | FileKind::Symlink(_) => {}
            }
        }
        links.sort_by_key(|(entry, _)| entry.path != "..data");
        for (entry, target) in links {
            self.put_link(entry, target)?;
        }
        for entry in self.entries.iter().rev().filter(|entry| !new.contains_key(entry.path.as_str())) {
            self.remove(entry);
        }
        // At last, so that a folder without the right to write could be filled.
        for entry in entries.iter().rev().filter(|entry| entry.kind == FileKind::Directory) {
            if old.get(entry.path.as_str()).is_none_or(|before| before.mode != entry.mode) {
                let fd = self.open(&entry.path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
                File::from(fd).set_permissions(permissions(entry.mode))?;
            }
        }
        self.entries = entries;
        Ok(())
    }

    /// A file that is mounted itself keeps its inode: it is written in place. (The kubelet never updates such ones.)
    fn update_file(&mut self, entries: Vec<FileEntry>) -> io::Result<()> {
        if self.entries.first().is_some_and(|root| root.kind == FileKind::Directory) {
            return Err(Errno::EINVAL.into());
        }
        if let Some(FileEntry { mode, kind: FileKind::File(content), .. }) = entries.first() {
            let flags =
                OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let mut file = File::from(openat(&self.folder, CONTENT, flags, Mode::from_bits_truncate(0o600))?);
            file.write_all(content)?;
            file.set_permissions(permissions(*mode))?;
        }
        self.entries = entries;
        Ok(())
    }

    fn make_folder(&self, entry: &FileEntry) -> io::Result<()> {
        let (parent, name) = self.parent(&entry.path)?;
        match mkdirat(&parent, name, Mode::from_bits_truncate(0o700)) {
            // The point on which another volume is mounted.
            Err(Errno::EEXIST) => Ok(()),
            made => Ok(made?),
        }
    }

    fn put_file(&self, entry: &FileEntry, content: &[u8]) -> io::Result<()> {
        let (parent, name) = self.parent(&entry.path)?;
        let _ = unlinkat(&parent, PREPARED, UnlinkatFlags::NoRemoveDir);
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(&parent, PREPARED, flags, Mode::from_bits_truncate(0o600))?);
        file.write_all(content)?;
        file.set_permissions(permissions(entry.mode))?;
        renameat(&parent, PREPARED, &parent, name)?;
        Ok(())
    }

    fn put_link(&self, entry: &FileEntry, target: &str) -> io::Result<()> {
        let (parent, name) = self.parent(&entry.path)?;
        let _ = unlinkat(&parent, PREPARED, UnlinkatFlags::NoRemoveDir);
        symlinkat(target, &parent, PREPARED)?;
        renameat(&parent, PREPARED, &parent, name)?;
        Ok(())
    }

    /// What cannot be removed, a folder on which another volume is mounted, stays.
    fn remove(&self, entry: &FileEntry) {
        let flag = match entry.kind {
            FileKind::Directory => UnlinkatFlags::RemoveDir,
            FileKind::File(_) | FileKind::Symlink(_) => UnlinkatFlags::NoRemoveDir,
        };
        if let Ok((parent, name)) = self.parent(&entry.path) {
            let _ = unlinkat(&parent, name, flag);
        }
    }

    fn parent<'a>(&self, path: &'a str) -> io::Result<(OwnedFd, &'a str)> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.open(parent, OFlag::O_PATH | OFlag::O_DIRECTORY)?, name))
    }

    /// Never through a symbolic link, never out of the folder.
    fn open(&self, path: &str, flags: OFlag) -> io::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        Ok(openat2(self.folder.as_fd(), if path.is_empty() { "." } else { path }, how)?)
    }
}

/// The entries with clean paths, or `EINVAL`.
fn checked(tree: &FileTree) -> io::Result<Vec<FileEntry>> {
    let mut seen = HashMap::new();
    for (index, entry) in tree.entries.iter().enumerate() {
        let clean = if index == 0 {
            entry.path.is_empty() && !matches!(entry.kind, FileKind::Symlink(_))
        } else {
            let plain = Path::new(&entry.path).components().all(|part| {
                matches!(part, Component::Normal(name) if name != PREPARED && !name.as_encoded_bytes().contains(&0))
            });
            // `a//b` and `a/.` have plain components too.
            let canonical = entry.path.split('/').all(|name| !name.is_empty() && name != ".");
            let parent = entry.path.rsplit_once('/').map_or("", |(parent, _)| parent);
            plain && canonical && seen.get(parent).is_some_and(|folder| *folder)
        };
        let folder = entry.kind == FileKind::Directory;
        if !clean || seen.insert(entry.path.as_str(), folder).is_some() {
            return Err(Errno::EINVAL.into());
        }
    }
    if seen.is_empty() { Err(Errno::ENOENT.into()) } else { Ok(tree.entries.clone()) }
}

/// `a/b/c`, `a/b`, `a`.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors((!path.is_empty()).then_some(path), |path| {
        path.rsplit_once('/').map(|(parent, _)| parent)
    })
}

/// As in the pod, but never set-user-id, since here the owner is the user himself; and what the program may do in the
/// pod as one of the group or as anybody, the user may do here as the owner.
fn permissions(mode: u32) -> Permissions {
    let group_or_other = (mode >> 3 | mode) & 0o7;
    Permissions::from_mode((mode | group_or_other << 6) & 0o1777)
}

#[cfg(test)]
#[path = "tree/tests.rs"]
mod tests;
