//! What holds whatever is done to a slot.

use super::*;
use proptest::{prelude::*, test_runner::RngSeed};

/// Names collide on purpose, so that refusals come as often as changes.
fn change() -> impl Strategy<Value = (u8, u8, u8, u8)> {
    (0..8u8, any::<u8>(), any::<u8>(), 1..100u8)
}

fn made(slot: &Slot, roll: (u8, u8, u8, u8)) -> Change {
    let (kind, a, b, percent) = roll;
    let known = |n: u8| {
        let index = usize::from(n) % slot.entries.len().max(1);
        slot.entries.get(index).map_or_else(|| id("nobody"), |entry| entry.id.clone())
    };
    let fresh = || EntryId(format!("{}-{}", ["a", "b", "c"][usize::from(a) % 3], slot.generation + 1));
    match kind {
        0 if a % 4 == 0 => {
            let count = usize::from(b % 3) + 1;
            let standing: Vec<Entry> = slot.active().take(1).cloned().collect();
            let new = (0..count).map(|n| entry(&format!("{}{n}-{}", ["a", "b"][n % 2], slot.generation + 1), None));
            seed(standing.into_iter().chain(new).collect())
        }
        0..=2 => {
            let mut new = entry("x", None);
            new.id = if b == 0 { known(a) } else { fresh() };
            new.replaces = (b % 3 > 0).then(|| known(b));
            Change::Add { entry: Box::new(new) }
        }
        3 | 4 => {
            let to = [Stage::Shadow, canary(percent), Stage::Active, Stage::Active][usize::from(b) % 4];
            Change::Promote {
                entry: known(a),
                to,
                proof: Box::new(Proof { overridden: (b % 5 > 0).then(|| "why".into()), ..proof() }),
            }
        }
        5 => Change::Retire { entry: known(a) },
        6 => Change::RollBack { entry: known(a), quarantine: quarantine() },
        _ => Change::Flag { entry: known(a), quarantine: quarantine() },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, rng_seed: RngSeed::Fixed(4), ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done(rolls in prop::collection::vec(change(), 1..64)) {
        let mut slot = after([seed(vec![entry("a-1", None)])]);
        let mut at = START;
        for roll in rolls {
            at = at.plus_ms(1_000);
            let change = made(&slot, roll);
            let before = slot.clone();
            let next = match slot.apply(change.clone(), at) {
                Ok(next) => next,
                Err(_) => {
                    prop_assert_eq!(&slot, &before, "nothing refused changes the slot");
                    continue;
                }
            };
            prop_assert_eq!(next.generation, before.generation + 1);
            prop_assert!(next.active().count() > 0, "{:?} left nobody who answers: {}", change, shown(&next));
            let mut ids: Vec<&EntryId> = next.entries.iter().map(|entry| &entry.id).collect();
            ids.sort();
            ids.dedup();
            prop_assert_eq!(ids.len(), next.entries.len(), "an id stands twice: {}", shown(&next));
            let open = next.entries.iter().filter(|entry| entry.is_open()).count();
            prop_assert!(open <= ENTRIES_MAXIMUM);
            prop_assert!(next.entries.len() - open <= RETIRED_MAXIMUM + open);
            // Whoever waits for a place waits for one that is taken; whoever failed is out, or active and flagged.
            for entry in next.entries.iter().filter(|entry| entry.is_open()) {
                if let (true, Some(replaces)) = (entry.stage != Stage::Active, &entry.replaces) {
                    prop_assert!(next.active().any(|active| active.id == *replaces), "{}", shown(&next));
                }
                prop_assert!(entry.quarantine.is_none() || entry.stage == Stage::Active, "{}", shown(&next));
            }
            if let Change::RollBack { entry, .. } = &change {
                let was = before.entry(entry).unwrap();
                let now = next.entry(entry);
                prop_assert!(now.is_none_or(|now| now.stage == Stage::Retired && now.quarantine.is_some()));
                let mut good = was.replaces.clone();
                while let Some(found) = good.as_ref().and_then(|id| before.entry(id)).filter(|found| found.quarantine.is_some()) {
                    good = found.replaces.clone();
                }
                if was.stage == Stage::Active {
                    let good = good.unwrap();
                    prop_assert_eq!(next.entry(&good).unwrap().stage, Stage::Active, "{} -> {}", shown(&before), shown(&next));
                } else {
                    let active = |slot: &Slot| slot.active().map(|entry| entry.id.clone()).collect::<Vec<_>>();
                    prop_assert_eq!(active(&before), active(&next));
                }
            }
            for number in 0..20 {
                let key = format!("node/node-{number}");
                let cast = next.cast(&key);
                prop_assert_eq!(&cast, &next.cast(&key));
                prop_assert!(!cast.answering.is_empty());
                let mut asked: Vec<&EntryId> =
                    cast.answering.iter().chain(&cast.shadows).map(|entry| &entry.id).collect();
                let all = asked.len();
                asked.sort();
                asked.dedup();
                prop_assert_eq!(asked.len(), all, "an entry is asked twice");
            }
            prop_assert_eq!(&serde_json::from_str::<Slot>(&serde_json::to_string(&next).unwrap()).unwrap(), &next);
            slot = next;
        }
    }
}
