//! Records as the programs write them into a ring (`agent/bpf/*.bpf.c`): fixed layouts, each with its version, its kind
//! and its length in front.
//!
//! A record of another version or kind, or of a length that is not its own, is counted and left out: an object and the
//! agent that it is in are built together, so that is a fault and not a rule.

/// The only version that there is.
const VERSION: u8 = 1;
const EXIT: u8 = 1;
const OOM: u8 = 2;
/// Of the head, and of each record with it.
const HEAD_BYTES: usize = 16;
const EXIT_BYTES: usize = 64;
const OOM_BYTES: usize = 64;
const COMM_BYTES: usize = 16;

/// What stands in front of each record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) pid: u32,
    /// By CLOCK_MONOTONIC.
    pub(super) at_ns: u64,
}

/// A process that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exit {
    pub(super) head: Head,
    pub(super) cgroup: u64,
    pub(super) started_ns: u64,
    pub(super) parent: u32,
    pub(super) uid: u32,
    pub(super) status: Status,
    pub(super) comm: String,
}

/// How a process ended, as wait(2) tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Code(u8),
    Signal { signal: u8, core: bool },
}

/// A process that was killed because memory ran out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Oom {
    pub(super) head: Head,
    pub(super) cgroup: u64,
    pub(super) started_ns: u64,
    pub(super) total_vm_pages: u64,
    pub(super) uid: u32,
    pub(super) score_adj: i32,
    pub(super) comm: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Exit(Exit),
    Oom(Oom),
}

/// Why a record was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    Short,
    Version(u8),
    Kind(u8),
    Length,
}

/// Reads numbers one after the other. It is asked for no more than was checked to be there; beyond the end all is zero.
struct Words<'a>(&'a [u8]);

impl Words<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let Some((head, rest)) = self.0.split_first_chunk::<N>() else { return [0; N] };
        self.0 = rest;
        *head
    }
    fn u32(&mut self) -> u32 {
        u32::from_ne_bytes(self.take())
    }
    fn u64(&mut self) -> u64 {
        u64::from_ne_bytes(self.take())
    }
    /// A name as the kernel keeps it: up to a zero, of any bytes.
    fn comm(&mut self) -> String {
        let bytes = self.take::<COMM_BYTES>();
        let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(name).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
    }
}

impl Record {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Unreadable> {
        if bytes.len() < HEAD_BYTES {
            return Err(Unreadable::Short);
        }
        let mut words = Words(bytes);
        let [version, kind] = words.take();
        let length = usize::from(u16::from_ne_bytes(words.take()));
        if version != VERSION {
            return Err(Unreadable::Version(version));
        }
        let wanted = match kind {
            EXIT => EXIT_BYTES,
            OOM => OOM_BYTES,
            other => return Err(Unreadable::Kind(other)),
        };
        // A ring rounds up to eight bytes.
        if length != wanted || bytes.len() < wanted {
            return Err(Unreadable::Length);
        }
        let head = Head { pid: words.u32(), at_ns: words.u64() };
        let (cgroup, started_ns) = (words.u64(), words.u64());
        if kind == OOM {
            let (total_vm_pages, uid) = (words.u64(), words.u32());
            let score_adj = i32::from_ne_bytes(words.take());
            let comm = words.comm();
            return Ok(Record::Oom(Oom { head, cgroup, started_ns, total_vm_pages, uid, score_adj, comm }));
        }
        let (parent, uid) = (words.u32(), words.u32());
        let status = Status::of(words.u32());
        words.u32();
        let comm = words.comm();
        Ok(Record::Exit(Exit { head, cgroup, started_ns, parent, uid, status, comm }))
    }
}

impl Status {
    fn of(status: u32) -> Self {
        let [low, code, _, _] = status.to_le_bytes();
        match low & 0x7f {
            0 => Status::Code(code),
            signal => Status::Signal { signal, core: low & 0x80 != 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An exit with the code 7, as the program lays it out.
    fn exit() -> Vec<u8> {
        let mut bytes = vec![VERSION, EXIT];
        bytes.extend(64u16.to_ne_bytes());
        bytes.extend(4_711u32.to_ne_bytes());
        for word in [5_000_000u64, 42, 3_000_000] {
            bytes.extend(word.to_ne_bytes());
        }
        for word in [1u32, 1_000, 7 << 8, 0] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(b"wor\nker\0garbage!");
        bytes
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let Record::Exit(read) = Record::parse(&exit()).unwrap() else { panic!("an exit") };
        let head = Head { pid: 4_711, at_ns: 5_000_000 };
        let (comm, status) = ("wor?ker".into(), Status::Code(7));
        assert_eq!(read, Exit { head, cgroup: 42, started_ns: 3_000_000, parent: 1, uid: 1_000, status, comm });
        assert_eq!(Status::of(0x8b), Status::Signal { signal: 11, core: true });
        assert_eq!(Status::of(9), Status::Signal { signal: 9, core: false });
    }

    #[test]
    fn what_is_not_known_or_not_whole_is_left_out() {
        let with = |at: usize, byte: u8| {
            let mut bytes = exit();
            bytes[at] = byte;
            Record::parse(&bytes)
        };
        assert_eq!(with(0, 2), Err(Unreadable::Version(2)));
        assert_eq!(with(0, 0), Err(Unreadable::Version(0)));
        assert_eq!(with(1, 99), Err(Unreadable::Kind(99)));
        assert_eq!(with(2, 63), Err(Unreadable::Length));
        for length in 0..exit().len() {
            let cut = Record::parse(&exit()[..length]);
            assert_eq!(cut, Err(if length < HEAD_BYTES { Unreadable::Short } else { Unreadable::Length }));
        }
    }
}
