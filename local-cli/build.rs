//! Builds the agent and its loader for each architecture by a nested cargo, packs the agent, and leaves both where
//! `embedded.rs` includes them.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use flate2::{Compression, write::ZlibEncoder};

/// Name in Kubernetes, and Rust's target.
const ARCHITECTURES: [(&str, &str); 2] =
    [("amd64", "x86_64-unknown-linux-musl"), ("arm64", "aarch64-unknown-linux-musl")];

/// What the API server accepts as the data of one ConfigMap, bytes.
const CONFIG_MAP: usize = 1_048_576;

/// Kept free in it for keys and whatever else goes in.
const MARGIN: usize = 16 << 10;

/// First bytes of a packed agent; the loader checks them.
const MAGIC: &[u8; 4] = b"DPA1";

/// Of the outer build, these would change what the agent is built from or with.
const NOT_INHERITED: [&str; 9] = [
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "RUSTC_WORKSPACE_WRAPPER", // clippy
    "RUSTC",                   // cargo sets it for build scripts; the nested one finds the same by itself
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_DIR",
    "CARGO_MANIFEST_DIR",
    "TARGET",
];

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let out = PathBuf::from(required("OUT_DIR")?);
    let manifest = PathBuf::from(required("CARGO_MANIFEST_DIR")?);
    let workspace = manifest.parent().ok_or("the package has no workspace around it")?;
    for input in [
        "Cargo.toml",
        "Cargo.lock",
        ".cargo/config.toml",
        "rust-toolchain.toml",
        "tunnel/Cargo.toml",
        "tunnel/src",
        "proxy-agent/Cargo.toml",
        "proxy-agent/src",
        "local-cli/build.rs",
    ] {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }
    let target_dir = nested_target_dir(&out)?;
    build(workspace, &target_dir)?;
    for (name, target) in ARCHITECTURES {
        let built = target_dir.join(target).join("agent");
        let loader = fs::read(built.join("devproxy-loader"))?;
        let packed = pack(&fs::read(built.join("devproxy-agent"))?)?;
        let sum = loader.len() + packed.len() + MARGIN;
        if sum > CONFIG_MAP {
            return Err(format!(
                "loader ({} bytes), packed agent ({} bytes) and {MARGIN} bytes margin for {name} do not fit into \
                 one ConfigMap of {CONFIG_MAP} bytes; make the agent smaller",
                loader.len(),
                packed.len()
            )
            .into());
        }
        fs::write(out.join(format!("devproxy-loader-{name}")), loader)?;
        fs::write(out.join(format!("devproxy-agent-{name}.packed")), packed)?;
    }
    Ok(())
}

fn required(name: &str) -> Result<std::ffi::OsString, Error> {
    env::var_os(name).ok_or_else(|| format!("{name} is not set: run by cargo only").into())
}

/// `target/agent`: kept between builds and profiles, and not the folder whose lock the outer cargo holds.
fn nested_target_dir(out: &Path) -> Result<PathBuf, Error> {
    // OUT_DIR is <target>/<profile>/build/<package>/out, with a folder of the architecture's before the profile when
    // cargo was told --target: all of those share one agent.
    let profile = out.ancestors().nth(3).ok_or("OUT_DIR is not below a target folder")?;
    let architecture = required("TARGET")?;
    let target = profile.ancestors().skip(1).find(|folder| folder.file_name() != Some(&architecture));
    Ok(target.ok_or("OUT_DIR is not below a target folder")?.join("agent"))
}

/// Both architectures at once, so that cargo builds them side by side.
fn build(workspace: &Path, target_dir: &Path) -> Result<(), Error> {
    let mut cargo = Command::new(required("CARGO")?);
    cargo
        .current_dir(workspace)
        .args(["build", "--locked", "--profile", "agent", "--package", "devproxy-agent", "--bins"])
        .arg("--target-dir")
        .arg(target_dir);
    for (_, target) in ARCHITECTURES {
        cargo.args(["--target", target]);
    }
    for name in NOT_INHERITED {
        cargo.env_remove(name);
    }
    let built = cargo.output()?;
    if built.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&built.stderr);
    let hint = if said.contains("target may not be installed") || said.contains("can't find crate for `core`")
    {
        let targets: Vec<_> = ARCHITECTURES.iter().map(|(_, target)| *target).collect();
        format!("\nhint: rustup target add {}", targets.join(" "))
    } else {
        String::new()
    };
    Err(format!("the agent could not be built\n{said}{hint}").into())
}

/// Magic, length (`u32`, little-endian), zlib stream.
fn pack(agent: &[u8]) -> Result<Vec<u8>, Error> {
    let mut packed = MAGIC.to_vec();
    packed.extend(u32::try_from(agent.len())?.to_le_bytes());
    // miniz's own 10 searches longest; it packs once a build.
    let mut encoder = ZlibEncoder::new(packed, Compression::new(10));
    encoder.write_all(agent)?;
    Ok(encoder.finish()?)
}
