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

/// Where each of them has things, and whether what is not meant for eyes alone is packed there.
struct Layout {
    prefix: &'static str,
    zsh: &'static str,
    packed: bool,
}

/// To be unpacked over a prefix: `~/.local`, `/usr/local`.
const TARBALL: Layout = Layout { prefix: "", zsh: "site-functions", packed: false };
/// Where Debian's policy has things.
const DEBIAN: Layout = Layout { prefix: "usr/", zsh: "vendor-completions", packed: true };

/// What README leads to, with what that shows: they lie beside it as in the repository.
const READABLE: [&str; 8] = [
    "README.md",
    "ARCHITECTURE.md",
    "STYLE.md",
    "docs/ERRORS.md",
    "docs/OUTPUT.md",
    "docs/PERFORMANCE.md",
    "docs/flame-graph-download.svg",
    "deploy/rbac.yaml",
];

pub(super) fn tarball(parts: &Parts<'_>) -> Result<Tree> {
    let mut tree = of_both(&TARBALL, parts)?;
    for name in ["LICENSE-APACHE", "LICENSE-MIT"] {
        tree.file(format!("share/doc/devproxy/{name}"), read(&parts.project.root().join(name))?);
    }
    Ok(tree)
}

pub(super) fn debian(parts: &Parts<'_>) -> Result<Tree> {
    let mut tree = of_both(&DEBIAN, parts)?;
    let packaging = parts.project.root().join("packaging/debian");
    tree.file("usr/share/doc/devproxy/changelog.gz", gzip(changelog(parts.project)?.as_bytes())?);
    tree.file("usr/share/doc/devproxy/copyright", read(&packaging.join("copyright"))?);
    tree.file("usr/share/lintian/overrides/devproxy", read(&packaging.join("lintian-overrides"))?);
    Ok(tree)
}

fn of_both(layout: &Layout, parts: &Parts<'_>) -> Result<Tree> {
    let Layout { prefix, zsh, packed } = layout;
    let Texts { bash, zsh: zsh_text, fish, pages } = parts.texts;
    let (share, root) = (format!("{prefix}share"), parts.project.root());
    let gz = if *packed { ".gz" } else { "" };
    let pack = |content: &[u8]| if *packed { gzip(content) } else { Ok(content.to_vec()) };

    let mut tree = Tree::default();
    tree.program(format!("{prefix}bin/devproxy"), parts.program);
    for name in KUBECTL {
        tree.link(format!("{prefix}bin/{name}"), "devproxy");
        tree.link(format!("{share}/man/man1/{name}.1{gz}"), format!("devproxy.1{gz}"));
    }
    for (name, page) in pages {
        tree.file(format!("{share}/man/man1/{name}{gz}"), pack(page)?);
    }
    tree.file(format!("{share}/bash-completion/completions/devproxy"), bash.as_str());
    tree.file(format!("{share}/zsh/{zsh}/_devproxy"), zsh_text.as_str());
    tree.file(format!("{share}/fish/vendor_completions.d/devproxy.fish"), fish.as_str());
    tree.file(format!("{share}/devproxy/apparmor/devproxy"), read(&root.join("packaging/apparmor"))?);
    for name in READABLE {
        tree.file(format!("{share}/doc/devproxy/{name}"), read(&root.join(name))?);
    }
    let changes = read(&root.join("CHANGELOG.md"))?;
    for (name, content) in
        [("CHANGELOG.md", &changes[..]), ("THIRD-PARTY-LICENSES", parts.licences.as_bytes())]
    {
        tree.file(format!("{share}/doc/devproxy/{name}{gz}"), pack(content)?);
    }
    Ok(tree)
}

/// In Debian's form, which its tools read; what changed is told in our own.
fn changelog(project: &Project) -> Result<String> {
    let template = String::from_utf8(read(&project.root().join("packaging/debian/changelog"))?)?;
    let date = jiff::Timestamp::from_second(i64::try_from(project.time())?)?;
    let date = date.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string();
    Ok(template.replace("@VERSION@", Project::VERSION).replace("@DATE@", &date))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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
            "share/doc/devproxy/ARCHITECTURE.md",
            "share/doc/devproxy/CHANGELOG.md",
            "share/doc/devproxy/LICENSE-APACHE",
            "share/doc/devproxy/LICENSE-MIT",
            "share/doc/devproxy/README.md",
            "share/doc/devproxy/STYLE.md",
            "share/doc/devproxy/THIRD-PARTY-LICENSES",
            "share/doc/devproxy/deploy/rbac.yaml",
            "share/doc/devproxy/docs/ERRORS.md",
            "share/doc/devproxy/docs/OUTPUT.md",
            "share/doc/devproxy/docs/PERFORMANCE.md",
            "share/doc/devproxy/docs/flame-graph-download.svg",
            "share/fish/vendor_completions.d/devproxy.fish",
            "share/man/man1/devproxy.1",
            "share/man/man1/kubectl-devproxy.1",
            "share/man/man1/kubectl_complete-devproxy.1",
            "share/zsh/site-functions/_devproxy",
        ];
        assert_eq!(paths(&tarball(&parts).unwrap()), wanted);
    }

    /// Targets of `[text](target)` in Markdown that lie beside it.
    fn links(text: &str) -> impl Iterator<Item = &str> {
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        targets.filter(|target| !target.contains("://") && !target.starts_with('#'))
    }

    #[test]
    fn whatever_a_shipped_text_links_is_shipped_too() {
        let project = Project::at_time(1_700_000_000);
        let parts = Parts { project: &project, program: b"\x7fELF", texts: &texts(), licences: "theirs" };
        for tree in [tarball(&parts).unwrap(), debian(&parts).unwrap()] {
            let (paths, mut followed) = (paths(&tree), 0);
            for (path, node) in
                tree.entries().filter(|(path, _)| Path::new(path).extension() == Some("md".as_ref()))
            {
                let Node::File { content, .. } = node else { panic!("{path} is no file") };
                let (folder, _) = path.rsplit_once('/').unwrap();
                for link in links(str::from_utf8(content).unwrap()) {
                    assert!(paths.contains(&format!("{folder}/{link}")), "{path} links {link}");
                    followed += 1;
                }
            }
            assert!(followed >= 6, "{followed}");
        }
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
