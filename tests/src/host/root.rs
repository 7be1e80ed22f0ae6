//! A Debian system in a folder, as it is right after its installation, and a throw-away copy of it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use tempfile::TempDir;

use crate::host::lock::FileLock;
use crate::host::program::{output, run};
use crate::node::cache_folder;

/// A release of Debian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// Debian 12
    Bookworm,
    /// Debian 13
    Trixie,
}

impl Suite {
    /// All that are tried.
    pub const ALL: [Self; 2] = [Self::Bookworm, Self::Trixie];

    /// As its archive calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }
}

/// A copy that is removed when it is dropped.
#[derive(Debug)]
pub struct CleanRoot(TempDir);

impl CleanRoot {
    /// A fresh copy of the smallest system of `suite`, with the parser of `AppArmor` as Debian installs it by default. The
    /// first call fetches it with `debootstrap` into the cache folder.
    pub fn of(suite: Suite) -> Result<Self> {
        super::require_root()?;
        let cached = fetched(suite)?;
        // A root that only its owner may enter is no system for users.
        let copy = tempfile::Builder::new().prefix("devproxy-root-").tempdir_in("/var/tmp")?;
        fs::set_permissions(copy.path(), Permissions::from_mode(0o755))?;
        output(
            Command::new("cp").args(["--archive", "--reflink=auto"]).arg(cached.join(".")).arg(copy.path()),
        )?;
        Ok(Self(copy))
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Runs `words` as its root user, in the machine's own network.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        output(
            Command::new("chroot").arg(self.path()).args(words).env("LC_ALL", "C").env("PATH", SYSTEM_PATH),
        )
    }

    /// Gives it an ordinary user.
    pub fn add_user(&self, uid: u32, name: &str, home: &Path) -> Result<()> {
        let (uid, home) = (uid.to_string(), home.to_string_lossy());
        self.run(&[
            "useradd",
            "--no-create-home",
            "--uid",
            &uid,
            "--home-dir",
            &home,
            "--shell",
            "/bin/bash",
            name,
        ])?;
        Ok(())
    }

    /// Every path in it, with its mode, its size and where a link leads.
    pub fn files(&self) -> Result<Vec<String>> {
        let mut find = Command::new("find");
        find.arg(self.path()).args(["-mindepth", "1", "-xdev"]);
        // What dpkg writes about itself, and what laptops leave.
        for folder in ["var/lib/dpkg", "var/log", "var/cache", "var/tmp"] {
            find.args([
                "-path".as_ref(),
                self.path().join(folder).as_os_str(),
                "-prune".as_ref(),
                "-o".as_ref(),
            ]);
        }
        // The size of a folder tells nothing: it keeps what it once grew to.
        find.args(["-type", "d", "-printf", "%P/ %m\\n", "-o", "-printf", "%P %m %s %l\\n"]);
        let listed = output(&mut find)?;
        let mut files: Vec<String> = listed.lines().map(str::to_owned).collect();
        files.sort();
        Ok(files)
    }
}

const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn fetched(suite: Suite) -> Result<PathBuf> {
    let folder = cache_folder()?.join("roots");
    fs::create_dir_all(&folder)?;
    let _lock = FileLock::wait(&folder.join(format!("{}.lock", suite.name())))?;
    let root = folder.join(suite.name());
    if !root.exists() {
        let unfinished = folder.join(format!("{}.unfinished", suite.name()));
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        eprintln!("fetching Debian {}", suite.name());
        let place = unfinished.to_string_lossy();
        run("debootstrap", &["--variant=minbase", "--include=apparmor", suite.name(), &place])?;
        fs::rename(&unfinished, &root)?;
    }
    Ok(root)
}
