//! Debian packages that the bed stands on: installed when something is missing, else named in the error.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::host::program::{is_installed, output, run};

/// What a node is made of, by the program or file that proves a package present.
const NODE: &[(&str, &str)] = &[
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("socat", "socat"),
    ("ipset", "ipset"),
    ("ethtool", "ethtool"),
    ("busybox", "busybox-static"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("openssl", "openssl"),
    ("setsid", "util-linux"),
    ("useradd", "passwd"),
];

/// What the applications under test are made of.
const APPLICATIONS: &[(&str, &str)] = &[
    ("/usr/bin/python3.11", "python3-minimal libpython3.11-stdlib"),
    ("redis-server", "redis-server"),
    ("redis-benchmark", "redis-tools"),
    ("/usr/lib/postgresql/15/bin/initdb", "postgresql-15"),
    ("node", "nodejs"),
];

/// Programs that the tests run in the shell, as developers do.
const LAPTOP: &[(&str, &str)] = &[
    ("curl", "curl"),
    ("dig", "bind9-dnsutils"),
    ("git", "git"),
    ("ssh", "openssh-client"),
    ("gdb", "gdb"),
    ("psql", "postgresql-client-15"),
    ("ps", "procps"),
    ("nft", "nftables"),
    ("/usr/share/bash-completion/bash_completion", "bash-completion"),
    ("fish", "fish"),
    ("zsh", "zsh"),
    ("/usr/lib/python3/dist-packages/grpc", "python3-grpcio"),
    ("/usr/lib/python3/dist-packages/websockets", "python3-websockets"),
];

/// What builds static programs: the C parts of the TLS library want a C compiler with musl for each architecture.
const DIST: &[(&str, &str)] =
    &[("x86_64-linux-musl-gcc", "gcc libc6-dev musl-tools"), (ARM64_COMPILER, "musl-dev:arm64")];
const ARM64_COMPILER: &str = "aarch64-linux-musl-gcc";

/// What tries them on other systems.
const TRIAL: &[(&str, &str)] =
    &[("debootstrap", "debootstrap"), ("qemu-aarch64-static", "qemu-user-static"), ("setpriv", "util-linux")];

/// What counts instructions.
const GATE: &[(&str, &str)] = &[("valgrind", "valgrind"), ("ip", "iproute2"), ("chrt", "util-linux")];

/// Makes sure that the node's packages are there.
pub fn require_node() -> Result<()> {
    require(NODE)
}

/// Makes sure that the packages of the applications under test are there.
pub fn require_applications() -> Result<()> {
    require(APPLICATIONS)
}

/// Makes sure that the packages of the programs in the shell are there.
pub fn require_laptop() -> Result<()> {
    require(LAPTOP)
}

/// Makes sure that static programs can be built for all architectures.
pub fn require_dist() -> Result<()> {
    if !is_installed(ARM64_COMPILER) && is_installed("apt-get") {
        // Debian's musl for another architecture brings the cross compiler along, with a wrapper of musl's name.
        run("dpkg", &["--add-architecture", "arm64"])?;
        run("apt-get", &["update"])?;
    }
    require(DIST)
}

/// Makes sure that what was built can be tried on clean systems.
pub fn require_trial() -> Result<()> {
    require(TRIAL)
}

/// Makes sure that the packages of `cargo xtask gate` are there.
pub fn require_gate() -> Result<()> {
    require(GATE)
}

fn require(wanted: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> = wanted
        .iter()
        .filter(
            |(proof, _)| {
                !if proof.starts_with('/') { Path::new(proof).exists() } else { is_installed(proof) }
            },
        )
        .flat_map(|(_, packages)| packages.split(' '))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let remedy = format!("apt-get install {}", missing.join(" "));
    if !is_installed("apt-get") {
        bail!("missing on this machine: {}; on Debian: {remedy}", missing.join(", "));
    }
    eprintln!("installing {}", missing.join(" "));
    let install = |packages: &[&str]| {
        output(
            Command::new("apt-get")
                .args(["install", "--yes", "--no-install-recommends"])
                // Without it Debian starts redis, postgres and containerd as services of the machine.
                .env("RUNLEVEL", "1")
                .env("DEBIAN_FRONTEND", "noninteractive")
                .args(packages),
        )
    };
    if install(&missing).is_err() {
        // The package lists may be old or never fetched.
        run("apt-get", &["update"])?;
        install(&missing)?;
    }
    Ok(())
}
