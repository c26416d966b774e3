//! Nodes that sleep on order. An agent that sleeps can say nothing, so the host judges: a node that announced its sleep
//! and fell silent since has been put to sleep. For as long as that stands it is told each tick as a metric, by which a
//! plan is verified, and its silence is no trouble.

use super::{Control, locked};
use crate::{
    clock,
    fabric::{Asleep, Glimpse},
};
use aether_core::{
    id::NodeId,
    incident::{Event, Reservation},
    metric,
    order::{Outcome, OutcomeStatus},
    subject::SubjectRef,
    telemetry::{Batch, Sample, SeriesKey, SeriesSamples},
    time::Time,
    value::Value,
};
use aether_recorder::{Recorder, Rejected};
use std::{collections::BTreeMap, sync::Mutex};

/// The origin of these samples in the recorder.
const ORIGIN: &str = "control";

/// Numbers the batches. The epoch is the start of this process: a batch is never taken for an earlier one.
pub(super) struct Teller {
    epoch: u64,
    sequence: Mutex<u64>,
}

impl Teller {
    pub(super) fn new(now: Time) -> Self {
        Self { epoch: u64::try_from(now.0).unwrap_or_default(), sequence: Mutex::new(0) }
    }

    fn tell(&self, recorder: &Recorder, sleepers: &[NodeId], now: Time) -> Result<(), Rejected> {
        let series = |node: &NodeId| SeriesSamples {
            key: SeriesKey {
                subject: SubjectRef::node(node.as_str()),
                metric: metric::NODE_ASLEEP.into(),
                unit: "1".into(),
                attributes: BTreeMap::new(),
            }
            .into(),
            samples: [Sample { at: now, value: 1.0 }].into(),
        };
        let mut sequence = locked(&self.sequence);
        let batch = Batch {
            origin: NodeId::new(ORIGIN),
            epoch: self.epoch,
            sequence: *sequence + 1,
            series: sleepers.iter().map(series).collect(),
            events: vec![],
        };
        let appended = recorder.append(batch, now);
        // The recorder counts the sequence of a malformed batch as settled.
        if matches!(appended, Ok(_) | Err(Rejected::Malformed { .. })) {
            *sequence += 1;
        }
        appended.map(|_| ())
    }
}

impl Control {
    pub(super) fn tell_sleepers(&self) {
        let asleep = |nodes: &mut dyn Iterator<Item = Glimpse<'_>>| {
            nodes.filter(|node| node.asleep).map(|node| node.id.clone()).collect()
        };
        let sleepers: Vec<NodeId> = self.0.fabric.survey(asleep);
        if !sleepers.is_empty()
            && let Err(rejected) = self.0.teller.tell(&self.0.recorder, &sleepers, clock::now())
        {
            tracing::warn!(?rejected, "that nodes sleep could not be recorded; it is told with the next tick");
        }
    }

    /// A node that announced its sleep is silent: the order that put it to sleep has been carried out.
    pub(super) async fn fell_asleep(&self, node: &NodeId, asleep: &Asleep) {
        tracing::info!(%node, plan.hash = asleep.plan.short(), state = asleep.state, "the node sleeps, as it was ordered to");
        let event = Event::Finished { key: asleep.key.clone(), outcome: judged(asleep, clock::now()) };
        if self.feed_key(&asleep.key, event).await {
            self.0.fabric.acknowledge_outcome(node, &asleep.key);
        }
    }

    /// The same of an order that is to be sent again: a host that was restarted did not hear the silence begin.
    pub(super) fn sleeps_by(&self, reservation: &Reservation) -> Option<Event> {
        let asleep = self.0.fabric.node(&reservation.node)?.asleep?;
        let same = asleep.key == reservation.key;
        same.then(|| Event::Finished { key: asleep.key.clone(), outcome: judged(&asleep, clock::now()) })
    }
}

fn judged(asleep: &Asleep, now: Time) -> Outcome {
    let mut evidence = BTreeMap::from([
        ("judged-by".to_owned(), Value::Text("host".into())),
        ("state".to_owned(), Value::Text(asleep.state.clone())),
        ("silent".to_owned(), Value::Duration(now.since_ms(asleep.since))),
    ]);
    if let Some(at) = asleep.wakes_at {
        evidence.insert("wakes-in".into(), Value::Duration(at.since_ms(now)));
    }
    Outcome {
        status: OutcomeStatus::Succeeded,
        code: "sleep.silent".into(),
        message: "the node announced its sleep and has been silent since: as far as can be seen from here it sleeps"
            .into(),
        evidence,
        outputs: BTreeMap::new(),
        simulated: false,
        started_at: asleep.since,
        ended_at: now,
    }
}
