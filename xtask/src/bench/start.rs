//! From Enter to the first line of a program in the shell, and how much of it is the pod's start: from the moment at
//! which the API server tells of the pod to the one at which the agent's first line is in its log. The rest is our own
//! part.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use devproxy_tests::Bed;
use jiff::Timestamp;
use serde_json::Value;

use super::Effort;
use super::build::Programs;
use super::figures::Figures;
use super::scene::{MINE, Stage, Wire, laptop};

const LIMIT: Duration = Duration::from_mins(1);

pub(super) async fn measure(
    bed: &Bed,
    stage: &Stage,
    programs: &Programs,
    effort: &Effort,
    figures: &mut Figures,
) -> Result<()> {
    let laptop = laptop(bed, stage, programs, Wire::Kernel).await?;
    let mut kubectl = stage.shop.cluster().kubectl().command();
    let watch = Watch::start(kubectl.args(["--namespace", stage.shop.name()]))?;
    for number in 0..effort.starts {
        effort.tell(&format!("start {} of {}", number + 1, effort.starts));
        let (enter, begun) = (Instant::now(), Timestamp::now());
        let mut swap =
            laptop.command("devproxy").args(["swap", MINE, "--", "sh", "-c", "echo in the shell"]).spawn()?;
        swap.wait_for("in the shell", LIMIT).await?;
        let whole = enter.elapsed();
        let (pod, there) = watch.stand_in(begun).context("the stand-in's pod was not seen")?;
        // The kubelet tells the API server later that it runs.
        let (mut runs, ask) = (None, ["logs", "--timestamps", &pod]);
        let told = async || {
            runs = stage.shop.kubectl(ask).await.ok().as_deref().and_then(first_time);
            runs.is_some()
        };
        stage.shop.until("a time in the agent's log", LIMIT, told).await?;
        let runs = runs.context("no time in the agent's log")?;
        let pod = Duration::try_from(runs.duration_since(there)).unwrap_or_default();
        let exit = swap.wait(LIMIT).await?.success()?;
        let own = whole.saturating_sub(pod);
        for (part, time) in [("enter to shell", whole), ("the pod's start", pod), ("own part", own)] {
            figures.put("start", "s", part, time.as_secs_f64());
        }
        for (step, seconds) in exit.stderr.lines().filter_map(step) {
            if ["plan", "agent", "tunnel", "shell"].contains(&step) {
                figures.put("start", "s", &format!("line `{step}`"), seconds);
            }
        }
    }
    Ok(())
}

/// Name and seconds of a progress line such as `  ✓ agent     running   1.9 s`.
fn step(line: &str) -> Option<(&str, f64)> {
    let rest = line.trim().strip_prefix('✓')?.trim();
    let (name, rest) = rest.split_once(' ')?;
    let seconds = rest.trim().strip_suffix(" s")?.rsplit(' ').next()?;
    Some((name, seconds.parse().ok()?))
}

/// The time at the beginning of `kubectl logs --timestamps`.
fn first_time(log: &str) -> Option<Timestamp> {
    log.split_whitespace().next()?.parse().ok()
}

/// When stand-in pods of the namespace were first seen.
#[derive(Debug)]
struct Watch {
    kubectl: Child,
    pods: Arc<Mutex<BTreeMap<String, Timestamp>>>,
}

impl Watch {
    fn start(kubectl: &mut Command) -> Result<Self> {
        let mut kubectl = kubectl
            .args(["get", "pods", "--watch", "--output-watch-events", "-o", "json"])
            .stdout(Stdio::piped())
            .spawn()?;
        let events = kubectl.stdout.take().context("no pipe")?;
        let pods = Arc::new(Mutex::new(BTreeMap::new()));
        let shared = Arc::clone(&pods);
        std::thread::spawn(move || {
            for event in serde_json::Deserializer::from_reader(events).into_iter::<Value>() {
                let (Ok(event), now) = (event, Timestamp::now()) else { return };
                note(&mut shared.lock().unwrap_or_else(PoisonError::into_inner), &event["object"], now);
            }
        });
        Ok(Self { kubectl, pods })
    }

    /// The pod that came last, if it came after `since`.
    fn stand_in(&self, since: Timestamp) -> Option<(String, Timestamp)> {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = pods.iter().filter(|(_, there)| **there >= since).max_by_key(|(_, there)| **there)?;
        Some((newest.0.clone(), *newest.1))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

fn note(pods: &mut BTreeMap<String, Timestamp>, pod: &Value, now: Timestamp) {
    if let Some(name) = pod["metadata"]["name"].as_str().filter(|name| name.contains("-devproxy-")) {
        pods.entry(name.to_owned()).or_insert(now);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn progress_lines_give_their_time() {
        let line = "  ✓ agent     cart-devproxy-k7f2 running on node-3 (image of cart)      1.9 s";
        assert_eq!(step(line), Some(("agent", 1.9)));
        assert_eq!(step("  … waiting until something listens on 8080"), None);
    }

    #[test]
    fn a_pod_is_there_when_it_is_first_told_of_and_runs_at_its_first_line() {
        let mut pods = BTreeMap::new();
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let (first, second) = (time("2026-01-01T10:00:00Z"), time("2026-01-01T10:00:01Z"));
        for (name, now) in [("mine-1", first), ("mine-devproxy-1", first), ("mine-devproxy-1", second)] {
            note(&mut pods, &json!({"metadata": {"name": name}}), now);
        }
        assert_eq!(pods, BTreeMap::from([("mine-devproxy-1".to_owned(), first)]));
        let log = "2026-01-01T10:00:00.25+00:00 devproxy-agent: waiting for the laptop\n";
        assert_eq!(first_time(log), Some(time("2026-01-01T10:00:00.25Z")));
        assert_eq!(first_time("devproxy-agent: waiting"), None);
    }
}
