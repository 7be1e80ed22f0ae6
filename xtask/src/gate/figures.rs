//! What is counted, and what was.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use devproxy_tests::host::program::output;
use serde::{Deserialize, Serialize};

/// From run to run, also with all processors busy, counts differ by 0.1 %.
const TOLERANCE: f64 = 0.01;
/// Bulk by more: windows grow with the round trip that was measured, and with them the number of CREDIT frames changes.
/// Seen: 2 % of the instructions and 5 % of the system calls. A copy of every byte would be 35 % of the instructions.
const BULK: f64 = 0.04;
const BULK_CALLS: f64 = 0.12;
const REMEDY: &str = "cargo xtask gate --record";

/// Counts by what they are of.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Figures {
    /// Other compilers make other instructions.
    compiler: String,
    figures: BTreeMap<String, f64>,
}

impl Default for Figures {
    fn default() -> Self {
        Self { compiler: compiler(), figures: BTreeMap::new() }
    }
}

/// `rustc 1.95.0 (hash date)`, as rust-toolchain.toml has it.
fn compiler() -> String {
    let said =
        output(Command::new("rustc").arg("--version").current_dir(super::workspace())).unwrap_or_default();
    said.trim().to_owned()
}

impl Figures {
    pub(super) fn set(&mut self, name: &str, value: f64) {
        // A hundredth is less than any tolerance, and easier to read.
        self.figures.insert(name.to_owned(), (value * 100.0).round() / 100.0);
    }

    pub(super) fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("no figures in {}; `{REMEDY}` records them", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} holds no figures", file.display()))
    }

    pub(super) fn write(&self, file: &Path) -> Result<()> {
        Ok(std::fs::write(file, serde_json::to_string_pretty(self)? + "\n")?)
    }

    /// Prints both, and is an error if any differs by more than its tolerance, either way: a gain that is not recorded
    /// would be lost without a word.
    pub(super) fn hold_against(&self, recorded: &Self) -> Result<()> {
        if self.compiler != recorded.compiler {
            bail!(
                "the figures are of `{}`, this is `{}`: `{REMEDY}` on a commit that is known to be good",
                recorded.compiler,
                self.compiler
            );
        }
        let (mut worse, mut better) = (0, 0);
        let names: std::collections::BTreeSet<_> =
            self.figures.keys().chain(recorded.figures.keys()).collect();
        for name in names {
            let (Some(now), Some(then)) = (self.figures.get(name), recorded.figures.get(name)) else {
                bail!("`{name}` is not both counted and recorded: `{REMEDY}`");
            };
            let change = (now - then) / then;
            let verdict = if change > tolerance(name) {
                worse += 1;
                "  WORSE"
            } else if change < -tolerance(name) {
                better += 1;
                "  better"
            } else {
                ""
            };
            println!("{name:<56} {then:>14.2} {now:>14.2} {:>+7.2} %{verdict}", 100.0 * change);
        }
        if worse > 0 {
            bail!("{worse} figures are worse; if that is meant: `{REMEDY}`, and say why in the commit");
        }
        if better > 0 {
            bail!("{better} figures are better: `{REMEDY}`, so that it stays so");
        }
        Ok(())
    }
}

fn tolerance(name: &str) -> f64 {
    match (name.contains("bulk"), name.contains("calls")) {
        (false, _) => TOLERANCE,
        (true, false) => BULK,
        (true, true) => BULK_CALLS,
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.figures.iter().try_for_each(|(name, value)| writeln!(f, "{name:<56} {value:>14.2}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(value: f64) -> Figures {
        let mut figures = Figures::default();
        figures.set("agent, messages: instructions per round trip", value);
        figures
    }

    #[test]
    fn a_change_beyond_the_tolerance_fails_in_both_directions() {
        let recorded = figures(1000.0);
        assert!(figures(1009.0).hold_against(&recorded).is_ok());
        assert!(figures(991.0).hold_against(&recorded).is_ok());
        let worse = figures(1011.0).hold_against(&recorded).unwrap_err().to_string();
        assert!(worse.contains("1 figures are worse") && worse.contains(REMEDY), "{worse}");
        let better = figures(989.0).hold_against(&recorded).unwrap_err().to_string();
        assert!(better.contains("1 figures are better") && better.contains(REMEDY), "{better}");
    }

    #[test]
    fn what_is_not_recorded_and_what_another_compiler_made_fails() {
        assert!(figures(1.0).hold_against(&Figures::default()).is_err());
        let other = Figures { compiler: "rustc 1.0.0".to_owned(), ..figures(1.0) };
        assert!(figures(1.0).hold_against(&other).is_err());
    }
}
