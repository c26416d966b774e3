//! A restore drill: CRIU really restores a snapshot, and nothing of the real world notices.
//!
//! The copy has pid, mount and network namespaces of its own. It is left stopped where the restore ends, so none of its
//! own instructions runs, and is ended as soon as it was seen. Files that it had open for writing are replaced, in its
//! mount namespace alone, by empty ones of the size and mode that they had: CRIU opens those. What CRIU would remove and
//! make anew in the file system (sockets with a path) cannot be hidden so: such a snapshot is refused.
//!
//! So a drill proves that the images are whole and that this CRIU and this kernel rebuild the processes from them. It does
//! not prove that the files are still as they were.

use super::hands::Failure;
use prost::Message;
use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The two magic numbers at the beginning of `files.img` (CRIU's `criu/include/magic.h`).
const MAGIC_BYTES: usize = 8;
/// `O_WRONLY | O_RDWR`.
const WRITES: u32 = 3;
/// Files that one workload may have open for writing.
const FILES_MAXIMUM: usize = 1_024;
const MODE: u32 = 0o7777;

/// CRIU's `images/fdinfo.proto`, as far as it is needed.
#[derive(Clone, PartialEq, Message)]
struct FileEntry {
    #[prost(message, optional, tag = "3")]
    reg: Option<Regular>,
    #[prost(message, optional, tag = "16")]
    usk: Option<UnixSocket>,
}

/// CRIU's `images/regfile.proto`.
#[derive(Clone, PartialEq, Message)]
struct Regular {
    #[prost(uint32, required, tag = "2")]
    flags: u32,
    #[prost(string, required, tag = "5")]
    name: String,
    #[prost(uint64, optional, tag = "7")]
    size: Option<u64>,
    #[prost(uint32, optional, tag = "9")]
    mode: Option<u32>,
}

/// CRIU's `images/sk-unix.proto`.
#[derive(Clone, PartialEq, Message)]
struct UnixSocket {
    #[prost(bytes = "vec", required, tag = "11")]
    name: Vec<u8>,
}

/// A file that stands in for one of the workload's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandIn {
    pub file: PathBuf,
    pub instead_of: PathBuf,
}

/// Makes the files that stand in for those that the workload had open for writing, beside its images.
pub fn stand_ins(images: &Path) -> Result<Vec<StandIn>, Failure> {
    let unread = |error: io::Error| Failure::new("snapshot.io", format!("the images cannot be prepared: {error}"));
    let entries = read(&fs::read(images.join("files.img")).map_err(unread)?).ok_or_else(|| {
        Failure::new("snapshot.corrupt", "the list of open files is not one that this agent can read")
    })?;
    if let Some(socket) = entries.iter().filter_map(|entry| entry.usk.as_ref()).find(|socket| has_path(&socket.name)) {
        let name = String::from_utf8_lossy(&socket.name).trim_end_matches('\0').to_owned();
        let message = format!(
            "the workload has a socket at {name}, which a restore makes anew in the file system: drilling it could \
             disturb whoever uses it"
        );
        return Err(Failure::new("drill.socket", message));
    }
    let mut written: Vec<&Regular> = Vec::new();
    for regular in entries.iter().filter_map(|entry| entry.reg.as_ref()).filter(|regular| regular.flags & WRITES != 0) {
        // Devices and what is gone are opened as they are, or fail the restore in CRIU's own words.
        let there = fs::metadata(&regular.name).is_ok_and(|metadata| metadata.is_file());
        if there && !written.iter().any(|other| other.name == regular.name) {
            written.push(regular);
        }
    }
    if written.len() > FILES_MAXIMUM {
        let message =
            format!("the workload had {} files open for writing: {FILES_MAXIMUM} is the limit", written.len());
        return Err(Failure::new("drill.files", message));
    }
    let make = |(number, regular): (usize, &Regular)| {
        let file = images.join(format!("stand-in-{number}"));
        let made = File::create_new(&file)?;
        made.set_len(regular.size.unwrap_or(0))?;
        made.set_permissions(Permissions::from_mode(regular.mode.map_or(0o600, |mode| mode & MODE)))?;
        Ok(StandIn { file, instead_of: PathBuf::from(&regular.name) })
    };
    written.into_iter().enumerate().map(make).collect::<io::Result<_>>().map_err(unread)
}

/// An abstract socket begins with a zero, and is of the network namespace.
fn has_path(name: &[u8]) -> bool {
    name.first().is_some_and(|first| *first != 0)
}

fn read(bytes: &[u8]) -> Option<Vec<FileEntry>> {
    let mut rest = bytes.get(MAGIC_BYTES..)?;
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (size, body) = rest.split_first_chunk::<4>()?;
        let size = usize::try_from(u32::from_le_bytes(*size)).ok()?;
        entries.push(FileEntry::decode(body.get(..size)?).ok()?);
        rest = body.get(size..)?;
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(folder: &Path, entries: &[FileEntry]) {
        let mut bytes = vec![0; MAGIC_BYTES];
        for entry in entries {
            let body = entry.encode_to_vec();
            bytes.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
            bytes.extend(body);
        }
        fs::write(folder.join("files.img"), bytes).unwrap();
    }

    fn regular(name: &Path, flags: u32, size: u64) -> FileEntry {
        let name = name.display().to_string();
        FileEntry { reg: Some(Regular { flags, name, size: Some(size), mode: Some(0o100_640) }), usk: None }
    }

    #[test]
    fn what_was_written_is_replaced_and_a_socket_with_a_path_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (log, read_only) = (folder.path().join("log"), folder.path().join("program"));
        fs::write(&log, "longer than it was").unwrap();
        fs::write(&read_only, "x").unwrap();
        let gone = folder.path().join("gone");
        let socket = |name: &[u8]| FileEntry { reg: None, usk: Some(UnixSocket { name: name.to_vec() }) };
        let device = regular(Path::new("/dev/null"), 2, 0);
        let entries =
            [regular(&log, 0o2001, 7), regular(&log, 1, 7), regular(&read_only, 0, 1), regular(&gone, 1, 3), device];
        images(folder.path(), &[&entries[..], &[socket(b"\0abstract"), socket(b"")]].concat());
        let made = stand_ins(folder.path()).unwrap();
        assert_eq!((made.len(), made[0].instead_of.as_path()), (1, log.as_path()));
        let metadata = fs::metadata(&made[0].file).unwrap();
        assert_eq!((metadata.len(), metadata.permissions().mode() & MODE), (7, 0o640));
        assert_eq!(fs::read_to_string(&log).unwrap(), "longer than it was");

        images(folder.path(), &[socket(b"/run/app.sock\0")]);
        let refused = stand_ins(folder.path()).unwrap_err();
        assert!(refused.code == "drill.socket" && refused.message.contains("/run/app.sock"), "{refused}");
        fs::write(folder.path().join("files.img"), [&[0; MAGIC_BYTES][..], &[9, 0, 0, 0, 1]].concat()).unwrap();
        assert_eq!(stand_ins(folder.path()).unwrap_err().code, "snapshot.corrupt");
    }
}
