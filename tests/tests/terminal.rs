//! At the terminal devproxy behaves as other tools: pipes that close, colours, narrow windows, settings.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use devproxy_tests::{App, Bed, Laptop, Namespace};
use nix::sys::signal::Signal;

const SOON: Duration = Duration::from_secs(20);
/// From Enter to the handover, with a pod to be started on a busy machine, and back.
const SESSION: Duration = Duration::from_mins(3);

async fn place(bed: &Bed, purpose: &str) -> Result<(Namespace, Laptop)> {
    let shop = bed.namespace(purpose).await?;
    shop.deploy(App::shop("cart").replicas(0)).await?;
    let laptop = bed.laptop().await?;
    laptop.login(&shop).await?;
    laptop.install_product_as("devproxy")?;
    Ok((shop, laptop))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_is_no_failure() -> Result<()> {
    let bed = Bed::get().await?;
    let (_shop, laptop) = place(&bed, "pipes").await?;
    for (words, reader) in [
        ("--help", "true"),
        ("swap --help", "head -n 1"),
        ("swap cart --dry-run", "head -n 0"),
        ("swap cart --dry-run -o json", "head -n 1"),
        ("swap cart --dry-run -o yaml", "true"),
        ("status", "head -n 0"),
        ("status -o json", "true"),
        ("config", "true"),
        ("completions zsh", "true"),
    ] {
        let script = format!("devproxy {words} | {reader}; echo \"code ${{PIPESTATUS[0]}}\"");
        let exit = laptop.command("bash").args(["-c", &script]).output(SOON).await?;
        let code = exit.stdout.lines().last().unwrap_or_default();
        ensure!(["code 0", "code 141"].contains(&code), "{words}: {exit:?}");
        ensure!(!exit.stderr.contains("panicked"), "{words}: {exit:?}");
    }
    // Whoever cannot be told that he made a mistake still gets the exit code.
    let closed = "devproxy swap cart --zzz 2>&-; echo $?; devproxy swap cart --zzz 2> >(true); echo $?";
    let exit = laptop.command("bash").args(["-c", closed]).output(SOON).await?;
    assert_eq!(exit.stdout, "125\n125\n", "{exit:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_stderr_does_not_stop_the_restore() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = place(&bed, "deaf").await?;
    let before = shop.objects().await?;
    for (flags, how) in [("", "2>&-"), ("", "2> >(head -n 1 > first)"), ("-v", "2> >(true)")] {
        let script = format!("devproxy swap cart {flags} --handover now -- true {how}; echo code $?");
        let exit = laptop.command("bash").args(["-c", &script]).output(SESSION).await?;
        ensure!(exit.stdout.contains("code 0"), "{how}: {exit:?}");
        before.require_same(&shop.objects().await?).with_context(|| format!("{how}: {exit:?}"))?;
    }
    Ok(())
}

/// The text without what moves the cursor or colours it, a line for each line of the screen.
fn plain(printed: &str) -> Vec<String> {
    let mut text = String::new();
    let mut rest = printed.chars();
    while let Some(character) = rest.next() {
        match character {
            '\x1b' => {
                let _ = rest.by_ref().skip(1).find(char::is_ascii_alphabetic);
            }
            '\r' => text.push('\n'),
            other => text.push(other),
        }
    }
    text.lines().map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()).collect()
}

/// What stays on a screen of so many columns: of the cursor's movements those that progress bars make.
fn screen(printed: &str, columns: usize) -> Vec<String> {
    let (mut lines, mut row, mut column) = (vec![Vec::new()], 0, 0);
    let mut rest = printed.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '\r' => column = 0,
            '\n' => {
                row += 1;
                lines.resize(lines.len().max(row + 1), Vec::new());
            }
            '\x1b' => {
                let sequence: String =
                    std::iter::from_fn(|| rest.next_if(|c| !c.is_ascii_alphabetic())).collect();
                let count = sequence.trim_start_matches('[').parse().unwrap_or(1);
                match rest.next() {
                    Some('A') => row = row.saturating_sub(count),
                    Some('K') if sequence == "[2" => lines[row].clear(),
                    Some('K') => lines[row].truncate(column),
                    _ => {}
                }
            }
            other => {
                if column == columns {
                    (row, column) = (row + 1, 0);
                    lines.resize(lines.len().max(row + 1), Vec::new());
                }
                let line = &mut lines[row];
                line.resize(line.len().max(column + 1), ' ');
                line[column] = other;
                column += 1;
            }
        }
    }
    let lines = lines.into_iter().map(|line| line.into_iter().collect::<String>().trim_end().to_owned());
    lines.filter(|line| !line.is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_wait_leaves_nothing_but_the_error() -> Result<()> {
    const COLUMNS: u16 = 60;
    let bed = Bed::get().await?;
    let (_shop, laptop) = place(&bed, "frames").await?;
    laptop.relay().stall();
    let mut swap = laptop.devproxy(["swap", "cart", "--", "true"])?.terminal_of(COLUMNS).spawn()?;
    swap.wait_for("plan", SOON).await?;
    swap.write("\x03")?;
    let exit = swap.wait(SOON).await?;
    assert_eq!(exit.code(), 130, "{exit:?}");
    assert_eq!(screen(&exit.stdout, COLUMNS.into()), ["error: interrupted [DP-INTERRUPTED]"], "{exit:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_lines_of_its_own_and_an_end_is_no_loss() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = place(&bed, "log").await?;
    shop.deploy(App::shop("till")).await?;
    let words = ["-vv", "swap", "till", "--", "shopd"];
    let mut swap = laptop.devproxy(words)?.terminal().spawn()?;
    swap.wait_for("is answered by", SESSION).await?;
    swap.signal(Signal::SIGTERM)?;
    let printed = swap.wait(SESSION).await?.stdout;
    let lines = plain(&printed);
    let logged = |line: &&String| [" INFO ", " DEBUG "].iter().any(|level| line.contains(level));
    let torn: Vec<_> = lines.iter().filter(logged).filter(|line| !line.starts_with("20")).collect();
    ensure!(lines.iter().any(|line| logged(&line)) && torn.is_empty(), "{torn:#?}");
    // What is waited for has lines too, and nobody looks for a pod that leaves by our own will.
    for wanted in ["  … waiting until 1 pod of till is ready", "  ✓ restore "] {
        ensure!(lines.iter().any(|line| line.starts_with(wanted)), "{wanted}: {lines:#?}");
    }
    let deleting = lines.iter().find(|line| line.contains("deleting")).context("no word of the deletion")?;
    ensure!(deleting.ends_with(": for 5 s its pod still passes late clients on"), "{deleting}");
    ensure!(!printed.contains("connecting again") && !printed.contains("not applied"), "{lines:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_fits_into_a_narrow_terminal() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = place(&bed, "narrow").await?;
    let before = shop.objects().await?;
    for columns in [20, 40, 60] {
        let command = laptop.devproxy(["swap", "cart", "--handover", "now", "--", "true"])?;
        let exit = command.terminal_of(columns).spawn()?.wait(SESSION).await?;
        let lines = plain(&exit.stdout);
        let done: Vec<_> = lines.iter().filter(|line| line.contains('✓')).collect();
        ensure!(exit.code() == 0 && done.len() >= 4, "{columns}: {exit:?}");
        for line in done {
            ensure!(line.chars().count() <= usize::from(columns), "{columns}: {line}");
        }
    }
    before.require_same(&shop.objects().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn colour_is_for_a_terminal_that_wants_it() -> Result<()> {
    let bed = Bed::get().await?;
    let (_shop, laptop) = place(&bed, "colours").await?;
    let coloured = async |variable: Option<(&str, &str)>| -> Result<bool> {
        let mut command = laptop.devproxy(["swap", "crat", "--dry-run"])?.terminal();
        if let Some((name, value)) = variable {
            command = command.env(name, value);
        }
        let exit = command.spawn()?.wait(SOON).await?;
        ensure!(exit.code() == 125 && exit.stdout.contains("DP-NOT-FOUND"), "{exit:?}");
        Ok(exit.stdout.contains("\x1b[31m"))
    };
    assert!(coloured(None).await?);
    assert!(!coloured(Some(("NO_COLOR", "1"))).await?);
    assert!(!coloured(Some(("CLICOLOR", "0"))).await?);
    assert!(!coloured(Some(("TERM", "dumb"))).await?);
    // Into a pipe: neither colour nor a spinner.
    let exit = laptop.devproxy(["swap", "crat", "--dry-run"])?.output(SOON).await?;
    assert!(!exit.stderr.contains('\x1b') && !exit.stderr.contains('\r'), "{exit:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_come_from_flags_variables_and_files_in_this_order() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = place(&bed, "settings").await?;
    laptop.write_file(
        "work/shop/devproxy.toml",
        0o644,
        format!("# ours\nnamespace = '{}'\nport = ['8080:3000']\nhold = 45\n", shop.name()).as_bytes(),
    )?;
    laptop.write_file("work/shop/src/main.py", 0o644, b"")?;
    laptop.write_file(
        ".config/devproxy/config.toml",
        0o644,
        b"hold = 60\nagent-image = 'mirror.example/agent:1'\n",
    )?;
    let below = laptop.home().join("work/shop/src");
    let config = |words: &[&'static str]| -> Result<_> {
        let command = laptop.devproxy(["config"].into_iter().chain(words.iter().copied()))?;
        Ok(command.folder(&below).env("DEVPROXY_HANDOVER", "now"))
    };
    let exit = config(&["--context", "bed"])?.output(SOON).await?.success()?;
    // As wide as the name that is replaced, so that the columns stay.
    let text =
        (exit.stdout + &exit.stderr).replace(shop.name(), &format!("{:<1$}", "NAMESPACE", shop.name().len()));
    insta::assert_snapshot!(text, @"
    KEY           VALUE                    FROM
    kubeconfig    ~/.kube/config           default
    context       bed                      flag
    namespace     NAMESPACE                ~/work/shop/devproxy.toml:2
    verbose       0                        default
    container     -                        default
    handover      now                      DEVPROXY_HANDOVER
    drain         -                        default
    ready         listen                   default
    skip-init     false                    default
    port          8080:3000                ~/work/shop/devproxy.toml:3
    like          -                        default
    publish       -                        default
    local         -                        default
    hold          45                       ~/work/shop/devproxy.toml:4
    env           merged                   default
    agent-image   mirror.example/agent:1   ~/.config/devproxy/config.toml:2
      … ~/work/shop/devproxy.toml sets namespace, port, hold
    ");
    let json = config(&["-o", "json"])?.output(SOON).await?.success()?.stdout;
    let json = json.replace(shop.name(), "NAMESPACE").replace(&laptop.home().display().to_string(), "HOME");
    insta::assert_snapshot!(json, @r#"
    {
      "files": [
        "HOME/work/shop/devproxy.toml",
        "HOME/.config/devproxy/config.toml"
      ],
      "settings": [
        {
          "key": "kubeconfig",
          "values": [
            "HOME/.kube/config"
          ],
          "from": {
            "kind": "default"
          }
        },
        {
          "key": "context",
          "values": [
            "bed"
          ],
          "from": {
            "kind": "kubeconfig",
            "path": "HOME/.kube/config"
          }
        },
        {
          "key": "namespace",
          "values": [
            "NAMESPACE"
          ],
          "from": {
            "kind": "project",
            "path": "HOME/work/shop/devproxy.toml",
            "line": 2
          }
        },
        {
          "key": "verbose",
          "values": [
            "0"
          ],
          "from": {
            "kind": "default"
          }
        },
        {
          "key": "container",
          "values": [],
          "from": {
            "kind": "default"
          }
        },
        {
          "key": "handover",
          "values": [
            "now"
          ],
          "from": {
            "kind": "variable",
            "name": "DEVPROXY_HANDOVER"
          }
        },
        {
          "key": "drain",
          "values": [],
          "from": {
            "kind": "default"
          }
        },
        {
          "key": "ready",
          "values": [
            "listen"
          ],
          "from": {
            "kind": "default"
          }
        },
        {
          "key": "skip-init",
          "values": [
            "false"
          ],
          "from": {
            "kind": "default"
          }
        },
        {
          "key": "port",
          "values": [
            "8080:3000"
          ],
          "from": {
            "kind": "project",
            "path": "HOME/work/shop/devproxy.toml",
            "line": 3
          }
        },
        {
          "key": "like",
          "values": [],
          "from": {
            "kind": "default"
          }
        },
        {
          "key": "publish",
          "values": [],
          "from": {
            "kind": "default"
          }
        },
        {
          "key": "local",
          "values": [],
          "from": {
            "kind": "default"
          }
        },
        {
          "key": "hold",
          "values": [
            "45"
          ],
          "from": {
            "kind": "project",
            "path": "HOME/work/shop/devproxy.toml",
            "line": 4
          }
        },
        {
          "key": "env",
          "values": [
            "merged"
          ],
          "from": {
            "kind": "default"
          }
        },
        {
          "key": "agent-image",
          "values": [
            "mirror.example/agent:1"
          ],
          "from": {
            "kind": "user",
            "path": "HOME/.config/devproxy/config.toml",
            "line": 2
          }
        }
      ]
    }
    "#);

    // They count: the plan is of the namespace and the port that the files name, and says who said so.
    let plan =
        laptop.devproxy(["-n", "default", "swap", "cart", "--dry-run"])?.folder(&below).output(SOON).await?;
    ensure!(plan.code() == 125 && plan.stderr.contains("default"), "the flag wins: {plan:?}");
    let plan =
        laptop.devproxy(["swap", "cart", "--dry-run"])?.folder(&below).output(SOON).await?.success()?;
    ensure!(plan.stderr.contains("… ~/work/shop/devproxy.toml sets namespace, port, hold\n"), "{plan:?}");
    Ok(())
}
