//! What the host knows of its nodes, who holds which identity, and which orders are outstanding. Memory only, behind
//! one lock that is never held over a wait; what must survive is in the store.

use super::{
    Settings,
    outgoing::Outgoing,
    view::{Asleep, CapabilityView, Cordon, Glimpse, NodeView, TelemetryView, WorkloadState, WorkloadView},
};
use crate::store::nodes::{DispatchedRow, NodeRow};
use aether_core::{
    catalogue::fact,
    id::{NodeId, WorkloadId},
    order::IdempotencyKey,
    plan::{KnownNode, KnownWorkload, WakeRoute, World},
    subject::{SubjectKind, SubjectRef},
    time::Time,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

/// Workloads that a node once had, remembered because its spool may still hold telemetry of them.
const PAST_WORKLOADS: usize = 1_024;

/// What a node said of itself last; kept over restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) software_version: String,
    pub(crate) capabilities: Vec<CapabilityView>,
    pub(crate) facts: BTreeMap<String, String>,
    pub(crate) workloads: Vec<WorkloadView>,
    /// The newest last.
    pub(crate) past: VecDeque<WorkloadId>,
    /// It announced that it goes to sleep on order, and has neither come back nor taken that back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) asleep: Option<Asleep>,
}

impl Report {
    /// Takes a new list of workloads. Answers whether it says anything new.
    pub(crate) fn set_workloads(&mut self, mut workloads: Vec<WorkloadView>) -> bool {
        workloads.sort_by(|a, b| a.id.cmp(&b.id));
        if workloads == self.workloads {
            return false;
        }
        for gone in std::mem::replace(&mut self.workloads, workloads) {
            let still = self.workloads.iter().any(|workload| workload.id == gone.id);
            if !still && !self.past.contains(&gone.id) {
                self.past.push_back(gone.id);
            }
        }
        while self.past.len() > PAST_WORKLOADS {
            self.past.pop_front();
        }
        true
    }

    fn ever_had(&self, workload: &str) -> bool {
        self.workloads.iter().any(|known| known.id.as_str() == workload)
            || self.past.iter().any(|past| past.as_str() == workload)
    }
}

/// What changes with every frame; read without the lock.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// UTC milliseconds; 0: never.
    last_seen: AtomicI64,
    skew_ms: AtomicI64,
    /// Milliseconds on the registry's own clock.
    beat_ms: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) lost: AtomicU64,
}

/// The session that holds a node's identity.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) session: String,
    pub(crate) since: Time,
    /// `Welcome` was sent: orders may follow.
    pub(crate) ready: bool,
    pub(crate) outgoing: mpsc::Sender<Outgoing>,
    /// Ends the session from outside.
    pub(crate) end: CancellationToken,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) row: NodeRow<Report>,
    pub(crate) live: Option<Live>,
    pub(crate) pulse: Arc<Pulse>,
}

impl Node {
    /// Whether it has a session that was welcomed.
    fn is_live(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.ready)
    }
}

/// An order that was sent and whose end is not in the journal yet.
#[derive(Clone, Debug)]
pub(crate) struct Outstanding {
    pub(crate) row: DispatchedRow,
    /// The agent said how it ended: nothing more is stored or read on its account.
    pub(crate) ended: bool,
    /// Of a checkpoint: the node that the plan restores it on. Chunks are sent on to it as they come.
    pub(crate) ahead: Option<NodeId>,
}

#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) orders: BTreeMap<IdempotencyKey, Outstanding>,
    /// What people set; a node that joins anew finds it again.
    cordons: BTreeMap<NodeId, Cordon>,
    /// Why the host takes nobody in any more.
    pub(crate) draining: Option<String>,
    live: usize,
    started: Instant,
}

/// Why an identity could not be had.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotClaimed {
    InUse {
        for_ms: u64,
        silent_ms: u64,
        free_in_ms: u64,
    },
    Overloaded,
    /// The node was registered anew by another stream meanwhile.
    Changed,
    Draining(String),
}

impl Registry {
    pub(crate) fn new(
        rows: Vec<NodeRow<Report>>,
        dispatched: Vec<DispatchedRow>,
        cordons: Vec<(NodeId, Cordon)>,
    ) -> Self {
        let node = |row: NodeRow<Report>| {
            let pulse = Pulse::default();
            pulse.last_seen.store(row.last_seen_at.map_or(0, |at| at.0), Relaxed);
            (row.id.clone(), Node { row, live: None, pulse: pulse.into() })
        };
        let orders =
            dispatched.into_iter().map(|row| (row.key.clone(), Outstanding { row, ended: false, ahead: None }));
        Self {
            nodes: rows.into_iter().map(node).collect(),
            orders: orders.collect(),
            cordons: cordons.into_iter().collect(),
            draining: None,
            live: 0,
            started: Instant::now(),
        }
    }

    pub(crate) fn set_cordon(&mut self, node: &NodeId, cordon: Option<Cordon>) {
        match cordon {
            Some(cordon) => drop(self.cordons.insert(node.clone(), cordon)),
            None => drop(self.cordons.remove(node)),
        }
    }

    pub(crate) fn live(&self) -> usize {
        self.live
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Takes the identity of `row.id` for a session that is about to begin, with what is to be known of the node;
    /// `before` is what was known when that was worked out.
    /// Answers the node's pulse and whether a dead session was pushed aside.
    pub(crate) fn claim(
        &mut self,
        before: Option<&NodeRow<Report>>,
        row: NodeRow<Report>,
        live: Live,
        settings: &Settings,
    ) -> Result<(Arc<Pulse>, bool), NotClaimed> {
        if let Some(reason) = &self.draining {
            return Err(NotClaimed::Draining(reason.clone()));
        }
        let now_ms = self.elapsed_ms();
        let dead_after_ms = u64::try_from(settings.dead_after().as_millis()).unwrap_or(u64::MAX);
        let mut pushed_aside = false;
        if let Some(node) = self.nodes.get_mut(&row.id)
            && let Some(holder) = &node.live
        {
            let silent_ms = now_ms.saturating_sub(node.pulse.beat_ms.load(Relaxed));
            if silent_ms < dead_after_ms {
                return Err(NotClaimed::InUse {
                    for_ms: live.since.since_ms(holder.since),
                    silent_ms,
                    free_in_ms: dead_after_ms - silent_ms,
                });
            }
            holder.end.cancel();
            node.live = None;
            self.live = self.live.saturating_sub(1);
            pushed_aside = true;
        }
        let identity = |row: &NodeRow<Report>| (row.generation, row.credential_hash.clone());
        if self.nodes.get(&row.id).map(|node| identity(&node.row)) != before.map(identity) {
            return Err(NotClaimed::Changed);
        }
        if self.live >= settings.sessions_maximum {
            return Err(NotClaimed::Overloaded);
        }
        self.live += 1;
        let since = live.since;
        let node = self.nodes.entry(row.id.clone()).or_insert_with(|| Node {
            row: row.clone(),
            live: None,
            pulse: Arc::default(),
        });
        node.row = row;
        node.live = Some(live);
        node.pulse.last_seen.store(since.0, Relaxed);
        node.pulse.beat_ms.store(now_ms, Relaxed);
        Ok((node.pulse.clone(), pushed_aside))
    }

    /// After a session of a node has ended: the order by which it sleeps, if the end shows that it does. A machine that
    /// sleeps is silent. One whose stream ends otherwise does not sleep, whatever it announced; only a host that stops
    /// itself saw nothing.
    pub(crate) fn fell_asleep(&mut self, node: &NodeId, silent: bool, stopping: bool) -> Option<Asleep> {
        let asleep = &mut self.nodes.get_mut(node)?.row.report.asleep;
        if !silent && !stopping {
            *asleep = None;
        }
        asleep.clone().filter(|_| silent)
    }

    /// Gives an identity back if this session still holds it.
    pub(crate) fn release(&mut self, node: &NodeId, session: &str) -> bool {
        let Some(node) = self.nodes.get_mut(node) else { return false };
        let holds = node.live.as_ref().is_some_and(|live| live.session == session);
        if holds {
            node.live = None;
            self.live = self.live.saturating_sub(1);
        }
        holds
    }

    /// Undoes a claim whose registration could not be written.
    pub(crate) fn withdraw(&mut self, node: &NodeId, session: &str, before: Option<NodeRow<Report>>) {
        if self.release(node, session) {
            match before {
                Some(row) => drop(self.nodes.get_mut(node).map(|known| known.row = row)),
                None => drop(self.nodes.remove(node)),
            }
        }
    }

    pub(crate) fn beat(&self, pulse: &Pulse, now: Time, sent_at_ms: i64) {
        pulse.last_seen.store(now.0, Relaxed);
        pulse.beat_ms.store(self.elapsed_ms(), Relaxed);
        if sent_at_ms != 0 {
            pulse.skew_ms.store(sent_at_ms.saturating_sub(now.0), Relaxed);
        }
    }

    /// Where frames to a node go, once it was welcomed.
    pub(crate) fn outgoing(&self, node: &NodeId) -> Option<mpsc::Sender<Outgoing>> {
        let live = self.nodes.get(node)?.live.as_ref()?;
        live.ready.then(|| live.outgoing.clone())
    }

    /// The outstanding order of this key, if it is this node's.
    pub(crate) fn order_of(&self, node: &NodeId, key: &str) -> Option<&Outstanding> {
        self.orders.get(&IdempotencyKey(key.into())).filter(|order| order.row.node == *node)
    }

    /// Whether telemetry about this subject may come from this node: itself, its GPUs (`<node>/<gpu>`), and workloads
    /// that it has, had, or that nobody else has.
    pub(crate) fn speaks_for(&self, node: &NodeId, subject: &SubjectRef) -> bool {
        match subject.kind {
            SubjectKind::Node => subject.id == node.as_str(),
            SubjectKind::Gpu => subject.id.strip_prefix(node.as_str()).is_some_and(|rest| rest.starts_with('/')),
            SubjectKind::Workload => {
                let own = self.nodes.get(node).is_some_and(|known| known.row.report.ever_had(&subject.id));
                own || !self
                    .nodes
                    .values()
                    .any(|other| other.row.report.workloads.iter().any(|workload| workload.id.as_str() == subject.id))
            }
            SubjectKind::Pool | SubjectKind::Participant => false,
        }
    }

    /// What can be targeted now, of the nodes that are `wanted`. Of a workload that several nodes speak of, the newest
    /// generation is the one, and of two equal ones that which runs, on a node that is live.
    pub(crate) fn world(&self, mut wanted: impl FnMut(Glimpse<'_>) -> bool) -> World {
        let mut world = World::default();
        let mut best: BTreeMap<&WorkloadId, ((u64, bool, bool), &NodeId)> = BTreeMap::new();
        for (id, node) in &self.nodes {
            let live = node.is_live();
            for workload in node.row.report.workloads.iter().filter(|w| w.state != WorkloadState::Exited) {
                let rank = (workload.generation, workload.state == WorkloadState::Running, live);
                if best.get(&workload.id).is_none_or(|(known, _)| *known < rank) {
                    best.insert(&workload.id, (rank, id));
                }
            }
            if !wanted(self.glimpse(node)) {
                continue;
            }
            let capability =
                |c: &CapabilityView| (c.name.clone(), if c.available { Ok(()) } else { Err(c.reason.clone()) });
            let capabilities = node.row.report.capabilities.iter().map(capability).collect();
            let facts = &node.row.report.facts;
            let gpus = facts.keys().filter_map(|name| name.strip_prefix(fact::GPU)).map(str::to_owned).collect();
            let person = self.cordons.get(id).map(|cordon| format!("cordoned by {}: {}", cordon.name, cordon.reason));
            let cordoned = person.or_else(|| facts.get(fact::DRAINED).cloned());
            let told = |name: &str| facts.get(name).cloned();
            let wake = told(fact::WAKE_MAC).zip(told(fact::WAKE_NETWORK));
            let known = KnownNode {
                generation: node.row.generation,
                live,
                capabilities,
                gpus,
                cordoned,
                leaves_in_ms: None,
                wake: wake.map(|(mac, network)| WakeRoute { mac, network }),
                asleep: node.row.report.asleep.as_ref().filter(|_| !live).map(Asleep::how),
            };
            world.nodes.insert(id.clone(), known);
        }
        for (id, ((generation, _, _), node)) in best {
            if world.nodes.contains_key(node) {
                let known = KnownWorkload { generation, node: node.clone(), forecast: None };
                world.workloads.insert(id.clone(), known);
            }
        }
        world
    }

    /// Every node, in order of id.
    pub(crate) fn glimpses(&self) -> impl Iterator<Item = Glimpse<'_>> {
        self.nodes.values().map(|node| self.glimpse(node))
    }

    fn glimpse<'a>(&self, node: &'a Node) -> Glimpse<'a> {
        let Node { row, live: _, pulse: _ } = node;
        let live = node.is_live();
        Glimpse {
            id: &row.id,
            live,
            facts: &row.report.facts,
            cordoned: self.cordons.contains_key(&row.id),
            asleep: row.report.asleep.is_some() && !live,
        }
    }

    pub(crate) fn view(&self, node: &Node, safe: Option<&aether_recorder::Safe>) -> NodeView {
        let Node { row, live, pulse } = node;
        let Report { software_version, capabilities, facts, workloads, past: _, asleep } = row.report.clone();
        let live = live.as_ref().filter(|live| live.ready);
        let last_seen = pulse.last_seen.load(Relaxed);
        NodeView {
            id: row.id.clone(),
            generation: row.generation,
            live: live.is_some(),
            registered_at: row.registered_at,
            connected_since: live.map(|live| live.since),
            last_seen: (last_seen != 0).then_some(Time(last_seen)),
            clock_skew_ms: live.map(|_| pulse.skew_ms.load(Relaxed)),
            software_version,
            instance: row.instance.clone(),
            capabilities,
            facts,
            workloads,
            cordon: self.cordons.get(&row.id).cloned(),
            asleep: asleep.filter(|_| live.is_none()),
            telemetry: TelemetryView {
                epoch: safe.map(|safe| safe.epoch),
                acknowledged: safe.map(|safe| safe.sequence),
                batches: pulse.batches.load(Relaxed),
                duplicates: pulse.duplicates.load(Relaxed),
                rejected: pulse.rejected.load(Relaxed),
                lost: pulse.lost.load(Relaxed),
            },
        }
    }
}
