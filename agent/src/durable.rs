//! Small files that must survive a crash whole: written beside, synced, renamed, and the folder synced.

use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum Error {
    #[error("{}: {action} failed", path.display())]
    Io { path: PathBuf, action: &'static str, source: io::Error },
    #[error("{} is damaged; move it away to begin anew", path.display())]
    Damaged { path: PathBuf, source: serde_json::Error },
}

/// Replaces `path`, readable by the owner alone. After this returns, a crash leaves the new content; before, the old.
pub(crate) fn write<T: Serialize>(path: &Path, document: &T) -> Result<(), Error> {
    let at = |action| move |source| Error::Io { path: path.to_owned(), action, source };
    let bytes = serde_json::to_vec_pretty(document).map_err(|error| at("encoding")(error.into()))?;
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .map_err(at("creating its successor"))?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(at("writing its successor"))?;
    fs::rename(&beside, path).map_err(at("renaming its successor"))?;
    sync_folder(path).map_err(at("syncing its folder"))
}

/// What is at `path`; none if there is nothing.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Io { path: path.to_owned(), action: "reading", source }),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|source| Error::Damaged { path: path.to_owned(), source })
}

/// Makes a creation, rename or removal of `path` survive a crash.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
