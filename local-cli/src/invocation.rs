//! By which name the program was called: `devproxy`, or as kubectl's plugin `kubectl devproxy`. Usage, examples and
//! hints say what the person can type.

use std::{borrow::Cow, ffi::OsStr, path::Path, sync::LazyLock};

use clap::{Command, CommandFactory};

use crate::cli::Cli;

/// What kubectl looks for on `PATH`.
const PLUGIN: &str = "kubectl-devproxy";

static IS_PLUGIN: LazyLock<bool> = LazyLock::new(|| {
    let name = std::env::args_os().next();
    name.is_some_and(|name| Path::new(&name).file_name() == Some(OsStr::new(PLUGIN)))
});

/// `command` with usage and examples as they can be typed.
pub fn named(command: Command) -> Command {
    if *IS_PLUGIN { plugin(command) } else { command.bin_name("devproxy") }
}

/// `text` with the commands that it names as they can be typed.
pub fn spoken(text: &str) -> Cow<'_, str> {
    if *IS_PLUGIN { as_plugin(text).into() } else { text.into() }
}

fn plugin(command: Command) -> Command {
    let examples = |command: Command| match command.get_after_help().map(ToString::to_string) {
        Some(text) => command.after_help(as_plugin(&text)),
        None => command,
    };
    examples(command).bin_name("kubectl devproxy").mut_subcommands(examples)
}

/// `devproxy swap` becomes `kubectl devproxy swap`; `cart-devproxy-k7f2` and the name alone stay.
fn as_plugin(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("devproxy ") {
        let (before, after) = rest.split_at(at);
        let word = after["devproxy ".len()..].trim_start();
        result.push_str(before);
        let begins = before.is_empty() || before.ends_with(|c: char| c.is_whitespace() || c == '`');
        let is_command = COMMANDS.iter().any(|name| {
            word.strip_prefix(name.as_str())
                .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '-'))
        });
        if begins && is_command && !before.ends_with("kubectl ") {
            result.push_str("kubectl ");
        }
        result.push_str("devproxy ");
        rest = &after["devproxy ".len()..];
    }
    result + rest
}

static COMMANDS: LazyLock<Vec<String>> =
    LazyLock::new(|| Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_names_the_commands_as_they_can_be_typed() {
        assert_eq!(
            as_plugin("`devproxy restore shop/cart` puts it back"),
            "`kubectl devproxy restore shop/cart` puts it back"
        );
        assert_eq!(as_plugin("Examples:\n  devproxy swap cart"), "Examples:\n  kubectl devproxy swap cart");
        for same in
            ["cart-devproxy swap", "use a devproxy at least as new", "kubectl devproxy status", "devproxy "]
        {
            assert_eq!(as_plugin(same), same);
        }
    }

    #[test]
    fn a_plugins_help_never_names_the_program_alone() {
        let mut command = plugin(Cli::command());
        command.build();
        let mut texts = vec![command.render_help().to_string()];
        texts.extend(command.get_subcommands_mut().map(|below| below.render_help().to_string()));
        for text in texts {
            assert!(text.contains("Usage: kubectl devproxy"), "{text}");
            assert!(!text.contains("\n  devproxy"), "{text}");
        }
    }
}
