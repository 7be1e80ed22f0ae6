//! Where it is measured: a server and the service to be swapped in the cluster, a pod that asks; and a laptop with a
//! session and a port-forward at the same time, over the same wire.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use devproxy_tests::host::process::{ProcessId, find_all};
use devproxy_tests::{App, Bed, Image, Laptop, Namespace, Run};
use nix::sys::signal::Signal;
use serde_json::json;
use shopd::bench::{BULK_PORT, CHURN_PORTS, UDP_PORT, tcp_ports};
use tokio::sync::Mutex;

use super::Effort;
use super::build::Programs;
use super::columns::Column;
use super::processes::{Memory, Processes, Role, Times};
use super::rows::Row;

/// The service that is asked.
const SERVER: &str = "server";
/// The pod that asks.
pub(super) const CLIENT: &str = "asker";
/// The service whose place the laptop takes.
pub(super) const MINE: &str = "mine";

const LIMIT: Duration = Duration::from_mins(2);
/// For a measurement, beside the time that it measures.
const OVERHEAD: Duration = Duration::from_mins(1);
/// Over which the idle processes' time is counted.
const IDLE: Duration = Duration::from_secs(3);

/// What all scenes share.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) shop: Namespace,
    server_pod: String,
}

impl Stage {
    pub(super) async fn set(bed: &Bed) -> Result<Self> {
        // An error on a cluster of the user's, at once.
        bed.node()?;
        let shop = bed.namespace("bench").await?;
        // First alone: it provides the image that all use.
        shop.run_pod(CLIENT, Image::Bench, &["shopd", "pause"]).await?;
        tokio::try_join!(shop.deploy(server(SERVER)), shop.deploy(server(MINE)))?;
        let pods = shop.get(["pods", "--selector", "app=server"]).await?;
        let server_pod =
            pods["items"][0]["metadata"]["name"].as_str().context("the server has no pod")?.to_owned();
        Ok(Self { shop, server_pod })
    }

    pub(super) async fn clear(self) -> Result<()> {
        self.shop.delete().await
    }
}

/// `shopd bench-server` with all its ports.
fn server(name: &str) -> App {
    let app = App::of(Image::Bench, name)
        .command(["shopd", "bench-server"])
        .container(json!({"readinessProbe": {"tcpSocket": {"port": BULK_PORT}, "periodSeconds": 1}}));
    tcp_ports()
        .fold(app, |app, port| app.port(&format!("tcp-{port}"), port))
        .udp_port(&format!("udp-{UDP_PORT}"), UDP_PORT)
}

/// The wire between laptop and API server. All that the laptop does goes over the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    /// The kernel alone.
    Kernel,
    /// The relay of the bed, with so much delay there and back.
    Relay(Duration),
}

/// A laptop that has swapped a service and forwards ports of another.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    stage: &'a Stage,
    forward: Mutex<Run>,
    swap: Run,
    processes: Processes,
    laptop: Laptop,
}

impl<'a> Scene<'a> {
    pub(super) async fn open(bed: &Bed, stage: &'a Stage, programs: &Programs, wire: Wire) -> Result<Self> {
        let laptop = laptop(bed, stage, programs, wire).await?;
        let mut swap =
            laptop.command("devproxy").args(["swap", MINE, "--", "shopd", "bench-server"]).spawn()?;
        swap.wait_for("handover", LIMIT).await?;
        stage.shop.until_swapped(MINE).await?;
        let forward = forward(&laptop, &stage.server_pod).await?;
        let processes = find(stage, &laptop, &swap, &forward).await?;
        let scene = Self { stage, forward: Mutex::new(forward), swap, processes, laptop };
        // kube-proxy needs a moment after the handover.
        let words = ["shopd", "bench", "latency", MINE, "--millis", "1"];
        let shop = &stage.shop;
        shop.until("the first answer of the laptop", LIMIT, async || shop.exec(CLIENT, words).await.is_ok())
            .await?;
        Ok(scene)
    }

    /// What the load printed.
    pub(super) async fn measure(&self, column: Column, row: &Row, effort: &Effort) -> Result<String> {
        let mut time = if row.is_bulk() { effort.bulk } else { effort.other };
        let mut words = vec![row.kind.to_owned()];
        let mut flag = |name: &str, value: String| words.extend([name.to_owned(), value]);
        flag("--connections", row.connections.to_string());
        if row.once {
            time = LIMIT;
            flag("--count", effort.churn.to_string());
        }
        flag("--millis", time.as_millis().to_string());
        flag("--name", format!("{SERVER}.{}.svc.cluster.local", self.stage.shop.name()));
        let measured = tokio::time::timeout(time + OVERHEAD, self.run(column, words));
        measured.await.context("the load did not end")?
    }

    async fn run(&self, column: Column, words: Vec<String>) -> Result<String> {
        let limit = LIMIT + OVERHEAD;
        let (kind, flags) = words.split_first().context("no kind of load")?;
        let load = |host: &str| {
            let fixed = ["shopd", "bench", kind, host].map(str::to_owned);
            fixed.into_iter().chain(flags.iter().cloned()).collect::<Vec<_>>()
        };
        let shop = &self.stage.shop;
        let exit = match column {
            Column::Direct => return shop.exec(CLIENT, load(SERVER)).await,
            Column::Inbound => return shop.exec(CLIENT, load(MINE)).await,
            Column::PortForward => {
                self.keep_forwarding().await?;
                let words = load("127.0.0.1");
                self.laptop.command("shopd").args(words.into_iter().skip(1)).output(limit).await?
            }
            Column::Pump => {
                let words = [self.stage.server_pod.clone()].into_iter().chain(words);
                self.laptop.command("devproxy-pump").args(words).output(limit).await?
            }
            Column::Outbound => self.shell(load(SERVER))?.output(limit).await?,
        };
        Ok(exit.success()?.stdout)
    }

    /// A command in the session's shell.
    pub(super) fn shell(&self, words: Vec<String>) -> Result<devproxy_tests::laptop::LaptopCommand<'_>> {
        if !self.swap.is_running() {
            bail!("the session has ended: {}", self.swap.printed());
        }
        Ok(self.laptop.command("devproxy").args(["exec", "--"]).args(words))
    }

    pub(super) fn shop(&self) -> &Namespace {
        &self.stage.shop
    }

    pub(super) fn server() -> &'static str {
        SERVER
    }

    pub(super) fn processes(&self) -> &Processes {
        &self.processes
    }

    pub(super) fn times(&self) -> Times {
        self.processes.times()
    }

    /// Memory, and percent of one processor.
    pub(super) async fn idle_usage(&self) -> Result<(BTreeMap<Role, Memory>, BTreeMap<Role, f64>)> {
        let before = self.times();
        tokio::time::sleep(IDLE).await;
        let busy = self.times().into_iter().filter_map(|(role, time)| {
            let spent = time.saturating_sub(*before.get(&role)?);
            Some((role, spent.as_secs_f64() / IDLE.as_secs_f64() * 100.0))
        });
        Ok((self.processes.memory()?, busy.collect()))
    }

    pub(super) fn usage(&self) -> Result<(BTreeMap<Role, Memory>, Times)> {
        Ok((self.processes.memory()?, self.times()))
    }

    /// Ends the session in order.
    pub(super) async fn close(mut self) -> Result<()> {
        self.swap.signal(Signal::SIGTERM)?;
        let exit = self.swap.wait(LIMIT).await?;
        if exit.code() == 125 {
            bail!("the session failed: {}", exit.stderr);
        }
        self.stage.shop.ready(MINE).await
    }

    /// kubectl leaves when a forwarded connection fails in a way that it does not like.
    async fn keep_forwarding(&self) -> Result<()> {
        let mut run = self.forward.lock().await;
        if !run.is_running() {
            eprintln!("kubectl port-forward has left and is started again: {}", last_line(&run.printed()));
            *run = forward(&self.laptop, &self.stage.server_pod).await?;
        }
        Ok(())
    }
}

pub(super) async fn laptop(bed: &Bed, stage: &Stage, programs: &Programs, wire: Wire) -> Result<Laptop> {
    let laptop = match wire {
        Wire::Kernel => bed.laptop_without_relay().await?,
        Wire::Relay(_) => bed.laptop().await?,
    };
    laptop.login(&stage.shop).await?;
    laptop.install("devproxy", &programs.devproxy)?;
    laptop.install("devproxy-pump", &programs.pump)?;
    if let Wire::Relay(delay) = wire {
        laptop.relay().delay(delay / 2);
    }
    Ok(laptop)
}

async fn forward(laptop: &Laptop, pod: &str) -> Result<Run> {
    let ports = tcp_ports().map(|port| port.to_string());
    let mut run = laptop.command("kubectl").args(["port-forward", pod]).args(ports).spawn()?;
    for port in tcp_ports() {
        run.wait_for(&format!("Forwarding from 127.0.0.1:{port}"), LIMIT).await?;
    }
    debug_assert!(CHURN_PORTS.len() > 1, "one port alone would run out");
    Ok(run)
}

async fn find(stage: &Stage, laptop: &Laptop, swap: &Run, forward: &Run) -> Result<Processes> {
    let mut all = BTreeMap::new();
    for process in laptop.processes() {
        match process.words().get(1).map(String::as_str) {
            Some("__session") => drop(all.insert(Role::Session, process)),
            Some("__namespaces") => drop(all.insert(Role::Namespaces, process)),
            _ => {}
        }
    }
    let own = [(Role::Terminal, swap.pid()), (Role::PortForward, forward.pid())];
    all.extend(own.into_iter().filter_map(|(role, pid)| Some((role, ProcessId::of(pid)?))));
    all.extend(stage.shop.agents().await?.into_iter().map(|process| (Role::Agent, process)));
    // Of the bed's own node: its programs run nowhere else.
    for (role, name) in [(Role::ApiServer, "/kube-apiserver"), (Role::Kubelet, "/kubelet")] {
        let mut named = find_all(|_| true);
        named.retain(|process| process.words().first().is_some_and(|word| word.ends_with(name)));
        all.extend(named.into_iter().map(|process| (role, process)));
    }
    for role in [Role::Session, Role::Namespaces, Role::Agent, Role::Terminal] {
        if !all.contains_key(&role) {
            bail!("no {} runs", role.name());
        }
    }
    Ok(Processes { all })
}

fn last_line(text: &str) -> &str {
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default()
}
