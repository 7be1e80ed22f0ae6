//! The user's program: how it is found, started inside the shell, and what its end means.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    io::ErrorKind,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    process::ExitStatus,
};

use devproxy_namespaces::Entrance;
use nix::sys::signal::Signal;
use tokio::process::{Child, Command};

use crate::{
    Failure, environment,
    failure::{EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND},
    session::protocol::ShellEntrance,
};

/// The user's program: what to run and with which environment.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    form: environment::Form,
    /// Nothing was named: it is the user's shell.
    pub(super) is_shell: bool,
}

impl Program {
    /// Looks `words` up as a shell would, before anything is changed in the cluster. No words: the user's shell.
    pub fn find(words: &[OsString], form: environment::Form) -> Result<Self, Failure> {
        let Some((name, arguments)) = words.split_first() else {
            let shell =
                std::env::var_os("SHELL").filter(|s| !s.is_empty()).unwrap_or_else(|| "/bin/sh".into());
            let path = lookup(&shell).map_err(|failure| {
                failure.hint("$SHELL does not name a program; name one after `--`, e.g. `-- bash`")
            })?;
            return Ok(Self { path, arguments: Vec::new(), form, is_shell: true });
        };
        Ok(Self { path: lookup(name)?, arguments: arguments.to_vec(), form, is_shell: false })
    }

    /// Starts it inside the shell, as our child.
    pub fn spawn(&self, entrance: Option<&Entrance>, shell: &ShellEntrance) -> Result<Child, Failure> {
        let directory = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let variables: BTreeMap<_, _> =
            environment::shell(self.form, std::env::vars_os(), &shell.environment, &shell.session, &shell.id);
        let mut command = std::process::Command::new(&self.path);
        command.args(&self.arguments).env_clear().envs(variables);
        if let Some(entrance) = entrance {
            entrance.prepare(&mut command, &directory);
        }
        Command::from(command).spawn().map_err(|e| {
            let (program, directory) = (self.path.display(), directory.display());
            Failure::new("DP-PROGRAM", format!("`{program}` could not be started in `{directory}`: {e}"))
                .hint("the pod's files may hide the folder, the program or its interpreter")
                .exit(EXIT_NOT_EXECUTABLE)
        })
    }
}

/// The way into the shell of a session; `None` when we are in it.
pub fn enter(shell: &ShellEntrance) -> Result<Option<Entrance>, Failure> {
    match Entrance::of(shell.helper) {
        Ok(entrance) => Ok(Some(entrance)),
        // Who has entered a shell has no rights around it, where the helpers of all sessions are.
        Err(e) if e.kind() == ErrorKind::PermissionDenied => match std::env::var(environment::ID) {
            Ok(inside) if inside == shell.id => Ok(None),
            Ok(_) => {
                Err(Failure::new("DP-NAMESPACES", "from the shell of one session no other can be joined")
                    .hint("join it in a terminal outside of the session"))
            }
            Err(_) => {
                Err(Failure::new("DP-NAMESPACES", format!("the session's shell cannot be entered: {e}")))
            }
        },
        Err(e) => Err(Failure::new("DP-SESSION-ENDED", format!("the session's shell is gone: {e}"))),
    }
}

/// The code a shell would give for `status`.
pub(super) fn exit_code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// How it ended, where that may surprise: by which signal, or before anybody listened on `silent`.
pub(super) fn surprise(status: ExitStatus, silent: Option<&str>) -> Option<String> {
    use std::os::unix::process::ExitStatusExt;
    let before = silent.map(|ports| format!(" before anything listened on {ports}"));
    match (status.signal(), before) {
        (Some(signal), before) => {
            let name =
                Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |it| it.to_string());
            Some(format!("the program was ended by {name}{}", before.unwrap_or_default()))
        }
        (None, Some(before)) => Some(format!("the program ended (exit code {}){before}", exit_code(status))),
        (None, None) => None,
    }
}

fn lookup(name: &OsStr) -> Result<PathBuf, Failure> {
    let executable = |path: &Path| {
        path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let shown = name.display();
    if name.as_bytes().contains(&b'/') {
        let path = std::path::absolute(name).unwrap_or_else(|_| PathBuf::from(name));
        return match path.metadata() {
            Err(e) => Err(Failure::new("DP-PROGRAM-NOT-FOUND", format!("`{shown}`: {e}"))
                .hint("the path is one of the laptop, the pod's image is not here")
                .exit(EXIT_NOT_FOUND)),
            Ok(found) if found.is_dir() => {
                Err(Failure::new("DP-PROGRAM-NOT-EXECUTABLE", format!("`{shown}` is a folder"))
                    .hint("name the program in it")
                    .exit(EXIT_NOT_EXECUTABLE))
            }
            Ok(_) if executable(&path) => Ok(path),
            Ok(_) => Err(Failure::new("DP-PROGRAM-NOT-EXECUTABLE", format!("`{shown}` is not executable"))
                .hint(format!("chmod +x {shown}"))
                .exit(EXIT_NOT_EXECUTABLE)),
        };
    }
    std::env::var_os("PATH")
        .iter()
        .flat_map(std::env::split_paths)
        // An empty or relative folder of PATH means the one we are in.
        .filter_map(|folder| std::path::absolute(Path::new(".").join(folder).join(name)).ok())
        .find(|path| executable(path))
        .ok_or_else(|| {
            let hint = if name.as_bytes().contains(&b' ') {
                format!("without the quotes each word is an argument: `-- {shown}`")
            } else {
                "the program is looked up in the laptop's PATH, the pod's image is not here".to_owned()
            };
            Failure::new("DP-PROGRAM-NOT-FOUND", format!("command not found: `{shown}`"))
                .hint(hint)
                .exit(EXIT_NOT_FOUND)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str) -> Result<PathBuf, u8> {
        lookup(OsStr::new(name)).map_err(|failure| failure.exit)
    }

    #[test]
    fn programs_are_looked_up_as_a_shell_does() {
        assert!(found("sh").is_ok_and(|path| path.is_absolute() && path.ends_with("sh")));
        assert_eq!(found("/bin/sh"), Ok("/bin/sh".into()));
        assert_eq!(found("no-such-program"), Err(EXIT_NOT_FOUND));
        assert_eq!(found("/no/such/program"), Err(EXIT_NOT_FOUND));
        assert_eq!(found("/etc/passwd"), Err(EXIT_NOT_EXECUTABLE));
        assert_eq!(found("/bin/sh -l"), Err(EXIT_NOT_FOUND), "arguments are no part of the name");
        let hint = lookup(OsStr::new("npm run dev")).unwrap_err().hint.unwrap();
        assert_eq!(hint, "without the quotes each word is an argument: `-- npm run dev`");
    }

    #[test]
    fn an_end_that_may_surprise_is_told() {
        use std::os::unix::process::ExitStatusExt;
        let told = |raw, silent| surprise(ExitStatus::from_raw(raw), silent);
        assert_eq!(told(0, None), None);
        assert_eq!(told(7 << 8, None), None);
        assert_eq!(
            told(1 << 8, Some("8080")).unwrap(),
            "the program ended (exit code 1) before anything listened on 8080"
        );
        assert_eq!(told(11, None).unwrap(), "the program was ended by SIGSEGV");
        // A core was dumped as well.
        assert_eq!(
            told(0x80 | 6, Some("8080 or 9090")).unwrap(),
            "the program was ended by SIGABRT before anything listened on 8080 or 9090"
        );
        assert_eq!(told(40, None).unwrap(), "the program was ended by signal 40");
    }

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        use std::os::unix::process::ExitStatusExt;
        let code = |raw| exit_code(ExitStatus::from_raw(raw));
        assert_eq!((code(7 << 8), code(255 << 8), code(9), code(15)), (7, 255, 137, 143));
    }
}
