//! The transitions, as one exhaustive match over phase and event. Events that come late (a timer of a phase that is
//! over, a repeat of an outcome) change nothing; they are listed, not caught by a wildcard.

mod executing;
mod verifying;

use super::{
    event::{Effect, Event, GateAnswer, GateContext, Opening, PlannerAnswer, TimerKind, Tried},
    state::{Approval, Incident, Phase, Rank, Reading, Resolution},
};
use crate::{
    artifact::{Artifact, Body, Evidence, Kind, Status, TimelineEntry},
    catalogue::SafetyClass,
    combine,
    decision::{Condition, Demand, Reason, Verdict},
    id::{ArtifactId, Digest, PrincipalId},
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
/// A finding is planned and judged for within this. What a host that was down for longer comes back to is an old story:
/// if the trouble is still there, it is found anew.
const FINDING_WITHIN_MS: u64 = 300_000;
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
            found_at: now,
            phase: Phase::Planning,
            recurrences: 0,
            relapses: 0,
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
            called_off: None,
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
        (Phase::Closed { resolution }, Event::Relapsed(opening)) => incident.relapsed(now, resolution, opening, out),
        (Phase::Closed { resolution: _ }, _) => {}
        (_, Event::Opened(_) | Event::Relapsed(_)) => {}
        (_, Event::Recurred { risk: _ }) => incident.recurrences = incident.recurrences.saturating_add(1),

        (Phase::Planning, Event::Proposed { .. }) | (Phase::Gating, Event::Judged { .. }) if incident.is_old(now) => {
            let old_s = now.since_ms(incident.found_at) / 1_000;
            let why = format!("the finding was {old_s} s old before a plan for it was judged, too old to act on");
            incident.close(now, Resolution::Expired, why, None, out);
        }
        (Phase::Planning, Event::Proposed { answers, world, posture, tried }) => {
            incident.proposed(now, answers, (world, tried), posture, out);
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
        (Phase::AwaitingApproval { approve_by: _ }, Event::Withdrawn { by, comment: _ }) => {
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

        (Phase::Verifying { .. }, Event::Read { readings, every_ms }) => {
            incident.verifying(now, readings, *every_ms, out);
        }
        (
            Phase::Verifying { since, until, held_since: _, read_at: _, samples: _, gaps },
            Event::TimerFired { timer: TimerKind::Watch },
        ) => {
            if now >= until {
                let seen = incident.last_read();
                incident.verified(now, since, false, &seen, (0, gaps), out);
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
    effects
}

impl Incident {
    /// Whether its finding is too old to plan for.
    fn is_old(&self, now: Time) -> bool {
        now.since_ms(self.found_at) > FINDING_WITHIN_MS
    }

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
        (world, tried): (&World, &Tried),
        posture: &Posture,
        out: &mut Vec<Effect>,
    ) {
        let mut refused = Vec::new();
        let mut exhausted = false;
        let mut evidence = Vec::new();
        let mut all = Vec::new();
        for PlannerAnswer { by, outcome } in answers {
            // A person's wish is no component's decision.
            if self.opening.requested.is_none() {
                evidence.push(Evidence::Decision { id: by.decision.clone(), component: by.component.clone() });
            }
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
            let resolved = plan::resolve(proposal, world);
            if let Some(attempts) = resolved.as_ref().ok().and_then(|resolved| tried.exhausted(&resolved.steps)) {
                exhausted = true;
                refused.push(Reason {
                    code: "proposal.rung-exhausted".into(),
                    text: format!("“{}” was tried {attempts} times on this trouble already", proposal.title),
                });
                continue;
            }
            match resolved {
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
            if exhausted {
                out.push(Effect::Tell { message: format!("{}: {why}", self.id) });
                let action = "Decide what is to be done: what the planners know of has not helped.".to_string();
                return self.close(now, Resolution::Escalated, why, Some(action), out);
            }
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
        let least = context.posture.demands.get(&plan.class).filter(|least| live && least.approvers > 0);
        if let Some(least) = least
            && judgement.verdict != Verdict::Deny
        {
            let wanted = Demand {
                approvers: least.approvers,
                role: least.role.name().into(),
                comment: least.comment,
                ..POSTURE_DEMAND
            };
            judgement.verdict = Verdict::RequireApproval(match judgement.verdict {
                Verdict::RequireApproval(asked) => combine::strictest(asked, wanted),
                Verdict::Allow | Verdict::Deny => wanted,
            });
            judgement.reasons.push(Reason {
                code: "posture.class-demand".into(),
                text: format!(
                    "the host's posture asks for {} approval(s) by {} of a live plan of this class{}",
                    least.approvers,
                    least.role.name(),
                    if least.comment { ", each with a comment" } else { "" }
                ),
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
        let how = if approval.break_glass.is_some() { " under break-glass" } else { "" };
        self.note(now, format!("approved by {}{how}", approval.by));
        let given = self.approvals.iter().filter(|given| given.approved).count();
        let enough = usize::try_from(demand.approvers).is_ok_and(|needed| given >= needed);
        // One word stands for all: what it was said under is recorded, and somebody else has to look at it later.
        if !enough && approval.break_glass.is_none() {
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
        let glass = approval.break_glass.is_some();
        let asked = if glass { Rank::Approver } else { Rank::parse(&demand.role).unwrap_or(Rank::Admin) };
        let needed = asked.max(Rank::Approver);
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
        if (demand.comment || glass) && approval.comment.as_deref().is_none_or(|comment| comment.trim().is_empty()) {
            return Err(ApprovalRefused::CommentNeeded);
        }
        if self.approvals.iter().any(|given| given.by == approval.by) {
            return Err(ApprovalRefused::Twice);
        }
        Ok(())
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

    /// Goes on where it was closed as done. What was tried stays in its artifacts and its timeline.
    fn relapsed(&mut self, now: Time, resolution: Resolution, opening: &Opening, out: &mut Vec<Effect>) {
        let done = matches!(resolution, Resolution::Resolved | Resolution::Unchecked | Resolution::NotVerified);
        if !done || opening.finding.shape != self.shape {
            return;
        }
        let again = Incident::open(now, Opening { incident: self.id.clone(), ..opening.clone() }).0;
        *self = Incident {
            opened_at: self.opened_at,
            recurrences: self.recurrences,
            relapses: self.relapses.saturating_add(1),
            timeline: std::mem::take(&mut self.timeline),
            artifacts: self.artifacts,
            last_artifact: self.last_artifact.take(),
            ..again
        };
        self.note(now, format!("the trouble came back: {}", opening.finding.risk.reason));
        self.record_opening(now, out);
        out.push(Effect::Plan);
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
            Resolution::Resolved | Resolution::Unchecked => Status::Complete,
            Resolution::Unknown => Status::Unknown,
            Resolution::NotVerified | Resolution::Undone | Resolution::Stuck => Status::Failed,
            Resolution::NoPlan
            | Resolution::Escalated
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
