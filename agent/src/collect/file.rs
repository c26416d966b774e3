//! Files of the kernel that are read again and again: opened once, and read from their beginning into the same memory.

use super::Missing;
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// What is first asked for; the memory grows with the file.
const FIRST_BYTES: usize = 8 << 10;
/// The kernel gives what such a file holds by pages, and no record of one is as long as half of that: what is shorter
/// than this was all.
const SHORT_BYTES: usize = 2 << 10;
/// No such file is larger; one that seems so is not read to its end.
const BYTES_MAXIMUM: usize = 4 << 20;

#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    file: Option<File>,
    bytes: Vec<u8>,
}

impl Kept {
    pub(super) fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), file: None, bytes: Vec::new() }
    }

    /// What it says now.
    pub(super) fn read(&mut self) -> io::Result<&str> {
        match self.fill() {
            Ok(length) => {
                str::from_utf8(&self.bytes[..length]).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
            }
            Err(error) => {
                // What it is of may be gone, and come back: it is opened anew.
                self.file = None;
                Err(error)
            }
        }
    }

    /// As [`Kept::read`], with the file's name in what went wrong.
    pub(super) fn text(&mut self) -> Result<&str, Missing> {
        let path = self.path.display().to_string();
        self.read().map_err(|error| Missing::new(format!("{path}: {error}")))
    }

    pub(super) fn close(&mut self) {
        (self.file, self.bytes) = (None, Vec::new());
    }

    fn fill(&mut self) -> io::Result<usize> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::open(&self.path)?),
        };
        fill(file, &mut self.bytes)
    }
}

/// Reads a file that is read once, into memory that others were read into: without asking how large it is, which such
/// files do not know.
pub(super) fn once<'a>(path: &Path, bytes: &'a mut Vec<u8>) -> io::Result<&'a str> {
    let length = fill(&File::open(path)?, bytes)?;
    str::from_utf8(&bytes[..length]).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Reads a file from its beginning, and says how much that is.
pub(super) fn fill(file: &File, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let mut length = 0;
    loop {
        if bytes.len() - length < SHORT_BYTES {
            let wanted = (bytes.len() * 2).max(FIRST_BYTES);
            if wanted > BYTES_MAXIMUM {
                return Err(io::Error::other("it is larger than any such file"));
            }
            bytes.resize(wanted, 0);
        }
        let read = file.read_at(&mut bytes[length..], length as u64)?;
        length += read;
        if read < SHORT_BYTES {
            return Ok(length);
        }
    }
}

/// The numbers in a text, one after the other; what is none ends them.
pub(super) fn numbers(text: &str) -> impl Iterator<Item = u64> {
    text.split_ascii_whitespace().map_while(|word| word.parse().ok())
}

/// Lines of a name and a number: `/proc/meminfo`, `/proc/vmstat`.
pub(super) fn named(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (name, rest) = line.split_once([':', ' '])?;
        Some((name, rest.split_ascii_whitespace().next()?.parse().ok()?))
    })
}

/// The numbers of such lines, in the order of `names`.
pub(super) fn fields<const N: usize>(text: &str, names: [&str; N]) -> [Option<u64>; N] {
    let mut found = [None; N];
    for (name, value) in named(text) {
        if let Some(place) = names.iter().position(|wanted| *wanted == name) {
            found[place] = Some(value);
        }
    }
    found
}

/// The counters of a file that has, for each group, a line of names and a line of values: `/proc/net/snmp`. Negative
/// ones are of another meaning, and left out.
pub(super) fn counters(text: &str) -> impl Iterator<Item = (&str, &str, f64)> {
    let mut lines = text.lines();
    let groups = std::iter::from_fn(move || Some((lines.next()?, lines.next()?)));
    groups.flat_map(|(names, values)| {
        let group = names.split_once(':').map_or("", |(group, _)| group);
        let both = names.split_ascii_whitespace().zip(values.split_ascii_whitespace()).skip(1);
        both.filter_map(move |(name, value)| Some((group, name, value.parse::<u64>().ok()? as f64)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_each_time_however_it_grows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("counters");
        let mut kept = Kept::at(&path);
        assert_eq!(kept.read().unwrap_err().kind(), io::ErrorKind::NotFound);
        for length in [1, SHORT_BYTES - 1, SHORT_BYTES, FIRST_BYTES, FIRST_BYTES + 1, 200_000, 3] {
            let text = "x".repeat(length);
            std::fs::write(&path, &text).unwrap();
            assert_eq!(kept.read().unwrap(), text);
        }
        std::fs::write(&path, [0xff]).unwrap();
        assert_eq!(kept.read().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn files_of_this_kernel_are_as_they_are_when_opened_anew() {
        // Those that change least; by pages, too.
        for path in ["/proc/cpuinfo", "/proc/self/mountinfo", "/proc/kallsyms", "/proc/filesystems"] {
            let Ok(once) = std::fs::read_to_string(path) else { continue };
            let mut kept = Kept::at(path);
            if once.len() < BYTES_MAXIMUM / 2 {
                assert_eq!(kept.read().unwrap().len(), once.len(), "{path}");
                assert_eq!(kept.read().unwrap().len(), once.len(), "{path}, again");
            }
        }
    }

    #[test]
    fn counters_have_a_group_and_a_name() {
        let text = "Ip: Forwarding InReceives\nIp: 1 20\nTcp: MaxConn OutSegs\nTcp: -1 5\nOdd: x\n";
        let told: Vec<_> = counters(text).collect();
        assert_eq!(told, [("Ip", "Forwarding", 1.0), ("Ip", "InReceives", 20.0), ("Tcp", "OutSegs", 5.0)]);
        assert_eq!(fields("a: 5 kB\nb 7\nc: x\n", ["b", "a", "c"]), [Some(7), Some(5), None]);
        assert_eq!(numbers(" 1 2 x 3").collect::<Vec<_>>(), [1, 2]);
    }
}
