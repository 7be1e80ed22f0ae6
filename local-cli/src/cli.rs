//! The command line as typed.
//!
//! - [`read`](read()): from words, variables and files to a checked command line
//! - [`usage`]: what was typed wrongly, in the form of every other failure
//! - [`values`]: values that are more than a word

mod read;
pub(crate) mod usage;
mod values;

use std::{ffi::OsString, path::PathBuf};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::ArgValueCompleter;
use devproxy_cluster::{PortMapping, ReadyMode};

pub use self::read::{Read, Stopped, read};
use crate::completion;

/// Take one service of a Kubernetes cluster onto the laptop.
#[derive(Debug, Parser)]
#[command(
    name = "devproxy",
    version,
    after_help = "\
Examples:
  devproxy swap cart -- cargo run    run your cart in place of the cluster's
  devproxy swap shop/cart            the same with a shell, to edit and restart
  devproxy swap cart --dry-run       show what would be done, change nothing
  devproxy exec cart -- psql         join the session from a second terminal
  devproxy status                    who holds what, since when
  devproxy restore cart              put it back, from any machine
  devproxy config                    the settings, and where they come from

Exit codes: the program's own; 128+n when signal n ended it; 125 devproxy
failed (see the DP-… code); 126 the program cannot be executed; 127 it was not
found."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Flags of all commands.
    #[command(flatten)]
    pub global: Global,
}

/// Flags of all commands, named as kubectl names them.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cluster and log")]
pub struct Global {
    /// Path of the kubeconfig file [default: $KUBECONFIG, then ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, global = true, value_name = "NAME", add = ArgValueCompleter::new(completion::contexts))]
    pub context: Option<String>,
    /// Namespace [default: the context's]
    #[arg(short, long, global = true, value_name = "NAME", add = ArgValueCompleter::new(completion::namespaces))]
    pub namespace: Option<String>,
    /// Print the log to stderr; twice for more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Whether the namespace was typed, and not found in a variable or file.
    #[arg(skip)]
    pub namespace_typed: bool,
    /// What a project's file decided; told before anything is changed.
    #[arg(skip)]
    pub notices: Vec<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take a Deployment's place: its traffic, environment, files, DNS and network come to a local program
    Swap(Box<Swap>),
    /// The cluster's network and DNS without taking anyone's place
    Shell(Box<Shell>),
    /// Join a running session of this laptop with another program
    Exec(Exec),
    /// Show sessions: who holds what since when
    Status(Status),
    /// Put a Deployment back as it was; idempotent, from any machine
    Restore(Restore),
    /// Show the settings, and where each comes from
    Config(Config),
    /// Print the completions of a shell
    Completions(Completions),
    /// Write the man pages
    #[command(hide = true)]
    Man(ManPages),
}

/// `devproxy swap`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devproxy swap cart -- npm run dev
  devproxy swap cart                        a shell: run, edit, run again in it
  devproxy swap cart -p 8080:3000 -- ./srv  the program listens on 3000 here
  devproxy swap shop/cart -c app -- ./srv   one container of several
  devproxy swap cart --local mirror.example -- pip install -r requirements.txt
  devproxy swap cart --dry-run -o yaml      all objects, nothing changed

The original serves until your program listens; then it is scaled to 0 and
your program gets its traffic. When the program ends, all is put back.")]
pub struct Swap {
    /// The Deployment, as NAME, NAMESPACE/NAME or deployment/NAME
    #[arg(value_name = "[NAMESPACE/]NAME", add = ArgValueCompleter::new(completion::targets))]
    pub target: String,
    /// Container to take the place of [default: the only one, or the annotated default]
    #[arg(short, long, value_name = "NAME", add = ArgValueCompleter::new(completion::containers))]
    pub container: Option<String>,
    /// When the original is scaled to 0 [default: listen, or now without ports]
    #[arg(long, value_enum, value_name = "WHEN")]
    pub handover: Option<Handover>,
    /// Take the original's pods out of their Services before they end: for programs that die at once on SIGTERM
    #[arg(long, value_enum, value_name = "HOW")]
    pub drain: Option<Drain>,
    /// What makes the program ready for the handover: `listen` or `http:/PATH`
    #[arg(long, value_name = "HOW", default_value = "listen", value_parser = values::ready)]
    pub ready: ReadyMode,
    /// Take the Deployment from whoever holds it: their session is ended, and they are told by whom
    #[arg(long, conflicts_with = "dry_run")]
    pub take_over: bool,
    /// Do not run the init containers again
    #[arg(
        long,
        value_name = "true|false",
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value = "false",
        default_missing_value = "true",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub skip_init: bool,
    /// Print the plan and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Form of the plan with --dry-run
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t = Output::Text, requires = "dry_run")]
    pub output: Output,
    /// Further port of the pod, and where the program listens for it
    #[arg(short, long = "port", value_name = "POD[:LOCAL][/udp]", value_parser = values::mapping)]
    pub ports: Vec<PortMapping>,
    /// How the program runs.
    #[command(flatten)]
    pub session: SessionFlags,
}

/// `devproxy shell`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devproxy shell                       a shell in the cluster's network
  devproxy shell -- curl http://cart   one program in it
  devproxy shell --like cart -- psql   with the image of cart's pods")]
pub struct Shell {
    /// Deployment whose image, pull secrets and security context the agent borrows [default: any running pod's]
    #[arg(long, value_name = "[NAMESPACE/]NAME", add = ArgValueCompleter::new(completion::targets))]
    pub like: Option<String>,
    /// How the program runs.
    #[command(flatten)]
    pub session: SessionFlags,
}

/// What `swap` and `shell` have in common.
#[derive(Debug, Args)]
#[command(next_help_heading = "The program and its shell")]
pub struct SessionFlags {
    /// Port that is published on the laptop's 127.0.0.1 (debuggers are by themselves)
    #[arg(long, value_name = "PORT", value_parser = values::port)]
    pub publish: Vec<u16>,
    /// Name, *.suffix or CIDR that goes out through the laptop instead of the cluster
    #[arg(long = "local", value_name = "NAME|CIDR", value_parser = values::local)]
    pub local: Vec<String>,
    /// How long a connection waits for the program while it restarts, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = values::seconds)]
    pub hold: u64,
    /// Environment: the pod's over the laptop's, or the pod's alone
    #[arg(long, value_enum, value_name = "FORM", default_value_t = EnvironmentForm::Merged)]
    pub env: EnvironmentForm,
    /// Run the agent from this image instead of the original's
    #[arg(long, value_name = "IMAGE")]
    pub agent_image: Option<String>,
    /// Program and arguments [default: your shell]
    #[arg(last = true, value_name = "COMMAND", help_heading = None::<&str>, add = ArgValueCompleter::new(completion::Program))]
    pub program: Vec<OsString>,
}

/// `devproxy exec`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devproxy exec -- psql            in the only session of this laptop
  devproxy exec shop/cart          a second shell
  devproxy exec cart -- npm test   the tests, with the pod's environment

The session goes on when the program ends; the program is ended with the
session.")]
pub struct Exec {
    /// Session id, Deployment or NAMESPACE/DEPLOYMENT [default: the session around, else the only one of this laptop]
    #[arg(value_name = "SESSION", add = ArgValueCompleter::new(completion::sessions_here))]
    pub session: Option<String>,
    /// Program and arguments [default: your shell]
    #[arg(last = true, value_name = "COMMAND", help_heading = None::<&str>, add = ArgValueCompleter::new(completion::Program))]
    pub program: Vec<OsString>,
}

/// `devproxy status`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devproxy status            of the context's namespace, and all of this laptop
  devproxy status -A         of all namespaces
  devproxy status -o json    for programs")]
pub struct Status {
    /// Sessions of all namespaces
    #[arg(short = 'A', long)]
    pub all: bool,
    /// Form of the list
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t = Output::Text)]
    pub output: Output,
}

/// `devproxy restore`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devproxy restore cart            ends your session, wherever it was started
  devproxy restore shop/cart       in another namespace
  devproxy restore                 the only session of yours
  devproxy restore --stale         what nobody is there to end any more
  devproxy restore cart --force    also from a colleague who is still there

A session of this laptop is asked to end: its program gets SIGHUP and, after
10 s, SIGKILL, and its terminal says DP-SESSION-ENDED. Any other is put back
from its record in the cluster. Replicas that somebody else has changed
meanwhile stay as they are. A Deployment that is not swapped is left alone.")]
pub struct Restore {
    /// Session ids, Deployments or NAMESPACE/DEPLOYMENT [default: your only session]
    #[arg(value_name = "SESSION", add = ArgValueCompleter::new(completion::sessions_there))]
    pub sessions: Vec<String>,
    /// All sessions of the namespace that nobody is there to end: the laptop is gone, or all was killed on this one
    #[arg(long, conflicts_with = "sessions")]
    pub stale: bool,
    /// All sessions of the namespace that are yours, also living ones, and all stale ones; with --force all
    #[arg(long, conflicts_with = "sessions")]
    pub all: bool,
    /// Also a session that is alive and held by somebody else
    #[arg(long)]
    pub force: bool,
}

/// `devproxy config`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devproxy config            every setting, its value, where that comes from
  devproxy config -o json    for programs

Each setting is a flag; DEVPROXY_HOLD=60 says the same as --hold 60, and so
does `hold = 60` in a file. The first of these wins: the flag; the variable;
devproxy.toml in the working folder or the nearest above it, up to your home;
~/.config/devproxy/config.toml. Flags that may be repeated are lists:
port = [\"8080:3000\"], or DEVPROXY_PORT=8080:3000,9090.

A project's devproxy.toml may not set kubeconfig and agent-image: a cloned
repository must not bring a program that runs.")]
pub struct Config {
    /// Form of the list
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t = Output::Text)]
    pub output: Output,
}

/// `devproxy completions`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  source <(devproxy completions bash)    in ~/.bashrc
  source <(devproxy completions zsh)     in ~/.zshrc, after compinit
  devproxy completions fish | source     in ~/.config/fish/config.fish

They offer what the cluster has at the moment: Deployments, namespaces,
containers, sessions; and the contexts of the kubeconfig.")]
pub struct Completions {
    /// Which shell [default: that of $SHELL]
    #[arg(value_name = "SHELL")]
    pub shell: Option<ShellName>,
}

/// `devproxy man`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devproxy man ./man    devproxy.1 and one page for each command")]
pub struct ManPages {
    /// Where to
    #[arg(value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub folder: PathBuf,
}

/// The shells that we know to complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ShellName {
    /// bash, with or without the package bash-completion
    Bash,
    /// fish
    Fish,
    /// zsh
    Zsh,
}

/// `--handover`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Handover {
    /// When the program listens
    Listen,
    /// At once, before the program starts
    Now,
}

/// `--drain`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Drain {
    /// Take the labels off that lead clients to them, then end them
    Labels,
}

/// `--env`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EnvironmentForm {
    /// The pod's over the laptop's; PATH, HOME, TERM and the like stay
    Merged,
    /// The pod's alone
    Pod,
}

/// `--output`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Text,
    /// For programs
    Json,
    /// For people who paste it elsewhere
    Yaml,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn every_command_teaches_by_examples_that_fit_a_terminal() {
        let mut all = super::Cli::command();
        let examples = all.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(examples.lines().all(|line| line.chars().count() < 80), "{examples}");
        let commands = all.get_subcommands_mut().map(|command| (command.get_name().to_owned(), command));
        for (name, command) in commands {
            let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(examples.contains(&format!("\n  devproxy {name} ")), "{name}");
            assert!(examples.lines().all(|line| line.chars().count() < 80), "{examples}");
        }
    }
}
