//! What services say to each other passes as between two pods: the client runs in a session's shell, the server in
//! another one's on another laptop, so all of it goes out through one and comes in through the other.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use devproxy_tests::host::process::ProcessId;
use devproxy_tests::host::{packages, program};
use devproxy_tests::{App, Bed, Image, Laptop, Namespace, Run};

const SHELL: Duration = Duration::from_mins(1);
const RESTORE: Duration = Duration::from_mins(2);
/// For any amount that is asked for here, on a busy machine.
const DONE: Duration = Duration::from_mins(5);
/// Sockets that a session keeps ready for the next connections, at most: two families of two namespaces.
const SPARE: usize = 4 * 24;
const PEERS: &str = include_str!("traffic/peers.py");

/// Two developers of one namespace, one of whom serves for `cart` while the other one asks it.
struct Scene {
    shop: Namespace,
    server: (Laptop, Run),
    client: (Laptop, Run),
}

impl Scene {
    async fn new(bed: &Bed, purpose: &str) -> Result<Self> {
        packages::require_laptop()?;
        let shop = bed.namespace(purpose).await?;
        let ports = [("talk", 7000), ("grpc", 7001), ("websocket", 7002), ("tls", 7003)];
        let cart = App::of(Image::Shop, "cart").replicas(0);
        shop.start(ports.into_iter().fold(cart, |app, (name, number)| app.port(name, number))).await?;
        shop.deploy(App::shop("orders")).await?;
        let laptops = [bed.laptop().await?, bed.laptop().await?];
        for laptop in &laptops {
            laptop.login(&shop).await?;
            laptop.write_file("peers.py", 0o644, PEERS.as_bytes())?;
        }
        let [server, client] = laptops;
        certificates(&server, &client)?;
        let serves = ["swap", "cart", "--", "python3", "peers.py", "serve"];
        let mut swap = server.devproxy(serves)?.spawn()?;
        swap.wait_for("serving", SHELL).await?;
        shop.until_swapped("cart").await?;
        let waits = ["shell", "--like", "orders", "--", "bash", "-c", "echo the shell is there; read"];
        let mut shell = client.devproxy(waits)?.spawn()?;
        shell.wait_for("the shell is there", SHELL).await?;
        Ok(Self { shop, server: (server, swap), client: (client, shell) })
    }

    /// Has the client check these, as peers.py names them.
    async fn check(&self, checks: &[&str]) -> Result<()> {
        let words = ["exec", "--", "python3", "peers.py", "ask", "cart"].iter().chain(checks).copied();
        let exit = self.client.0.devproxy(words)?.output(DONE).await?.success()?;
        println!("{}", exit.stdout);
        let checked: Vec<_> =
            exit.stdout.lines().filter_map(|line| line.strip_prefix("as expected: ")).collect();
        ensure!(checked == checks, "{exit:?}");
        Ok(())
    }

    /// Open files of all processes that carry the traffic: what a connection could leave behind.
    async fn open_files(&self) -> Result<Vec<(&'static str, usize)>> {
        let mut found = Vec::new();
        for (name, laptop) in [("server's", &self.server.0), ("client's", &self.client.0)] {
            for process in [laptop.session_process()?, laptop.helper()?] {
                found.push((name, open_files(&process)?));
            }
        }
        let agents = self.shop.agents().await?;
        ensure!(agents.len() == 2, "{agents:?}");
        for agent in agents {
            found.push(("agent", open_files(&agent)?));
        }
        Ok(found)
    }

    async fn end(mut self) -> Result<()> {
        self.client.1.write("\n")?;
        self.client.1.wait(RESTORE).await?.success()?;
        self.server.1.signal(nix::sys::signal::Signal::SIGTERM)?;
        self.server.1.wait(RESTORE).await?;
        self.shop.ready("cart").await
    }
}

/// One for `shop.test`, that both sides know.
fn certificates(server: &Laptop, client: &Laptop) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let [key, certificate] = ["key.pem", "certificate.pem"].map(|name| folder.path().join(name));
    program::output(
        std::process::Command::new("openssl")
            .args(["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec", "-pkeyopt"])
            .args(["ec_paramgen_curve:prime256v1", "-subj", "/CN=shop.test"])
            .args(["-addext", "subjectAltName=DNS:shop.test", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&certificate),
    )?;
    server.write_file("key.pem", 0o600, &fs::read(key)?)?;
    for laptop in [server, client] {
        laptop.write_file("certificate.pem", 0o644, &fs::read(&certificate)?)?;
    }
    Ok(())
}

fn open_files(process: &ProcessId) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{}/fd", process.pid))?.count())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_speaks_first_closes_half_or_resets_is_heard_as_between_pods() -> Result<()> {
    let bed = Bed::get().await?;
    let scene = Scene::new(&bed, "traffic").await?;
    scene.check(&["half-close", "resets", "refused-upload=20000000", "tls", "websocket", "grpc"]).await?;
    scene.check(&["at-once=250", "stalled", "exchange=1000000000"]).await?;
    scene.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_by_the_thousand_leave_nothing_behind() -> Result<()> {
    let bed = Bed::get().await?;
    let scene = Scene::new(&bed, "churn").await?;
    scene.check(&["churn=1000"]).await?;
    let before = scene.open_files().await?;
    scene.check(&["aborts=200", "idle=10000", "churn=20000"]).await?;
    let mut after = Vec::new();
    let released = scene
        .shop
        .until("all connections' files closed", RESTORE, async || {
            after = scene.open_files().await.unwrap_or_default();
            after.iter().zip(&before).all(|((_, after), (_, before))| *after <= before + SPARE)
        })
        .await;
    ensure!(released.is_ok(), "before {before:?}, after {after:?}");
    scene.end().await
}
