//! Texts that are compared as a whole: what differs from run to run is replaced.

use insta::Settings;

/// Times, process ids, the random part of names, sessions and since when.
pub fn filters() -> Settings {
    let mut settings = Settings::clone_current();
    settings.add_filter(r" +[0-9]+\.[0-9] s\b", "  TIME");
    settings.add_filter(r"pid [0-9]+", "pid PID");
    settings.add_filter(r"-devproxy-[a-z0-9]{4}(-[a-z0-9]+-[a-z0-9]{5})?\b", "-devproxy-XXXX");
    settings.add_filter(r"\(session [a-z0-9]{10}\)", "(session ID)");
    settings.add_filter(r"since [0-9TZ:-]+", "since THEN");
    settings
}
