//! Dead letters: what was refused for good is kept before the sender hears that it may drop it, and can be offered again.
//!
//! A replay goes through the checks that a batch of the origin goes through now. It is offered to the recorder as an
//! origin of its own, under a place that the letter keeps: a second replay, or one after a crash, is a duplicate there,
//! so that nothing is doubled.

use super::{Fabric, Inner, counters, telemetry};
use crate::{
    clock,
    store::{
        self,
        dead_letters::{Bounds, DeadLetter, Kept, Refusal},
    },
};
use aether_core::{audit::Act, id::NodeId, telemetry::Batch};
use aether_proto::{telemetry::Decoder, v1::TelemetryBatch};
use aether_recorder::{Appended, Rejected};
use prost::Message as _;
use thiserror::Error;

/// The origin of replayed batches in the recorder.
const ORIGIN: &str = "dead-letters";

/// What a replay came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// Taken, and safe on disk.
    Taken,
    /// It was taken by an earlier replay; nothing was doubled.
    Before,
}

/// Why a replay was not done. The letter stays as it was.
#[derive(Debug, Error)]
pub enum NotReplayed {
    #[error("there is no dead letter {0}")]
    Unknown(u64),
    #[error("the batch was larger than what is kept, so it is not here to be replayed")]
    NotKept,
    #[error("{reason} ({code})")]
    Refused { code: &'static str, reason: String },
    #[error("the recorder has no room just now")]
    Full,
    #[error("the batch was taken, and could not be sealed yet; a second replay doubles nothing")]
    NotSealed(#[source] Box<aether_recorder::Error>),
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Inner {
    fn bounds(&self) -> Bounds {
        let settings = &self.settings;
        Bounds {
            count: settings.dead_letters_maximum,
            bytes: settings.dead_letters_bytes,
            age_ms: settings.dead_letters_age_ms,
            batch_bytes: settings.dead_letter_bytes,
        }
    }

    /// A letter that cannot be written is told and counted; the batch is refused all the same.
    pub(super) async fn keep_dead_letter(&self, refusal: &Refusal) {
        match self.store.keep_dead_letter(refusal, &self.bounds()).await {
            Ok((kept, gone)) => {
                counters::dead_letter(match kept {
                    Kept::Whole => "kept",
                    Kept::Told => "told",
                    Kept::Known => "known",
                });
                counters::dead_letters_evicted(gone);
            }
            Err(error) => {
                counters::dead_letter("failed");
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    node.id = %refusal.origin,
                    epoch = refusal.epoch,
                    sequence = refusal.sequence,
                    "a refused batch could not be kept"
                );
            }
        }
    }

    fn understood(&self, letter: &DeadLetter, encoded: &[u8]) -> Result<Batch, NotReplayed> {
        let refused = |refused: telemetry::Refused| NotReplayed::Refused { code: refused.code, reason: refused.reason };
        let batch = TelemetryBatch::decode(encoded)
            .map_err(|error| NotReplayed::Refused { code: "malformed", reason: error.to_string() })?;
        let batch = telemetry::read(&mut Decoder::default(), &letter.origin, &batch, self.settings.batch_bytes);
        let owned = batch.and_then(|batch| {
            let registry = self.registry();
            telemetry::check(batch, &letter.origin, |subject| registry.speaks_for(&letter.origin, subject))
        });
        owned.map_err(refused)
    }
}

impl Fabric {
    /// What a dead letter says, as far as it can be read now, or why it still cannot be taken.
    pub async fn read_dead_letter(
        &self,
        number: u64,
    ) -> Result<Option<(DeadLetter, Result<Batch, NotReplayed>)>, store::Error> {
        let Some((letter, encoded)) = self.inner.store.dead_letter(number).await? else { return Ok(None) };
        let read = match encoded {
            Some(encoded) => self.inner.understood(&letter, &encoded),
            None => Err(NotReplayed::NotKept),
        };
        Ok(Some((letter, read)))
    }

    /// Offers a dead letter again. Returns once what it holds is safe on disk, and that is in the audit.
    pub async fn replay_dead_letter(&self, number: u64, act: Act) -> Result<Replayed, NotReplayed> {
        let inner = &self.inner;
        let result = self.offer(number).await;
        counters::dead_letter(match &result {
            Ok(Replayed::Taken) => "replayed",
            Ok(Replayed::Before) => "replayed_before",
            Err(_) => "replay_refused",
        });
        if result.is_ok() {
            inner.store.note_replayed(number, clock::now(), act).await?;
        }
        result
    }

    async fn offer(&self, number: u64) -> Result<Replayed, NotReplayed> {
        let inner = &self.inner;
        let (letter, encoded) = inner.store.dead_letter(number).await?.ok_or(NotReplayed::Unknown(number))?;
        let batch = inner.understood(&letter, &encoded.ok_or(NotReplayed::NotKept)?)?;
        let place = inner.store.dead_letter_place(number, clock::now()).await?;
        let (epoch, sequence) = place.ok_or(NotReplayed::Unknown(number))?;
        let batch = Batch { origin: NodeId::new(ORIGIN), epoch, sequence, ..batch };
        let replayed = match inner.recorder.append(batch, clock::now()) {
            Ok(Appended::New) => Replayed::Taken,
            Ok(Appended::Duplicate) => Replayed::Before,
            Err(Rejected::Full { .. }) => return Err(NotReplayed::Full),
            Err(Rejected::Malformed { code, text }) => {
                // The recorder counts the place as settled: the next attempt needs another.
                inner.store.give_up_place(number).await?;
                return Err(NotReplayed::Refused { code, reason: text });
            }
        };
        // Replays are few: each is sealed at once, so that the letter can go.
        inner.recorder.seal(clock::now()).await.map_err(|error| NotReplayed::NotSealed(Box::new(error)))?;
        Ok(replayed)
    }
}
