//! `devproxy exec` joins a running session: environment, files, network and ports of the pod, exit codes of a shell.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use devproxy_tests::host::packages;
use devproxy_tests::{App, Bed, Exit, Laptop, Namespace};
use nix::sys::signal::Signal;
use serde_json::json;

const SWAP: Duration = Duration::from_mins(1);
const RESTORE: Duration = Duration::from_mins(2);
const DONE: Duration = Duration::from_mins(1);
/// The kubelet looks at a ConfigMap again once a minute, when nothing wakes it.
const KUBELET: Duration = Duration::from_mins(2);
/// Addresses of the laptop: named with `--local`, had by a name that is, and neither.
const LOCAL: &str = "192.0.2.7";
const BEHIND_NAME: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
const OTHER: &str = "192.0.2.8";
const NAME: &str = "laptop.test";

async fn exec(laptop: &Laptop, words: &[&str]) -> Result<Exit> {
    laptop.devproxy(["exec", "cart", "--"].iter().chain(words).copied())?.output(DONE).await
}

async fn said(laptop: &Laptop, words: &[&str]) -> Result<String> {
    Ok(exec(laptop, words).await?.success()?.stdout.trim_end().to_owned())
}

fn settings(colour: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"colour": colour},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_terminal_is_in_the_same_pod() -> Result<()> {
    packages::require_laptop()?;
    let bed = Bed::get().await?;
    let shop = bed.namespace("join").await?;
    shop.apply(&settings("green")).await?;
    shop.deploy(App::shop("cart").env("MULTI", "a\nb").volume(
        "settings",
        "/app/settings",
        json!({"configMap": {"name": "settings"}}),
    ))
    .await?;
    shop.client().await?;
    let laptop = bed.laptop().await?;
    laptop.login(&shop).await?;
    for address in [LOCAL, OTHER, &BEHIND_NAME.to_string()] {
        laptop.network().ip(&["address", "add", &format!("{address}/32"), "dev", "lo"])?;
    }
    resolve_on(&laptop)?;
    let words = [
        "swap",
        "cart",
        "--port",
        "8080:3000",
        "--local",
        LOCAL,
        "--local",
        NAME,
        "--",
        "env",
        "PORT=3000",
        "shopd",
    ];
    let mut swap = laptop.devproxy(words)?.env("VERSION", "mine").spawn()?;
    swap.wait_for("handover", SWAP).await?;
    shop.until_swapped("cart").await?;
    // The program listens on 3000, the pod's port is 8080.
    ensure!(shop.ask("http://cart:8080/version").await? == "mine\n");
    let local: SocketAddr = shop.ask("http://cart:8080/local").await?.trim().parse()?;
    let pod = local.ip().to_string();

    // It is the pod: environment, host name, DNS, the session's own program on localhost.
    ensure!(said(&laptop, &["printenv", "MULTI"]).await? == "a\nb");
    ensure!(said(&laptop, &["hostname"]).await? == shop.ask("http://cart:8080/host").await?.trim());
    ensure!(said(&laptop, &["cat", "/app/settings/colour"]).await? == "green");
    ensure!(said(&laptop, &["cat", "/etc/resolv.conf"]).await?.contains(shop.name()));
    ensure!(said(&laptop, &["curl", "-sS", "http://127.0.0.1:3000/version"]).await? == "mine");
    ensure!(said(&laptop, &["curl", "-sS", "http://cart:8080/version"]).await? == "mine");

    exit_codes(&laptop).await?;
    what_is_named_goes_out_through_the_laptop(&laptop).await?;
    ports_open_by_the_table(&shop, &laptop, &pod).await?;
    files_follow_their_config_map(&shop, &laptop).await?;

    let mut joined =
        laptop.devproxy(["exec", "cart", "--", "bash", "-c", "echo up; exec sleep 3600"])?.spawn()?;
    joined.wait_for("up", DONE).await?;
    swap.signal(Signal::SIGTERM)?;
    swap.wait(RESTORE).await?.success()?;
    let exit = joined.wait(DONE).await?;
    assert_eq!(
        (exit.stderr.as_str(), exit.code()),
        ("  … the session has ended, and the program with it\n", 129)
    );
    shop.ready("cart").await
}

#[tokio::test(flavor = "multi_thread")]
async fn from_inside_ones_own_sessions_are_known() -> Result<()> {
    let bed = Bed::get().await?;
    let shop = bed.namespace("inside").await?;
    shop.deploy(App::shop("cart").replicas(0)).await?;
    shop.deploy(App::shop("card").replicas(0)).await?;
    let laptop = bed.laptop().await?;
    laptop.login(&shop).await?;
    let server = laptop.api_server();
    // The laptop's way to the API server is none of the pod's.
    let local = server.split(':').next().unwrap_or_default();
    let mut sessions = Vec::new();
    for name in ["cart", "card"] {
        let words = ["swap", name, "--local", local, "--", "bash", "-c", "trap 'exit 0' TERM; read end"];
        let mut swap = laptop.devproxy(words)?.spawn()?;
        swap.wait_for("handover", SWAP).await?;
        sessions.push(swap);
    }
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"since [0-9TZ:-]+ \(session [a-z0-9]{10}\)", "since THEN (session ID)");
    settings.add_filter(r"by .* on .* since", "by USER on HOST since");
    settings.add_filter(r"\([a-z0-9]{10}\)", "(ID)");
    let _filters = settings.bind_to_scope();
    let told = |exit: &Exit| {
        let text = format!("exit code {}\n{}{}", exit.code(), exit.stdout, exit.stderr);
        text.replace(shop.name(), "NAMESPACE")
    };
    let outside = laptop.devproxy(["exec", "--", "true"])?.output(DONE).await?;
    ensure!(outside.stderr.contains("DP-WHICH-SESSION"), "{outside:?}");
    insta::assert_snapshot!(told(&exec(&laptop, &["devproxy", "exec", "--", "printenv", "DEVPROXY_SESSION"]).await?), @"
    exit code 0
    NAMESPACE/cart
    ");
    insta::assert_snapshot!(told(&exec(&laptop, &["devproxy", "exec", "--", "bash", "-c", "exit 7"]).await?), @"exit code 7");
    insta::assert_snapshot!(told(&exec(&laptop, &["devproxy", "exec", "card", "--", "true"]).await?), @"
    exit code 125
    error: from the shell of one session no other can be joined [DP-NAMESPACES]
    hint: join it in a terminal outside of the session
    ");
    insta::assert_snapshot!(told(&exec(&laptop, &["devproxy", "swap", "card", "--", "true"]).await?), @"
    exit code 125
    error: this is the shell of NAMESPACE/cart: no other session can begin in it [DP-NAMESPACES]
    hint: begin it in another terminal, outside of the session
    ");
    // With the pod's own login, to which nobody shall grant what the developer has.
    let status = exec(&laptop, &["env", "KUBECONFIG=/none", "devproxy", "status"]).await?;
    insta::assert_snapshot!(status.stderr.replace(shop.name(), "NAMESPACE"), @"  ! user `system:serviceaccount:NAMESPACE:default` may not list leases in namespace `NAMESPACE` [DP-FORBIDDEN]");
    for mut swap in sessions {
        swap.write("end\n")?;
        swap.wait(RESTORE).await?;
    }
    Ok(())
}

async fn exit_codes(laptop: &Laptop) -> Result<()> {
    for (words, code) in [
        (&["bash", "-c", "exit 7"][..], 7),
        (&["bash", "-c", "kill -TERM $$"], 143),
        (&["bash", "-c", "kill -KILL $$"], 137),
        (&["no-such-program"], 127),
        (&["/etc/passwd"], 126),
    ] {
        let exit = exec(laptop, words).await?;
        ensure!(exit.code() == code, "{words:?}: {exit:?}");
    }
    let mut waiting = laptop.devproxy(["exec", "cart", "--", "bash", "-c", "echo up; read"])?.spawn()?;
    waiting.wait_for("up", DONE).await?;
    waiting.signal(Signal::SIGTERM)?;
    let exit = waiting.wait(DONE).await?;
    ensure!(exit.code() == 143, "{exit:?}");
    let none = laptop.devproxy(["exec", "nobody", "--", "true"])?.output(DONE).await?;
    ensure!(none.code() == 125 && none.stderr.contains("DP-NO-SESSION"), "{none:?}");
    Ok(())
}

async fn what_is_named_goes_out_through_the_laptop(laptop: &Laptop) -> Result<()> {
    laptop.write_file("www/index.html", 0o644, b"the laptop")?;
    let words = ["-u", "-m", "http.server", "--directory", "www", "--bind", "0.0.0.0", "8000"];
    let mut server = laptop.command("python3").args(words).spawn()?;
    server.wait_for("Serving", DONE).await?;
    let ask = |address: &str| format!("http://{address}:8000/");
    ensure!(said(laptop, &["curl", "-sS", &ask(LOCAL)]).await? == "the laptop");
    ensure!(said(laptop, &["curl", "-sS", &ask(NAME)]).await? == "the laptop");
    let found = said(laptop, &["dig", "+short", NAME]).await?;
    ensure!(found == BEHIND_NAME.to_string(), "{found}");
    let other = exec(laptop, &["curl", "-sS", "--max-time", "3", &ask(OTHER)]).await?;
    ensure!(other.code() != 0 && other.stdout.is_empty(), "the laptop is reached without --local: {other:?}");
    Ok(())
}

/// A nameserver where the laptop looks for one: every name has the same IPv4 address.
fn resolve_on(laptop: &Laptop) -> Result<()> {
    let configuration = std::fs::read_to_string("/etc/resolv.conf")?;
    let server = configuration.lines().find_map(|line| line.strip_prefix("nameserver "));
    let server: IpAddr = server.context("the machine has no nameserver")?.trim().parse()?;
    if !server.is_loopback() {
        let device = ["address", "add", &server.to_string(), "dev", "lo"];
        laptop.network().ip(&device)?;
    }
    let socket = laptop.network().enter(|| Ok(UdpSocket::bind((server, 53))?))?;
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut question) {
            if let Some(answer) = answer(&question[..length]) {
                let _ = socket.send_to(&answer, client);
            }
        }
    });
    Ok(())
}

/// RFC 1035, section 4: the question again, and an address if one is asked for.
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let end = 12 + question.get(12..)?.iter().position(|byte| *byte == 0)? + 5;
    let is_address = question.get(end - 4..end)? == [0, 1, 0, 1];
    let mut answer = question.get(..2)?.to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
    answer.extend(&question[12..end]);
    if is_address {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(BEHIND_NAME.octets());
    }
    Some(answer)
}

async fn ports_open_by_the_table(shop: &Namespace, laptop: &Laptop, pod: &str) -> Result<()> {
    let serve = |port: &str, bind: &str| {
        let words = ["exec", "cart", "--", "python3", "-u", "-m", "http.server", "--bind", bind, port];
        laptop.devproxy(words)?.folder(laptop.home().join("www")).spawn()
    };
    let from_pod = async |port: &str| shop.ask(&format!("http://{pod}:{port}/")).await;
    let from_laptop = async |port: &str| {
        let url = format!("http://127.0.0.1:{port}/");
        laptop.command("curl").args(["-sS", "--retry-connrefused", "--retry", "5", &url]).output(DONE).await
    };

    // A debugger's port: on the laptop only, whatever it is bound to.
    let mut debugger = serve("5678", "0.0.0.0")?;
    debugger.wait_for("Serving", DONE).await?;
    // It is told where the debugger was started.
    debugger.wait_for("  … 127.0.0.1:5678 on this machine reaches the program\n", DONE).await?;
    ensure!(from_laptop("5678").await?.success()?.stdout == "the laptop");
    let refused = from_pod("5678").await;
    ensure!(refused.as_ref().is_err_and(|error| error.to_string().contains("refused")), "{refused:?}");

    // An undeclared port on all addresses: in the pod while it is listened on.
    let mut server = serve("7070", "0.0.0.0")?;
    server.wait_for("Serving", DONE).await?;
    shop.until("the pod's port 7070", DONE, async || {
        from_pod("7070").await.is_ok_and(|answer| answer == "the laptop")
    })
    .await?;
    server.signal(Signal::SIGTERM)?;
    server.wait(DONE).await?;
    shop.until("the end of the pod's port 7070", DONE, async || {
        from_pod("7070").await.is_err_and(|error| error.to_string().contains("refused"))
    })
    .await?;

    // On loopback only: the pod's loopback, and the laptop's.
    let mut private = serve("7071", "127.0.0.1")?;
    private.wait_for("Serving", DONE).await?;
    ensure!(from_laptop("7071").await?.success()?.stdout == "the laptop");
    let inside = stand_in(shop).await?;
    let within = shop.exec(&inside, ["shopd", "ask", "http://127.0.0.1:7071/"]).await?;
    ensure!(within == "the laptop", "{within}");
    ensure!(from_pod("7071").await.is_err());
    Ok(())
}

async fn stand_in(shop: &Namespace) -> Result<String> {
    let names = shop.kubectl(["get", "pods", "-o", "name"]).await?;
    Ok(names.lines().find(|name| name.contains("-devproxy-")).context("no stand-in")?.to_owned())
}

async fn files_follow_their_config_map(shop: &Namespace, laptop: &Laptop) -> Result<()> {
    let pod = stand_in(shop).await?;
    // It prints each colour once, and what is neither.
    let script = "while :; do now=$(cat /app/settings/colour); [ \"$now\" = \"$old\" ] || echo \"now $now.\"; \
        old=$now; sleep 0.05; done";
    let mut watching = laptop.devproxy(["exec", "cart", "--", "bash", "-c", script])?.spawn()?;
    watching.wait_for("now green.", DONE).await?;
    shop.apply(&settings("blue")).await?;
    // A change of the pod wakes the kubelet.
    shop.kubectl(["annotate", &pod, "bed.devproxy.dev/woken=yes"]).await?;
    shop.until("the change in the pod", KUBELET, async || {
        shop.exec(&pod, ["cat", "/app/settings/colour"]).await.is_ok_and(|colour| colour == "blue")
    })
    .await?;
    watching.wait_for("now blue.", Duration::from_secs(2)).await?;
    ensure!(watching.printed().lines().count() == 2, "{}", watching.printed());
    Ok(())
}
