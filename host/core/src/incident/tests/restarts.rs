//! A host that may die after any event. The driver below answers every effect, keeps its ledger and its agents' journals
//! as the real ones do, and knows of an incident only what the journal says and what `pending` asks for.

use super::fixtures::{self as f, START};
use crate::{
    artifact::{Artifact, Body, verify_chain},
    decision::Verdict,
    incident::{Effect, Event, Incident, Phase, Rank, Reading, Reservation, Resolution, TimerKind, step},
    order::{IdempotencyKey, OutcomeStatus},
    plan::PlanHash,
    time::Time,
};
use proptest::{prelude::*, test_runner::RngSeed};
use std::collections::{BTreeMap, VecDeque};

/// How the world behaves; the same for the same key, however often it is asked.
#[derive(Clone, Copy)]
struct Fate(u64);

impl Fate {
    const KIND: Fate = Fate(0);

    fn roll(self, key: &IdempotencyKey, salt: &str) -> u8 {
        if self.0 == 0 {
            return 255;
        }
        blake3::hash(format!("{} {key} {salt}", self.0).as_bytes()).as_bytes()[0]
    }
}

struct Driver {
    fate: Fate,
    incident: Incident,
    journal: Vec<(Time, Event)>,
    queue: VecDeque<Effect>,
    timers: BTreeMap<TimerKind, Time>,
    watching: bool,
    now: Time,
    // Outlive the host: the ledger, the agents, the store of artifacts.
    ledger: BTreeMap<IdempotencyKey, (u64, Time)>,
    executed: BTreeMap<IdempotencyKey, OutcomeStatus>,
    artifacts: Vec<Artifact>,
}

impl Driver {
    fn new(fate: Fate) -> Self {
        let (incident, effects) = Incident::open(START, f::opening());
        let mut driver = Driver {
            fate,
            incident,
            journal: vec![(START, Event::Opened(Box::new(f::opening())))],
            queue: VecDeque::new(),
            timers: BTreeMap::new(),
            watching: false,
            now: START,
            ledger: BTreeMap::new(),
            executed: BTreeMap::new(),
            artifacts: vec![],
        };
        driver.promise(effects);
        driver
    }

    /// Records are committed with the event; the rest is only in memory.
    fn promise(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Record(artifact) => self.artifacts.push(*artifact),
                other => self.queue.push_back(other),
            }
        }
    }

    fn commit(&mut self, event: Event) {
        let effects = step(&mut self.incident, self.now, &event);
        self.journal.push((self.now, event));
        self.promise(effects);
    }

    /// kill -9: all that is left is the journal.
    fn restart(&mut self) {
        let live = self.incident.clone();
        self.incident = Incident::fold(self.journal.iter().map(|(at, event)| (*at, event))).unwrap();
        assert_eq!(self.incident, live);
        self.queue = self.incident.pending().into();
        self.timers.clear();
        self.watching = false;
        self.now = self.now.plus_ms(700);
    }

    /// What two people say; the API journals only what counts.
    fn approvals(&self, plan: &PlanHash) -> Vec<Event> {
        let Phase::AwaitingApproval { approve_by } = self.incident.phase else { return vec![] };
        ["ann", "ben"]
            .map(|who| f::approval(plan.clone(), who, Rank::Approver, self.now, None))
            .into_iter()
            .filter(|approval| self.incident.check_approval(self.now, approve_by, approval).is_ok())
            .map(Event::Approved)
            .collect()
    }

    /// The next events of the world; none when there is nothing to wait for.
    fn next(&mut self) -> Option<Vec<Event>> {
        if let Some(effect) = self.queue.pop_front() {
            return Some(self.perform(effect));
        }
        if self.watching {
            self.now = self.now.plus_ms(1_000);
            let good = self.fate.roll(&IdempotencyKey("read".into()), "good") > 40;
            let value = Some(if good { 1.0 } else { 0.0 });
            let reading = Reading { condition: f::success(), value, sampled_at: Some(self.now) };
            return Some(vec![Event::Read { readings: vec![reading], every_ms: None }]);
        }
        let (timer, at) = self.timers.iter().min_by_key(|(_, at)| **at).map(|(timer, at)| (*timer, *at))?;
        self.timers.remove(&timer);
        self.now = self.now.max(at);
        Some(vec![Event::TimerFired { timer }])
    }

    fn perform(&mut self, effect: Effect) -> Vec<Event> {
        match effect {
            Effect::Record(_) => panic!("committed already"),
            Effect::Plan => vec![f::proposed(Ok(vec![f::proposal()]), f::world())],
            Effect::Judge => {
                let verdict = Verdict::RequireApproval(f::demand(2));
                vec![f::judged(Ok(f::judgement(verdict)), f::gate_context())]
            }
            Effect::AskApproval { plan } => self.approvals(&plan),
            Effect::Reserve(reservation) => vec![self.reserve(reservation)],
            Effect::Dispatch { reservation, fence, execute_by } => {
                assert_eq!(self.ledger.get(&reservation.key), Some(&(fence, execute_by)), "as the ledger has it");
                self.dispatch(&reservation)
            }
            Effect::Watch => {
                self.watching = true;
                vec![]
            }
            Effect::Arm { timer, at } => {
                self.timers.insert(timer, at);
                vec![]
            }
            Effect::Disarm { timer } => {
                self.timers.remove(&timer);
                vec![]
            }
            Effect::Tell { message: _ } | Effect::CallOff { .. } => vec![],
            Effect::Close => {
                self.timers.clear();
                self.watching = false;
                vec![]
            }
        }
    }

    fn reserve(&mut self, reservation: Reservation) -> Event {
        let key = reservation.key;
        if self.fate.roll(&key, "reserve") < 12 {
            return Event::ReservationRefused { key, code: "guard".into(), reason: "busy".into() };
        }
        let next = (self.ledger.len() as u64 + 1, self.now.plus_ms(30_000));
        let (fence, execute_by) = *self.ledger.entry(key.clone()).or_insert(next);
        Event::Reserved { key, fence, execute_by }
    }

    /// The agent: executes a key once, and answers a repeat from its journal.
    fn dispatch(&mut self, reservation: &Reservation) -> Vec<Event> {
        let key = reservation.key.clone();
        if let Some(status) = self.executed.get(&key) {
            return vec![Event::Finished { key, outcome: f::outcome(*status, self.now) }];
        }
        let roll = self.fate.roll(&key, "execute");
        if roll < 12 {
            return vec![Event::DispatchRefused { key, code: "order".into(), reason: "no".into() }];
        }
        if roll < 20 {
            return vec![];
        }
        let status = match roll {
            20..40 => OutcomeStatus::Failed,
            40..48 => OutcomeStatus::Unknown,
            _ => OutcomeStatus::Succeeded,
        };
        self.executed.insert(key.clone(), status);
        let outcome = f::outcome(status, self.now);
        vec![Event::Accepted { key: key.clone(), journal: 1 }, Event::Finished { key, outcome }]
    }

    /// Runs to the end, dying wherever `dies` says so (by the number of events so far).
    fn run(mut self, dies: impl Fn(usize) -> bool) -> Driver {
        for _ in 0..2_000 {
            let Some(events) = self.next() else { break };
            for event in events {
                self.commit(event);
                if dies(self.journal.len()) {
                    self.restart();
                    break;
                }
            }
        }
        assert!(self.incident.is_closed(), "left in {:?}", self.incident.phase);
        assert!(self.queue.is_empty() || self.next().is_some());
        verify_chain(&self.artifacts).unwrap();
        self
    }

    fn resolution(&self) -> Resolution {
        match &self.artifacts.last().unwrap().body {
            Body::IncidentReport { resolution, .. } => *resolution,
            other => panic!("{:?} is no report", other.kind()),
        }
    }
}

#[test]
fn dying_once_after_any_event_changes_nothing_of_the_end() {
    let whole = Driver::new(Fate::KIND).run(|_| false);
    assert_eq!(whole.resolution(), Resolution::Resolved);
    assert_eq!(whole.artifacts.len(), 8);
    for prefix in 1..=whole.journal.len() {
        let died = Driver::new(Fate::KIND).run(|events| events == prefix);
        assert_eq!(died.resolution(), Resolution::Resolved, "died after {prefix} events");
        assert_eq!(died.executed, whole.executed);
    }
}

#[test]
fn dying_after_every_event_still_ends() {
    let died = Driver::new(Fate::KIND).run(|_| true);
    assert_eq!(died.resolution(), Resolution::Resolved);
    assert_eq!(died.executed.len(), 4);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, rng_seed: RngSeed::Fixed(2), ..ProptestConfig::default() })]

    /// Whatever goes wrong, wherever the host dies: it ends, and in the same way as without dying.
    #[test]
    fn dying_in_a_world_where_things_fail(seed in 1u64.., dies in prop::collection::btree_set(2usize..40, 0..6)) {
        let whole = Driver::new(Fate(seed)).run(|_| false);
        let died = Driver::new(Fate(seed)).run(|events| dies.contains(&events));
        prop_assert_eq!(died.resolution(), whole.resolution());
        prop_assert_eq!(died.executed, whole.executed);
    }
}
