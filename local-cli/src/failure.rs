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
    /// Stable `DP-…` code, documented in docs/ERRORS.md.
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

    /// Whether it says no more than that the session has ended.
    pub fn is_end(&self) -> bool {
        self.code == "DP-SESSION-ENDED"
    }

    /// An interruption in these words; any other failure as it is.
    #[must_use]
    pub fn if_interrupted(self, cause: &str, hint: impl fmt::Display) -> Self {
        match self.code.as_str() {
            "DP-INTERRUPTED" => Self { cause: cause.to_owned(), ..self }.hint(hint),
            _ => self,
        }
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
        let cause = match chain(&error) {
            refused if refused.starts_with("unshare") => {
                format!("this machine refuses namespaces of the user's own: {refused}")
            }
            cause => cause,
        };
        let failure = Self::new("DP-NAMESPACES", cause);
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

    /// All `"DP-…"` of the sources below `folder`.
    fn codes(folder: &std::path::Path, found: &mut std::collections::BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                codes(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let words = text.split('"').filter(|word| word.starts_with("DP-"));
                let code =
                    |word: &&str| word[3..].bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
                found.extend(words.filter(code).filter(|word| word.len() > 3).map(str::to_owned));
            }
        }
    }

    #[test]
    fn every_code_is_documented_and_every_documented_code_exists() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut used = std::collections::BTreeSet::new();
        for folder in ["src", "cluster/src"] {
            codes(&root.join(folder), &mut used);
        }
        let documented: std::collections::BTreeSet<_> = include_str!("../../docs/ERRORS.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next().map(str::to_owned))
            .collect();
        assert_eq!(documented, used);
    }
}
