//! The tokio side of the helper.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use devproxy_tunnel::control::FileTree;
use nix::errno::Errno;
use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    Catchers, Family, Files, Kind, NamespaceError, Side, Skipped, Sockets, Spec,
    channel::{self, Packet, Reply, Request},
    failure::At,
    helper,
    syscall::{self, watch},
};

/// The session's namespaces. Dropping it ends the helper; what still runs inside keeps its namespaces, but no more
/// traffic passes.
///
/// All requests are cancel-safe: the helper finishes what it began, its answer is dropped.
#[derive(Debug)]
pub struct Namespaces {
    pid: i32,
    exit: AsyncFd<OwnedFd>,
    channel: tokio::sync::Mutex<Channel>,
    child: Mutex<Child>,
}

#[derive(Debug)]
struct Channel {
    socket: AsyncFd<OwnedFd>,
    last: u32,
}

impl Namespaces {
    /// Starts `helper` (normally `/proc/self/exe`, whose `main` calls [`helper::main`] first of all) and sets all up.
    pub async fn create(helper: &Path, spec: &Spec) -> Result<(Self, Sockets), NamespaceError> {
        let (ours, theirs) = channel::pair().at("socketpair")?;
        // Descriptor 0 is the channel: nothing else is inherited, nothing stands in argv or the environment
        // but the home folder, which no mount may hide.
        let child = Command::new(helper)
            .arg0("devproxy")
            .arg(helper::ARGUMENT)
            .env_clear()
            .envs(std::env::var_os("HOME").map(|home| ("HOME", home)))
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .at(format!("start {}", helper.display()))?;
        let mut child = Guarded(Some(child));
        let pid = child.pid();
        let exit = syscall::pidfd_open(pid).at("pidfd_open")?;
        let exit = watch(exit, Interest::READABLE).at("poll the helper")?;
        let socket = watch(ours, Interest::READABLE | Interest::WRITABLE).at("poll the helper")?;
        let mut channel = Channel { socket, last: 0 };
        let packet = channel.ask(&Request::Create(spec.clone())).await?;
        let Reply::Created(gateway, shell) = packet.message else { return Err(NamespaceError::Gone) };
        let mut fds = packet.fds.into_iter();
        let sockets = (|| {
            let gateway = Catchers::unpack(Side::Gateway, gateway, &mut fds)?;
            let shell = Catchers::unpack(Side::Shell, shell, &mut fds)?;
            Some(Sockets { gateway, shell, diag: fds.next()? })
        })();
        let sockets = sockets.ok_or(NamespaceError::Gone)?;
        let child = Mutex::new(child.0.take().ok_or(NamespaceError::Gone)?);
        Ok((Self { pid, exit, channel: tokio::sync::Mutex::new(channel), child }, sockets))
    }

    /// Process id of the helper; its namespaces are the shell's.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Mounts the files. Once.
    pub async fn mount(&self, files: &Files) -> Result<Vec<Skipped>, NamespaceError> {
        match self.ask(&Request::Mount(files.clone())).await?.message {
            Reply::Mounted(skipped) => Ok(skipped),
            _ => Err(NamespaceError::Gone),
        }
    }

    /// Replaces one tree atomically (`..data` flip) after a change in the pod.
    ///
    /// A tree that was skipped by [`Namespaces::mount`] is `ENOENT`.
    pub async fn refresh(&self, tree: &FileTree) -> Result<(), NamespaceError> {
        self.ask(&Request::Refresh(tree.clone())).await.map(drop)
    }

    /// Fresh sockets made inside one of the network namespaces, for [`Side::Gateway`] bound to any client's address.
    /// At most 64 at once.
    pub async fn sockets(
        &self,
        side: Side,
        family: Family,
        kind: Kind,
        count: usize,
    ) -> Result<Vec<OwnedFd>, NamespaceError> {
        let count = count.min(channel::MOST_SOCKETS);
        let fds = self.ask(&Request::Sockets(side, family, kind, count)).await?.fds;
        // Descriptors over our own limit are dropped by the kernel without a word.
        if fds.len() < count { Err(Errno::EMFILE).at("receive sockets") } else { Ok(fds) }
    }

    /// Resolves when the helper has ended. Cancel-safe.
    pub async fn ended(&self) {
        // A pidfd stays readable for ever; an error here means that there is nothing left to wait for either.
        if let Ok(mut ready) = self.exit.readable().await {
            ready.retain_ready();
        }
        let _ = self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait();
    }

    async fn ask(&self, request: &Request) -> Result<Packet<Reply>, NamespaceError> {
        self.channel.lock().await.ask(request).await
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        end(self.child.get_mut().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Channel {
    async fn ask(&mut self, request: &Request) -> Result<Packet<Reply>, NamespaceError> {
        self.last = self.last.wrapping_add(1);
        let number = self.last;
        self.socket
            .async_io(Interest::WRITABLE, |socket| channel::send(socket.as_fd(), number, request, &[]))
            .await
            .map_err(lost)?;
        loop {
            let packet = self
                .socket
                .async_io(Interest::READABLE, |socket| channel::receive::<Reply>(socket.as_fd()))
                .await
                .map_err(lost)?
                .ok_or(NamespaceError::Gone)?;
            // An older number answers a request whose future was dropped.
            if packet.number == number {
                return match packet.message {
                    Reply::Failed { step, errno } => {
                        Err(NamespaceError::Step { step, source: io::Error::from_raw_os_error(errno) })
                    }
                    _ => Ok(packet),
                };
            }
        }
    }
}

fn lost(error: io::Error) -> NamespaceError {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => NamespaceError::Gone,
        _ => NamespaceError::Step { step: "talk to the namespace helper".to_owned(), source: error },
    }
}

/// A child that does not outlive a failed or cancelled start.
struct Guarded(Option<Child>);

impl Guarded {
    fn pid(&self) -> i32 {
        self.0.as_ref().map_or(0, |child| child.id().cast_signed())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            end(child);
        }
    }
}

/// Ends and reaps the helper; a few milliseconds, as the kernel takes its mounts apart.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}
