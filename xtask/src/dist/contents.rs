//! What lies where in a tarball and in a Debian package.

use anyhow::Result;

use super::archive::gzip;
use super::project::Project;
use super::read;
use super::texts::Texts;
use super::tree::Tree;

/// What both are made of.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) project: &'a Project,
    pub(super) program: &'a [u8],
    pub(super) texts: &'a Texts,
    pub(super) licences: &'a str,
}

/// Names by which kubectl starts the program: as `kubectl devproxy`, and when it completes that.
const KUBECTL: [&str; 2] = ["kubectl-devproxy", "kubectl_complete-devproxy"];

/// To be unpacked over a prefix: `~/.local`, `/usr/local`.
pub(super) fn tarball(parts: &Parts<'_>) -> Result<Tree> {
    let mut tree = Tree::default();
    programs(&mut tree, "bin", parts);
    tree.file("share/bash-completion/completions/devproxy", parts.texts.bash.as_str());
    tree.file("share/zsh/site-functions/_devproxy", parts.texts.zsh.as_str());
    tree.file("share/fish/vendor_completions.d/devproxy.fish", parts.texts.fish.as_str());
    for (name, page) in &parts.texts.pages {
        tree.file(format!("share/man/man1/{name}"), page.as_slice());
    }
    let root = parts.project.root();
    for name in ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"] {
        tree.file(format!("share/doc/devproxy/{name}"), read(&root.join(name))?);
    }
    tree.file("share/doc/devproxy/ERRORS.md", read(&root.join("docs/ERRORS.md"))?);
    tree.file("share/doc/devproxy/rbac.yaml", read(&root.join("deploy/rbac.yaml"))?);
    tree.file("share/doc/devproxy/THIRD-PARTY-LICENSES", parts.licences);
    tree.file("share/devproxy/apparmor/devproxy", read(&root.join("packaging/apparmor"))?);
    Ok(tree)
}

/// Where Debian's policy has things.
pub(super) fn debian(parts: &Parts<'_>) -> Result<Tree> {
    let mut tree = Tree::default();
    programs(&mut tree, "usr/bin", parts);
    tree.file("usr/share/bash-completion/completions/devproxy", parts.texts.bash.as_str());
    tree.file("usr/share/zsh/vendor-completions/_devproxy", parts.texts.zsh.as_str());
    tree.file("usr/share/fish/vendor_completions.d/devproxy.fish", parts.texts.fish.as_str());
    for (name, page) in &parts.texts.pages {
        tree.file(format!("usr/share/man/man1/{name}.gz"), gzip(page)?);
    }
    let root = parts.project.root();
    let doc = "usr/share/doc/devproxy";
    tree.file(format!("{doc}/README.md"), read(&root.join("README.md"))?);
    tree.file(format!("{doc}/ERRORS.md"), read(&root.join("docs/ERRORS.md"))?);
    tree.file(format!("{doc}/examples/rbac.yaml"), read(&root.join("deploy/rbac.yaml"))?);
    tree.file(format!("{doc}/CHANGELOG.md.gz"), gzip(&read(&root.join("CHANGELOG.md"))?)?);
    tree.file(format!("{doc}/changelog.gz"), gzip(changelog(parts.project)?.as_bytes())?);
    tree.file(format!("{doc}/copyright"), read(&root.join("packaging/debian/copyright"))?);
    tree.file(format!("{doc}/THIRD-PARTY-LICENSES.gz"), gzip(parts.licences.as_bytes())?);
    for name in KUBECTL {
        tree.link(format!("usr/share/man/man1/{name}.1.gz"), "devproxy.1.gz");
    }
    tree.file("usr/share/devproxy/apparmor/devproxy", read(&root.join("packaging/apparmor"))?);
    tree.file(
        "usr/share/lintian/overrides/devproxy",
        read(&root.join("packaging/debian/lintian-overrides"))?,
    );
    Ok(tree)
}

/// In Debian's form, which its tools read; what changed is told in our own.
fn changelog(project: &Project) -> Result<String> {
    let template = String::from_utf8(read(&project.root().join("packaging/debian/changelog"))?)?;
    let date = jiff::Timestamp::from_second(i64::try_from(project.time())?)?;
    let date = date.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string();
    Ok(template.replace("@VERSION@", Project::VERSION).replace("@DATE@", &date))
}

fn programs(tree: &mut Tree, folder: &str, parts: &Parts<'_>) {
    tree.program(format!("{folder}/devproxy"), parts.program);
    for name in KUBECTL {
        tree.link(format!("{folder}/{name}"), "devproxy");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::Architecture;
    use crate::dist::package::deb;
    use crate::dist::tree::Node;

    fn texts() -> Texts {
        let words = |name: &str| name.to_owned();
        let pages = vec![(words("devproxy.1"), b".TH devproxy 1\n".to_vec())];
        Texts { bash: words("bash"), zsh: words("zsh"), fish: words("fish"), pages }
    }

    fn paths(tree: &Tree) -> Vec<String> {
        let files = tree.entries().filter(|(_, node)| !matches!(node, Node::Folder));
        files.map(|(path, _)| path.to_owned()).collect()
    }

    #[test]
    fn a_tarball_unpacks_over_any_prefix() {
        let project = Project::at_time(1_700_000_000);
        let parts = Parts { project: &project, program: b"\x7fELF", texts: &texts(), licences: "theirs" };
        let wanted = [
            "bin/devproxy",
            "bin/kubectl-devproxy",
            "bin/kubectl_complete-devproxy",
            "share/bash-completion/completions/devproxy",
            "share/devproxy/apparmor/devproxy",
            "share/doc/devproxy/CHANGELOG.md",
            "share/doc/devproxy/ERRORS.md",
            "share/doc/devproxy/LICENSE-APACHE",
            "share/doc/devproxy/LICENSE-MIT",
            "share/doc/devproxy/README.md",
            "share/doc/devproxy/THIRD-PARTY-LICENSES",
            "share/doc/devproxy/rbac.yaml",
            "share/fish/vendor_completions.d/devproxy.fish",
            "share/man/man1/devproxy.1",
            "share/zsh/site-functions/_devproxy",
        ];
        assert_eq!(paths(&tarball(&parts).unwrap()), wanted);
    }

    #[test]
    fn dpkg_reads_the_package_and_two_of_them_are_the_same_bytes() {
        let project = Project::at_time(1_700_000_000);
        let parts = Parts { project: &project, program: b"\x7fELF", texts: &texts(), licences: "theirs" };
        let package = deb(&debian(&parts).unwrap(), Architecture::Arm64, &project).unwrap();
        assert_eq!(package, deb(&debian(&parts).unwrap(), Architecture::Arm64, &project).unwrap());

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("devproxy.deb");
        std::fs::write(&file, package).unwrap();
        let dpkg = |word: &str| {
            let mut command = std::process::Command::new("dpkg-deb");
            devproxy_tests::host::program::output(command.arg(word).arg(&file).env("TZ", "UTC")).unwrap()
        };
        assert!(dpkg("--field").contains("\nArchitecture: arm64\n"));
        let listed = dpkg("--contents");
        for line in [
            "-rwxr-xr-x root/root         4 2023-11-14 22:13 ./usr/bin/devproxy\n",
            "2023-11-14 22:13 ./usr/bin/kubectl-devproxy -> devproxy\n",
            "2023-11-14 22:13 ./usr/share/man/man1/devproxy.1.gz\n",
            "2023-11-14 22:13 ./usr/share/doc/devproxy/copyright\n",
        ] {
            assert!(listed.contains(line), "{line} is missing in\n{listed}");
        }
    }
}
