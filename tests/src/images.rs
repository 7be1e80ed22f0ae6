//! Container images made by hand from what Debian has on this machine: no registry, no Docker.
//!
//! An archive is kept in the user's cache folder under a hash of its ingredients, so it is built once.

mod archive;
mod ingredients;
mod shopd;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

pub use shopd::build as build_shopd;

use crate::host::packages;
use crate::host::program::find;
use crate::node::{Programs, cache_folder};
use archive::Config;
use ingredients::Tree;

/// An image of the bed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Image {
    /// Holds the namespaces of a pod.
    Pause,
    /// The cluster's DNS.
    CoreDns,
    /// A shell and its usual programs, static (musl-like resolver: Debian builds it with glibc, statically).
    Busybox,
    /// CPython of Debian with its standard library: glibc's resolver.
    Python,
    /// The `node` of this machine.
    Node,
    /// Redis with its command-line client and benchmark.
    Redis,
    /// PostgreSQL with `initdb` and `psql`; starts as any user but root.
    Postgres,
    /// The application under test, `shopd`, beside a shell.
    Shop,
    /// The same under a name of its own: tests of another checkout on the same node cannot replace it between two
    /// pods of a bench.
    Bench,
    /// `shopd` alone: no shell, no libc, no /etc/passwd.
    ShopBare,
    /// The agent of the product under test, as deploy/Dockerfile makes it.
    Agent,
}

impl Image {
    /// All of them but the product's own and the bench's.
    pub const ALL: [Self; 9] = [
        Self::Pause,
        Self::CoreDns,
        Self::Busybox,
        Self::Python,
        Self::Node,
        Self::Redis,
        Self::Postgres,
        Self::Shop,
        Self::ShopBare,
    ];

    /// Its name without registry and tag.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::CoreDns => "coredns",
            Self::Busybox => "busybox",
            Self::Python => "python",
            Self::Node => "node",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::Shop => "shop",
            Self::Bench => "bench",
            Self::ShopBare => "shop-bare",
            Self::Agent => "devproxy-agent",
        }
    }

    /// As a pod names it; use it with `imagePullPolicy: IfNotPresent`. For a cluster of the user's,
    /// `DEVPROXY_TEST_IMAGES` names the registry folder to which they were pushed.
    pub fn reference(self) -> String {
        let registry = std::env::var("DEVPROXY_TEST_IMAGES").unwrap_or_else(|_| "localhost".into());
        format!("{registry}/{}:1", self.name())
    }

    /// The archive for `ctr images import`, built if the cache has none of these ingredients.
    pub fn archive(self) -> Result<PathBuf> {
        if matches!(self, Self::Python | Self::Node | Self::Redis | Self::Postgres) {
            packages::require_applications()?;
        }
        let (tree, config) =
            self.recipe().with_context(|| format!("no ingredients for image {}", self.name()))?;
        let folder = cache_folder()?.join("images");
        let archive = folder.join(format!("{}-{}.tar", self.name(), tree.digest(&config)?));
        if !archive.exists() {
            fs::create_dir_all(&folder)?;
            let unfinished = tempfile::NamedTempFile::new_in(&folder)?;
            archive::write(unfinished.as_file(), &self.reference(), &tree, &config)
                .with_context(|| format!("cannot write image {}", self.name()))?;
            unfinished.persist(&archive)?;
        }
        Ok(archive)
    }

    fn recipe(self) -> Result<(Tree, Config)> {
        let mut tree = Tree::new();
        let config = match self {
            Self::Pause => {
                tree.file("/shopd", &build_shopd()?);
                Config::entrypoint(&["/shopd", "pause"])
            }
            Self::CoreDns => {
                tree.program("/coredns", &Programs::build()?.coredns)?;
                Config::entrypoint(&["/coredns"])
            }
            Self::Busybox => {
                tree.busybox()?;
                Config::entrypoint(&["/bin/sh"])
            }
            Self::Python => {
                tree.busybox()?;
                tree.program("/usr/bin/python3.11", "/usr/bin/python3.11".as_ref())?;
                tree.link("/usr/bin/python3", "python3.11");
                tree.folder("/usr/lib/python3.11")?;
                tree.libraries_of_folder("/usr/lib/python3.11/lib-dynload")?;
                tree.resolver()?;
                Config::entrypoint(&["/usr/bin/python3"])
            }
            Self::Node => {
                tree.busybox()?;
                let node = fs::canonicalize(find("node").context("no `node` on PATH")?)?;
                tree.program("/usr/bin/node", &node)?;
                // Debian's node loads parts of its own library from here.
                if Path::new("/usr/share/nodejs").exists() {
                    tree.folder("/usr/share/nodejs")?;
                }
                tree.resolver()?;
                Config::entrypoint(&["/usr/bin/node"])
            }
            Self::Redis => {
                tree.busybox()?;
                for program in ["redis-server", "redis-cli", "redis-benchmark"] {
                    let file = find(program).with_context(|| format!("no {program}"))?;
                    tree.program(&format!("/usr/bin/{program}"), &fs::canonicalize(file)?)?;
                }
                tree.resolver()?;
                Config::entrypoint(&["/usr/bin/redis-server", "--protected-mode", "no", "--save", ""])
            }
            Self::Postgres => {
                tree.busybox()?;
                tree.folder("/usr/lib/postgresql/15")?;
                tree.folder("/usr/share/postgresql/15")?;
                tree.libraries_of_folder("/usr/lib/postgresql/15/bin")?;
                tree.folder("/usr/share/zoneinfo")?;
                tree.resolver()?;
                tree.text("/usr/bin/start-postgres", 0o755, START_POSTGRES);
                tree.text("/etc/passwd", 0o644, "root:x:0:0::/:/bin/sh\npostgres:x:70:70::/tmp:/bin/sh\n");
                let mut config = Config::entrypoint(&["/bin/sh", "/usr/bin/start-postgres"]);
                config.user = "70".into();
                config.path = "/usr/lib/postgresql/15/bin:/bin:/usr/bin";
                config
            }
            Self::Shop | Self::Bench => {
                tree.busybox()?;
                tree.file("/usr/bin/shopd", &build_shopd()?);
                Config::entrypoint(&["/usr/bin/shopd"])
            }
            Self::ShopBare => {
                tree.file("/shopd", &build_shopd()?);
                Config::entrypoint(&["/shopd"])
            }
            Self::Agent => {
                tree.file("/devproxy-agent", &agent()?);
                let mut config = Config::entrypoint(&["/devproxy-agent"]);
                config.user = "65532:65532".into();
                config
            }
        };
        Ok((tree, config))
    }
}

/// The agent that the product's own build left in the target folder of this test.
fn agent() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let name = format!("agent/{}-unknown-linux-musl/agent/devproxy-agent", std::env::consts::ARCH);
    // target/debug/deps/test-…
    own.ancestors()
        .skip(2)
        .take(2)
        .map(|folder| folder.join(&name))
        .find(|file| file.is_file())
        .with_context(|| format!("no {name} beside {}: run `cargo build --package devproxy`", own.display()))
}

/// Trusts everybody: it lives in a test's namespace for a minute.
const START_POSTGRES: &str = r#"set -e
data=${PGDATA:-/tmp/data}
[ -d "$data" ] || initdb --pgdata="$data" --auth=trust --username=postgres --no-sync >/dev/null
echo "host all all all trust" >>"$data/pg_hba.conf"
exec postgres -D "$data" -c listen_addresses='*' -c unix_socket_directories=/tmp -c fsync=off
"#;
