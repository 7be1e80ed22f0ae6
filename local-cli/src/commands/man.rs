//! `devproxy man`: the man pages, made of the same texts as `--help`. For those who make packages.

use std::{fs, path::Path};

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use jiff::Timestamp;

use crate::{
    Failure,
    cli::{Cli, ManPages},
};

pub(super) fn run(wanted: &ManPages) -> Result<u8, Failure> {
    let failed = |e| Failure::new("DP-OUTPUT", format!("{}: {e}", wanted.folder.display()));
    fs::create_dir_all(&wanted.folder).map_err(failed)?;
    let mut command = Cli::command();
    command.build();
    write(&command, &wanted.folder, &date()).map_err(failed)?;
    Ok(0)
}

/// Of the source where a package is made reproducibly, else of today.
fn date() -> String {
    let of_source = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok());
    let time =
        of_source.and_then(|seconds| Timestamp::from_second(seconds).ok()).unwrap_or_else(Timestamp::now);
    time.strftime("%Y-%m-%d").to_string()
}

/// One page a command, `devproxy-swap.1` as git's are named.
fn write(command: &Command, folder: &Path, date: &str) -> std::io::Result<()> {
    let has_page = |below: &&Command| !below.is_hide_set() && below.get_name() != "help";
    for below in command.get_subcommands().filter(has_page) {
        write(below, folder, date)?;
    }
    let version = concat!("devproxy ", env!("CARGO_PKG_VERSION"));
    Man::new(command.clone()).source(version).manual("devproxy").date(date).generate_to(folder)?;
    Ok(())
}
