//! The tarball in the user's home, or the package of the system.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use devproxy_tests::Laptop;
use devproxy_tests::host::root::{CleanRoot, Suite};

use super::{Project, WORD};
use crate::dist::Architecture;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Tarball,
    Package,
}

impl Form {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tarball => "tarball",
            Self::Package => "package",
        }
    }
}

#[derive(Debug)]
pub(super) struct Installed<'a> {
    form: Form,
    root: &'a CleanRoot,
    laptop: &'a Laptop,
}

impl<'a> Installed<'a> {
    /// The way README has it.
    pub(super) async fn install(
        form: Form,
        project: &Project,
        root: &'a CleanRoot,
        laptop: &'a Laptop,
    ) -> Result<Self> {
        let name = Architecture::own()?.name();
        let stem = project.dist().join(format!("devproxy-{}-linux-{name}", Project::VERSION));
        match form {
            Form::Tarball => {
                laptop.write_file(
                    "devproxy.tar.gz",
                    0o644,
                    &fs::read(stem.with_added_extension("tar.gz"))?,
                )?;
                let unpack = "mkdir -p ~/.local && tar -C ~/.local --strip-components=1 -xzf devproxy.tar.gz";
                laptop.command("sh").args(["-c", unpack]).root(root).output(WORD).await?.success()?;
            }
            Form::Package => {
                fs::copy(stem.with_added_extension("deb"), root.path().join("devproxy.deb"))?;
                root.run(&["dpkg", "--install", "/devproxy.deb"])?;
                fs::remove_file(root.path().join("devproxy.deb"))?;
                let wrong = root.run(&["dpkg", "--verify", "devproxy"])? + &root.run(&["dpkg", "--audit"])?;
                ensure!(wrong.is_empty(), "dpkg finds fault: {wrong}");
            }
        }
        Ok(Self { form, root, laptop })
    }

    pub(super) fn program(&self, name: &str) -> String {
        match self.form {
            Form::Tarball => format!("{}/.local/bin/{name}", self.laptop.home().display()),
            Form::Package => format!("/usr/bin/{name}"),
        }
    }

    /// Names, pages, completions and the profile are where the system looks for them.
    pub(super) async fn look(&self, suite: Suite) -> Result<()> {
        for name in ["devproxy", "kubectl-devproxy"] {
            let version = self.shell(&format!("{} --version", self.program(name))).await?;
            ensure!(version.starts_with("devproxy "), "`{name} --version` says `{version}`");
        }
        let share = if self.form == Form::Tarball { "$HOME/.local/share" } else { "/usr/share" };
        let completion =
            format!("set -u; . {share}/bash-completion/completions/devproxy && complete -p devproxy");
        self.shell(&completion).await?;
        let gz = if self.form == Form::Tarball { "" } else { ".gz" };
        for page in ["devproxy.1", "devproxy-swap.1"] {
            self.shell(&format!("test -s {share}/man/man1/{page}{gz}")).await?;
        }
        let profile = self.root.path().join("etc/apparmor.d/devproxy");
        // Debian 12 has AppArmor 3, which would refuse the profile at each boot.
        let wanted = self.form == Form::Package && suite == Suite::Trixie;
        ensure!(profile.exists() == wanted, "the profile is in place: {}, wanted: {wanted}", !wanted);
        Ok(())
    }

    /// The way README has it, too.
    pub(super) async fn remove(&self) -> Result<()> {
        match self.form {
            Form::Tarball => {
                let remove =
                    "tar -tf devproxy.tar.gz | sed -n 's|^[^/]*/||; /[^/]$/p' | (cd ~/.local && xargs rm -f)";
                let left = self.shell(&format!("{remove}; find ~/.local -not -type d")).await?;
                ensure!(left.is_empty(), "left in ~/.local: {left}");
            }
            Form::Package => {
                self.root.run(&["dpkg", "--purge", "devproxy"])?;
            }
        }
        Ok(())
    }

    async fn shell(&self, script: &str) -> Result<String> {
        let command = self.laptop.command("bash").args(["-ec", script]).root(self.root);
        Ok(command.output(WORD).await?.success().with_context(|| format!("`{script}` failed"))?.stdout)
    }
}
