//! `devproxy swap`: plan here, run by the session process, the program as our child.

use std::{
    fmt::Write,
    io,
    net::{Ipv4Addr, TcpListener},
    time::Instant,
};

use devproxy_cluster::{
    ClusterError, Connection, Drain, FileKind, Handover, HandoverMode, Plan, Protocol, SwapSettings, plan,
};

use super::{exec::living, restore};
use crate::{
    Failure,
    cli::{self, Global, Output, SessionFlags, Swap},
    session::{
        process::{Options, Start},
        protocol::PortPair,
    },
    terminal::{self, Program, Signals},
};

pub(super) async fn run(global: &Global, swap: Swap, signals: &mut Signals) -> Result<u8, Failure> {
    let target = super::target(global, &swap.target)?;
    let settings = SwapSettings {
        target: swap.target.clone(),
        container: swap.container.clone(),
        handover: match swap.handover {
            None => HandoverMode::Auto,
            Some(cli::Handover::Listen) => HandoverMode::Listen,
            Some(cli::Handover::Now) => HandoverMode::Now,
        },
        drain: match swap.drain {
            None => Drain::Signal,
            Some(cli::Drain::Labels) => Drain::Labels,
        },
        ready: swap.ready,
        skip_init: swap.skip_init,
        ports: swap.ports,
        agent_image: swap.session.agent_image.clone(),
        holder: super::holder(),
    };
    let options = options(&swap.session)?;
    // Before anything changes: a typo in the command is no reason to start a pod.
    let program = if swap.dry_run { None } else { Some(program(&swap.session)?) };

    let progress = super::progress(global);
    let mut since = Instant::now();
    progress.begun("plan");
    let Some(program) = program else {
        let planning = async { Ok(planned(&super::connect(global).await?, &settings).await?) };
        let plan = signals.during(planning).await?;
        progress.quiet();
        return dry_run(&plan, swap.output);
    };
    let mut taking = None;
    let planning =
        super::planned(global, signals, async |connection| match planned(connection, &settings).await {
            Err(ClusterError::Held { deployment, .. }) if swap.take_over => {
                taking = Some(deployment);
                Box::pin(restore::take(connection, target, &progress)).await?;
                taking = None;
                progress.begun("plan");
                since = Instant::now();
                Ok(planned(connection, &settings).await?)
            }
            plan => Ok(plan?),
        });
    let (session, plan) = planning.await.map_err(|failure| match taking {
        Some(deployment) => failure.if_interrupted(
            "left before it was taken over",
            format!(
                "`devproxy status` shows how far it came; `devproxy restore {deployment} --force` finishes it"
            ),
        ),
        None => failure,
    })?;
    progress.done("plan", &summary(&plan), since.elapsed());
    for warning in &plan.warnings {
        progress.warning(&warning.text);
    }
    let start = Start { api: super::api_settings(global), plan, options, verbose: global.verbose };
    terminal::run(session, start, &program, &progress, since, signals).await
}

async fn planned(connection: &Connection, settings: &SwapSettings) -> Result<Plan, ClusterError> {
    let mut result = plan(connection, settings).await;
    if let Err(ClusterError::Held { session, own, .. }) = &mut result {
        // From inside of a session's shell its place looks like another; but what answers here is one's own.
        *own |= living().await.iter().any(|(_, status)| status.id == *session);
    }
    result
}

pub(super) fn options(flags: &SessionFlags) -> Result<Options, Failure> {
    for port in &flags.publish {
        // Let go at once: it says whether the port can be had, before anything is changed.
        TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).map_err(|error| cannot_publish(*port, &error))?;
    }
    Ok(Options { publish: flags.publish.clone(), local: flags.local.clone(), hold: flags.hold })
}

fn cannot_publish(port: u16, error: &io::Error) -> Failure {
    let failure = Failure::new("DP-PORT", format!("port {port} of 127.0.0.1 cannot be published: {error}"));
    match error.kind() {
        io::ErrorKind::AddrInUse => failure.hint(format!(
            "`ss -tlnp sport = {port}` shows who has it; end that, or leave out `--publish {port}`"
        )),
        _ => failure.hint("the laptop's own system must let you listen on it"),
    }
}

pub(super) fn program(flags: &SessionFlags) -> Result<Program, Failure> {
    Program::find(&flags.program, super::form(flags.env))
}

/// The rest of the plan's line.
fn summary(plan: &Plan) -> String {
    let mut line = "1 stand-in pod".to_owned();
    if let Some(original) = &plan.original {
        let _ = write!(line, ", {} {} → 0 replicas", original.name, original.replicas);
    }
    let ports: Vec<_> = plan
        .ports
        .iter()
        .map(|port| {
            let protocol = if port.protocol == Protocol::Udp { "udp" } else { "tcp" };
            format!("{}/{protocol}", PortPair { pod: port.port, local: port.local })
        })
        .collect();
    if !ports.is_empty() {
        let _ = write!(line, ", {}", ports.join(" "));
    }
    for (kind, one) in [(FileKind::ConfigMap, "ConfigMap"), (FileKind::Secret, "Secret")] {
        let count = plan.file_roots.iter().filter(|root| root.kind == kind).count();
        if count > 0 {
            let _ = write!(line, ", {count} {one}{}", if count == 1 { "" } else { "s" });
        }
    }
    line
}

fn dry_run(plan: &Plan, output: Output) -> Result<u8, Failure> {
    match output {
        Output::Text => super::write_stdout(&plan_text(plan)),
        _ => super::print(plan, output)?,
    }
    Ok(0)
}

/// The plan as people read it.
fn plan_text(plan: &Plan) -> String {
    let mut text = format!("{}: {}\n", plan.title(), summary(plan));
    let when = match plan.handover {
        Handover::OnListen => "when the program listens",
        Handover::AtOnce => "at once",
        Handover::OriginalFirst => "at once, the original leaves first",
    };
    let _ = writeln!(text, "container {}, handover {when} ({})", plan.container, plan.handover_reason);
    for warning in &plan.warnings {
        let _ = writeln!(text, "! {}", warning.text);
    }
    text.push_str("steps:\n");
    for (number, step) in plan.steps.iter().enumerate() {
        let _ = writeln!(text, "{:>3}. {step}", number + 1);
        if let Some(undo) = step.undo() {
            let _ = writeln!(text, "       undo: {undo}");
        }
    }
    text.push_str("nothing was changed; the objects: --dry-run -o yaml\n");
    text
}

#[cfg(test)]
mod tests {
    use devproxy_cluster::{
        Architecture, DeclaredPort, FileRoot, Holder, Original, ReadyMode, Step, Warning,
    };

    use super::*;

    fn cart() -> Plan {
        let stand_in = || "cart-devproxy-k7f2".to_owned();
        let port = |port, local, protocol, service: Option<&str>| DeclaredPort {
            protocol,
            port,
            local,
            name: None,
            service: service.map(str::to_owned),
            mapped: port != local,
        };
        Plan {
            session: "k7f2abcdef".into(),
            namespace: "shop".into(),
            original: Some(Original {
                name: "cart".into(),
                uid: "u-1".into(),
                replicas: 3,
                ready: 3,
                selector: serde_json::Value::Null,
                replica_owners: Vec::new(),
            }),
            resource_version: "1".into(),
            container: "app".into(),
            stand_in_name: stand_in(),
            lease: "devproxy-cart".into(),
            config_map: None,
            secret: "cart-devproxy-k7f2-key".into(),
            tunnel_port: 1,
            ready_port: 2,
            architecture: Architecture::Amd64,
            agent_image: None,
            ports: vec![port(8080, 3000, Protocol::Tcp, Some("cart")), port(9090, 9090, Protocol::Udp, None)],
            services: vec!["cart".into()],
            file_roots: ["/a", "/b"]
                .map(|path| FileRoot {
                    path: path.into(),
                    kind: FileKind::ConfigMap,
                    name: "settings".into(),
                })
                .into(),
            writable_volumes: Vec::new(),
            init_containers: Vec::new(),
            host_network: false,
            handover: Handover::OnListen,
            handover_reason: "8080 is a port of Service cart".into(),
            ready: ReadyMode::Listen,
            holder: Holder { user: "ann".into(), host: "box".into(), place: None },
            warnings: vec![Warning { code: "hpa".into(), text: "the autoscaler pauses".into() }],
            steps: vec![
                Step::AcquireLease { lease: "devproxy-cart".into() },
                Step::StartStandIn { stand_in: stand_in() },
                Step::ScaleOriginal { original: "cart".into(), replicas: 3 },
            ],
            stand_in: serde_json::Value::Null,
        }
    }

    #[test]
    fn a_plan_reads_as_what_will_be_done_and_undone() {
        assert_eq!(
            plan_text(&cart()),
            "\
shop/cart: 1 stand-in pod, cart 3 → 0 replicas, 8080→3000/tcp 9090/udp, 2 ConfigMaps
container app, handover when the program listens (8080 is a port of Service cart)
! the autoscaler pauses
steps:
  1. create Lease devproxy-cart
       undo: delete Lease devproxy-cart, last
  2. scale Deployment cart-devproxy-k7f2 0 → 1
  3. scale Deployment cart 3 → 0
       undo: scale Deployment cart 0 → 3, wait until it serves
nothing was changed; the objects: --dry-run -o yaml
"
        );
    }

    #[test]
    fn programs_get_the_documented_shape() {
        insta::assert_snapshot!("plan", serde_json::to_string_pretty(&cart()).unwrap());
    }
}
