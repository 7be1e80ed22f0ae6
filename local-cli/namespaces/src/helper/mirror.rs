//! Folders to which entries can be added although the user may not write there: a tmpfs takes the folder's place, and
//! every entry of the folder is mounted into it.
//!
//! A mirror is a snapshot of names: what the laptop adds to the folder itself later is not seen, what changes further
//! down is. An overlay would show both, but Unix sockets reached through one refuse connections.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, open, openat, readlinkat},
    libc,
    mount::{MntFlags, umount2},
    sys::stat::{FileStat, Mode, SFlag, fstatat, mkdirat},
    unistd::{AccessFlags, access, chdir, fchdir, pivot_root, symlinkat},
};

use crate::syscall;

/// More mounts than this are not worth one path.
const MOST_ENTRIES: usize = 2000;

/// Puts a mirror in the place of `folder`, which must exist. Gives the mirror's device number, and whether the user
/// could write to the folder itself.
pub(super) fn mirror(folder: &Path) -> io::Result<(u64, bool)> {
    let original = open(folder, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let names = match fs::read_dir(folder) {
        Ok(entries) => {
            entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>()?
        }
        // /root: nothing below can be reached by the user, so nothing is lost.
        Err(e)
            if e.kind() == io::ErrorKind::PermissionDenied && access(folder, AccessFlags::X_OK).is_err() =>
        {
            Vec::new()
        }
        Err(e) => return Err(e),
    };
    if names.len() > MOST_ENTRIES {
        return Err(Errno::E2BIG.into());
    }
    let writable = access(folder, AccessFlags::W_OK).is_ok();
    let mirror = syscall::tmpfs(fs::metadata(folder)?.mode() & 0o1777)?;
    let mut bound = Vec::new();
    for name in names {
        let name = Path::new(&name);
        // Gone meanwhile.
        let Ok(stat) = fstatat(&original, name, AtFlags::AT_SYMLINK_NOFOLLOW) else { continue };
        if place(&original, &mirror, name, &stat)? {
            bound.push(name.to_owned());
        }
    }
    let device = File::from(mirror.try_clone()?).metadata()?.dev();
    let root = folder == Path::new("/");
    syscall::attach(mirror.as_fd(), original.as_fd(), Path::new(""))?;
    for name in bound {
        // What cannot be copied (unbindable, gone) stays an empty entry.
        if let Ok(copy) = syscall::copy_mounts(original.as_fd(), &name) {
            let _ = syscall::attach(copy.as_fd(), mirror.as_fd(), &name);
        }
    }
    if root {
        enter(original.as_fd(), mirror.as_fd())?;
    }
    Ok((device, writable))
}

/// Makes room for one entry; false when there is nothing to mount on it.
fn place(original: &OwnedFd, mirror: &OwnedFd, name: &Path, stat: &FileStat) -> io::Result<bool> {
    match SFlag::from_bits_truncate(stat.st_mode & libc::S_IFMT) {
        SFlag::S_IFLNK => {
            symlinkat(readlinkat(original, name)?.as_os_str(), mirror, name)?;
            return Ok(false);
        }
        SFlag::S_IFDIR => mkdirat(mirror, name, Mode::from_bits_truncate(0o755))?,
        _ => drop(openat(
            mirror,
            name,
            OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC,
            Mode::from_bits_truncate(0o644),
        )?),
    }
    Ok(!name.as_os_str().as_bytes().is_empty())
}

/// Makes the mirror of `/` the root of the namespace. Not chroot, which forbids user namespaces inside.
fn enter(old: BorrowedFd<'_>, new: BorrowedFd<'_>) -> io::Result<()> {
    fchdir(new)?;
    pivot_root(".", ".")?;
    // Both are mounted at / now, the old one on top.
    fchdir(old)?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    Ok(())
}
