//! What the person at the terminal sees: progress lines, notices, one-line errors. All of it goes to stderr.
//!
//! - [`fit`]: text in so many columns
//! - [`spinner`]: what turns meanwhile
//! - [`table`](mod@table): lists on stdout

pub mod fit;
mod spinner;
pub mod table;

use std::{
    io::{IsTerminal, Write},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use console::Term;
use indicatif::ProgressBar;
use tracing::level_filters::LevelFilter;

use self::fit::printable;
use crate::{Failure, invocation::spoken};

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
/// Before the text of a line: two spaces, the mark, a space.
const MARK: usize = 4;
/// Below so many columns nothing is aligned any more: there is no room for it.
const NARROW: usize = 60;
/// A text cut to less than this says nothing.
const LEAST: usize = 4;

impl Progress {
    /// A spinner only on a terminal; colour unless `NO_COLOR`, `CLICOLOR=0` or `TERM=dumb` ask for none.
    pub fn new() -> Self {
        let terminal =
            std::io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        Self { terminal, colour: console::colors_enabled_stderr(), spinner: Mutex::default() }
    }

    /// What is being waited for.
    pub fn begun(&self, text: &str) {
        if is_logging() {
            self.notice(text);
        } else if self.terminal {
            let mut shown = self.spinner();
            let bar = shown.get_or_insert_with(spinner::new);
            let room = self.width().saturating_sub(MARK + usize::from(spinner::FREE));
            bar.set_message(fit::start(&printable(text), room).into_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
        }
    }

    /// What is being waited for while a program has the terminal: for whoever reads the log, too.
    pub fn begun_beside(&self, text: &str) {
        if is_logging() {
            self.notice(text);
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
        self.line(&self.paint("32", "✓"), &done_line(step, &printable(text), time, self.width()));
    }

    /// Something to know.
    pub fn notice(&self, text: &str) {
        self.line("…", &printable(text));
    }

    /// Something to know that may hurt.
    pub fn warning(&self, text: &str) {
        self.line(&self.paint("33", "!"), &printable(text));
    }

    /// A failure that something else goes on after.
    pub fn trouble(&self, failure: &Failure) {
        self.warning(&failure.to_string());
        self.hint(failure);
    }

    /// The one-line error and its hint.
    pub fn failure(&self, failure: &Failure) {
        self.quiet();
        let label = self.paint("31", "error:");
        self.write(&format!("{label} {}", printable(&failure.to_string())));
        self.hint(failure);
    }

    fn hint(&self, failure: &Failure) {
        if let Some(hint) = &failure.hint {
            self.write(&format!("{} {}", self.paint("36", "hint:"), printable(hint)));
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
        if self.terminal { width_of(&Term::stderr()) } else { usize::MAX }
    }

    fn line(&self, mark: &str, text: &str) {
        self.write(&format!("  {mark} {text}"));
    }

    fn write(&self, line: &str) {
        let line = spoken(line);
        let print = || {
            // A closed stderr (broken pipe) must not stop a restore.
            // A program may have switched the terminal to raw, where a newline alone does not return.
            let end = if self.terminal { "\r\n" } else { "\n" };
            // In one piece: the session process writes its log to the same terminal.
            let _ = std::io::stderr().lock().write_all(format!("{line}{end}").as_bytes());
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

/// Its lines, those of the session process among them, would be written into the line of a spinner.
fn is_logging() -> bool {
    LevelFilter::current() != LevelFilter::OFF
}

/// Columns of `terminal`; all that one wants when it is none.
pub fn width_of(terminal: &Term) -> usize {
    terminal.size_checked().map_or(usize::MAX, |(_, columns)| usize::from(columns))
}

/// The line of a step that is done, behind its mark, on a terminal of `width` columns.
fn done_line(step: &str, text: &str, time: &str, width: usize) -> String {
    if width < NARROW {
        // Of two times the first.
        let time = time.split(',').next().unwrap_or(time).trim();
        let ends = MARK + fit::width(step) + fit::width(time) + 2;
        let room = width.saturating_sub(ends);
        let text = if room < LEAST { "".into() } else { fit::start(text, room) };
        let words = [step, &text, time].into_iter().filter(|word| !word.is_empty());
        return words.collect::<Vec<_>>().join(" ");
    }
    // A space before the time, and one column that stays free, for terminals that wrap when the last is written.
    let room = width.saturating_sub(MARK + 1 + fit::width(time) + 2);
    let head = format!("{step:<9} {text}");
    let head = fit::start(&head, room);
    let pad = TIME_COLUMN.min(room).saturating_sub(fit::width(&head));
    format!("{head}{:pad$} {time}", "")
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As written behind the mark, on terminals of these widths.
    fn lines(step: &str, text: &str) -> String {
        let line = |width| format!("  ✓ {}\n", done_line(step, text, "  1.9 s", width));
        [usize::MAX, 100, 80, 60, 40, 20].map(line).concat()
    }

    #[test]
    fn a_line_fits_into_the_terminal() {
        let (short, long) =
            ("11 ms", "cart-devproxy-k7f2 running on node-3 (image of cart, nothing pulled), 世界");
        insta::assert_snapshot!(lines("agent", long), @"
        ✓ agent     cart-devproxy-k7f2 running on node-3 (image of cart, nothing pulled), 世界     1.9 s
        ✓ agent     cart-devproxy-k7f2 running on node-3 (image of cart, nothing pulled), 世界     1.9 s
        ✓ agent     cart-devproxy-k7f2 running on node-3 (image of cart,…      1.9 s
        ✓ agent     cart-devproxy-k7f2 running on…         1.9 s
        ✓ agent cart-devproxy-k7f2… 1.9 s
        ✓ agent car… 1.9 s
        ");
        insta::assert_snapshot!(lines("tunnel", short), @"
        ✓ tunnel    11 ms                                                                          1.9 s
        ✓ tunnel    11 ms                                                                          1.9 s
        ✓ tunnel    11 ms                                                      1.9 s
        ✓ tunnel    11 ms                                  1.9 s
        ✓ tunnel 11 ms 1.9 s
        ✓ tunnel 1.9 s
        ");
        for width in 20..200 {
            for (text, time) in [(short, "100.0 s"), (long, "  1.9 s"), (long, "  0.3 s, 2.4 s in all")] {
                let line = done_line("handover", text, time, width);
                assert!(fit::width(&line) + MARK <= width, "{width}: {line}");
            }
        }
    }
}
