//! A session on this machine: namespaces, a tunnel with an agent, capture between them, programs inside.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use devproxy_capture::{Capture, CaptureSettings, LocalRoutes, PortRules};
use devproxy_namespaces::{Entrance, Namespaces, Spec};
use devproxy_tunnel::control::Protocol;
use tokio::{runtime::Runtime, task::JoinSet, time::timeout};

use crate::agent::{Pair, pair};

pub(crate) const POD4: Ipv4Addr = Ipv4Addr::new(10, 244, 9, 9);
pub(crate) const POD6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x244, 0, 0, 0, 0, 0, 9);
pub(crate) const NAMESERVER: &str = "10.96.0.10";

const HELPER: &str = "DEVPROXY_TEST_HELPER";
const USER: u32 = 1000;
const LIMIT: Duration = Duration::from_secs(20);

/// Runs `body` as an ordinary user: at once, or as root by starting test `name` of this binary again.
pub(crate) fn as_user(name: &str, body: impl FnOnce()) {
    if !nix::unistd::geteuid().is_root() {
        return body();
    }
    // The build's folder may be closed to others: the helper goes to an open one, this binary is /proc/self/exe.
    let open = tempfile::tempdir().unwrap();
    fs::set_permissions(open.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let helper = open.path().join("helper");
    fs::copy(env!("CARGO_BIN_EXE_capture-probe"), &helper).unwrap();
    let output = Command::new("/proc/self/exe")
        .args(["--exact", name, "--nocapture"])
        .env(HELPER, &helper)
        .uid(USER)
        .gid(USER)
        .current_dir("/")
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "as uid {USER}:\n{said}");
    assert!(said.contains("1 passed"), "`{name}` is not the test's name:\n{said}");
}

fn helper() -> PathBuf {
    env::var_os(HELPER).unwrap_or_else(|| env!("CARGO_BIN_EXE_capture-probe").into()).into()
}

pub(crate) struct Session {
    // Fields are dropped in this order: the runtime last, which all descriptors are registered with.
    pub(crate) tasks: JoinSet<()>,
    pub(crate) pair: Pair,
    pub(crate) capture: Capture,
    namespaces: Arc<Namespaces>,
    pub(crate) runtime: Runtime,
}

pub(crate) fn settings() -> CaptureSettings {
    CaptureSettings {
        addresses: vec![POD4.into(), POD6.into()],
        nameservers: vec![NAMESERVER.parse().unwrap()],
        ports: PortRules { declared: [(Protocol::Tcp, 8080)].into(), ..PortRules::default() },
        hold: LIMIT,
        local: LocalRoutes::default(),
    }
}

impl Session {
    pub(crate) fn start() -> Self {
        Self::with(settings())
    }

    pub(crate) fn with(settings: CaptureSettings) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut tasks = JoinSet::new();
        let addresses: Vec<IpAddr> = settings.addresses.clone();
        let spec = Spec { hostname: "cart-7f2".to_owned(), addresses, mtu: 1450 };
        let (pair, capture, namespaces) = runtime.block_on(async {
            let (namespaces, sockets) = match Namespaces::create(&helper(), &spec).await {
                Ok(made) => made,
                Err(error) => panic!("{error}; hint: {:?}", error.hint()),
            };
            let namespaces = Arc::new(namespaces);
            let (pair, mut incoming) = pair().await;
            let (capture, driver) =
                Capture::start(settings, pair.laptop.clone(), Arc::clone(&namespaces), sockets).unwrap();
            tasks.spawn(async move { driver.await.unwrap() });
            let inbound = capture.clone();
            tasks.spawn(async move {
                while let Some(request) = incoming.next().await {
                    inbound.inbound(request);
                }
            });
            (pair, capture, namespaces)
        });
        Self { tasks, pair, capture, namespaces, runtime }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(helper());
        Entrance::of(self.namespaces.pid()).unwrap().prepare(&mut command, Path::new("/"));
        command
    }

    /// What one of the small programs of `capture-probe` prints inside.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let output = self.command().args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The same for one that serves: it listens when this returns.
    pub(crate) fn keep(&self, arguments: &[&str]) -> Kept {
        let mut child =
            self.command().args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("listening"), "{arguments:?}: {line}");
        Kept { child, stdin }
    }

    /// Drives `future` to its end, which must come.
    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { timeout(LIMIT, future).await.expect("it ends in time") })
    }
}

/// A program that runs until this is dropped.
pub(crate) struct Kept {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        drop(self.stdin.take());
        self.child.wait().unwrap();
    }
}
