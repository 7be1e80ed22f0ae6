//! Debuggers on the laptop, outside of the session, stop the program in it as any other; the cluster waits and loses
//! nothing.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use devproxy_tests::host::packages;
use devproxy_tests::{App, Bed, Image, Laptop, Namespace, Run};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const SWAP: Duration = Duration::from_mins(1);
const RESTORE: Duration = Duration::from_mins(2);
const SOON: Duration = Duration::from_secs(30);
/// How long the program stands at its breakpoint.
const STOPPED: Duration = Duration::from_mins(1);

const SERVER: &str = "const http = require('http');
function handle(request) {
  return 'local ' + request.url;
}
http.createServer((request, response) => response.end(handle(request))).listen(8080);
";
const INSPECTOR: &str = include_str!("debuggers/inspector.py");

/// The stand-in's only pod.
async fn stand_in(shop: &Namespace) -> Result<Value> {
    let pods = shop.get(["pods"]).await?;
    let found = pods["items"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|pod| pod["metadata"]["name"].as_str().is_some_and(|name| name.contains("-devproxy-")));
    found.cloned().context("no stand-in")
}

/// What a restart or a new pod would change.
fn lives(pod: &Value) -> Value {
    let containers = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    json!([pod["metadata"]["uid"], containers.map(|one| one["restartCount"].clone()).collect::<Vec<_>>()])
}

/// A request of the cluster that may take minutes.
async fn patient_request(shop: &Namespace, path: &str) -> Result<String> {
    let url = format!("http://web:8080/{path}");
    shop.exec(shop.client().await?, ["shopd", "ask", &url, "180"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breakpoint_of_a_minute_breaks_nothing() -> Result<()> {
    let bed = Bed::get().await?;
    let shop = bed.namespace("inspector").await?;
    let original = "require('http').createServer((_, response) => response.end('original')).listen(8080)";
    let ready = json!({"tcpSocket": {"port": 8080}, "periodSeconds": 1});
    // A liveness probe that would kill it within seconds.
    let alive = json!({"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1, "failureThreshold": 3});
    shop.deploy(
        App::of(Image::Node, "web")
            .port("http", 8080)
            .args(["-e", original])
            .container(json!({"readinessProbe": ready, "livenessProbe": alive}))
            .pod(json!({"terminationGracePeriodSeconds": 1})),
    )
    .await?;
    shop.client().await?;
    let laptop = bed.laptop().await?;
    laptop.login(&shop).await?;
    laptop.write_file("server.js", 0o644, SERVER.as_bytes())?;
    laptop.write_file("inspector.py", 0o644, INSPECTOR.as_bytes())?;
    let words = ["swap", "web", "--", "node", "--inspect=127.0.0.1:9229", "server.js"];
    let mut swap = laptop.devproxy(words)?.spawn()?;
    swap.wait_for("handover", SWAP).await?;
    shop.until_swapped("web").await?;
    let before = stand_in(&shop).await?;
    ensure!(patient_request(&shop, "first").await? == "local /first");
    no_debugger_in_the_pod(&shop, &before).await?;

    // The line of `return`, counted from 0.
    let mut debugger = laptop.command("python3").args(["inspector.py", "2"]).spawn()?;
    debugger.wait_for("set", SOON).await?;
    let requests = async { tokio::try_join!(patient_request(&shop, "a"), patient_request(&shop, "b")) };
    let stop = async {
        debugger.wait_for("paused in handle", SOON).await?;
        tokio::time::sleep(STOPPED).await;
        ensure!(swap.is_running());
        debugger.write("go on\n")?;
        debugger.wait_for("resumed", SOON).await
    };
    let (answers, _) = tokio::try_join!(requests, stop)?;
    ensure!(answers == ("local /a".to_owned(), "local /b".to_owned()), "{answers:?}");

    for number in 0..20 {
        let path = number.to_string();
        ensure!(patient_request(&shop, &path).await? == format!("local /{path}"));
    }
    let after = stand_in(&shop).await?;
    ensure!(lives(&before) == lives(&after), "{} is not {}", lives(&before), lives(&after));
    end(&shop, swap).await
}

async fn no_debugger_in_the_pod(shop: &Namespace, pod: &Value) -> Result<()> {
    let address = pod["status"]["podIP"].as_str().context("no address")?;
    let pod = pod["metadata"]["name"].as_str().context("no name")?;
    let (from_outside, from_inside) =
        (format!("http://{address}:9229/json"), "http://127.0.0.1:9229/json".to_owned());
    let outside = shop.exec(shop.client().await?, ["shopd", "ask", &from_outside]);
    let look = format!("require('http').get('{from_inside}').on('error', error => {{ throw error }})");
    let inside = shop.exec(pod, ["node", "-e", &look]);
    for answer in [outside.await, inside.await] {
        let refused =
            answer.as_ref().is_err_and(|error| error.to_string().to_lowercase().contains("refused"));
        ensure!(refused, "the debugger's port in the pod: {answer:?}");
    }
    Ok(())
}

async fn end(shop: &Namespace, mut swap: Run) -> Result<()> {
    swap.signal(Signal::SIGTERM)?;
    swap.wait(RESTORE).await?;
    shop.ready("web").await
}

#[tokio::test(flavor = "multi_thread")]
async fn gdb_stops_the_program_while_requests_wait() -> Result<()> {
    packages::require_laptop()?;
    let bed = Bed::get().await?;
    let shop = bed.namespace("gdb").await?;
    shop.deploy(App::shop("web")).await?;
    shop.client().await?;
    let laptop = bed.laptop().await?;
    laptop.login(&shop).await?;
    let mut swap = laptop.devproxy(["swap", "web", "--", "shopd"])?.env("VERSION", "mine").spawn()?;
    swap.wait_for("handover", SWAP).await?;
    shop.until_swapped("web").await?;
    let before = stand_in(&shop).await?;
    let pid = program(&laptop)?;

    let words = ["-p", &pid, "-batch", "-ex", "bt", "-ex", "echo stopped\\n", "-ex", "shell sleep 60"];
    let mut gdb = laptop.command("gdb").args(words).env("DEBUGINFOD_URLS", "").spawn()?;
    gdb.wait_for("stopped", SOON).await?;
    let (one, other) =
        tokio::try_join!(patient_request(&shop, "version"), patient_request(&shop, "version"))?;
    ensure!(one == "mine\n" && other == one, "{one} {other}");
    let gdb = gdb.wait(SOON).await?.success()?;
    ensure!(gdb.stdout.contains("#0 "), "{gdb:?}");

    for _ in 0..20 {
        ensure!(patient_request(&shop, "version").await? == "mine\n");
    }
    ensure!(lives(&before) == lives(&stand_in(&shop).await?));
    end(&shop, swap).await
}

fn program(laptop: &Laptop) -> Result<String> {
    let name = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let found = laptop.processes().into_iter().find(|process| name(process.pid).trim() == "shopd");
    Ok(found.context("no shopd runs")?.pid.to_string())
}
