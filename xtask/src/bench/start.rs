//! From Enter to the first line of a program in the shell, and how much of it is the pod's start: from the moment at
//! which the API server tells of the pod to the one at which its container runs. The rest is our own part.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use devproxy_tests::Bed;
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
        let enter = Instant::now();
        let mut swap =
            laptop.command("devproxy").args(["swap", MINE, "--", "sh", "-c", "echo in the shell"]).spawn()?;
        swap.wait_for("in the shell", LIMIT).await?;
        let whole = enter.elapsed();
        let exit = swap.wait(LIMIT).await?.success()?;
        let pod = watch.start_of_stand_in(enter).context("the stand-in's pod was not seen")?;
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

/// When pods of the namespace were first seen, and when they ran.
#[derive(Debug)]
struct Watch {
    kubectl: Child,
    pods: Arc<Mutex<BTreeMap<String, Seen>>>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    there: Instant,
    runs: Option<Instant>,
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
                let (Ok(event), now) = (event, Instant::now()) else { return };
                note(&mut shared.lock().unwrap_or_else(PoisonError::into_inner), &event["object"], now);
            }
        });
        Ok(Self { kubectl, pods })
    }

    /// Of the one that came last, if it came after `since`.
    fn start_of_stand_in(&self, since: Instant) -> Option<Duration> {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = pods.values().filter(|seen| seen.there >= since).max_by_key(|seen| seen.there)?;
        Some(newest.runs? - newest.there)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

fn note(pods: &mut BTreeMap<String, Seen>, pod: &Value, now: Instant) {
    let Some(name) = pod["metadata"]["name"].as_str().filter(|name| name.contains("-devproxy-")) else {
        return;
    };
    let seen = pods.entry(name.to_owned()).or_insert(Seen { there: now, runs: None });
    let all = pod["status"]["containerStatuses"].as_array();
    if seen.runs.is_none() && all.is_some_and(|all| all.iter().all(|one| one["state"]["running"].is_object()))
    {
        seen.runs = Some(now);
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
        assert_eq!(step("  … cart's pods still answer"), None);
    }

    #[test]
    fn a_pod_runs_once_all_its_containers_do() {
        let (mut pods, begin) = (BTreeMap::new(), Instant::now());
        let second = Duration::from_secs(1);
        let pod = |states: Value| json!({"metadata": {"name": "mine-devproxy-1"}, "status": {"containerStatuses": states}});
        note(&mut pods, &pod(json!(null)), begin);
        note(
            &mut pods,
            &pod(json!([{"state": {"running": {}}}, {"state": {"waiting": {}}}])),
            begin + second,
        );
        assert!(pods["mine-devproxy-1"].runs.is_none());
        note(&mut pods, &pod(json!([{"state": {"running": {}}}])), begin + 2 * second);
        note(&mut pods, &pod(json!([{"state": {"running": {}}}])), begin + 3 * second);
        assert_eq!(pods["mine-devproxy-1"].runs, Some(begin + 2 * second));
    }
}
