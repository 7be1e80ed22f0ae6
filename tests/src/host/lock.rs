//! Locks between processes, by a file that the holder may remove: the kernel frees them when their holder is killed.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// A lock that is held.
#[derive(Debug)]
pub struct FileLock {
    path: PathBuf,
    file: File,
}

impl FileLock {
    /// Waits until it is free.
    pub fn wait(path: &Path) -> Result<Self> {
        loop {
            let lock = Self { path: path.to_owned(), file: File::create(path)? };
            lock.file.lock()?;
            if lock.is_in_place() {
                return Ok(lock);
            }
        }
    }

    /// Takes it if it is free now.
    pub fn try_take(path: &Path) -> Result<Option<Self>> {
        let lock = Self { path: path.to_owned(), file: File::create(path)? };
        let taken = lock.file.try_lock().is_ok() && lock.is_in_place();
        Ok(taken.then_some(lock))
    }

    /// Frees it and removes its file.
    pub fn remove(self) -> Result<()> {
        fs::remove_file(&self.path)?;
        Ok(())
    }

    /// A holder before us may have removed the file that we waited for; the next one locks another.
    fn is_in_place(&self) -> bool {
        let ours = self.file.metadata().map(|meta| meta.ino());
        fs::metadata(&self.path).is_ok_and(|meta| ours.is_ok_and(|ours| ours == meta.ino()))
    }
}
