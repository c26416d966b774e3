//! Netlink, as far as questions to the kernel go: one request, its answers in place, no allocation for each.
//!
//! A dump of sockets has one message for each of them, of which there may be a hundred thousand. So messages are looked
//! at where they were received.

use rustix::{
    fd::OwnedFd,
    net::{
        AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType,
        netlink::SocketAddrNetlink,
        recv, sendto, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};
use std::{io, time::Duration};

/// `struct nlmsghdr`.
const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
/// The kernel's own messages are at most this large.
const BUFFER_BYTES: usize = 64 << 10;
/// How long the kernel may take for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

pub(super) struct Socket {
    socket: OwnedFd,
    sequence: u32,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl Socket {
    /// None is `NETLINK_ROUTE`.
    pub(super) fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, protocol)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_WITHIN))?;
        Ok(Self { socket, sequence: 0, request: Vec::new(), buffer: vec![0; BUFFER_BYTES] })
    }

    /// Asks for one thing.
    pub(super) fn get(&mut self, kind: u16, payload: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<()> {
        self.ask(kind, 0, payload, &mut each)
    }

    /// Asks for all there are.
    pub(super) fn dump(&mut self, kind: u16, payload: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<()> {
        self.ask(kind, NLM_F_DUMP, payload, &mut each)
    }

    fn ask(&mut self, kind: u16, flags: u16, payload: &[u8], each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(HEADER + payload.len()).unwrap_or(u32::MAX);
        self.request.clear();
        self.request.extend(length.to_ne_bytes());
        self.request.extend(kind.to_ne_bytes());
        self.request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        self.request.extend(self.sequence.to_ne_bytes());
        self.request.extend(0u32.to_ne_bytes());
        self.request.extend(payload);
        sendto(&self.socket, &self.request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        loop {
            let (received, _) = recv(&self.socket, &mut self.buffer[..], RecvFlags::empty())?;
            let mut rest = &self.buffer[..received];
            while let Some((kind, sequence, payload, behind)) = message(rest) {
                rest = behind;
                // What was left of a question that was given up.
                if sequence != self.sequence {
                    continue;
                }
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        let errno = i32_at(payload, 0).unwrap_or_default();
                        return if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-errno)) };
                    }
                    _ => each(payload),
                }
                if flags & NLM_F_DUMP == 0 {
                    return Ok(());
                }
            }
        }
    }
}

/// The first message: its type, its sequence, what it holds, and what is behind it.
fn message(bytes: &[u8]) -> Option<(u16, u32, &[u8], &[u8])> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let payload = bytes.get(HEADER..length)?;
    let behind = bytes.get(aligned(length)..).unwrap_or_default();
    Some((u16_at(bytes, 4)?, u32_at(bytes, 8)?, payload, behind))
}

/// The attributes (`struct nlattr`) in `bytes`, with their types without flags. What is cut short ends them.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let payload = rest.get(4..length)?;
        let kind = u16_at(rest, 2)? & 0x3fff;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some((kind, payload))
    })
}

/// Appends an attribute.
pub(super) fn put(into: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    into.extend(u16::try_from(4 + payload.len()).unwrap_or(u16::MAX).to_ne_bytes());
    into.extend(kind.to_ne_bytes());
    into.extend(payload);
    into.resize(aligned(into.len()), 0);
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// A text that may end with a zero.
pub(super) fn text(bytes: &[u8]) -> &str {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    std::str::from_utf8(&bytes[..end]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn attributes_come_back_as_they_were_put() {
        let mut bytes = Vec::new();
        put(&mut bytes, 3, b"eth0\0");
        put(&mut bytes, 0x8012, &7u32.to_ne_bytes());
        let all: Vec<_> = attributes(&bytes).collect();
        assert_eq!(all, [(3, &b"eth0\0"[..]), (0x12, &7u32.to_ne_bytes()[..])]);
        assert_eq!(text(all[0].1), "eth0");
        assert_eq!(attributes(&bytes[..bytes.len() - 1]).count(), 1);
    }

    proptest! {
        #[test]
        fn no_bytes_are_read_beyond_their_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut rest = &bytes[..];
            while let Some((_, _, payload, behind)) = message(rest) {
                prop_assert!(payload.len() + behind.len() + HEADER <= rest.len());
                rest = behind;
            }
            let all: usize = attributes(&bytes).map(|(_, payload)| payload.len() + 4).sum();
            prop_assert!(all <= bytes.len());
        }
    }
}
