//! `devproxy completions`: the script that makes a shell ask devproxy at each Tab.

use crate::{
    Failure,
    cli::{Completions, ShellName},
    completion,
};

pub(super) fn run(wanted: &Completions) -> Result<u8, Failure> {
    let shell = match wanted.shell {
        ShellName::Bash => "bash",
        ShellName::Fish => "fish",
        ShellName::Zsh => "zsh",
    };
    let script = completion::script(shell, "devproxy").map_err(|e| Failure::new("DP-OUTPUT", e))?;
    super::write_stdout(&String::from_utf8_lossy(&script.unwrap_or_default()));
    Ok(0)
}
