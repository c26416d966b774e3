//! Where segments are kept. Behind a trait, so that a test can fill the disk.

use crate::durable::sync_folder;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Files named by a number, appended to and read at a place.
pub(super) trait Medium: Send {
    fn list(&self) -> io::Result<Vec<u64>>;
    fn read(&self, segment: u64) -> io::Result<Vec<u8>>;
    fn read_at(&self, segment: u64, offset: u64, length: usize) -> io::Result<Vec<u8>>;
    /// May leave a part of `bytes` behind when it fails; the spool then truncates.
    fn append(&mut self, segment: u64, bytes: &[u8]) -> io::Result<()>;
    fn truncate(&mut self, segment: u64, length: u64) -> io::Result<()>;
    fn sync(&mut self, segment: u64) -> io::Result<()>;
    fn remove(&mut self, segment: u64) -> io::Result<()>;
}

/// A folder of the file system.
pub(super) struct Folder {
    path: PathBuf,
    /// The segment that is written to.
    open: Option<(u64, File)>,
}

impl Folder {
    pub(super) fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), open: None }
    }

    fn segment(&self, segment: u64) -> PathBuf {
        self.path.join(format!("{segment:020}.segment"))
    }
}

impl Medium for Folder {
    fn list(&self) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".segment"));
            found.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        found.sort_unstable();
        Ok(found)
    }

    fn read(&self, segment: u64) -> io::Result<Vec<u8>> {
        fs::read(self.segment(segment))
    }

    fn read_at(&self, segment: u64, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        File::open(self.segment(segment))?.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn append(&mut self, segment: u64, bytes: &[u8]) -> io::Result<()> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != segment) {
            let path = self.segment(segment);
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
            sync_folder(&path)?;
            self.open = Some((segment, file));
        }
        match &mut self.open {
            Some((_, file)) => file.write_all(bytes),
            None => Err(io::Error::other("no segment is open")),
        }
    }

    fn truncate(&mut self, segment: u64, length: u64) -> io::Result<()> {
        self.open = None;
        OpenOptions::new().write(true).open(self.segment(segment))?.set_len(length)
    }

    fn sync(&mut self, segment: u64) -> io::Result<()> {
        match &self.open {
            Some((open, file)) if *open == segment => file.sync_data(),
            Some(_) | None => File::open(self.segment(segment))?.sync_data(),
        }
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|(open, _)| *open == segment) {
            self.open = None;
        }
        fs::remove_file(self.segment(segment))
    }
}
