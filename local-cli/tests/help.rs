//! The help of every command, as it stands on a terminal of 80 columns.

use clap::{Command, CommandFactory as _};
use devproxy::cli::Cli;

fn command() -> Command {
    let mut command = Cli::command().term_width(80);
    command.build();
    command
}

#[test]
fn help_texts() {
    let mut command = command();
    insta::assert_snapshot!("devproxy_short", command.render_help());
    insta::assert_snapshot!("devproxy_long", command.render_long_help());
    for below in command.get_subcommands_mut() {
        let name = below.get_name().to_owned();
        insta::assert_snapshot!(format!("{name}_short"), below.render_help());
        insta::assert_snapshot!(format!("{name}_long"), below.render_long_help());
    }
}

#[test]
fn no_line_of_help_is_wider_than_the_terminal() {
    let mut command = command();
    let mut texts = vec![command.render_help().to_string(), command.render_long_help().to_string()];
    for below in command.get_subcommands_mut() {
        texts.push(below.render_help().to_string());
        texts.push(below.render_long_help().to_string());
    }
    for line in texts.iter().flat_map(|text| text.lines()) {
        assert!(line.chars().count() <= 80, "{line}");
    }
}
