//! What opens a breaker, what keeps it open, and what it never stands in the way of.

use super::*;
use proptest::{prelude::*, test_runner::RngSeed};

fn incident(n: u32) -> IncidentId {
    IncidentId::new(format!("inc-{n}"))
}

fn node(n: u32) -> NodeId {
    NodeId::new(format!("n{n}"))
}

/// Node n is in pool n % 2; ten nodes in all.
fn scopes(n: u32) -> Vec<(Scope, u32)> {
    let of = |kind, name: String, size| (Scope { kind, name }, size);
    vec![of(ScopeKind::Node, format!("n{n}"), 1), of(ScopeKind::Pool, format!("p{}", n % 2), 5), (Scope::fleet(), 10)]
}

fn begin(
    breakers: &mut Breakers,
    at: i64,
    who: u32,
    on: u32,
    direction: Direction,
    recovers: bool,
) -> Result<(), Open> {
    let (incident, node, scopes) = (incident(who), node(on), scopes(on));
    let beginning = Beginning { incident: &incident, direction, recovers, node: &node, scopes: &scopes };
    breakers.admit(Time(at), &beginning)?;
    if direction == Direction::Forward && !recovers {
        breakers.begun(Time(at), &incident, &node, &scopes);
    }
    Ok(())
}

fn forward(breakers: &mut Breakers, at: i64, who: u32, on: u32) -> Result<(), Open> {
    begin(breakers, at, who, on, Direction::Forward, false)
}

fn limits() -> Limits {
    Limits {
        window_ms: 1_000,
        node: Limit { count: 2, percent: 100 },
        pool: Limit { count: 9, percent: 40 },
        fleet: Limit { count: 6, percent: 100 },
        ..Limits::default()
    }
}

#[test]
fn by_count_it_opens_and_stays_open_until_it_is_reset() {
    let mut breakers = Breakers::new(limits());
    for n in 0..2 {
        assert_eq!(forward(&mut breakers, 0, n, 1), Ok(()));
        breakers.ended(&incident(n));
    }
    let opened = forward(&mut breakers, 10, 2, 1).unwrap_err();
    assert_eq!((opened.scope.to_string().as_str(), opened.fresh), ("node/n1", true));
    assert!(opened.to_string().contains("2 actions were begun there within 1000 ms"), "{opened}");
    let later = forward(&mut breakers, 1_000_000, 3, 1).unwrap_err();
    assert_eq!((later.scope.to_string().as_str(), later.fresh), ("node/n1", false), "it does not close by itself");
    assert_eq!(forward(&mut breakers, 1_000_000, 3, 3), Ok(()), "another node");
    let scope = Scope::parse("node/n1").unwrap();
    assert!(breakers.reset(&scope) && !breakers.reset(&scope));
    assert_eq!(forward(&mut breakers, 1_000_001, 4, 1), Ok(()));
}

#[test]
fn by_share_of_the_nodes_and_the_first_two_are_free() {
    let mut breakers = Breakers::new(limits());
    assert_eq!(forward(&mut breakers, 0, 0, 0), Ok(()));
    assert_eq!(forward(&mut breakers, 0, 1, 2), Ok(()));
    let opened = forward(&mut breakers, 0, 2, 4).unwrap_err();
    assert_eq!(opened.scope.to_string(), "pool/p0");
    assert!(opened.reason.contains("3 of 5 nodes") && opened.reason.contains("40 %"), "{}", opened.reason);
    assert_eq!(forward(&mut breakers, 0, 3, 1), Ok(()), "the other pool");
    let shown = breakers.standing(Time(0));
    let pool = shown.iter().find(|standing| standing.scope.to_string() == "pool/p0").unwrap();
    assert_eq!((pool.begun, pool.nodes, pool.opened_at), (2, 2, Some(Time(0))));
}

#[test]
fn what_has_aged_out_does_not_count_and_is_forgotten() {
    let mut breakers = Breakers::new(limits());
    for n in 0..6 {
        assert_eq!(forward(&mut breakers, i64::from(n) * 1_001, n, 1), Ok(()));
        breakers.ended(&incident(n));
    }
    assert_eq!(breakers.standing(Time(100_000)), vec![]);
}

#[test]
fn a_restart_forgets_neither_what_was_begun_nor_what_is_open() {
    let mut breakers = Breakers::new(limits());
    breakers.count(Time(0), &node(1), &scopes(1));
    breakers.begun(Time(5), &incident(7), &node(1), &scopes(1));
    assert_eq!(forward(&mut breakers, 6, 7, 1), Ok(()), "it goes on with what it has begun");
    assert!(forward(&mut breakers, 6, 8, 1).is_err());
    let mut breakers = Breakers::new(limits());
    breakers.restore(Scope::fleet(), Time(0), "too much".into());
    assert_eq!(forward(&mut breakers, 9, 1, 1).unwrap_err().reason, "too much");
}

#[test]
fn scopes_are_written_and_read_back() {
    for text in ["fleet", "node/node-a", "pool/a/b", "rack/r1", "tenant/t"] {
        assert_eq!(Scope::parse(text).unwrap().to_string(), text);
    }
    for text in ["", "pool", "pool/", "fleet/x", "planet/earth"] {
        assert_eq!(Scope::parse(text), None, "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, rng_seed: RngSeed::Fixed(11), ..ProptestConfig::default() })]

    #[test]
    fn no_breaker_ever_blocks_a_recovery_and_none_lets_more_begin_than_it_may(
        counts in (0u32..4, 0u32..6, 0u32..8),
        percent in 0u8..=100,
        deeds in prop::collection::vec((0u32..12, 0u32..10, 0u8..8, 0i64..400), 0..120),
    ) {
        let limits = Limits {
            window_ms: 1_000,
            node: Limit { count: counts.0, percent: 100 },
            pool: Limit { count: counts.1, percent },
            fleet: Limit { count: counts.2, percent },
            ..Limits::default()
        };
        let mut breakers = Breakers::new(limits.clone());
        let (mut at, mut going) = (0, BTreeSet::new());
        // What was begun, as the world sees it, and when a scope was reset last.
        let mut begun: Vec<(i64, u32)> = Vec::new();
        let mut reset: BTreeMap<Scope, i64> = BTreeMap::new();
        for (who, on, what, later) in deeds {
            at += later;
            match what {
                0 => { breakers.ended(&incident(who)); going.remove(&who); }
                1 => for (scope, _) in scopes(on) {
                    if breakers.reset(&scope) { reset.insert(scope, at); }
                },
                _ => {
                    prop_assert_eq!(begin(&mut breakers, at, who, on, Direction::Compensate, false), Ok(()));
                    prop_assert_eq!(begin(&mut breakers, at, who, on, Direction::Forward, true), Ok(()));
                    let admitted = forward(&mut breakers, at, who, on);
                    if going.contains(&who) {
                        prop_assert_eq!(admitted, Ok(()), "what has begun goes on");
                    } else if admitted.is_ok() {
                        going.insert(who);
                        begun.push((at, on));
                        for (scope, size) in scopes(on) {
                            let inside = |n: u32| scopes(n).iter().any(|(other, _)| *other == scope);
                            let since = (at - 1_000).max(*reset.get(&scope).unwrap_or(&i64::MIN));
                            let counted: Vec<u32> = begun
                                .iter()
                                .filter(|(when, n)| *when > since && inside(*n))
                                .map(|(_, n)| *n)
                                .collect();
                            let limit = limits.of(scope.kind);
                            prop_assert!(counted.len() <= limit.count as usize, "{scope}");
                            let nodes: BTreeSet<&u32> = counted.iter().collect();
                            let share = nodes.len() * 100 <= usize::from(limit.percent) * size as usize;
                            prop_assert!(nodes.len() < SHARE_FROM_NODES || share || limit.percent == 100, "{scope}");
                        }
                    }
                }
            }
        }
    }
}
