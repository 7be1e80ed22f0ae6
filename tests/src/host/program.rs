//! Running other programs to their end, with errors that say what was run and what it printed.

use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

/// Runs `command` and gives its standard output; an exit status other than 0 is an error that holds the program's words.
pub fn output(command: &mut Command) -> Result<String> {
    let output = complete(command.stdin(Stdio::null()))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// As [`output`], with `input` on standard input.
pub fn output_with_input(command: &mut Command, input: &[u8]) -> Result<String> {
    use std::io::Write as _;
    let shown = shown(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    let mut stdin = child.stdin.take().context("no pipe to the child")?;
    // The writer is a thread: a child that prints before it has read everything must not block both.
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(move || stdin.write_all(input));
        let output = child.wait_with_output();
        drop(writer.join());
        output
    })?;
    checked(&shown, &written)?;
    Ok(String::from_utf8_lossy(&written.stdout).into_owned())
}

/// Runs `program` with `args`; see [`output`].
pub fn run(program: &str, args: &[&str]) -> Result<String> {
    output(Command::new(program).args(args))
}

/// Whether `name` is an executable file in a folder of `PATH` or of the system's administration folders.
pub fn is_installed(name: &str) -> bool {
    find(name).is_some()
}

/// Where `name` is found on `PATH` or in the system's administration folders.
pub fn find(name: &str) -> Option<std::path::PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|folder| folder.join(name)).find(|file| {
        file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    })
}

fn complete(command: &mut Command) -> Result<Output> {
    let shown = shown(command);
    let output = command.output().with_context(|| format!("cannot start `{shown}`"))?;
    checked(&shown, &output)?;
    Ok(output)
}

fn checked(shown: &str, output: &Output) -> Result<()> {
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let words = if words.trim().is_empty() { String::from_utf8_lossy(&output.stdout) } else { words };
        bail!("`{shown}` ended with {}: {}", output.status, words.trim());
    }
    Ok(())
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    let mut shown = words.join(" ");
    if shown.len() > 200 {
        shown.truncate((0..=200).rev().find(|&at| shown.is_char_boundary(at)).unwrap_or(0));
        shown.push('…');
    }
    shown
}
