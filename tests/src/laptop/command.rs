//! A command of the laptop's user, before it runs.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;

use super::run::{Exit, Run};
use super::{Laptop, run};
use crate::host::root::CleanRoot;

/// Where the user's programs are found after the ones that the bed installed.
const SYSTEM_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// A command under construction.
#[derive(Debug)]
#[must_use = "a command does nothing until it is spawned"]
pub struct LaptopCommand<'a> {
    laptop: &'a Laptop,
    program: String,
    args: Vec<String>,
    variables: Vec<(String, String)>,
    folder: PathBuf,
    /// Columns of its terminal.
    terminal: Option<u16>,
    root: Option<PathBuf>,
}

/// Makes a folder the root of the file system, as a container does, and becomes the user. (In a `chroot` the kernel
/// refuses user namespaces.) Devices, processes and the laptop's own folder stay.
const ENTER_ROOT: &str = r#"
set -e
root=$1 place=$2 folder=$3 user=$4
shift 4
mount --bind "$root" "$root"
mkdir -p "$root$place"
mount --rbind "$place" "$root$place"
for each in /dev /proc /sys; do mount --rbind $each "$root$each"; done
mount -t tmpfs -o mode=755 run "$root/run"
cd "$root"
pivot_root . .
umount -l .
cd "$folder"
exec setpriv --reuid="$user" --regid="$user" --clear-groups --inh-caps=-all "$@"
"#;

impl<'a> LaptopCommand<'a> {
    pub(super) fn new(laptop: &'a Laptop, program: &str) -> Self {
        Self {
            laptop,
            program: program.to_owned(),
            args: Vec::new(),
            variables: Vec::new(),
            folder: laptop.home().to_owned(),
            terminal: None,
            root: None,
        }
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// More arguments.
    pub fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// An environment variable beside those of a login.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// The working folder; the home folder if not given.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = folder.into();
        self
    }

    /// With a terminal of 24 lines and 100 columns as its controlling one, instead of pipes. Both outputs then come
    /// as one.
    pub fn terminal(self) -> Self {
        self.terminal_of(100)
    }

    /// The same with another number of columns.
    pub fn terminal_of(mut self, columns: u16) -> Self {
        self.terminal = Some(columns);
        self
    }

    /// On another system than this machine's, of which it sees nothing but its own home.
    pub fn root(mut self, root: &CleanRoot) -> Self {
        self.root = Some(root.path().to_owned());
        self
    }

    /// Starts it, as the leader of a session of its own.
    pub fn spawn(self) -> Result<Run> {
        // `env` and `setsid` become the program itself, so that its process is ours. (`setsid` forks only for a group
        // leader.) A test started in the background by a script ignores SIGINT, and its children would too.
        let mut command = Command::new("env");
        command.args(["--default-signal", "setsid"]);
        if self.terminal.is_some() {
            command.arg("--ctty");
        }
        let slot = &self.laptop.slot;
        if let Some(root) = &self.root {
            command.args(["unshare", "--mount", "--propagation", "slave", "sh", "-c", ENTER_ROOT, "sh"]);
            command.arg(root).arg(slot.place()).arg(&self.folder).arg(slot.uid().to_string());
        }
        command
            .arg(&self.program)
            .args(&self.args)
            .current_dir(&self.folder)
            .env_clear()
            .env("HOME", slot.home())
            .env("USER", slot.user())
            .env("LOGNAME", slot.user())
            .env("SHELL", "/bin/bash")
            .env("LANG", "C.UTF-8")
            .env("PATH", format!("{}:{SYSTEM_PATH}", slot.programs().display()))
            .env("XDG_RUNTIME_DIR", slot.runtime())
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        if self.root.is_none() {
            // Together with the user's number std drops all supplementary groups, and the kernel all capabilities.
            command.uid(slot.uid()).gid(slot.gid());
        }
        if let Some(columns) = self.terminal {
            if !self.variables.iter().any(|(name, _)| name == "TERM") {
                command.env("TERM", "xterm-256color");
            }
            return run::spawn_on_terminal(slot.network(), &mut command, slot.uid(), columns);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        run::spawn(slot.network(), &mut command)
    }

    /// Runs it to its end with nothing on its standard input; it is killed after `limit`.
    pub async fn output(self, limit: Duration) -> Result<Exit> {
        let mut run = self.spawn()?;
        run.close_input();
        run.wait(limit).await
    }
}
