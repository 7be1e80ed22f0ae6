//! What the shells offer at a Tab: names of the cluster as it is now.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use devproxy_tests::{App, Bed, Laptop, Namespace};

/// One Tab, on a busy machine.
const TAB: Duration = Duration::from_secs(20);

async fn place(bed: &Bed, purpose: &str) -> Result<(Namespace, Laptop)> {
    let shop = bed.namespace(purpose).await?;
    for name in ["cart", "card-service", "checkout"] {
        shop.deploy(App::shop(name).replicas(0)).await?;
    }
    let laptop = bed.laptop().await?;
    laptop.login(&shop).await?;
    laptop.install_product_as("devproxy")?;
    Ok((shop, laptop))
}

/// What bash would offer for the last of `words`: the result of the function that the script defines.
async fn bash(laptop: &Laptop, words: &[&str]) -> Result<Vec<String>> {
    let script = r#"
        source /usr/share/bash-completion/bash_completion
        source <(devproxy completions bash)
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_TYPE=9
        _clap_complete_devproxy devproxy "${@: -1}" "${@: -2:1}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let command =
        laptop.command("bash").args(["--norc", "-c", script, "bash", "devproxy"]).args(words.to_vec());
    let exit = command.output(TAB).await?.success()?;
    ensure!(exit.stderr.is_empty(), "{exit:?}");
    Ok(exit.stdout.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// The candidates that are no flags.
fn names(offered: Vec<String>) -> Vec<String> {
    offered.into_iter().filter(|name| !name.starts_with('-')).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bash_offers_what_the_cluster_has() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = place(&bed, "bash").await?;
    let namespace = shop.name();
    let offered = async |words: &[&str]| Ok::<_, anyhow::Error>(names(bash(&laptop, words).await?));

    assert_eq!(offered(&["sw"]).await?, ["swap"]);
    assert_eq!(offered(&["swap", "ca"]).await?, ["card-service", "cart"]);
    // Without the right to list namespaces those of the kubeconfig are offered.
    assert_eq!(offered(&["swap", ""]).await?, ["card-service", "cart", "checkout", &format!("{namespace}/")]);
    assert_eq!(offered(&["swap", &format!("{namespace}/ch")]).await?, [format!("{namespace}/checkout")]);
    assert_eq!(offered(&["swap", "cart", "-c", ""]).await?, ["cart"]);
    assert_eq!(offered(&["shell", "--like", "che"]).await?, ["checkout"]);
    assert_eq!(offered(&["--context", ""]).await?, ["bed"]);
    assert_eq!(offered(&["status", "-n", ""]).await?, [namespace]);
    assert_eq!(offered(&["swap", "--handover", ""]).await?, ["listen", "now"]);
    assert_eq!(offered(&["swap", "cart", "--", "shop"]).await?, ["shopd"]);
    assert_eq!(offered(&["restore", ""]).await?, Vec::<String>::new());
    let all = bash(&laptop, &["swap", ""]).await?;
    assert!(all.iter().all(|word| !word.starts_with('-')), "flags only for who has begun one: {all:?}");
    assert!(bash(&laptop, &["swap", "--dry"]).await?.contains(&"--dry-run".to_owned()));

    // A namespace of a variable or a file is looked into as the command would.
    let other = bed.namespace("bashother").await?;
    other.deploy(App::shop("stock").replicas(0)).await?;
    assert_eq!(
        offered(&["-n", other.name(), "swap", "s"]).await?,
        Vec::<String>::new(),
        "no right to list it"
    );

    // An API server that does not answer: nothing, and soon.
    laptop.relay().stall();
    let start = Instant::now();
    assert_eq!(offered(&["swap", "ca"]).await?, Vec::<String>::new());
    ensure!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    laptop.relay().resume();
    std::fs::remove_file(laptop.home().join(".kube/config"))?;
    assert_eq!(offered(&["swap", "ca"]).await?, Vec::<String>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tab_completes_the_line_in_bash_zsh_and_fish() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = place(&bed, "tabs").await?;
    laptop.write_file(".zfunc/empty", 0o644, b"")?;
    let home = laptop.home().display();
    let bash = "source /usr/share/bash-completion/bash_completion; source <(devproxy completions bash)";
    let zsh = "autoload -U compinit && compinit -u; bindkey -e; source <(devproxy completions zsh)";
    // As a package installs it: a file named after the command, which compinit finds and loads at the first Tab.
    let installed = format!(
        "devproxy completions zsh > {home}/.zfunc/_devproxy; fpath=({home}/.zfunc $fpath); \
         autoload -U compinit && compinit -u; bindkey -e"
    );
    let fish = "devproxy completions fish | source";
    for (shell, flags, script) in [
        ("bash", &["--norc", "--noprofile", "-i"][..], bash),
        ("zsh", &["-f", "-i"], zsh),
        ("zsh", &["-f", "-i"], &installed),
        ("fish", &["--no-config", "-i"], fish),
    ] {
        let mut run = laptop.command(shell).args(flags.to_vec()).env("PS1", "> ").terminal().spawn()?;
        run.write(&format!("{script}; echo rea''dy\n"))?;
        run.wait_for("ready", TAB).await.context(shell)?;
        // Ctrl-A, and the line becomes an argument: what is printed is what the Tab has made of it.
        for (typed, meant) in [
            ("devproxy swap che".to_owned(), "devproxy swap checkout".to_owned()),
            (format!("devproxy swap {}/che", shop.name()), format!("devproxy swap {}/checkout", shop.name())),
            ("devproxy swap cart -c c".to_owned(), "devproxy swap cart -c cart".to_owned()),
            ("devproxy --context b".to_owned(), "devproxy --context bed".to_owned()),
        ] {
            run.write(&format!("{typed}\t\x01echo off''ered: \n"))?;
            run.wait_for(&format!("offered: {meant}"), TAB).await.context(shell)?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn fish_offers_what_the_cluster_has() -> Result<()> {
    let bed = Bed::get().await?;
    let (_shop, laptop) = place(&bed, "fish").await?;
    let script = "devproxy completions fish | source; complete --do-complete $argv[1]";
    let offered = async |line: &str| -> Result<Vec<String>> {
        let words = ["--no-config", "-c", script, line];
        let exit = laptop.command("fish").args(words).output(TAB).await?.success()?;
        ensure!(exit.stderr.is_empty(), "{exit:?}");
        Ok(exit.stdout.lines().map(|line| line.split('\t').next().unwrap_or(line).to_owned()).collect())
    };
    assert_eq!(offered("devproxy swap ca").await?, ["card-service", "cart"]);
    assert_eq!(offered("devproxy swap cart -c ").await?, ["cart"]);
    assert_eq!(offered("devproxy sta").await?, ["status"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_runs_and_completes_the_plugin() -> Result<()> {
    let bed = Bed::get().await?;
    let (shop, laptop) = place(&bed, "plugin").await?;
    laptop.install_product_as("kubectl-devproxy")?;
    laptop.install_product_as("kubectl_complete-devproxy")?;
    let kubectl = async |words: &str| -> Result<String> {
        let exit = laptop.command("kubectl").args(words.split(' ')).output(TAB).await?;
        let text = format!("exit code {}\n{}{}", exit.code(), exit.stderr, exit.stdout);
        // The laptop's folder: its programs lie beside its home.
        let place = laptop.home().parent().unwrap_or(laptop.home()).display().to_string();
        Ok(text.replace(shop.name(), "NAMESPACE").replace(&place, "LAPTOP"))
    };
    insta::assert_snapshot!(kubectl("devproxy restore zzz").await?, @"
    exit code 125
    error: no session `zzz` in namespace `NAMESPACE` [DP-NO-SESSION]
    hint: `kubectl devproxy status --all` lists the sessions
    ");
    insta::assert_snapshot!(kubectl("devproxy swap").await?, @"
    exit code 125
    error: missing: [NAMESPACE/]NAME [DP-USAGE]
    hint: usage: kubectl devproxy swap <[NAMESPACE/]NAME> [-- <COMMAND>...]
    ");
    assert_eq!(kubectl("devproxy help exec").await?, kubectl("devproxy exec --help").await?);
    let alone = kubectl("devproxy").await?;
    assert!(alone.starts_with("exit code 0\nTake one service") && alone.contains("Usage: kubectl devproxy "));
    insta::assert_snapshot!(kubectl("devproxy exec --help").await?, @"
    exit code 0
    Join a running session of this laptop with another program

    Usage: kubectl devproxy exec [OPTIONS] [SESSION] [-- <COMMAND>...]

    Arguments:
      [SESSION]     Session id, Deployment or NAMESPACE/DEPLOYMENT [default: the session around, else
                    the only one of this laptop]
      [COMMAND]...  Program and arguments [default: your shell]

    Options:
      -h, --help  Print help

    Cluster and log:
          --kubeconfig <FILE>  Path of the kubeconfig file [default: $KUBECONFIG, then ~/.kube/config]
          --context <NAME>     Context of the kubeconfig [default: its current one]
      -n, --namespace <NAME>   Namespace [default: the context's]
      -v, --verbose...         Print the log to stderr; twice for more

    Examples:
      kubectl devproxy exec -- psql            in the only session of this laptop
      kubectl devproxy exec shop/cart          a second shell
      kubectl devproxy exec cart -- npm test   the tests, with the pod's environment

    The session goes on when the program ends; the program is ended with the
    session.
    ");
    insta::assert_snapshot!(kubectl("__complete devproxy swap ca").await?, @"
    exit code 0
    [Debug] Cleared global flags for plugin completion
    [Debug] About to look for: kubectl_complete-devproxy
    [Debug] About to call: LAPTOP/bin/kubectl_complete-devproxy swap ca
    Completion ended with directive: ShellCompDirectiveNoFileComp
    card-service
    cart
    :4
    ");
    insta::assert_snapshot!(kubectl("__complete devproxy swap cart -c c").await?, @"
    exit code 0
    [Debug] Cleared global flags for plugin completion
    [Debug] About to look for: kubectl_complete-devproxy
    [Debug] About to call: LAPTOP/bin/kubectl_complete-devproxy swap cart -c c
    Completion ended with directive: ShellCompDirectiveNoFileComp
    cart
    :4
    ");
    assert!(kubectl("plugin list").await?.contains("kubectl-devproxy"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_that_is_not_named_is_that_of_the_user() -> Result<()> {
    let bed = Bed::get().await?;
    let laptop = bed.laptop().await?;
    let of = |shell: &str| Ok::<_, anyhow::Error>(laptop.devproxy(["completions"])?.env("SHELL", shell));
    for shell in ["bash", "fish", "zsh"] {
        let named = laptop.devproxy(["completions", shell])?.output(TAB).await?.success()?.stdout;
        let found = of(&format!("/usr/bin/{shell}"))?.output(TAB).await?.success()?;
        assert!(found.stdout == named && found.stderr.is_empty(), "{found:?}");
    }
    let exit = of("/bin/tcsh")?.output(TAB).await?;
    insta::assert_snapshot!(format!("exit code {}\n{}", exit.code(), exit.stderr + &exit.stdout), @"
    exit code 125
    error: there are no completions for `/bin/tcsh`, which $SHELL names [DP-USAGE]
    hint: `devproxy completions bash`, `devproxy completions fish`, `devproxy completions zsh`
    ");
    // On a terminal a script helps nobody who is not told what it is for.
    let exit = of("/bin/bash")?.terminal().spawn()?.wait(TAB).await?;
    insta::assert_snapshot!(exit.stdout.lines().last().unwrap_or_default().trim(), @"… this is for the shell: `source <(devproxy completions bash)` in ~/.bashrc switches it on");
    Ok(())
}
