//! The way into a session's namespaces for a program.

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt, process::CommandExt},
    },
    path::Path,
    process::{self, Command},
    sync::Arc,
};

use nix::libc;

use crate::syscall;

/// The way into a session's namespaces for a program.
///
/// It keeps the namespaces themselves open, so that it knows who is inside after the helper has ended.
#[derive(Debug, Clone)]
pub struct Entrance {
    pid: i32,
    helper: Arc<OwnedFd>,
    net: Arc<File>,
    user: Arc<File>,
}

impl Entrance {
    /// Through the helper's pid (a pidfd is taken at once).
    pub fn of(helper: i32) -> io::Result<Self> {
        let pidfd = syscall::pidfd_open(helper)?;
        let open = |kind| File::open(format!("/proc/{helper}/ns/{kind}")).map(Arc::new);
        Ok(Self { pid: helper, helper: Arc::new(pidfd), net: open("net")?, user: open("user")? })
    }

    /// To what is left of a session whose own processes are all dead: by any process that has `variable` with this
    /// value in its environment, in a user namespace below ours.
    pub fn left_behind(variable: &str, value: &str) -> Option<Self> {
        let marker = format!("{variable}={value}").into_bytes();
        let own = namespace(process::id().cast_signed(), "user").ok()?;
        let has_it = |pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|entry| entry == marker)
        };
        processes().ok()?.filter(has_it).find_map(|pid| Self::from_inside(pid, own, has_it).ok())
    }

    fn from_inside(pid: i32, outside: (u64, u64), has_it: impl Fn(&i32) -> bool) -> io::Result<Self> {
        let helper = Arc::new(syscall::pidfd_open(pid)?);
        let net = Arc::new(File::open(format!("/proc/{pid}/ns/net"))?);
        let mut user = File::open(format!("/proc/{pid}/ns/user"))?;
        // It may have made one of its own: the session's is above it. But the session may itself have been below ours: in a
        // container, whose other processes have nothing to do with it.
        loop {
            let parent = File::from(syscall::parent_namespace(user.as_fd())?);
            let above = identity(&parent.metadata()?);
            let mut there =
                processes()?.filter(|pid| namespace(*pid, "user").is_ok_and(|user| user == above));
            let is_foreign =
                there.next().is_some_and(|first| !has_it(&first) && !there.any(|pid| has_it(&pid)));
            if above == outside || is_foreign {
                return Ok(Self { pid: 0, helper, net, user: Arc::new(user) });
            }
            user = parent;
        }
    }

    /// Process ids of all processes inside, without the helper; also after it has ended.
    ///
    /// Inside is what shares the shell's network namespace, or has the session's user namespace or one made in it (a
    /// rootless container). A process of another user is never inside and is passed over.
    pub fn inhabitants(&self) -> io::Result<Vec<i32>> {
        let (net, user) = (identity(&self.net.metadata()?), identity(&self.user.metadata()?));
        // Errors: it has ended meanwhile, or is another user's.
        let inside = |pid| -> io::Result<bool> { Ok(namespace(pid, "net")? == net || descends(pid, user)?) };
        Ok(processes()?.filter(|pid| *pid != self.pid && inside(*pid).unwrap_or(false)).collect())
    }

    /// Makes `command` run inside: user, mount, UTS and the shell's network namespace, in `directory`, without any
    /// capability, signals as a shell's child has them.
    ///
    /// `spawn` fails with `ESRCH` when the helper has ended, and with the folder's own error when `directory` cannot
    /// be entered inside.
    pub fn prepare(&self, command: &mut Command, directory: &Path) {
        let helper = Arc::clone(&self.helper);
        let directory = CString::new(directory.as_os_str().as_bytes());
        let enter = move || {
            let Ok(directory) = &directory else { return Err(io::Error::from_raw_os_error(libc::EINVAL)) };
            enter(helper.as_raw_fd(), directory)
        };
        #[expect(unsafe_code, reason = "namespaces are entered between fork and exec")]
        // SAFETY: `enter` only makes system calls; all memory it uses was allocated before the fork.
        unsafe {
            command.pre_exec(enter);
        }
    }
}

#[expect(unsafe_code, reason = "runs between fork and exec, where only bare system calls are allowed")]
fn enter(helper: libc::c_int, directory: &CString) -> io::Result<()> {
    let namespaces = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWNET;
    // SAFETY: system calls with integers and pointers to live, properly sized values.
    unsafe {
        // All at once: the user namespace comes first, its capabilities open the others.
        check(libc::setns(helper, namespaces))?;
        check(libc::chdir(directory.as_ptr()))?;
        // For uid 0 exec would give the capabilities back, hence the bounding set as well.
        let mut capability: libc::c_ulong = 0;
        while libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) == 0 {
            capability += 1;
        }
        let _ = libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        // _LINUX_CAPABILITY_VERSION_3; two words of effective, permitted, inheritable each.
        let header: [u32; 2] = [0x2008_0522, 0];
        let none = [0_u32; 6];
        check(libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()))?;
        for signal in 1..=libc::SIGRTMAX() {
            if signal != libc::SIGKILL && signal != libc::SIGSTOP {
                // glibc keeps two real-time signals for itself and refuses them.
                let _ = libc::signal(signal, libc::SIG_DFL);
            }
        }
        let mut nothing: libc::sigset_t = std::mem::zeroed();
        check(libc::sigemptyset(&raw mut nothing))?;
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const nothing, std::ptr::null_mut()))?;
    }
    Ok(())
}

fn check(result: impl Into<i64>) -> io::Result<()> {
    if result.into() < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// [`Entrance::inhabitants`] by the helper's pid, while it lives.
pub fn inhabitants(helper: i32) -> io::Result<Vec<i32>> {
    Entrance::of(helper)?.inhabitants()
}

/// Process ids of all processes that `/proc` shows.
pub fn processes() -> io::Result<impl Iterator<Item = i32>> {
    Ok(fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()))
}

fn namespace(pid: i32, kind: &str) -> io::Result<(u64, u64)> {
    fs::metadata(format!("/proc/{pid}/ns/{kind}")).map(|metadata| identity(&metadata))
}

fn identity(namespace: &fs::Metadata) -> (u64, u64) {
    (namespace.dev(), namespace.ino())
}

/// Whether a process's user namespace is `ancestor` or was made inside of it. The kernel nests at most 32 deep, and
/// ends the walk at our own namespace.
fn descends(pid: i32, ancestor: (u64, u64)) -> io::Result<bool> {
    let mut namespace = File::open(format!("/proc/{pid}/ns/user"))?;
    loop {
        if identity(&namespace.metadata()?) == ancestor {
            return Ok(true);
        }
        match syscall::parent_namespace(namespace.as_fd()) {
            Ok(parent) => namespace = parent.into(),
            Err(_) => return Ok(false),
        }
    }
}
