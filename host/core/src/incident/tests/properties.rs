//! Arbitrary journals: mostly what could come next, mixed with what could not. The checker below knows the rules from
//! the documents alone (events in, effects out) and never looks into the incident.

use super::fixtures::{self as f, START};
use crate::{
    artifact::{Artifact, Body, Kind, verify_chain},
    decision::{Demand, Verdict},
    id::PrincipalId,
    incident::{Effect, Event, Incident, Phase, Rank, Reading, Resolution, StepStage, TimerKind, step},
    order::{Direction, IdempotencyKey, OutcomeStatus},
    plan::{Plan, PlanHash},
    time::Time,
};
use proptest::{prelude::*, test_runner::RngSeed};
use std::collections::{BTreeMap, BTreeSet};

/// What was seen from outside so far.
#[derive(Default)]
struct Checker {
    artifacts: Vec<Artifact>,
    plan: Option<(Plan, PlanHash)>,
    demand: Option<Demand>,
    approve_by: Option<Time>,
    denied: bool,
    requester: Option<PrincipalId>,
    approved: BTreeSet<PrincipalId>,
    begun: Option<Time>,
    wanted: BTreeMap<IdempotencyKey, (u32, Direction)>,
    reserved: BTreeSet<IdempotencyKey>,
    dispatched: Vec<IdempotencyKey>,
    finished: BTreeMap<IdempotencyKey, OutcomeStatus>,
    undone: Vec<u32>,
    closed: Option<Resolution>,
}

impl Checker {
    fn enough(&self) -> bool {
        self.demand.as_ref().is_none_or(|demand| self.approved.len() >= demand.approvers.max(1) as usize)
    }

    fn take(&mut self, now: Time, event: &Event, effects: &[Effect]) {
        if self.closed.is_some() {
            assert!(effects.is_empty(), "a closed incident asked for {effects:?}");
            return;
        }
        self.event(now, event);
        for effect in effects {
            assert!(self.closed.is_none(), "after its close an incident asked for {effect:?}");
            self.effect(now, effect);
        }
    }

    fn event(&mut self, now: Time, event: &Event) {
        match event {
            Event::Judged { context, .. } if self.plan.is_none() => self.requester = context.requester.clone(),
            Event::Approved(approval) => {
                let rank = self.demand.as_ref().map(|demand| Rank::parse(&demand.role).unwrap_or(Rank::Admin));
                if self.plan.as_ref().is_some_and(|(_, hash)| *hash == approval.plan)
                    && rank.is_some_and(|rank| approval.rank >= rank.max(Rank::Approver))
                    && self.approve_by.is_some_and(|by| now < by)
                    && self.requester.as_ref() != Some(&approval.by)
                {
                    self.approved.insert(approval.by.clone());
                }
            }
            Event::Withdrawn { by, comment: _ } if self.dispatched.is_empty() => {
                self.approved.remove(by);
            }
            Event::Reserved { key, .. } if self.wanted.contains_key(key) => {
                self.reserved.insert(key.clone());
            }
            Event::Finished { key, outcome } if self.dispatched.contains(key) => {
                self.finished.entry(key.clone()).or_insert(outcome.status);
            }
            Event::Opened(_)
            | Event::Relapsed(_)
            | Event::Recurred { .. }
            | Event::Proposed { .. }
            | Event::Judged { .. }
            | Event::Denied(_)
            | Event::Withdrawn { .. }
            | Event::CalledOff { .. }
            | Event::TimerFired { .. }
            | Event::Reserved { .. }
            | Event::ReservationRefused { .. }
            | Event::DispatchRefused { .. }
            | Event::Accepted { .. }
            | Event::Finished { .. }
            | Event::Read { .. } => {}
        }
    }

    fn effect(&mut self, now: Time, effect: &Effect) {
        match effect {
            Effect::Record(artifact) => self.artifact(artifact),
            Effect::Reserve(reservation) => {
                let (plan, hash) = self.plan.as_ref().expect("a reservation needs a plan");
                assert_eq!(reservation.plan, *hash);
                assert_eq!(plan.key(reservation.step, reservation.direction).as_ref(), Some(&reservation.key));
                assert!(!self.denied && self.enough());
                let before = self.wanted.insert(reservation.key.clone(), (reservation.step, reservation.direction));
                assert_eq!(before, None, "a key is reserved once");
                if reservation.direction == Direction::Compensate {
                    let forward = plan.key(reservation.step, Direction::Forward).unwrap();
                    assert_eq!(self.finished.get(&forward), Some(&OutcomeStatus::Succeeded), "what was not done");
                    assert!(!plan.dry_run);
                    assert!(self.undone.last().is_none_or(|last| *last > reservation.step), "newest first");
                    self.undone.push(reservation.step);
                }
            }
            Effect::Dispatch { reservation, fence: _, execute_by } => {
                assert!(self.reserved.contains(&reservation.key), "reserved before dispatched");
                assert!(!self.dispatched.contains(&reservation.key), "dispatched once");
                assert!(!self.denied && self.enough());
                if reservation.direction == Direction::Forward {
                    assert!(now < *execute_by, "nothing begins after its time");
                    let begun = *self.begun.get_or_insert(now);
                    if let Some(demand) = &self.demand {
                        assert!(execute_by.since_ms(begun) <= demand.execute_within_ms);
                    }
                }
                self.dispatched.push(reservation.key.clone());
            }
            Effect::Close => {
                let Some(Body::IncidentReport { resolution, .. }) = self.artifacts.last().map(|a| &a.body) else {
                    panic!("an incident closes with its report");
                };
                self.closed = Some(*resolution);
                self.ended(*resolution);
            }
            Effect::Plan
            | Effect::Judge
            | Effect::AskApproval { .. }
            | Effect::Watch
            | Effect::Arm { .. }
            | Effect::Disarm { .. }
            | Effect::CallOff { .. }
            | Effect::Tell { .. } => {}
        }
    }

    fn artifact(&mut self, artifact: &Artifact) {
        let kind = artifact.body.kind();
        assert!(self.artifacts.last().is_none_or(|last| last.body.kind() < kind), "kinds come in order, each once");
        if let Body::ExecutionPlan { plan, hash, demand, approve_by, denied, .. } = &artifact.body {
            self.plan = Some((plan.clone(), hash.clone()));
            (self.demand, self.approve_by, self.denied) = (demand.clone(), *approve_by, *denied);
            if !plan.dry_run && f::posture().approval_required && !self.denied {
                assert!(self.demand.is_some(), "a live change without any approval");
            }
        }
        self.artifacts.push(artifact.clone());
    }

    /// A failure ends undone, unknown or stuck, and nothing else does.
    fn ended(&self, resolution: Resolution) {
        let of =
            |direction, status| self.finished.iter().any(|(key, s)| *s == status && self.wanted[key].1 == direction);
        let unknown = of(Direction::Forward, OutcomeStatus::Unknown);
        let not_undone =
            of(Direction::Compensate, OutcomeStatus::Failed) || of(Direction::Compensate, OutcomeStatus::Unknown);
        let done = of(Direction::Forward, OutcomeStatus::Succeeded);
        match resolution {
            Resolution::Resolved | Resolution::Unchecked | Resolution::NotVerified => {
                let (plan, _) = self.plan.as_ref().unwrap();
                let succeeded = self.finished.values().filter(|s| **s == OutcomeStatus::Succeeded).count();
                assert_eq!(succeeded, plan.steps.len());
                assert_eq!(self.dispatched.len(), plan.steps.len());
            }
            Resolution::Undone => {
                assert!(!unknown && !not_undone);
                let (plan, _) = self.plan.as_ref().unwrap();
                for (index, planned) in plan.steps.iter().enumerate() {
                    let index = u32::try_from(index).unwrap();
                    let key = plan.key(index, Direction::Forward).unwrap();
                    let was_done = self.finished.get(&key) == Some(&OutcomeStatus::Succeeded);
                    if was_done && planned.compensation.is_some() && !plan.dry_run {
                        assert!(self.undone.contains(&index), "step {index} was left done");
                    }
                }
            }
            Resolution::Unknown => assert!(!not_undone && !self.dispatched.is_empty()),
            Resolution::Stuck => assert!(done),
            Resolution::NoPlan
            | Resolution::Escalated
            | Resolution::ProposalOnly
            | Resolution::DeniedByGate
            | Resolution::DeniedByPerson
            | Resolution::Expired
            | Resolution::Refused => assert!(self.finished.is_empty(), "{resolution:?} though something was done"),
        }
    }
}

/// Numbers out of which an event is made; a small one is an ordinary one, so that failures shrink towards those.
type Dice = (u8, u8, u8, u32);

fn pick<T: Clone>(roll: u8, of: &[T]) -> T {
    of[usize::from(roll) % of.len()].clone()
}

/// What could come next.
fn sensible(incident: &Incident, now: Time, (_, a, b, _): Dice) -> Event {
    let hash = || incident.hash.clone().unwrap();
    let people = ["ann", "ben", "cid"];
    match &incident.phase {
        Phase::Planning => match a % 12 {
            0 => f::proposed(Ok(vec![]), f::world()),
            1 => f::proposed(Err(f::fault("trapped")), f::world()),
            _ => f::proposed(Ok(vec![f::proposal()]), f::world()),
        },
        Phase::Gating => {
            let mut context = f::gate_context();
            context.posture.dry_run = b % 5 == 4;
            context.requester = (b % 3 == 2).then(|| PrincipalId::new("ann"));
            let mut demand = f::demand(u32::from(b % 4));
            demand.role = pick(b, &["approver", "admin", "viewer", "janitor"]).into();
            let verdict = pick(
                a,
                &[
                    Verdict::RequireApproval(demand.clone()),
                    Verdict::Allow,
                    Verdict::RequireApproval(f::demand(1)),
                    Verdict::Allow,
                    Verdict::RequireApproval(f::demand(2)),
                    Verdict::Deny,
                ],
            );
            f::judged(Ok(f::judgement(verdict)), context)
        }
        Phase::AwaitingApproval { .. } => match a % 12 {
            0 => Event::Denied(f::approval(hash(), pick(b, &people), Rank::Approver, now, None)),
            1 => Event::Withdrawn { by: PrincipalId::new(pick(b, &people)), comment: None },
            2 => Event::TimerFired { timer: TimerKind::Approval },
            3 => Event::Approved(f::approval(PlanHash("other".into()), pick(b, &people), Rank::Admin, now, None)),
            _ => Event::Approved(f::approval(hash(), pick(b, &people), pick(b / 3, &Rank::ALL), now, None)),
        },
        Phase::Executing { step, stage } => of_step(incident, now, *step, Direction::Forward, stage, a),
        Phase::Compensating { step, stage, .. } => of_step(incident, now, *step, Direction::Compensate, stage, a),
        Phase::Verifying { .. } => match a % 8 {
            0 => Event::TimerFired { timer: TimerKind::Watch },
            1 => read(Some(0.0), now),
            2 => read(None, now),
            _ => read(Some(1.0), now),
        },
        Phase::Closed { .. } => Event::Recurred { risk: f::risk(0.9) },
    }
}

fn read(value: Option<f64>, now: Time) -> Event {
    Event::Read {
        readings: vec![Reading { condition: f::success(), value, sampled_at: Some(now) }],
        every_ms: Some(1_000),
    }
}

fn of_step(incident: &Incident, now: Time, step: u32, direction: Direction, stage: &StepStage, a: u8) -> Event {
    let key = incident.reservation(step, direction).unwrap().key;
    let finished = |status| Event::Finished { key: key.clone(), outcome: f::outcome(status, now) };
    let text = || "a reason".to_string();
    match (stage, a % 12) {
        (StepStage::Reserving, 0) => Event::ReservationRefused { key, code: text(), reason: text() },
        (StepStage::Reserving, 1) => Event::Withdrawn { by: PrincipalId::new("ann"), comment: None },
        (StepStage::Reserving, 2) => call_off("ann"),
        (StepStage::Reserving, _) => Event::Reserved { key, fence: u64::from(a), execute_by: now.plus_ms(30_000) },
        (_, 6) => call_off("ann"),
        (_, 0) => Event::DispatchRefused { key, code: text(), reason: text() },
        (_, 1) => finished(OutcomeStatus::Unknown),
        (_, 2) => finished(OutcomeStatus::Failed),
        (_, 3) => Event::TimerFired { timer: TimerKind::Step { step, direction } },
        (_, 4 | 5) => Event::Accepted { key, journal: 1 },
        _ => finished(OutcomeStatus::Succeeded),
    }
}

fn call_off(who: &str) -> Event {
    Event::CalledOff { by: PrincipalId::new(who), rank: Rank::Operator, comment: "enough".into() }
}

/// Anything at all, at any time.
fn noise(incident: &Incident, now: Time, (_, a, b, _): Dice) -> Event {
    let step = u32::from(b % 6);
    let direction = if b & 64 == 0 { Direction::Forward } else { Direction::Compensate };
    let rubbish = IdempotencyKey("rubbish".into());
    let key = incident.reservation(step, direction).map_or(rubbish, |reservation| reservation.key);
    let text = || "noise".to_string();
    let status = pick(b, &[OutcomeStatus::Succeeded, OutcomeStatus::Failed, OutcomeStatus::Unknown]);
    let someone = || f::approval(PlanHash("other".into()), "eve", Rank::Admin, now, None);
    match a % 16 {
        15 => call_off("eve"),
        0 => Event::Opened(Box::new(f::opening())),
        1 => Event::Recurred { risk: f::risk(0.1) },
        2 => f::proposed(Ok(vec![f::proposal()]), f::world()),
        3 => f::judged(Ok(f::judgement(Verdict::Allow)), f::gate_context()),
        4 => Event::Approved(someone()),
        5 => Event::Denied(someone()),
        6 => Event::Withdrawn { by: PrincipalId::new("eve"), comment: None },
        7 => Event::TimerFired { timer: TimerKind::Approval },
        8 => Event::TimerFired { timer: TimerKind::Step { step, direction } },
        9 => Event::Reserved { key, fence: u64::from(b), execute_by: now.plus_ms(1) },
        10 => Event::ReservationRefused { key, code: text(), reason: text() },
        11 => Event::DispatchRefused { key, code: text(), reason: text() },
        12 => Event::Accepted { key, journal: 0 },
        13 => Event::Finished { key, outcome: f::outcome(status, now) },
        _ => read(Some(f64::NAN), now),
    }
}

fn dice() -> impl Strategy<Value = Vec<Dice>> {
    // Time leaps now and then, beyond every bound there is.
    let leap = prop_oneof![20 => 0u32..3_000, 1 => 0u32..2_000_000];
    prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>(), leap), 0..48)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes(dice in dice()) {
        let (mut incident, effects) = Incident::open(START, f::opening());
        let opened = Event::Opened(Box::new(f::opening()));
        let mut checker = Checker::default();
        checker.take(START, &opened, &effects);
        let mut journal = vec![(START, opened)];
        let mut now = START;
        for roll in dice {
            now = now.plus_ms(u64::from(roll.3));
            let event = if roll.0 % 4 == 3 { noise(&incident, now, roll) } else { sensible(&incident, now, roll) };
            let before = incident.clone();
            let effects = step(&mut incident, now, &event);
            if before.is_closed() {
                prop_assert_eq!(format!("{incident:?}"), format!("{before:?}"));
            }
            checker.take(now, &event, &effects);
            journal.push((now, event));
        }
        prop_assert_eq!(incident.is_closed(), checker.closed.is_some());
        prop_assert!(verify_chain(&checker.artifacts).is_ok());
        prop_assert!(checker.artifacts.len() <= Kind::ALL.len());

        // The journal says it all, as it is held in memory and as it is stored.
        let folded = Incident::fold(journal.iter().map(|(at, event)| (*at, event))).unwrap();
        prop_assert_eq!(format!("{folded:?}"), format!("{incident:?}"));
        if !format!("{journal:?}").contains("NaN") {
            let stored: Vec<(Time, Event)> =
                serde_json::from_str(&serde_json::to_string(&journal).unwrap()).unwrap();
            prop_assert_eq!(Incident::fold(stored.iter().map(|(at, event)| (*at, event))).unwrap(), incident);
        }
        let stored = serde_json::to_string(&checker.artifacts);
        let stored: Vec<Artifact> = serde_json::from_str(&stored.unwrap()).unwrap();
        prop_assert!(verify_chain(&stored).is_ok());
    }
}
