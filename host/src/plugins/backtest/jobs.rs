//! Backtests on a running host: asked for, run one at a time beside the live evaluations, kept with what they found.

use super::{
    BacktestInfo, BacktestRequest, BacktestState, Bounds, Error, Histories, History, Progress, Sides, Test, run,
};
use crate::{
    clock,
    plugins::{Generation, Slots, registry::Registry},
    store::Store,
};
use aether_core::{
    backtest::{Event, Measure, Report, Short, Tolerance},
    decision::{Envelope, Limits, Role},
    finding::Hysteresis,
    id::{Digest, PrincipalId},
    subject::{Subject, SubjectRef},
    time::Time,
};
use aether_recorder::Recorder;
use aether_runtime::{Assets, Component, Prepared};
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Backtests that run or wait; one runs at a time.
const WAITING_MAXIMUM: usize = 8;
/// One thread beside the live evaluations; a week of a node, second by second, is 604,800 evaluations.
const BOUNDS: Bounds = Bounds { threads: 1, evaluations: 2_000_000, time_ms: 1_800_000 };
/// Incidents that one backtest is measured against.
const INCIDENTS_MAXIMUM: u32 = 10_000;
/// Recorded decisions that one backtest asks again.
const DECISIONS_MAXIMUM: u32 = 20_000;
/// An alarm this long before an incident was opened is the same trouble, seen earlier.
const INCIDENT_LEAD_MS: u64 = 600_000;

/// What backtests work with.
pub struct Parts {
    pub store: Store,
    pub recorder: Recorder,
    pub registry: Registry,
    pub slots: Slots,
    pub histories: Histories,
    pub hysteresis: Hysteresis,
    pub tick_ms: u64,
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
}

/// The backtests of this host. Cheap to clone.
#[derive(Clone)]
pub struct Backtests(Arc<Inner>);

struct Inner {
    parts: Parts,
    one: Semaphore,
    running: Mutex<BTreeMap<String, Arc<Progress>>>,
}

impl Backtests {
    /// What ran when the host stopped is told to have stopped.
    pub async fn open(parts: Parts) -> Result<Self, crate::store::Error> {
        parts.store.end_backtests(clock::now()).await?;
        Ok(Self(Arc::new(Inner { parts, one: Semaphore::new(1), running: Mutex::default() })))
    }

    pub fn histories(&self) -> &Histories {
        &self.0.parts.histories
    }

    /// Prepares everything, and then runs in the background. `known`: the fleet's nodes as components see them.
    pub async fn start(
        &self,
        request: BacktestRequest,
        known: BTreeMap<SubjectRef, Subject>,
        by: &PrincipalId,
    ) -> Result<BacktestInfo, Error> {
        let now = clock::now();
        let test = self.test(&request, known, now).await?;
        let id = clock::id("bt");
        let progress = Arc::new(Progress::default());
        {
            let mut running = self.running();
            if running.len() >= WAITING_MAXIMUM {
                return Err(Error::Busy { limit: WAITING_MAXIMUM });
            }
            running.insert(id.clone(), Arc::clone(&progress));
        }
        if let Err(error) = self.0.parts.store.insert_backtest(&id, now, by, &request).await {
            self.running().remove(&id);
            return Err(error.into());
        }
        let info = BacktestInfo {
            id: id.clone(),
            at: now,
            requested_by: by.clone(),
            request: request.clone(),
            state: BacktestState::Running,
            finished_at: None,
            failure: None,
            short: vec![],
            done: 0,
            of: 0,
        };
        let backtests = self.clone();
        self.0.parts.tasks.spawn(async move { backtests.perform(id, request, test, progress).await });
        Ok(info)
    }

    /// The newest first, with how far those are that run.
    pub async fn list(
        &self,
        slot: Option<&aether_core::id::SlotId>,
        limit: u32,
    ) -> Result<Vec<BacktestInfo>, crate::store::Error> {
        let mut found = self.0.parts.store.backtests(slot, limit).await?;
        found.iter_mut().for_each(|info| self.progress(info));
        Ok(found)
    }

    pub async fn get(&self, id: &str) -> Result<Option<(BacktestInfo, Option<Report>)>, crate::store::Error> {
        let mut found = self.0.parts.store.backtest(id).await?;
        if let Some((info, _)) = &mut found {
            self.progress(info);
        }
        Ok(found)
    }

    /// False: none of that id runs.
    pub fn stop(&self, id: &str) -> bool {
        let running = self.running();
        running.get(id).inspect(|progress| progress.stop()).is_some()
    }

    fn progress(&self, info: &mut BacktestInfo) {
        if let Some(progress) = self.running().get(&info.id) {
            (info.done, info.of) = progress.told();
        }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Progress>>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn perform(self, id: String, request: BacktestRequest, test: Test, progress: Arc<Progress>) {
        let outcome = self.await_report(test, &progress).await;
        let finished = match outcome {
            Ok(report) => {
                let short: Vec<Short> = request.bars.short(&report);
                self.0.parts.store.finish_backtest(&id, clock::now(), Ok((&report, &short))).await
            }
            Err(error) => {
                let state = match error {
                    Error::Stopped { .. } => BacktestState::Stopped,
                    _ => BacktestState::Failed,
                };
                if matches!(error, Error::Recorder(_) | Error::Died) {
                    tracing::error!(error = &error as &dyn std::error::Error, backtest = id, "a backtest failed");
                }
                let told = format!("{error} [{}]", error.code());
                self.0.parts.store.finish_backtest(&id, clock::now(), Err((state, &told))).await
            }
        };
        if let Err(error) = finished {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                backtest = id,
                "a backtest's end could not be written"
            );
        }
        self.running().remove(&id);
    }

    async fn await_report(&self, test: Test, progress: &Arc<Progress>) -> Result<Report, Error> {
        let stop = self.0.parts.stop.clone();
        let _place = tokio::select! {
            place = self.0.one.acquire() => place.map_err(|_| Error::Died)?,
            () = stop.cancelled() => return Err(Error::Stopped { done: 0, of: 0 }),
        };
        let told = Arc::clone(progress);
        let mut running = tokio::task::spawn_blocking(move || run(test, &BOUNDS, &told));
        tokio::select! {
            ended = &mut running => return ended.unwrap_or(Err(Error::Died)),
            () = stop.cancelled() => progress.stop(),
        }
        running.await.unwrap_or(Err(Error::Died))
    }

    /// Everything that the runner needs.
    async fn test(
        &self,
        request: &BacktestRequest,
        known: BTreeMap<SubjectRef, Subject>,
        now: Time,
    ) -> Result<Test, Error> {
        let Parts { store, recorder, slots, histories, hysteresis, tick_ms, .. } = &self.0.parts;
        let generation =
            slots.current(&request.slot).ok_or_else(|| Error::Unknown { what: "slot", id: request.slot.0.clone() })?;
        let sides = self.sides(&generation, request).await?;
        let (from, to) = (request.from.unwrap_or(now.minus_ms(3_600_000)), request.to.unwrap_or(now).min(now));
        let role = generation.slot().role;
        let scores = role == Role::RiskScorer;
        let (mut measure, mut events, mut decisions) = (Measure::Nothing, vec![], vec![]);
        let mut tolerance = request.tolerance.unwrap_or_default();
        let history = match &request.history {
            Some(name) if scores => {
                let (imported, labels) = histories.load(name).await?;
                if let Some(labels) = labels {
                    (measure, events) = (Measure::Labels, labels);
                }
                History::Imported(Arc::new(imported))
            }
            Some(_) => {
                return Err(Error::Nothing(
                    "an imported history holds telemetry, which only scorers are asked about; leave it out to ask recorded decisions again".into(),
                ));
            }
            None => {
                if from >= to {
                    return Err(Error::Nothing(
                        "the stretch of time ends before it begins, or lies in the future".into(),
                    ));
                }
                if scores {
                    (measure, events) = (Measure::Incidents, incidents(store, from, to).await?);
                    tolerance = request.tolerance.unwrap_or(Tolerance { lead_ms: INCIDENT_LEAD_MS, late_ms: 0 });
                } else {
                    decisions = recorded(store, request, from, to).await?;
                }
                let runtime = tokio::runtime::Handle::current();
                History::Recorded { recorder: recorder.clone(), runtime, from, to }
            }
        };
        Ok(Test {
            slot: Some(request.slot.clone()),
            sides,
            hysteresis: hysteresis.clone(),
            history,
            known,
            from: request.from,
            to: request.to,
            tick_ms: request.tick_ms,
            live_tick_ms: *tick_ms,
            measure,
            events,
            tolerance,
            decisions,
        })
    }

    /// What answers now, and what would with the candidate in its place.
    async fn sides(&self, generation: &Generation, request: &BacktestRequest) -> Result<Sides, Error> {
        let slot = generation.slot();
        let entry = slot.entries.iter().find(|entry| entry.id.0 == request.candidate);
        let (candidate, named) = match entry {
            Some(entry) => {
                let prepared = match generation.live(&entry.id) {
                    Some(live) => live.prepared.clone(),
                    None => self.load(&entry.component, &entry.config, &entry.limits, entry.assets.as_ref()).await?,
                };
                (prepared, entry.replaces.clone())
            }
            None => {
                let digest = self.digest_of(&request.candidate).await?;
                let limits = request.limits.clone().unwrap_or_default();
                (self.load(&digest, &request.config, &limits, request.assets.as_ref()).await?, None)
            }
        };
        if candidate.role() != slot.role {
            let (is, wanted) = (candidate.role().world(), slot.role.world());
            return Err(Error::Roles(format!("the candidate is a {is}, and the slot is for a {wanted}")));
        }
        let same_name = || slot.active().find(|entry| entry.name == candidate.description().name).map(|e| e.id.clone());
        let replaced = request.replaces.clone().or(named).or_else(same_name);
        let active: Vec<_> = slot.active().filter_map(|entry| generation.live(&entry.id)).collect();
        let current: Vec<Prepared> = active.iter().map(|live| live.prepared.clone()).collect();
        let mut with: Vec<Prepared> = active
            .iter()
            .filter(|live| Some(&live.entry.id) != replaced.as_ref() && live.entry.id.0 != request.candidate)
            .map(|live| live.prepared.clone())
            .collect();
        with.push(candidate);
        Ok(Sides { candidate: with, current: (!current.is_empty()).then_some(current) })
    }

    /// A digest as it is; the newest component of a name.
    async fn digest_of(&self, component: &str) -> Result<Digest, Error> {
        let known = self.0.parts.registry.list().await.map_err(Error::Registry)?;
        let found = known
            .iter()
            .find(|record| record.digest.0 == component)
            .or_else(|| known.iter().filter(|record| record.name == component).max_by_key(|record| record.uploaded_at));
        found
            .map(|record| record.digest.clone())
            .ok_or_else(|| Error::Unknown { what: "entry or component", id: component.chars().take(80).collect() })
    }

    async fn load(
        &self,
        digest: &Digest,
        config: &Map<String, Value>,
        limits: &Limits,
        assets: Option<&Digest>,
    ) -> Result<Prepared, Error> {
        let registry = &self.0.parts.registry;
        let component: Component = registry.load(digest).await.map_err(Error::Registry)?;
        let assets = match assets {
            Some(digest) => registry.assets(digest).await.map_err(Error::Registry)?,
            None => Assets::default(),
        };
        let (config, limits) = (config.clone(), limits.clone());
        let activated = tokio::task::spawn_blocking(move || component.activate(&config, &limits, &assets)).await;
        activated.map_err(|_| Error::Died)?.map_err(Error::Activate)
    }
}

/// The incidents that were opened in this stretch of time, as events: from their opening to their end.
async fn incidents(store: &Store, from: Time, to: Time) -> Result<Vec<Event>, Error> {
    let found = store.incidents(None, Some(to.plus_ms(1)), INCIDENTS_MAXIMUM).await?;
    let opened = found.into_iter().filter(|incident| incident.opened_at >= from);
    Ok(opened
        .map(|incident| Event {
            id: incident.id.0,
            subject: incident.shape.subject,
            from: incident.opened_at,
            to: incident.closed_at.unwrap_or(to).min(to),
            at: incident.opened_at,
            summary: incident.summary,
        })
        .collect())
}

/// The decisions of the slot that are kept of this stretch of time.
async fn recorded(store: &Store, request: &BacktestRequest, from: Time, to: Time) -> Result<Vec<Envelope>, Error> {
    let mut kept = store.decisions(Some(request.slot.as_str()), DECISIONS_MAXIMUM).await?;
    kept.retain(|envelope| (from..=to).contains(&envelope.at));
    Ok(kept)
}
