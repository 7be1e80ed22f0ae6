//! The cluster side of a session without its laptop side, for trying it by hand on a real cluster:
//!
//! ```text
//! session plan   [NS/]NAME              what would be done
//! session swap   [NS/]NAME LOADER AGENT until Enter is pressed, then restore; AGENT must open its ready port itself
//! session shell  LOADER AGENT           the same for a shell's pod
//! session status                        all sessions
//! session restore NAME                  from the record
//! session forward NS POD PORT            stdin and stdout through the carrier
//! ```
//!
//! `KUBECONFIG` and its current context choose the cluster.

use std::{io::Write as _, time::Instant};

use devproxy_cluster::{
    AgentFiles, Agents, ApiSettings, ClusterError, Connection, Drain, HandoverMode, Plan, Progress, Purpose,
    ReadyMode, ShellSettings, SpliceHook, Splicing, Swap, SwapSettings, find_session, plan, plan::Holder,
    portforward, restore, sessions, shell_plan,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    sync::mpsc,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if let Err(error) = run(&args).await {
        let ours = error.downcast_ref::<ClusterError>();
        eprintln!("{error} [{}]", ours.map_or("", ClusterError::code));
        if let Some(hint) = ours.and_then(ClusterError::hint) {
            eprintln!("hint: {hint}");
        }
        std::process::exit(125);
    }
}

async fn run(args: &[&str]) -> Result<()> {
    let connection = Connection::open(&ApiSettings::default()).await?;
    match args {
        ["plan", target] => print_plan(&plan(&connection, &settings(target)).await?),
        ["swap", target, loader, agent] => {
            let plan = plan(&connection, &settings(target)).await?;
            session(&connection, plan, loader, agent).await?;
        }
        ["shell", loader, agent] => {
            let settings = ShellSettings { like: None, agent_image: None, holder: holder() };
            session(&connection, shell_plan(&connection, &settings).await?, loader, agent).await?;
        }
        ["status"] => {
            for session in sessions(&connection, true).await? {
                println!("{}", serde_json::to_string(&session)?);
            }
        }
        ["restore", name] => {
            let record = find_session(&connection, name).await?;
            let (progress, lines) = mpsc::channel(64);
            let (outcome, ()) = tokio::join!(
                async move { restore(&connection, &record, &record.holder, &progress, None).await },
                print_progress(lines),
            );
            println!("{:?}", outcome?);
        }
        ["forward", namespace, pod, port] => {
            let connection = connection.in_namespace(namespace);
            let mut carrier = portforward(&connection, pod, port.parse()?, Purpose::Bulk).await?;
            let mut terminal = tokio::io::join(tokio::io::stdin(), tokio::io::stdout());
            let (sent, received) = tokio::io::copy_bidirectional(&mut terminal, &mut carrier).await?;
            eprintln!("{sent} bytes sent, {received} received");
        }
        _ => eprintln!("plan | swap | shell | status | restore | forward: see the top of this file"),
    }
    Ok(())
}

async fn session(connection: &Connection, plan: Plan, loader: &str, agent: &str) -> Result<()> {
    let (loader, agent) = (std::fs::read(loader)?, std::fs::read(agent)?);
    let files = AgentFiles { loader: &loader, agent: &agent };
    let agents = Agents { amd64: files, arm64: files };
    let has_original = plan.original.is_some();
    let (progress, lines) = mpsc::channel(64);
    let mut swap = Swap::begin(connection, plan, progress);
    let work = async move {
        let mut placed = swap.placed();
        let running = async move {
            let running = placed.wait_for(|placed| placed.as_ref().is_some_and(|placed| placed.running));
            eprintln!("agent: {:?}", running.await.map(|placed| placed.clone()));
        };
        let mut result = swap.prepare(&agents, &[7; 32], running).await;
        if result.is_ok() && has_original {
            result = swap.handover().await;
        }
        if result.is_ok() {
            eprintln!("swapped; Enter restores");
            let (mut input, mut line) = (BufReader::new(tokio::io::stdin()), String::new());
            tokio::select! {
                _ = input.read_line(&mut line) => {}
                lost = swap.lease_lost() => eprintln!("{lost}"),
            }
        }
        let outcome = swap.undo(Some(&mut Hook)).await;
        drop(swap);
        (result, outcome)
    };
    let ((result, outcome), ()) = tokio::join!(work, print_progress(lines));
    println!("{:?}", outcome?);
    Ok(result?)
}

struct Hook;

impl SpliceHook for Hook {
    fn splice(&mut self, ready: Vec<std::net::IpAddr>) -> Splicing<'_> {
        Box::pin(async move {
            eprintln!("splice to {ready:?}");
            true
        })
    }
}

async fn print_progress(mut lines: mpsc::Receiver<Progress>) {
    let start = Instant::now();
    while let Some(progress) = lines.recv().await {
        let line = match progress {
            Progress::Started(_) => continue,
            Progress::Done(step, millis) => format!("✓ {step} {millis} ms"),
            Progress::Undoing(text) => format!("↶ {text}"),
            Progress::Note(text) => format!("… {text}"),
        };
        eprintln!("{:7.3} {line}", start.elapsed().as_secs_f64());
    }
    let _ = tokio::io::stderr().flush().await;
}

fn print_plan(plan: &Plan) {
    for step in &plan.steps {
        println!("{step}{}", step.undo().map(|undo| format!("   (undo: {undo})")).unwrap_or_default());
    }
    let mut plan = serde_json::to_value(plan).unwrap_or_default();
    plan["steps"].take();
    let _ = writeln!(std::io::stdout(), "{plan:#}");
}

fn holder() -> Holder {
    Holder { user: "somebody".into(), host: "laptop".into(), place: None }
}

fn settings(target: &str) -> SwapSettings {
    SwapSettings {
        target: target.to_owned(),
        container: None,
        handover: HandoverMode::Auto,
        drain: Drain::Signal,
        ready: ReadyMode::Listen,
        skip_init: false,
        ports: Vec::new(),
        agent_image: None,
        holder: holder(),
    }
}
