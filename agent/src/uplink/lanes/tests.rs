//! The lanes beside a spool and a host: nothing is left out, the backlog does not hold up what is new.

use super::*;
use proptest::prelude::*;
use std::time::Duration;

fn turns(lanes: &mut Lanes, newest: u64) -> Vec<(Lane, u64)> {
    let mut turns = Vec::new();
    while let Some((lane, after)) = lanes.turn(newest, None) {
        lanes.sent(lane, after + 1);
        turns.push((lane, after + 1));
    }
    turns
}

#[test]
fn without_a_backlog_there_is_one_lane() {
    let mut lanes = Lanes::new(7, 16, true);
    assert_eq!(turns(&mut lanes, 10), [(Lane::Backlog, 8), (Lane::Backlog, 9), (Lane::Backlog, 10)]);
    lanes.forget_safe(|n| n <= 10);
    assert_eq!(turns(&mut lanes, 11), [(Lane::Backlog, 11)]);
    assert_eq!(turns(&mut lanes, 11), []);
}

#[test]
fn what_is_new_goes_ahead_of_a_backlog_once_the_oldest_has_gone() {
    let mut lanes = Lanes::new(0, 16, true);
    let first = turns(&mut lanes, 100);
    let backlog: Vec<_> = (1..=12).map(|n| (Lane::Backlog, n)).collect();
    assert_eq!(first, backlog, "a quarter is kept for what is new");
    assert_eq!(turns(&mut lanes, 102), [(Lane::Ahead, 101), (Lane::Ahead, 102)]);
    lanes.forget_safe(|n| n <= 2 || n == 101);
    assert_eq!(turns(&mut lanes, 103), [(Lane::Ahead, 103), (Lane::Backlog, 13), (Lane::Backlog, 14)]);
    // The backlog has come to where the other began: one lane again.
    lanes.forget_safe(|_| true);
    lanes.after = 99;
    assert_eq!(turns(&mut lanes, 104), [(Lane::Ahead, 104), (Lane::Backlog, 100)]);
    assert_eq!(turns(&mut lanes, 105), [(Lane::Backlog, 105)]);
    assert!(lanes.ahead.is_none());
}

#[test]
fn a_host_that_takes_them_in_order_has_one_lane() {
    let mut lanes = Lanes::new(0, 4, false);
    assert_eq!(turns(&mut lanes, 100).len(), 4);
    lanes.forget_safe(|n| n <= 4);
    assert_eq!(turns(&mut lanes, 101)[0], (Lane::Backlog, 5));
    lanes.back_to(6);
    assert_eq!(turns(&mut lanes, 101)[0], (Lane::Backlog, 6));
}

#[tokio::test(start_paused = true)]
async fn a_host_without_room_for_the_backlog_is_sent_what_is_new() {
    let mut lanes = Lanes::new(0, 16, true);
    turns(&mut lanes, 100);
    let until = Instant::now() + Duration::from_secs(1);
    lanes.pause(5, until);
    lanes.again(5);
    assert_eq!(turns(&mut lanes, 101), [(Lane::Ahead, 101)]);
    lanes.pause(101, until + Duration::from_secs(1));
    lanes.again(101);
    assert_eq!((turns(&mut lanes, 102), lanes.resumes_at()), (vec![], Some(until)));
    lanes.resume(until);
    assert_eq!(turns(&mut lanes, 102), [], "without room for what is new there is none for the backlog");
    lanes.resume(until + Duration::from_secs(1));
    let again = turns(&mut lanes, 102);
    assert_eq!(again[..3], [(Lane::Ahead, 101), (Lane::Ahead, 102), (Lane::Backlog, 5)]);
}

/// A step in the life of a stream.
#[derive(Clone, Debug)]
enum Step {
    Sample(u64),
    /// The host reads so many frames, and finds room for them or does not.
    Take(usize, bool),
    Seal,
    /// The oldest so many are dropped by the spool's bounds.
    Shed(u64),
    Broken,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u64..12).prop_map(Step::Sample),
        6 => (1usize..12, prop::bool::weighted(0.9)).prop_map(|(n, room)| Step::Take(n, room)),
        3 => Just(Step::Seal),
        1 => (1u64..5).prop_map(Step::Shed),
        1 => Just(Step::Broken),
    ]
}

/// What is told of the host's: up to where it has all, and what else.
fn safe_of(sealed: &BTreeSet<u64>) -> u64 {
    (1..).take_while(|n| sealed.contains(n)).last().unwrap_or(0)
}

proptest! {
    /// Whatever breaks, is shed, or finds no room: in the end the host has all that the spool did not drop, and knows of
    /// the rest that it will never come.
    #[test]
    fn all_of_it_arrives(
        waiting in 0u64..60, limit in 1usize..20, steps in proptest::collection::vec(step(), 1..80),
    ) {
        let (mut spool, mut newest): (BTreeSet<u64>, u64) = ((1..=waiting).collect(), waiting);
        let (mut had, mut sealed) = (BTreeSet::new(), BTreeSet::<u64>::new());
        let mut lanes = Lanes::new(0, limit, true);
        // On their way: the sequence, and how many before it the spool no longer holds.
        let mut wire: Vec<(u64, u64)> = Vec::new();
        let pump = |lanes: &mut Lanes, spool: &BTreeSet<u64>, sealed: &BTreeSet<u64>, wire: &mut Vec<(u64, u64)>, newest| {
            let mut but = None;
            while let Some((lane, after)) = lanes.turn(newest, but) {
                let Some(&found) = spool.range(after + 1..).find(|n| !sealed.contains(n)) else {
                    if but.replace(lane).is_some() || lane == Lane::Backlog { break }
                    continue;
                };
                lanes.sent(lane, found);
                wire.push((found, found - after - 1));
            }
        };
        let rest = [Step::Broken].into_iter().chain(std::iter::repeat_n([Step::Take(99, true), Step::Seal], 1_000).flatten());
        let count = steps.len();
        for (i, step) in steps.into_iter().chain(rest).enumerate() {
            if i == count {
                // What was shed at the very end is told by what comes after it.
                newest += 1;
                spool.insert(newest);
            }
            if i > count && safe_of(&sealed) == newest {
                break;
            }
            match step {
                Step::Sample(n) => {
                    spool.extend(newest + 1..=newest + n);
                    newest += n;
                }
                Step::Take(n, room) => {
                    for (sequence, lost) in wire.drain(..n.min(wire.len())).collect::<Vec<_>>() {
                        for gone in sequence - lost..sequence {
                            prop_assert!(!spool.contains(&gone) || had.contains(&gone), "{gone} is told as lost");
                            had.insert(gone);
                        }
                        if room {
                            had.insert(sequence);
                        } else {
                            let now = Instant::now();
                            lanes.pause(sequence, now);
                            lanes.again(sequence);
                            lanes.resume(now);
                        }
                    }
                }
                Step::Seal => {
                    sealed.extend(&had);
                    let safe = safe_of(&sealed);
                    lanes.forget_safe(|n| sealed.contains(&n));
                    spool.retain(|n| *n > safe);
                }
                Step::Shed(n) => {
                    for _ in 0..n {
                        if spool.len() > 1 { spool.pop_first(); }
                    }
                }
                Step::Broken => {
                    wire.clear();
                    lanes = Lanes::new(safe_of(&sealed), limit, true);
                }
            }
            prop_assert!(lanes.in_flight.len() <= limit);
            pump(&mut lanes, &spool, &sealed, &mut wire, newest);
        }
        prop_assert_eq!(safe_of(&sealed), newest, "{:?} {:?}", lanes, spool);
    }
}
