//! What a connection costs on which nothing happens, on either side.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use shopd::bench::result::Idle;

use super::Effort;
use super::figures::Figures;
use super::processes::Role;
use super::scene::{CLIENT, MINE, Scene};

const LIMIT: Duration = Duration::from_mins(2);
/// Opened before the first measurement, so that what is made once does not count.
const FIRST: usize = 100;
/// Until closed connections are gone on both sides.
const SETTLE: Duration = Duration::from_secs(2);
const ROLES: [Role; 2] = [Role::Session, Role::Agent];

pub(super) async fn measure(scene: &Scene<'_>, effort: &Effort, figures: &mut Figures) -> Result<()> {
    outbound(scene, FIRST, async || Ok(())).await?;
    inbound(scene, FIRST, async || Ok(())).await?;
    tokio::time::sleep(SETTLE).await;
    let before: Vec<f64> = resident(scene)?;
    for count in effort.idle {
        for way in ["outbound", "inbound"] {
            effort.tell(&format!("idle-flows: {count} {way}"));
            let mut after = Vec::new();
            let look = async || {
                after = resident(scene)?;
                Ok(())
            };
            let opened = if way == "outbound" {
                outbound(scene, *count, look).await?
            } else {
                inbound(scene, *count, look).await?
            };
            #[expect(clippy::cast_precision_loss, reason = "some thousands")]
            let (open, failed) = (opened.open as f64, opened.failed as f64);
            for (role, (before, after)) in ROLES.iter().zip(before.iter().zip(&after)) {
                let each = (after - before) / 1024.0 / open.max(1.0);
                figures.put("idle-flows", &format!("KiB each, {count} {way}"), role.name(), each);
            }
            figures.put("idle-flows", &format!("failed, {count} {way}"), "client", failed);
            tokio::time::sleep(SETTLE).await;
        }
    }
    Ok(())
}

fn resident(scene: &Scene<'_>) -> Result<Vec<f64>> {
    ROLES.iter().map(|role| scene.processes().rss(*role)).collect()
}

/// Looks while they are open.
async fn outbound(scene: &Scene<'_>, count: usize, look: impl AsyncFnOnce() -> Result<()>) -> Result<Idle> {
    let mut run = scene.shell(load(Scene::server(), count))?.spawn()?;
    let line = run.wait_for("{\"open\"", LIMIT).await?;
    look().await?;
    run.close_input();
    run.wait(LIMIT).await?.success()?;
    parse(&line)
}

async fn inbound(scene: &Scene<'_>, count: usize, look: impl AsyncFnOnce() -> Result<()>) -> Result<Idle> {
    let shop = scene.shop();
    let mut command = shop.cluster().kubectl().command();
    command.args(["--namespace", shop.name(), "exec", "--stdin", CLIENT, "--"]);
    command.args(load(MINE, count)).stdin(Stdio::piped()).stdout(Stdio::piped());
    let opening = tokio::task::spawn_blocking(move || -> Result<(Child, String)> {
        let mut child = command.spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().context("no pipe")?).read_line(&mut line)?;
        Ok((child, line))
    });
    let (mut child, line) =
        tokio::time::timeout(LIMIT, opening).await.context("they were not opened")???;
    look().await?;
    // Its standard input ends, and with it the load.
    drop(child.stdin.take());
    tokio::task::spawn_blocking(move || child.wait()).await??;
    parse(&line)
}

fn load(host: &str, count: usize) -> Vec<String> {
    ["shopd", "bench", "idle", host, "--connections", &count.to_string()].map(str::to_owned).into()
}

fn parse(line: &str) -> Result<Idle> {
    if line.trim().is_empty() {
        bail!("the load opened nothing");
    }
    serde_json::from_str(line.trim()).with_context(|| format!("no result: {line}"))
}
