//! The log of `--verbose`, the same in the terminal and the session process.

use tracing_subscriber::{
    Layer as _, filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// Writes what `targets` (`info,hyper=warn`) let through to stderr from now on.
pub fn start(targets: &str) {
    // Targets and not EnvFilter, whose regular expressions are half a megabyte that nothing here asks for.
    let Ok(targets) = targets.parse::<Targets>() else {
        debug_assert!(false, "`{targets}` is not a list of targets with levels");
        return;
    };
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        // Otherwise a log line that a closed terminal does not take is a panic, and the restore is not done.
        .log_internal_errors(false);
    tracing_subscriber::registry().with(lines.with_filter(targets)).init();
}
