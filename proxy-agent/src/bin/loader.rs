//! `devproxy-loader [--dir DIR] [--no-memfd] PAYLOAD -- ARGUMENT…`: unpacks the agent and becomes it.
//!
//! A ConfigMap holds 1 MiB, so the agent travels packed and this small program beside it. The pod may have a read-only
//! root, any uid and no shell; the agent is executed from memory, or else from the stand-in's own in-memory emptyDir.
//!
//! The payload is `DPA1`, the unpacked length (`u32`, little-endian), then the agent as a zlib stream.

use std::{
    convert::Infallible,
    env,
    ffi::{CString, OsStr, OsString},
    fs,
    io::{self, Write as _},
    os::unix::{ffi::OsStringExt as _, fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit;
use nix::{
    errno::Errno,
    sys::memfd::{MFdFlags, memfd_create},
    unistd::{execve, fexecve},
};

const MAGIC: &[u8; 4] = b"DPA1";

/// Largest agent that is unpacked, bytes.
const LARGEST: usize = 16 << 20;

/// Where the stand-in mounts its own in-memory emptyDir.
const DIRECTORY: &str = "/.devproxy/run";

/// What a shell says of a program that cannot be executed.
const NOT_EXECUTABLE: u8 = 126;

const USAGE: &str = "usage: devproxy-loader [--dir DIR] [--no-memfd] PAYLOAD -- ARGUMENT…";

fn main() -> ExitCode {
    let Err(why) = start(env::args_os().skip(1));
    eprintln!("devproxy-loader: {why}");
    ExitCode::from(NOT_EXECUTABLE)
}

fn start(arguments: impl Iterator<Item = OsString>) -> Result<Infallible, String> {
    let arguments = Arguments::parse(arguments).ok_or(USAGE)?;
    let payload = fs::read(&arguments.payload)
        .map_err(|e| format!("cannot read {}: {e}", arguments.payload.display()))?;
    let agent = unpack(&payload).map_err(|why| format!("{}: {why}", arguments.payload.display()))?;
    drop(payload);
    let image = Image { agent, arguments: arguments.agent, environment: environment() };
    let Err(memory) =
        if arguments.memory { image.execute_in_memory() } else { Err("switched off".to_owned()) };
    let Err(file) = image.execute_in(&arguments.directory);
    Err(format!("cannot execute the agent, neither from memory ({memory}) nor from a file ({file})"))
}

struct Arguments {
    payload: PathBuf,
    directory: PathBuf,
    memory: bool,
    /// `argv` of the agent.
    agent: Vec<CString>,
}

impl Arguments {
    fn parse(mut arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        let (mut payload, mut directory, mut memory) = (None, PathBuf::from(DIRECTORY), true);
        loop {
            let argument = arguments.next()?;
            if argument == "--dir" {
                directory = arguments.next()?.into();
            } else if argument == "--no-memfd" {
                memory = false;
            } else if argument == "--" {
                break;
            } else if payload.is_none() {
                payload = Some(PathBuf::from(argument));
            } else {
                return None;
            }
        }
        let name = OsStr::new("devproxy-agent").to_owned();
        let agent = std::iter::once(name).chain(arguments).map(c_string).collect::<Option<_>>()?;
        Some(Self { payload: payload?, directory, memory, agent })
    }
}

fn c_string(text: OsString) -> Option<CString> {
    CString::new(text.into_vec()).ok()
}

/// The environment as it came: it is the original's, and the agent tells it to the laptop.
fn environment() -> Vec<CString> {
    let line = |(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        c_string(name)
    };
    env::vars_os().filter_map(line).collect()
}

fn unpack(payload: &[u8]) -> Result<Vec<u8>, &'static str> {
    let (magic, rest) = payload.split_first_chunk().ok_or("too short")?;
    let (length, packed) = rest.split_first_chunk().ok_or("too short")?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| "too large")?;
    if magic != MAGIC {
        return Err("not a packed agent");
    }
    if length > LARGEST {
        return Err("too large");
    }
    let agent = decompress_to_vec_zlib_with_limit(packed, length).map_err(|_| "damaged")?;
    if agent.len() == length { Ok(agent) } else { Err("incomplete") }
}

struct Image {
    agent: Vec<u8>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Image {
    fn execute_in_memory(&self) -> Result<Infallible, String> {
        // With vm.memfd_noexec=1 only a memfd made with MFD_EXEC can be executed; before Linux 6.3 the flag is EINVAL.
        let executable = MFdFlags::from_bits_retain(nix::libc::MFD_EXEC);
        let create = |flags| memfd_create(c"devproxy-agent", MFdFlags::MFD_CLOEXEC | flags);
        let memory = match create(executable) {
            Err(Errno::EINVAL) => create(MFdFlags::empty()),
            created => created,
        };
        let mut memory = fs::File::from(memory.map_err(|e| format!("memfd_create: {e}"))?);
        memory.write_all(&self.agent).map_err(|e| format!("write: {e}"))?;
        fexecve(&memory, &self.arguments, &self.environment).map_err(|e| format!("exec: {e}"))
    }

    fn execute_in(&self, directory: &Path) -> Result<Infallible, String> {
        let path = directory.join("devproxy-agent");
        write_executable(&path, &self.agent).map_err(|e| format!("{}: {e}", path.display()))?;
        let name = c_string(path.clone().into_os_string()).ok_or("a path with a NUL byte")?;
        execve(&name, &self.arguments, &self.environment)
            .map_err(|e| format!("exec of {}: {e}", path.display()))
    }
}

/// A restarted container finds the file of its predecessor, which may even belong to another uid: replaced, not
/// written to.
fn write_executable(path: &Path, content: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    // Closed at the end: executing a file that is open for writing is ETXTBSY.
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o555).open(path)?;
    file.write_all(content)
}
