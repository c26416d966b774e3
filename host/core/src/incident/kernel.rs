//! The transitions, as one exhaustive match over phase and event. Events that come late (a timer of a phase that is
//! over, a repeat of an outcome) change nothing; they are listed, not caught by a wildcard.

use super::{
    event::{Effect, Event, GateAnswer, GateContext, Opening, PlannerAnswer, TimerKind},
    state::{Approval, Incident, Phase, Rank, Reading, Resolution, StepRecord, StepStage},
};
use crate::{
    artifact::{Artifact, Body, Evidence, Kind, Status, TimelineEntry},
    catalogue::SafetyClass,
    combine,
    decision::{Condition, Demand, OnFailure, Reason, Verdict},
    id::{ArtifactId, Digest, PrincipalId},
    order::{Direction, IdempotencyKey, Outcome, OutcomeStatus},
    plan::{self, Plan, World},
    policy::Posture,
    time::Time,
};

/// An approval that no gate specified: what the posture asks for.
const POSTURE_DEMAND: Demand = Demand {
    approvers: 1,
    role: String::new(),
    approve_within_ms: 900_000,
    execute_within_ms: 300_000,
    comment: false,
};
/// How long a plan that needs no approval may take until its last step begins.
const EXECUTE_WITHIN_MS: u64 = 900_000;
/// The longest that a gate can leave a plan waiting for its approval, or approved and waiting for its last step: a week.
const WITHIN_MAXIMUM_MS: u64 = 7 * 86_400_000;
/// Entries of the timeline that are kept; the first and the newest matter most, so later ones beyond it are dropped.
const TIMELINE_MAXIMUM: usize = 200;

impl Incident {
    /// The incident that an opening begins, with its first three artifacts and the wish for a plan.
    pub fn open(now: Time, opening: Opening) -> (Incident, Vec<Effect>) {
        let mut incident = Incident {
            id: opening.incident.clone(),
            shape: opening.finding.shape.clone(),
            opened_at: now,
            phase: Phase::Planning,
            recurrences: 0,
            flags: opening.flags,
            proposal: None,
            planner: None,
            resolved: None,
            judgement: None,
            plan: None,
            hash: None,
            demand: None,
            requester: None,
            execute_by: None,
            approvals: vec![],
            steps: vec![],
            before: vec![],
            after: vec![],
            timeline: vec![],
            failure: None,
            artifacts: 0,
            last_artifact: None,
            opening,
        };
        let mut effects = Vec::new();
        incident.note(now, format!("opened: {}", incident.opening.finding.risk.reason));
        incident.record_opening(now, &mut effects);
        effects.push(Effect::Plan);
        (incident, effects)
    }

    /// Folds a journal. None if it does not begin with an opening.
    pub fn fold<'a>(journal: impl IntoIterator<Item = (Time, &'a Event)>) -> Option<Incident> {
        let mut journal = journal.into_iter();
        let (at, Event::Opened(opening)) = journal.next()? else { return None };
        let (mut incident, _) = Incident::open(at, (**opening).clone());
        for (at, event) in journal {
            step(&mut incident, at, event);
        }
        Some(incident)
    }
}

/// Takes one event. Total: whatever comes, whenever, the incident stays whole.
pub fn step(incident: &mut Incident, now: Time, event: &Event) -> Vec<Effect> {
    let mut effects = Vec::new();
    let out = &mut effects;
    match (incident.phase.clone(), event) {
        (Phase::Closed { resolution: _ }, _) => {}
        (_, Event::Opened(_)) => {}
        (_, Event::Recurred { risk: _ }) => incident.recurrences = incident.recurrences.saturating_add(1),

        (Phase::Planning, Event::Proposed { answers, world, posture }) => {
            incident.proposed(now, answers, world, posture, out);
        }
        (Phase::Gating, Event::Judged { answers, context, before }) => {
            incident.judged(now, answers, context, before, out);
        }

        (Phase::AwaitingApproval { approve_by }, Event::Approved(approval)) => {
            incident.approved(now, approve_by, approval, out);
        }
        (Phase::AwaitingApproval { approve_by: _ }, Event::Denied(denial)) => {
            if incident.hash.as_ref() == Some(&denial.plan) {
                incident.approvals.push(denial.clone());
                out.push(Effect::Disarm { timer: TimerKind::Approval });
                let why = format!("denied by {}", denial.by);
                incident.not_executed(now, Resolution::DeniedByPerson, Status::Refused, why, out);
            }
        }
        (Phase::AwaitingApproval { approve_by: _ }, Event::Withdrawn { by }) => {
            if incident.take_back(by) {
                incident.note(now, format!("{by} took the approval back"));
            }
        }
        (Phase::AwaitingApproval { approve_by }, Event::TimerFired { timer: TimerKind::Approval }) => {
            if now >= approve_by {
                let why = "no sufficient approval came in time".to_string();
                incident.not_executed(now, Resolution::Expired, Status::Refused, why, out);
            } else {
                out.push(Effect::Arm { timer: TimerKind::Approval, at: approve_by });
            }
        }

        (Phase::Executing { step, stage }, event) => incident.executing(now, step, stage, event, out),
        (Phase::Compensating { step, stage, left }, event) => {
            incident.compensating(now, step, stage, left, event, out);
        }

        (Phase::Verifying { since, until, held_since }, Event::Read { readings }) => {
            incident.verifying(now, since, until, held_since, readings, out);
        }
        (Phase::Verifying { since, until, held_since: _ }, Event::TimerFired { timer: TimerKind::Watch }) => {
            if now >= until {
                let seen = incident.last_read();
                incident.verified(now, since, false, &seen, out);
            } else {
                out.push(Effect::Arm { timer: TimerKind::Watch, at: until });
            }
        }

        // What comes too early, too late or twice. Nothing depends on it.
        (
            Phase::Planning | Phase::Gating | Phase::AwaitingApproval { .. } | Phase::Verifying { .. },
            Event::Proposed { .. }
            | Event::Judged { .. }
            | Event::Approved(_)
            | Event::Denied(_)
            | Event::Withdrawn { .. }
            | Event::TimerFired { .. }
            | Event::Reserved { .. }
            | Event::ReservationRefused { .. }
            | Event::DispatchRefused { .. }
            | Event::Accepted { .. }
            | Event::Finished { .. }
            | Event::Read { .. },
        ) => {}
    }
    effects
}

impl Incident {
    fn success(&self) -> &[Condition] {
        self.plan.as_ref().map_or(&[], |plan| &plan.success)
    }

    /// Each condition of success as it was last read; without a value where it never was.
    fn last_read(&self) -> Vec<Reading> {
        let unread = |condition: &Condition| Reading { condition: condition.clone(), value: None, sampled_at: None };
        self.success()
            .iter()
            .map(|condition| {
                let read = self.after.iter().find(|reading| reading.condition == *condition);
                read.cloned().unwrap_or_else(|| unread(condition))
            })
            .collect()
    }

    /// Whether `by` had approved; afterwards that counts no more.
    fn take_back(&mut self, by: &PrincipalId) -> bool {
        let before = self.approvals.len();
        self.approvals.retain(|approval| approval.by != *by);
        self.approvals.len() < before
    }

    fn note(&mut self, at: Time, text: String) {
        if self.timeline.len() < TIMELINE_MAXIMUM {
            self.timeline.push(TimelineEntry { at, text });
        }
    }

    fn record(&mut self, at: Time, status: Status, evidence: Vec<Evidence>, body: Body, out: &mut Vec<Effect>) {
        let kind = body.kind();
        let (producer, consumer) = kind.roles();
        self.artifacts += 1;
        let mut artifact = Artifact {
            id: ArtifactId(format!("{}/{}-{}", self.id, self.artifacts, kind.name())),
            schema_version: Artifact::SCHEMA_VERSION,
            producer,
            consumer,
            incident: self.id.clone(),
            workflow: "remediation".into(),
            correlation: Digest::of(&plan::canonical(&self.shape)).0,
            at,
            status,
            parents: self.last_artifact.iter().map(|artifact| artifact.id.clone()).collect(),
            evidence,
            flags: self.flags,
            body,
            previous: self.last_artifact.as_ref().map(|artifact| artifact.hash.clone()),
            hash: Digest(String::new()),
        };
        artifact.hash = artifact.computed_hash();
        self.last_artifact = Some(artifact.clone());
        out.push(Effect::Record(Box::new(artifact)));
    }

    fn record_opening(&mut self, now: Time, out: &mut Vec<Effect>) {
        let opening = self.opening.clone();
        let finding = &opening.finding;
        let risk = &finding.risk;
        let from = now.minus_ms(opening.window_ms);
        let mut metrics: Vec<_> = opening.readings.iter().map(|reading| reading.metric.clone()).collect();
        metrics.dedup();
        let series = metrics
            .into_iter()
            .map(|metric| Evidence::Series { subject: opening.subject.subject(), metric, from, to: now })
            .collect();
        let decisions: Vec<Evidence> = opening
            .decisions
            .iter()
            .map(|context| Evidence::Decision { id: context.decision.clone(), component: context.component.clone() })
            .collect();
        let summary = Body::ObservationSummary {
            subject: opening.subject.clone(),
            readings: opening.readings.clone(),
            events: opening.events.clone(),
        };
        self.record(now, Status::Complete, series, summary, out);
        let anomaly = Body::AnomalyFinding {
            shape: finding.shape.clone(),
            subject: opening.subject.clone(),
            risk: risk.clone(),
            first_seen: finding.first_seen,
            consecutive: finding.consecutive,
            unknown: opening.unknown.clone(),
        };
        self.record(now, Status::Complete, decisions.clone(), anomaly, out);
        let hypothesis = Body::RootCauseHypothesis {
            cause: risk.cause.clone(),
            explanation: risk.reason.clone(),
            confidence: risk.confidence,
            contributions: risk.contributions.iter().map(|contribution| contribution.note.clone()).collect(),
            workloads: opening.workloads.clone(),
        };
        self.record(now, Status::Complete, decisions, hypothesis, out);
    }

    /// Takes the most confident proposal that stands against the catalogue and the world.
    fn proposed(
        &mut self,
        now: Time,
        answers: &[PlannerAnswer],
        world: &World,
        posture: &Posture,
        out: &mut Vec<Effect>,
    ) {
        let mut refused = Vec::new();
        let mut evidence = Vec::new();
        let mut all = Vec::new();
        for PlannerAnswer { by, outcome } in answers {
            evidence.push(Evidence::Decision { id: by.decision.clone(), component: by.component.clone() });
            match outcome {
                Ok(proposals) => all.extend(proposals.iter().map(|proposal| (by, proposal))),
                Err(fault) => refused.push(Reason {
                    code: "planner.fault".into(),
                    text: format!("{} gave no plan: {}", by.name, fault.message),
                }),
            }
        }
        all.sort_by(|(_, a), (_, b)| b.confidence.total_cmp(&a.confidence));
        let considered = u32::try_from(all.len()).unwrap_or(u32::MAX);
        let mut chosen = None;
        for (by, proposal) in all {
            match plan::resolve(proposal, world) {
                Ok(resolved) if chosen.is_none() => chosen = Some((by, proposal, resolved)),
                Ok(_) => refused.push(Reason {
                    code: "proposal.ranked-lower".into(),
                    text: format!("“{}” stands, too, and ranks lower", proposal.title),
                }),
                Err(refusal) => refused.push(Reason {
                    code: refusal.code().into(),
                    text: format!("“{}” is refused: {refusal}", proposal.title),
                }),
            }
        }
        let percent = self.opening.finding.risk.confidence * 100.0;
        let weak = percent < f64::from(posture.least_confidence_percent);
        let status = if chosen.is_some() { Status::Complete } else { Status::Refused };
        let why = refused.first().map(|reason| reason.text.clone());
        let body = Body::RemediationProposal {
            chosen: chosen.as_ref().map(|(_, proposal, _)| (*proposal).clone()),
            refused,
            considered,
        };
        self.record(now, status, evidence, body, out);
        let Some((by, proposal, resolved)) = chosen else {
            let why = why.unwrap_or_else(|| "the planners proposed nothing".into());
            return self.close(now, Resolution::NoPlan, why, None, out);
        };
        self.note(now, format!("{} proposed: {}", by.name, proposal.title));
        if weak {
            let why = format!(
                "confidence {percent:.0} % is below the {} % that the posture asks for: proposed, not run",
                posture.least_confidence_percent
            );
            return self.close(now, Resolution::ProposalOnly, why, Some("Decide on the proposal by hand.".into()), out);
        }
        self.planner = Some(by.component.clone());
        self.proposal = Some(proposal.clone());
        self.resolved = Some(resolved);
        self.phase = Phase::Gating;
        out.push(Effect::Judge);
    }

    /// Gates and posture together decide; the stricter word stands.
    fn judged(
        &mut self,
        now: Time,
        answers: &[GateAnswer],
        context: &GateContext,
        before: &[Reading],
        out: &mut Vec<Effect>,
    ) {
        let (Some(resolved), Some(planner)) = (self.resolved.clone(), self.planner.clone()) else { return };
        let mut judgement = combine::judgements(answers.iter().map(|a| (a.by.name.as_str(), a.outcome.as_ref())));
        let dry_run = context.posture.makes_dry(resolved.class);
        let plan = Plan {
            schema_version: Plan::SCHEMA_VERSION,
            shape: self.shape.clone(),
            steps: resolved.steps,
            success: if dry_run { vec![] } else { resolved.success },
            watch_ms: resolved.watch_ms,
            class: resolved.class,
            blast: resolved.blast,
            dry_run,
            planner,
            gates: answers.iter().map(|answer| answer.by.component.clone()).collect(),
            policy_bundle: context.bundle.clone(),
            parent: context.parent.clone(),
        };
        let live = !dry_run && plan.class > SafetyClass::ReadOnly;
        if live && context.posture.approval_required && judgement.verdict == Verdict::Allow {
            let demand = Demand { role: Rank::Approver.name().into(), ..POSTURE_DEMAND };
            judgement.verdict = Verdict::RequireApproval(demand);
            judgement.reasons.push(Reason {
                code: "posture.approval-required".into(),
                text: "the host's posture asks for an approval of every live change".into(),
            });
        }
        if let Verdict::RequireApproval(demand) = &mut judgement.verdict {
            demand.approve_within_ms = demand.approve_within_ms.min(WITHIN_MAXIMUM_MS);
            demand.execute_within_ms = demand.execute_within_ms.min(WITHIN_MAXIMUM_MS);
        }
        if dry_run {
            judgement.reasons.push(Reason {
                code: "posture.dry-run".into(),
                text: "the host's posture makes this a dry run: everything is checked, nothing is changed".into(),
            });
        }
        self.flags.dry_run = dry_run;
        let hash = plan.hash();
        let (demand, approve_by, status) = match &judgement.verdict {
            Verdict::Allow => (None, None, Status::Complete),
            Verdict::Deny => (None, None, Status::Refused),
            Verdict::RequireApproval(demand) => {
                (Some(demand.clone()), Some(now.plus_ms(demand.approve_within_ms)), Status::Pending)
            }
        };
        let evidence = answers
            .iter()
            .map(|a| Evidence::Decision { id: a.by.decision.clone(), component: a.by.component.clone() })
            .collect();
        let body = Body::ExecutionPlan {
            plan: plan.clone(),
            hash: hash.clone(),
            blast: context.blast.clone(),
            reasons: judgement.reasons.clone(),
            demand: demand.clone(),
            approve_by,
            denied: judgement.verdict == Verdict::Deny,
        };
        self.record(now, status, evidence, body, out);
        let verdict = judgement.verdict.clone();
        let denial = judgement.reasons.iter().map(|r| r.text.as_str()).collect::<Vec<_>>().join("; ");
        self.judgement = Some(judgement);
        self.requester = context.requester.clone();
        self.before = before.to_vec();
        match verdict {
            Verdict::Deny => self.close(now, Resolution::DeniedByGate, format!("denied: {denial}"), None, out),
            Verdict::Allow => {
                self.plan = Some(plan);
                self.hash = Some(hash);
                self.execute_by = Some(now.plus_ms(EXECUTE_WITHIN_MS));
                self.begin(now, out);
            }
            Verdict::RequireApproval(demand) => {
                let approve_by = now.plus_ms(demand.approve_within_ms);
                self.note(now, format!("plan {} waits for {} approval(s)", hash.short(), demand.approvers));
                self.plan = Some(plan);
                self.hash = Some(hash.clone());
                self.demand = Some(demand);
                self.phase = Phase::AwaitingApproval { approve_by };
                out.push(Effect::AskApproval { plan: hash });
                out.push(Effect::Arm { timer: TimerKind::Approval, at: approve_by });
            }
        }
    }

    /// Counts an approval of exactly this plan, by someone of sufficient rank, once each, in time.
    fn approved(&mut self, now: Time, approve_by: Time, approval: &Approval, out: &mut Vec<Effect>) {
        let Some(demand) = self.demand.clone() else { return };
        if self.check_approval(now, approve_by, approval).is_err() {
            return;
        }
        self.approvals.push(approval.clone());
        self.note(now, format!("approved by {}", approval.by));
        let given = self.approvals.iter().filter(|given| given.approved).count();
        if given < usize::try_from(demand.approvers).unwrap_or(usize::MAX) {
            return;
        }
        out.push(Effect::Disarm { timer: TimerKind::Approval });
        self.execute_by = Some(now.plus_ms(demand.execute_within_ms));
        self.begin(now, out);
    }

    /// Why an approval would not count, as the API tells the person before it is journaled.
    pub fn check_approval(&self, now: Time, approve_by: Time, approval: &Approval) -> Result<(), ApprovalRefused> {
        let demand = self.demand.as_ref().ok_or(ApprovalRefused::NotAwaited)?;
        // A gate can ask for more than an approver, never for less.
        let needed = Rank::parse(&demand.role).unwrap_or(Rank::Admin).max(Rank::Approver);
        if self.hash.as_ref() != Some(&approval.plan) {
            return Err(ApprovalRefused::OtherPlan);
        }
        if now >= approve_by {
            return Err(ApprovalRefused::Expired);
        }
        if approval.rank < needed {
            return Err(ApprovalRefused::Rank { needed });
        }
        if self.requester.as_ref() == Some(&approval.by) {
            return Err(ApprovalRefused::Requester);
        }
        if demand.comment && approval.comment.as_deref().is_none_or(|comment| comment.trim().is_empty()) {
            return Err(ApprovalRefused::CommentNeeded);
        }
        if self.approvals.iter().any(|given| given.by == approval.by) {
            return Err(ApprovalRefused::Twice);
        }
        Ok(())
    }

    fn begin(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.note(now, "execution begins".into());
        self.begin_step(now, 0, out);
    }

    fn begin_step(&mut self, now: Time, step: u32, out: &mut Vec<Effect>) {
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

    fn executing(&mut self, now: Time, step: u32, stage: StepStage, event: &Event, out: &mut Vec<Effect>) {
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
            (StepStage::Reserving, Event::Withdrawn { by }) if step == 0 => {
                if self.take_back(by) {
                    let why = format!("{by} took the approval back before anything was begun");
                    self.not_executed(now, Resolution::DeniedByPerson, Status::Refused, why, out);
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
                self.refused_step(
                    now,
                    step,
                    format!("{} refused {}: {reason}", reservation.node, reservation.verb),
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
                    OutcomeStatus::Succeeded => self.begin_step(now, step + 1, out),
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
                | Event::Recurred { .. }
                | Event::Proposed { .. }
                | Event::Judged { .. }
                | Event::Approved(_)
                | Event::Denied(_)
                | Event::Withdrawn { .. }
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

    fn compensating(
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
                | Event::Recurred { .. }
                | Event::Proposed { .. }
                | Event::Judged { .. }
                | Event::Approved(_)
                | Event::Denied(_)
                | Event::Withdrawn { .. }
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
    fn current(&self) -> Option<super::event::Reservation> {
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

    fn on_failure(&self, step: u32) -> OnFailure {
        // Nothing was changed, so nothing can be stuck.
        if self.flags.dry_run {
            return OnFailure::Compensate;
        }
        usize::try_from(step)
            .ok()
            .and_then(|step| self.plan.as_ref()?.steps.get(step))
            .map_or(OnFailure::Stop, |step| step.on_failure)
    }

    fn finish(&mut self, key: &IdempotencyKey, outcome: Outcome) {
        if let Some(record) = self.steps.iter_mut().find(|record| record.key == *key) {
            record.outcome = Some(outcome);
        }
    }

    fn failed_step(&mut self, now: Time, step: u32, why: String, out: &mut Vec<Effect>) {
        match self.on_failure(step) {
            OnFailure::Compensate => self.undo(now, step, why, out),
            OnFailure::Stop => self.stuck(now, Resolution::Stuck, why, out),
        }
    }

    /// A step that was surely not begun. A later one has failed by that, as the plan that was approved says.
    fn refused_step(&mut self, now: Time, step: u32, why: String, out: &mut Vec<Effect>) {
        if step == 0 {
            self.failure = Some(why.clone());
            return self.not_executed(now, Resolution::Refused, Status::Refused, why, out);
        }
        self.failed_step(now, step, why, out);
    }

    /// Undoes what succeeded before `failed`, newest first. What a dry run did not do, it does not undo.
    fn undo(&mut self, now: Time, failed: u32, why: String, out: &mut Vec<Effect>) {
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

    fn undo_next(&mut self, now: Time, mut left: Vec<u32>, out: &mut Vec<Effect>) {
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

    fn stuck(&mut self, now: Time, resolution: Resolution, why: String, out: &mut Vec<Effect>) {
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

    fn executed(&mut self, now: Time, out: &mut Vec<Effect>) {
        let dry = self.flags.dry_run;
        let summary = if dry { "dry run: every step was checked, nothing was changed" } else { "every step was done" };
        self.record_execution(now, Status::Complete, summary.into(), out);
        if self.success().is_empty() {
            return self.verified(now, now, true, &[], out);
        }
        let watch = self.plan.as_ref().map_or(0, |plan| plan.watch_ms);
        // Twice the watch, so that success has time to begin and then to hold for the whole of it.
        let until = now.plus_ms(watch.saturating_mul(2).saturating_add(WATCH_GRACE_MS));
        self.phase = Phase::Verifying { since: now, until, held_since: None };
        out.push(Effect::Watch);
        out.push(Effect::Arm { timer: TimerKind::Watch, at: until });
    }

    fn verifying(
        &mut self,
        now: Time,
        since: Time,
        until: Time,
        held_since: Option<Time>,
        readings: &[Reading],
        out: &mut Vec<Effect>,
    ) {
        let complete = self.success().iter().all(|condition| readings.iter().any(|r| r.condition == *condition));
        self.after = readings.to_vec();
        let holds = complete && readings.iter().all(|reading| reading.holds(now, since));
        let held_since = holds.then(|| held_since.unwrap_or(now));
        let watch = self.plan.as_ref().map_or(0, |plan| plan.watch_ms);
        if held_since.is_some_and(|held| now.since_ms(held) >= watch) {
            return self.verified(now, since, true, readings, out);
        }
        if now >= until {
            return self.verified(now, since, false, readings, out);
        }
        self.phase = Phase::Verifying { since, until, held_since };
    }

    fn verified(&mut self, now: Time, since: Time, verified: bool, after: &[Reading], out: &mut Vec<Effect>) {
        out.push(Effect::Disarm { timer: TimerKind::Watch });
        let mut weak: Vec<String> = after
            .iter()
            .filter(|reading| reading.value.is_none())
            .map(|reading| format!("{} of {} was not sampled", reading.condition.metric, reading.condition.target))
            .collect();
        let dry = self.flags.dry_run;
        if dry {
            weak.push("a dry run changes nothing that could be verified".into());
        } else if after.is_empty() {
            weak.push("the plan names no condition of success".into());
        }
        let summary = match (verified, dry, after.is_empty()) {
            (true, true, _) => "dry run: nothing to verify",
            (true, false, true) => "no condition of success was given, so none was checked",
            (true, false, false) => "every condition of success held on fresh evidence for the whole watch window",
            (false, _, _) => "success did not show within the watch window",
        };
        let evidence = after
            .iter()
            .map(|reading| Evidence::Series {
                subject: reading.condition.target.subject(),
                metric: reading.condition.metric.clone(),
                from: since,
                to: now,
            })
            .collect();
        let body = Body::VerificationResult {
            verified,
            before: self.before.clone(),
            after: after.to_vec(),
            watch_ms: self.plan.as_ref().map_or(0, |plan| plan.watch_ms),
            weak,
            summary: summary.into(),
        };
        self.record(now, if verified { Status::Complete } else { Status::Failed }, evidence, body, out);
        self.note(now, summary.into());
        if verified {
            self.close(now, Resolution::Resolved, summary.into(), None, out);
        } else {
            out.push(Effect::Tell { message: format!("{}: {summary}", self.id) });
            let action = "Look at the workload: the action was done, its success did not show.".to_string();
            self.close(now, Resolution::NotVerified, summary.into(), Some(action), out);
        }
    }

    fn record_execution(&mut self, now: Time, status: Status, summary: String, out: &mut Vec<Effect>) {
        let evidence = self
            .steps
            .iter()
            .filter_map(|record| record.outcome.as_ref()?.outputs.get("manifest"))
            .map(|digest| Evidence::Manifest { digest: Digest(digest.clone()) })
            .collect();
        let body = Body::ExecutionResult { steps: self.steps.clone(), approvals: self.approvals.clone(), summary };
        self.record(now, status, evidence, body, out);
    }

    /// Ends an incident whose plan was never begun.
    fn not_executed(&mut self, now: Time, resolution: Resolution, status: Status, why: String, out: &mut Vec<Effect>) {
        self.record_execution(now, status, format!("not executed: {why}"), out);
        self.close(now, resolution, why, None, out);
    }

    fn close(
        &mut self,
        now: Time,
        resolution: Resolution,
        summary: String,
        action_needed: Option<String>,
        out: &mut Vec<Effect>,
    ) {
        self.note(now, format!("closed: {summary}"));
        self.phase = Phase::Closed { resolution };
        let body = Body::IncidentReport {
            resolution,
            summary,
            timeline: self.timeline.clone(),
            recurrences: self.recurrences,
            duration_ms: now.since_ms(self.opened_at),
            action_needed,
        };
        debug_assert_eq!(body.kind(), Kind::IncidentReport);
        let status = match resolution {
            Resolution::Resolved => Status::Complete,
            Resolution::Unknown => Status::Unknown,
            Resolution::NotVerified | Resolution::Undone | Resolution::Stuck => Status::Failed,
            Resolution::NoPlan
            | Resolution::ProposalOnly
            | Resolution::DeniedByGate
            | Resolution::DeniedByPerson
            | Resolution::Expired
            | Resolution::Refused => Status::Refused,
        };
        self.record(now, status, vec![], body, out);
        out.push(Effect::Close);
    }
}

const TOO_LATE: &str = "the time to execute ran out before the next step could begin";

/// Beyond the watch itself: samples have to be taken, batched and sent first.
const WATCH_GRACE_MS: u64 = 30_000;

fn record_of(reservation: &super::event::Reservation) -> StepRecord {
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

/// Why an approval or denial does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalRefused {
    #[error("no plan waits for approval here")]
    NotAwaited,
    #[error("this is not the hash of the plan that waits; look at the plan again before you approve")]
    OtherPlan,
    #[error("the time to approve is over")]
    Expired,
    #[error("this plan needs an approver of role {}", needed.name())]
    Rank { needed: Rank },
    #[error("this plan's approval needs a comment")]
    CommentNeeded,
    #[error("you have approved this plan already; another person has to")]
    Twice,
    #[error("you asked for this plan yourself; another person has to approve it")]
    Requester,
}
