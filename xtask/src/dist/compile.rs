//! The program for each architecture, static (musl), with no path of this machine in it.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{Architecture, project::Project};

/// Of whoever starts us; they would change what comes out.
const NOT_INHERITED: [&str; 7] = [
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_MANIFEST_DIR",
    "CARGO_PKG_VERSION",
    "CFLAGS",
];

/// What was built.
#[derive(Debug)]
pub(super) struct Programs(PathBuf);

impl Programs {
    /// Those of the last build.
    pub(super) fn built(project: &Project) -> Self {
        Self(project.build())
    }

    pub(super) fn of(&self, architecture: Architecture) -> PathBuf {
        self.0.join(architecture.rust_target()).join("release/devproxy")
    }
}

pub(super) fn all(project: &Project, architectures: &[Architecture]) -> Result<Programs> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(project.root()).args([
        "build",
        "--locked",
        "--release",
        "--package",
        "devproxy",
        "--bin",
        "devproxy",
    ]);
    cargo.arg("--target-dir").arg(project.build());
    for name in NOT_INHERITED {
        cargo.env_remove(name);
    }
    cargo.env("SOURCE_DATE_EPOCH", project.time().to_string()).env("CARGO_INCREMENTAL", "0");
    let moved = moved(project)?;
    for architecture in Architecture::ALL {
        let target = architecture.rust_target();
        let name = target.replace('-', "_");
        cargo.env(format!("CARGO_TARGET_{}_RUSTFLAGS", name.to_uppercase()), rust_flags(&moved));
        cargo.env(format!("CFLAGS_{name}"), c_flags(&moved));
        // Debian's wrapper of its (cross) compiler with the headers of musl.
        let machine = target.split('-').next().unwrap_or(target);
        cargo.env(format!("CC_{name}"), format!("{machine}-linux-musl-gcc"));
    }
    let mut targets: Vec<_> = architectures.iter().map(|each| each.rust_target()).collect();
    targets.sort_unstable();
    targets.dedup();
    for target in targets {
        cargo.args(["--target", target]);
    }
    let status = cargo.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("cannot build devproxy for {}", Architecture::ALL.map(Architecture::name).join(" and "));
    }
    Ok(Programs::built(project))
}

/// Folders of this machine, and what they are called instead. The last that fits wins.
fn moved(project: &Project) -> Result<[(String, &'static str); 3]> {
    let cargo_home = env::var_os("CARGO_HOME").map_or_else(
        || {
            env::var_os("HOME")
                .map(|home| PathBuf::from(home).join(".cargo"))
                .context("neither CARGO_HOME nor HOME is set")
        },
        |home| Ok(PathBuf::from(home)),
    )?;
    let text =
        |path: PathBuf| path.into_os_string().into_string().ok().context("a folder's name is not UTF-8");
    Ok([
        (text(cargo_home)?, "/cargo"),
        (text(project.root().to_owned())?, "/devproxy"),
        (text(project.build())?, "/target"),
    ])
}

/// Flags are divided at spaces: cargo knows no way to quote one here.
fn rust_flags(moved: &[(String, &str)]) -> String {
    let mut flags: Vec<String> =
        moved.iter().map(|(from, to)| format!("--remap-path-prefix={from}={to}")).collect();
    // Half a megabyte of relocations of a position-independent program become a few kilobytes (musl ≥ 1.2.4, which
    // Rust brings along), and equal functions one.
    flags.extend(["-Clink-arg=--pack-dyn-relocs=relr", "-Clink-arg=--icf=all"].map(str::to_owned));
    flags.join(" ")
}

fn c_flags(moved: &[(String, &str)]) -> String {
    // mimalloc: memory by the page as it is used, not by huge pages ahead: 6 MB less in every process.
    let mut flags = vec!["-DMI_DEFAULT_ARENA_EAGER_COMMIT=0".to_owned()];
    flags.extend(moved.iter().map(|(from, to)| format!("-ffile-prefix-map={from}={to}")));
    flags.join(" ")
}
