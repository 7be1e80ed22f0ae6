//! The one error that reaches the user: a stable code, one line of cause, a hint, an exit code.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Exit code of every failure of devproxy itself, as `docker run` has it.
pub const EXIT_FAILURE: u8 = 125;
/// The program was found but could not be executed, as in a shell.
pub const EXIT_NOT_EXECUTABLE: u8 = 126;
/// The program was not found, as in a shell.
pub const EXIT_NOT_FOUND: u8 = 127;
/// Interrupted by Ctrl-C: 128 + SIGINT.
pub const EXIT_INTERRUPTED: u8 = 130;

/// What went wrong, as the user reads it. Crosses the control socket unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Stable `DP-…` code, documented in README.md.
    pub code: String,
    /// One line.
    pub cause: String,
    /// What to do about it, where that is known.
    pub hint: Option<String>,
    /// Exit code of the process.
    pub exit: u8,
}

impl Failure {
    /// A failure of devproxy itself.
    pub fn new(code: &str, cause: impl fmt::Display) -> Self {
        Self { code: code.to_owned(), cause: cause.to_string(), hint: None, exit: EXIT_FAILURE }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// The same with another exit code.
    #[must_use]
    pub fn exit(mut self, exit: u8) -> Self {
        self.exit = exit;
        self
    }

    /// Ctrl-C or SIGTERM before the program ran.
    pub fn interrupted() -> Self {
        Self::new("DP-INTERRUPTED", "interrupted").exit(EXIT_INTERRUPTED)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.cause, self.code)
    }
}

impl std::error::Error for Failure {}

/// An error with its sources on one line, `a: b: c`, without repeating what a source already said.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        let text = next.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        source = next.source();
    }
    line.replace('\n', " ")
}

impl From<devproxy_namespaces::NamespaceError> for Failure {
    fn from(error: devproxy_namespaces::NamespaceError) -> Self {
        let failure = Self::new("DP-NAMESPACES", chain(&error));
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<devproxy_cluster::ClusterError> for Failure {
    fn from(error: devproxy_cluster::ClusterError) -> Self {
        Self { code: error.code().to_owned(), cause: chain(&error), hint: error.hint(), exit: EXIT_FAILURE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_is_one_line_without_repetition() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("inner\nsecond"));
        assert_eq!(chain(&error), "outer: inner second");
    }
}
