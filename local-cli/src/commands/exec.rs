//! `devproxy exec`: join a running session of this laptop.

use std::{io, time::Duration};

use devproxy_cluster::{
    SessionInfo, sessions,
    target::{Target, nearest},
};
use tokio::time::timeout;

use super::{restore::is_ours, status::remedy};
use crate::{
    Failure,
    cli::{Exec, Global},
    environment::{self, Form},
    session::{
        client::Client,
        protocol::{Event, Request, ShellEntrance, Status},
        runtime::RuntimeFolder,
    },
    terminal::{self, Program, Signals},
};

/// How long the cluster is asked about a session that is not here.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn run(global: &Global, exec: Exec, signals: &mut Signals) -> Result<u8, Failure> {
    let program = Program::find(&exec.program, Form::Merged)?;
    let (mut client, shell) = signals.during(join(global, exec.session.as_deref())).await?;
    // From here on signals are for the program.
    let child = program.spawn(terminal::enter(&shell)?.as_ref(), &shell)?;
    terminal::accompany(child, signals, &mut client).await
}

async fn join(global: &Global, wanted: Option<&str>) -> Result<(Client, Box<ShellEntrance>), Failure> {
    let (mut client, _) = find(global, wanted).await?;
    client.send(&Request::Join).await;
    loop {
        match client.next().await {
            Some(Event::Shell(shell)) => return Ok((client, shell)),
            Some(Event::Failed(failure)) => return Err(failure),
            Some(_) => {}
            None => return Err(Failure::new("DP-SESSION-ENDED", "the session has ended")),
        }
    }
}

/// The session that `wanted` names, else the one in whose shell we are, else the only one; with its state.
async fn find(global: &Global, wanted: Option<&str>) -> Result<(Client, Status), Failure> {
    // A namespace of a variable or a file is where to look for Deployments, not a choice among sessions.
    let namespace = global.namespace.as_deref().filter(|_| global.namespace_typed);
    let mut sessions = living().await;
    sessions.retain(|(_, status)| namespace.is_none_or(|namespace| namespace == status.namespace));
    let inside = std::env::var(environment::ID).unwrap_or_default();
    let all = sessions.iter().map(|(_, status)| status.name.clone()).collect();
    if let Some(wanted) = wanted {
        sessions.retain(|(_, status)| names(wanted, status));
    } else if let Some(own) = sessions.iter().position(|(_, status)| status.id == inside) {
        sessions = vec![sessions.swap_remove(own)];
    }
    if sessions.len() > 1 {
        let list: Vec<_> =
            sessions.iter().map(|(_, s)| format!("{}/{} ({})", s.namespace, s.name, s.id)).collect();
        let cause = format!("{} sessions run on this laptop: {}", list.len(), list.join(", "));
        return Err(Failure::new("DP-WHICH-SESSION", cause).hint("name one of them"));
    }
    match sessions.pop() {
        Some(session) => Ok(session),
        None => Err(none(global, wanted, all).await),
    }
}

/// No session answers here. One that is over may have left a stand-in in the cluster.
async fn none(global: &Global, wanted: Option<&str>, names: Vec<String>) -> Failure {
    let (cause, hint) = match wanted {
        Some(wanted) => {
            let hint = match nearest(wanted, names).first() {
                Some(nearest) => format!("did you mean `{nearest}`"),
                None => "`devproxy status` lists them".to_owned(),
            };
            (format!("no session `{wanted}` runs on this laptop"), hint)
        }
        None => ("no session runs on this laptop".to_owned(), "`devproxy swap NAME` starts one".to_owned()),
    };
    let remedy = left(global, wanted).await;
    Failure::new("DP-NO-SESSION", cause).hint(remedy.unwrap_or(hint))
}

/// What to do about the session that `wanted` names, or about one of ours, if it is over.
async fn left(global: &Global, wanted: Option<&str>) -> Option<String> {
    let target = wanted.map(Target::parse).transpose().ok()?;
    let mut connection = super::connect(global).await.ok()?;
    if let Some(namespace) = target.as_ref().and_then(|target| target.namespace.as_deref()) {
        connection = connection.in_namespace(namespace);
    }
    let is_it = |info: &SessionInfo| match &target {
        Some(Target { name, .. }) => info.session == *name || info.deployment.as_ref() == Some(name),
        None => is_ours(info),
    };
    let sessions = timeout(PATIENCE, sessions(&connection, false)).await.ok()?.ok()?;
    sessions.iter().filter(|info| is_it(info)).find_map(remedy)
}

/// All sessions of this laptop that answer; sockets of dead ones are removed.
pub(crate) async fn living() -> Vec<(Client, Status)> {
    let folder = RuntimeFolder::locate();
    let mut sessions = Vec::new();
    for id in folder.ids() {
        match Client::connect(&folder, &id).await {
            Ok(mut client) => {
                if let Some(status) = client.status().await {
                    sessions.push((client, status));
                }
            }
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => folder.remove(&id),
            // Ended meanwhile, or too busy to be asked now.
            Err(error) => tracing::info!(%error, id, "session not asked"),
        }
    }
    sessions
}

/// Whether `wanted` (id, name or namespace/name) means this session.
fn names(wanted: &str, status: &Status) -> bool {
    wanted == status.id || wanted == status.name || wanted == format!("{}/{}", status.namespace, status.name)
}
