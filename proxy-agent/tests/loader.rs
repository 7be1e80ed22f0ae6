//! The loader becomes the agent, whatever the pod allows.

#![expect(clippy::unwrap_used, reason = "a test: what it needs and does not find is its failure")]

use std::{
    env, fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use miniz_oxide::deflate::compress_to_vec_zlib;

/// What an image may run as; any will do.
const SOME_UID: u32 = 123_456;

/// Tells this test's own binary that it was started as the agent.
const AS_AGENT: &str = "LOADER_TEST_AS_AGENT";

/// A folder that any uid may read, with the loader and a packed program.
struct Pod {
    folder: tempfile::TempDir,
}

impl Pod {
    fn new(program: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        open_up(folder.path());
        fs::copy(env!("CARGO_BIN_EXE_devproxy-loader"), folder.path().join("loader")).unwrap();
        let program = fs::read(program).unwrap();
        let mut packed = b"DPA1".to_vec();
        packed.extend(u32::try_from(program.len()).unwrap().to_le_bytes());
        packed.extend(compress_to_vec_zlib(&program, 1));
        fs::write(folder.path().join("packed"), packed).unwrap();
        let run = folder.path().join("run");
        fs::create_dir(&run).unwrap();
        open_up(&run);
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the loader as a user who is not root (as root: as [`SOME_UID`]).
    fn load(&self, options: &[&str], arguments: &[&str]) -> Output {
        let mut command = Command::new(self.path("loader"));
        command.args(options).arg(self.path("packed")).arg("--").args(arguments);
        command.current_dir("/").env_clear().env("MULTI", "two\nlines").env(AS_AGENT, "1").env("EMPTY", "");
        if nix::unistd::geteuid().is_root() {
            command.uid(SOME_UID).gid(SOME_UID);
        }
        command.output().unwrap()
    }
}

fn open_up(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
}

fn agent() -> Pod {
    Pod::new(Path::new(env!("CARGO_BIN_EXE_devproxy-agent")))
}

const ARGUMENTS: [&str; 6] = ["--key", "/no/such/key", "--tunnel-port", "1", "--ready-port", "2"];

fn assert_agent_ran(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, "devproxy-agent: cannot read the key file /no/such/key\n");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn the_agent_runs_from_memory_and_leaves_no_file() {
    let pod = agent();
    assert_agent_ran(&pod.load(&["--dir", "/no/such/folder"], &ARGUMENTS));
}

#[test]
fn the_agent_runs_from_the_folder_also_after_a_restart() {
    let pod = agent();
    let run = pod.path("run");
    for _ in 0..2 {
        assert_agent_ran(&pod.load(&["--no-memfd", "--dir", run.to_str().unwrap()], &ARGUMENTS));
    }
    let mode = fs::metadata(run.join("devproxy-agent")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o555);
}

#[test]
fn when_both_ways_fail_one_line_says_both_causes() {
    let output = agent().load(&["--no-memfd", "--dir", "/no/such/folder"], &ARGUMENTS);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(126));
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("memory (switched off)"), "{said}");
    assert!(said.contains("/no/such/folder/devproxy-agent: No such file"), "{said}");
}

#[test]
fn a_damaged_payload_is_not_executed() {
    let pod = agent();
    let whole = fs::read(pod.path("packed")).unwrap();
    let middle = whole.len() / 2;
    let mut flipped = whole.clone();
    flipped[middle] ^= 1;
    let mut huge = whole.clone();
    huge[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let cut = whole[..middle].to_vec();
    for damaged in [flipped, huge, cut, b"DPA2".to_vec(), Vec::new(), whole[4..].to_vec()] {
        fs::write(pod.path("packed"), damaged).unwrap();
        let output = pod.load(&[], &ARGUMENTS);
        assert_eq!(output.status.code(), Some(126), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn environment_and_name_reach_the_program_untouched() {
    let pod = Pod::new(&env::current_exe().unwrap());
    let run = pod.path("run");
    for way in [&["--no-memfd", "--dir", run.to_str().unwrap()][..], &[]] {
        let output = pod.load(way, &["--exact", "started_as_agent", "--nocapture"]);
        let said = String::from_utf8_lossy(&output.stdout);
        let expected =
            format!("{:?}", ("devproxy-agent", [("EMPTY", ""), (AS_AGENT, "1"), ("MULTI", "two\nlines")]));
        assert!(said.contains(&expected), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The program of the test above; on its own it has nothing to do.
#[test]
fn started_as_agent() {
    if env::var_os(AS_AGENT).is_some() {
        let mut environment: Vec<(String, String)> = env::vars().collect();
        environment.sort();
        println!("({:?}, {environment:?})", env::args().next().unwrap());
    }
}
