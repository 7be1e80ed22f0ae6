//! The application under test, in one static program that also runs as the developer's edited version:
//!
//! - `shopd` serves HTTP (and TCP and UDP echo when told to), configured by its environment, see [`settings`];
//! - `shopd load …` asks a server again and again and counts what failed, see [`load`];
//! - `shopd ask URL` prints one answer;
//! - `shopd bench-server` and `shopd bench …` are both ends of the bench's load, see [`shopd::bench`];
//! - `shopd pause` holds a pod's namespaces.

mod answers;
mod ask;
mod client;
mod drain;
mod echo;
mod load;
mod pause;
mod redis;
mod serve;
mod settings;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = words.split_first().map_or(("serve", &[][..]), |(first, rest)| (first, rest));
    let result = match command {
        "serve" => serve::run(),
        "load" => load::run(rest),
        "ask" => ask::run(rest),
        "bench-server" => shopd::bench::server::run(),
        "bench" => shopd::bench::client::run(rest),
        "pause" => {
            pause::run();
            Ok(())
        }
        _ => Err(std::io::Error::other(format!(
            "`{command}` is none of serve, load, ask, bench-server, bench, pause"
        ))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shopd: {error}");
            ExitCode::FAILURE
        }
    }
}
