//! Files in memory, before they are packed.

use std::collections::BTreeMap;

/// Files and links by their path, which begins with no slash; folders follow from it.
#[derive(Debug, Default)]
pub(super) struct Tree(BTreeMap<String, Node>);

#[derive(Debug)]
pub(super) enum Node {
    Folder,
    File { mode: u32, content: Vec<u8> },
    Link(String),
}

impl Tree {
    /// A file that everybody may read.
    pub(super) fn file(&mut self, path: impl Into<String>, content: impl Into<Vec<u8>>) {
        self.add(path.into(), Node::File { mode: 0o644, content: content.into() });
    }

    /// A file that everybody may run.
    pub(super) fn program(&mut self, path: impl Into<String>, content: impl Into<Vec<u8>>) {
        self.add(path.into(), Node::File { mode: 0o755, content: content.into() });
    }

    pub(super) fn link(&mut self, path: impl Into<String>, to: impl Into<String>) {
        self.add(path.into(), Node::Link(to.into()));
    }

    fn add(&mut self, path: String, node: Node) {
        for (slash, _) in path.match_indices('/') {
            self.0.entry(path[..slash].to_owned()).or_insert(Node::Folder);
        }
        self.0.insert(path, node);
    }

    /// A folder before what is in it, everything in one order.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.0.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// Bytes of all files.
    pub(super) fn size(&self) -> usize {
        self.0
            .values()
            .map(|node| if let Node::File { content, .. } = node { content.len() } else { 0 })
            .sum()
    }
}
