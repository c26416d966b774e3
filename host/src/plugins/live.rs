//! One generation of a slot as it is asked: the entries with their components, and how each does at its stage.

use super::metric;
use crate::store::slots::Made;
use aether_core::{
    decision::{Envelope, FaultKind},
    id::{EntryId, SlotId},
    observation::Input,
    slot::{Baseline, Breach, Budget, Entry, Figures, Sample, Stage, Watch},
    time::Time,
};
use aether_runtime::{Prepared, bundle::Failure};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// An entry with its component, ready to be asked.
pub struct Live {
    pub slot: SlotId,
    pub entry: Entry,
    pub prepared: Prepared,
    /// Shared by all generations in which the entry is at this stage.
    watched: Arc<Mutex<Watched>>,
}

struct Watched {
    watch: Watch,
    last_at: Option<Time>,
    last_fault: Option<String>,
    /// Questions that were not asked of it, because too many waited.
    dropped: u64,
    /// The newest evaluations of each kind of failing: what would be looked at first.
    faulted: Option<Box<Envelope>>,
    diverged: Option<Box<Envelope>>,
    /// Its budget is used up, and somebody sees to it.
    told: bool,
}

/// A budget that is used up, with an evaluation that shows it.
pub struct Exhausted {
    pub breach: Breach,
    pub reproducer: Envelope,
}

/// How an entry does at its stage.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    pub figures: Figures,
    pub last_at: Option<Time>,
    pub last_fault: Option<String>,
    pub dropped: u64,
}

impl Live {
    pub(super) fn new(slot: &SlotId, entry: Entry, prepared: Prepared, budget: &Budget) -> Self {
        let watched = Watched {
            watch: Watch::new(budget),
            last_at: None,
            last_fault: None,
            dropped: 0,
            faulted: None,
            diverged: None,
            told: false,
        };
        Self { slot: slot.clone(), entry, prepared, watched: Arc::new(Mutex::new(watched)) }
    }

    /// The same entry as the next generation has it. What was counted stays with its stage.
    pub(super) fn next(&self, entry: Entry, budget: &Budget) -> Self {
        let same_stage = entry.stage == self.entry.stage && entry.since == self.entry.since;
        let mut next = Self::new(&self.slot, entry, self.prepared.clone(), budget);
        if same_stage {
            next.watched = Arc::clone(&self.watched);
        }
        next
    }

    pub fn standing(&self) -> Standing {
        let watched = self.watched();
        Standing {
            figures: watched.watch.figures(),
            last_at: watched.last_at,
            last_fault: watched.last_fault.clone(),
            dropped: watched.dropped,
        }
    }

    pub fn figures(&self) -> Figures {
        self.watched().watch.figures()
    }

    /// A question was not asked of it, because too many waited.
    pub fn drop_one(&self) {
        self.watched().dropped += 1;
        metrics::counter!(metric::SHADOWS_DROPPED, "slot" => self.slot.0.clone(), "name" => self.entry.name.clone())
            .increment(1);
    }

    /// The newest evaluation that failed, in either way.
    pub(super) fn culprit(&self) -> Option<Envelope> {
        let watched = self.watched();
        watched.faulted.as_deref().or(watched.diverged.as_deref()).cloned()
    }

    /// What was told was not seen to: the next evaluation tells again.
    pub(super) fn untell(&self) {
        self.watched().told = false;
    }

    /// Counts an evaluation. Says once that the budget is used up.
    fn count(
        &self,
        envelope: &Envelope,
        diverged: Option<bool>,
        budget: &Budget,
        baseline: Option<Baseline>,
    ) -> Option<Exhausted> {
        let fault = envelope.outcome.as_ref().err();
        self.measure(envelope, fault.map(|fault| fault.kind), diverged);
        let mut watched = self.watched();
        watched.watch.count(Sample {
            fault: fault.map(|fault| fault.kind),
            fuel: envelope.fuel,
            latency_us: envelope.duration_us,
            memory_bytes: envelope.memory_bytes,
            log_lines: u32::try_from(envelope.log.len()).unwrap_or(u32::MAX),
            diverged,
        });
        watched.last_at = Some(envelope.at);
        if let Some(fault) = fault
            && fault.kind != FaultKind::Overloaded
        {
            watched.last_fault = Some(fault.message.clone());
            watched.faulted = Some(Box::new(envelope.clone()));
        }
        if diverged == Some(true) {
            watched.diverged = Some(Box::new(envelope.clone()));
        }
        if watched.told || self.entry.quarantine.is_some() {
            return None;
        }
        let breach = watched.watch.breach(budget, baseline)?;
        watched.told = true;
        let shown = match breach {
            Breach::FaultsInRow { .. } | Breach::Faults { .. } => watched.faulted.as_deref(),
            Breach::Divergence { .. } => watched.diverged.as_deref(),
            Breach::Latency { .. } | Breach::Fuel { .. } => None,
        };
        Some(Exhausted { breach, reproducer: shown.unwrap_or(envelope).clone() })
    }

    fn measure(&self, envelope: &Envelope, fault: Option<FaultKind>, diverged: Option<bool>) {
        let slot = || self.slot.0.clone();
        let component = || self.entry.component.short().to_owned();
        let name = || self.entry.name.clone();
        let stage = self.entry.stage.name();
        metrics::counter!(metric::EVALUATIONS, "slot" => slot(), "component" => component(), "name" => name(), "stage" => stage)
            .increment(1);
        if let Some(kind) = fault {
            let kind = super::label(&kind);
            metrics::counter!(metric::FAULTS, "slot" => slot(), "component" => component(), "name" => name(), "kind" => kind)
                .increment(1);
        }
        if fault != Some(FaultKind::Overloaded) {
            // Exact up to 2^53, far above any fuel limit.
            #[allow(clippy::cast_precision_loss, reason = "a histogram's value")]
            metrics::histogram!(metric::FUEL, "slot" => slot(), "component" => component(), "name" => name())
                .record(envelope.fuel as f64);
            #[allow(clippy::cast_precision_loss, reason = "a histogram's value")]
            metrics::histogram!(metric::DURATION, "slot" => slot(), "component" => component(), "name" => name())
                .record(envelope.duration_us as f64 / 1e6);
        }
        let lines = envelope.log.len() as u64;
        if lines > 0 {
            metrics::counter!(metric::LOG_LINES, "slot" => slot(), "component" => component(), "name" => name())
                .increment(lines);
        }
        let most = envelope.memory_bytes.max(self.watched().watch.memory_bytes_max());
        #[allow(clippy::cast_precision_loss, reason = "a gauge's value")]
        metrics::gauge!(metric::MEMORY, "slot" => slot(), "component" => component(), "name" => name())
            .set(most as f64);
        if let Some(diverged) = diverged {
            let outcome = if diverged { "another" } else { "same" };
            metrics::counter!(metric::COMPARISONS, "slot" => slot(), "component" => component(), "name" => name(), "deed" => outcome)
                .increment(1);
        }
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        // Each of our sections leaves its data whole.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A generation of a slot. Whoever asks holds the one that they began with.
pub struct Generation {
    pub made: Made,
    /// Those of its entries that can be asked, and the ones that would take their places.
    ready: BTreeMap<EntryId, Arc<Live>>,
    /// Those that should answer and cannot be asked.
    failures: Vec<Failure>,
}

/// Who is asked about one subject.
pub struct Asked {
    pub answering: Vec<Arc<Live>>,
    pub shadows: Vec<Arc<Live>>,
}

impl Generation {
    pub(super) fn new(made: Made, ready: BTreeMap<EntryId, Arc<Live>>, failures: Vec<Failure>) -> Self {
        Self { made, ready, failures }
    }

    pub fn slot(&self) -> &aether_core::slot::Slot {
        &self.made.slot
    }

    pub fn number(&self) -> u64 {
        self.made.slot.generation
    }

    pub fn live(&self, entry: &EntryId) -> Option<&Arc<Live>> {
        self.ready.get(entry)
    }

    pub fn cast(&self, key: &str) -> Asked {
        let cast = self.made.slot.cast(key);
        let ready = |entries: Vec<&Entry>| entries.iter().filter_map(|entry| self.live(&entry.id).cloned()).collect();
        Asked { answering: ready(cast.answering), shadows: ready(cast.shadows) }
    }

    /// What the component of an entry declared that it reads.
    pub fn inputs(&self, entry: &EntryId) -> &[Input] {
        self.live(entry).map_or(&[], |live| &live.prepared.description().inputs)
    }

    /// Entries that should answer and cannot be asked.
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// Counts an evaluation of one of its entries. Says once that the entry's budget is used up.
    pub fn count(&self, live: &Live, envelope: &Envelope, diverged: Option<bool>) -> Option<Exhausted> {
        live.count(envelope, diverged, &self.made.slot.budget, self.baseline(live))
    }

    /// What an entry is measured against: the one it is to replace, as long as both are asked; then what was noted.
    pub(super) fn baseline(&self, live: &Live) -> Option<Baseline> {
        if live.entry.stage == Stage::Active {
            return live.entry.baseline();
        }
        let replaced = self.live(live.entry.replaces.as_ref()?)?;
        Some(Baseline::from(&replaced.figures()))
    }
}
