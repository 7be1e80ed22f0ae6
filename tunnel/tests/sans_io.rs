//! The core stays without clock, socket and runtime.

use std::{fs, path::Path};

#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn the_core_knows_no_clock_no_socket_and_no_runtime() {
    let mut found = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/proto"), &mut found);
    assert!(found.len() > 10, "the sources are where they were");
    for (path, text) in found {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            for forbidden in ["::now()", "tokio", "std::net", "std::io", "std::thread"] {
                assert!(!line.contains(forbidden), "{path} has `{forbidden}`: {line}");
            }
        }
    }
}
