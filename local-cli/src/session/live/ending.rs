//! The end: hang up what is left in the shell, put the cluster back, say what became of it.

use std::{net::IpAddr, time::Instant};

use devproxy_cluster::{Again, OriginalOutcome, Outcome, Patience, Plan, SpliceHook, Splicing, Swap};

use super::shell::Live;
use crate::{
    Failure,
    session::{link::AgentHandle, outlet::Outlet, protocol::RESTORING, shared::Shared},
};

/// Whether a restore that failed is to be tried again, and the line to tell before; the failure when it was tried for long
/// enough.
pub(crate) fn again(patience: &mut Patience, failure: Failure) -> Result<Option<String>, Failure> {
    tracing::info!(%failure, "restore");
    match patience.again(failure.code == "DP-UNREACHABLE") {
        Again::No => Err(failure),
        Again::Quietly => Ok(None),
        Again::Tell(limit) => Ok(Some(format!("{failure}; trying again {limit}"))),
    }
}

/// Ends the session. Whatever happens here, the Lease goes last, so `devproxy restore` can repeat it.
pub(super) async fn end(plan: &Plan, live: Option<Live>, swap: &mut Swap, shared: &Shared) {
    let since = Instant::now();
    shared.update(|status| RESTORING.clone_into(&mut status.phase));
    let mut hook =
        live.as_ref().map(|live| Hook { agent: live.agent.clone(), outlet: shared.outlet.clone() });
    let hook = hook.as_mut().map(|hook| -> &mut dyn SpliceHook { hook });
    // What runs hears of it first; what does not end by itself is ended before or after the original is back.
    let hanging_up = async {
        if let Some(live) = &live {
            live.inside.hang_up().await;
        }
    };
    let ((), result) = tokio::join!(hanging_up, put_back(swap, hook, shared));
    match result {
        Ok(outcome) => report(plan, &outcome, since, shared).await,
        Err(failure) => {
            let hint = format!("`devproxy restore {}` repeats it from any machine", plan.title());
            shared.fail(failure.hint(hint)).await;
        }
    }
}

async fn put_back(
    swap: &mut Swap,
    mut hook: Option<&mut dyn SpliceHook>,
    shared: &Shared,
) -> Result<Outcome, Failure> {
    let mut patience = Patience::default();
    loop {
        let hook = hook.as_mut().map(|hook| &mut **hook as &mut dyn SpliceHook);
        match swap.undo(hook).await {
            Ok(outcome) => return Ok(outcome),
            Err(error) => {
                if let Some(line) = again(&mut patience, error.into())? {
                    shared.outlet.notice(&line).await;
                }
            }
        }
        patience.pause().await;
    }
}

/// The agent sends what is held, and what still comes, to the original.
struct Hook {
    agent: AgentHandle,
    outlet: Outlet,
}

impl SpliceHook for Hook {
    fn splice(&mut self, ready: Vec<IpAddr>) -> Splicing<'_> {
        Box::pin(async move {
            // An attempt before has told it.
            if self.agent.is_over() {
                return true;
            }
            let told = self.agent.splice(ready).await;
            if let Err(failure) = &told {
                self.outlet.notice(&format!("{failure}; connections that are still held are reset")).await;
            }
            told.is_ok()
        })
    }
}

async fn report(plan: &Plan, outcome: &Outcome, since: Instant, shared: &Shared) {
    for problem in &outcome.problems {
        shared.outlet.notice(problem).await;
    }
    shared.outlet.done("restore", outcome_text(plan, outcome), since).await;
}

/// One line on what became of the original.
pub(crate) fn outcome_text(plan: &Plan, outcome: &Outcome) -> String {
    let name = plan.original.as_ref().map_or(plan.stand_in_name.as_str(), |original| original.name.as_str());
    describe(name, outcome)
}

/// The same by name.
pub(crate) fn describe(name: &str, outcome: &Outcome) -> String {
    let original = match &outcome.original {
        OriginalOutcome::Untouched => format!("{name} was not touched; "),
        OriginalOutcome::Restored { replicas } => {
            format!("{name} 0 → {replicas} replicas, {} ready; ", outcome.ready)
        }
        OriginalOutcome::Back { replicas } => {
            format!("{name} has its {replicas} replicas, {} ready; ", outcome.ready)
        }
        OriginalOutcome::Rescaled { replicas } => {
            format!("{name} was scaled to {replicas} by somebody else meanwhile and stays so; ")
        }
        OriginalOutcome::Deleted => format!("{name} was deleted meanwhile; "),
        OriginalOutcome::Replaced => {
            format!("{name} was deleted and made anew meanwhile and stays as it is; ")
        }
        OriginalOutcome::Held => format!("{name} is another session's now; "),
        OriginalOutcome::None => String::new(),
    };
    format!("{original}all of ours is gone")
}
