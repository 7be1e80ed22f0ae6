//! What the person at the terminal sees: progress lines, notices, one-line errors. All of it goes to stderr.

use std::{
    io::{IsTerminal, Write},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use console::Term;
use indicatif::{ProgressBar, ProgressStyle};

use crate::Failure;

/// Progress lines as in `  ✓ agent     cart-devproxy-k7f2 running on node-3   1.9 s`.
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
    colour: bool,
    /// There while something is waited for: a bar that was taken off once never comes back.
    spinner: Mutex<Option<ProgressBar>>,
}

/// Column where the time stands, when the text is shorter and the terminal wide enough.
const TIME_COLUMN: usize = 86;
/// What stands on a line beside the text: mark, spaces, time.
const AROUND: usize = 14;

impl Progress {
    /// A spinner only on a terminal; colour unless `NO_COLOR` is set.
    pub fn new() -> Self {
        let terminal =
            std::io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { terminal, colour, spinner: Mutex::default() }
    }

    /// What is being waited for.
    pub fn begun(&self, text: &str) {
        if self.terminal {
            let mut spinner = self.spinner();
            let bar = spinner.get_or_insert_with(new_spinner);
            bar.set_message(text.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
        }
    }

    /// A step is done.
    pub fn done(&self, step: &str, text: &str, took: Duration) {
        self.step(step, text, &format!("{:>5.1} s", took.as_secs_f64()));
    }

    /// The last step is done before the program runs, so long after it was typed.
    pub fn done_after(&self, step: &str, text: &str, took: Duration, all: Duration) {
        self.step(step, text, &format!("{:>5.1} s, {:.1} s in all", took.as_secs_f64(), all.as_secs_f64()));
    }

    fn step(&self, step: &str, text: &str, time: &str) {
        let head = format!("{step:<9} {text}");
        let pad = time_column(self.width()).saturating_sub(head.chars().count());
        self.line(&self.paint("32", "✓"), &format!("{head}{:pad$} {time}", ""));
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
        if let Some(bar) = self.spinner().take() {
            bar.disable_steady_tick();
            bar.finish_and_clear();
        }
    }

    fn spinner(&self) -> MutexGuard<'_, Option<ProgressBar>> {
        self.spinner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Columns of the terminal; without one, as many as a line wants.
    fn width(&self) -> usize {
        if self.terminal { usize::from(Term::stderr().size().1) } else { usize::MAX }
    }

    fn line(&self, mark: &str, text: &str) {
        self.write(&format!("  {mark} {text}"));
    }

    fn write(&self, line: &str) {
        let print = || {
            // A closed stderr (broken pipe) must not stop a restore.
            // A program may have switched the terminal to raw, where a newline alone does not return.
            let end = if self.terminal { "\r\n" } else { "\n" };
            let _ = write!(std::io::stderr().lock(), "{line}{end}");
        };
        match self.spinner().as_ref() {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn new_spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    // Cut at the terminal's width.
    let style = ProgressStyle::with_template("  {spinner} {wide_msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar
}

/// Where the time stands on a terminal of `width` columns.
fn time_column(width: usize) -> usize {
    TIME_COLUMN.min(width.saturating_sub(AROUND))
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_fits_into_the_terminal() {
        assert_eq!(time_column(usize::MAX), TIME_COLUMN);
        assert_eq!(time_column(200), TIME_COLUMN);
        // "  ✓ " + text + " " + "  1.9" + " s"
        assert!(time_column(80) + 4 + 1 + 5 + 2 < 80);
        assert_eq!(time_column(10), 0);
    }
}
