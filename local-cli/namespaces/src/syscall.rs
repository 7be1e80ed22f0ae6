//! The system calls that no crate of ours wraps, each in its safe form.
#![expect(unsafe_code, reason = "system calls without a safe wrapper in nix or socket2")]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
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
    // SAFETY: the pointer is to a live c_int and the length is its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    done(libc::c_long::from(result))
}

/// Closes every descriptor from `first` to `last`.
pub(crate) fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: three integer arguments. Only called at the start of the helper, which owns no descriptor but 0 to 2.
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

/// Takes ownership of descriptors that just arrived by SCM_RIGHTS.
pub(crate) fn adopt(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel installed this descriptor for us in recvmsg, nobody else knows its number.
    unsafe { OwnedFd::from_raw_fd(fd) }
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
