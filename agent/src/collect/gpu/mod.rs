//! GPUs, through NVML, MIG instances too: how busy, hot and full they are, what holds them back, what fails, who is on
//! them, and whether they still answer.
//!
//! On a thread of its own, since a driver may hang. NVML is opened once and held, since opening it takes up to seconds,
//! and let go when a reset wants it ([`crate::act::control::gpu::hold`]): while it is away nothing is told. What a GPU or
//! its driver does not support is left out.

mod card;

use super::{
    PATIENCE,
    apart::{Apart, Ask, Desk},
    names::Names,
    source::{Missing, Sink},
};
use crate::{
    act::control::gpu::{Gpu, Gpus},
    drill::Stage,
};
use aether_core::{
    drill::{ATTRIBUTE, Kind},
    id::NodeId,
    metric,
    time::Time,
};
use card::{Card, Look};
use nvml_wrapper::{Nvml, bitmasks::event::EventTypes, enums::event::XidError, error::NvmlError, event::EventSet};
use std::collections::BTreeMap;
use tracing::info;

pub(super) const NAME: &str = "gpu";

/// Between two looks at what changes slowly, or takes longer to ask: errors, links, processes, MIG instances.
const DEEP_EVERY_MS: u64 = 10_000;
/// While a GPU is lost, NVML is opened anew this often: one that came back is known to a new client only.
const REOPEN_EVERY_MS: u64 = 30_000;
/// Events taken from the driver at one look; the others wait for the next.
const EVENTS_MAXIMUM: usize = 64;
/// GPUs that are looked at.
const GPUS_MAXIMUM: usize = 64;
/// Names of programs on GPUs.
const NAMES_MAXIMUM: usize = 32;

/// Begins to look at the GPUs that were found.
pub(super) fn begin(node: &NodeId, gpus: Gpus, stage: Stage) -> Apart {
    let hold = gpus.hold().clone();
    let source = Source {
        gpus,
        stage,
        xids: BTreeMap::new(),
        names: Names::at_most(NAMES_MAXIMUM),
        throttles: BTreeMap::new(),
        told: false,
    };
    let wake = |asks: std::sync::mpsc::Sender<Ask>| {
        hold.set_wake(move || {
            // A collector that is gone holds nothing.
            let _ = asks.send(Ask::LetGo);
        });
    };
    Apart::serve(NAME, node, PATIENCE, wake, move |desk| source.serve(&desk))
}

struct Source {
    gpus: Gpus,
    stage: Stage,
    /// Xid errors since the agent's start, by GPU.
    xids: BTreeMap<String, u64>,
    names: Names,
    /// The reasons for which each GPU was seen to be throttled.
    throttles: BTreeMap<String, u64>,
    /// That there are no events was told.
    told: bool,
}

/// Why NVML is closed.
#[derive(PartialEq, Eq)]
enum Closed {
    /// The collector is gone.
    End,
    /// Wanted away, switched off, or to be opened anew.
    Pause,
}

impl Source {
    fn serve(mut self, desk: &Desk) {
        while let Some(ask) = desk.next() {
            let Ask::Sample(at) = ask else { continue };
            let found = match &self.gpus.found {
                Ok(found) => found.iter().take(GPUS_MAXIMUM).cloned().collect::<Vec<_>>(),
                Err(absent) => {
                    let why = Missing::new(format!("{}; {}", absent.reason, absent.advice));
                    desk.answer(at, |_| Err(why));
                    continue;
                }
            };
            // Closed, in this order: what is open, and then the word that it is.
            let Some(_held) = self.gpus.hold().take() else {
                // A reset is under way: what would be said of its GPU is of neither before nor after.
                desk.answer(at, |_| Ok(()));
                continue;
            };
            let closed = match self.gpus.open() {
                Ok(nvml) => self.watch(&nvml, &found, desk, at),
                Err(error) => {
                    desk.answer(at, |_| Err(Missing::new(format!("NVML cannot be opened: {error}"))));
                    Closed::Pause
                }
            };
            if closed == Closed::End {
                return;
            }
        }
    }

    /// Looks at the GPUs whenever it is asked to, until NVML is to be closed.
    fn watch(&mut self, nvml: &Nvml, found: &[Gpu], desk: &Desk, first: Time) -> Closed {
        let mut cards: Vec<Card<'_>> = found.iter().map(|gpu| Card::of(&gpu.uuid)).collect();
        for card in &mut cards {
            card.find(nvml);
        }
        let events = self.events(nvml, &cards);
        let (mut at, mut deep, mut lost) = (first, None::<Time>, None::<Time>);
        loop {
            let is_deep = deep.is_none_or(|deep| at < deep || at.since_ms(deep) >= DEEP_EVERY_MS);
            if is_deep {
                deep = Some(at);
            }
            let mut any_lost = false;
            desk.answer(at, |sink| {
                for card in &mut cards {
                    // Between two GPUs: one that answers slowly does not keep a reset waiting for all.
                    if !self.gpus.hold().is_wanted_away() {
                        any_lost |= self.look(nvml, card, is_deep, sink);
                    }
                }
                self.happened(events.as_ref(), &cards, sink);
                Ok(())
            });
            lost = if any_lost { lost.or(Some(at)) } else { None };
            if lost.is_some_and(|lost| at.since_ms(lost) >= REOPEN_EVERY_MS) {
                return Closed::Pause;
            }
            at = loop {
                if self.gpus.hold().is_wanted_away() {
                    return Closed::Pause;
                }
                match desk.next() {
                    None => return Closed::End,
                    Some(Ask::Sample(at)) => break at,
                    Some(Ask::Rest) => return Closed::Pause,
                    Some(Ask::LetGo | Ask::End) => {}
                }
            };
            if self.gpus.hold().is_wanted_away() {
                desk.answer(at, |_| Ok(()));
                return Closed::Pause;
            }
        }
    }

    /// Tells of one GPU; true if it is lost.
    fn look<'n>(&mut self, nvml: &'n Nvml, card: &mut Card<'n>, deep: bool, sink: &mut Sink<'_>) -> bool {
        card.find(nvml);
        let lost = match &card.device {
            None => true,
            Some(device) => {
                let mut look = Look { uuid: &card.uuid, sink: &mut *sink, lost: false };
                look.quick(device, self.throttles.entry(card.uuid.clone()).or_default());
                if deep && !look.lost {
                    look.deep(device, &mut self.names);
                }
                let xids = self.xids.get(&card.uuid).copied().unwrap_or_default();
                look.tell(metric::HW_ERRORS, "{error}", &[("error.type", "xid")], Some(xids as f64));
                look.lost
            }
        };
        let mut attributes = vec![("gpu", card.uuid.as_str())];
        if self.stage.gpu() {
            attributes.push((ATTRIBUTE, Kind::GpuLost.name()));
        }
        sink.node(metric::GPU_AVAILABLE, "1", &attributes, if lost { 0.0 } else { 1.0 });
        lost
    }

    /// Has the driver queue Xid errors of all GPUs.
    fn events<'n>(&mut self, nvml: &'n Nvml, cards: &[Card<'n>]) -> Option<EventSet<'n>> {
        let wanted = EventTypes::CRITICAL_XID_ERROR;
        let able = cards
            .iter()
            .filter_map(|card| card.device.as_ref())
            .filter(|device| device.supported_event_types().is_ok_and(|types| types.contains(wanted)));
        let registered = nvml.create_event_set().map_err(|error| error.to_string()).and_then(|mut set| {
            let mut count = 0;
            for device in able {
                set = device.register_events(wanted, set).map_err(|error| error.to_string())?;
                count += 1;
            }
            if count > 0 { Ok(set) } else { Err(NvmlError::NotSupported.to_string()) }
        });
        match registered {
            Ok(set) => Some(set),
            Err(why) => {
                if !std::mem::replace(&mut self.told, true) {
                    info!(why, "Xid errors cannot be had from NVML here; they are in the kernel's log alone");
                }
                None
            }
        }
    }

    /// Takes what the driver has queued, and waits for nothing.
    fn happened(&mut self, events: Option<&EventSet<'_>>, cards: &[Card<'_>], sink: &mut Sink<'_>) {
        let Some(events) = events else { return };
        for _ in 0..EVENTS_MAXIMUM {
            // Mostly: nothing has happened.
            let Ok(event) = events.wait(0) else { return };
            let Some(xid) = event.event_data else { continue };
            let Ok(uuid) = event.device.uuid() else { continue };
            if !cards.iter().any(|card| card.uuid == uuid) {
                continue;
            }
            *self.xids.entry(uuid.clone()).or_default() += 1;
            let number = match xid {
                XidError::Value(number) => number.to_string(),
                XidError::Unknown => "unknown".into(),
            };
            let subject = sink.gpu(&uuid);
            sink.event(subject, metric::GPU_XID, &[("xid", &number)]);
        }
    }
}
