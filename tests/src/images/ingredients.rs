//! The files of an image: copied from this machine with the shared libraries that they need.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use super::archive::Config;
use crate::host::program::{find, run};

/// A file tree in the making, by absolute path inside the image.
#[derive(Debug)]
pub(super) struct Tree {
    entries: BTreeMap<PathBuf, Entry>,
}

#[derive(Debug)]
enum Entry {
    Folder { mode: u32 },
    Copy { source: PathBuf },
    Text { mode: u32, content: String },
    Link { target: PathBuf },
}

impl Tree {
    /// The folders that programs expect, nothing in them.
    pub(super) fn new() -> Self {
        let mut tree = Self { entries: BTreeMap::new() };
        for folder in ["/etc", "/var", "/usr", "/usr/bin", "/bin", "/proc", "/sys", "/dev", "/run"] {
            tree.entries.insert(folder.into(), Entry::Folder { mode: 0o755 });
        }
        tree.entries.insert("/tmp".into(), Entry::Folder { mode: 0o1777 });
        tree
    }

    /// One file without its libraries.
    pub(super) fn file(&mut self, path: &str, source: &Path) {
        self.put(path.into(), Entry::Copy { source: source.to_owned() });
    }

    /// A file made of text.
    pub(super) fn text(&mut self, path: &str, mode: u32, content: &str) {
        self.put(path.into(), Entry::Text { mode, content: content.to_owned() });
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.put(path.into(), Entry::Link { target: target.into() });
    }

    /// A program with the shared libraries that it is linked to.
    pub(super) fn program(&mut self, path: &str, source: &Path) -> Result<()> {
        self.file(path, source);
        self.libraries_of(source)
    }

    /// A folder with all below it, at its own path; without byte code and test suites.
    pub(super) fn folder(&mut self, path: &str) -> Result<()> {
        self.walk(Path::new(path))
    }

    /// The shared libraries that the files of a folder are linked to.
    pub(super) fn libraries_of_folder(&mut self, folder: &str) -> Result<()> {
        for entry in fs::read_dir(folder).with_context(|| format!("no folder {folder}"))? {
            self.libraries_of(&entry?.path())?;
        }
        Ok(())
    }

    /// Debian's static busybox with a link per program in it.
    pub(super) fn busybox(&mut self) -> Result<()> {
        let busybox = find("busybox").context("no busybox")?;
        self.file("/bin/busybox", &busybox);
        for applet in run("busybox", &["--list"])?.lines().filter(|applet| *applet != "busybox") {
            self.link(&format!("/bin/{applet}"), "busybox");
        }
        Ok(())
    }

    /// What glibc loads at run time to resolve names.
    pub(super) fn resolver(&mut self) -> Result<()> {
        let folder = format!("/lib/{}-linux-gnu", std::env::consts::ARCH);
        for library in ["libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2"] {
            let path = format!("{folder}/{library}");
            if Path::new(&path).exists() {
                self.program(&path, path.as_ref())?;
            }
        }
        self.text("/etc/nsswitch.conf", 0o644, "hosts: files dns\n");
        // As Debian has it: all lines of /etc/hosts with a name count.
        self.text("/etc/host.conf", 0o644, "multi on\n");
        Ok(())
    }

    /// Names this content: paths, sizes and times of what is copied, and how the image starts.
    pub(super) fn digest(&self, config: &Config) -> Result<String> {
        let mut hash = Sha256::new();
        hash.update(config.json("").to_string());
        for (path, entry) in &self.entries {
            hash.update(path.as_os_str().as_encoded_bytes());
            hash.update(format!("{entry:?}"));
            if let Entry::Copy { source } = entry {
                let meta =
                    fs::metadata(source).with_context(|| format!("cannot read {}", source.display()))?;
                hash.update(format!("{} {} {}", meta.len(), meta.mtime(), meta.mtime_nsec()));
            }
        }
        Ok(format!("{:x}", hash.finalize())[..16].to_owned())
    }

    /// Writes it as a tar archive.
    pub(super) fn write(&self, to: impl Write) -> Result<()> {
        let mut archive = tar::Builder::new(to);
        for (path, entry) in &self.entries {
            let name = path.strip_prefix("/")?;
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            match entry {
                Entry::Folder { mode } => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(*mode);
                    archive.append_data(&mut header, name, std::io::empty())?;
                }
                Entry::Copy { source } => {
                    let file = fs::File::open(source)?;
                    let meta = file.metadata()?;
                    header.set_size(meta.len());
                    header.set_mode(meta.mode() & 0o7777);
                    archive.append_data(&mut header, name, file)?;
                }
                Entry::Text { mode, content } => {
                    header.set_size(content.len() as u64);
                    header.set_mode(*mode);
                    archive.append_data(&mut header, name, content.as_bytes())?;
                }
                Entry::Link { target } => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_mode(0o777);
                    archive.append_link(&mut header, name, target)?;
                }
            }
        }
        archive.finish()?;
        Ok(())
    }

    fn put(&mut self, path: PathBuf, entry: Entry) {
        for folder in path.ancestors().skip(1).filter(|folder| folder.parent().is_some()) {
            self.entries.entry(folder.to_owned()).or_insert(Entry::Folder { mode: 0o755 });
        }
        self.entries.insert(path, entry);
    }

    fn walk(&mut self, path: &Path) -> Result<()> {
        let meta = fs::symlink_metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if meta.is_dir() {
            if !matches!(&*name, "__pycache__" | "test" | "man" | "locale") {
                for entry in fs::read_dir(path)? {
                    self.walk(&entry?.path())?;
                }
            }
        } else if meta.is_symlink() {
            let target = fs::read_link(path)?;
            // A link that leaves the folder would dangle: take what it leads to.
            match fs::canonicalize(path) {
                Ok(source) if target.is_absolute() || target.starts_with("..") => {
                    if source.is_file() {
                        self.put(path.to_owned(), Entry::Copy { source });
                    }
                }
                Ok(_) => self.put(path.to_owned(), Entry::Link { target }),
                Err(_) => {}
            }
        } else if meta.is_file() && !name.ends_with(".pyc") {
            self.put(path.to_owned(), Entry::Copy { source: path.to_owned() });
        }
        Ok(())
    }

    /// By ldd, which fails for what is not linked dynamically.
    fn libraries_of(&mut self, source: &Path) -> Result<()> {
        let Ok(listing) = run("ldd", &[&source.to_string_lossy()]) else { return Ok(()) };
        for line in listing.lines() {
            // `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)` or `/lib64/ld-linux-x86-64.so.2 (0x…)`
            let path = line.split("=> ").last().unwrap_or(line).trim().split(' ').next().unwrap_or_default();
            if path.starts_with('/') && !self.entries.contains_key(Path::new(path)) {
                self.put(path.into(), Entry::Copy { source: fs::canonicalize(path)? });
            }
        }
        Ok(())
    }
}
