//! From the words typed, the variables and the files to one checked command line.

use std::ffi::OsString;

use clap::{ArgMatches, Command, CommandFactory, Error, FromArgMatches, parser::ValueSource};

use super::{Cli, usage};
use crate::{
    Failure, invocation,
    settings::{Found, Place, Value},
};

/// What is to be done.
#[derive(Debug)]
pub struct Read {
    /// The command, its flags filled up from variables and files.
    pub cli: Cli,
    /// Every setting and where it comes from.
    pub effective: Vec<Value>,
    /// The configuration files that were read.
    pub files: Vec<String>,
}

/// Why nothing is to be done.
#[derive(Debug)]
pub enum Stopped {
    /// Help or version was asked for, or nothing at all.
    Told(Error),
    /// A mistake.
    Failed(Failure),
}

/// Reads the command line. Help, and what makes packages, work whatever the files hold.
pub fn read(words: &[OsString], place: &Place) -> Result<Read, Stopped> {
    let command = || invocation::named(Cli::command());
    // Who types the name alone has made no mistake.
    let help = [OsString::from("devproxy"), "-h".into()];
    let words = if words.len() < 2 { &help } else { words };
    let matches = command().try_get_matches_from(words).map_err(stopped)?;
    if matches!(matches.subcommand_name(), Some("completions" | "man")) {
        let cli = Cli::from_arg_matches(&matches).map_err(stopped)?;
        return Ok(Read { cli, effective: Vec::new(), files: Vec::new() });
    }
    let found = Found::read(&command(), place).map_err(Stopped::Failed)?;
    let matches = found.apply(command()).try_get_matches_from(words).map_err(stopped)?;
    let mut cli = Cli::from_arg_matches(&matches).map_err(stopped)?;
    cli.global.namespace_typed = typed(&matches, "namespace");
    if let Some((path, keys)) = found.by_project() {
        cli.global.notices.push(format!("{} sets {}", place.shown(path.as_ref()), keys.join(", ")));
    }
    cli.global.notices.extend(found.ignored.clone());
    let effective = found.effective(&built(command()), below(&matches));
    Ok(Read { cli, effective, files: found.files })
}

fn stopped(error: Error) -> Stopped {
    use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
    match error.kind() {
        DisplayHelp | DisplayVersion => Stopped::Told(error),
        _ => Stopped::Failed(usage::failure(&error)),
    }
}

/// The matches of the subcommand, to which clap copies the flags of all commands.
fn below(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, below)| below)
}

fn typed(matches: &ArgMatches, id: &str) -> bool {
    below(matches).value_source(id) == Some(ValueSource::CommandLine)
}

fn built(mut command: Command) -> Command {
    command.build();
    command
}
