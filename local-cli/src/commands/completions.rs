//! `devproxy completions`: the script that makes a shell ask devproxy at each Tab.

use std::{
    ffi::OsStr,
    io::{self, IsTerminal},
    path::Path,
};

use clap::ValueEnum;

use crate::{
    Failure,
    cli::{Completions, ShellName},
    completion,
    ui::Progress,
};

pub(super) fn run(wanted: &Completions) -> Result<u8, Failure> {
    let shell = match wanted.shell {
        Some(shell) => shell,
        None => of_login(std::env::var_os("SHELL").as_deref())?,
    };
    let (name, switched_on) = match shell {
        ShellName::Bash => ("bash", "`source <(devproxy completions bash)` in ~/.bashrc"),
        ShellName::Fish => ("fish", "`devproxy completions fish | source` in ~/.config/fish/config.fish"),
        ShellName::Zsh => ("zsh", "`source <(devproxy completions zsh)` in ~/.zshrc, after compinit,"),
    };
    let script = completion::script(name, "devproxy").map_err(|e| Failure::new("DP-OUTPUT", e))?;
    super::write_stdout(&String::from_utf8_lossy(&script.unwrap_or_default()));
    if io::stdout().is_terminal() {
        Progress::new().notice(&format!("this is for the shell: {switched_on} switches it on"));
    }
    Ok(0)
}

/// The shell that the laptop has for its user.
fn of_login(shell: Option<&OsStr>) -> Result<ShellName, Failure> {
    let shell = shell.unwrap_or_default();
    let name = Path::new(shell).file_name().unwrap_or_default().to_string_lossy();
    ShellName::from_str(&name, false).map_err(|_| {
        let cause = if name.is_empty() {
            "which shell? $SHELL is not set".to_owned()
        } else {
            format!("there are no completions for `{}`, which $SHELL names", shell.display())
        };
        let known: Vec<_> = ShellName::value_variants()
            .iter()
            .filter_map(ShellName::to_possible_value)
            .map(|value| format!("`devproxy completions {}`", value.get_name()))
            .collect();
        Failure::new("DP-USAGE", cause).hint(known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_login_shell_is_taken_where_it_is_known() {
        let told = |shell: Option<&str>| of_login(shell.map(OsStr::new)).map_err(|failure| failure.cause);
        assert_eq!(told(Some("/usr/bin/fish")), Ok(ShellName::Fish));
        assert_eq!(told(Some("bash")), Ok(ShellName::Bash));
        assert_eq!(
            told(Some("/bin/tcsh")),
            Err("there are no completions for `/bin/tcsh`, which $SHELL names".into())
        );
        for nothing in [None, Some("")] {
            assert_eq!(told(nothing), Err("which shell? $SHELL is not set".into()));
        }
        assert_eq!(
            of_login(None).unwrap_err().hint.unwrap(),
            "`devproxy completions bash`, `devproxy completions fish`, `devproxy completions zsh`"
        );
    }
}
