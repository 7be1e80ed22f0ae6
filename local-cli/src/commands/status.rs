//! `devproxy status`: who holds what since when, in the cluster and on this laptop.

use console::Term;
use devproxy_cluster::{ClusterError, Connection, Life, SessionInfo, require_namespace, sessions};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::exec::living;
use crate::{
    Failure,
    cli::{Global, Output, Status},
    invocation::spoken,
    session::protocol,
    ui::{self, Progress},
};

/// A laptop tells every 10 s that it is there; one that was not heard of for so long may be gone. One request may fail, and
/// clocks differ.
const QUIET: SignedDuration = SignedDuration::from_secs(25);

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
            warn(&connection, error);
            Vec::new()
        }
        Err(error) => return Err(without_leases(&connection, error, status.all)),
    };
    if held.is_empty()
        && !status.all
        && let Err(error) = require_namespace(&connection).await
    {
        if here.is_empty() {
            return Err(error.into());
        }
        warn(&connection, error);
    }
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
        Progress::new().notice(&format!("no session in {place}, none on this laptop"));
        return Ok(0);
    }
    let now = Timestamp::now();
    let text = table(&rows, now, ui::width_of(&Term::stdout()));
    super::write_stdout(&spoken(&text));
    for info in rows.iter().filter_map(|row| row.cluster.as_ref()) {
        for text in notes(info, now) {
            Progress::new().notice(&text);
        }
    }
    Ok(0)
}

/// Who may only look at the namespace can still look at the Events of its sessions.
fn without_leases(connection: &Connection, error: ClusterError, all: bool) -> Failure {
    let forbidden = error.is_forbidden() && !all;
    let failure = Failure::from(error);
    match &failure.hint {
        Some(hint) if forbidden => {
            let words = format!(
                "`kubectl get events -n {} --field-selector reason=DevproxySwapped` tells who holds what; {hint}",
                connection.namespace
            );
            failure.hint(words)
        }
        _ => failure,
    }
}

/// What the cluster does not tell. Nobody should grant a pod what its developer may see in another terminal.
fn warn(connection: &Connection, error: ClusterError) {
    let mut failure = Failure::from(error);
    failure.hint = failure.hint.filter(|_| !connection.is_of_pod());
    Progress::new().trouble(&failure);
}

/// Below the table, where it is never cut: what is wrong, and what to do.
fn notes(info: &SessionInfo, now: Timestamp) -> Vec<String> {
    let words = info.agent.as_ref().and_then(|agent| Some((&agent.pod, agent.words.as_ref()?)));
    let words = words.map(|(pod, words)| format!("{pod}: {words}"));
    words.into_iter().chain(quiet(info, now)).chain(remedy(info)).collect()
}

/// Of a session that is not over, as far as anybody knows.
fn quiet(info: &SessionInfo, now: Timestamp) -> Option<String> {
    let since =
        info.renewed.filter(|since| info.life == Life::Alive && now.duration_since(*since) > QUIET)?;
    let (title, silence) = (title(info), age(since, now));
    Some(format!(
        "{title}: no sign of life from its laptop for {silence}; after two minutes anybody may restore it"
    ))
}

/// What to do about a session that is over.
pub(super) fn remedy(info: &SessionInfo) -> Option<String> {
    let cause = match info.life {
        Life::Alive => return None,
        Life::Expired => "its laptop has given no sign of life for two minutes",
        Life::Dead => "its processes on this laptop are dead",
    };
    let title = title(info);
    Some(format!("{title}: {cause}; `devproxy restore {title}` puts it back"))
}

fn title(info: &SessionInfo) -> String {
    format!("{}/{}", info.namespace, info.deployment.as_ref().unwrap_or(&info.session))
}

fn table(rows: &[Row], now: Timestamp, room: usize) -> String {
    let cells = rows.iter().filter_map(|row| match (&row.cluster, &row.here) {
        (Some(info), here) => Some(cluster_row(info, here.as_ref(), now)),
        (None, Some(here)) => Some([
            here.id.clone(),
            format!("{}/{}", here.namespace, here.name),
            "this laptop".to_owned(),
            "-".to_owned(),
            phase(here, now),
            here.pod.clone().unwrap_or_else(|| "-".to_owned()),
        ]),
        (None, None) => None,
    });
    let head = ["SESSION", "DEPLOYMENT", "HOLDER", "SINCE", "PHASE", "AGENT"];
    // The agent's pod is in `-o json` too.
    ui::table::table(head, &cells.collect::<Vec<_>>(), room, 1)
}

fn cluster_row(info: &SessionInfo, here: Option<&protocol::Status>, now: Timestamp) -> [String; 6] {
    let name = info.deployment.clone().unwrap_or_else(|| "(shell)".to_owned());
    let phase = match here {
        _ if info.life == Life::Dead => "dead".to_owned(),
        _ if info.life == Life::Expired => "expired".to_owned(),
        Some(here) => phase(here, now),
        None => info.phase.to_string(),
    };
    let agent = info.agent.as_ref().map_or_else(|| "no pod".to_owned(), |agent| agent.pod.clone());
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

/// What it does, and what keeps its clients waiting.
fn phase(here: &protocol::Status, now: Timestamp) -> String {
    let keeps_waiting = |silence: &protocol::Silence| match here.phase.as_str() {
        protocol::WAITING => !silence.partly,
        phase => phase == protocol::SWAPPED,
    };
    if let (Some(replicas), protocol::SWAPPED) = (here.rescaled, here.phase.as_str()) {
        return format!("{}, but {} has {replicas} replicas", here.phase, here.name);
    }
    match &here.silence {
        Some(silence) if keeps_waiting(silence) => {
            let word = here.phase.split(' ').next().unwrap_or_default();
            format!(
                "{word}, nobody listens on {} for {}",
                protocol::any(&silence.ports),
                age(silence.since, now)
            )
        }
        _ => here.phase.clone(),
    }
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

#[cfg(test)]
mod tests {
    use devproxy_cluster::{Phase, status::AgentHealth};

    use super::*;

    fn rows() -> Vec<Row> {
        let time = |text: &str| text.parse().unwrap();
        let info = |deployment: Option<&str>, expired: bool| SessionInfo {
            session: "k7f2abcdef".into(),
            namespace: "shop".into(),
            deployment: deployment.map(str::to_owned),
            replicas: 3,
            user: "ann".into(),
            host: "box".into(),
            since: time("2026-01-01T09:30:00Z"),
            renewed: Some(time("2026-01-01T09:59:50Z")),
            expired,
            life: if expired { Life::Expired } else { Life::Alive },
            phase: Phase::HandingOver,
            stand_in: "cart-devproxy-k7f2".into(),
            agent: Some(AgentHealth {
                pod: "cart-devproxy-k7f2-5d8c7b9f4-x2x7l".into(),
                node: "node-3".into(),
                ready: !expired,
                words: expired.then(|| "app: exit code 1\n\u{1b}[2Jboom".into()),
            }),
        };
        let silence = protocol::Silence {
            ports: vec![protocol::PortPair { pod: 8080, local: 3000 }],
            since: time("2026-01-01T09:59:26Z"),
            partly: false,
        };
        let here = |name: &str, phase: &str| protocol::Status {
            schema: 1,
            id: "m2p9abcdef".into(),
            namespace: "till".into(),
            name: name.into(),
            phase: phase.into(),
            pod: None,
            silence: (phase != "swapped").then(|| silence.clone()),
            rescaled: None,
            program: Some(4711),
            round_trip: Some(0.4),
            reconnects: 0,
            ports: [("pod".to_owned(), vec!["8080/tcp".to_owned()])].into(),
        };
        vec![
            Row {
                cluster: Some(info(Some("cart"), false)),
                here: Some(here("cart", "waiting for the program to listen")),
            },
            Row { cluster: Some(info(Some("cart"), false)), here: None },
            Row { cluster: Some(info(None, true)), here: None },
            Row { cluster: None, here: Some(here("pay", "swapped")) },
        ]
    }

    #[test]
    fn the_table_fits_into_the_terminal() {
        let shown = |room| table(&rows(), "2026-01-01T10:00:00Z".parse().unwrap(), room);
        insta::assert_snapshot!(shown(usize::MAX), @"
        SESSION      DEPLOYMENT     HOLDER           SINCE   PHASE                                          AGENT
        k7f2abcdef   shop/cart      ann@box (here)   30m     waiting, nobody listens on 8080→3000 for 34s   cart-devproxy-k7f2-5d8c7b9f4-x2x7l
        k7f2abcdef   shop/cart      ann@box          30m     handing over                                   cart-devproxy-k7f2-5d8c7b9f4-x2x7l
        k7f2abcdef   shop/(shell)   ann@box          30m     expired                                        cart-devproxy-k7f2-5d8c7b9f4-x2x7l
        m2p9abcdef   till/pay       this laptop      -       swapped                                        -
        ");
        insta::assert_snapshot!(shown(100), @"
        SESSION      DEPLOYMENT     HOLDER           SINCE   PHASE
        k7f2abcdef   shop/cart      ann@box (here)   30m     waiting, nobody listens on 8080→3000 for 34s
        k7f2abcdef   shop/cart      ann@box          30m     handing over
        k7f2abcdef   shop/(shell)   ann@box          30m     expired
        m2p9abcdef   till/pay       this laptop      -       swapped
        ");
        insta::assert_snapshot!(shown(50), @"
        SESSION     k7f2abcdef
        DEPLOYMENT  shop/cart
        HOLDER      ann@box (here)
        SINCE       30m
        PHASE       waiting, nobody lis… 8080→3000 for 34s
        AGENT       cart-devproxy-k7f2-5d8c7b9f4-x2x7l

        SESSION     k7f2abcdef
        DEPLOYMENT  shop/cart
        HOLDER      ann@box
        SINCE       30m
        PHASE       handing over
        AGENT       cart-devproxy-k7f2-5d8c7b9f4-x2x7l

        SESSION     k7f2abcdef
        DEPLOYMENT  shop/(shell)
        HOLDER      ann@box
        SINCE       30m
        PHASE       expired
        AGENT       cart-devproxy-k7f2-5d8c7b9f4-x2x7l

        SESSION     m2p9abcdef
        DEPLOYMENT  till/pay
        HOLDER      this laptop
        SINCE       -
        PHASE       swapped
        AGENT       -
        ");
    }

    #[test]
    fn what_is_wrong_is_told_below_with_what_to_do() {
        let rows = rows();
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = time("2026-01-01T10:00:00Z");
        let told = |row: &Row| notes(row.cluster.as_ref().unwrap(), now);
        assert!(told(&rows[0]).is_empty());
        let silent =
            SessionInfo { renewed: Some(time("2026-01-01T09:58:50Z")), ..rows[0].cluster.clone().unwrap() };
        assert_eq!(
            notes(&silent, now),
            ["shop/cart: no sign of life from its laptop for 70s; after two minutes anybody may restore it"]
        );
        assert_eq!(
            told(&rows[2]),
            [
                "cart-devproxy-k7f2-5d8c7b9f4-x2x7l: app: exit code 1\n\u{1b}[2Jboom",
                "shop/k7f2abcdef: its laptop has given no sign of life for two minutes; `devproxy restore shop/k7f2abcdef` puts it back",
            ]
        );
        let dead = SessionInfo { life: Life::Dead, ..rows[0].cluster.clone().unwrap() };
        assert_eq!(
            notes(&dead, now),
            ["shop/cart: its processes on this laptop are dead; `devproxy restore shop/cart` puts it back"]
        );
    }

    #[test]
    fn programs_get_the_documented_shape() {
        insta::assert_snapshot!("status", serde_json::to_string_pretty(&rows()[..1]).unwrap());
    }

    #[test]
    fn ages_are_those_of_kubectl() {
        let since: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let after = |seconds| age(since, since + jiff::SignedDuration::from_secs(seconds));
        assert_eq!(
            [after(5), after(119), after(125), after(7200), after(200_000)],
            ["5s", "119s", "2m", "2h", "2d"]
        );
    }
}
