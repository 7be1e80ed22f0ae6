//! A session on this machine: namespaces, and programs inside.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
};

use devproxy_namespaces::{Entrance, Namespaces, Sockets, Spec};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use tokio::runtime::Runtime;

pub(crate) const POD4: Ipv4Addr = Ipv4Addr::new(10, 244, 9, 9);
pub(crate) const POD6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x244, 0, 0, 0, 0, 0, 9);

const HELPER: &str = "DEVPROXY_TEST_HELPER";
const USER: u32 = 1000;

static SPAWNING: Mutex<()> = Mutex::new(());

/// Runs `body` as an ordinary user: at once, or as root by starting test `name` of this binary again.
pub(crate) fn as_user(name: &str, body: impl FnOnce()) {
    if !nix::unistd::geteuid().is_root() {
        return body();
    }
    // What else happens on the machine must not look like a trace of ours. Only this thread and its child move.
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    let program = fs::read(env!("CARGO_BIN_EXE_namespaces-helper")).unwrap();
    mount(Some("tmpfs"), "/tmp", Some("tmpfs"), MsFlags::empty(), Some("mode=1777")).unwrap();
    // The build's folder may be closed to others: the helper goes to an open one, this binary is /proc/self/exe.
    let open = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(open.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let helper = open.path().join("helper");
    // A child of another test would inherit the file while it is written, and then it cannot be executed (ETXTBSY).
    let alone = SPAWNING.lock().unwrap();
    fs::write(&helper, program).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let child = Command::new("/proc/self/exe")
        .args(["--exact", name, "--nocapture"])
        .env(HELPER, &helper)
        .env("HOME", open.path())
        .uid(USER)
        .gid(USER)
        .current_dir("/")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(alone);
    let output = child.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "as uid {USER}:\n{said}");
    assert!(said.contains("1 passed"), "`{name}` is not the test's name:\n{said}");
}

/// What is mounted here. The kernel takes away what others on the machine remove, so only additions tell of us.
pub(crate) fn mounts() -> BTreeSet<String> {
    fs::read_to_string("/proc/self/mounts").unwrap().lines().map(str::to_owned).collect()
}

pub(crate) fn helper() -> PathBuf {
    env::var_os(HELPER).unwrap_or_else(|| env!("CARGO_BIN_EXE_namespaces-helper").into()).into()
}

pub(crate) struct Session {
    // Before the runtime, which its descriptors are registered with.
    pub(crate) namespaces: Arc<Namespaces>,
    pub(crate) runtime: Runtime,
}

pub(crate) fn spec(addresses: &[IpAddr]) -> Spec {
    Spec { hostname: "cart-7f2".to_owned(), addresses: addresses.to_vec(), mtu: 1450 }
}

impl Session {
    pub(crate) fn start() -> (Self, Sockets) {
        Self::with(&spec(&[POD4.into(), POD6.into()]))
    }

    pub(crate) fn with(spec: &Spec) -> (Self, Sockets) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (namespaces, sockets) = match runtime.block_on(Namespaces::create(&helper(), spec)) {
            Ok(made) => made,
            Err(e) => panic!("{e}; hint: {:?}", e.hint()),
        };
        (Self { namespaces: Arc::new(namespaces), runtime }, sockets)
    }

    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        Entrance::of(self.namespaces.pid()).unwrap().prepare(&mut command, Path::new("/"));
        command
    }

    /// What one of the small programs of `namespaces-helper` prints inside.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(&helper()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The same for one that stays: its first line has arrived when this returns.
    pub(crate) fn keep(&self, arguments: &[&str]) -> Kept {
        Kept::start(self.command(&helper()).args(arguments))
    }
}

/// A program that runs until this is dropped.
pub(crate) struct Kept {
    child: Child,
    stdin: Option<ChildStdin>,
    pub(crate) line: String,
}

impl Kept {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, stdin, line }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        drop(self.stdin.take());
        self.child.wait().unwrap();
    }
}
