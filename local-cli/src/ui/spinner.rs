//! What turns while something is waited for.

use std::io;

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

/// Columns at the end of its line that stay free, for the `^C` that the terminal writes behind the cursor.
pub(super) const FREE: u16 = 8;

/// A spinner on stderr, not yet drawn.
pub(super) fn new() -> ProgressBar {
    let target = ProgressDrawTarget::term_like_with_hz(Box::new(Narrower(Term::buffered_stderr())), 20);
    let bar = ProgressBar::with_draw_target(None, target);
    let style = ProgressStyle::with_template("  {spinner} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar
}

/// A terminal without its last columns. A bar is filled with spaces to the last one that it knows of, and then `^C` stands
/// on the next line: that one would be cleared, and the bar stay.
#[derive(Debug)]
struct Narrower(Term);

impl TermLike for Narrower {
    fn width(&self) -> u16 {
        self.0.size().1.saturating_sub(FREE).max(1)
    }

    fn height(&self) -> u16 {
        self.0.size().0
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_up(n)
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_down(n)
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_right(n)
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_left(n)
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.0.write_line(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.0.write_str(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.0.clear_line()
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }
}
