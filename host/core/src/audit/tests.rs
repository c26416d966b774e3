//! Whatever is done to a chain shows at the first place where it was done.

use super::*;
use proptest::{prelude::*, test_runner::RngSeed};

fn act(n: u64) -> Act {
    Act {
        principal: PrincipalId::new(format!("p{}", n % 3)),
        rank: n.is_multiple_of(2).then_some(Rank::Approver),
        action: "plan.approve".into(),
        target: format!("plan-{n}"),
        outcome: if n.is_multiple_of(5) { ActOutcome::Refused } else { ActOutcome::Done },
        detail: BTreeMap::from([("comment".into(), format!("word {n}"))]),
    }
}

fn chain(length: u64) -> Vec<Entry> {
    let mut head = Head::start();
    (0..length)
        .map(|n| {
            let at = Time(1_000 + i64::try_from(n).unwrap());
            let entry = head.next(at, act(n));
            head = Head { number: entry.number, hash: entry.hash.clone() };
            entry
        })
        .collect()
}

fn walk(entries: &[Entry], noted: Vec<Head>) -> Result<Head, Broken> {
    let mut walk = Walk::new(noted);
    for entry in entries {
        walk.take(entry)?;
    }
    walk.end()
}

fn head_of(entries: &[Entry]) -> Head {
    entries.last().map_or_else(Head::start, |entry| Head { number: entry.number, hash: entry.hash.clone() })
}

/// Makes the hashes right again from `from` on, as somebody would who knows how they are made.
fn rehash(entries: &mut [Entry], from: usize) {
    for index in from..entries.len() {
        let before = index.checked_sub(1).map_or_else(|| Head::start().hash, |before| entries[before].hash.clone());
        entries[index].previous = before;
        entries[index].hash = entries[index].computed_hash();
    }
}

#[test]
fn what_was_noted_shows_what_the_chain_itself_cannot() {
    let whole = chain(9);
    let head = head_of(&whole);
    assert_eq!(walk(&whole, vec![]), Ok(head.clone()));
    assert_eq!(walk(&whole, vec![head_of(&whole[..4]), head.clone()]), Ok(head.clone()), "old heads hold, too");
    assert_eq!(walk(&whole[..7], vec![]), Ok(head_of(&whole[..7])), "cut off, and nobody had noted its end");
    assert_eq!(
        walk(&whole[..7], vec![head.clone()]).unwrap_err().to_string(),
        "entry 8: it is missing: the chain ends before it, and entry 9 was noted"
    );
    let mut anew = whole.clone();
    anew[2].target = "another plan".into();
    rehash(&mut anew, 2);
    assert!(walk(&anew, vec![]).is_ok(), "written anew to the end it is a chain");
    let broken = Broken { number: 9, why: Why::NotAsNoted };
    assert_eq!(walk(&anew, vec![head]), Err(broken));
    assert_eq!(walk(&[], vec![]), Ok(Head::start()));
}

#[test]
fn a_head_is_written_and_read_back() {
    let head = head_of(&chain(3));
    assert_eq!(Head::parse(&format!(" {head}\n")), Some(head.clone()));
    for wrong in
        ["", "3", "3:", "x:00", &format!("3:{}", &head.hash.0[1..]), &format!("3:{}", head.hash.0.to_uppercase())]
    {
        assert_eq!(Head::parse(wrong), None, "{wrong}");
    }
}

/// What somebody does to a chain.
#[derive(Clone, Debug)]
enum Tampering {
    Change { at: usize, field: u8, rehashed: bool },
    Remove { at: usize, renumbered: bool },
    Swap { a: usize, b: usize },
    Repeat { at: usize },
    CutOff { left: usize },
}

fn tampering() -> impl Strategy<Value = Tampering> {
    let at = 0usize..40;
    prop_oneof![
        (at.clone(), 0u8..7, any::<bool>()).prop_map(|(at, field, rehashed)| Tampering::Change { at, field, rehashed }),
        (at.clone(), any::<bool>()).prop_map(|(at, renumbered)| Tampering::Remove { at, renumbered }),
        (at.clone(), at.clone()).prop_map(|(a, b)| Tampering::Swap { a, b }),
        at.clone().prop_map(|at| Tampering::Repeat { at }),
        at.prop_map(|left| Tampering::CutOff { left }),
    ]
}

fn tamper(entries: &mut Vec<Entry>, how: &Tampering) {
    let length = entries.len();
    match *how {
        Tampering::Change { at, field, rehashed } => {
            let entry = &mut entries[at % length];
            match field {
                0 => entry.at = Time(entry.at.0 + 1),
                1 => entry.principal.0.push('x'),
                2 => entry.rank = if entry.rank.is_none() { Some(Rank::Admin) } else { None },
                3 => entry.action = "plan.deny".into(),
                4 => entry.target.clear(),
                5 => {
                    entry.outcome =
                        if entry.outcome == ActOutcome::Done { ActOutcome::Refused } else { ActOutcome::Done }
                }
                _ => entry.detail.clear(),
            }
            if rehashed {
                entry.hash = entry.computed_hash();
            }
        }
        Tampering::Remove { at, renumbered } => {
            entries.remove(at % length);
            if renumbered {
                for (number, entry) in (1..).zip(entries.iter_mut()) {
                    entry.number = number;
                }
            }
        }
        Tampering::Swap { a, b } => entries.swap(a % length, b % length),
        Tampering::Repeat { at } => {
            let entry = entries[at % length].clone();
            entries.insert(at % length, entry);
        }
        Tampering::CutOff { left } => entries.truncate(left % length),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, rng_seed: RngSeed::Fixed(9), ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_to_a_chain_shows_where_it_was_done(
        length in 1u64..40,
        deeds in prop::collection::vec(tampering(), 1..4),
    ) {
        let whole = chain(length);
        let mut entries = whole.clone();
        for how in &deeds {
            if !entries.is_empty() {
                tamper(&mut entries, how);
            }
        }
        let found = walk(&entries, vec![head_of(&whole)]);
        let first = whole.iter().zip(&entries).take_while(|(a, b)| a == b).count();
        if entries == whole {
            prop_assert_eq!(found, Ok(head_of(&whole)));
        } else {
            let Err(broken) = found else { return Err(TestCaseError::fail("it went unseen")) };
            // An entry whose own hash was made right again shows at the one after, which names another.
            let place = usize::try_from(broken.number).unwrap() - 1;
            let rehashed = entries.get(first).is_some_and(|entry| entry.hash == entry.computed_hash());
            prop_assert!(place == first || (rehashed && place == first + 1), "{broken} and not at {}", first + 1);
        }
    }
}
