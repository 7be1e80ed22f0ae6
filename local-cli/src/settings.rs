//! Settings: what can be said by a flag, by a `DEVPROXY_…` variable, in the project's file and in the user's; the first
//! of these wins.
//!
//! The flag is the setting: its long name is the key in the files, its value parser checks them all, its help text
//! explains them. The table adds only what the command line does not know. What was found becomes the flags'
//! defaults, so that commands receive one checked struct, wherever its values come from.
//!
//! - [`file`]: `devproxy.toml` and the user's `config.toml`
//! - [`place`]: where these are, and the variables

mod file;
mod place;

use clap::{Arg, ArgAction, ArgMatches, Command, parser::ValueSource};
use devproxy_cluster::target::nearest;
use serde::Serialize;

pub use self::place::Place;
use crate::Failure;

/// One setting.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// Long name of its flag, and its key in the files.
    pub key: &'static str,
    /// Whether a project's file may hold it. That file comes with a cloned repository, from anybody: it may say what
    /// is right for the project, and must not be able to run a program on the laptop or in the cluster.
    pub project: bool,
}

/// All settings, in the order of `devproxy config`.
pub const SETTINGS: &[Setting] = &[
    // A kubeconfig can name a login plugin, which is a program.
    Setting { key: "kubeconfig", project: false },
    Setting { key: "context", project: true },
    Setting { key: "namespace", project: true },
    Setting { key: "verbose", project: true },
    Setting { key: "container", project: true },
    Setting { key: "handover", project: true },
    Setting { key: "drain", project: true },
    Setting { key: "ready", project: true },
    Setting { key: "skip-init", project: true },
    Setting { key: "port", project: true },
    Setting { key: "like", project: true },
    Setting { key: "publish", project: true },
    Setting { key: "local", project: true },
    Setting { key: "hold", project: true },
    Setting { key: "env", project: true },
    // It runs in the pod, with the pod's Secrets.
    Setting { key: "agent-image", project: false },
];

impl Setting {
    /// `DEVPROXY_…`
    pub fn variable(&self) -> String {
        format!("DEVPROXY_{}", self.key.to_uppercase().replace('-', "_"))
    }

    /// Its flag.
    fn flag(&self, command: &Command) -> Option<Arg> {
        let is_it = |arg: &&Arg| arg.get_long() == Some(self.key);
        let below = || command.get_subcommands().find_map(|command| command.get_arguments().find(is_it));
        command.get_arguments().find(is_it).or_else(below).cloned()
    }
}

/// Whether `name` is the variable of a setting: then it is the laptop's and not the pod's.
pub fn is_variable(name: &str) -> bool {
    name.starts_with("DEVPROXY_") && SETTINGS.iter().any(|setting| setting.variable() == name)
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Source {
    /// The command line.
    Flag,
    /// The environment.
    Variable {
        /// `DEVPROXY_…`
        name: String,
    },
    /// `devproxy.toml`
    Project {
        /// Its path.
        path: String,
        /// Where in it.
        line: usize,
    },
    /// The user's `config.toml`.
    User {
        /// Its path.
        path: String,
        /// Where in it.
        line: usize,
    },
    /// The kubeconfig, where nobody else said anything.
    Kubeconfig {
        /// Its path.
        path: String,
    },
    /// Nobody said anything.
    Default,
}

/// A setting with its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Value {
    /// [`Setting::key`]
    pub key: &'static str,
    /// As a flag's words; several for a flag that may be repeated, none when there is no value.
    pub values: Vec<String>,
    /// Where it comes from.
    pub from: Source,
}

/// What was said outside of the command line.
#[derive(Debug, Default)]
pub struct Found {
    values: Vec<Value>,
    /// The files that were read.
    pub files: Vec<String>,
    /// What was passed over, and why: a project's file, variables that only look like a setting's.
    pub ignored: Vec<String>,
}

impl Found {
    /// Reads variables and files; every value is checked, whether or not today's command uses it.
    pub fn read(command: &Command, place: &Place) -> Result<Self, Failure> {
        let mut found = Self::default();
        for setting in SETTINGS {
            let name = setting.variable();
            if let Some(text) = place.variable(&name).filter(|text| !text.is_empty()) {
                let flag = setting.flag(command).ok_or_else(|| no_flag(setting))?;
                let values = match flag.get_action() {
                    ArgAction::Append => text.split(',').map(|word| word.trim().to_owned()).collect(),
                    _ => vec![text.to_owned()],
                };
                check(&flag, &values).map_err(|cause| wrong(&format!("{name}={text}"), &cause, &flag))?;
                found.values.push(Value { key: setting.key, values, from: Source::Variable { name } });
            }
        }
        let (project, ignored) = place.project_file();
        found.ignored =
            ignored.into_iter().chain(place.variables.keys().filter_map(|name| mistyped(name))).collect();
        for (path, is_project) in [(project, true), (place.user_file(), false)] {
            let Some(path) = path else { continue };
            let shown = place.shown(&path);
            let Some(text) = file::read(&path, &shown)? else { continue };
            for entry in file::entries(&text, &shown)? {
                let setting = known(&entry, is_project, &shown)?;
                if is_project && !setting.project {
                    return Err(not_for_projects(setting, &entry, &shown));
                }
                let flag = setting.flag(command).ok_or_else(|| no_flag(setting))?;
                let values = entry.values(&flag, &shown)?;
                let said = format!("{shown}:{}: `{}`", entry.line, entry.source);
                check(&flag, &values).map_err(|cause| wrong(&said, &cause, &flag))?;
                if found.values.iter().any(|value| value.key == setting.key) {
                    continue;
                }
                let (path, line) = (path.display().to_string(), entry.line);
                let from =
                    if is_project { Source::Project { path, line } } else { Source::User { path, line } };
                found.values.push(Value { key: setting.key, values, from });
            }
            found.files.push(path.display().to_string());
        }
        Ok(found)
    }

    /// `command` with what was found as its flags' defaults.
    pub fn apply(&self, command: Command) -> Command {
        let values: Vec<Value> = self.values.clone();
        let to_arg = move |arg: Arg| match values.iter().find(|value| arg.get_long() == Some(value.key)) {
            Some(value) => arg.default_values(&value.values),
            None => arg,
        };
        let below = to_arg.clone();
        command.mut_args(to_arg).mut_subcommands(move |command| command.mut_args(below.clone()))
    }

    /// Every setting as it stands for this command line.
    pub fn effective(&self, command: &Command, matches: &ArgMatches) -> Vec<Value> {
        let value = |setting: &'static Setting| {
            let key = setting.key;
            let flag = setting.flag(command)?;
            let id = flag.get_id().as_str();
            if matches.try_contains_id(id).is_ok()
                && matches.value_source(id) == Some(ValueSource::CommandLine)
            {
                let raw = matches.get_raw(id).unwrap_or_default();
                let values = raw.map(|word| word.to_string_lossy().into_owned()).collect();
                return Some(Value { key, values, from: Source::Flag });
            }
            if let Some(found) = self.values.iter().find(|value| value.key == key) {
                return Some(found.clone());
            }
            let default = flag.get_default_values().iter();
            let values = default.map(|word| word.to_string_lossy().into_owned()).collect();
            Some(Value { key, values, from: Source::Default })
        };
        SETTINGS.iter().filter_map(value).collect()
    }

    /// The keys that a project's file decided, for the person who did not write it.
    pub fn by_project(&self) -> Option<(&str, Vec<&'static str>)> {
        let of_project = |value: &Value| matches!(value.from, Source::Project { .. });
        let path = self.values.iter().find_map(|value| match &value.from {
            Source::Project { path, .. } => Some(path.as_str()),
            _ => None,
        })?;
        Some((path, self.values.iter().filter(|value| of_project(value)).map(|value| value.key).collect()))
    }
}

/// Whether the flag would take these values; the flag's own words if not.
fn check(flag: &Arg, values: &[String]) -> Result<(), String> {
    let long = flag.get_long().unwrap_or_default();
    // A flag that counts takes no value on the command line, where one writes it twice.
    if matches!(flag.get_action(), ArgAction::Count) {
        return values.iter().try_for_each(|text| match text.parse::<u8>() {
            Ok(_) => Ok(()),
            Err(_) => Err(format!("`{text}` is not a number from 0 to 255")),
        });
    }
    let words = values.iter().map(|value| format!("--{long}={value}"));
    let alone = Command::new("devproxy").no_binary_name(true).disable_help_flag(true).arg(flag.clone());
    match alone.try_get_matches_from(words) {
        Ok(_) => Ok(()),
        Err(error) => Err(crate::cli::usage::cause_of_value(&error)),
    }
}

fn wrong(said: &str, cause: &str, flag: &Arg) -> Failure {
    Failure::new("DP-CONFIG", format!("{said}: {cause}")).hint(meaning(flag))
}

/// What the setting is, in the words of its flag's help.
fn meaning(flag: &Arg) -> String {
    let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
    let mut letters = help.chars();
    let first = letters.next().map(|letter| letter.to_lowercase().to_string()).unwrap_or_default();
    format!("`{}`: {first}{}", flag.get_long().unwrap_or_default(), letters.as_str())
}

/// What to say of a variable that is nearly one of ours. Others may begin as ours do: `DEVPROXY_PORT_80_TCP`, where the
/// pod's namespace has a Service `devproxy`.
fn mistyped(name: &str) -> Option<String> {
    let key = name.strip_prefix("DEVPROXY_")?.to_lowercase().replace('_', "-");
    let near = nearest(&key, SETTINGS.iter().map(|setting| setting.key.to_owned())).into_iter().next()?;
    let near = SETTINGS.iter().find(|setting| setting.key == near)?;
    let is_typo = near.key != key && near.key.len().abs_diff(key.len()) <= 2;
    is_typo.then(|| format!("{name} is no setting; did you mean {}", near.variable()))
}

fn known(entry: &file::Entry, is_project: bool, file: &str) -> Result<&'static Setting, Failure> {
    if let Some(setting) = SETTINGS.iter().find(|setting| setting.key == entry.key) {
        return Ok(setting);
    }
    let allowed = SETTINGS.iter().filter(|setting| setting.project || !is_project);
    let keys: Vec<String> = allowed.map(|setting| setting.key.to_owned()).collect();
    let near = nearest(&entry.key, keys.clone());
    let failure = Failure::new("DP-CONFIG", format!("{file}:{}: unknown key `{}`", entry.line, entry.key));
    Err(match near.first() {
        Some(near) => failure.hint(format!("did you mean `{near}`")),
        None => failure.hint(format!("the keys are {}", keys.join(", "))),
    })
}

fn not_for_projects(setting: &Setting, entry: &file::Entry, file: &str) -> Failure {
    let (key, line) = (setting.key, entry.line);
    Failure::new("DP-CONFIG", format!("{file}:{line}: a project's file may not set `{key}`")).hint(format!(
        "it comes with the repository, and `{key}` could run somebody else's program; set it in \
         ~/.config/devproxy/config.toml or by {}",
        setting.variable()
    ))
}

/// A row of the table without a flag: a mistake of ours that a test finds.
fn no_flag(setting: &Setting) -> Failure {
    Failure::new("DP-CONFIG", format!("`{}` has no flag", setting.key))
}

#[cfg(test)]
#[path = "settings/tests.rs"]
mod tests;
