//! Steps of a demonstration: each told when it is done, with its time; all of them in a table at the end.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// What was done and seen so far.
#[derive(Debug)]
pub(crate) struct Steps {
    start: Instant,
    seen: Vec<Seen>,
}

#[derive(Debug)]
struct Seen {
    what: String,
    found: String,
    as_wanted: bool,
}

impl Steps {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), seen: Vec::new() }
    }

    /// Does `work` and prints what it says. Its failure ends the demonstration.
    pub(crate) async fn step<T>(
        &mut self,
        name: &str,
        work: impl Future<Output = Result<(T, String)>>,
    ) -> Result<T> {
        let start = Instant::now();
        match work.await {
            Ok((value, said)) => {
                println!("  ✓ {name:<9} {said:<96} {}", seconds(start.elapsed()));
                Ok(value)
            }
            Err(error) => {
                println!("  ✗ {name:<9} {}", seconds(start.elapsed()));
                Err(error).with_context(|| format!("step `{name}` failed"))
            }
        }
    }

    /// Notes that `what` was found to be `found`, and whether that is what was wanted.
    pub(crate) fn saw(&mut self, what: &str, found: impl Into<String>, as_wanted: bool) {
        self.seen.push(Seen { what: what.to_owned(), found: found.into(), as_wanted });
    }

    /// Prints the table; an error if anything was not as wanted.
    pub(crate) fn finish(self) -> Result<()> {
        println!();
        for Seen { what, found, as_wanted } in &self.seen {
            println!("  {} {what:<44} {}", if *as_wanted { "✓" } else { "✗" }, found.trim());
        }
        println!("\n  {} in all", seconds(self.start.elapsed()).trim());
        let wrong = self.seen.iter().filter(|seen| !seen.as_wanted).count();
        if wrong > 0 {
            anyhow::bail!("{wrong} of {} things were not as they should be", self.seen.len());
        }
        Ok(())
    }
}

fn seconds(time: Duration) -> String {
    format!("{:>6.1} s", time.as_secs_f64())
}
