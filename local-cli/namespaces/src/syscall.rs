//! The system calls that no crate of ours wraps, each in its safe form.
#![expect(unsafe_code, reason = "system calls without a safe wrapper in nix or socket2")]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use nix::libc;
use tokio::io::{Interest, unix::AsyncFd};

/// A descriptor that becomes readable when the process ends. Close-on-exec by the kernel's own rule.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: two integer arguments.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    owned(fd)
}

/// A nameless file in memory, never executable where the kernel can promise that.
pub(crate) fn memory_file() -> io::Result<OwnedFd> {
    let create = |flags: libc::c_uint| {
        // SAFETY: the name is a nul-terminated literal.
        owned(libc::c_long::from(unsafe { libc::memfd_create(c"devproxy".as_ptr(), flags) }))
    };
    // MFD_NOEXEC_SEAL is unknown (EINVAL) before Linux 6.3 and required where vm.memfd_noexec is 2.
    create(libc::MFD_CLOEXEC | libc::MFD_NOEXEC_SEAL).or_else(|e| match e.raw_os_error() {
        Some(libc::EINVAL) => create(libc::MFD_CLOEXEC),
        _ => Err(e),
    })
}

/// `setsockopt` with an `int`.
pub(crate) fn set_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    const SIZE: libc::socklen_t = 4; // of a c_int
    // SAFETY: the pointer is to a live c_int and the length is its size.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), SIZE) };
    done(libc::c_long::from(result))
}

/// Closes all descriptors after standard error: what a shell left open for us. Only before we open any of our own.
pub fn close_inherited() -> io::Result<()> {
    close_range(3, u32::MAX)
}

/// Closes every descriptor from `first` to `last`.
pub(crate) fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: three integer arguments. Only called at the start of a process, which owns no descriptor but 0 to 2.
    done(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })
}

/// Puts a non-blocking descriptor under the eyes of the current tokio runtime.
pub fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` gives the same open descriptor for its whole life and closes it only when it is dropped,
    // which `AsyncFd` does after it has left the runtime.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

/// Lets this process ignore `signal`.
pub(crate) fn ignore(signal: nix::sys::signal::Signal) -> io::Result<()> {
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigIgn) }?;
    Ok(())
}

/// The user namespace that is the parent of `namespace`; refused with EPERM at the caller's own.
pub(crate) fn parent_namespace(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const NS_GET_PARENT: u64 = 0xb702;
    // SAFETY: this ioctl of nsfs takes no argument.
    owned(libc::c_long::from(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_PARENT as _) }))
}

/// Takes ownership of descriptors that just arrived by `SCM_RIGHTS`.
pub(crate) fn adopt(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel installed this descriptor for us in recvmsg, nobody else knows its number.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A new tmpfs that is mounted nowhere yet; it needs no folder on any disk.
pub(crate) fn tmpfs(mode: u32) -> io::Result<OwnedFd> {
    const FSOPEN_CLOEXEC: u32 = 1;
    const FSMOUNT_CLOEXEC: u32 = 1;
    const SET_STRING: u32 = 1;
    const CREATE: u32 = 6;
    const NOSUID_NODEV: u32 = 0x2 | 0x4;
    let mode = CString::new(format!("{mode:o}"))?;
    // SAFETY: integers, and pointers to nul-terminated strings that live through each call.
    unsafe {
        let context = owned(libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), FSOPEN_CLOEXEC))?;
        let fd = context.as_raw_fd();
        done(libc::syscall(libc::SYS_fsconfig, fd, SET_STRING, c"mode".as_ptr(), mode.as_ptr(), 0))?;
        let none = std::ptr::null::<libc::c_char>();
        done(libc::syscall(libc::SYS_fsconfig, fd, CREATE, none, none, 0))?;
        owned(libc::syscall(libc::SYS_fsmount, fd, FSMOUNT_CLOEXEC, NOSUID_NODEV))
    }
}

/// A copy, mounted nowhere yet, of what is mounted at `path` below `dir`, with all that is mounted further down.
pub(crate) fn copy_mounts(dir: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    const CLONE: i32 = 1;
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags =
        CLONE | libc::O_CLOEXEC | libc::AT_RECURSIVE | libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
    // SAFETY: a live descriptor and a nul-terminated path.
    unsafe { owned(libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags)) }
}

/// Mounts what [`tmpfs`] or [`copy_mounts`] made at `path` below `dir`, or over `dir` itself if that is empty. A symbolic link at the end is not followed.
pub(crate) fn attach(mount: BorrowedFd<'_>, dir: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    const FROM_EMPTY_PATH: u32 = 0x4;
    const TO_EMPTY_PATH: u32 = 0x40;
    let flags = FROM_EMPTY_PATH | if path.as_os_str().is_empty() { TO_EMPTY_PATH } else { 0 };
    let path = CString::new(path.as_os_str().as_bytes())?;
    let (from, to) = (mount.as_raw_fd(), dir.as_raw_fd());
    // SAFETY: live descriptors and nul-terminated paths.
    done(unsafe { libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), to, path.as_ptr(), flags) })
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(fd) {
        // SAFETY: a new descriptor from the kernel, owned by nobody yet.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn done(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
