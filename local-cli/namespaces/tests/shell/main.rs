//! The namespaces as a program in them sees them. Run as root these tests do the laptop's side as an ordinary user.

mod bed;
mod catcher;
mod files;
mod network;
mod process;
