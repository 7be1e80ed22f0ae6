//! devproxy on the laptop.
//!
//! - [`cli`]: the command line as typed
//! - [`settings`]: variables and configuration files, which fill it up
//! - [`invocation`]: by which name we were called
//! - [`completion`]: what the shells offer at a Tab
//! - [`commands`]: one file a command; each receives checked settings
//! - [`terminal`]: the terminal process, parent of the user's program
//! - [`session`]: the detached session process and its control socket
//! - [`environment`]: the environment of the shell
//! - [`embedded`]: the agent's binaries that this program brings along
//! - [`ui`], [`failure`]: what the user reads

pub mod cli;
pub mod commands;
pub mod completion;
pub mod embedded;
pub mod environment;
pub mod failure;
pub mod invocation;
pub mod log;
pub mod session;
pub mod settings;
pub mod terminal;
pub mod ui;

pub use failure::Failure;
