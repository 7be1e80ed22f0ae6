//! The `devproxy` program. It is three processes: the terminal process (what the user starts), the session process
//! and the namespace helper (both this program started again).

use std::process::ExitCode;

use devproxy::{
    Failure,
    cli::{self, Stopped},
    commands, completion, log,
    session::process,
    settings::Place,
    ui::Progress,
};

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
    let words: Vec<_> = std::env::args_os().collect();
    let read = match cli::read(&words, &Place::of_process()) {
        Ok(read) => read,
        Err(Stopped::Told(text)) => {
            // Help that goes to a reader who has left (`| head`) is no failure.
            let _ = text.print();
            return ExitCode::SUCCESS;
        }
        Err(Stopped::Failed(failure)) => return failed(&failure),
    };
    start_log(read.cli.global.verbose);
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new("DP-RUNTIME", e))
        .and_then(|runtime| {
            let result = runtime.block_on(commands::run(read));
            // A read of standard input may still block a thread; it must not keep us.
            runtime.shutdown_background();
            result
        });
    match result {
        Ok(code) => code.into(),
        Err(failure) => failed(&failure),
    }
}

fn failed(failure: &Failure) -> ExitCode {
    Progress::new().failure(failure);
    failure.exit.into()
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
