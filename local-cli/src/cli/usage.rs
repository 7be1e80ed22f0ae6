//! A command line that is not understood, told as every other failure: one line of cause, a hint, exit code 125.

use clap::{
    CommandFactory, Error,
    error::{ContextKind, ContextValue, ErrorKind},
};

use devproxy_cluster::target::nearest;

use super::Cli;
use crate::Failure;

/// What is wrong, and what was meant.
pub(super) fn failure(error: &Error) -> Failure {
    let failure = Failure::new("DP-USAGE", cause(error));
    match hint(error) {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// What is wrong with a value, without the name of its flag.
pub(crate) fn cause_of_value(error: &Error) -> String {
    let value = one(error, ContextKind::InvalidValue).unwrap_or_default();
    match (error.kind(), std::error::Error::source(error)) {
        (ErrorKind::InvalidValue, _) if value.is_empty() => "a value is missing".to_owned(),
        (ErrorKind::InvalidValue, _) => {
            format!("`{value}` is none of `{}`", many(error, ContextKind::ValidValue).join("`, `"))
        }
        (_, Some(source)) => source.to_string(),
        _ => first_paragraph(error),
    }
}

fn cause(error: &Error) -> String {
    let flag = one(error, ContextKind::InvalidArg);
    match (error.kind(), flag) {
        (ErrorKind::InvalidValue | ErrorKind::ValueValidation, Some(flag)) => {
            let name = flag.trim_matches(['<', '>', '[', ']']).split([' ', '=', '[']).next().unwrap_or(&flag);
            format!("{name}: {}", cause_of_value(error))
        }
        (ErrorKind::UnknownArgument, Some(word)) => format!("`{word}` is not expected here"),
        (ErrorKind::MissingSubcommand, _) => "which command?".to_owned(),
        (ErrorKind::MissingRequiredArgument, _) => {
            let missing = many(error, ContextKind::InvalidArg);
            format!("missing: {}", missing.join(" ").replace(['<', '>'], ""))
        }
        _ => first_paragraph(error),
    }
}

fn hint(error: &Error) -> Option<String> {
    for kind in [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue] {
        if let Some(meant) = many(error, kind).first() {
            return Some(format!("did you mean `{meant}`"));
        }
    }
    // clap itself suggests nothing for `help swpa`.
    if let Some(word) = one(error, ContextKind::InvalidSubcommand) {
        let commands = Cli::command();
        let names = commands.get_subcommands().map(|command| command.get_name().to_owned());
        if let Some(meant) = nearest(&word, names).first() {
            return Some(format!("did you mean `{meant}`"));
        }
    }
    let usage = match error.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(usage)) => usage.to_string(),
        _ => String::new(),
    };
    match (error.kind(), one(error, ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(word)) if !word.starts_with('-') && usage.contains("COMMAND") => {
            Some(format!("a program comes after `--`: `-- {word} …`"))
        }
        (ErrorKind::InvalidValue | ErrorKind::ValueValidation, argument) => meaning(&argument?),
        (_, _) if usage.is_empty() => None,
        (kind, word) => {
            let words: Vec<&str> = usage.trim_start_matches("Usage:").split_whitespace().collect();
            if kind == ErrorKind::MissingRequiredArgument {
                return Some(format!("usage: {}", words.join(" ")));
            }
            let command = words.iter().take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase()));
            let what = match kind {
                ErrorKind::InvalidSubcommand | ErrorKind::MissingSubcommand => "lists the commands",
                ErrorKind::UnknownArgument if word.is_some_and(|word| word.starts_with('-')) => {
                    "lists the flags"
                }
                ErrorKind::UnknownArgument => "says what is",
                _ => "explains them",
            };
            Some(format!("`{} --help` {what}", command.copied().collect::<Vec<_>>().join(" ")))
        }
    }
}

/// What the help says about an argument, so that it need not be opened.
fn meaning(argument: &str) -> Option<String> {
    let mut command = Cli::command();
    command.build();
    let all = command.get_subcommands().flat_map(clap::Command::get_arguments);
    let help = all.filter(|known| known.to_string() == argument).find_map(clap::Arg::get_help)?.to_string();
    let (first, rest) = help.split_at(help.chars().next()?.len_utf8());
    Some(format!("`{argument}`: {}{rest}", first.to_lowercase()))
}

/// clap's own words, without the usage and the advice that follow.
fn first_paragraph(error: &Error) -> String {
    let text = error.render().to_string();
    let lines = text.trim_start_matches("error: ").lines().take_while(|line| !line.trim().is_empty());
    lines.map(str::trim).collect::<Vec<_>>().join(" ").replace('\'', "`")
}

fn one(error: &Error, kind: ContextKind) -> Option<String> {
    many(error, kind).into_iter().next()
}

fn many(error: &Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => Vec::new(),
    }
}
