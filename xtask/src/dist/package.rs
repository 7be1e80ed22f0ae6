//! A Debian package by hand: an `ar` file of two tar files (deb(5)), without a clock in it.

use anyhow::Result;

use super::archive::tar_gz;
use super::project::Project;
use super::tree::Tree;
use super::{Architecture, read};

/// Scripts and lists of dpkg, as they lie in `packaging/debian`.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];
const LISTS: [&str; 1] = ["triggers"];

pub(super) fn deb(data: &Tree, architecture: Architecture, project: &Project) -> Result<Vec<u8>> {
    let debian = project.root().join("packaging/debian");
    let mut control = Tree::default();
    let template = String::from_utf8(read(&debian.join("control"))?)?;
    control.file(
        "control",
        template
            .replace("@VERSION@", Project::VERSION)
            .replace("@ARCHITECTURE@", architecture.name())
            .replace("@KIBIBYTES@", &data.size().div_ceil(1024).to_string()),
    );
    for name in SCRIPTS {
        control.program(name, read(&debian.join(name))?);
    }
    for name in LISTS {
        control.file(name, read(&debian.join(name))?);
    }
    members(&tar_gz(&control, "./", project.time())?, &tar_gz(data, "./", project.time())?, project.time())
}

fn members(control: &[u8], data: &[u8], time: u64) -> Result<Vec<u8>> {
    let mut ar = ar::Builder::new(Vec::new());
    for (name, content) in
        [("debian-binary", &b"2.0\n"[..]), ("control.tar.gz", control), ("data.tar.gz", data)]
    {
        let mut header = ar::Header::new(name.into(), content.len() as u64);
        header.set_mode(0o100_644);
        header.set_mtime(time);
        ar.append(&header, content)?;
    }
    Ok(ar.into_inner()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_its_members_in_debians_order_and_nothing_of_this_machine() {
        let package = members(b"ctrl", b"data", 1_700_000_000).unwrap();
        let wanted = "!<arch>\n\
            debian-binary   1700000000  0     0     100644  4         `\n2.0\n\
            control.tar.gz  1700000000  0     0     100644  4         `\nctrl\
            data.tar.gz     1700000000  0     0     100644  4         `\ndata";
        assert_eq!(String::from_utf8(package).unwrap(), wanted);
    }
}
