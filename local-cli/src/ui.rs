//! What the person at the terminal sees: progress lines, notices, one-line errors. All of it goes to stderr.

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::Failure;

/// Progress lines as in `  ✓ agent     cart-devproxy-k7f2 running on node-3   1.9 s`.
#[derive(Debug)]
pub struct Progress {
    spinner: Option<ProgressBar>,
    colour: bool,
}

/// Column where the time stands, when the text is shorter.
const TIME_COLUMN: usize = 86;

impl Progress {
    /// A spinner only on a terminal; colour unless `NO_COLOR` is set.
    pub fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let spinner = terminal.then(|| {
            let bar = ProgressBar::new_spinner();
            bar.set_style(
                ProgressStyle::with_template("  {spinner} {msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            bar
        });
        Self { spinner, colour }
    }

    /// What is being waited for.
    pub fn begun(&self, text: &str) {
        if let Some(bar) = &self.spinner {
            bar.set_message(text.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
        }
    }

    /// A step is done.
    pub fn done(&self, step: &str, text: &str, took: Duration) {
        let head = format!("{step:<9} {text}");
        let pad = TIME_COLUMN.saturating_sub(head.chars().count());
        self.line(&self.paint("32", "✓"), &format!("{head}{:pad$} {:>5.1} s", "", took.as_secs_f64()));
    }

    /// Something to know.
    pub fn notice(&self, text: &str) {
        self.line("…", text);
    }

    /// Something to know that may hurt.
    pub fn warning(&self, text: &str) {
        self.line(&self.paint("33", "!"), text);
    }

    /// The one-line error and its hint.
    pub fn failure(&self, failure: &Failure) {
        self.quiet();
        let label = self.paint("31", "error:");
        self.write(&format!("{label} {failure}"));
        if let Some(hint) = &failure.hint {
            self.write(&format!("{} {hint}", self.paint("36", "hint:")));
        }
    }

    /// Takes the spinner off the terminal, before a program gets it.
    pub fn quiet(&self) {
        if let Some(bar) = &self.spinner {
            bar.disable_steady_tick();
            bar.finish_and_clear();
        }
    }

    fn line(&self, mark: &str, text: &str) {
        self.write(&format!("  {mark} {text}"));
    }

    fn write(&self, line: &str) {
        let print = || {
            // A closed stderr (broken pipe) must not stop a restore.
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        };
        match &self.spinner {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
