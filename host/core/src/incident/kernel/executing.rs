//! Execution: one step after the other, each reserved before it is dispatched, and undoing in reverse order.

use super::super::{
    event::{Effect, Event, Reservation, TimerKind},
    state::{Incident, Phase, Resolution, StepRecord, StepStage},
};
use crate::{
    artifact::Status,
    decision::OnFailure,
    order::{Direction, IdempotencyKey, Outcome, OutcomeStatus},
    time::Time,
};

const TOO_LATE: &str = "the time to execute ran out before the next step could begin";

impl Incident {
    pub(super) fn begin(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.note(now, "execution begins".into());
        self.begin_step(now, 0, out);
    }

    pub(super) fn begin_step(&mut self, now: Time, step: u32, out: &mut Vec<Effect>) {
        let steps = self.plan.as_ref().map_or(0, |plan| plan.steps.len());
        if usize::try_from(step).is_ok_and(|step| step >= steps) {
            return self.executed(now, out);
        }
        if self.execute_by.is_some_and(|execute_by| now >= execute_by) {
            return self.refused_step(now, step, TOO_LATE.into(), out);
        }
        let Some(reservation) = self.reservation(step, Direction::Forward) else { return };
        self.phase = Phase::Executing { step, stage: StepStage::Reserving };
        out.push(Effect::Reserve(reservation));
    }

    /// The next step; or undoing, if the one before succeeded although it was called off. Past the last step that can be
    /// undone there is no way back: the rest is done.
    fn go_on(&mut self, now: Time, next: u32, out: &mut Vec<Effect>) {
        let steps = self.plan.as_ref().map_or(0, |plan| plan.steps.len());
        let ends = usize::try_from(next).is_ok_and(|next| next >= steps) || self.on_failure(next) == OnFailure::Stop;
        match self.called_off.take() {
            Some(why) if !ends => self.undo(now, next, why, out),
            Some(_) => {
                self.note(now, "it was done before it could be called off".into());
                self.begin_step(now, next, out);
            }
            None => self.begin_step(now, next, out),
        }
    }

    pub(super) fn executing(&mut self, now: Time, step: u32, stage: StepStage, event: &Event, out: &mut Vec<Effect>) {
        let Some(reservation) = self.reservation(step, Direction::Forward) else { return };
        let timer = TimerKind::Step { step, direction: Direction::Forward };
        match (stage, event) {
            (StepStage::Reserving, Event::Reserved { key, fence, execute_by }) if *key == reservation.key => {
                // The ledger may have answered late (a host that was down): the approval's own bound stands.
                let execute_by = self.execute_by.map_or(*execute_by, |bound| bound.min(*execute_by));
                if now >= execute_by {
                    return self.refused_step(now, step, TOO_LATE.into(), out);
                }
                self.steps.push(record_of(&reservation));
                let at = self.step_deadline(step, execute_by);
                self.phase = Phase::Executing { step, stage: StepStage::Dispatched { fence: *fence, execute_by } };
                out.push(Effect::Dispatch { reservation, fence: *fence, execute_by });
                out.push(Effect::Arm { timer, at });
            }
            // Before the first dispatch an approval can still be taken back.
            (StepStage::Reserving, Event::Withdrawn { by, comment: _ }) if step == 0 => {
                if self.take_back(by) {
                    let why = format!("{by} took the approval back before anything was begun");
                    self.not_executed(now, Resolution::DeniedByPerson, Status::Refused, why, out);
                }
            }
            (stage, Event::CalledOff { by, rank: _, comment }) if self.check_call_off().is_ok() => {
                let why = format!("called off by {by}: {comment}");
                self.note(now, why.clone());
                match stage {
                    // The ledger may still answer; nobody waits for it any more.
                    StepStage::Reserving if step == 0 => {
                        self.not_executed(now, Resolution::DeniedByPerson, Status::Refused, why, out);
                    }
                    StepStage::Reserving => self.refused_step(now, step, why, out),
                    StepStage::Dispatched { fence: _, execute_by: _ }
                    | StepStage::Accepted { fence: _, execute_by: _ } => {
                        self.called_off = Some(why.clone());
                        out.push(Effect::CallOff { node: reservation.node, key: reservation.key, reason: why });
                    }
                }
            }
            (StepStage::Reserving, Event::ReservationRefused { key, code: _, reason }) if *key == reservation.key => {
                self.refused_step(now, step, format!("step {} was not begun: {reason}", step + 1), out);
            }
            (
                StepStage::Dispatched { fence, execute_by } | StepStage::Accepted { fence, execute_by },
                Event::Accepted { key, journal: _ },
            ) if *key == reservation.key => {
                self.phase = Phase::Executing { step, stage: StepStage::Accepted { fence, execute_by } };
            }
            (StepStage::Dispatched { fence: _, execute_by: _ }, Event::DispatchRefused { key, code, reason })
                if *key == reservation.key =>
            {
                out.push(Effect::Disarm { timer });
                let now_refused = refusal(now, code, reason);
                self.finish(&reservation.key, now_refused);
                let called_off = self.called_off.take();
                self.refused_step(
                    now,
                    step,
                    called_off
                        .unwrap_or_else(|| format!("{} refused {}: {reason}", reservation.node, reservation.verb)),
                    out,
                );
            }
            (
                StepStage::Dispatched { fence: _, execute_by: _ } | StepStage::Accepted { fence: _, execute_by: _ },
                Event::Finished { key, outcome },
            ) if *key == reservation.key => {
                out.push(Effect::Disarm { timer });
                self.flags.simulated |= outcome.simulated && !self.flags.dry_run;
                self.finish(key, outcome.clone());
                self.note(now, format!("{} on {}: {}", reservation.verb, reservation.node, outcome.message));
                match outcome.status {
                    OutcomeStatus::Succeeded => self.go_on(now, step + 1, out),
                    OutcomeStatus::Failed => self.failed_step(now, step, outcome.message.clone(), out),
                    OutcomeStatus::Unknown => self.stuck(now, Resolution::Unknown, outcome.message.clone(), out),
                }
            }
            (
                StepStage::Dispatched { fence: _, execute_by } | StepStage::Accepted { fence: _, execute_by },
                Event::TimerFired { timer: fired },
            ) if *fired == timer => {
                let at = self.step_deadline(step, execute_by);
                if now < at {
                    return out.push(Effect::Arm { timer, at });
                }
                let why = format!("{} gave no outcome for {} in time", reservation.node, reservation.verb);
                self.finish(&reservation.key, silence(now, &why));
                self.stuck(now, Resolution::Unknown, why, out);
            }
            // Of another key or another timer.
            (
                StepStage::Reserving | StepStage::Dispatched { .. } | StepStage::Accepted { .. },
                Event::Opened(_)
                | Event::Relapsed(_)
                | Event::Recurred { .. }
                | Event::Proposed { .. }
                | Event::Judged { .. }
                | Event::Approved(_)
                | Event::Denied(_)
                | Event::Withdrawn { .. }
                | Event::CalledOff { .. }
                | Event::TimerFired { .. }
                | Event::Reserved { .. }
                | Event::ReservationRefused { .. }
                | Event::DispatchRefused { .. }
                | Event::Accepted { .. }
                | Event::Finished { .. }
                | Event::Read { .. },
            ) => {}
        }
    }

    pub(super) fn compensating(
        &mut self,
        now: Time,
        step: u32,
        stage: StepStage,
        left: Vec<u32>,
        event: &Event,
        out: &mut Vec<Effect>,
    ) {
        let Some(reservation) = self.reservation(step, Direction::Compensate) else { return };
        let timer = TimerKind::Step { step, direction: Direction::Compensate };
        match (stage, event) {
            (StepStage::Reserving, Event::Reserved { key, fence, execute_by }) if *key == reservation.key => {
                self.steps.push(record_of(&reservation));
                let at = self.step_deadline(step, *execute_by);
                let stage = StepStage::Dispatched { fence: *fence, execute_by: *execute_by };
                self.phase = Phase::Compensating { step, stage, left };
                out.push(Effect::Dispatch { reservation, fence: *fence, execute_by: *execute_by });
                out.push(Effect::Arm { timer, at });
            }
            (
                StepStage::Dispatched { fence, execute_by } | StepStage::Accepted { fence, execute_by },
                Event::Accepted { key, journal: _ },
            ) if *key == reservation.key => {
                let stage = StepStage::Accepted { fence, execute_by };
                self.phase = Phase::Compensating { step, stage, left };
            }
            (
                StepStage::Dispatched { fence: _, execute_by: _ } | StepStage::Accepted { fence: _, execute_by: _ },
                Event::Finished { key, outcome },
            ) if *key == reservation.key => {
                out.push(Effect::Disarm { timer });
                self.finish(key, outcome.clone());
                self.note(now, format!("{} on {}: {}", reservation.verb, reservation.node, outcome.message));
                match outcome.status {
                    OutcomeStatus::Succeeded => self.undo_next(now, left, out),
                    OutcomeStatus::Failed | OutcomeStatus::Unknown => {
                        let why = format!("undoing failed: {}", outcome.message);
                        self.stuck(now, Resolution::Stuck, why, out);
                    }
                }
            }
            (
                StepStage::Reserving | StepStage::Dispatched { fence: _, execute_by: _ },
                Event::ReservationRefused { key, code, reason } | Event::DispatchRefused { key, code, reason },
            ) if *key == reservation.key => {
                out.push(Effect::Disarm { timer });
                self.finish(key, refusal(now, code, reason));
                self.stuck(now, Resolution::Stuck, format!("undoing was refused: {reason}"), out);
            }
            (
                StepStage::Dispatched { fence: _, execute_by } | StepStage::Accepted { fence: _, execute_by },
                Event::TimerFired { timer: fired },
            ) if *fired == timer => {
                let at = self.step_deadline(step, execute_by);
                if now < at {
                    return out.push(Effect::Arm { timer, at });
                }
                let why = format!("{} gave no outcome for {} in time", reservation.node, reservation.verb);
                self.finish(&reservation.key, silence(now, &why));
                self.stuck(now, Resolution::Stuck, why, out);
            }
            (
                StepStage::Reserving | StepStage::Dispatched { .. } | StepStage::Accepted { .. },
                Event::Opened(_)
                | Event::Relapsed(_)
                | Event::Recurred { .. }
                | Event::Proposed { .. }
                | Event::Judged { .. }
                | Event::Approved(_)
                | Event::Denied(_)
                | Event::Withdrawn { .. }
                | Event::CalledOff { .. }
                | Event::TimerFired { .. }
                | Event::Reserved { .. }
                | Event::ReservationRefused { .. }
                | Event::DispatchRefused { .. }
                | Event::Accepted { .. }
                | Event::Finished { .. }
                | Event::Read { .. },
            ) => {}
        }
    }

    /// The step that is under way, forward or back.
    pub(super) fn current(&self) -> Option<Reservation> {
        match &self.phase {
            Phase::Executing { step, stage: _ } => self.reservation(*step, Direction::Forward),
            Phase::Compensating { step, stage: _, left: _ } => self.reservation(*step, Direction::Compensate),
            Phase::Planning
            | Phase::Gating
            | Phase::AwaitingApproval { approve_by: _ }
            | Phase::Verifying { .. }
            | Phase::Closed { resolution: _ } => None,
        }
    }

    pub(in crate::incident) fn on_failure(&self, step: u32) -> OnFailure {
        // Nothing was changed, so nothing can be stuck.
        if self.flags.dry_run {
            return OnFailure::Compensate;
        }
        usize::try_from(step)
            .ok()
            .and_then(|step| self.plan.as_ref()?.steps.get(step))
            .map_or(OnFailure::Stop, |step| step.on_failure)
    }

    pub(super) fn finish(&mut self, key: &IdempotencyKey, outcome: Outcome) {
        if let Some(record) = self.steps.iter_mut().find(|record| record.key == *key) {
            record.outcome = Some(outcome);
        }
    }

    pub(super) fn failed_step(&mut self, now: Time, step: u32, why: String, out: &mut Vec<Effect>) {
        match self.on_failure(step) {
            OnFailure::Compensate => self.undo(now, step, why, out),
            OnFailure::Stop => self.stuck(now, Resolution::Stuck, why, out),
        }
    }

    /// A step that was surely not begun. A later one has failed by that, as the plan that was approved says.
    pub(super) fn refused_step(&mut self, now: Time, step: u32, why: String, out: &mut Vec<Effect>) {
        if step == 0 {
            self.failure = Some(why.clone());
            return self.not_executed(now, Resolution::Refused, Status::Refused, why, out);
        }
        self.failed_step(now, step, why, out);
    }

    /// Undoes what succeeded before `failed`, newest first. What a dry run did not do, it does not undo.
    pub(super) fn undo(&mut self, now: Time, failed: u32, why: String, out: &mut Vec<Effect>) {
        self.note(now, format!("undoing: {why}"));
        self.failure = Some(why);
        let done = |step: u32| {
            self.steps.iter().any(|record| {
                record.step == step
                    && record.direction == Direction::Forward
                    && record.outcome.as_ref().is_some_and(|o| o.status == OutcomeStatus::Succeeded)
            })
        };
        let undoable: Vec<u32> = (0..failed)
            .rev()
            .filter(|step| {
                !self.flags.dry_run && done(*step) && self.reservation(*step, Direction::Compensate).is_some()
            })
            .collect();
        self.undo_next(now, undoable, out);
    }

    pub(super) fn undo_next(&mut self, now: Time, mut left: Vec<u32>, out: &mut Vec<Effect>) {
        if left.is_empty() {
            let why = self.failure.clone().unwrap_or_default();
            let undone = self.steps.iter().any(|record| record.direction == Direction::Compensate);
            let how = if undone { "failed and undone" } else { "failed, with nothing done that had to be undone" };
            self.record_execution(now, Status::Failed, format!("{how}: {why}"), out);
            return self.close(now, Resolution::Undone, why, None, out);
        }
        let step = left.remove(0);
        let Some(reservation) = self.reservation(step, Direction::Compensate) else { return };
        self.phase = Phase::Compensating { step, stage: StepStage::Reserving, left };
        out.push(Effect::Reserve(reservation));
    }

    pub(super) fn stuck(&mut self, now: Time, resolution: Resolution, why: String, out: &mut Vec<Effect>) {
        let status = if resolution == Resolution::Unknown { Status::Unknown } else { Status::Failed };
        self.record_execution(now, status, why.clone(), out);
        let mut places: Vec<String> = self
            .steps
            .iter()
            .filter(|record| record.outcome.as_ref().is_none_or(|o| o.status != OutcomeStatus::Succeeded))
            .map(|record| format!("{} on {}", record.verb, record.node))
            .collect();
        // A step whose reservation was refused has no record.
        let current = self.current().map(|step| format!("{} on {}", step.verb, step.node));
        places.extend(current.filter(|current| !places.contains(current)));
        let action = format!(
            "Look at {} and at the workload's processes on both nodes. Nothing will be tried again by itself.",
            places.join(", ")
        );
        out.push(Effect::Tell { message: format!("{}: {why}", self.id) });
        self.close(now, resolution, why, Some(action), out);
    }
}

fn record_of(reservation: &Reservation) -> StepRecord {
    StepRecord {
        step: reservation.step,
        direction: reservation.direction,
        verb: reservation.verb.clone(),
        node: reservation.node.clone(),
        key: reservation.key.clone(),
        outcome: None,
    }
}

fn refusal(now: Time, code: &str, reason: &str) -> Outcome {
    ended(now, OutcomeStatus::Failed, code, reason)
}

fn silence(now: Time, why: &str) -> Outcome {
    ended(now, OutcomeStatus::Unknown, "agent.silent", why)
}

fn ended(now: Time, status: OutcomeStatus, code: &str, message: &str) -> Outcome {
    Outcome {
        status,
        code: code.into(),
        message: message.into(),
        evidence: Default::default(),
        outputs: Default::default(),
        simulated: false,
        started_at: now,
        ended_at: now,
    }
}
