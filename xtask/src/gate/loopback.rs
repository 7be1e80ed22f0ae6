//! The real agent and the laptop's data path, each counted, joined by loopback sockets in a network namespace of their
//! own. This process is the program in the shell and the service in the cluster. All three take strict turns on one
//! processor, so that both do the same in each run, however busy the machine is.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use devproxy_tests::host::namespace::NetworkNamespace;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::counted::{Counted, Counts, Program, Turn};
use super::figures::Figures;

const TUNNEL_PORT: &str = "7001";
const READY_PORT: &str = "7002";
const LIMIT: Duration = Duration::from_mins(1);
const MESSAGE: usize = 64;
/// What a program reads and writes at once.
const CHUNK: usize = 64 << 10;
const MIB: usize = 1 << 20;

/// Buffers that do not grow by the clock, or how much each call finds to read would differ from run to run: bulk cost the
/// agent up to a fifth more, and the laptop an eighth less.
const SOCKETS: [(&str, &str); 3] = [
    ("tcp_moderate_rcvbuf", "0"),
    ("tcp_rmem", "4096 1048576 1048576"),
    ("tcp_wmem", "4096 1048576 1048576"),
];

/// What is done, what one of it is called, and how many.
type Work = (&'static str, &'static str, u32, fn(&Wire, u32) -> Result<()>);

const WORK: [Work; 4] = [
    ("connections", "connection", 200, Wire::connections),
    ("messages", "round trip", 2000, Wire::messages),
    ("bulk down", "MiB", 64, Wire::down),
    ("bulk up", "MiB", 64, Wire::up),
];

/// Counts each work, less what start, first connection and end cost.
pub(super) fn count(agent: &Path, laptop: &Path, figures: &mut Figures) -> Result<()> {
    let processor = processor()?;
    let own = Turn { processor, priority: 30 };
    let agent = Program { path: agent, turn: Turn { processor, priority: 20 } };
    let laptop = Program { path: laptop, turn: Turn { processor, priority: 10 } };
    let network = Network::new()?;
    let counts = |work: &(dyn Fn(&Wire) -> Result<()> + Sync)| {
        network.0.enter(|| {
            own.take()?;
            both(&agent, &laptop, work)
        })
    };
    let bare = counts(&|_| Ok(()))?;
    for (name, unit, count, work) in WORK {
        let all = counts(&|wire| work(wire, count))?;
        for ((side, all), bare) in ["agent", "laptop"].into_iter().zip(all).zip(bare) {
            let Counts { instructions, calls } = all.less(bare);
            let count = f64::from(count);
            figures.set(&format!("{side}, {name}: instructions per {unit}"), instructions / count);
            figures.set(&format!("{side}, {name}: system calls per {unit}"), calls / count);
        }
    }
    Ok(())
}

/// The last one that this process may use; the first has most of a machine's interrupts.
fn processor() -> Result<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    (0..CpuSet::count()).rev().find(|&number| allowed.is_set(number) == Ok(true)).context("no processor")
}

/// Removed when it is dropped.
struct Network(NetworkNamespace);

impl Network {
    fn new() -> Result<Self> {
        let network = Self(NetworkNamespace::create(&format!("devproxy-gate-{}", std::process::id()))?);
        network.0.enter(|| {
            // /proc/sys/net shows the namespace of the thread that opens it.
            for (setting, value) in SOCKETS {
                std::fs::write(format!("/proc/sys/net/ipv4/{setting}"), value)?;
            }
            Ok(())
        })?;
        Ok(network)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = self.0.remove() {
            eprintln!("the gate's network namespace stays: {error:#}");
        }
    }
}

/// What agent and laptop have done once `work` is through.
fn both(
    agent: &Program<'_>,
    laptop: &Program<'_>,
    work: impl Fn(&Wire) -> Result<()>,
) -> Result<[Counts; 2]> {
    let (agent_files, laptop_files) = (TempDir::new()?, TempDir::new()?);
    let key = agent_files.path().join("key");
    std::fs::write(&key, [7; 32])?;
    let key = key.to_str().context("the temporary folder's name is no text")?;
    let mut agent = agent.start(
        agent_files.path(),
        &["--key", key, "--tunnel-port", TUNNEL_PORT, "--ready-port", READY_PORT],
    )?;
    let stderr = agent.child.stderr.take().context("no pipe")?;
    let (_, agent_log) = said(stderr, "waiting for the laptop")?;

    let services = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let target = services.local_addr()?.port().to_string();
    let mut laptop = laptop.start(laptop_files.path(), &["laptop", key, TUNNEL_PORT, &target])?;
    let stdout = laptop.child.stdout.take().context("no pipe")?;
    let (port, _laptop_log) = said(stdout, "listening ").with_context(|| words(&mut laptop))?;
    let wire = Wire { entry: (Ipv4Addr::LOCALHOST, port.trim().parse::<u16>()?).into(), services };
    wire.connections(1)?;
    work(&wire)?;
    let laptop = laptop.end()?;
    let agent = agent.end()?;
    drop(agent_log);
    Ok([agent, laptop])
}

/// Reads until a line holds `wanted`; gives what follows it there, and the pipe, which must stay open.
fn said<R: Read>(pipe: R, wanted: &str) -> Result<(String, BufReader<R>)> {
    let mut pipe = BufReader::new(pipe);
    let mut line = String::new();
    while pipe.read_line(&mut line)? > 0 {
        if let Some((_, rest)) = line.split_once(wanted) {
            return Ok((rest.to_owned(), pipe));
        }
        line.clear();
    }
    bail!("a counted program ended before it said `{wanted}`")
}

fn words(counted: &mut Counted) -> String {
    let mut words = String::new();
    if let Some(stderr) = &mut counted.child.stderr {
        let _ = stderr.read_to_string(&mut words);
    }
    words.trim().to_owned()
}

/// Both ends of what is carried: the program connects to `entry`, the service accepts.
struct Wire {
    entry: SocketAddr,
    services: TcpListener,
}

impl Wire {
    fn connect(&self) -> Result<[TcpStream; 2]> {
        let program = TcpStream::connect(self.entry)?;
        let (service, _) = self.services.accept()?;
        for end in [&program, &service] {
            end.set_nodelay(true)?;
            end.set_read_timeout(Some(LIMIT))?;
            end.set_write_timeout(Some(LIMIT))?;
        }
        Ok([program, service])
    }

    /// One after the other, with one question and one answer each.
    fn connections(&self, count: u32) -> Result<()> {
        for _ in 0..count {
            let [mut program, mut service] = self.connect()?;
            exchange(&mut program, &mut service)?;
            end(&program, &service)?;
        }
        Ok(())
    }

    fn messages(&self, count: u32) -> Result<()> {
        let [mut program, mut service] = self.connect()?;
        for _ in 0..count {
            exchange(&mut program, &mut service)?;
        }
        end(&program, &service)
    }

    fn down(&self, mebibytes: u32) -> Result<()> {
        let [mut program, mut service] = self.connect()?;
        copy(&mut service, &mut program, mebibytes)?;
        end(&program, &service)
    }

    fn up(&self, mebibytes: u32) -> Result<()> {
        let [mut program, mut service] = self.connect()?;
        copy(&mut program, &mut service, mebibytes)?;
        end(&program, &service)
    }
}

fn exchange(program: &mut TcpStream, service: &mut TcpStream) -> Result<()> {
    let mut message = [7; MESSAGE];
    program.write_all(&message)?;
    service.read_exact(&mut message)?;
    service.write_all(&message)?;
    program.read_exact(&mut message)?;
    Ok(())
}

/// Half-close by the program, then by the service.
fn end(program: &TcpStream, service: &TcpStream) -> Result<()> {
    for (first, mut second) in [(program, service), (service, program)] {
        first.shutdown(Shutdown::Write)?;
        if second.read(&mut [0])? != 0 {
            bail!("bytes that nobody wrote");
        }
    }
    Ok(())
}

fn copy(from: &mut TcpStream, to: &mut TcpStream, mebibytes: u32) -> Result<()> {
    let mebibytes = usize::try_from(mebibytes)?;
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| -> Result<()> {
            let chunk = vec![7; CHUNK];
            for _ in 0..mebibytes * (MIB / CHUNK) {
                from.write_all(&chunk)?;
            }
            Ok(())
        });
        let mut chunk = vec![0; CHUNK];
        for _ in 0..mebibytes * (MIB / CHUNK) {
            to.read_exact(&mut chunk)?;
        }
        writing.join().unwrap_or_else(|_| bail!("the writer panicked"))
    })
}
