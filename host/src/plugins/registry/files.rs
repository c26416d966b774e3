//! Sets of assets on the disk: one folder each, named by the set's digest, written whole or not at all.

use super::Error;
use aether_core::id::Digest;
use aether_runtime::Assets;
use cap_std::{ambient_authority, fs::Dir};
use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// The beginning of a folder that is being filled; what a crash left of one is removed at the next start.
const STAGED: &str = "staged-";

/// `<data>/assets`.
#[derive(Clone, Debug)]
pub(super) struct Files {
    folder: PathBuf,
}

impl Files {
    pub(super) fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(STAGED) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(Self { folder })
    }

    /// Writes a set. One that is there and whole is left alone; one that was damaged is replaced.
    pub(super) fn put(&self, digest: &Digest, assets: &Assets) -> Result<(), Error> {
        match self.read(digest) {
            Ok(_) => return Ok(()),
            Err(Error::Unknown { .. }) => {}
            Err(_) => self.remove(digest)?,
        }
        // Removes what it holds when it is dropped, so that a failure leaves nothing.
        let staged = tempfile::Builder::new().prefix(STAGED).tempdir_in(&self.folder)?;
        let dir = Dir::open_ambient_dir(staged.path(), ambient_authority())?;
        for (name, bytes) in assets.files() {
            if let Some((parent, _)) = name.rsplit_once('/') {
                dir.create_dir_all(parent)?;
            }
            let mut file = dir.create(name)?;
            file.write_all(bytes)?;
            file.sync_all()?;
        }
        fs::rename(staged.keep(), self.folder.join(&digest.0))?;
        Ok(fs::File::open(&self.folder)?.sync_all()?)
    }

    /// The set, verified against its name.
    pub(super) fn read(&self, digest: &Digest) -> Result<Assets, Error> {
        let path = self.path(digest)?;
        let dir = match Dir::open_ambient_dir(path, ambient_authority()) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(unknown(digest)),
            Err(error) => return Err(error.into()),
        };
        let assets = Assets::read(&dir)?;
        if assets.digest() == Some(digest) { Ok(assets) } else { Err(Error::Damaged(digest.clone())) }
    }

    pub(super) fn remove(&self, digest: &Digest) -> Result<(), Error> {
        match fs::remove_dir_all(self.path(digest)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Digests of all sets that lie here.
    pub(super) fn list(&self) -> io::Result<Vec<Digest>> {
        let entries: Vec<_> = fs::read_dir(&self.folder)?.collect::<io::Result<_>>()?;
        let names = entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.map(Digest).filter(super::is_digest).collect())
    }

    fn path(&self, digest: &Digest) -> Result<PathBuf, Error> {
        if super::is_digest(digest) { Ok(Path::new(&self.folder).join(&digest.0)) } else { Err(unknown(digest)) }
    }
}

fn unknown(digest: &Digest) -> Error {
    Error::Unknown { what: "set of assets", digest: digest.0.chars().take(80).collect() }
}
