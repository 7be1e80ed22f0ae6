//! `cargo xtask bench`: how fast and how large it is, against what it is compared with, in one run on one cluster.
//!
//! All columns are measured in turns, round by round: a machine that becomes slower for a while makes all of them
//! slower. docs/PERFORMANCE.md tells the method and its limits.
//!
//! - [`rows`]: what is measured; [`columns`]: over which way;
//! - [`scene`]: the pods, the laptop and the session; [`processes`]: their memory and time;
//! - [`figures`], [`statistics`]: what was seen; [`bars`]: what should be; [`report`]: both as text and JSON;
//! - [`start`], [`idle`], [`sizes`]: rows that are no load.

mod bars;
mod build;
mod columns;
mod figures;
mod idle;
mod processes;
mod report;
mod rows;
mod scene;
mod sizes;
mod start;
mod statistics;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use devproxy_tests::Bed;
use devproxy_tests::node::{Node, Place};

use tokio::signal::unix::{SignalKind, signal};

use crate::set_up;
use build::Programs;
use columns::Column;
use figures::Figures;
use rows::{ROWS, Row};
use scene::{Scene, Stage, Wire};

/// What to measure.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct Arguments {
    /// Shorter, and everything once: three minutes
    #[arg(long)]
    quick: bool,
    /// Everything on standard output as JSON, the rest on standard error
    #[arg(long)]
    json: bool,
    /// Only rows whose name holds one of these texts, such as `bulk,http@80ms` or `@20ms`; `--list` tells the names
    #[arg(long, value_delimiter = ',', value_name = "ROW")]
    only: Vec<String>,
    /// Only these columns
    #[arg(long, value_delimiter = ',', value_name = "COLUMN")]
    columns: Vec<Column>,
    /// How often each is measured [default: 5 and 2 with delay, 1 with --quick]
    #[arg(long)]
    rounds: Option<usize>,
    /// Exit with 1 if a figure is below its bar
    #[arg(long)]
    check: bool,
    /// Measure the `devproxy` that was built before, or the one in `DEVPROXY_BIN`
    #[arg(long)]
    no_build: bool,
    /// Leave the cluster running at the end
    #[arg(long)]
    keep: bool,
    /// Print the names of all rows
    #[arg(long)]
    list: bool,
}

/// The delays of the relay, both ways together.
const DELAYS: [u64; 2] = [20, 80];

/// How long and how often.
#[derive(Debug, Clone)]
struct Effort {
    begin: Instant,
    rounds: usize,
    delayed_rounds: usize,
    bulk: Duration,
    other: Duration,
    /// Of the row that counts connections, each way.
    churn: u64,
    starts: usize,
    idle: &'static [usize],
    delays: &'static [u64],
}

impl Effort {
    /// What goes on, for whoever waits.
    fn tell(&self, what: &str) {
        eprintln!("{:>5} s  {what}", self.begin.elapsed().as_secs());
    }
}

impl Arguments {
    fn effort(&self) -> Effort {
        let (second, millis) = (Duration::from_secs(1), Duration::from_millis);
        let mut effort = if self.quick {
            Effort {
                begin: Instant::now(),
                rounds: 1,
                delayed_rounds: 1,
                bulk: millis(700),
                other: millis(400),
                churn: 3_000,
                starts: 1,
                idle: &[1_000],
                delays: &DELAYS[1..],
            }
        } else {
            Effort {
                begin: Instant::now(),
                rounds: 5,
                delayed_rounds: 2,
                bulk: 3 * second,
                other: 2 * second,
                churn: 50_000,
                starts: 5,
                idle: &[1_000, 10_000],
                delays: &DELAYS,
            }
        };
        effort.rounds = self.rounds.unwrap_or(effort.rounds);
        effort.delayed_rounds = self.rounds.unwrap_or(effort.delayed_rounds);
        effort
    }

    fn wants(&self, row: &str) -> bool {
        let (name, delay) = in_parts(row);
        let names = |wanted: &String| {
            let (part, with) = in_parts(wanted);
            name.contains(part) && with == delay
        };
        self.only.is_empty() || self.only.iter().any(names)
    }

    fn wants_column(&self, column: Column) -> bool {
        self.columns.is_empty() || self.columns.contains(&column)
    }
}

/// Name and delay, such as `latency` and `80ms`.
fn in_parts(row: &str) -> (&str, Option<&str>) {
    row.split_once('@').map_or((row, None), |(name, delay)| (name, Some(delay)))
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.list {
        report::list_rows();
        return Ok(());
    }
    set_up::all()?;
    let programs = Programs::locate()?;
    if !arguments.no_build {
        build::release()?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let was_running = Node::status(Place::First)?.is_some_and(|status| status.ready);
    let (start, mut figures) = (Instant::now(), Figures::default());
    let measured = runtime.block_on(async {
        tokio::select! {
            measured = measure(arguments, &programs, &mut figures) => measured,
            // What was made is dropped with the other branch, and removed thereby.
            signal = interrupted() => bail!("{}", signal?),
        }
    });
    // Also after a failure; the failure is what is told.
    let ended = if was_running || arguments.keep { Ok(()) } else { Node::down(Place::First) };
    // What was seen until a failure may be of use.
    let bars = bars::all(&figures);
    report::print(&figures, &bars, start.elapsed(), arguments.json);
    measured.and(ended)?;
    let missed = bars.iter().filter(|bar| bar.passed() == Some(false)).count();
    if arguments.check && missed > 0 {
        bail!("{missed} figures are below their bar");
    }
    Ok(())
}

/// Until somebody wants it to end.
async fn interrupted() -> Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => interrupt.map(|()| "interrupted").map_err(Into::into),
        _ = terminate.recv() => Ok("terminated"),
    }
}

async fn measure(arguments: &Arguments, programs: &Programs, figures: &mut Figures) -> Result<()> {
    let effort = arguments.effort();
    effort.tell("cluster, servers");
    if arguments.wants("size") {
        sizes::measure(programs, figures)?;
    }
    let bed = Bed::get().await?;
    let stage = Stage::set(&bed).await?;

    let wanted: Vec<&Row> = ROWS.iter().filter(|row| arguments.wants(row.name)).collect();
    if !wanted.is_empty() || arguments.wants("memory") {
        effort.tell("a session");
        let scene = Scene::open(&bed, &stage, programs, Wire::Kernel).await?;
        figures.session(&scene.idle_usage().await?);
        rounds(arguments, &effort, &scene, &wanted, None, figures).await?;
        figures.session_peak(&scene.usage()?);
        scene.close().await?;
    }
    if arguments.wants("idle-flows") {
        effort.tell("a session that nothing has warmed up");
        let scene = Scene::open(&bed, &stage, programs, Wire::Kernel).await?;
        idle::measure(&scene, &effort, figures).await?;
        scene.close().await?;
    }
    if arguments.wants("start") {
        start::measure(&bed, &stage, programs, &effort, figures).await?;
    }
    let delayed: Vec<_> = effort
        .delays
        .iter()
        .map(|delay| {
            let useful =
                |row: &&Row| row.delayed && (row.is_bulk() || row.kind == "latency" || !arguments.quick);
            let rows = ROWS.iter().filter(useful).filter(|row| arguments.wants(&row.delayed_name(*delay)));
            (*delay, rows.collect::<Vec<_>>())
        })
        .filter(|(_, rows)| !rows.is_empty())
        .collect();
    for (delay, rows) in delayed {
        effort.tell(&format!("a session over the relay, {delay} ms"));
        let wire = Wire::Relay(Duration::from_millis(delay));
        let scene = Scene::open(&bed, &stage, programs, wire).await?;
        rounds(arguments, &effort, &scene, &rows, Some(delay), figures).await?;
        scene.close().await?;
    }
    effort.tell("done");
    stage.clear().await
}

/// A B C A B C …: every column of every row once, then again.
async fn rounds(
    arguments: &Arguments,
    effort: &Effort,
    scene: &Scene<'_>,
    rows: &[&Row],
    delay: Option<u64>,
    figures: &mut Figures,
) -> Result<()> {
    let rounds = if delay.is_some() { effort.delayed_rounds } else { effort.rounds };
    for round in 0..rounds {
        for row in rows.iter().filter(|row| !row.once || round + 1 == rounds) {
            let name = delay.map_or_else(|| row.name.to_owned(), |delay| row.delayed_name(delay));
            effort.tell(&format!("round {} of {rounds}: {name}", round + 1));
            // Between pods there is no delay to be seen.
            let useful = |column: &Column| delay.is_none() || *column != Column::Direct;
            let wanted = |column: &Column| useful(column) && arguments.wants_column(*column);
            for column in row.columns.iter().copied().filter(wanted) {
                let before = scene.times();
                let start = Instant::now();
                match scene.measure(column, row, effort).await {
                    Ok(seen) => {
                        let seen = row.read(&seen).with_context(|| format!("{name}, {}", column.name()))?;
                        figures.add(&name, column, seen);
                        figures.times(&name, column, &before, &scene.times(), start.elapsed());
                    }
                    Err(error) => figures.fail(&name, column, &format!("{error:#}")),
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        bench: Arguments,
    }

    fn arguments(line: &str) -> Arguments {
        Line::parse_from(["bench"].into_iter().chain(line.split_whitespace())).bench
    }

    #[test]
    fn rows_with_delay_are_wanted_by_their_delay_only() {
        let all = arguments("");
        assert!(all.wants("latency") && all.wants("latency@80ms"));
        let idle = arguments("--only latency,http");
        assert!(idle.wants("latency-beside-up") && idle.wants("http1"));
        assert!(!idle.wants("latency@80ms") && !idle.wants("udp"));
        let delayed = arguments("--only bulk@80ms --only @20ms");
        assert!(delayed.wants("bulk-down-1@80ms") && !delayed.wants("latency@80ms"));
        assert!(delayed.wants("http1@20ms") && !delayed.wants("http1"));
    }

    #[test]
    fn columns_are_named_as_in_the_table() {
        let some = arguments("--columns port-forward,outbound --quick");
        assert!(some.wants_column(Column::PortForward) && !some.wants_column(Column::Direct));
        assert_eq!(some.effort().rounds, 1);
        assert_eq!(arguments("--rounds 7").effort().rounds, 7);
    }
}
