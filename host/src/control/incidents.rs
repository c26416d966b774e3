//! One incident at a time behind one lock: step, commit, then perform. Events of different incidents run side by side;
//! those of one are in order.

mod opening;

pub(super) use opening::Known;

use super::{Control, locked};
use crate::{
    clock,
    fabric::{Cancelled, DispatchError, Events, FabricEvent},
    store::{self, Commit, Reserved},
};
use aether_core::{
    artifact::Artifact,
    audit,
    breaker::Open,
    catalogue,
    decision::{Condition, Envelope},
    id::{IncidentId, NodeId, PrincipalId},
    incident::{
        Approval, ApprovalRefused, CallOffRefused, Effect, Event, Incident, Phase, Rank, Reservation, Resolution,
        TimerKind,
        scrutiny::{self, Ending},
        step,
    },
    order::{Direction, IdempotencyKey, Order, Outcome, OutcomeStatus, Provenance},
    plan::{PlanHash, Shape, Step, forecast::Taken},
    subject::SubjectRef,
    time::Time,
    value::Value,
};
use futures::future::BoxFuture;
use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    sync::{Arc, PoisonError},
    time::Duration,
};
use thiserror::Error;
use tokio::sync::{Mutex, MutexGuard};

/// Tries to commit an event before the driver gives the event back.
const COMMIT_TRIES: u32 = 5;
const COMMIT_PAUSE: Duration = Duration::from_millis(200);
/// How long an order that undoes something may wait for its agent.
const UNDO_WITHIN_MS: u64 = 3_600_000;

/// An open incident, and what it is about: that never changes.
pub(super) struct Driven {
    shape: Shape,
    live: Mutex<Live>,
}

impl Driven {
    /// `number`: of the last event in its journal.
    pub(super) fn new(incident: Incident, number: u64) -> Arc<Self> {
        Arc::new(Self { shape: incident.shape.clone(), live: Mutex::new(Live::new(incident, number)) })
    }

    pub(super) async fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().await
    }
}

/// An open incident with what the driver keeps beside it.
pub(super) struct Live {
    incident: Incident,
    /// Of the last event in the journal.
    number: u64,
    timers: BTreeMap<TimerKind, Time>,
    /// What came of an effect could not be committed: with the next tick it is performed again.
    pub(super) again: bool,
}

impl Live {
    fn new(incident: Incident, number: u64) -> Self {
        Self { incident, number, timers: BTreeMap::new(), again: false }
    }
}

/// What is written of an incident.
enum Word {
    Event(Event),
    /// The reservation of a step, and the event that tells of it.
    Reserve {
        reservation: Reservation,
        execute_by: Time,
    },
}

/// Why a person's word changed nothing.
#[derive(Debug, Error)]
pub enum NotTaken {
    #[error(transparent)]
    Refused(#[from] ApprovalRefused),
    #[error(transparent)]
    CallOff(#[from] CallOffRefused),
    #[error("the incident is closed")]
    Closed,
    #[error("execution has begun; an approval can be taken back only before the first step")]
    Begun,
    #[error("you have not approved this plan, so there is nothing to withdraw")]
    NothingToWithdraw,
    #[error("it could not be written down, so it does not count; try again")]
    Store(#[source] store::Error),
}

/// What is to be learned from a step: what a checkpoint that was really taken took.
fn checkpoint_taken(outcome: &Outcome) -> Option<Taken> {
    let real = outcome.status == OutcomeStatus::Succeeded && !outcome.simulated;
    match (outcome.evidence.get(catalogue::evidence::RESIDENT), outcome.evidence.get(catalogue::evidence::TOOK)) {
        (Some(Value::Bytes(bytes)), Some(Value::Duration(took_ms))) if real => {
            Some(Taken { bytes: *bytes, took_ms: *took_ms })
        }
        _ => None,
    }
}

impl Control {
    /// Takes an approval of exactly the plan that waits. Returns once it is in the journal.
    pub async fn approve(&self, incident: &IncidentId, approval: Approval) -> Result<(), NotTaken> {
        self.decide(incident, |incident, now| {
            let Phase::AwaitingApproval { approve_by } = incident.phase else {
                return Err(not_awaiting(incident));
            };
            incident.check_approval(now, approve_by, &approval)?;
            Ok(Event::Approved(Approval { at: now, ..approval.clone() }))
        })
        .await
    }

    pub async fn deny(&self, incident: &IncidentId, denial: Approval) -> Result<(), NotTaken> {
        self.decide(incident, |incident, now| {
            let Phase::AwaitingApproval { approve_by: _ } = incident.phase else {
                return Err(not_awaiting(incident));
            };
            if incident.hash.as_ref() != Some(&denial.plan) {
                return Err(ApprovalRefused::OtherPlan.into());
            }
            Ok(Event::Denied(Approval { at: now, ..denial.clone() }))
        })
        .await
    }

    pub async fn withdraw(
        &self,
        incident: &IncidentId,
        plan: &PlanHash,
        by: &PrincipalId,
        comment: Option<String>,
    ) -> Result<(), NotTaken> {
        self.decide(incident, |incident, _| {
            let Phase::AwaitingApproval { approve_by: _ } = incident.phase else {
                return Err(if incident.is_acting() { NotTaken::Begun } else { not_awaiting(incident) });
            };
            if incident.hash.as_ref() != Some(plan) {
                return Err(ApprovalRefused::OtherPlan.into());
            }
            if !incident.approvals.iter().any(|given| given.by == *by) {
                return Err(NotTaken::NothingToWithdraw);
            }
            Ok(Event::Withdrawn { by: by.clone(), comment: comment.clone() })
        })
        .await
    }

    /// Has an execution given up and undone, while that can be.
    pub async fn call_off(
        &self,
        incident: &IncidentId,
        plan: &PlanHash,
        by: &PrincipalId,
        rank: Rank,
        comment: String,
    ) -> Result<(), NotTaken> {
        self.decide(incident, |incident, _| {
            incident.check_call_off()?;
            if incident.hash.as_ref() != Some(plan) {
                return Err(ApprovalRefused::OtherPlan.into());
            }
            Ok(Event::CalledOff { by: by.clone(), rank, comment: comment.clone() })
        })
        .await
    }

    /// Checks and takes a person's word under the incident's lock, so that two words have one outcome.
    async fn decide(
        &self,
        id: &IncidentId,
        check: impl Fn(&Incident, Time) -> Result<Event, NotTaken>,
    ) -> Result<(), NotTaken> {
        let live = self.find(id).ok_or(NotTaken::Closed)?;
        let mut live = live.lock().await;
        let event = check(&live.incident, clock::now())?;
        self.take(&mut live, event, vec![]).await.map_err(NotTaken::Store)
    }

    pub(super) fn find(&self, id: &IncidentId) -> Option<Arc<Driven>> {
        self.0.live.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    fn all(&self) -> Vec<(IncidentId, Arc<Driven>)> {
        let live = self.0.live.read().unwrap_or_else(PoisonError::into_inner);
        live.iter().map(|(id, live)| (id.clone(), live.clone())).collect()
    }

    /// Open incidents by their subject.
    pub(super) fn open_subjects(&self) -> BTreeMap<SubjectRef, IncidentId> {
        self.all().into_iter().map(|(id, driven)| (driven.shape.subject.clone(), id)).collect()
    }

    /// The open incident of this shape, if any.
    pub(super) fn open_about(&self, shape: &Shape) -> Option<IncidentId> {
        let live = self.0.live.read().unwrap_or_else(PoisonError::into_inner);
        live.iter().find_map(|(id, driven)| (driven.shape == *shape).then(|| id.clone()))
    }

    /// Feeds an event that nobody waits for.
    pub(super) async fn feed(&self, id: &IncidentId, event: Event, envelopes: Vec<Envelope>) -> bool {
        let Some(live) = self.find(id) else { return true };
        let mut live = live.lock().await;
        match self.take(&mut live, event, envelopes).await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(incident.id = %id, error = &error as &dyn std::error::Error, "an event could not be committed");
                live.again = true;
                false
            }
        }
    }

    /// Steps, commits and performs. On an error nothing has changed.
    async fn take(&self, live: &mut Live, event: Event, envelopes: Vec<Envelope>) -> Result<(), store::Error> {
        let effects = self.commit(live, &Word::Event(event), &envelopes).await?;
        self.perform_all(live, effects).await;
        Ok(())
    }

    async fn commit(&self, live: &mut Live, word: &Word, envelopes: &[Envelope]) -> Result<Vec<Effect>, store::Error> {
        let now = clock::now();
        let mut tries = 0;
        loop {
            match self.write(live, word, envelopes, now).await {
                Ok(effects) => return Ok(effects),
                Err(error) => {
                    tries += 1;
                    if tries >= COMMIT_TRIES || matches!(error, store::Error::NotInCharge { .. }) {
                        metrics::counter!("aether_control_commit_failures_total").increment(1);
                        return Err(error);
                    }
                    tokio::time::sleep(COMMIT_PAUSE).await;
                }
            }
        }
    }

    /// Steps and commits at once. On an error nothing has changed.
    async fn write(
        &self,
        live: &mut Live,
        word: &Word,
        envelopes: &[Envelope],
        now: Time,
    ) -> Result<Vec<Effect>, store::Error> {
        let (reserving, event) = match word {
            Word::Event(event) => (None, Cow::Borrowed(event)),
            Word::Reserve { reservation, execute_by } => {
                let mut writing = self.0.store.write().await?;
                let key = reservation.key.clone();
                let event = match writing.reserve(&live.incident.id, reservation, now, *execute_by).await {
                    Ok(Reserved { fence, execute_by }) => Event::Reserved { key, fence, execute_by },
                    // Another incident has the very step, and trying again would not change that.
                    Err(store::Error::Conflict(reason)) => {
                        Event::ReservationRefused { key, code: "ledger".into(), reason }
                    }
                    Err(error) => return Err(error),
                };
                (Some(writing), Cow::Owned(event))
            }
        };
        let mut after = live.incident.clone();
        let effects = step(&mut after, now, &event);
        if effects.is_empty() && after == live.incident {
            // Too late or twice: nothing to tell.
            return Ok(effects);
        }
        let commit = Commit {
            incident: &after,
            number: live.number + 1,
            at: now,
            event: &event,
            artifacts: &recorded(&effects),
            envelopes,
            acts: audit::told(Some(&live.incident), &event, &after),
        };
        let writing = match reserving {
            Some(writing) => writing,
            None => self.0.store.write().await?,
        };
        writing.commit(commit).await?;
        live.incident = after;
        live.number += 1;
        Ok(effects)
    }

    /// Performs effects, and what follows from them at once, in order.
    // Boxed, because an effect's task comes back to here: a named type ends the circle.
    fn perform_all<'a>(&'a self, live: &'a mut Live, effects: Vec<Effect>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut queue: VecDeque<Effect> = effects.into();
            while let Some(effect) = queue.pop_front() {
                let Some(word) = self.perform(live, effect).await else { continue };
                match self.commit(live, &word, &[]).await {
                    Ok(more) => {
                        let sends = more.iter().any(|effect| matches!(effect, Effect::Dispatch { .. }));
                        if let (true, Word::Reserve { reservation, execute_by: _ }) = (sends, &word) {
                            self.has_begun(&live.incident, reservation, clock::now());
                        }
                        queue.extend(more);
                    }
                    Err(error) => {
                        let id = &live.incident.id;
                        tracing::error!(incident.id = %id, error = &error as &dyn std::error::Error,
                            "an event could not be committed; the effect is performed again");
                        live.again = true;
                    }
                }
            }
            let presses = matches!(live.incident.phase, Phase::Planning | Phase::Gating);
            self.0.pressing.send_if_modified(|pressing| match presses {
                true => pressing.insert(live.incident.id.clone()),
                false => pressing.remove(&live.incident.id),
            });
        })
    }

    /// Performs one effect; gives back what is to be written of it at once, if anything.
    async fn perform(&self, live: &mut Live, effect: Effect) -> Option<Word> {
        let id = live.incident.id.clone();
        match effect {
            Effect::Record(artifact) => {
                tracing::info!(incident.id = %id, artifact = %artifact.id, "artifact recorded");
            }
            Effect::Plan => {
                let (control, incident) = (self.clone(), live.incident.clone());
                self.0.tasks.spawn(async move { control.plan(incident).await });
            }
            Effect::Judge => {
                let (control, incident) = (self.clone(), live.incident.clone());
                self.0.tasks.spawn(async move { control.judge(incident).await });
            }
            Effect::AskApproval { plan } => {
                tracing::warn!(incident.id = %id, plan.hash = %plan, "a plan waits for approval");
            }
            Effect::Reserve(reservation) => {
                return Some(self.reserve(live, reservation).await);
            }
            Effect::Dispatch { reservation, fence, execute_by } => {
                if let Some(slept) = self.sleeps_by(&reservation) {
                    return Some(Word::Event(slept));
                }
                live.again |= self.dispatch(&live.incident, reservation, fence, execute_by).await;
            }
            // The tick reads conditions of every incident in verification.
            Effect::CallOff { node, key, reason } => match self.0.fabric.cancel(&node, &key, &reason).await {
                Ok(Cancelled::Asked) => {}
                Ok(Cancelled::NeverSent) => {
                    let code = "order.cancelled".into();
                    return Some(Word::Event(Event::DispatchRefused { key, code, reason }));
                }
                Err(error) => {
                    tracing::warn!(incident.id = %id, %node, error = &error as &dyn std::error::Error,
                        "the agent could not be asked to give the step up yet");
                }
            },
            Effect::Watch => {}
            Effect::Arm { timer, at } => {
                live.timers.insert(timer, at);
            }
            Effect::Disarm { timer } => {
                live.timers.remove(&timer);
            }
            Effect::Tell { message } => {
                tracing::error!(incident.id = %id, message, "a person has to look");
            }
            Effect::Close => {
                live.timers.clear();
                locked(&self.0.guard).release(clock::now(), &id);
                locked(&self.0.breakers).ended(&id);
                self.forget_if_old(&live.incident).await;
                self.0.live.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
                metrics::counter!("aether_incidents_closed_total").increment(1);
                self.tell_scrutiny(&live.incident).await;
                if let Err(error) = self.0.store.prune_decisions().await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "old decisions could not be forgotten");
                }
            }
        }
        None
    }

    /// How people answered what the gates asked them in the story that has just ended.
    async fn tell_scrutiny(&self, incident: &Incident) {
        let journal = match self.0.store.journal(&incident.id).await {
            Ok(journal) => journal,
            Err(error) => {
                tracing::warn!(incident.id = %incident.id, error = &error as &dyn std::error::Error,
                    "its journal could not be read; the metrics of approvals miss it, `aether gates` will not");
                return;
            }
        };
        for asked in scrutiny::asked(&journal).into_iter().filter(|asked| asked.at >= incident.found_at) {
            for gate in asked.gates {
                let ending = asked.ending.name();
                metrics::counter!("aether_approvals_total", "gate" => gate.clone(), "ending" => ending).increment(1);
                if let Ending::Approved { after_ms, .. } = asked.ending {
                    let seconds = Duration::from_millis(after_ms).as_secs_f64();
                    metrics::histogram!("aether_approval_seconds", "gate" => gate).record(seconds);
                }
            }
        }
    }

    /// A finding that had grown too old for a plan is found anew, if the trouble is still there.
    async fn forget_if_old(&self, incident: &Incident) {
        if incident.hash.is_none() && matches!(incident.phase, Phase::Closed { resolution: Resolution::Expired }) {
            locked(&self.0.detector).forget(&incident.shape.subject);
            if let Err(error) = self.0.store.clear_finding(&incident.shape.subject).await {
                tracing::warn!(incident.id = %incident.id, error = &error as &dyn std::error::Error,
                    "a finding that is too old could not be forgotten; after a restart it has to clear first");
            }
        }
    }

    /// Whether a step may begin: its reservation, or why there is none.
    async fn reserve(&self, live: &Live, reservation: Reservation) -> Word {
        let now = clock::now();
        let refused = |code: &str, reason: String| {
            Word::Event(Event::ReservationRefused { key: reservation.key.clone(), code: code.into(), reason })
        };
        // What the plan bounds is volatile and was left out of its hash: it is looked at once more, just before.
        if reservation.direction == Direction::Forward {
            let step =
                usize::try_from(reservation.step).ok().and_then(|step| live.incident.plan.as_ref()?.steps.get(step));
            if step.is_some_and(|step| script_of(step).is_some_and(|digest| self.script(digest).is_none())) {
                return refused(
                    "runbook.gone",
                    "the policy in force no longer has the script that was approved".into(),
                );
            }
            let bounds = step.map(|step| self.readings(&step.preconditions)).unwrap_or_default();
            if let Some(reason) = bounds.iter().find_map(|reading| reading.broken(now)) {
                return refused("precondition", reason);
            }
        }
        if let Err(open) = self.may_begin(&live.incident, &reservation, now).await {
            return refused(Open::CODE, open.to_string());
        }
        let admitted = locked(&self.0.guard).admit(
            now,
            &live.incident.id,
            &live.incident.shape,
            &reservation.target.subject(),
            reservation.direction,
        );
        if let Err(stop) = admitted {
            return refused(stop.code(), stop.to_string());
        }
        let within = match reservation.direction {
            Direction::Forward => self.0.settings.begin_within_ms,
            // An undoing that comes late is better than one that is refused.
            Direction::Compensate => self.0.settings.begin_within_ms.max(UNDO_WITHIN_MS),
        };
        Word::Reserve { reservation, execute_by: now.plus_ms(within) }
    }

    /// The text of a runbook's script, by what the plan that was approved names.
    fn script(&self, digest: &str) -> Option<&str> {
        self.0.panels.runbooks().script(digest)
    }

    /// Sends an order. If its node is away the order is sent when it comes back; the step's timer bounds the wait.
    /// True if it is to be sent again with the next tick.
    async fn dispatch(&self, incident: &Incident, reservation: Reservation, fence: u64, execute_by: Time) -> bool {
        let Some(plan) = &incident.plan else { return false };
        let nonce = match clock::secret::<32>() {
            Ok(bytes) => blake3::Hash::from(bytes).to_hex().to_string(),
            Err(error) => {
                tracing::error!(incident.id = %incident.id, %error, "no random bytes for a nonce; the order was not sent");
                return true;
            }
        };
        let Reservation { key, plan: hash, step, direction, verb, node, target, inputs } = reservation;
        let mut inputs = inputs;
        let planned = usize::try_from(step).ok().and_then(|step| plan.steps.get(step));
        if let Some(script) = planned.and_then(script_of).and_then(|digest| self.script(digest)) {
            inputs.insert(catalogue::argument::SCRIPT.into(), script.into());
        }
        let order = Order {
            key: key.clone(),
            plan: hash,
            step,
            direction,
            target,
            decided_by: Provenance::of(plan),
            node: node.clone(),
            lease: self.0.store.lease(),
            fence,
            nonce,
            execute_by,
            inputs,
        };
        match self.0.fabric.dispatch_reserved(plan, order).await {
            Ok(()) => {
                tracing::info!(incident.id = %incident.id, %node, verb, key = %key, "order sent");
                false
            }
            Err(error) => {
                tracing::warn!(incident.id = %incident.id, %node, verb, error = &error as &dyn std::error::Error,
                    "the order could not be sent yet");
                matches!(error, DispatchError::Store(_) | DispatchError::TooMany { .. })
            }
        }
    }

    /// Performs again what was promised and not confirmed before this host started.
    pub(super) async fn resume(&self) {
        for (_, live) in self.all() {
            let mut live = live.lock().await;
            let effects = live.incident.pending();
            self.perform_all(&mut live, effects).await;
        }
    }

    /// The same for those that a database which took no writes has stopped. An agent answers a repeat as before.
    pub(super) async fn perform_again(&self) {
        for (_, live) in self.all() {
            let mut live = live.lock().await;
            if std::mem::take(&mut live.again) {
                let effects = live.incident.pending();
                self.perform_all(&mut live, effects).await;
            }
        }
    }

    pub(super) async fn fire_timers(&self) {
        let now = clock::now();
        for (id, live) in self.all() {
            let due: Vec<TimerKind> = {
                let mut live = live.lock().await;
                let due: Vec<TimerKind> = live.timers.iter().filter(|(_, at)| **at <= now).map(|(t, _)| *t).collect();
                for timer in &due {
                    live.timers.remove(timer);
                }
                due
            };
            for timer in due {
                if !self.feed(&id, Event::TimerFired { timer }, vec![]).await
                    && let Some(live) = self.find(&id)
                {
                    // Not committed: it fires again.
                    live.lock().await.timers.insert(timer, now);
                }
            }
        }
    }

    /// The incidents in verification, with what is to be read.
    pub(super) async fn watched(&self) -> Vec<(IncidentId, Vec<Condition>)> {
        let mut watched = Vec::new();
        for (id, live) in self.all() {
            let live = live.lock().await;
            if let (Phase::Verifying { .. }, Some(plan)) = (&live.incident.phase, &live.incident.plan) {
                watched.push((id, plan.success.clone()));
            }
        }
        watched
    }

    // ---- what agents answer ----------------------------------------------------------------------------------------

    pub(super) async fn take_fabric_events(self, mut events: Events) {
        loop {
            let event = tokio::select! {
                () = self.0.stop.cancelled() => return,
                event = events.recv() => event,
            };
            match event {
                Some(event) => self.take_fabric_event(event).await,
                None => return,
            }
        }
    }

    async fn take_fabric_event(&self, event: FabricEvent) {
        match event {
            FabricEvent::Connected(node) => self.dispatch_again(&node).await,
            FabricEvent::Lost { node, why: _, asleep: Some(asleep) } => self.fell_asleep(&node, &asleep).await,
            FabricEvent::Lost { node, why, asleep: None } => tracing::warn!(%node, why, "session lost"),
            // The next tick looks at them anyway.
            FabricEvent::WorkloadsChanged(_) => {}
            // That the event's node is the one that was ordered is the fabric's to hold.
            FabricEvent::OrderAccepted { node: _, key, journal_position } => {
                self.feed_key(&key.clone(), Event::Accepted { key, journal: journal_position }).await;
            }
            FabricEvent::OrderProgress { node: _, key, permille, note } => {
                tracing::debug!(key = %key, permille, note, "progress");
            }
            FabricEvent::OrderRefused { node, key, code, reason } => {
                let event = Event::DispatchRefused { key: key.clone(), code, reason };
                if self.feed_key(&key, event).await {
                    self.0.fabric.acknowledge_outcome(&node, &key);
                }
            }
            FabricEvent::OrderFinished { node, key, journal_position: _, outcome } => {
                if let Some(kind) = outcome.evidence.get(catalogue::evidence::DRY_RUN).and_then(Value::as_text) {
                    metrics::counter!("aether_dry_run_steps_total", "kind" => kind.to_owned()).increment(1);
                }
                let taken = checkpoint_taken(&outcome);
                let at = outcome.ended_at;
                let event = Event::Finished { key: key.clone(), outcome };
                if self.feed_key(&key, event).await {
                    self.0.fabric.acknowledge_outcome(&node, &key);
                }
                // After the next step is on its way: a workload may stand still.
                if let Some(taken) = taken
                    && let Err(error) = self.0.store.note_checkpoint(&key, &node, at, taken).await
                {
                    tracing::warn!(node.id = %node, error = &error as &dyn std::error::Error,
                        "what a checkpoint took could not be noted; forecasts do without it");
                }
            }
        }
    }

    /// Feeds what an agent says of a step. True once it need not be said again.
    pub(super) async fn feed_key(&self, key: &IdempotencyKey, event: Event) -> bool {
        for (id, live) in self.all() {
            let holds = live.lock().await.incident.steps.iter().any(|record| record.key == *key);
            if holds {
                return self.feed(&id, event, vec![]).await;
            }
        }
        match self.0.store.awaits(key).await {
            Ok(false) => {
                tracing::info!(key = %key, "an agent speaks of a step of no open incident; it is acknowledged");
                true
            }
            Ok(true) => {
                tracing::warn!(key = %key, "an agent speaks of a step that another host drives; that one has to hear it");
                false
            }
            Err(error) => {
                tracing::error!(key = %key, error = &error as &dyn std::error::Error, "whose step this is could not be read");
                false
            }
        }
    }

    /// A node is back: what it may have missed is sent again. The agent knows a repeat by its key.
    async fn dispatch_again(&self, node: &NodeId) {
        for (_, live) in self.all() {
            let mut live = live.lock().await;
            let mut missed = live.incident.pending();
            missed.retain(|effect| match effect {
                Effect::Dispatch { reservation, fence: _, execute_by: _ } => reservation.node == *node,
                Effect::CallOff { node: asked, key: _, reason: _ } => asked == node,
                _ => false,
            });
            self.perform_all(&mut live, missed).await;
        }
    }
}

/// The script that a step runs, if it runs one.
fn script_of(step: &Step) -> Option<&str> {
    let argument = (step.verb == catalogue::verb::SCRIPT).then(|| step.arguments.get(catalogue::argument::SCRIPT))?;
    argument.and_then(Value::as_text)
}

fn not_awaiting(incident: &Incident) -> NotTaken {
    if incident.is_closed() { NotTaken::Closed } else { ApprovalRefused::NotAwaited.into() }
}

fn recorded(effects: &[Effect]) -> Vec<Artifact> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Record(artifact) => Some((**artifact).clone()),
            _ => None,
        })
        .collect()
}
