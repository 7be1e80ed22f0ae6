//! kubectl, the one of the node's own build: the bed speaks to the API as a user would.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::host::program::{output, output_with_input};

/// kubectl with its kubeconfig and context.
#[derive(Debug, Clone)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    context: Option<String>,
}

impl Kubectl {
    /// `program` with `kubeconfig`; without `context` its current one.
    pub fn new(program: PathBuf, kubeconfig: PathBuf, context: Option<String>) -> Self {
        Self { program, kubeconfig, context }
    }

    /// Runs it to its end and gives what it printed.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        output(self.command().args(args))
    }

    /// `apply -f -` with `manifest`, YAML or JSON.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        output_with_input(self.command().args(["apply", "-f", "-"]), manifest.as_bytes())
    }

    /// `get … -o json`.
    pub fn get(&self, args: &[&str]) -> Result<Value> {
        let text = output(self.command().arg("get").args(args).args(["-o", "json"]))?;
        serde_json::from_str(&text).context("kubectl printed no JSON")
    }

    /// The program file, for the laptop's PATH.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The kubeconfig in use.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A command with kubeconfig and context already given.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        if let Some(context) = &self.context {
            command.arg("--context").arg(context);
        }
        command
    }
}
