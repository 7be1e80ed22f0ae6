//! A session with a shell on a terminal is worked in as in any terminal.

use std::time::Duration;

use anyhow::{Result, ensure};
use devproxy_tests::{App, Bed, Namespace};

const SWAP: Duration = Duration::from_mins(1);
const RESTORE: Duration = Duration::from_mins(2);
const SOON: Duration = Duration::from_secs(20);

async fn until_answered_by(shop: &Namespace, version: &str) -> Result<()> {
    let wanted = format!("{version}\n");
    shop.until(version, SWAP, async || {
        shop.ask("http://cart:8080/version").await.is_ok_and(|answer| answer == wanted)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_on_a_terminal_has_job_control_and_gives_the_terminal_back() -> Result<()> {
    let bed = Bed::get().await?;
    let shop = bed.namespace("terminal").await?;
    shop.deploy(App::shop("cart")).await?;
    shop.client().await?;
    let laptop = bed.laptop().await?;
    laptop.login(&shop).await?;
    let before = shop.objects().await?;
    laptop.devproxy(["--version"])?.output(SOON).await?.success()?;

    // From an interactive shell, as a person does; and with the product's own idea of what a shell is.
    let mut terminal =
        laptop.command("bash").args(["--norc", "-i"]).env("PS1", "outer> ").terminal().spawn()?;
    terminal.write("stty -a | md5sum; echo sane-$((0 + 1))\n")?;
    terminal.wait_for("sane-1", SOON).await?;
    let settings = line_before(&terminal.printed(), "sane-1");
    terminal.write("devproxy swap cart\n")?;
    terminal.wait_for("waiting until something listens", SWAP).await?;
    terminal.write("echo inner-$((1 + 1)) $DEVPROXY_SESSION; tty; stty size\n")?;
    terminal.wait_for("inner-2", SOON).await?;
    terminal.wait_for("/dev/pts/", SOON).await?;
    terminal.wait_for("24 100", SOON).await?;

    // Run, end by Ctrl-C, run again.
    terminal.write("VERSION=first shopd\n")?;
    terminal.wait_for("cart first listens on 8080", SOON).await?;
    terminal.wait_for("handover", SWAP).await?;
    until_answered_by(&shop, "first").await?;
    terminal.write("\x03")?;
    terminal.write("echo ended-$?-$((1 + 2))\n")?;
    terminal.wait_for("ended-", SOON).await?;
    terminal.wait_for("-3", SOON).await?;
    terminal.write("VERSION=second shopd\n")?;
    terminal.wait_for("cart second listens on 8080", SOON).await?;
    until_answered_by(&shop, "second").await?;

    // Ctrl-Z stops it, the shell goes on; `fg` continues it with what has waited.
    terminal.write("\x1a")?;
    terminal.wait_for("Stopped", SOON).await?;
    terminal.write("jobs; echo waiting-$((2 + 2))\n")?;
    terminal.wait_for("waiting-4", SOON).await?;
    let waiting = shop.ask("http://cart:8080/version");
    let resumed = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        terminal.write("fg\n")
    };
    let (answer, resumed) = tokio::join!(waiting, resumed);
    resumed?;
    ensure!(answer? == "second\n");
    until_answered_by(&shop, "second").await?;
    terminal.write("\x03")?;
    terminal.write("echo ended-$((2 + 3))\n")?;
    terminal.wait_for("ended-5", SOON).await?;

    // A session in a session is refused before anything is made.
    terminal.write("devproxy swap cart\n")?;
    terminal.wait_for("no other session can begin in it [DP-NAMESPACES]", SOON).await?;

    // The shell's end is the session's end; its code is ours, and the outer shell has its terminal as it was.
    terminal.write("exit 7\n")?;
    terminal.wait_for("restore", RESTORE).await?;
    terminal.write("echo code-$?; stty -a | md5sum; echo sane-$((3 + 3))\n")?;
    terminal.wait_for("code-7", RESTORE).await?;
    terminal.wait_for("sane-6", SOON).await?;
    ensure!(line_before(&terminal.printed(), "sane-6") == settings, "{}", terminal.printed());
    shop.ready("cart").await?;
    before.require_same(&shop.objects().await?)?;
    terminal.write("exit\n")?;
    terminal.wait(SOON).await?.success()?;
    Ok(())
}

/// The line of the output before the one that begins with `mark`.
fn line_before(printed: &str, mark: &str) -> String {
    let mut last = "";
    // Behind a carriage return lies what the shell says to the terminal.
    for line in printed.lines().filter_map(|line| line.trim_matches('\r').rsplit('\r').next()) {
        if line.starts_with(mark) {
            break;
        }
        last = line;
    }
    last.to_owned()
}
