//! `devproxy status`: who holds what since when, in the cluster and on this laptop.

use std::fmt::Write;

use devproxy_cluster::{SessionInfo, sessions};
use jiff::Timestamp;
use serde::Serialize;

use super::exec::living;
use crate::{
    Failure,
    cli::{Global, Output, Status},
    session::protocol,
    ui::Progress,
};

/// One session, from both sides.
#[derive(Debug, Serialize)]
struct Row {
    /// What the cluster knows.
    cluster: Option<SessionInfo>,
    /// What its session process says, where it runs on this laptop.
    here: Option<protocol::Status>,
}

pub(super) async fn run(global: &Global, status: &Status) -> Result<u8, Failure> {
    let mut here: Vec<_> = living().await.into_iter().map(|(_, status)| status).collect();
    let connection = super::connect(global).await?;
    let held = match sessions(&connection, status.all).await {
        Ok(held) => held,
        // Inside a session we are the pod, which may not read Leases; what runs here is known all the same.
        Err(error) if !here.is_empty() => {
            Progress::new().warning(&Failure::from(error).to_string());
            Vec::new()
        }
        Err(error) => return Err(error.into()),
    };
    let mut rows = Vec::new();
    for info in held {
        let position = here.iter().position(|local| local.id == info.session);
        rows.push(Row { here: position.map(|position| here.swap_remove(position)), cluster: Some(info) });
    }
    // Sessions of this laptop in other namespaces or clusters.
    rows.extend(here.into_iter().map(|local| Row { cluster: None, here: Some(local) }));
    if status.output != Output::Text {
        super::print(&rows, status.output)?;
        return Ok(0);
    }
    if rows.is_empty() {
        let place = if status.all {
            "any namespace".to_owned()
        } else {
            format!("namespace {}", connection.namespace)
        };
        eprintln!("no session in {place}, none on this laptop");
        return Ok(0);
    }
    super::write_stdout(&table(&rows, Timestamp::now()));
    Ok(0)
}

fn table(rows: &[Row], now: Timestamp) -> String {
    let mut cells = vec![["SESSION", "DEPLOYMENT", "HOLDER", "SINCE", "PHASE", "AGENT"].map(str::to_owned)];
    cells.extend(rows.iter().filter_map(|row| match (&row.cluster, &row.here) {
        (Some(info), here) => Some(cluster_row(info, here.as_ref(), now)),
        (None, Some(here)) => Some([
            here.id.clone(),
            format!("{}/{}", here.namespace, here.name),
            "this laptop".to_owned(),
            "-".to_owned(),
            here.phase.clone(),
            here.pod.clone().unwrap_or_else(|| "-".to_owned()),
        ]),
        (None, None) => None,
    }));
    aligned(&cells)
}

fn cluster_row(info: &SessionInfo, here: Option<&protocol::Status>, now: Timestamp) -> [String; 6] {
    let name = info.deployment.clone().unwrap_or_else(|| "(shell)".to_owned());
    let phase = match here {
        _ if info.expired => "expired: devproxy restore puts it back".to_owned(),
        Some(here) => here.phase.clone(),
        None => format!("{:?}", info.phase).to_lowercase(),
    };
    let agent = info.agent.as_ref().map_or_else(
        || "no pod".to_owned(),
        |agent| agent.words.clone().unwrap_or_else(|| format!("{} on {}", agent.pod, agent.node)),
    );
    let place = if here.is_some() { " (here)" } else { "" };
    [
        info.session.clone(),
        format!("{}/{name}", info.namespace),
        format!("{}@{}{place}", info.user, info.host),
        age(info.since, now),
        phase,
        agent,
    ]
}

/// As kubectl shows ages.
fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(0);
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let mut text = String::new();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..N).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}   ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_those_of_kubectl() {
        let since: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let after = |seconds| age(since, since + jiff::SignedDuration::from_secs(seconds));
        assert_eq!(
            [after(5), after(119), after(125), after(7200), after(200_000)],
            ["5s", "119s", "2m", "2h", "2d"]
        );
    }

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [["A".to_owned(), "LONG".to_owned()], ["abc".to_owned(), "x".to_owned()]];
        assert_eq!(aligned(&rows), "A     LONG\nabc   x\n");
    }
}
