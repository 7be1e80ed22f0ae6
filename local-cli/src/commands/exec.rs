//! `devproxy exec`: join a running session of this laptop.

use std::io;

use crate::{
    Failure,
    cli::{Exec, Global},
    environment::Form,
    session::{
        client::Client,
        protocol::{Event, Request, Status},
        runtime::RuntimeFolder,
    },
    terminal::{self, Program, Signals},
};

pub(super) async fn run(global: &Global, exec: Exec) -> Result<u8, Failure> {
    // A namespace of a variable or a file is where to look for Deployments, not a choice among sessions.
    let namespace = global.namespace.as_deref().filter(|_| global.namespace_typed);
    let program = Program::find(&exec.program, Form::Merged)?;
    let (mut client, _) = find(namespace, exec.session.as_deref()).await?;
    client.send(&Request::Join).await;
    let shell = loop {
        match client.next().await {
            Some(Event::Shell(shell)) => break shell,
            Some(Event::Failed(failure)) => return Err(failure),
            Some(_) => {}
            None => return Err(Failure::new("DP-SESSION-ENDED", "the session has ended")),
        }
    };
    // From here on signals are for the program.
    let mut signals = Signals::new()?;
    let child = program.spawn(&terminal::enter(&shell)?, &shell)?;
    terminal::accompany(child, &mut signals, &mut client).await
}

/// The session that `wanted` names, or the only one, in `namespace` if that was given; with its state.
async fn find(namespace: Option<&str>, wanted: Option<&str>) -> Result<(Client, Status), Failure> {
    let mut sessions = living().await;
    sessions.retain(|(_, status)| namespace.is_none_or(|namespace| namespace == status.namespace));
    if let Some(wanted) = wanted {
        sessions.retain(|(_, status)| names(wanted, status));
    }
    match (sessions.len(), wanted) {
        (1, _) => sessions.pop().ok_or_else(|| Failure::new("DP-NO-SESSION", "no session")),
        (0, Some(wanted)) => {
            Err(Failure::new("DP-NO-SESSION", format!("no session `{wanted}` runs on this laptop"))
                .hint("`devproxy status` lists them"))
        }
        (0, None) => Err(Failure::new("DP-NO-SESSION", "no session runs on this laptop")
            .hint("`devproxy swap NAME` starts one")),
        (count, _) => {
            let list: Vec<_> =
                sessions.iter().map(|(_, s)| format!("{}/{} ({})", s.namespace, s.name, s.id)).collect();
            Err(Failure::new(
                "DP-WHICH-SESSION",
                format!("{count} sessions run on this laptop: {}", list.join(", ")),
            )
            .hint("name one of them"))
        }
    }
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
