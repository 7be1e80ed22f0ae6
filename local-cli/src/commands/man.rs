//! `devproxy man`: the man pages, made of the same texts as `--help`. For those who make packages.

use std::{fs, path::Path};

use clap::{Command, CommandFactory, builder::Resettable};
use clap_mangen::{
    Man,
    roff::{Roff, line_break, roman},
};
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
    // Added by build(); its page would say nothing.
    let command = command.mut_subcommand("help", |help| help.hide(true));
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
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write(below, folder, date)?;
    }
    // clap_mangen's own knows neither the values nor the `--` before a command.
    let usage = command.clone().render_usage().to_string();
    let behind = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let command = command
        .clone()
        .override_usage(usage.trim_start_matches("Usage: ").to_owned())
        .after_help(Resettable::Reset);
    let version = concat!("devproxy ", env!("CARGO_PKG_VERSION"));
    let page = Man::new(command).source(version).manual("devproxy").date(date);
    let mut text = Vec::new();
    page.render(&mut text)?;
    text.extend(sections(&behind).to_roff().into_bytes());
    // Of the characters of other alphabets the C locale shows none.
    let text = String::from_utf8_lossy(&text).replace('…', "...");
    fs::write(folder.join(page.get_filename()), text)
}

/// What `--help` says behind the options: examples as they stand, the rest as text.
fn sections(behind: &str) -> Roff {
    let mut roff = Roff::new();
    for paragraph in behind.split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
        if let Some(examples) = paragraph.strip_prefix("Examples:\n") {
            roff.control("SH", ["EXAMPLES"]).control("nf", []);
            roff.text(examples.lines().flat_map(|line| [roman(line), line_break()]).collect::<Vec<_>>());
            roff.control("fi", []);
        } else if let Some(codes) = paragraph.strip_prefix("Exit codes:") {
            roff.control("SH", ["EXIT STATUS"]).text([roman(codes.trim())]);
        } else {
            roff.control("PP", []).text([roman(paragraph)]);
        }
    }
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_that_is_named_is_there() {
        let folder = tempfile::tempdir().unwrap();
        run(&ManPages { folder: folder.path().to_owned() }).unwrap();
        let page = |name: &str| fs::read_to_string(folder.path().join(format!("{name}.1"))).unwrap();
        let text = page("devproxy").replace('\\', "");
        let named: Vec<&str> = text.lines().filter_map(|line| line.strip_suffix("(1)")).collect();
        assert!(named.contains(&"devproxy-swap") && !named.contains(&"devproxy-help"), "{text}");
        for name in named {
            assert!(page(name).contains(".TH"), "{name}");
        }
        let synopsis = |name: &str| {
            let page = page(name).replace('\\', "");
            page.split_once(".SH SYNOPSIS\n").unwrap().1.lines().next().unwrap().to_owned()
        };
        assert_eq!(synopsis("devproxy"), "fBdevproxyfR [OPTIONS] <COMMAND>");
        let swap = "fBdevproxy swapfR [OPTIONS] <[NAMESPACE/]NAME> [-- <COMMAND>...]";
        assert_eq!(synopsis("devproxy-swap"), swap);
        assert_eq!(synopsis("devproxy-restore"), "fBdevproxy restorefR [OPTIONS] [SESSION]...");
        assert!(text.is_ascii() && !text.contains("EXTRA"), "{text}");
        let (_, examples) = text.split_once(".SH EXAMPLES\n.nf\n").unwrap();
        assert!(examples.starts_with("  devproxy swap cart -- cargo run    run your cart"), "{text}");
        assert!(text.contains(".SH \"EXIT STATUS\"\nthe program's own;"), "{text}");
    }
}
