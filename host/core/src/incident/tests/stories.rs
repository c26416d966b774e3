//! Stories: a script of events in words, and what the kernel made of each. What stands before `|` sets the scene and is
//! not printed. Every story must also fold to the same state and leave a chain of artifacts that verifies.

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
        let read =
            |value, at| Event::Read { readings: vec![Reading { condition: f::success(), value, sampled_at: at }] };
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
            ["approve", who, rank] => {
                Event::Approved(f::approval(hash(), who, Rank::parse(rank).unwrap(), self.now, None))
            }
            ["deny", who] => {
                let mut denial = f::approval(hash(), who, Rank::Approver, self.now, Some("not tonight"));
                denial.approved = false;
                Event::Denied(denial)
            }
            ["withdraw", who] => Event::Withdrawn { by: PrincipalId::new(who) },
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
            ["read", "bad"] => read(Some(0.1), Some(self.now)),
            ["read", "stale"] => read(Some(1.0), Some(self.now.minus_ms(5_001))),
            ["read", "old"] => read(Some(1.0), Some(START)),
            ["read", "none"] => read(None, None),
            ["read", "other"] => Event::Read { readings: vec![] },
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

#[test]
fn opening_leaves_three_artifacts_and_asks_for_a_plan() {
    let (story, effects) = Story::open();
    let told: String = effects.iter().map(|effect| story.effect(effect) + "\n").collect();
    expect![[r#"
        record observation_summary (complete)
        record anomaly_finding (complete)
        record root_cause_hypothesis (complete)
        plan
    "#]]
    .assert_eq(&told);
}

#[test]
fn a_whole_migration() {
    check(
        "propose; judge demand; approve ann; reserve; accept; ok; reserve; accept; ok; reserve; ok; reserve; ok; \
         after 1s; read good; after 9s; read good; after 1s; read good",
        expect![[r#"
            propose -> gating
                record remediation_proposal (complete) 1 of 1
                judge
            judge demand -> awaiting approval, 0 given
                record execution_plan (pending) ["class"]
                ask for approval
                arm approval in 600000 ms
            approve ann -> executing 0 reserving
                disarm approval
                reserve process.checkpoint on node-a
            reserve -> executing 0 dispatched
                dispatch process.checkpoint on node-a with [], fence 41, within 30000 ms
                arm step 0 forward in 90000 ms
            accept -> executing 0 accepted
            ok -> executing 1 reserving
                disarm step 0 forward
                reserve process.restore on node-b
            reserve -> executing 1 dispatched
                dispatch process.restore on node-b with ["manifest"], fence 42, within 30000 ms
                arm step 1 forward in 90000 ms
            accept -> executing 1 accepted
            ok -> executing 2 reserving
                disarm step 1 forward
                reserve process.confirm on node-b
            reserve -> executing 2 dispatched
                dispatch process.confirm on node-b with ["manifest"], fence 43, within 30000 ms
                arm step 2 forward in 150000 ms
            ok -> executing 3 reserving
                disarm step 2 forward
                reserve process.retire on node-a
            reserve -> executing 3 dispatched
                dispatch process.retire on node-a with [], fence 44, within 30000 ms
                arm step 3 forward in 150000 ms
            ok -> verifying, does not hold
                disarm step 3 forward
                record execution_result (complete) ["process.checkpoint ok", "process.restore ok", "process.confirm ok", "process.retire ok"] every step was done
                watch
                arm watch in 50000 ms
            read good -> verifying, holds
            read good -> verifying, holds
            read good -> closed Resolved
                disarm watch
                record verification_result (complete) verified=true []
                record incident_report (complete) Resolved: every condition of success held on fresh evidence for the whole watch window
                close
        "#]],
    );
}

#[test]
fn the_best_that_stands_is_taken() {
    check(
        "propose two",
        expect![[r#"
        propose two -> gating
            record remediation_proposal (complete) 1 of 3 | proposal.unknown-target: “Move it to nowhere” is refused: the target workload/nothing (generation 7) does not exist | proposal.ranked-lower: “Move train to node-b” stands, too, and ranks lower
            judge
    "#]],
    );
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

#[test]
fn proposals_that_do_not_stand_are_refused_by_name() {
    let scenes = [
        "propose none",
        "propose fault",
        "propose weak",
        "propose empty",
        "propose verb",
        "propose primitive",
        "propose argument",
        "propose target",
        "propose generation",
        "propose twice",
        "propose there",
        "propose unknown-node",
        "propose dead",
        "propose incapable",
        "propose silent-node",
        "propose unbounded",
        "propose infinite",
        "propose long-watch",
    ];
    expect![[r#"
        propose none
          record incident_report (refused) NoPlan: the planners proposed nothing
        propose fault
          record incident_report (refused) NoPlan: planner gave no plan: unreachable
        propose weak
          record incident_report (refused) ProposalOnly: confidence 90 % is below the 95 % that the posture asks for: proposed, not run | Decide on the proposal by hand.
        propose empty
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: the proposal has no steps; an empty target set never means everything
        propose verb
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: verb `shell.run` is not in the catalogue
        propose primitive
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: `process.discard` is not a verb that a planner can propose
        propose argument
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: `process.migrate` has no argument `command`
        propose target
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: the target workload/ghost (generation 7) does not exist
        propose generation
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: the target workload/train (generation 6) is now of generation 7
        propose twice
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: the target workload/train (generation 7) appears twice
        propose there
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: workload/train (generation 7) already runs on `node-b`
        propose unknown-node
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: the node `node-b` does not exist
        propose dead
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: the node `node-b` has no live agent
        propose incapable
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: the agent on `node-a` cannot do `process.checkpoint`: criu is not installed
        propose silent-node
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: the agent on `node-b` cannot do `process.restore`: the agent does not offer it
        propose unbounded
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: the condition on `aether.workload.progress.rate` has no bound, or a number that canonical JSON does not carry exactly
        propose infinite
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: the condition on `aether.workload.progress.rate` has no bound, or a number that canonical JSON does not carry exactly
        propose long-watch
          record incident_report (refused) NoPlan: “Move train to node-b” is refused: the watch window is longer than 86400000 ms
    "#]].assert_eq(&ends(&scenes));
}

#[test]
fn a_weak_finding_is_proposed_and_not_run() {
    check(
        "propose weak",
        expect![[r#"
        propose weak -> closed ProposalOnly
            record remediation_proposal (complete) 1 of 1
            record incident_report (refused) ProposalOnly: confidence 90 % is below the 95 % that the posture asks for: proposed, not run | Decide on the proposal by hand.
            close
    "#]],
    );
}

#[test]
fn gates_and_posture_decide_together() {
    let scenes = [
        "propose; judge deny",
        "propose; judge fault",
        "propose; judge nobody",
        "propose; judge allow",
        "propose; judge free; reserve refused",
    ];
    expect![[r#"
        propose; judge deny
          record incident_report (refused) DeniedByGate: denied: the class is impactful
        propose; judge fault
          record incident_report (refused) DeniedByGate: denied: gate `gate` gave no answer, which denies: out of fuel
        propose; judge nobody
          record incident_report (refused) DeniedByGate: denied: no gate stands in the slot, which denies
        propose; judge allow
          (open)
        propose; judge free; reserve refused
          record incident_report (refused) Refused: step 1 was not begun: another incident is acting on it
    "#]]
    .assert_eq(&ends(&scenes));
}

#[test]
fn what_the_gates_allow_the_posture_still_wants_approved() {
    check(
        "propose | judge allow; approve ann",
        expect![[r#"
        judge allow -> awaiting approval, 0 given
            record execution_plan (pending) ["class", "posture.approval-required"]
            ask for approval
            arm approval in 900000 ms
        approve ann -> executing 0 reserving
            disarm approval
            reserve process.checkpoint on node-a
    "#]],
    );
}

#[test]
fn a_denial_says_why() {
    check(
        "propose | judge fault",
        expect![[r#"
        judge fault -> closed DeniedByGate
            record execution_plan (refused) ["gate.fault"] denied
            record incident_report (refused) DeniedByGate: denied: gate `gate` gave no answer, which denies: out of fuel
            close
    "#]],
    );
}

#[test]
fn approvals_that_do_not_count() {
    check(
        "propose; judge two | approve ann other-hash; approve ann viewer; approve ann operator; approve ann; \
         approve ann; withdraw eve; withdraw ann; approve ann; after 600s; approve ben; timer approval",
        expect![[r#"
            approve ann other-hash (this is not the hash of the plan that waits; look at the plan again before you approve) -> awaiting approval, 0 given
            approve ann viewer (this plan needs an approver of role approver) -> awaiting approval, 0 given
            approve ann operator (this plan needs an approver of role approver) -> awaiting approval, 0 given
            approve ann -> awaiting approval, 1 given
            approve ann (you have approved this plan already; another person has to) -> awaiting approval, 1 given
            withdraw eve -> awaiting approval, 1 given
            withdraw ann -> awaiting approval, 0 given
            approve ann -> awaiting approval, 1 given
            approve ben (the time to approve is over) -> awaiting approval, 1 given
            timer approval -> closed Expired
                record execution_result (refused) [] not executed: no sufficient approval came in time
                record incident_report (refused) Expired: no sufficient approval came in time
                close
        "#]],
    );
    check(
        "propose; judge comment | approve ann; approve ann because",
        expect![[r#"
        approve ann (this plan's approval needs a comment) -> awaiting approval, 0 given
        approve ann because -> executing 0 reserving
            disarm approval
            reserve process.checkpoint on node-a
    "#]],
    );
    check(
        "propose; judge admin | approve ann; approve ann policy-author; approve ann admin",
        expect![[r#"
        approve ann (this plan needs an approver of role admin) -> awaiting approval, 0 given
        approve ann policy-author (this plan needs an approver of role admin) -> awaiting approval, 0 given
        approve ann admin -> executing 0 reserving
            disarm approval
            reserve process.checkpoint on node-a
    "#]],
    );
    // A role that does not exist asks for the highest, one too small for the least that may approve.
    check(
        "propose; judge nonsense | approve ann policy-author; approve ann admin",
        expect![[r#"
        approve ann policy-author (this plan needs an approver of role admin) -> awaiting approval, 0 given
        approve ann admin -> executing 0 reserving
            disarm approval
            reserve process.checkpoint on node-a
    "#]],
    );
    check(
        "propose; judge viewer | approve ann viewer; approve ann operator; approve ann",
        expect![[r#"
        approve ann viewer (this plan needs an approver of role approver) -> awaiting approval, 0 given
        approve ann operator (this plan needs an approver of role approver) -> awaiting approval, 0 given
        approve ann -> executing 0 reserving
            disarm approval
            reserve process.checkpoint on node-a
    "#]],
    );
}

#[test]
fn who_asked_does_not_approve() {
    check(
        "propose; judge requester | approve ann; approve ben",
        expect![[r#"
        approve ann (you asked for this plan yourself; another person has to approve it) -> awaiting approval, 0 given
        approve ben -> executing 0 reserving
            disarm approval
            reserve process.checkpoint on node-a
    "#]],
    );
}

#[test]
fn a_plan_does_not_wait_for_ever() {
    check(
        "propose | judge forever",
        expect![[r#"
        judge forever -> awaiting approval, 0 given
            record execution_plan (pending) ["class"]
            ask for approval
            arm approval in 604800000 ms
    "#]],
    );
    check(
        "propose; judge demand | after 599s; timer approval; after 1s; timer approval; approve ann",
        expect![[r#"
        timer approval -> awaiting approval, 0 given
            arm approval in 1000 ms
        timer approval -> closed Expired
            record execution_result (refused) [] not executed: no sufficient approval came in time
            record incident_report (refused) Expired: no sufficient approval came in time
            close
        approve ann -> closed Expired
    "#]],
    );
}

#[test]
fn denied_by_a_person() {
    check(
        "propose; judge demand | deny ben; approve ann",
        expect![[r#"
        deny ben -> closed DeniedByPerson
            disarm approval
            record execution_result (refused) [] not executed: denied by ben
            record incident_report (refused) DeniedByPerson: denied by ben
            close
        approve ann -> closed DeniedByPerson
    "#]],
    );
}

#[test]
fn taken_back_before_the_first_dispatch() {
    check_begun(
        "",
        "withdraw eve; withdraw ann; reserve",
        expect![[r#"
        withdraw eve -> executing 0 reserving
        withdraw ann -> closed DeniedByPerson
            record execution_result (refused) [] not executed: ann took the approval back before anything was begun
            record incident_report (refused) DeniedByPerson: ann took the approval back before anything was begun
            close
        reserve -> closed DeniedByPerson
    "#]],
    );
    // Too late.
    check_begun(
        "reserve",
        "withdraw ann",
        expect![[r#"
        withdraw ann -> executing 0 dispatched
    "#]],
    );
}

#[test]
fn a_failure_at_each_step() {
    check_begun(
        "reserve",
        "fail",
        expect![[r#"
            fail -> closed Undone
                disarm step 0 forward
                record execution_result (failed) ["process.checkpoint criu.failed"] failed, with nothing done that had to be undone: it failed; the process goes on
                record incident_report (failed) Undone: it failed; the process goes on
                close
        "#]],
    );
    check_begun(
        "reserve; ok; reserve",
        "fail; reserve; accept; ok",
        expect![[r#"
        fail -> undoing 0 reserving, then []
            disarm step 1 forward
            reserve process.resume on node-a
        reserve -> undoing 0 dispatched, then []
            dispatch process.resume on node-a with ["manifest"], fence 43, within 30000 ms
            arm step 0 compensate in 90000 ms
        accept -> undoing 0 accepted, then []
        ok -> closed Undone
            disarm step 0 compensate
            record execution_result (failed) ["process.checkpoint ok", "process.restore criu.failed", "process.resume ok"] failed and undone: it failed; the process goes on
            record incident_report (failed) Undone: it failed; the process goes on
            close
    "#]],
    );
    check_begun(
        "reserve; ok; reserve; ok; reserve",
        "fail; reserve; ok; reserve; ok",
        expect![[r#"
        fail -> undoing 1 reserving, then [0]
            disarm step 2 forward
            reserve process.discard on node-b
        reserve -> undoing 1 dispatched, then [0]
            dispatch process.discard on node-b with ["manifest"], fence 44, within 30000 ms
            arm step 1 compensate in 90000 ms
        ok -> undoing 0 reserving, then []
            disarm step 1 compensate
            reserve process.resume on node-a
        reserve -> undoing 0 dispatched, then []
            dispatch process.resume on node-a with ["manifest"], fence 45, within 30000 ms
            arm step 0 compensate in 90000 ms
        ok -> closed Undone
            disarm step 0 compensate
            record execution_result (failed) ["process.checkpoint ok", "process.restore ok", "process.confirm criu.failed", "process.discard ok", "process.resume ok"] failed and undone: it failed; the process goes on
            record incident_report (failed) Undone: it failed; the process goes on
            close
    "#]],
    );
    check_begun(
        "reserve; ok; reserve; ok; reserve; ok; reserve",
        "fail",
        expect![[r#"
        fail -> closed Stuck
            disarm step 3 forward
            record execution_result (failed) ["process.checkpoint ok", "process.restore ok", "process.confirm ok", "process.retire criu.failed"] it failed; the process goes on
            tell: inc-1: it failed; the process goes on
            record incident_report (failed) Stuck: it failed; the process goes on | Look at process.retire on node-a and at the workload's processes on both nodes. Nothing will be tried again by itself.
            close
    "#]],
    );
}

#[test]
fn an_unknown_outcome_at_each_step_calls_a_person() {
    let scenes = [
        format!("{BEGUN}; reserve; unknown"),
        format!("{BEGUN}; reserve; ok; reserve; unknown"),
        format!("{BEGUN}; reserve; ok; reserve; ok; reserve; unknown"),
        format!("{BEGUN}; reserve; ok; reserve; ok; reserve; ok; reserve; unknown"),
    ];
    expect![[r#"
        ..; reserve; unknown
          record incident_report (unknown) Unknown: the agent died in the middle | Look at process.checkpoint on node-a and at the workload's processes on both nodes. Nothing will be tried again by itself.
        ..; reserve; ok; reserve; unknown
          record incident_report (unknown) Unknown: the agent died in the middle | Look at process.restore on node-b and at the workload's processes on both nodes. Nothing will be tried again by itself.
        ..; reserve; ok; reserve; ok; reserve; unknown
          record incident_report (unknown) Unknown: the agent died in the middle | Look at process.confirm on node-b and at the workload's processes on both nodes. Nothing will be tried again by itself.
        ..; reserve; ok; reserve; ok; reserve; ok; reserve; unknown
          record incident_report (unknown) Unknown: the agent died in the middle | Look at process.retire on node-a and at the workload's processes on both nodes. Nothing will be tried again by itself.
    "#]].assert_eq(&ends(&scenes.each_ref().map(String::as_str)));
}

#[test]
fn an_undoing_that_does_not_succeed_is_stuck() {
    let failed = format!("{BEGUN}; reserve; ok; reserve; ok; reserve; fail");
    let scenes =
        ["reserve; fail", "reserve; unknown", "reserve refused", "reserve; refuse", "reserve; after 600s; timer step"]
            .map(|end| format!("{failed}; {end}"));
    expect![[r#"
        ..; reserve; ok; reserve; ok; reserve; fail; reserve; fail
          record incident_report (failed) Stuck: undoing failed: it failed; the process goes on | Look at process.confirm on node-b, process.discard on node-b and at the workload's processes on both nodes. Nothing will be tried again by itself.
        ..; reserve; ok; reserve; ok; reserve; fail; reserve; unknown
          record incident_report (failed) Stuck: undoing failed: the agent died in the middle | Look at process.confirm on node-b, process.discard on node-b and at the workload's processes on both nodes. Nothing will be tried again by itself.
        ..; reserve; ok; reserve; ok; reserve; fail; reserve refused
          record incident_report (failed) Stuck: undoing was refused: another incident is acting on it | Look at process.confirm on node-b, process.discard on node-b and at the workload's processes on both nodes. Nothing will be tried again by itself.
        ..; reserve; ok; reserve; ok; reserve; fail; reserve; refuse
          record incident_report (failed) Stuck: undoing was refused: a precondition does not hold | Look at process.confirm on node-b, process.discard on node-b and at the workload's processes on both nodes. Nothing will be tried again by itself.
        ..; reserve; ok; reserve; ok; reserve; fail; reserve; after 600s; timer step
          record incident_report (failed) Stuck: node-b gave no outcome for process.discard in time | Look at process.confirm on node-b, process.discard on node-b and at the workload's processes on both nodes. Nothing will be tried again by itself.
    "#]].assert_eq(&ends(&scenes.each_ref().map(String::as_str)));
    check(
        &format!("{failed}; reserve; accept | refuse; fail"),
        expect![[r#"
        refuse -> undoing 1 accepted, then [0]
        fail -> closed Stuck
            disarm step 1 compensate
            record execution_result (failed) ["process.checkpoint ok", "process.restore ok", "process.confirm criu.failed", "process.discard criu.failed"] undoing failed: it failed; the process goes on
            tell: inc-1: undoing failed: it failed; the process goes on
            record incident_report (failed) Stuck: undoing failed: it failed; the process goes on | Look at process.confirm on node-b, process.discard on node-b and at the workload's processes on both nodes. Nothing will be tried again by itself.
            close
    "#]],
    );
}

#[test]
fn refused_before_anything_was_done() {
    check_begun(
        "",
        "reserve refused",
        expect![[r#"
        reserve refused -> closed Refused
            record execution_result (refused) [] not executed: step 1 was not begun: another incident is acting on it
            record incident_report (refused) Refused: step 1 was not begun: another incident is acting on it
            close
    "#]],
    );
    check_begun(
        "reserve",
        "refuse",
        expect![[r#"
        refuse -> closed Refused
            disarm step 0 forward
            record execution_result (refused) ["process.checkpoint order.precondition"] not executed: node-a refused process.checkpoint: a precondition does not hold
            record incident_report (refused) Refused: node-a refused process.checkpoint: a precondition does not hold
            close
    "#]],
    );
}

#[test]
fn refused_after_something_was_done() {
    check_begun(
        "reserve; ok",
        "reserve refused; reserve; ok",
        expect![[r#"
        reserve refused -> undoing 0 reserving, then []
            reserve process.resume on node-a
        reserve -> undoing 0 dispatched, then []
            dispatch process.resume on node-a with ["manifest"], fence 42, within 30000 ms
            arm step 0 compensate in 90000 ms
        ok -> closed Undone
            disarm step 0 compensate
            record execution_result (failed) ["process.checkpoint ok", "process.resume ok"] failed and undone: step 2 was not begun: another incident is acting on it
            record incident_report (failed) Undone: step 2 was not begun: another incident is acting on it
            close
    "#]],
    );
    check_begun(
        "reserve; ok; reserve",
        "refuse; reserve; ok",
        expect![[r#"
        refuse -> undoing 0 reserving, then []
            disarm step 1 forward
            reserve process.resume on node-a
        reserve -> undoing 0 dispatched, then []
            dispatch process.resume on node-a with ["manifest"], fence 43, within 30000 ms
            arm step 0 compensate in 90000 ms
        ok -> closed Undone
            disarm step 0 compensate
            record execution_result (failed) ["process.checkpoint ok", "process.restore order.precondition", "process.resume ok"] failed and undone: node-b refused process.restore: a precondition does not hold
            record incident_report (failed) Undone: node-b refused process.restore: a precondition does not hold
            close
    "#]],
    );
    // The copy progresses by then: as the plan says, a person and not an undo.
    check_begun(
        "reserve; ok; reserve; ok; reserve; ok",
        "reserve refused",
        expect![[r#"
            reserve refused -> closed Stuck
                record execution_result (failed) ["process.checkpoint ok", "process.restore ok", "process.confirm ok"] step 4 was not begun: another incident is acting on it
                tell: inc-1: step 4 was not begun: another incident is acting on it
                record incident_report (failed) Stuck: step 4 was not begun: another incident is acting on it | Look at process.retire on node-a and at the workload's processes on both nodes. Nothing will be tried again by itself.
                close
        "#]],
    );
}

#[test]
fn no_step_begins_after_the_time_to_execute() {
    check_begun(
        "",
        "after 300s; reserve",
        expect![[r#"
        reserve -> closed Refused
            record execution_result (refused) [] not executed: the time to execute ran out before the next step could begin
            record incident_report (refused) Refused: the time to execute ran out before the next step could begin
            close
    "#]],
    );
    check_begun(
        "reserve",
        "after 300s; ok; reserve; ok",
        expect![[r#"
        ok -> undoing 0 reserving, then []
            disarm step 0 forward
            reserve process.resume on node-a
        reserve -> undoing 0 dispatched, then []
            dispatch process.resume on node-a with ["manifest"], fence 42, within 30000 ms
            arm step 0 compensate in 90000 ms
        ok -> closed Undone
            disarm step 0 compensate
            record execution_result (failed) ["process.checkpoint ok", "process.resume ok"] failed and undone: the time to execute ran out before the next step could begin
            record incident_report (failed) Undone: the time to execute ran out before the next step could begin
            close
    "#]],
    );
    check_begun(
        "after 290s",
        "reserve",
        expect![[r#"
        reserve -> executing 0 dispatched
            dispatch process.checkpoint on node-a with [], fence 41, within 10000 ms
            arm step 0 forward in 70000 ms
    "#]],
    );
}

#[test]
fn silence_is_unknown() {
    check_begun(
        "reserve",
        "after 89s; timer step; after 1s; timer step; ok",
        expect![[r#"
        timer step -> executing 0 dispatched
            arm step 0 forward in 1000 ms
        timer step -> closed Unknown
            record execution_result (unknown) ["process.checkpoint agent.silent"] node-a gave no outcome for process.checkpoint in time
            tell: inc-1: node-a gave no outcome for process.checkpoint in time
            record incident_report (unknown) Unknown: node-a gave no outcome for process.checkpoint in time | Look at process.checkpoint on node-a and at the workload's processes on both nodes. Nothing will be tried again by itself.
            close
        ok -> closed Unknown
    "#]],
    );
    check_begun(
        "reserve; accept",
        "after 90s; timer step",
        expect![[r#"
        timer step -> closed Unknown
            record execution_result (unknown) ["process.checkpoint agent.silent"] node-a gave no outcome for process.checkpoint in time
            tell: inc-1: node-a gave no outcome for process.checkpoint in time
            record incident_report (unknown) Unknown: node-a gave no outcome for process.checkpoint in time | Look at process.checkpoint on node-a and at the workload's processes on both nodes. Nothing will be tried again by itself.
            close
    "#]],
    );
}

#[test]
fn a_dry_run_changes_nothing_and_undoes_nothing() {
    check(
        "propose | judge dry; reserve; ok; reserve; ok; reserve; ok; reserve; ok",
        expect![[r#"
        judge dry -> executing 0 reserving
            record execution_plan (complete, dry run) ["class", "posture.dry-run"]
            reserve process.checkpoint on node-a
        reserve -> executing 0 dispatched
            dispatch process.checkpoint on node-a with [], fence 41, within 30000 ms
            arm step 0 forward in 90000 ms
        ok -> executing 1 reserving
            disarm step 0 forward
            reserve process.restore on node-b
        reserve -> executing 1 dispatched
            dispatch process.restore on node-b with ["manifest"], fence 42, within 30000 ms
            arm step 1 forward in 90000 ms
        ok -> executing 2 reserving
            disarm step 1 forward
            reserve process.confirm on node-b
        reserve -> executing 2 dispatched
            dispatch process.confirm on node-b with ["manifest"], fence 43, within 30000 ms
            arm step 2 forward in 150000 ms
        ok -> executing 3 reserving
            disarm step 2 forward
            reserve process.retire on node-a
        reserve -> executing 3 dispatched
            dispatch process.retire on node-a with [], fence 44, within 30000 ms
            arm step 3 forward in 150000 ms
        ok -> closed Resolved
            disarm step 3 forward
            record execution_result (complete, dry run) ["process.checkpoint ok", "process.restore ok", "process.confirm ok", "process.retire ok"] dry run: every step was checked, nothing was changed
            disarm watch
            record verification_result (complete, dry run) verified=true ["a dry run changes nothing that could be verified"]
            record incident_report (complete, dry run) Resolved: dry run: nothing to verify
            close
    "#]],
    );
    check(
        "propose; judge dry; reserve; ok; reserve; ok; reserve | fail",
        expect![[r#"
            fail -> closed Undone
                disarm step 2 forward
                record execution_result (failed, dry run) ["process.checkpoint ok", "process.restore ok", "process.confirm criu.failed"] failed, with nothing done that had to be undone: it failed; the process goes on
                record incident_report (failed, dry run) Undone: it failed; the process goes on
                close
        "#]],
    );
    check(
        "propose; judge dry; reserve; ok; reserve; ok; reserve; ok; reserve | fail",
        expect![[r#"
            fail -> closed Undone
                disarm step 3 forward
                record execution_result (failed, dry run) ["process.checkpoint ok", "process.restore ok", "process.confirm ok", "process.retire criu.failed"] failed, with nothing done that had to be undone: it failed; the process goes on
                record incident_report (failed, dry run) Undone: it failed; the process goes on
                close
        "#]],
    );
    // A class above what may run live.
    check(
        "propose | judge class",
        expect![[r#"
        judge class -> executing 0 reserving
            record execution_plan (complete, dry run) ["class", "posture.dry-run"]
            reserve process.checkpoint on node-a
    "#]],
    );
}

#[test]
fn a_simulated_executor_shows_in_every_artifact_after_it() {
    check_begun(
        "reserve; ok; reserve; ok; reserve; ok; reserve",
        "simulated; after 1s; read good; after 10s; read good",
        expect![[r#"
        simulated -> verifying, does not hold
            disarm step 3 forward
            record execution_result (complete, simulated) ["process.checkpoint ok", "process.restore ok", "process.confirm ok", "process.retire ok"] every step was done
            watch
            arm watch in 50000 ms
        read good -> verifying, holds
        read good -> closed Resolved
            disarm watch
            record verification_result (complete, simulated) verified=true []
            record incident_report (complete, simulated) Resolved: every condition of success held on fresh evidence for the whole watch window
            close
    "#]],
    );
}

/// The scene in which every step of the migration was done.
const DONE: &str = "reserve; ok; reserve; ok; reserve; ok; reserve; ok; after 1s";

#[test]
fn success_must_hold_on_fresh_samples_for_the_whole_watch() {
    // Flapping begins anew each time.
    check_begun(
        DONE,
        "read good; after 9s; read bad; after 1s; read good; after 9s; read good; after 1s; read good",
        expect![[r#"
        read good -> verifying, holds
        read bad -> verifying, does not hold
        read good -> verifying, holds
        read good -> verifying, holds
        read good -> closed Resolved
            disarm watch
            record verification_result (complete) verified=true []
            record incident_report (complete) Resolved: every condition of success held on fresh evidence for the whole watch window
            close
    "#]],
    );
    // Stale, older than the end of execution, missing, of something else: none of them counts.
    check_begun(
        DONE,
        "read good; read stale; read old; read none; read other",
        expect![[r#"
        read good -> verifying, holds
        read stale -> verifying, does not hold
        read old -> verifying, does not hold
        read none -> verifying, does not hold
        read other -> verifying, does not hold
    "#]],
    );
}

#[test]
fn success_that_never_shows() {
    check_begun(
        DONE,
        "read bad; timer watch; after 49s; timer watch",
        expect![[r#"
        read bad -> verifying, does not hold
        timer watch -> verifying, does not hold
            arm watch in 49000 ms
        timer watch -> closed NotVerified
            disarm watch
            record verification_result (failed) verified=false []
            tell: inc-1: success did not show within the watch window
            record incident_report (failed) NotVerified: success did not show within the watch window | Look at the workload: the action was done, its success did not show.
            close
    "#]],
    );
    check_begun(
        DONE,
        "after 49s; timer watch",
        expect![[r#"
        timer watch -> closed NotVerified
            disarm watch
            record verification_result (failed) verified=false ["aether.workload.progress.rate of workload/train (generation 8) was not sampled"]
            tell: inc-1: success did not show within the watch window
            record incident_report (failed) NotVerified: success did not show within the watch window | Look at the workload: the action was done, its success did not show.
            close
    "#]],
    );
    check_begun(
        DONE,
        "after 60s; read none",
        expect![[r#"
        read none -> closed NotVerified
            disarm watch
            record verification_result (failed) verified=false ["aether.workload.progress.rate of workload/train (generation 8) was not sampled"]
            tell: inc-1: success did not show within the watch window
            record incident_report (failed) NotVerified: success did not show within the watch window | Look at the workload: the action was done, its success did not show.
            close
    "#]],
    );
}

#[test]
fn a_plan_without_conditions_says_that_nothing_was_checked() {
    check(
        "propose no-success; judge demand; approve ann; reserve; ok; reserve; ok; reserve; ok; reserve | ok",
        expect![[r#"
        ok -> closed Resolved
            disarm step 3 forward
            record execution_result (complete) ["process.checkpoint ok", "process.restore ok", "process.confirm ok", "process.retire ok"] every step was done
            disarm watch
            record verification_result (complete) verified=true ["the plan names no condition of success"]
            record incident_report (complete) Resolved: no condition of success was given, so none was checked
            close
    "#]],
    );
}

#[test]
fn what_comes_early_late_or_twice_changes_nothing() {
    check(
        "judge allow; timer approval; timer watch; read good; approve ann; deny ann; recur",
        expect![[r#"
        judge allow -> planning
        timer approval -> planning
        timer watch -> planning
        read good -> planning
        approve ann -> planning
        deny ann -> planning
        recur -> planning
    "#]],
    );
    check_begun(
        "reserve",
        "reserve; propose; judge deny; approve ben; deny ben; timer watch; read bad; recur",
        expect![[r#"
        reserve -> executing 0 dispatched
        propose -> executing 0 dispatched
        judge deny -> executing 0 dispatched
        approve ben -> executing 0 dispatched
        deny ben -> executing 0 dispatched
        timer watch -> executing 0 dispatched
        read bad -> executing 0 dispatched
        recur -> executing 0 dispatched
    "#]],
    );
    check(
        "propose none | propose; judge allow; recur; timer approval",
        expect![[r#"
        propose -> closed NoPlan
        judge allow -> closed NoPlan
        recur -> closed NoPlan
        timer approval -> closed NoPlan
    "#]],
    );
}
