//! A set of assets as it travels: a tar archive of plain files, read in memory and within bounds.
//!
//! Nothing is ever unpacked by name into a folder that matters; still, a name that would leave a folder, a link, a
//! device or a second file of one name is a refusal of the whole archive and not a thing to be mended.

use aether_runtime::Assets;
use std::{
    collections::BTreeMap,
    io::Read as _,
    path::{Component, Path},
    sync::Arc,
};

/// The two blocks of zeros with which an archive ends.
const END: usize = 1_024;

#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("this is not a tar archive: {0}")]
    Malformed(String),
    #[error("the archive ends before its end mark: it was cut off on the way")]
    CutOff,
    #[error("the name `{name}` in the archive is not taken: {why}")]
    Name { name: String, why: &'static str },
    #[error("`{name}` in the archive is {kind}; assets are plain files in folders")]
    Kind { name: String, kind: &'static str },
    #[error("the archive holds `{0}` twice, or as a file and as a folder")]
    Twice(String),
    #[error("the archive holds more than {} files", Assets::FILES_MAXIMUM)]
    TooMany,
    #[error("the files of the archive are more than {} bytes together", Assets::BYTES_MAXIMUM)]
    TooLarge,
    #[error("the archive holds no file")]
    Empty,
}

impl Refused {
    /// Stable, for tests, metrics and the API.
    pub fn code(&self) -> &'static str {
        match self {
            Refused::Malformed(_) => "archive.malformed",
            Refused::CutOff => "archive.cut-off",
            Refused::Name { .. } => "archive.name",
            Refused::Kind { .. } => "archive.kind",
            Refused::Twice(_) => "archive.twice",
            Refused::TooMany => "archive.too-many",
            Refused::TooLarge => "archive.too-large",
            Refused::Empty => "archive.empty",
        }
    }
}

/// All files of an archive, by name.
pub fn read(bytes: &[u8]) -> Result<BTreeMap<String, Arc<[u8]>>, Refused> {
    let malformed = |error: std::io::Error| Refused::Malformed(error.to_string());
    let mut files = BTreeMap::new();
    let mut room = Assets::BYTES_MAXIMUM;
    // Folders count as well: an archive of a million empty ones is work, too.
    let mut entries = 0;
    for entry in tar::Archive::new(bytes).entries().map_err(malformed)? {
        let entry = entry.map_err(malformed)?;
        entries += 1;
        if entries > 2 * Assets::FILES_MAXIMUM {
            return Err(Refused::TooMany);
        }
        let raw = entry.path_bytes();
        let shown: String = String::from_utf8_lossy(&raw).chars().filter(|c| !c.is_control()).take(80).collect();
        let kind = entry.header().entry_type();
        let wrong = if kind.is_symlink() || kind.is_hard_link() {
            Some("a link")
        } else if kind.is_character_special() || kind.is_block_special() || kind.is_fifo() {
            Some("a device")
        } else if kind.is_file() || kind.is_dir() {
            None
        } else {
            Some("of a kind that is not taken")
        };
        if let Some(kind) = wrong {
            return Err(Refused::Kind { name: shown, kind });
        }
        let named = named(&raw).map_err(|why| Refused::Name { name: shown, why })?;
        let size = entry.size();
        if kind.is_dir() {
            continue;
        }
        let Some(name) = named else { continue };
        if files.len() == Assets::FILES_MAXIMUM {
            return Err(Refused::TooMany);
        }
        // What the header claims counts before a byte is read for it.
        room = room.checked_sub(size).ok_or(Refused::TooLarge)?;
        let mut content = Vec::new();
        entry.take(size).read_to_end(&mut content).map_err(malformed)?;
        if content.len() as u64 != size {
            return Err(Refused::CutOff);
        }
        if files.insert(name.clone(), Arc::from(content)).is_some() {
            return Err(Refused::Twice(name));
        }
    }
    if entries > 0 && !bytes.get(bytes.len().saturating_sub(END)..).is_some_and(|end| end.iter().all(|byte| *byte == 0))
    {
        return Err(Refused::CutOff);
    }
    for name in files.keys() {
        let folders = name.match_indices('/').filter_map(|(at, _)| name.get(..at));
        if let Some(folder) = folders.into_iter().find(|folder| files.contains_key(*folder)) {
            return Err(Refused::Twice(folder.to_owned()));
        }
    }
    if files.is_empty() { Err(Refused::Empty) } else { Ok(files) }
}

/// A name as assets have it: `a/b.json`. None: the folder itself.
fn named(raw: &[u8]) -> Result<Option<String>, &'static str> {
    let text = std::str::from_utf8(raw).map_err(|_| "it is not UTF-8")?;
    if text.len() > 256 {
        return Err("it is longer than 256 bytes");
    }
    if text.chars().any(|c| c.is_control() || c == '\\') {
        return Err("it has control characters or backslashes");
    }
    let mut parts = Vec::new();
    for part in Path::new(text).components() {
        match part {
            Component::Normal(part) => parts.push(part.to_str().ok_or("it is not UTF-8")?),
            Component::CurDir => {}
            Component::ParentDir => return Err("it leads out of the set by `..`"),
            Component::RootDir | Component::Prefix(_) => return Err("it is absolute"),
        }
    }
    if parts.len() > Assets::DEPTH_MAXIMUM {
        return Err("its folders lie too deep");
    }
    Ok((!parts.is_empty()).then(|| parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tar::{Builder, EntryType, Header};

    fn entry(builder: &mut Builder<Vec<u8>>, kind: EntryType, name: &str, link: Option<&str>, content: &[u8]) {
        let mut header = Header::new_gnu();
        // By hand: the builder itself refuses the names that are wanted here.
        let field = &mut header.as_old_mut().name;
        field[..name.len()].copy_from_slice(name.as_bytes());
        if let Some(link) = link {
            header.set_link_name(link).expect("a link's name");
        }
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, content).expect("appended");
    }

    fn of(entries: &[(EntryType, &str, Option<&str>, &[u8])]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (kind, name, link, content) in entries {
            entry(&mut builder, *kind, name, *link, content);
        }
        builder.into_inner().expect("an archive")
    }

    const FILE: EntryType = EntryType::Regular;

    #[test]
    fn files_in_folders_come_out_as_they_went_in() {
        let bytes = of(&[
            (EntryType::Directory, "./", None, b""),
            (EntryType::Directory, "./trees", None, b""),
            (FILE, "./trees/model.json", None, b"{}"),
            (FILE, "notes.txt", None, b"n"),
        ]);
        let files = read(&bytes).expect("it is a set");
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        assert_eq!(names, ["notes.txt", "trees/model.json"]);
        assert_eq!(&*files["trees/model.json"], b"{}");
    }

    #[test]
    fn what_is_hostile_is_refused_whole() {
        let huge = {
            let mut header = Header::new_gnu();
            header.set_path("bomb").expect("a name");
            header.set_size(1 << 40);
            header.set_cksum();
            let mut bytes = header.as_bytes().to_vec();
            bytes.resize(4_096, 0);
            bytes
        };
        let good = of(&[(FILE, "a", None, &[7; 2_000])]);
        let many: Vec<u8> = {
            let names: Vec<String> = (0..=Assets::FILES_MAXIMUM).map(|number| number.to_string()).collect();
            of(&names.iter().map(|name| (FILE, name.as_str(), None, &b""[..])).collect::<Vec<_>>())
        };
        let deep = "d/".repeat(Assets::DEPTH_MAXIMUM + 1) + "x";
        for (what, bytes, code) in [
            ("text", b"hello".repeat(300), "archive.malformed"),
            ("nothing", Vec::new(), "archive.empty"),
            ("only a folder", of(&[(EntryType::Directory, "a/", None, b"")]), "archive.empty"),
            ("a way out", of(&[(FILE, "../../etc/passwd", None, b"x")]), "archive.name"),
            ("a way out in the middle", of(&[(FILE, "a/../../b", None, b"x")]), "archive.name"),
            ("an absolute name", of(&[(FILE, "/etc/passwd", None, b"x")]), "archive.name"),
            ("a control character", of(&[(FILE, "a\nb", None, b"x")]), "archive.name"),
            ("too deep", of(&[(FILE, &deep, None, b"x")]), "archive.name"),
            ("a link", of(&[(EntryType::Symlink, "a", Some("/etc/passwd"), b"")]), "archive.kind"),
            ("a hard link", of(&[(EntryType::Link, "a", Some("b"), b"")]), "archive.kind"),
            ("a device", of(&[(EntryType::Char, "a", None, b"")]), "archive.kind"),
            ("a pipe", of(&[(EntryType::Fifo, "a", None, b"")]), "archive.kind"),
            ("a sparse file", of(&[(EntryType::GNUSparse, "a", None, b"")]), "archive.malformed"),
            ("a name twice", of(&[(FILE, "a", None, b"1"), (FILE, "./a", None, b"2")]), "archive.twice"),
            ("file and folder", of(&[(FILE, "a", None, b"1"), (FILE, "a/b", None, b"2")]), "archive.twice"),
            ("a claim of a terabyte", huge, "archive.too-large"),
            ("too many", many, "archive.too-many"),
            ("cut within a file", good[..1_500].to_vec(), "archive.cut-off"),
            ("cut before the end mark", good[..512 + 2_048].to_vec(), "archive.cut-off"),
        ] {
            let refused = read(&bytes).expect_err(what);
            assert_eq!(refused.code(), code, "{what}: {refused}");
        }
    }
}
