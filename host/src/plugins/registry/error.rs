//! Why the registry did not do what it was asked for.

use super::{archive, oci, signature};
use crate::store;
use aether_core::id::Digest;
use aether_runtime::{AssetsError, LoadError};
use std::io;
use thiserror::Error as ThisError;

#[derive(Debug, ThisError)]
pub enum Error {
    #[error("{0}")]
    Setting(String),
    #[error("the {what} is larger than {limit} bytes (`plugins.{setting}`)")]
    TooLarge { what: &'static str, setting: &'static str, limit: u64 },
    #[error(transparent)]
    Component(#[from] LoadError),
    #[error(transparent)]
    Signature(#[from] signature::Refused),
    #[error(transparent)]
    Assets(#[from] AssetsError),
    #[error(transparent)]
    Archive(#[from] archive::Refused),
    #[error(transparent)]
    Pull(#[from] oci::Error),
    #[error("a name of a set of assets must be 1 to 63 of a-z, 0-9, `-` and `.`, and `{0}` is not")]
    Name(String),
    #[error("{0} uploads are under way already; try again in a moment")]
    Busy(usize),
    #[error("there is no {what} `{digest}`")]
    Unknown { what: &'static str, digest: String },
    #[error("`{digest}` is needed by {}, and was not removed", listed(.by))]
    InUse { digest: Digest, by: Vec<String> },
    #[error("the bytes of {0} were changed on the disk; upload the same file again to mend it")]
    Damaged(Digest),
    #[error(
        "the registry holds {bytes} bytes, and {limit} is the limit (`plugins.bytes_maximum`): remove what is not needed, or raise it"
    )]
    Full { bytes: u64, limit: u64 },
    #[error("the disk under the data folder is full; nothing was kept of the upload")]
    DiskFull,
    #[error("the upload broke off: {0}; nothing was kept of it")]
    BrokeOff(String),
    #[error("the registry's database failed")]
    Store(#[from] store::Error),
    #[error("the registry's object store failed")]
    Objects(#[source] object_store::Error),
    #[error("the registry's folder failed")]
    Folder(#[source] io::Error),
    #[error("the work was not done, because its thread died")]
    Died,
}

impl Error {
    /// Stable, for tests, metrics and the API.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Setting(_) => "registry.setting",
            Error::TooLarge { .. } => "registry.too-large",
            Error::Component(error) => error.code(),
            Error::Signature(refused) => refused.code(),
            Error::Assets(error) => error.code(),
            Error::Archive(refused) => refused.code(),
            Error::Pull(error) => error.code(),
            Error::Name(_) => "assets.set-name",
            Error::Busy(_) => "registry.busy",
            Error::Unknown { .. } => "registry.unknown",
            Error::InUse { .. } => "registry.in-use",
            Error::Damaged(_) => "registry.damaged",
            Error::Full { .. } => "registry.full",
            Error::DiskFull => "registry.disk-full",
            Error::BrokeOff(_) => "registry.broke-off",
            Error::Store(_) | Error::Objects(_) | Error::Folder(_) | Error::Died => "registry.failed",
        }
    }
}

impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Self {
        if is_full(&error) { Error::DiskFull } else { Error::Objects(error) }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        if is_full(&error) { Error::DiskFull } else { Error::Folder(error) }
    }
}

/// Whether somewhere in its causes the disk was full.
fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<io::Error>().is_some_and(|error| {
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
                || error.get_ref().is_some_and(|inner| is_full(inner))
        }) {
            return true;
        }
        next = error.source();
    }
    false
}

fn listed(by: &[String]) -> String {
    by.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_however_deep_it_lies() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        assert!(matches!(Error::from(full()), Error::DiskFull));
        assert!(matches!(Error::from(io::Error::other(full())), Error::DiskFull));
        let wrapped = object_store::Error::Generic { store: "LocalFileSystem", source: Box::new(full()) };
        assert!(matches!(Error::from(wrapped), Error::DiskFull));
        assert!(matches!(Error::from(io::Error::from(io::ErrorKind::NotFound)), Error::Folder(_)));
    }
}
