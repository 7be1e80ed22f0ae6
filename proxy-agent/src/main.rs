//! `devproxy-agent --key FILE --tunnel-port N --ready-port N`: see the library for the map of its parts.

use std::process::ExitCode;

use devproxy_agent::settings::Settings;

fn main() -> ExitCode {
    let started = Settings::from_arguments(std::env::args_os().skip(1));
    let result = match started {
        Ok(settings) => devproxy_agent::run(settings).map_err(|e| e.to_string()),
        Err(e) => Err(e.to_string()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // With `FallbackToLogsOnError` the last lines become the container's termination message.
            eprintln!("devproxy-agent: {why}");
            ExitCode::FAILURE
        }
    }
}
