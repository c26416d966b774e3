//! What this agent was told to do and how it ended: appended and synced before anything is begun, so that a repeat of
//! an order is answered with the recorded result, and a crash in the middle is seen afterwards.
//!
//! A record is its length, a CRC-32 and JSON. A tail that a crash tore is cut off when the journal opens: its record
//! was not synced, so nothing was begun on its word.

use crate::{clock, durable::sync_folder};
use aether_core::{
    order::{IdempotencyKey, Outcome},
    subject::Target,
    time::Time,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tracing::warn;

/// Above this the journal is written anew when it opens, without what is long over.
const COMPACT_BYTES: u64 = 8 << 20;
/// Finished orders that are remembered.
const KEPT_MAXIMUM: usize = 2_000;
/// Refusals that are remembered, by nonce.
const REFUSALS_MAXIMUM: usize = 1_000;
/// No record is larger.
const RECORD_BYTES_MAXIMUM: usize = 4 << 20;

/// An order that was taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    pub key: IdempotencyKey,
    pub verb: String,
    pub target: Target,
    pub fence: u64,
    /// The canonical bytes as they came, so that what can be run again is.
    pub plan: String,
    pub order: String,
    pub at: Time,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
enum Record {
    /// The first of a journal that was written anew: where its positions go on.
    Base {
        position: u64,
        fences: BTreeMap<String, u64>,
    },
    Accepted(Box<Accepted>),
    Phase {
        key: IdempotencyKey,
        phase: String,
        at: Time,
    },
    /// What a step found before it changed a setting.
    Former {
        key: IdempotencyKey,
        former: Box<Former>,
    },
    Refused {
        key: IdempotencyKey,
        nonce: String,
        code: String,
        reason: String,
    },
    Outcome {
        key: IdempotencyKey,
        outcome: Box<Outcome>,
    },
    Acknowledged {
        key: IdempotencyKey,
    },
}

/// Settings as a step found them, and what it makes them: what an undoing puts back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    pub former: BTreeMap<String, String>,
    pub wanted: BTreeMap<String, String>,
}

/// What is known of one order.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    pub accepted: Accepted,
    /// The last phase that was begun.
    pub phase: Option<String>,
    pub former: Option<Former>,
    pub outcome: Option<Outcome>,
    /// The host has the outcome.
    pub acknowledged: bool,
    /// Of its last record.
    pub position: u64,
}

impl Record {
    /// What of an order it tells.
    fn step(&self) -> &str {
        match self {
            Record::Base { .. } => "base",
            Record::Accepted(_) => "accepted",
            Record::Phase { phase, .. } => phase,
            Record::Former { .. } => "former",
            Record::Refused { .. } => "refused",
            Record::Outcome { .. } => "outcome",
            Record::Acknowledged { .. } => "acknowledged",
        }
    }
}

/// Is told of each record before it is written, and once it is: where a simulation lets an agent die.
pub trait Witness: Send + Sync {
    fn at(&self, step: &str, written: bool);
}

struct Inner {
    witness: Option<Arc<dyn Witness>>,
    path: PathBuf,
    file: File,
    /// Bytes of whole records.
    length: u64,
    position: u64,
    orders: BTreeMap<IdempotencyKey, Known>,
    fences: BTreeMap<String, u64>,
    /// Key, nonce, code, reason. An empty nonce stands for each dispatch of that key.
    refusals: VecDeque<(IdempotencyKey, String, String, String)>,
}

pub struct Journal {
    inner: Mutex<Inner>,
}

impl Journal {
    pub fn open(folder: &Path) -> io::Result<Self> {
        Self::open_before(folder, None)
    }

    /// The same before a witness.
    pub fn open_before(folder: &Path, witness: Option<Arc<dyn Witness>>) -> io::Result<Self> {
        let path = folder.join("journal");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        sync_folder(&path)?;
        let mut inner = Inner {
            witness,
            path,
            file,
            length: 0,
            position: 0,
            orders: BTreeMap::new(),
            fences: BTreeMap::new(),
            refusals: VecDeque::new(),
        };
        let mut rest = bytes.as_slice();
        while let Some((record, length)) = decode(rest) {
            inner.take_in(record);
            inner.length += length as u64;
            rest = &rest[length..];
        }
        if !rest.is_empty() {
            warn!(
                cut_bytes = rest.len(),
                "the tail of the journal was torn; nothing was begun on its word, it is cut off"
            );
            inner.file.set_len(inner.length)?;
            inner.file.sync_all()?;
        }
        if inner.length > COMPACT_BYTES {
            inner.compact()?;
        }
        Ok(Self { inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The order is taken; durable when this returns. Gives its position.
    pub fn accept(&self, accepted: Accepted) -> io::Result<u64> {
        self.lock().append(Record::Accepted(Box::new(accepted)))
    }

    pub fn phase(&self, key: &IdempotencyKey, phase: &str) -> io::Result<u64> {
        self.lock().append(Record::Phase { key: key.clone(), phase: phase.into(), at: clock::now() })
    }

    /// What a step found, before it changes any of it. Durable when this returns.
    pub fn former(&self, key: &IdempotencyKey, former: Former) -> io::Result<u64> {
        self.lock().append(Record::Former { key: key.clone(), former: Box::new(former) })
    }

    pub fn refuse(&self, key: &IdempotencyKey, nonce: &str, code: &str, reason: &str) -> io::Result<u64> {
        let (code, reason) = (code.to_string(), reason.to_string());
        self.lock().append(Record::Refused { key: key.clone(), nonce: nonce.into(), code, reason })
    }

    /// Refuses each dispatch of a key that is still to come.
    pub fn refuse_all(&self, key: &IdempotencyKey, code: &str, reason: &str) -> io::Result<u64> {
        self.refuse(key, "", code, reason)
    }

    pub fn outcome(&self, key: &IdempotencyKey, outcome: Outcome) -> io::Result<u64> {
        self.lock().append(Record::Outcome { key: key.clone(), outcome: Box::new(outcome) })
    }

    pub fn acknowledged(&self, key: &IdempotencyKey) -> io::Result<()> {
        let mut inner = self.lock();
        match inner.orders.get(key) {
            Some(known) if known.outcome.is_some() && !known.acknowledged => {
                inner.append(Record::Acknowledged { key: key.clone() }).map(|_| ())
            }
            Some(_) | None => Ok(()),
        }
    }

    pub fn get(&self, key: &IdempotencyKey) -> Option<Known> {
        self.lock().orders.get(key).cloned()
    }

    /// The answer that this very dispatch was given, or that all of its key are given, if it was refused.
    pub fn refusal(&self, key: &IdempotencyKey, nonce: &str) -> Option<(String, String)> {
        let inner = self.lock();
        let found = inner.refusals.iter().find(|(k, n, _, _)| k == key && (n == nonce || n.is_empty()));
        found.map(|(_, _, code, reason)| (code.clone(), reason.clone()))
    }

    /// The highest fence that was taken for a target, of whatever generation.
    pub fn fence(&self, target: &Target) -> u64 {
        self.lock().fences.get(&target.subject().to_string()).copied().unwrap_or(0)
    }

    /// Orders that were taken and have no outcome.
    pub fn unfinished(&self) -> Vec<Known> {
        self.lock().orders.values().filter(|known| known.outcome.is_none()).cloned().collect()
    }

    /// Orders whose outcome the host does not have, as far as is known here.
    pub fn untold(&self) -> Vec<Known> {
        let inner = self.lock();
        inner.orders.values().filter(|known| known.outcome.is_some() && !known.acknowledged).cloned().collect()
    }
}

impl Inner {
    fn append(&mut self, record: Record) -> io::Result<u64> {
        let bytes = encode(&record)?;
        self.witness(&record, false);
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Whatever part is there must not stand before the next record.
            let _ = self.file.set_len(self.length);
            return Err(error);
        }
        self.length += bytes.len() as u64;
        self.witness(&record, true);
        self.take_in(record);
        Ok(self.position)
    }

    fn witness(&self, record: &Record, written: bool) {
        if let Some(witness) = &self.witness {
            witness.at(record.step(), written);
        }
    }

    fn take_in(&mut self, record: Record) {
        self.position += 1;
        let position = self.position;
        match record {
            Record::Base { position, fences } => {
                self.position = position;
                self.fences = fences;
            }
            Record::Accepted(accepted) => {
                let fence = self.fences.entry(accepted.target.subject().to_string()).or_default();
                *fence = (*fence).max(accepted.fence);
                let accepted = *accepted;
                let known = Known { accepted, phase: None, former: None, outcome: None, acknowledged: false, position };
                self.orders.insert(known.accepted.key.clone(), known);
            }
            Record::Phase { key, phase, at: _ } => {
                if let Some(known) = self.orders.get_mut(&key) {
                    (known.phase, known.position) = (Some(phase), position);
                }
            }
            Record::Former { key, former } => {
                if let Some(known) = self.orders.get_mut(&key) {
                    (known.former, known.position) = (Some(*former), position);
                }
            }
            Record::Refused { key, nonce, code, reason } => {
                self.refusals.push_back((key, nonce, code, reason));
                while self.refusals.len() > REFUSALS_MAXIMUM {
                    self.refusals.pop_front();
                }
            }
            Record::Outcome { key, outcome } => {
                if let Some(known) = self.orders.get_mut(&key) {
                    (known.outcome, known.position) = (Some(*outcome), position);
                }
            }
            Record::Acknowledged { key } => {
                if let Some(known) = self.orders.get_mut(&key) {
                    known.acknowledged = true;
                }
            }
        }
    }

    /// Writes the journal anew with all that is not over, and the latest of what is.
    fn compact(&mut self) -> io::Result<()> {
        let mut over: Vec<_> = self.orders.values().filter(|known| known.acknowledged).collect();
        over.sort_by_key(|known| known.position);
        let forget = over.len().saturating_sub(KEPT_MAXIMUM);
        let forgotten: Vec<_> = over[..forget].iter().map(|known| known.accepted.key.clone()).collect();
        for key in forgotten {
            self.orders.remove(&key);
        }
        let mut records = vec![Record::Base { position: self.position, fences: self.fences.clone() }];
        for known in self.orders.values() {
            let key = known.accepted.key.clone();
            records.push(Record::Accepted(Box::new(known.accepted.clone())));
            if let Some(phase) = &known.phase {
                records.push(Record::Phase { key: key.clone(), phase: phase.clone(), at: known.accepted.at });
            }
            if let Some(former) = &known.former {
                records.push(Record::Former { key: key.clone(), former: Box::new(former.clone()) });
            }
            if let Some(outcome) = &known.outcome {
                records.push(Record::Outcome { key: key.clone(), outcome: Box::new(outcome.clone()) });
            }
            if known.acknowledged {
                records.push(Record::Acknowledged { key });
            }
        }
        for (key, nonce, code, reason) in self.refusals.iter().cloned() {
            records.push(Record::Refused { key, nonce, code, reason });
        }
        let beside = self.path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        let mut length = 0;
        for record in &records {
            let bytes = encode(record)?;
            file.write_all(&bytes)?;
            length += bytes.len() as u64;
        }
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        sync_folder(&self.path)?;
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        self.length = length;
        Ok(())
    }
}

fn encode(record: &Record) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(record)?;
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= RECORD_BYTES_MAXIMUM);
    let length = length.ok_or_else(|| io::Error::other("a record of the journal would be too large"))?;
    let mut bytes = Vec::with_capacity(8 + body.len());
    bytes.extend(length.to_le_bytes());
    bytes.extend(crc32fast::hash(&body).to_le_bytes());
    bytes.extend(body);
    Ok(bytes)
}

/// The record at the beginning of `bytes` and its length there, if a whole one is there.
fn decode(bytes: &[u8]) -> Option<(Record, usize)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= RECORD_BYTES_MAXIMUM)?;
    let body = rest.get(..length)?;
    if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
        return None;
    }
    Some((serde_json::from_slice(body).ok()?, 8 + length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aether_core::{order::OutcomeStatus, subject::SubjectKind};
    use proptest::prelude::*;

    fn accepted(name: &str, fence: u64) -> Accepted {
        Accepted {
            key: IdempotencyKey(name.into()),
            verb: "process.checkpoint".into(),
            target: Target { kind: SubjectKind::Workload, id: "w".into(), generation: 1 },
            fence,
            plan: "{}".into(),
            order: "{}".into(),
            at: Time(1),
        }
    }

    fn outcome() -> Outcome {
        Outcome {
            status: OutcomeStatus::Succeeded,
            code: "ok".into(),
            message: "done".into(),
            evidence: BTreeMap::new(),
            outputs: BTreeMap::from([("manifest".into(), "abc".into())]),
            simulated: false,
            started_at: Time(1),
            ended_at: Time(2),
        }
    }

    #[test]
    fn what_was_written_is_known_after_a_kill() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        let (a, b) = (accepted("a", 7), accepted("b", 5));
        journal.accept(a.clone()).unwrap();
        journal.outcome(&a.key, outcome()).unwrap();
        journal.accept(b.clone()).unwrap();
        let position = journal.phase(&b.key, "dumping").unwrap();
        journal.refuse(&a.key, "n1", "order.expired", "late").unwrap();
        std::mem::forget(journal);

        let journal = Journal::open(folder.path()).unwrap();
        assert_eq!(journal.get(&a.key).unwrap().outcome, Some(outcome()));
        assert_eq!(journal.fence(&a.target), 7);
        let unfinished = journal.unfinished();
        assert_eq!(unfinished.len(), 1);
        assert_eq!((unfinished[0].phase.as_deref(), unfinished[0].position), (Some("dumping"), position));
        assert_eq!(journal.refusal(&a.key, "n1"), Some(("order.expired".into(), "late".into())));
        assert_eq!(journal.refusal(&a.key, "n2"), None);
        let c = accepted("c", 3);
        journal.refuse_all(&c.key, "order.cancelled", "enough").unwrap();
        assert_eq!(journal.refusal(&c.key, "n3"), Some(("order.cancelled".into(), "enough".into())));
        assert_eq!(journal.untold().len(), 1);
        journal.acknowledged(&a.key).unwrap();
        drop(journal);
        assert!(Journal::open(folder.path()).unwrap().untold().is_empty());
    }

    #[test]
    fn compaction_keeps_fences_positions_and_what_is_not_over() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        for number in 0..3 {
            let order = accepted(&format!("k{number}"), 10 + number);
            journal.accept(order.clone()).unwrap();
            journal.outcome(&order.key, outcome()).unwrap();
        }
        journal.accept(accepted("open", 2)).unwrap();
        let before = journal.lock().position;
        journal.lock().compact().unwrap();
        journal.accept(accepted("after", 1)).unwrap();
        drop(journal);
        let journal = Journal::open(folder.path()).unwrap();
        assert_eq!(journal.unfinished().len(), 2);
        assert_eq!(journal.untold().len(), 3);
        assert_eq!(journal.fence(&accepted("x", 0).target), 12);
        assert!(journal.lock().position > before);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// Whatever a crash leaves of the tail: all whole records before it are there, and it can be written on.
        #[test]
        fn any_torn_tail_is_survived(count in 1usize..6, cut in 0usize..400) {
            let folder = tempfile::tempdir().unwrap();
            let journal = Journal::open(folder.path()).unwrap();
            for number in 0..count {
                journal.accept(accepted(&format!("k{number}"), 1)).unwrap();
            }
            drop(journal);
            let path = folder.path().join("journal");
            let mut bytes = fs::read(&path).unwrap();
            let each = bytes.len() / count;
            bytes.truncate(bytes.len().saturating_sub(cut));
            fs::write(&path, &bytes).unwrap();
            let journal = Journal::open(folder.path()).unwrap();
            prop_assert_eq!(journal.unfinished().len(), bytes.len() / each);
            journal.accept(accepted("more", 1)).unwrap();
            drop(journal);
            let journal = Journal::open(folder.path()).unwrap();
            prop_assert!(journal.get(&IdempotencyKey("more".into())).is_some());
        }
    }
}
