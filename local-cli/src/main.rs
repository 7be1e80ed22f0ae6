//! The `devproxy` program. It is three processes: the terminal process (what the user starts), the session process
//! and the namespace helper (both this program started again).

use std::process::ExitCode;

use clap::Parser;
use devproxy::{Failure, cli::Cli, commands, completion, log, session::process, ui::Progress};

/// Of the static program only: musl's own takes 300 ns for what this one does in 40, and 4 µs when another thread frees.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Both before any thread exists: unshare and setsid want a single-threaded process.
    devproxy_namespaces::helper::main();
    if std::env::args_os().nth(1).is_some_and(|argument| argument == process::ARGUMENT) {
        return process::main();
    }
    if let Some(code) = completion::answer() {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are no failure; a wrong command line is one of devproxy's own.
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                devproxy::failure::EXIT_FAILURE.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    start_log(cli.global.verbose);
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new("DP-RUNTIME", e))
        .and_then(|runtime| {
            let result = runtime.block_on(commands::run(cli));
            // A read of standard input may still block a thread; it must not keep us.
            runtime.shutdown_background();
            result
        });
    match result {
        Ok(code) => code.into(),
        Err(failure) => {
            Progress::new().failure(&failure);
            failure.exit.into()
        }
    }
}

fn start_log(verbose: u8) {
    let level = match verbose {
        0 => return,
        1 => {
            "devproxy=info,devproxy_cluster=info,devproxy_capture=info,devproxy_tunnel=info,devproxy_namespaces=info"
        }
        _ => "debug,hyper=info,hyper_util=info,rustls=info,tower=info",
    };
    log::start(level);
}
