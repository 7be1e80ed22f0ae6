//! Programs under valgrind's callgrind, which executes them instruction by instruction and counts.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use devproxy_tests::host::program::{output, run as run_program};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// From SIGTERM on.
const END: Duration = Duration::from_secs(20);

/// What a program has done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    pub(super) instructions: f64,
    /// Also those that read the clock: under valgrind there is no vDSO.
    pub(super) calls: f64,
}

impl Counts {
    pub(super) fn less(self, other: Self) -> Self {
        Self { instructions: self.instructions - other.instructions, calls: self.calls - other.calls }
    }

    /// From the `totals:` of a callgrind file: instructions, system calls, their time.
    fn read(file: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("no counts in {}", file.display()))?;
        let totals = text.lines().find_map(|line| line.strip_prefix("totals: ")).unwrap_or_default();
        let numbers: Vec<f64> = totals.split(' ').filter_map(|number| number.parse().ok()).collect();
        let [instructions, calls, ..] = numbers[..] else {
            bail!("no totals in {}", file.display());
        };
        Ok(Self { instructions, calls })
    }
}

/// A program that can be started many times.
#[derive(Debug)]
pub(super) struct Program<'a> {
    pub(super) path: &'a Path,
    pub(super) turn: Turn,
}

impl Program<'_> {
    /// Starts it counted. Its output and error output are the caller's to read.
    pub(super) fn start(&self, folder: &Path, args: &[&str]) -> Result<Counted> {
        let file = folder.join("counts");
        let mut command = Command::new("chrt");
        let counted = valgrind(self.path, &file);
        command.args(["--fifo", &self.turn.priority.to_string(), "taskset", "--cpu-list"]);
        let child = command
            .arg(self.turn.processor.to_string())
            .arg(counted.get_program())
            .args(counted.get_args())
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start valgrind")?;
        Ok(Counted { child, file })
    }
}

/// A place in a strict order: on one processor, the one of the highest priority that has work runs, until it waits. So
/// what each finds when it runs does not depend on what else the machine does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    pub(super) processor: usize,
    pub(super) priority: u8,
}

impl Turn {
    /// Takes this thread into the order.
    pub(super) fn take(self) -> Result<()> {
        let mut processors = CpuSet::new();
        processors.set(self.processor)?;
        sched_setaffinity(Pid::from_raw(0), &processors)?;
        let thread = nix::unistd::gettid().to_string();
        run_program("chrt", &["--fifo", "--pid", &self.priority.to_string(), &thread]).map(drop)
    }
}

/// Counts a program that ends by itself.
pub(super) fn run(path: &Path, args: &[&str]) -> Result<Counts> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("counts");
    output(valgrind(path, &file).args(args))?;
    Counts::read(&file)
}

fn valgrind(program: &Path, counts: &Path) -> Command {
    let mut command = Command::new("valgrind");
    let mut file = std::ffi::OsString::from("--callgrind-out-file=");
    file.push(counts);
    // Valgrind's own words would be in between the program's.
    command.args(["-q", "--tool=callgrind", "--collect-systime=yes"]).arg(file).arg(program);
    command
}

/// A program that is being counted; killed when dropped.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) child: Child,
    file: PathBuf,
}

impl Counted {
    /// Ends it by SIGTERM, again and again until it obeys: an agent takes the second one for "now".
    pub(super) fn end(mut self) -> Result<Counts> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        let limit = Instant::now() + END;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > limit {
                bail!("a counted program did not end within {END:?}");
            }
            kill(pid, Signal::SIGTERM)?;
            std::thread::sleep(Duration::from_millis(100));
        }
        Counts::read(&self.file)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
