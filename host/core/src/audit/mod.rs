//! The audit: an append-only chain of what people, programs and the host itself did, refusals included.
//!
//! Each entry's hash covers the hash of the one before. So a changed, removed, repeated or reordered entry shows to
//! anybody who walks the chain, without the host. That the end was cut off shows where a later [`Head`] was noted
//! elsewhere: no chain can tell by itself how long it once was.
//!
//! Deliberately absent: where entries are kept, and what an export looks like on disk.

#[cfg(test)]
mod tests;
mod told;

pub use told::told;

use crate::{
    id::{Digest, PrincipalId},
    incident::Rank,
    time::Time,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thiserror::Error;
use utoipa::ToSchema;

/// The host, where it did something by itself.
pub const ITSELF: &str = "aether";

/// What is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    pub principal: PrincipalId,
    /// None where nobody was signed in.
    pub rank: Option<Rank>,
    /// Such as `plan.approve`, `token.create`, `step.dispatch`, `session.create`.
    pub action: String,
    /// What it was done to.
    pub target: String,
    pub outcome: ActOutcome,
    pub detail: BTreeMap<String, String>,
}

impl Act {
    /// Something that the host did by itself.
    pub fn by_itself(action: &str, target: String, detail: BTreeMap<String, String>) -> Self {
        let principal = PrincipalId::new(ITSELF);
        Self { principal, rank: None, action: action.into(), target, outcome: ActOutcome::Done, detail }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActOutcome {
    Done,
    Refused,
}

impl ActOutcome {
    pub fn name(self) -> &'static str {
        match self {
            ActOutcome::Done => "done",
            ActOutcome::Refused => "refused",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        [ActOutcome::Done, ActOutcome::Refused].into_iter().find(|outcome| outcome.name() == name)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = AuditEntry)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// From 1, without gaps.
    pub number: u64,
    pub at: Time,
    pub principal: PrincipalId,
    pub rank: Option<Rank>,
    pub action: String,
    pub target: String,
    pub outcome: ActOutcome,
    pub detail: BTreeMap<String, String>,
    /// Hash of the entry before; 64 zeros for the first.
    pub previous: Digest,
    /// BLAKE3 of the canonical JSON of all the above.
    pub hash: Digest,
}

impl Entry {
    /// The hash that the entry ought to have.
    pub fn computed_hash(&self) -> Digest {
        let mut unhashed = self.clone();
        unhashed.hash = Digest(String::new());
        let mut bytes = b"aether.audit.v1\n".to_vec();
        bytes.extend(crate::plan::canonical(&unhashed));
        Digest::of(&bytes)
    }
}

/// How far a chain goes. Noted elsewhere (on paper, in a ticket, on another machine) it shows what the chain itself
/// cannot: that its end was cut off, or that all of it was written anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = AuditHead)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Of the last entry; 0 for a chain without any.
    pub number: u64,
    pub hash: Digest,
}

impl Head {
    /// Of a chain without entries.
    pub fn start() -> Self {
        Self { number: 0, hash: Digest("0".repeat(64)) }
    }

    /// The entry that comes next.
    pub fn next(&self, at: Time, act: Act) -> Entry {
        let Act { principal, rank, action, target, outcome, detail } = act;
        let mut entry = Entry {
            number: self.number.saturating_add(1),
            at,
            principal,
            rank,
            action,
            target,
            outcome,
            detail,
            previous: self.hash.clone(),
            hash: Digest(String::new()),
        };
        entry.hash = entry.computed_hash();
        entry
    }

    /// As people note it: `number:hash`.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, hash) = text.trim().split_once(':')?;
        let whole =
            hash.len() == 64 && hash.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit));
        whole.then_some(())?;
        Some(Self { number: number.parse().ok()?, hash: Digest(hash.into()) })
    }
}

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.number, self.hash)
    }
}

/// The first place where a chain is not whole.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("entry {number}: {why}")]
pub struct Broken {
    /// Of the entry that ought to stand there.
    pub number: u64,
    pub why: Why,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Why {
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    #[error("it is missing, or was moved: entry {found} stands in its place")]
    OutOfPlace { found: u64 },
    #[error("its content is not what its hash was made from")]
    Changed,
    #[error("it does not follow the entry before: that one was replaced, or this one was")]
    Unlinked,
    #[error("its hash is not the one that was noted: the chain was written anew")]
    NotAsNoted,
    #[error("it is missing: the chain ends before it, and entry {noted} was noted")]
    CutOff { noted: u64 },
}

/// Walks a chain from its first entry, one at a time, in little memory.
#[derive(Clone, Debug)]
pub struct Walk {
    head: Head,
    noted: Vec<Head>,
}

impl Walk {
    /// `noted`: heads that were noted of this chain, old or new.
    pub fn new(noted: Vec<Head>) -> Self {
        Self { head: Head::start(), noted }
    }

    /// The entry that stands next.
    pub fn take(&mut self, entry: &Entry) -> Result<(), Broken> {
        let number = self.head.number.saturating_add(1);
        let broken = |why| Err(Broken { number, why });
        if entry.number != number {
            return broken(Why::OutOfPlace { found: entry.number });
        }
        if entry.hash != entry.computed_hash() {
            return broken(Why::Changed);
        }
        if entry.previous != self.head.hash {
            return broken(Why::Unlinked);
        }
        if self.noted.iter().any(|noted| noted.number == number && noted.hash != entry.hash) {
            return broken(Why::NotAsNoted);
        }
        self.head = Head { number, hash: entry.hash.clone() };
        Ok(())
    }

    /// What stands next cannot be read.
    pub fn unreadable(&self, why: String) -> Broken {
        Broken { number: self.head.number.saturating_add(1), why: Why::Unreadable(why) }
    }

    /// There are no more.
    pub fn end(self) -> Result<Head, Broken> {
        let number = self.head.number.saturating_add(1);
        match self.noted.iter().map(|noted| noted.number).max() {
            Some(noted) if noted >= number => Err(Broken { number, why: Why::CutOff { noted } }),
            _ => Ok(self.head),
        }
    }
}
