//! The many small images of a snapshot as one file. Each chunk is verified, written and synced by the host by itself, and
//! a dozen of them would take longer than the rest of what is done while a small workload stands still.

use super::{Error, ahead::is_plain, corrupt};
use prost::Message;
use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// The file that has the others. CRIU has none of this name.
pub const NAME: &str = "aether-packed.img";
/// A larger file is one of its own.
const SMALL_BYTES: u64 = 64 << 10;

#[derive(Clone, PartialEq, Message)]
struct Packed {
    #[prost(message, repeated, tag = "1")]
    files: Vec<One>,
}

#[derive(Clone, PartialEq, Message)]
struct One {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "vec", tag = "2")]
    content: Vec<u8>,
}

/// Writes the small ones of `files`, by name and size, into one, which takes their place in the list.
pub fn pack(folder: &Path, files: &mut BTreeMap<String, u64>) -> io::Result<()> {
    let small = files.iter().filter(|(_, bytes)| **bytes <= SMALL_BYTES).map(|(name, _)| name.clone());
    let small: Vec<String> = small.collect();
    let mut packed = Packed::default();
    for name in small {
        let content = fs::read(folder.join(&name))?;
        files.remove(&name);
        packed.files.push(One { name, content });
    }
    let bytes = packed.encode_to_vec();
    fs::write(folder.join(NAME), &bytes)?;
    files.insert(NAME.into(), u64::try_from(bytes.len()).map_err(io::Error::other)?);
    Ok(())
}

/// Writes the files that a verified one has beside it. One that has none of it is of a snapshot without.
pub(super) fn unpack(folder: &Path) -> Result<(), Error> {
    let bytes = match fs::read(folder.join(NAME)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let Ok(packed) = Packed::decode(bytes.as_slice()) else { return corrupt("its packed files cannot be read") };
    for One { name, content } in packed.files {
        if !is_plain(&name) {
            return corrupt("a packed file has no plain name");
        }
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.join(&name));
        match made {
            Ok(mut file) => file.write_all(&content)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return corrupt(format!("{name} is there twice"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(folder: &Path) -> BTreeMap<String, u64> {
        let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
        entries.map(|e| (e.file_name().into_string().unwrap(), e.metadata().unwrap().len())).collect()
    }

    #[test]
    fn small_files_come_back_as_they_were_and_large_ones_are_left() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(from.path().join("core-1.img"), b"core").unwrap();
        fs::write(from.path().join("empty.img"), b"").unwrap();
        fs::write(from.path().join("pages-1.img"), vec![7; 65 << 10]).unwrap();
        let mut files = listed(from.path());
        pack(from.path(), &mut files).unwrap();
        assert_eq!(files.keys().collect::<Vec<_>>(), [NAME, "pages-1.img"]);
        fs::copy(from.path().join(NAME), to.path().join(NAME)).unwrap();
        unpack(to.path()).unwrap();
        assert_eq!(fs::read(to.path().join("core-1.img")).unwrap(), b"core");
        assert_eq!(listed(to.path())["empty.img"], 0);
        // A second time they are there already.
        assert!(matches!(unpack(to.path()), Err(Error::Corrupt(_))));
    }

    #[test]
    fn what_would_leave_the_folder_or_is_torn_is_refused() {
        for name in ["../evil", "..", "", "a/b"] {
            let folder = tempfile::tempdir().unwrap();
            let packed = Packed { files: vec![One { name: name.into(), content: vec![1] }] };
            fs::write(folder.path().join(NAME), packed.encode_to_vec()).unwrap();
            assert!(matches!(unpack(folder.path()), Err(Error::Corrupt(_))), "{name}");
        }
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(NAME), [0xff; 9]).unwrap();
        assert!(matches!(unpack(folder.path()), Err(Error::Corrupt(_))));
        assert!(unpack(&folder.path().join("nowhere")).is_ok());
    }
}
