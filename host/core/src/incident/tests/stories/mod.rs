//! Stories: a script of events in words, and what the kernel made of each. What stands before `|` sets the scene and is
//! not printed. Every story must also fold to the same state and leave a chain of artifacts that verifies.

mod acting;
mod deciding;
mod governing;

use super::fixtures::{self as f, START};
use crate::{
    artifact::{Artifact, Body, Status, verify_chain},
    decision::Verdict,
    id::{NodeId, PrincipalId, WorkloadId},
    incident::{Effect, Event, Incident, Phase, Rank, Reading, Reservation, StepStage, TimerKind, step},
    order::{Direction, OutcomeStatus},
    plan::PlanHash,
    time::Time,
};
use expect_test::{Expect, expect};

/// The scene of most stories: a plan that one person approved.
const BEGUN: &str = "propose; judge demand; approve ann";

pub(super) struct Story {
    pub(super) incident: Incident,
    pub(super) journal: Vec<(Time, Event)>,
    pub(super) artifacts: Vec<Artifact>,
    now: Time,
    fence: u64,
}

impl Story {
    pub(super) fn open() -> (Self, Vec<Effect>) {
        let (incident, effects) = Incident::open(START, f::opening());
        let journal = vec![(START, Event::Opened(Box::new(f::opening())))];
        let mut story = Story { incident, journal, artifacts: vec![], now: START, fence: 40 };
        story.keep(&effects);
        (story, effects)
    }

    fn keep(&mut self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::Record(artifact) = effect {
                self.artifacts.push((**artifact).clone());
            }
        }
    }

    pub(super) fn play(&mut self, script: &str) -> String {
        let mut told = String::new();
        for word in script.split(';').map(str::trim).filter(|word| !word.is_empty()) {
            if let Some(seconds) = word.strip_prefix("after ") {
                self.now = self.now.plus_ms(seconds.trim_end_matches('s').parse::<u64>().unwrap() * 1_000);
                continue;
            }
            let event = self.event(word);
            let mut note = String::new();
            if let (Event::Approved(approval), Phase::AwaitingApproval { approve_by }) = (&event, &self.incident.phase)
                && let Err(refused) = self.incident.check_approval(self.now, *approve_by, approval)
            {
                note = format!(" ({refused})");
            }
            let effects = step(&mut self.incident, self.now, &event);
            self.journal.push((self.now, event));
            self.keep(&effects);
            let effects: Vec<String> = effects.iter().map(|effect| self.effect(effect)).collect();
            let phase = phase(&self.incident);
            told += &format!("{word}{note} -> {phase}\n");
            for effect in effects {
                told += &format!("    {effect}\n");
            }
        }
        told
    }

    /// What is under way; of the last step when none is any more, for what comes late.
    fn reservation(&self) -> Reservation {
        let (step, direction) = match &self.incident.phase {
            Phase::Executing { step, stage: _ } => (*step, Direction::Forward),
            Phase::Compensating { step, stage: _, left: _ } => (*step, Direction::Compensate),
            Phase::Planning
            | Phase::Gating
            | Phase::AwaitingApproval { .. }
            | Phase::Verifying { .. }
            | Phase::Closed { .. } => {
                self.incident.steps.last().map_or((0, Direction::Forward), |r| (r.step, r.direction))
            }
        };
        self.incident.reservation(step, direction).unwrap()
    }

    fn event(&mut self, word: &str) -> Event {
        let key = |story: &Story| story.reservation().key;
        let hash = || self.incident.hash.clone().unwrap_or_else(|| PlanHash("none".into()));
        let read = |value, at| Event::Read {
            readings: vec![Reading { condition: f::success(), value, sampled_at: at }],
            every_ms: None,
        };
        let words: Vec<&str> = word.split_whitespace().collect();
        match words[..] {
            ["propose"] => f::proposed(Ok(vec![f::proposal()]), f::world()),
            ["propose", how] => propose(how),
            ["judge", how] => judge(how),
            ["approve", who] => Event::Approved(f::approval(hash(), who, Rank::Approver, self.now, None)),
            ["approve", who, "because"] => {
                Event::Approved(f::approval(hash(), who, Rank::Approver, self.now, Some("looked at it")))
            }
            ["approve", who, "other-hash"] => {
                Event::Approved(f::approval(PlanHash("0".repeat(64)), who, Rank::Admin, self.now, None))
            }
            ["approve", who, "glass"] => {
                let mut approval = f::approval(hash(), who, Rank::Approver, self.now, Some("nobody else is awake"));
                approval.break_glass = Some(crate::id::BreakGlassId::new("glass-1"));
                Event::Approved(approval)
            }
            ["approve", who, "glass-silent"] => {
                let mut approval = f::approval(hash(), who, Rank::Approver, self.now, None);
                approval.break_glass = Some(crate::id::BreakGlassId::new("glass-1"));
                Event::Approved(approval)
            }
            ["approve", who, rank] => {
                Event::Approved(f::approval(hash(), who, Rank::parse(rank).unwrap(), self.now, None))
            }
            ["deny", who] => {
                let mut denial = f::approval(hash(), who, Rank::Approver, self.now, Some("not tonight"));
                denial.approved = false;
                Event::Denied(denial)
            }
            ["withdraw", who] => Event::Withdrawn { by: PrincipalId::new(who), comment: None },
            ["call-off", who] => Event::CalledOff {
                by: PrincipalId::new(who),
                rank: Rank::Operator,
                comment: "the job ends tonight".into(),
            },
            ["reserve"] => {
                self.fence += 1;
                Event::Reserved { key: key(self), fence: self.fence, execute_by: self.now.plus_ms(30_000) }
            }
            ["reserve", "refused"] => Event::ReservationRefused {
                key: key(self),
                code: "guard.target-busy".into(),
                reason: "another incident is acting on it".into(),
            },
            ["refuse"] => Event::DispatchRefused {
                key: key(self),
                code: "order.precondition".into(),
                reason: "a precondition does not hold".into(),
            },
            ["accept"] => Event::Accepted { key: key(self), journal: 3 },
            ["ok"] => Event::Finished { key: key(self), outcome: f::outcome(OutcomeStatus::Succeeded, self.now) },
            ["simulated"] => {
                let mut outcome = f::outcome(OutcomeStatus::Succeeded, self.now);
                outcome.simulated = true;
                Event::Finished { key: key(self), outcome }
            }
            ["fail"] => Event::Finished { key: key(self), outcome: f::outcome(OutcomeStatus::Failed, self.now) },
            ["unknown"] => Event::Finished { key: key(self), outcome: f::outcome(OutcomeStatus::Unknown, self.now) },
            ["timer", "approval"] => Event::TimerFired { timer: TimerKind::Approval },
            ["timer", "watch"] => Event::TimerFired { timer: TimerKind::Watch },
            ["timer", "step"] => {
                let Reservation { step, direction, .. } = self.reservation();
                Event::TimerFired { timer: TimerKind::Step { step, direction } }
            }
            ["read", "good"] => read(Some(1.0), Some(self.now)),
            ["look"] => {
                let mut event = read(Some(1.0), Some(self.now));
                if let Event::Read { every_ms, .. } = &mut event {
                    *every_ms = Some(1_000);
                }
                event
            }
            ["read", "bad"] => read(Some(0.1), Some(self.now)),
            ["read", "stale"] => read(Some(1.0), Some(self.now.minus_ms(5_001))),
            ["read", "old"] => read(Some(1.0), Some(START)),
            ["read", "none"] => read(None, None),
            ["read", "other"] => Event::Read { readings: vec![], every_ms: None },
            ["relapse"] => Event::Relapsed(Box::new(f::opening())),
            ["relapse", "other"] => {
                let mut opening = f::opening();
                opening.finding.shape.cause = "another".into();
                Event::Relapsed(Box::new(opening))
            }
            ["propose", "tried", times] => {
                let mut event = f::proposed(Ok(vec![f::proposal()]), f::world());
                if let Event::Proposed { tried, .. } = &mut event {
                    let verbs = ["checkpoint", "restore", "confirm", "retire"].map(|verb| format!("process.{verb}"));
                    let rung = crate::incident::Rung { verbs: verbs.into(), attempts: times.parse().unwrap() };
                    *tried = crate::incident::Tried { rungs: vec![rung], per_rung: 2 };
                }
                event
            }
            ["recur"] => Event::Recurred { risk: f::risk(0.9) },
            _ => panic!("no such word: {word}"),
        }
    }

    fn effect(&self, effect: &Effect) -> String {
        match effect {
            Effect::Record(artifact) => record(artifact),
            Effect::Plan => "plan".into(),
            Effect::Judge => "judge".into(),
            Effect::AskApproval { plan: _ } => "ask for approval".into(),
            Effect::Reserve(r) => format!("reserve {} on {}", r.verb, r.node),
            Effect::Dispatch { reservation: r, fence, execute_by } => {
                let inputs: Vec<&str> = r.inputs.keys().map(String::as_str).collect();
                let within = execute_by.since_ms(self.now);
                format!("dispatch {} on {} with {inputs:?}, fence {fence}, within {within} ms", r.verb, r.node)
            }
            Effect::Watch => "watch".into(),
            Effect::Arm { timer, at } => format!("arm {} in {} ms", name(timer), at.since_ms(self.now)),
            Effect::Disarm { timer } => format!("disarm {}", name(timer)),
            Effect::CallOff { node, key: _, reason } => format!("call off on {node}: {reason}"),
            Effect::Tell { message } => format!("tell: {message}"),
            Effect::Close => "close".into(),
        }
    }
}

fn name(timer: &TimerKind) -> String {
    match timer {
        TimerKind::Approval => "approval".into(),
        TimerKind::Step { step, direction } => format!("step {step} {direction:?}").to_lowercase(),
        TimerKind::Watch => "watch".into(),
    }
}

fn record(artifact: &Artifact) -> String {
    let status = match artifact.status {
        Status::Complete => "complete",
        Status::Pending => "pending",
        Status::Refused => "refused",
        Status::Failed => "failed",
        Status::Unknown => "unknown",
    };
    let flags = artifact.flags;
    let marks: String = [(flags.dry_run, ", dry run"), (flags.simulated, ", simulated")]
        .into_iter()
        .filter_map(|(on, mark)| on.then_some(mark))
        .collect();
    let words = match &artifact.body {
        Body::RemediationProposal { chosen, refused, considered } => {
            let refused: String = refused.iter().map(|r| format!(" | {}: {}", r.code, r.text)).collect();
            format!(" {} of {considered}{refused}", usize::from(chosen.is_some()))
        }
        Body::ExecutionPlan { reasons, denied, .. } => {
            let codes: Vec<&str> = reasons.iter().map(|reason| reason.code.as_str()).collect();
            format!(" {codes:?}{}", if *denied { " denied" } else { "" })
        }
        Body::ExecutionResult { summary, steps, .. } => {
            let steps: Vec<String> = steps
                .iter()
                .map(|s| format!("{} {}", s.verb, s.outcome.as_ref().map_or("?", |outcome| &outcome.code)))
                .collect();
            format!(" {steps:?} {summary}")
        }
        Body::VerificationResult { verified, weak, .. } => format!(" verified={verified} {weak:?}"),
        Body::IncidentReport { resolution, summary, action_needed, .. } => {
            let action = action_needed.as_ref().map(|action| format!(" | {action}")).unwrap_or_default();
            format!(" {resolution:?}: {summary}{action}")
        }
        Body::ObservationSummary { .. } | Body::AnomalyFinding { .. } | Body::RootCauseHypothesis { .. } => {
            String::new()
        }
    };
    format!("record {} ({status}{marks}){words}", artifact.body.kind().name())
}

fn phase(incident: &Incident) -> String {
    let stage = |stage: &StepStage| match stage {
        StepStage::Reserving => "reserving",
        StepStage::Dispatched { .. } => "dispatched",
        StepStage::Accepted { .. } => "accepted",
    };
    match &incident.phase {
        Phase::Planning => "planning".into(),
        Phase::Gating => "gating".into(),
        Phase::AwaitingApproval { .. } => format!("awaiting approval, {} given", incident.approvals.len()),
        Phase::Executing { step, stage: s } => format!("executing {step} {}", stage(s)),
        Phase::Compensating { step, stage: s, left } => format!("undoing {step} {}, then {left:?}", stage(s)),
        Phase::Verifying { held_since, .. } => {
            format!("verifying, {}", if held_since.is_some() { "holds" } else { "does not hold" })
        }
        Phase::Closed { resolution } => format!("closed {resolution:?}"),
    }
}

fn propose(how: &str) -> Event {
    let (mut proposal, mut world) = (f::proposal(), f::world());
    let node = |name: &str| NodeId::new(name);
    match how {
        "none" => return f::proposed(Ok(vec![]), world),
        "fault" => return f::proposed(Err(f::fault("unreachable")), world),
        "weak" => {
            let mut event = f::proposed(Ok(vec![proposal]), world);
            if let Event::Proposed { posture, .. } = &mut event {
                posture.least_confidence_percent = 95;
            }
            return event;
        }
        "two" => {
            let mut better = f::proposal();
            better.confidence = 0.95;
            better.title = "Move it to nowhere".into();
            better.steps[0].target.id = "nothing".into();
            let mut third = f::proposal();
            third.confidence = 0.1;
            return f::proposed(Ok(vec![third, proposal, better]), world);
        }
        "no-success" => proposal.success.clear(),
        "verb" => proposal.steps[0].verb = "shell.run".into(),
        "primitive" => {
            proposal.steps[0].verb = "process.discard".into();
            proposal.steps[0].arguments.clear();
        }
        "argument" => {
            proposal.steps[0].arguments.insert("command".into(), crate::value::Value::Text("rm".into()));
        }
        "generation" => proposal.steps[0].target.generation = 6,
        "target" => proposal.steps[0].target.id = "ghost".into(),
        "empty" => proposal.steps.clear(),
        "twice" => proposal.steps.push(proposal.steps[0].clone()),
        "there" => {
            world.workloads.get_mut(&WorkloadId::new("train")).unwrap().node = node("node-b");
        }
        "unknown-node" => {
            world.nodes.remove(&node("node-b"));
        }
        "dead" => world.nodes.get_mut(&node("node-b")).unwrap().live = false,
        "incapable" => {
            let capabilities = &mut world.nodes.get_mut(&node("node-a")).unwrap().capabilities;
            capabilities.insert("process.checkpoint".into(), Err("criu is not installed".into()));
        }
        "silent-node" => world.nodes.get_mut(&node("node-b")).unwrap().capabilities.clear(),
        "unbounded" => proposal.success[0].minimum = None,
        "infinite" => proposal.success[0].minimum = Some(f64::INFINITY),
        "long-watch" => proposal.watch_ms = u64::MAX,
        _ => panic!("no such proposal: {how}"),
    }
    f::proposed(Ok(vec![proposal]), world)
}

fn judge(how: &str) -> Event {
    let mut context = f::gate_context();
    let mut demand = f::demand(1);
    match how {
        "allow" => return f::judged(Ok(f::judgement(Verdict::Allow)), context),
        "deny" => return f::judged(Ok(f::judgement(Verdict::Deny)), context),
        "fault" => return f::judged(Err(f::fault("out of fuel")), context),
        "nobody" => return Event::Judged { answers: vec![], context, before: vec![] },
        "free" => {
            context.posture.approval_required = false;
            return f::judged(Ok(f::judgement(Verdict::Allow)), context);
        }
        "dry" => {
            context.posture.dry_run = true;
            return f::judged(Ok(f::judgement(Verdict::Allow)), context);
        }
        "class" => {
            context.posture.highest_live_class = crate::catalogue::SafetyClass::Reversible;
            return f::judged(Ok(f::judgement(Verdict::Allow)), context);
        }
        "demand" => {}
        "two" => demand.approvers = 2,
        "comment" => demand.comment = true,
        "admin" => demand.role = "admin".into(),
        "nonsense" => demand.role = "janitor".into(),
        "viewer" => demand.role = "viewer".into(),
        "two-admins" => (demand.approvers, demand.role) = (2, "admin".into()),
        "class-demand" => {
            let least = crate::policy::ClassDemand { approvers: 2, comment: true, ..Default::default() };
            context.posture.demands.insert(crate::catalogue::SafetyClass::Impactful, least);
            return f::judged(Ok(f::judgement(Verdict::Allow)), context);
        }
        "requester-two" => (demand.approvers, context.requester) = (2, Some(PrincipalId::new("ann"))),
        "forever" => demand.approve_within_ms = u64::MAX,
        "requester" => context.requester = Some(PrincipalId::new("ann")),
        _ => panic!("no such judgement: {how}"),
    }
    f::judged(Ok(f::judgement(Verdict::RequireApproval(demand))), context)
}

fn check(script: &str, expected: Expect) {
    let (scene, script) = script.split_once('|').unwrap_or(("", script));
    let (mut story, _) = Story::open();
    story.play(scene);
    expected.assert_eq(&story.play(script));
    verify_chain(&story.artifacts).unwrap();
    let folded = Incident::fold(story.journal.iter().map(|(at, event)| (*at, event))).unwrap();
    assert_eq!(folded, story.incident);
}

/// A story whose scene is [`BEGUN`] and `more`.
fn check_begun(more: &str, script: &str, expected: Expect) {
    check(&format!("{BEGUN}; {more} | {script}"), expected);
}

/// How one word at the end of a scene ends the incident: only its last two lines matter here.
fn ends(scenes: &[&str]) -> String {
    let mut told = String::new();
    for scene in scenes {
        let (mut story, _) = Story::open();
        let last = story.play(scene);
        let report = last.lines().rev().find(|line| line.trim().starts_with("record incident_report"));
        let short = scene.strip_prefix(BEGUN).map_or((*scene).to_string(), |rest| format!("..{rest}"));
        told += &format!("{short}\n  {}\n", report.unwrap_or("    (open)").trim());
        verify_chain(&story.artifacts).unwrap();
        let folded = Incident::fold(story.journal.iter().map(|(at, event)| (*at, event))).unwrap();
        assert_eq!(folded, story.incident);
    }
    told
}
