//! Real programs work in the shell as they do in a pod: each finds the cluster by its own means.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use devproxy_tests::host::{packages, program::output};
use devproxy_tests::node::cache_folder;
use devproxy_tests::{App, Bed, Exit, Laptop, Namespace, Run};
use sha2::{Digest as _, Sha256};

const SHELL: Duration = Duration::from_mins(1);
const RESTORE: Duration = Duration::from_mins(2);
const DONE: Duration = Duration::from_mins(1);

/// `devproxy shell`, which takes nobody's place, with something in it that waits for its end.
async fn shell(laptop: &Laptop) -> Result<Run> {
    let waits = ["shell", "--like", "cart", "--", "bash", "-c", "echo the shell is there; read"];
    let mut run = laptop.devproxy(waits)?.spawn()?;
    run.wait_for("the shell is there", SHELL).await?;
    Ok(run)
}

/// What `words` does in the shell.
async fn exec(laptop: &Laptop, words: &[&str]) -> Result<Exit> {
    laptop.devproxy(["exec", "--"].iter().chain(words).copied())?.output(DONE).await
}

/// What `words` prints in the shell.
async fn said(laptop: &Laptop, words: &[&str]) -> Result<String> {
    Ok(exec(laptop, words).await?.success()?.stdout.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn real_programs_reach_the_cluster_from_a_shell_that_takes_nobodys_place() -> Result<()> {
    packages::require_laptop()?;
    let bed = Bed::get().await?;
    let shop = bed.namespace("programs").await?;
    tokio::try_join!(
        shop.deploy(App::shop("cart")),
        shop.deploy(App::redis("redis")),
        shop.deploy(App::postgres("postgres")),
    )?;
    let laptop = bed.laptop().await?;
    laptop.login(&shop).await?;
    let before = shop.objects().await?;
    let _included = SshConfiguration::included()?;
    let mut shell = shell(&laptop).await?;

    curl(&laptop).await?;
    resolvers(&laptop, &shop).await?;
    interpreters(&laptop, &shop).await?;
    a_static_go_program(&laptop).await?;
    redis(&laptop).await?;
    postgres(&laptop).await?;
    git_over_ssh(&laptop).await?;

    shell.write("\n")?;
    shell.wait(RESTORE).await?.success()?;
    before.require_same(&shop.objects().await?)
}

async fn curl(laptop: &Laptop) -> Result<()> {
    for family in ["-4", "-6"] {
        let name = said(laptop, &["curl", "-sS", family, "http://cart:8080/env/NAME"]).await?;
        ensure!(name == "cart", "{family}: {name}");
    }
    let script = "head -c 3000000 /dev/urandom >body; \
        curl -sS --data-binary @body http://cart:8080/echo | cmp - body && echo same";
    ensure!(said(laptop, &["bash", "-c", script]).await? == "same");
    let refused = exec(laptop, &["curl", "-sS", "http://127.0.0.1:9/"]).await?;
    ensure!(refused.code() == 7 && refused.stderr.contains("127.0.0.1 port 9"), "{refused:?}");
    let missing = exec(laptop, &["curl", "-sS", "http://missing.default.svc.cluster.local/"]).await?;
    ensure!(missing.code() == 6, "{missing:?}");
    Ok(())
}

async fn resolvers(laptop: &Laptop, shop: &Namespace) -> Result<()> {
    let service = shop.get(["service", "cart"]).await?;
    let address = service["spec"]["clusterIPs"][0].as_str().unwrap_or_default();
    let full = format!("cart.{}.svc.cluster.local", shop.name());
    let found = said(laptop, &["getent", "ahostsv4", "cart"]).await?;
    ensure!(found.starts_with(address) && found.contains(&full), "{found}");
    let found = said(laptop, &["dig", "+short", "+search", "cart"]).await?;
    ensure!(found == address, "{found}");
    let found = said(laptop, &["busybox", "nslookup", &full]).await?;
    ensure!(found.contains(address), "{found}");
    let found = said(laptop, &["busybox", "wget", "-qO-", "http://cart:8080/env/NAME"]).await?;
    ensure!(found == "cart", "{found}");
    Ok(())
}

async fn interpreters(laptop: &Laptop, shop: &Namespace) -> Result<()> {
    let python =
        "import urllib.request; print(urllib.request.urlopen('http://cart:8080/env/NAME').read().decode())";
    ensure!(said(laptop, &["python3", "-c", python]).await? == "cart");
    // `lookup` is getaddrinfo, `resolve` is its own resolver.
    let node = format!(
        "const dns = require('dns').promises;
        const full = 'cart.{}.svc.cluster.local';
        (async () => {{
            const own = await dns.resolve4(full), system = await dns.lookup('cart', {{family: 4}});
            const six = await dns.resolve6(full), service = await dns.resolveSrv('_http._tcp.' + full);
            const missing = await dns.resolve4('missing.default.svc.cluster.local').catch(error => error.code);
            const answer = await fetch('http://cart:8080/env/NAME');
            console.log(own[0] === system.address, six.length, service[0].port, missing, await answer.text());
        }})()",
        shop.name()
    );
    let found = said(laptop, &["node", "-e", &node]).await?;
    ensure!(found == "true 1 8080 ENOTFOUND cart", "{found}");
    Ok(())
}

async fn a_static_go_program(laptop: &Laptop) -> Result<()> {
    laptop.install("go-ask", &go_program()?)?;
    let found = said(laptop, &["go-ask", "cart"]).await?;
    ensure!(found == "2 addresses\nmissing: true\ntcp4 true\ntcp6 true\ncart", "{found}");
    Ok(())
}

/// Built once, kept in the bed's cache.
fn go_program() -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/ask.go");
    let digest = format!("{:x}", Sha256::digest(fs::read(&source)?));
    let program = cache_folder()?.join("programs").join(format!("ask-{}", &digest[..16]));
    if !program.exists() {
        let unfinished = program.with_extension(std::process::id().to_string());
        output(
            Command::new("go")
                .args(["build", "-trimpath", "-o"])
                .arg(&unfinished)
                .arg(&source)
                .env("CGO_ENABLED", "0"),
        )?;
        fs::rename(&unfinished, &program)?;
    }
    Ok(program)
}

async fn redis(laptop: &Laptop) -> Result<()> {
    let cli = ["redis-cli", "-h", "redis"];
    let told = async |words: &[&str]| said(laptop, &[&cli[..], words].concat()).await;
    ensure!(told(&["SET", "colour", "green"]).await? == "OK");
    ensure!(told(&["GET", "colour"]).await? == "green");
    let words =
        ["redis-benchmark", "-h", "redis", "-n", "5000", "-c", "50", "-P", "4", "-t", "set,get", "--csv"];
    let found = said(laptop, &words).await?;
    println!("{found}");
    ensure!(found.contains("\"SET\"") && found.contains("\"GET\""), "{found}");
    Ok(())
}

async fn postgres(laptop: &Laptop) -> Result<()> {
    let psql = ["psql", "-h", "postgres", "-U", "postgres", "-Atc"];
    let rows =
        said(laptop, &[&psql[..], &["select sum(n) from generate_series(1, 1000) n"]].concat()).await?;
    ensure!(rows == "500500", "{rows}");
    let rows =
        said(laptop, &[&psql[..], &["select repeat('x', 100) from generate_series(1, 20000)"]].concat())
            .await?;
    ensure!(rows.lines().count() == 20_000);
    Ok(())
}

/// A file that the system's configuration of ssh includes, while it lives.
struct SshConfiguration(PathBuf);

impl SshConfiguration {
    fn included() -> Result<Self> {
        let included = Self("/etc/ssh/ssh_config.d/50-devproxy-test.conf".into());
        fs::write(&included.0, "Host devproxy-included\n  HostName 127.0.0.1\n  Port 9\n")?;
        Ok(included)
    }
}

impl Drop for SshConfiguration {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Root's files look like nobody's in the shell, and ssh refuses to include such.
async fn git_over_ssh(laptop: &Laptop) -> Result<()> {
    laptop.write_file(".ssh/config", 0o600, b"Host devproxy-own\n  HostName 127.0.0.1\n  Port 9\n")?;
    for host in ["devproxy-own", "devproxy-included"] {
        let settings = exec(laptop, &["ssh", "-G", host]).await?.success()?;
        ensure!(
            !settings.stderr.contains("Bad owner") && settings.stdout.contains("hostname 127.0.0.1\n"),
            "{settings:?}"
        );
        let asked = exec(laptop, &["git", "ls-remote", &format!("ssh://git@{host}/shop.git")]).await?;
        ensure!(asked.stderr.contains("port 9: Connection refused"), "{asked:?}");
    }
    Ok(())
}
