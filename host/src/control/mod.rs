//! Drives the pure core: watches every live node, opens incidents, commits each event with its artifacts, performs
//! the effects and feeds what comes of them back.
//!
//! ```text
//! tick -> score every live node -> detector -> Opened --+
//! fabric: accepted, finished, refused ------------------+-> step -> commit (SQL) -> effects
//! API: approve, deny, withdraw -------------------------+                            |
//! timers ------------------------------------------------+<-- planner, gates, ledger -+
//! ```
//! Effects are performed only after the event that caused them is committed. What was promised and not confirmed when a
//! host stopped is performed again by the next one ([`Incident::pending`]), after a grace period in which agents come
//! back and nothing is called lost. The driver decides nothing: rules are in `aether-core`, judgement in components.

mod ask;
mod asleep;
mod breakers;
mod deliberate;
pub(crate) mod evidence;
mod incidents;
pub mod lease;
mod observe;
mod requests;
mod risks;

pub use ask::{Asking, Components, Panel, Panels};
pub use incidents::NotTaken;
pub(crate) use observe::node_subject;
pub use requests::{Ask, NotAsked};
pub use risks::SubjectRisk;

use crate::{fabric::Fabric, store::Store};
use aether_core::{
    breaker::{self, Breakers},
    finding::{Detector, Hysteresis},
    guard::{Guard, GuardLimits},
    id::{DecisionId, IncidentId},
    incident::Incident,
    policy::Posture,
};
use aether_recorder::Recorder;
use asleep::Teller;
use incidents::Driven;
use risks::Risks;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How the driver paces itself, and the safety rules that it hands to the core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Between two evaluations of a node. Default 1,000; 100 to 60,000. Shorter costs evaluations, longer costs warning.
    pub tick_ms: u64,
    /// After a start, for so long nothing is remediated: agents are coming back. Default 10,000; at most 600,000.
    pub grace_ms: u64,
    /// An agent must begin an order within this, or refuse it. Default 60,000; 1,000 to 3,600,000. It also bounds how
    /// long an order waits for an agent that is away.
    pub begin_within_ms: u64,
    /// A host that has not renewed its lease for so long counts as gone, and another on the same database takes over.
    /// Default 10,000; 1,000 to 600,000.
    pub lease_ms: u64,
    /// Evaluations at one time. Default 2; 1 to 256. So many nodes are scored at one time, but for one processor that is
    /// left for everything else: a fleet that is not scored each `tick_ms` may want more, where there are processors.
    pub evaluations: u32,
    /// Nodes that routers are asked about for one incident; of a larger fleet, so many are drawn. Default 64; 2 to 1,024.
    pub candidates: u32,
    /// A trouble that comes back so soon after its incident was closed as done goes on with that incident. Default
    /// 600,000 (10 min); 0 to 86,400,000 (a day). 0: it always opens a new one.
    pub relapse_within_ms: u64,
    /// The operators' time zone for gates that know change windows. Default 0.
    pub utc_offset_minutes: i32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tick_ms: 1_000,
            grace_ms: 10_000,
            begin_within_ms: 60_000,
            lease_ms: 10_000,
            evaluations: 2,
            candidates: 64,
            relapse_within_ms: 600_000,
            utc_offset_minutes: 0,
        }
    }
}

/// A setting outside its range.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`control.{field}` is {given}; it must be {least} to {most}")]
pub struct OutOfRange {
    pub field: &'static str,
    pub given: u64,
    pub least: u64,
    pub most: u64,
}

impl Settings {
    pub fn check(&self) -> Result<(), OutOfRange> {
        for (field, given, least, most) in [
            ("tick_ms", self.tick_ms, 100, 60_000),
            ("grace_ms", self.grace_ms, 0, 600_000),
            ("begin_within_ms", self.begin_within_ms, 1_000, 3_600_000),
            ("lease_ms", self.lease_ms, 1_000, 600_000),
            ("evaluations", u64::from(self.evaluations), 1, 256),
            ("candidates", u64::from(self.candidates), 2, 1_024),
            ("relapse_within_ms", self.relapse_within_ms, 0, 86_400_000),
        ] {
            if given < least || given > most {
                return Err(OutOfRange { field, given, least, most });
            }
        }
        Ok(())
    }
}

/// Everything that the driver works with.
pub struct Parts {
    pub settings: Settings,
    pub posture: Posture,
    pub hysteresis: Hysteresis,
    pub guard: GuardLimits,
    pub breakers: breaker::Limits,
    pub store: Store,
    pub recorder: Recorder,
    pub fabric: Fabric,
    /// Who is asked.
    pub panels: Arc<dyn Panels>,
}

/// The driver. Cheap to clone.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    settings: Settings,
    posture: Posture,
    store: Store,
    recorder: Recorder,
    fabric: Fabric,
    panels: Arc<dyn Panels>,
    detector: Mutex<Detector>,
    guard: Mutex<Guard>,
    breakers: Mutex<Breakers>,
    live: RwLock<BTreeMap<IncidentId, Arc<Driven>>>,
    /// Incidents that nobody but the host holds up: what is to be done is being worked out, or judged, or sent.
    pressing: watch::Sender<BTreeSet<IncidentId>>,
    risks: Risks,
    teller: Teller,
    tasks: TaskTracker,
    stop: CancellationToken,
    attempt_window_ms: u64,
    attempts_per_rung: u32,
}

#[derive(Debug, Error)]
pub enum Error {
    #[error(transparent)]
    Setting(#[from] OutOfRange),
    #[error("the open incidents could not be read; nothing was changed")]
    Store(#[from] crate::store::Error),
    #[error("the journal of {0} does not begin with an opening; restore the database from a backup")]
    Journal(IncidentId),
}

impl Control {
    /// Reads the open incidents back and begins to drive. `stop` ends it; `tasks` is waited for by the caller.
    pub async fn start(
        parts: Parts,
        events: crate::fabric::Events,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, Error> {
        let Parts { settings, posture, hysteresis, guard, breakers, store, recorder, fabric, panels } = parts;
        settings.check()?;
        let now = crate::clock::now();
        let mut detector = Detector::new(hysteresis);
        for (shape, first_seen) in store.raised_findings().await? {
            detector.restore(shape, first_seen);
        }
        let window = guard.attempt_window_ms;
        let per_rung = guard.attempts_per_rung;
        let mut guard = Guard::new(guard);
        for attempt in store.attempts(now.minus_ms(window)).await? {
            guard.restore_attempt(&attempt.shape, &attempt.target, attempt.at);
        }
        let mut live = BTreeMap::new();
        let mut acting = BTreeSet::new();
        for (id, journal) in store.open_journals().await? {
            let number = journal.len() as u64;
            let incident = Incident::fold(journal.iter().map(|(at, event)| (*at, event)))
                .ok_or_else(|| Error::Journal(id.clone()))?;
            if incident.is_acting() {
                acting.insert(id.clone());
                for step in incident.plan.iter().flat_map(|plan| &plan.steps) {
                    guard.restore(&id, step.target.subject());
                }
            }
            tracing::info!(incident.id = %id, phase = crate::store::phase_name(&incident.phase), "resuming an incident");
            live.insert(id, Driven::new(incident, number));
        }
        let breakers = breakers::restored(breakers, &store, &fabric, &acting, now).await?;
        let control = Self(Arc::new(Inner {
            settings,
            posture,
            store,
            recorder,
            fabric,
            panels,
            detector: Mutex::new(detector),
            guard: Mutex::new(guard),
            breakers: Mutex::new(breakers),
            live: RwLock::new(live),
            pressing: watch::Sender::default(),
            risks: Risks::default(),
            teller: Teller::new(now),
            tasks: tasks.clone(),
            stop: stop.clone(),
            attempt_window_ms: window,
            attempts_per_rung: per_rung,
        }));
        tasks.spawn(control.clone().take_fabric_events(events));
        tasks.spawn(control.clone().tick_until_stopped());
        Ok(control)
    }

    /// The newest word on every subject that is scored.
    pub fn risks(&self) -> Vec<SubjectRisk> {
        let open = self.open_subjects();
        self.0.risks.all(&open)
    }

    /// A decision that is newer than any the store holds.
    pub fn recent_decision(&self, id: &DecisionId) -> Option<aether_core::decision::Envelope> {
        self.0.risks.decision(id)
    }

    async fn tick_until_stopped(self) {
        let grace = Duration::from_millis(self.0.settings.grace_ms);
        tokio::select! {
            () = self.0.stop.cancelled() => return,
            () = tokio::time::sleep(grace) => {}
        }
        self.resume().await;
        let mut ticks = tokio::time::interval(Duration::from_millis(self.0.settings.tick_ms));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = self.0.stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.perform_again().await;
            self.fire_timers().await;
            self.tell_sleepers();
            self.read_conditions().await;
            self.score_nodes().await;
        }
    }
}

/// The lock, whatever a panicking holder left: each of our sections leaves its data whole.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
