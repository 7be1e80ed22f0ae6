//! Reads a volume as the tree that the laptop shows: the `..data` structure, modes and links as they are.

use std::{
    fs::{self, Metadata, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use devproxy_tunnel::control::{FileEntry, FileKind, FileTree, MAX_MESSAGE};
use nix::libc;

use crate::log;

/// Content and paths of one tree, bytes; the rest of a message is left for lengths and modes.
const LIMIT: usize = MAX_MESSAGE - (256 << 10);

/// Entries of one tree.
const ENTRIES: usize = 16_384;

/// Deepest folder below the root.
const DEPTH: usize = 32;

/// How often a tree is read anew when the kubelet has flipped it meanwhile.
const TORN: usize = 5;

/// A tree cannot be sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum TreeError {
    /// Not a path that the laptop may ask for.
    #[error("not an absolute path without `..`")]
    Path,
    /// The root itself.
    #[error("{0}")]
    Root(#[from] io::Error),
    /// A volume for programs, not for configuration.
    #[error("larger than {LIMIT} bytes, {ENTRIES} files or {DEPTH} levels")]
    TooLarge,
}

/// Reads the tree below `root`, at one moment between two flips of its `..data` link.
pub(super) fn read(root: &str) -> Result<FileTree, TreeError> {
    let path = Path::new(root);
    if !path.is_absolute() || path.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(TreeError::Path);
    }
    let version = || fs::read_link(path.join("..data")).ok();
    let mut before = version();
    for _ in 1..TORN {
        let read = Reader::read(path);
        let after = version();
        if before == after {
            return Ok(FileTree { root: root.to_owned(), entries: read? });
        }
        before = after;
    }
    Ok(FileTree { root: root.to_owned(), entries: Reader::read(path)? })
}

struct Reader {
    root: PathBuf,
    entries: Vec<FileEntry>,
    left: usize,
}

impl Reader {
    fn read(root: &Path) -> Result<Vec<FileEntry>, TreeError> {
        // The root may be reached through links (/var/run), below it they are kept.
        let metadata = fs::metadata(root)?;
        let root = fs::canonicalize(root)?;
        let mut reader = Self { root: root.clone(), entries: Vec::new(), left: LIMIT };
        reader.entry(&root, &metadata, 0)?;
        Ok(reader.entries)
    }

    fn entry(&mut self, path: &Path, metadata: &Metadata, depth: usize) -> Result<(), TreeError> {
        let Some(name) = path.strip_prefix(&self.root).ok().and_then(Path::to_str) else {
            log::line(format_args!("left out, not UTF-8: {}", path.display()));
            return Ok(());
        };
        let name = name.to_owned();
        self.take(name.len())?;
        if self.entries.len() >= ENTRIES || depth > DEPTH {
            return Err(TreeError::TooLarge);
        }
        let mode = metadata.mode() & 0o7777;
        if metadata.is_dir() {
            self.entries.push(FileEntry { path: name, mode, kind: FileKind::Directory });
            return self.folder(path, depth);
        }
        let kind = if metadata.is_symlink() {
            fs::read_link(path)
                .map(|target| target.into_os_string().into_string().ok().map(FileKind::Symlink))
        } else if metadata.is_file() {
            match self.content(path) {
                Err(TreeError::Root(e)) => Err(e),
                Err(e) => return Err(e),
                Ok(content) => Ok(Some(FileKind::File(content))),
            }
        } else {
            // A socket, pipe or device is nothing that can be copied.
            Ok(None)
        };
        match kind {
            Ok(Some(kind)) => self.entries.push(FileEntry { path: name, mode, kind }),
            Ok(None) => log::line(format_args!("left out: {}", path.display())),
            // Removed meanwhile: there is a newer tree.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) if name.is_empty() => return Err(e.into()),
            Err(e) => log::line(format_args!("left out: {}: {e}", path.display())),
        }
        Ok(())
    }

    fn folder(&mut self, path: &Path, depth: usize) -> Result<(), TreeError> {
        let listed = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut listed = match listed {
            Ok(listed) => listed,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => {
                log::line(format_args!("left out: {}: {e}", path.display()));
                return Ok(());
            }
        };
        listed.sort_by_key(fs::DirEntry::file_name);
        for each in listed {
            // Of the link itself, not of what it points to.
            if let Ok(metadata) = each.metadata() {
                self.entry(&each.path(), &metadata, depth + 1)?;
            }
        }
        Ok(())
    }

    fn content(&mut self, path: &Path) -> Result<Vec<u8>, TreeError> {
        // What was a file a moment ago may be a pipe or a link now: neither is waited for or followed.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(path)?;
        let mut content = Vec::new();
        file.take(self.left as u64 + 1).read_to_end(&mut content)?;
        self.take(content.len())?;
        Ok(content)
    }

    fn take(&mut self, bytes: usize) -> Result<(), TreeError> {
        self.left = self.left.checked_sub(bytes).ok_or(TreeError::TooLarge)?;
        Ok(())
    }
}
