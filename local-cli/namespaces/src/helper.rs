//! The process inside: plain, single-threaded, synchronous. It sits in the shell's namespaces and answers the session's
//! requests one after another. A session that ends kills it; one that was killed itself leaves a closed socketpair,
//! and then it hangs up what runs inside before it ends.

mod etc;
mod mirror;
mod mounts;
mod network;
mod places;
mod sockets;
mod tree;

use std::{
    env,
    fs::{self, File},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    process,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        resource::{Resource, setrlimit},
        signal::Signal,
        socket::{SockType, getsockopt, sockopt},
        stat::{Mode, umask},
    },
    unistd,
};

use crate::{
    Entrance, NamespaceError,
    channel::{self, Packet, Reply, Request},
    failure::At,
    syscall,
};
use mounts::Mounts;
use network::Network;
use places::Places;

/// First argument that makes a binary the helper.
pub const ARGUMENT: &str = "__namespaces";

/// Runs the helper if this process was started as one; returns otherwise. Call it first in `main`, before any
/// thread exists.
pub fn main() {
    if env::args_os().nth(1).is_none_or(|argument| argument != ARGUMENT) {
        return;
    }
    // Nobody reads a word from here: the session sees the socket close.
    let Ok((channel, places)) = settle() else { process::exit(125) };
    let mut inside = Inside { places, network: None, mounts: None };
    let served = inside.serve(channel.as_fd());
    inside.end();
    process::exit(i32::from(served.is_err()));
}

/// Lets go of terminal, working directory and inherited descriptors, and takes the channel from descriptor 0.
fn settle() -> io::Result<(OwnedFd, Places)> {
    let canonical = |path: PathBuf| fs::canonicalize(path).ok();
    let places = Places {
        home: env::var_os("HOME").map(PathBuf::from).and_then(canonical),
        project: env::current_dir().ok().and_then(canonical),
    };
    let channel = io::stdin().as_fd().try_clone_to_owned()?;
    if getsockopt(&channel, sockopt::SockType)? != SockType::SeqPacket {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    unistd::dup2_stdin(File::open("/dev/null")?)?;
    close_others(&channel)?;
    // Own session: the terminal's signals are for the program. It ends with the channel, not by a signal.
    let _ = unistd::setsid();
    for signal in
        [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGTERM, Signal::SIGTSTP, Signal::SIGPIPE]
    {
        syscall::ignore(signal)?;
    }
    // Orphans inside become children here, and ignored SIGCHLD lets the kernel reap them.
    syscall::ignore(Signal::SIGCHLD)?;
    // Folders on the way to a volume are 0755, whatever the user's own habit is.
    umask(Mode::from_bits_truncate(0o022));
    // A core file would put the volumes' secrets on the disk.
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    prctl::set_child_subreaper(true)?;
    prctl::set_name(c"devproxy-inside")?;
    env::set_current_dir("/")?;
    Ok((channel, places))
}

/// What the shell before us left open (a pipe of `devproxy … | tee`) must not be held for days.
fn close_others(channel: &OwnedFd) -> io::Result<()> {
    let number = channel.as_raw_fd().cast_unsigned();
    if number > 3 {
        syscall::close_range(3, number - 1)?;
    }
    syscall::close_range(number + 1, u32::MAX)
}

struct Inside {
    places: Places,
    network: Option<Network>,
    mounts: Option<Mounts>,
}

impl Inside {
    fn serve(&mut self, channel: BorrowedFd<'_>) -> io::Result<()> {
        loop {
            match poll(&mut [PollFd::new(channel, PollFlags::POLLIN)], PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(e.into()),
            }
            let Some(Packet { number, message, .. }) = channel::receive::<Request>(channel)? else {
                return Ok(());
            };
            let (reply, fds) = self.answer(message).unwrap_or_else(|e| (refusal(&e), Vec::new()));
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            channel::send(channel, number, &reply, &fds)?;
        }
    }

    /// The session was killed. The terminal process may have been too, and then nobody else ends what runs inside.
    fn end(&self) {
        // Before the namespaces are ours, `inside` would be the whole laptop.
        if self.network.is_none() {
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        if let (Ok(runtime), Ok(inside)) = (runtime, Entrance::of(process::id().cast_signed())) {
            runtime.block_on(inside.hang_up());
        }
    }

    fn answer(&mut self, request: Request) -> Result<(Reply, Vec<OwnedFd>), NamespaceError> {
        match request {
            Request::Create(spec) => {
                let (network, sockets) = Network::create(&spec)?;
                unistd::sethostname(&spec.hostname).at("sethostname")?;
                self.network = Some(network);
                let reply = Reply::Created(sockets.gateway.inventory(), sockets.shell.inventory());
                let mut fds = Vec::new();
                for fd in
                    sockets.gateway.borrowed().chain(sockets.shell.borrowed()).chain([sockets.diag.as_fd()])
                {
                    fds.push(fd.try_clone_to_owned().at("dup")?);
                }
                Ok((reply, fds))
            }
            Request::Sockets(side, family, kind, count) => {
                let network = self.network.as_ref().ok_or(NamespaceError::Gone)?;
                let count = count.min(channel::MOST_SOCKETS);
                let made =
                    network.within(side, || (0..count).map(|_| sockets::plain(family, kind)).collect())?;
                Ok((Reply::Sockets, made))
            }
            Request::Mount(files) => {
                if self.network.is_none() || self.mounts.is_some() {
                    return Err(Errno::EALREADY).at("mount");
                }
                let (mounts, skipped) = Mounts::make(self.places.clone(), &files)?;
                self.mounts = Some(mounts);
                Ok((Reply::Mounted(skipped), Vec::new()))
            }
            Request::Refresh(tree) => {
                self.mounts.as_mut().ok_or(Errno::ENOENT).at("refresh")?.refresh(&tree)?;
                Ok((Reply::Refreshed, Vec::new()))
            }
        }
    }
}

fn refusal(error: &NamespaceError) -> Reply {
    match error {
        NamespaceError::Step { step, source } => {
            Reply::Failed { step: step.clone(), errno: source.raw_os_error().unwrap_or(nix::libc::EIO) }
        }
        NamespaceError::Gone => {
            Reply::Failed { step: "no namespaces yet".to_owned(), errno: nix::libc::EINVAL }
        }
    }
}
