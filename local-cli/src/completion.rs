//! Completions. The shells ask this program at each Tab, so what they offer is what the cluster has now; when it does
//! not answer soon, they offer nothing rather than wait.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    path::Path,
    process::ExitCode,
    time::Duration,
};

use clap::{Arg, ArgMatches, Command, CommandFactory};
use clap_complete::{
    CompleteEnv, CompletionCandidate, PathCompleter,
    engine::{ValueCompleter, complete},
    env::Shells,
};
use devproxy_cluster::{ApiSettings, Connection, candidates, sessions};

use crate::{
    cli::Cli,
    commands::exec::living,
    settings::{Found, Place},
};

/// Set by the shells' scripts. The engine's own default, `COMPLETE`, may mean something to somebody else.
const VARIABLE: &str = "_DEVPROXY_COMPLETE";
/// kubectl starts a program of this name when it completes `kubectl devproxy …`.
const KUBECTL_COMPLETE: &str = "kubectl_complete-devproxy";
/// Longest wait for the cluster. A login plugin may block its thread: it is left behind.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Answers a shell that asks for completions. `None`: nobody asked.
pub fn answer() -> Option<ExitCode> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let folder = std::env::current_dir().ok();
    if is_called(&words, KUBECTL_COMPLETE) {
        return Some(answer_kubectl(folder.as_deref()));
    }
    let asked = CompleteEnv::with_factory(command).var(VARIABLE).try_complete(words, folder.as_deref());
    match asked {
        Ok(false) => None,
        Ok(true) => Some(ExitCode::SUCCESS),
        Err(_) => Some(crate::failure::EXIT_FAILURE.into()),
    }
}

/// What is completed: flags for whoever has begun one, as kubectl offers them; where nothing else fits, they are offered too.
fn command() -> Command {
    let begun = typed().last().is_some_and(|word| word.as_encoded_bytes().starts_with(b"-"));
    if begun { Cli::command() } else { without_flags(Cli::command()) }
}

fn without_flags(command: Command) -> Command {
    let hidden = |arg: Arg| if arg.is_positional() { arg } else { arg.hide(true) };
    command.disable_help_flag(true).disable_version_flag(true).mut_args(hidden).mut_subcommands(without_flags)
}

/// The script that makes `shell` ask, as `program`'s.
pub fn script(shell: &str, program: &str) -> io::Result<Option<Vec<u8>>> {
    let Some(completer) = Shells::builtins().completer(shell).map(|completer| {
        let mut text = Vec::new();
        completer.write_registration(VARIABLE, program, program, program, &mut text).map(|()| text)
    }) else {
        return Ok(None);
    };
    let mut text = completer?;
    if shell == "zsh" {
        // Loaded by its name from a folder of `$fpath`, the file is the function's body and runs at the first Tab.
        text.extend_from_slice(
            format!("\nif [[ $funcstack[1] == _{program} ]]; then\n    _clap_dynamic_completer_{program} \"$@\"\nfi\n")
                .as_bytes(),
        );
    }
    Ok(Some(text))
}

/// kubectl wants what cobra's programs print: a candidate a line, its description after a tab, and at the end what
/// the shell shall do (4: not fall back to file names).
fn answer_kubectl(folder: Option<&Path>) -> ExitCode {
    let words = typed();
    let last = words.len().saturating_sub(1);
    let found = complete(&mut command(), words, last, folder).unwrap_or_default();
    let mut text = String::new();
    for candidate in found {
        text.push_str(&candidate.get_value().to_string_lossy());
        if let Some(help) = candidate.get_help() {
            text.push('\t');
            text.push_str(help.to_string().lines().next().unwrap_or_default());
        }
        text.push('\n');
    }
    crate::commands::write_stdout(&(text + ":4\n"));
    ExitCode::SUCCESS
}

fn is_called(words: &[OsString], name: &str) -> bool {
    words.first().is_some_and(|word| Path::new(word).file_name() == Some(OsStr::new(name)))
}

/// The command line that is being typed, from the program's name on.
fn typed() -> Vec<OsString> {
    let mut words: Vec<OsString> = std::env::args_os().collect();
    if !is_called(&words, KUBECTL_COMPLETE) {
        let start = words.iter().position(|word| word == "--").map_or(words.len(), |escape| escape + 1);
        words.drain(..start);
    }
    words
}

/// What of it can be understood already.
struct Typed {
    api: ApiSettings,
    /// The Deployment that `swap` names, with its namespace if that was written.
    target: Option<String>,
}

impl Typed {
    fn read() -> Self {
        // A file with a mistake in it is told when the command runs.
        let found = Found::read(&Cli::command(), &Place::of_process()).unwrap_or_default();
        let command = found.apply(Cli::command()).ignore_errors(true);
        let matches = command.try_get_matches_from(typed()).unwrap_or_default();
        let (_, below) = matches.subcommand().map_or((None, None), |(name, below)| (Some(name), Some(below)));
        let text = |matches: &ArgMatches, id: &str| {
            matches.try_get_one::<String>(id).ok().flatten().filter(|text| !text.is_empty()).cloned()
        };
        let of = |id: &str| below.and_then(|below| text(below, id)).or_else(|| text(&matches, id));
        let path = matches.try_get_one("kubeconfig").ok().flatten().cloned();
        Self {
            api: ApiSettings { kubeconfig: path, context: of("context"), namespace: of("namespace") },
            target: of("target"),
        }
    }
}

/// `swap TARGET`, `shell --like`: Deployments, and namespaces before a slash.
pub fn targets(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str().map(str::to_owned) else { return Vec::new() };
    let typed = Typed::read();
    let written = current.split_once('/').map(|(namespace, _)| namespace.to_owned());
    let prefix = current.clone();
    let found = from_cluster(async move {
        let connection = Connection::open(&typed.api).await.ok()?;
        if let Some(namespace) = written {
            let there = connection.in_namespace(&namespace);
            let names = candidates::deployments(&there).await.unwrap_or_default();
            return Some(names.into_iter().map(|name| format!("{namespace}/{name}")).collect());
        }
        let names = candidates::deployments(&connection).await.unwrap_or_default();
        // While a name of ours fits, the namespaces only get in the way.
        if names.iter().any(|name| name.starts_with(&prefix)) && !prefix.is_empty() {
            return Some(names);
        }
        let others = namespaces_of(&connection, &typed.api).await;
        Some(names.into_iter().chain(others.into_iter().map(|name| name + "/")).collect())
    });
    offer(&current, found)
}

/// `--namespace`.
pub fn namespaces(current: &OsStr) -> Vec<CompletionCandidate> {
    let typed = Typed::read();
    let found = from_cluster(async move {
        let connection = Connection::open(&typed.api).await.ok()?;
        Some(namespaces_of(&connection, &typed.api).await)
    });
    offer(&current.to_string_lossy(), found)
}

/// Those of the cluster; without the right to list them, those of the kubeconfig's contexts.
async fn namespaces_of(connection: &Connection, api: &ApiSettings) -> Vec<String> {
    let mut names = match candidates::namespaces(connection).await {
        Ok(names) => names,
        Err(_) => candidates::contexts(api).1,
    };
    names.sort();
    names.dedup();
    names
}

/// `--context`.
pub fn contexts(current: &OsStr) -> Vec<CompletionCandidate> {
    offer(&current.to_string_lossy(), candidates::contexts(&Typed::read().api).0)
}

/// `swap NAME --container`.
pub fn containers(current: &OsStr) -> Vec<CompletionCandidate> {
    let typed = Typed::read();
    let found = from_cluster(async move {
        let target = devproxy_cluster::target::Target::parse(&typed.target?).ok()?;
        let mut connection = Connection::open(&typed.api).await.ok()?;
        if let Some(namespace) = target.namespace {
            connection = connection.in_namespace(&namespace);
        }
        candidates::containers(&connection, &target.name).await.ok()
    });
    offer(&current.to_string_lossy(), found)
}

/// `exec SESSION`: what runs on this laptop.
pub fn sessions_here(current: &OsStr) -> Vec<CompletionCandidate> {
    let found = from_cluster(async {
        let names =
            living().await.into_iter().map(|(_, status)| format!("{}/{}", status.namespace, status.name));
        Some(names.collect())
    });
    // Where the namespace was not typed, the name alone is enough for `exec`.
    let current = current.to_string_lossy();
    let short = |name: String| {
        if current.contains('/') {
            name
        } else {
            name.split_once('/').map_or(name.clone(), |(_, name)| name.to_owned())
        }
    };
    offer(&current, found.into_iter().map(short).collect())
}

/// `restore SESSION`: what is held in the namespace.
pub fn sessions_there(current: &OsStr) -> Vec<CompletionCandidate> {
    let typed = Typed::read();
    let current = current.to_string_lossy().into_owned();
    let written = current.split_once('/').map(|(namespace, _)| namespace.to_owned());
    let found = from_cluster(async move {
        let mut connection = Connection::open(&typed.api).await.ok()?;
        if let Some(namespace) = &written {
            connection = connection.in_namespace(namespace);
        }
        let held = sessions(&connection, false).await.ok()?;
        let names = held.into_iter().map(|info| info.deployment.unwrap_or(info.session));
        Some(match written {
            Some(namespace) => names.map(|name| format!("{namespace}/{name}")).collect(),
            None => names.collect(),
        })
    });
    offer(&current, found)
}

/// The program after `--`: its name from `PATH`, then files.
#[derive(Debug, Clone, Copy)]
pub struct Program;

impl ValueCompleter for Program {
    fn complete(&self, current: &OsStr) -> Vec<CompletionCandidate> {
        self.complete_at(0, current)
    }

    fn complete_at(&self, index: usize, current: &OsStr) -> Vec<CompletionCandidate> {
        // The engine asks before them too, where no command may stand.
        if !typed().iter().any(|word| word == "--") {
            return offer(&current.to_string_lossy(), vec!["--".to_owned()]);
        }
        if index > 0 || current.as_encoded_bytes().contains(&b'/') {
            return PathCompleter::any().complete(current);
        }
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let mut names: Vec<String> = std::env::split_paths(&folders)
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flat_map(|entries| entries.filter_map(Result::ok))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names.dedup();
        offer(&current.to_string_lossy(), names)
    }
}

/// Those that begin as what was typed. A control character is no part of a name that can be typed.
fn offer(current: &str, names: Vec<String>) -> Vec<CompletionCandidate> {
    let fits = |name: &String| name.starts_with(current) && !name.chars().any(char::is_control);
    names.into_iter().filter(fits).map(CompletionCandidate::new).collect()
}

/// What `asking` finds within our patience, on a thread that nobody waits for any longer.
fn from_cluster(asking: impl Future<Output = Option<Vec<String>>> + Send + 'static) -> Vec<String> {
    let (found, answer) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let names = runtime.ok().and_then(|runtime| runtime.block_on(asking));
        let _ = found.send(names.unwrap_or_default());
    });
    answer.recv_timeout(PATIENCE).unwrap_or_default()
}
