//! Files beside a component: models, tables. Read once, when the component is activated, from a folder that nothing
//! outside of can be reached from, and known by content from then on.

use aether_core::{id::Digest, plan::canonical};
use cap_std::{ambient_authority, fs::Dir};
use serde_json::json;
use std::{collections::BTreeMap, io::Read as _, path::Path, sync::Arc};

/// Files of one set, and the bytes of all together.
const FILES_MAXIMUM: usize = 1_000;
const BYTES_MAXIMUM: u64 = 64 << 20;
/// Folders in folders.
const DEPTH_MAXIMUM: usize = 8;

/// Why a folder is not a set of assets.
#[derive(Debug, thiserror::Error)]
pub enum AssetsError {
    #[error("the asset `{name}` cannot be read")]
    Read { name: String, source: std::io::Error },
    #[error("`{name}` is neither a file nor a folder; assets are plain files")]
    Kind { name: String },
    #[error("an asset's name is not UTF-8, or has more than 256 bytes: {0}")]
    Name(String),
    #[error("the assets are more than {FILES_MAXIMUM} files")]
    TooMany,
    #[error("the assets are more than {BYTES_MAXIMUM} bytes together")]
    TooLarge,
    #[error("the assets' folders lie more than {DEPTH_MAXIMUM} deep")]
    TooDeep,
}

impl AssetsError {
    /// Stable, for tests and the API.
    pub fn code(&self) -> &'static str {
        match self {
            AssetsError::Read { .. } => "assets.unreadable",
            AssetsError::Kind { .. } => "assets.kind",
            AssetsError::Name(_) => "assets.name",
            AssetsError::TooMany => "assets.too-many",
            AssetsError::TooLarge => "assets.too-large",
            AssetsError::TooDeep => "assets.too-deep",
        }
    }
}

/// A set of read-only files. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Assets(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// By path below the folder, with `/`.
    files: BTreeMap<String, Arc<[u8]>>,
    /// What is in each folder but the empty root, in order of name.
    folders: BTreeMap<String, Vec<Child>>,
    digest: Option<Digest>,
}

/// A file or folder in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) name: String,
    pub(crate) is_folder: bool,
}

impl Assets {
    /// Files of one set.
    pub const FILES_MAXIMUM: usize = FILES_MAXIMUM;
    /// Bytes of all files of one set together.
    pub const BYTES_MAXIMUM: u64 = BYTES_MAXIMUM;
    /// Folders in folders.
    pub const DEPTH_MAXIMUM: usize = DEPTH_MAXIMUM;

    /// Reads the folder at `path`.
    pub fn open(path: &Path) -> Result<Self, AssetsError> {
        let unreadable = |source| AssetsError::Read { name: path.display().to_string(), source };
        Self::read(&Dir::open_ambient_dir(path, ambient_authority()).map_err(unreadable)?)
    }

    /// Reads all files of `folder` and of the folders in it. Links are followed only within.
    pub fn read(folder: &Dir) -> Result<Self, AssetsError> {
        let (mut files, mut room) = (BTreeMap::new(), BYTES_MAXIMUM);
        gather(folder, "", 0, &mut files, &mut room)?;
        Ok(Self::of(files))
    }

    /// The set of these files. None are no set: its digest is none.
    pub fn of(files: BTreeMap<String, Arc<[u8]>>) -> Self {
        if files.is_empty() {
            return Self::default();
        }
        let listed: Vec<_> = files
            .iter()
            .map(|(name, bytes)| json!({ "name": name, "bytes": bytes.len(), "digest": Digest::of(bytes) }))
            .collect();
        let (folders, digest) = (folders(&files), Some(Digest::of(&canonical(&listed))));
        Self(Arc::new(Inner { files, folders, digest }))
    }

    /// BLAKE3 of the canonical JSON of names, sizes and digests, in order of name; none: there are no files.
    pub fn digest(&self) -> Option<&Digest> {
        self.0.digest.as_ref()
    }

    pub fn get(&self, name: &str) -> Option<&Arc<[u8]>> {
        self.0.files.get(name)
    }

    /// What is in a folder, in order of name; the root is empty. None: it is no folder.
    pub(crate) fn folder(&self, path: &str) -> Option<&[Child]> {
        match self.0.folders.get(path) {
            Some(children) => Some(children),
            None => path.is_empty().then_some(&[]),
        }
    }

    /// In order of name.
    pub fn files(&self) -> impl Iterator<Item = (&str, &Arc<[u8]>)> {
        self.0.files.iter().map(|(name, bytes)| (name.as_str(), bytes))
    }
}

/// The folders that these files make. Of a file and a folder of one name, the file is there.
fn folders(files: &BTreeMap<String, Arc<[u8]>>) -> BTreeMap<String, Vec<Child>> {
    let mut found: BTreeMap<String, BTreeMap<String, bool>> = BTreeMap::new();
    for path in files.keys() {
        let (mut rest, mut is_folder) = (path.as_str(), false);
        loop {
            let (above, name) = rest.rsplit_once('/').unwrap_or(("", rest));
            let children = found.entry(above.to_owned()).or_default();
            let child = children.entry(name.to_owned()).or_insert(is_folder);
            *child &= is_folder;
            if above.is_empty() {
                break;
            }
            (rest, is_folder) = (above, true);
        }
    }
    let listed = |children: BTreeMap<String, bool>| {
        children.into_iter().map(|(name, is_folder)| Child { name, is_folder }).collect()
    };
    found.into_iter().map(|(path, children)| (path, listed(children))).collect()
}

fn gather(
    folder: &Dir,
    prefix: &str,
    depth: usize,
    files: &mut BTreeMap<String, Arc<[u8]>>,
    room: &mut u64,
) -> Result<(), AssetsError> {
    if depth > DEPTH_MAXIMUM {
        return Err(AssetsError::TooDeep);
    }
    let unreadable = |name: &str, source| AssetsError::Read { name: name.to_owned(), source };
    for entry in folder.entries().map_err(|source| unreadable(prefix, source))? {
        let entry = entry.map_err(|source| unreadable(prefix, source))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { return Err(AssetsError::Name(name.to_string_lossy().into_owned())) };
        let path = format!("{prefix}{name}");
        if path.len() > 256 {
            return Err(AssetsError::Name(path));
        }
        let metadata = folder.metadata(name).map_err(|source| unreadable(&path, source))?;
        if metadata.is_dir() {
            let inner = folder.open_dir(name).map_err(|source| unreadable(&path, source))?;
            gather(&inner, &format!("{path}/"), depth + 1, files, room)?;
            continue;
        }
        if !metadata.is_file() {
            return Err(AssetsError::Kind { name: path });
        }
        if files.len() == FILES_MAXIMUM {
            return Err(AssetsError::TooMany);
        }
        let mut bytes = Vec::new();
        let file = folder.open(name).map_err(|source| unreadable(&path, source))?;
        // One byte more than there is room for, so that a file that grows is seen and never read whole.
        file.take(*room + 1).read_to_end(&mut bytes).map_err(|source| unreadable(&path, source))?;
        *room = room.checked_sub(bytes.len() as u64).ok_or(AssetsError::TooLarge)?;
        files.insert(path, bytes.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_listed_by_name() {
        let empty: Arc<[u8]> = Arc::default();
        let names = ["a-b", "a/x/one", "a/two", "c"];
        let assets = Assets::of(names.into_iter().map(|name| (name.to_owned(), Arc::clone(&empty))).collect());
        let listed = |path: &str| -> Option<Vec<(String, bool)>> {
            Some(assets.folder(path)?.iter().map(|child| (child.name.clone(), child.is_folder)).collect())
        };
        let expected = |children: &[(&str, bool)]| -> Option<Vec<(String, bool)>> {
            Some(children.iter().map(|(name, is_folder)| ((*name).to_owned(), *is_folder)).collect())
        };
        assert_eq!(listed(""), expected(&[("a", true), ("a-b", false), ("c", false)]));
        assert_eq!(listed("a"), expected(&[("two", false), ("x", true)]));
        assert_eq!(listed("a/x"), expected(&[("one", false)]));
        assert_eq!((listed("c"), listed("a/")), (None, None));
        assert_eq!(Assets::default().folder(""), Some(&[][..]));
    }
}
