//! A [`Tree`] as a tar file, packed: owner, time, order and every other byte follow from the tree alone.

use std::io::Write as _;

use anyhow::{Result, ensure};
use flate2::{Compression, GzBuilder};
use tar::{EntryType, Header};

use super::tree::{Node, Tree};

/// With `prefix` before each path.
pub(super) fn tar_gz(tree: &Tree, prefix: &str, time: u64) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let folder = prefix.trim_end_matches('/');
    tar.append(&header(&format!("{folder}/"), &Node::Folder, time)?, &[][..])?;
    for (path, node) in tree.entries() {
        let slash = if matches!(node, Node::Folder) { "/" } else { "" };
        let content: &[u8] = if let Node::File { content, .. } = node { content } else { &[] };
        tar.append(&header(&format!("{prefix}{path}{slash}"), node, time)?, content)?;
    }
    gzip(&tar.into_inner()?)
}

/// Without name and time.
pub(super) fn gzip(content: &[u8]) -> Result<Vec<u8>> {
    let mut packed = GzBuilder::new().write(Vec::new(), Compression::best());
    packed.write_all(content)?;
    Ok(packed.finish()?)
}

fn header(path: &str, node: &Node, time: u64) -> Result<Header> {
    let mut header = Header::new_gnu();
    let name = &mut header.as_old_mut().name;
    ensure!(path.len() <= name.len(), "`{path}` is too long for a tar header");
    // Not by `set_path`, which would drop the `./` that Debian's packages begin their paths with.
    name[..path.len()].copy_from_slice(path.as_bytes());
    let (kind, mode, size) = match node {
        Node::Folder => (EntryType::Directory, 0o755, 0),
        Node::File { mode, content } => (EntryType::Regular, *mode, content.len()),
        Node::Link(to) => {
            header.set_link_name(to)?;
            (EntryType::Symlink, 0o777, 0)
        }
    };
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_mtime(time);
    header.set_uid(0);
    header.set_gid(0);
    header.set_username("root")?;
    header.set_groupname("root")?;
    header.set_cksum();
    Ok(header)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn tree(order: [&str; 3]) -> Tree {
        let mut tree = Tree::default();
        for name in order {
            match name {
                "link" => tree.link("bin/link", "program"),
                "program" => tree.program("bin/program", *b"\x7fELF"),
                _ => tree.file("share/doc/README", *b"words\n"),
            }
        }
        tree
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes_in_whatever_order_it_was_made() {
        let first = tar_gz(&tree(["link", "program", "doc"]), "p-1/", 1_700_000_000).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1100)); // a clock in it would have gone on
        let second = tar_gz(&tree(["doc", "program", "link"]), "p-1/", 1_700_000_000).unwrap();
        assert_eq!(first, second);
        assert_ne!(first, tar_gz(&tree(["link", "program", "doc"]), "p-1/", 1_700_000_001).unwrap());
        // Nor does gzip's header tell a time or a name.
        assert_eq!(first[3..8], [0; 5]);
    }

    #[test]
    fn entries_are_roots_in_one_order_each_folder_before_its_content() {
        let packed = tar_gz(&tree(["doc", "link", "program"]), "./", 7).unwrap();
        let mut tar = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut tar).unwrap();
        let mut archive = tar::Archive::new(&tar[..]);
        let told: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                assert_eq!(
                    (header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()),
                    (0, 0, 7)
                );
                format!("{:o} {}", header.mode().unwrap(), String::from_utf8_lossy(&entry.path_bytes()))
            })
            .collect();
        let wanted = [
            "755 ./",
            "755 ./bin/",
            "777 ./bin/link",
            "755 ./bin/program",
            "755 ./share/",
            "755 ./share/doc/",
            "644 ./share/doc/README",
        ];
        assert_eq!(told, wanted);
    }
}
